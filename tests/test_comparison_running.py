"""The comparison: it is nested cross-validation, nothing leaks, and nothing is measured twice or served wrongly."""

from __future__ import annotations

import weakref
from copy import deepcopy
from dataclasses import fields, replace

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.pipeline import Pipeline

from featx.comparison import (
    Candidate,
    ComparisonSettings,
    Journal,
    LayerCost,
    budget_named,
    compare_candidates,
    joined_layers,
    make_candidates,
    running,
)
from featx.errors import HeadError, UsageError
from featx.heads import HEADS
from featx.heads.fitting import make_folds
from featx.heads.searching import mean_square_norm
from featx.reducers import make_reducer, make_scaler

FAST = ComparisonSettings(n_folds=3, n_repeats=2, n_inner_folds=2)
FASTER = replace(FAST, n_folds=2)
BASELINE = Candidate("early", "none", "none", "majority")


def layer_of(y, signal, width=20, seed=0):
    """Return features in which the classes are so far apart."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(y.max() + 1, width))
    return (signal * centres[y] + rng.normal(size=(len(y), width))).astype(np.float32)


def made_up(n_rows=90, n_classes=3, seed=0, width=20):
    """Return a layer of little signal, one of more, and classes."""
    y = np.random.default_rng(seed).permutation(np.arange(n_rows) % n_classes)
    return {"early": layer_of(y, 0.3, width), "late": layer_of(y, 0.6, width + 7, seed=1)}, y


CANDIDATES = (
    Candidate("early", "zscore", "none", "ridge"),
    Candidate("early", "l2", "pca:4", "knn"),
    Candidate("late", "zscore", "none", "ridge"),
    Candidate("late", "zscore", "pca:3", "tree"),
    Candidate("early+late", "zscore", "none", "ridge"),
    BASELINE,
)


def timeless(comparison):
    """Return everything but times, by candidate."""
    results = {r.candidate: replace(r, fit_seconds=0.0, predict_ms=0.0) for r in comparison.results}
    rest = {field.name: getattr(comparison, field.name) for field in fields(comparison) if field.name != "results"}
    return results, rest


@pytest.fixture
def fits(monkeypatch):
    """Return a list of the heads that were fitted and scored, kept up to date."""
    seen = []
    original = running.fit_fold

    def counted(head, *args, **settings):
        seen.append(head)
        return original(head, *args, **settings)

    monkeypatch.setattr(running, "fit_fold", counted)
    return seen


# --- against scikit-learn --------------------------------------------------------------------------------------------


def nested(X, y, candidate, settings, seed_of_folds):
    """Return what nested cross-validation names for every row, and the parameters of each fold, in scikit-learn."""

    class Search(GridSearchCV):
        """A search whose folds and grid are those of its training rows."""

        def fit(self, X, y):
            self.cv = make_folds(y, None, settings.n_inner_folds, settings.seed)[0]
            norm = mean_square_norm(make_scaler(candidate.scale).fit_transform(X))
            fewest = min(len(train) for train, _ in self.cv)
            grid = HEADS[candidate.head].candidates(norm, fewest)
            self.param_grid = [{f"head__{name}": [value] for name, value in params.items()} for params in grid]
            super().fit(X, y)
            chosen.append({name.removeprefix("head__"): value for name, value in self.best_params_.items()})
            return self

    chosen = []
    steps = [
        ("scale", make_scaler(candidate.scale)),
        ("reduce", make_reducer(candidate.reduce, random_state=settings.seed)),
        ("head", HEADS[candidate.head].make(settings.seed, settings.class_weight)),
    ]
    folds = make_folds(y, None, settings.n_folds, seed_of_folds)[0]
    return folds, cross_val_predict(Search(Pipeline(steps), {}), X, y, cv=folds), chosen


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")  # the oracle's; ours become notes
@pytest.mark.parametrize(
    ("scale", "reduce", "head", "width", "exact"),
    [
        ("zscore", "none", "ridge", 15, True),
        ("zscore", "none", "ridge", 80, True),
        ("none", "pca:5", "ridge", 80, True),
        ("l2", "none", "knn", 15, True),
        ("zscore", "pca:0.7", "svm-rbf", 15, True),
        ("zscore", "pq:4", "ridge", 15, True),
        ("none", "none", "tree", 15, True),
        # Their search stops early: another C may be chosen where two are nearly equal.
        ("zscore", "none", "svm", 15, False),
        ("zscore", "none", "svm", 80, False),
        ("minmax", "none", "logistic", 80, False),
    ],
)
def test_comparison_equals_nested_cross_validation(scale, reduce, head, width, exact):
    """Accuracy, balanced accuracy, F1 and chosen parameters of each fold are those of scikit-learn's nested search."""
    layers, y = made_up(72, width=width)
    candidate, settings = Candidate("early", scale, reduce, head), ComparisonSettings(3, 2, 3, seed=5)
    journal = Recorder()
    (ours,) = compare_candidates(layers, y, [candidate], settings, journal=journal).results
    expected, chosen, means = [], [], []
    for repeat in range(2):
        folds, named, params = nested(layers["early"].astype(float), y, candidate, settings, 5 + repeat)
        chosen += params
        for _, test in folds:
            expected.append(accuracy_score(y[test], named[test]))
            pair = y[test], named[test]
            means.append([expected[-1], balanced_accuracy_score(*pair), f1_score(*pair, average="macro")])
    if exact:
        assert ours.fold_accuracies == pytest.approx(expected)
        assert (ours.accuracy, ours.balanced_accuracy, ours.macro_f1) == pytest.approx(np.mean(means, axis=0))
        assert [score.params for score in journal.scores] == chosen
    else:
        assert np.abs(np.array(ours.fold_accuracies) - expected).max() <= 3 / 24 + 1e-9
        assert ours.accuracy == pytest.approx(np.mean(expected), abs=0.03)
    assert ours.accuracy > 0.4


class Recorder(Journal):
    """A journal that keeps scores in the order of their coming."""

    def __init__(self):
        super().__init__()
        self.scores = []

    def add(self, key, scores):
        kept = list(scores)
        self.scores += [score for _, _, score in kept]
        super().add(key, kept)


def test_candidates_do_not_change_each_other():
    """Each candidate scores as it does alone: shared scaling and decompositions are only shared work."""
    layers, y = made_up(60, width=50)
    ways = [
        ("zscore", "none", "ridge"),
        ("zscore", "pca:4", "ridge"),
        ("zscore", "pca:9", "knn"),
        ("l2", "none", "svm"),
    ]
    candidates = make_candidates(["early", "early+late"], {"early": 50, "late": 57}, ways, 40)
    together = {r.candidate: r for r in compare_candidates(layers, y, candidates, FAST).results}
    for candidate in candidates:
        (alone,) = compare_candidates(layers, y, [candidate], FAST).results
        assert alone.fold_accuracies == together[candidate].fold_accuracies
        assert alone.params == together[candidate].params


def test_summary_is_complete():
    """The comparison says what was compared, on which rows, and at what cost; the planted layer is the best."""
    layers, y = made_up()
    costs = {"early": LayerCost(0.1, 0.25), "late": LayerCost(0.4, 1.0)}
    result = compare_candidates(layers, y, CANDIDATES, FAST, layer_costs=costs, rows="some rows")
    assert {r.candidate for r in result.results} == set(CANDIDATES)
    assert (result.n_rows, result.n_classes, result.n_folds, result.n_repeats) == (90, 3, 3, 2)
    assert (result.seed, result.rows, result.notes) == (0, "some rows", ())
    assert all(len(r.fold_accuracies) == 6 for r in result.results)
    assert "late" in result.best.candidate.layer
    assert result.learned
    by_candidate = {r.candidate: r for r in result.results}
    assert by_candidate[CANDIDATES[4]].cost.gmacs == 0.4
    assert by_candidate[BASELINE].accuracy == pytest.approx(1 / 3)
    assert min(r.fit_seconds for r in result.results) > 0
    assert min(r.predict_ms for r in result.results) > 0


def test_processes_do_not_change_the_result():
    """Two processes give what one gives, down to the last digit."""
    layers, y = made_up(60)
    one, two = (compare_candidates(layers, y, CANDIDATES, replace(FAST, n_jobs=n_jobs)) for n_jobs in (1, 2))
    assert timeless(one) == timeless(two)


def test_settings_change_something():
    """Each setting is heard: folds, repeats, inner folds, seed and class weights."""
    layers, y = made_up(60)
    y = np.where(y == 2, 0, y)
    candidates = [Candidate("early", "zscore", "none", head) for head in ("ridge", "tree", "knn")]
    plain = [r.fold_accuracies for r in compare_candidates(layers, y, candidates, FAST).results]
    for change in ({"n_folds": 4}, {"n_repeats": 3}, {"n_inner_folds": 6}, {"seed": 8}, {"class_weight": "balanced"}):
        changed = compare_candidates(layers, y, candidates, replace(FAST, **change)).results
        assert [r.fold_accuracies for r in changed] != plain, change
    weights = {np.int64(0): np.float32(1), np.int64(1): 1}
    same = compare_candidates(layers, y, candidates, replace(FAST, class_weight=weights)).results
    assert sorted(r.fold_accuracies for r in same) == sorted(plain)


# --- honesty ---------------------------------------------------------------------------------------------------------


def test_no_signal_is_not_sold_as_one():
    """With labels that mean nothing, the best of many candidates is said to have learned nothing.

    The test is one of 5 %: of 100 such draws with 36 candidates 6 were wrong, so that of 6 one may be.
    """
    ways = [(s, r, h) for s in ("zscore", "l2") for r in ("none", "pca:4") for h in ("ridge", "knn")]
    n_wrong, means = 0, []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        layers = {name: rng.normal(size=(60, 30)).astype(np.float32) for name in ("a", "b", "c")}
        y = rng.permutation(np.arange(60) % 2)
        candidates = make_candidates(["a", "b", "c"], dict.fromkeys(layers, 30), ways, 40)
        result = compare_candidates(layers, y, candidates, ComparisonSettings(3, 1, 2, seed=seed))
        low, high = result.best.interval
        n_wrong += result.learned or not low <= 0.5 <= high
        means += [r.accuracy for r in result.results if not r.is_baseline]
    assert n_wrong <= 1
    # all candidates together, selection aside: chance, with hyper-parameters chosen inside
    assert abs(np.mean(means) - 0.5) < 0.04


def test_groups_never_cross():
    """Planted copies betray each other where they are divided; as groups they are at chance."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 4)
    y = np.repeat(rng.permutation(40) % 2, 4)
    copies = np.repeat(rng.normal(size=(40, 60)), 4, axis=0) + 0.01 * rng.normal(size=(160, 60))
    candidates = [Candidate("late", "zscore", "none", "ridge"), Candidate("late", "none", "none", "knn")]
    layers, order = {"late": copies.astype(np.float32)}, rng.permutation(160)
    layers = {name: X[order] for name, X in layers.items()}
    divided = compare_candidates(layers, y[order], candidates, FAST)
    together = compare_candidates(layers, y[order], candidates, FAST, groups=groups[order])
    assert min(r.accuracy for r in divided.results) > 0.95
    assert max(r.accuracy for r in together.results) < 0.7
    negative = compare_candidates(layers, y[order], candidates, FAST, groups=np.full(160, -1))
    assert min(r.accuracy for r in negative.results) > 0.95


def test_inner_folds_keep_groups_together_too(monkeypatch):
    """Hyper-parameters are chosen with the groups of the training rows."""
    layers, y = made_up(60)
    groups = np.arange(60) // 2
    seen = []
    original = running.make_folds

    def watched(y, groups, n_folds, seed):
        seen.append((len(y), groups))
        return original(y, groups, n_folds, seed)

    monkeypatch.setattr(running, "make_folds", watched)
    compare_candidates(layers, y, CANDIDATES[:1], FAST, groups=groups)
    inner = [(n, found) for n, found in seen if n < 60]
    assert len(inner) == 6
    assert all(len(found) == n and np.isin(found, groups).all() for n, found in inner)


def test_class_weights_help_balanced_accuracy():
    """On unbalanced classes "balanced" finds more of the rare class, for heads that have weights."""
    rng = np.random.default_rng(0)
    y = rng.permutation(np.repeat([0, 1], [150, 18]))
    layers = {"late": layer_of(y, 0.4)}
    candidates = [Candidate("late", "zscore", "none", head) for head in ("ridge", "logistic", "svm", "knn")]
    plain, balanced = (
        {r.candidate.head: r.balanced_accuracy for r in compare_candidates(layers, y, candidates, settings).results}
        for settings in (FAST, replace(FAST, class_weight="balanced"))
    )
    for head in ("ridge", "logistic", "svm"):
        assert balanced[head] > plain[head] + 0.03
    assert balanced["knn"] == plain["knn"]


class Watched:
    """Features that note which other ones are in memory when they are read."""

    def __init__(self, array, alive):
        self.array, self.alive, self.shape = array, alive, array.shape
        self.met = []

    def __getitem__(self, index):
        self.met.append(sum(reference() is not None for reference in self.alive))
        out = self.array[index].copy()
        self.alive.append(weakref.ref(out))
        return out


def test_one_layer_is_in_memory_at_a_time():
    """When a layer is read, those before it are gone; each is read once, and once more for what it joins."""
    layers, y = made_up(60)
    alive = []
    watched = {name: Watched(X, alive) for name, X in layers.items()}
    candidates = [Candidate(layer, "zscore", "pca:3", "ridge") for layer in ("early", "late")]
    compare_candidates(watched, y, candidates, FAST)
    assert [features.met for features in watched.values()] == [[0], [0]]
    result = compare_candidates(watched, y, CANDIDATES, FAST)
    assert [features.met[1:] for features in watched.values()] == [[0, 0], [0, 1]]  # joined last, beside its neighbour
    assert timeless(result) == timeless(compare_candidates(layers, y, CANDIDATES, FAST))


# --- the journal -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("torn", [False, True])
def test_cut_journal_goes_on_where_it_stopped(tmp_path, fits, torn):
    """From a journal cut in the middle, only the rest is measured, and the result is the same but for times."""
    layers, y = made_up(60)
    path = tmp_path / "j"
    whole = compare_candidates(layers, y, CANDIDATES, FAST, journal=Journal(path))
    n_scores = len(CANDIDATES) * 6
    assert len(fits) == n_scores
    lines = path.read_text().splitlines(keepends=True)
    assert len(lines) == 1 + n_scores
    path.write_text("".join(lines[:15]) + (lines[15][: len(lines[15]) // 2] if torn else ""))
    fits.clear()
    again = compare_candidates(layers, y, CANDIDATES, FAST, journal=Journal(path))
    assert len(fits) == n_scores - 14
    assert timeless(again) == timeless(whole)
    fits.clear()
    assert compare_candidates(layers, y, CANDIDATES, FAST, journal=Journal(path)) == again  # times too
    assert fits == []


def test_interrupted_comparison_goes_on(tmp_path, fits):
    """What was finished before an interrupt is not measured again; progress starts from there."""
    layers, y = made_up(60)
    journal = tmp_path / "j"

    def interrupt(progress):
        if progress.n_done >= 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare_candidates(layers, y, CANDIDATES, FAST, journal=Journal(journal), on_progress=interrupt)
    n_before = len(fits)
    assert 9 <= n_before < 36
    steps = []
    again = compare_candidates(layers, y, CANDIDATES, FAST, journal=Journal(journal), on_progress=steps.append)
    assert len(fits) == 36
    assert (steps[0].n_done, steps[0].seconds_left) == (n_before, None)
    assert timeless(again) == timeless(compare_candidates(layers, y, CANDIDATES, FAST))


@pytest.fixture(scope="module")
def measured():
    """The journal of a comparison; not to be changed."""
    journal = Journal()
    compare_candidates(*made_up(60), CANDIDATES, FASTER, journal=journal)
    return journal


@pytest.mark.parametrize(
    ("change", "n_measured"),
    [
        ("nothing", 0),
        ("a label", 24),
        ("a feature of early", 16),  # also where it is joined, and the baseline beside it
        ("groups", 24),
        ("seed", 24),
        ("class_weight", 24),
        ("n_inner_folds", 24),
        ("n_folds", 36),
        ("one repeat more", 12),
        ("another head", 4),
        ("a grid", 12),
        ("labels of another type", 0),
    ],
)
def test_only_what_is_missing_is_measured(measured, fits, monkeypatch, change, n_measured):
    """Whatever a score depends on makes it unknown when it changes; nothing else does."""
    layers, y = made_up(60)
    journal = deepcopy(measured)
    candidates, settings, groups = CANDIDATES, FASTER, None
    if change == "a label":
        first = np.flatnonzero(y != y[0])[0]
        y = y.copy()
        y[[0, first]] = y[[first, 0]]
    elif change == "a feature of early":
        layers["early"][17, 3] = np.nextafter(layers["early"][17, 3], np.float32(9))
    elif change == "groups":
        groups = np.arange(60)
    elif change == "one repeat more":
        settings = replace(FASTER, n_repeats=3)
    elif change == "another head":
        candidates = (*CANDIDATES, Candidate("late", "zscore", "none", "knn"))
    elif change == "a grid":
        monkeypatch.setitem(HEADS, "ridge", replace(HEADS["ridge"], grid={"alpha": (1.0, 2.0)}))
    elif change == "labels of another type":
        y = y.astype(np.int32)
    elif change != "nothing":
        value = {"seed": 1, "class_weight": "balanced", "n_inner_folds": 3, "n_folds": 3}[change]
        settings = replace(FASTER, **{change: value})
    ours = compare_candidates(layers, y, candidates, settings, groups=groups, journal=journal)
    assert len(fits) == n_measured
    assert timeless(ours) == timeless(compare_candidates(layers, y, candidates, settings, groups=groups))


def test_border_between_layers_is_part_of_what_counts(fits):
    """The same columns side by side, divided otherwise into layers, are scaled otherwise: measured anew."""
    layers, y = made_up(60)
    together = np.hstack([layers["early"], layers["late"]])
    candidate, journal = Candidate("early+late", "zscore", "none", "ridge"), Journal()
    for border in (20, 30):
        fits.clear()
        divided = {"early": together[:, :border], "late": together[:, border:]}
        compare_candidates(divided, y, [candidate], FAST, journal=journal)
        assert len(fits) == 6


def test_progress_counts_to_the_end():
    """The numbers grow up to all scores, with an estimate of the time left that ends at none."""
    layers, y = made_up(60)
    steps = []
    compare_candidates(layers, y, [*CANDIDATES, CANDIDATES[0]], FAST, on_progress=steps.append)
    done = [step.n_done for step in steps]
    assert done == sorted(set(done))
    assert {step.n_total for step in steps} == {36}
    assert done[-1] == 36
    assert steps[-1].seconds_left == 0
    assert all(step.seconds_left > 0 for step in steps[:-1])


# --- little and awkward data -----------------------------------------------------------------------------------------


def test_two_rows_a_class():
    """Two folds are all there can be; hyper-parameters cannot be chosen then, and the notes say both."""
    layers, y = made_up(20, n_classes=10)
    ways = budget_named("quick").ways
    candidates = make_candidates(["early", "late"], {"early": 20, "late": 27}, ways, 10)
    result = compare_candidates(layers, y, candidates)
    assert (result.n_folds, result.n_rows) == (2, 20)
    assert result.notes == ("2 folds instead of 5: the smallest class has 2 rows",)
    assert {c.reduce for c in candidates} == {"none"}
    for found in result.results:
        says = any("default hyper-parameters are used" in note for note in found.notes)
        assert says == (not found.is_baseline)


def test_many_classes_of_few_rows():
    """200 classes of five rows are compared, and told apart."""
    layers, y = made_up(1000, n_classes=200, width=24)
    candidates = [Candidate("late", "zscore", "none", head) for head in ("ridge", "knn")]
    result = compare_candidates(layers, y, [*candidates, BASELINE], ComparisonSettings(5, 1, 2))
    assert (result.n_classes, result.n_rows, result.n_folds) == (200, 1000, 5)
    assert result.learned
    assert result.baseline.accuracy <= 0.01 < 0.1 < result.best.accuracy


def test_strong_imbalance_and_single_rows():
    """A class of 150 rows beside one of three and one of a single row: it runs, and says what was not scored."""
    y = np.repeat([0, 1, 2, 7], [150, 3, 12, 1])
    layers = {"late": layer_of(y, 1.0)}
    candidates = make_candidates(["late"], {"late": 20}, budget_named("quick").ways, 100)
    result = compare_candidates(layers, y, candidates, FAST)
    assert (result.n_rows, result.n_classes) == (165, 4)
    assert result.notes == (
        "1 class has one of the rows only: always learned from, never scored on in cross-validation",
    )
    assert result.baseline.accuracy == pytest.approx(150 / 165)
    assert result.best.balanced_accuracy > result.baseline.balanced_accuracy


def test_notes_of_folds_reach_the_result():
    """What had to be lowered in a fold, or did not converge, stands beside the candidate."""
    layers, y = made_up(30, width=60)
    candidates = [Candidate("early", "zscore", "pca:90", "ridge"), Candidate("early", "zscore", "none", "ridge")]
    lowered, plain = sorted(compare_candidates(layers, y, candidates, FAST).results, key=lambda r: not r.notes)
    assert lowered.candidate.reduce == "pca:90"
    assert lowered.notes == ("pca:90 lowered to pca:20: 20 training rows of 60 features allow no more",)
    assert plain.notes == ()


def test_constant_features_are_compared():
    """A dead layer is at chance beside the others, for every head."""
    layers, y = made_up(40, n_classes=2, width=60)
    layers["early"][:] = 3.0
    heads = ("ridge", "svm", "logistic", "knn", "svm-rbf", "tree")
    candidates = [Candidate("early", "zscore", reduce, head) for head in heads for reduce in ("none", "pca:3")]
    result = compare_candidates(layers, y, candidates, ComparisonSettings(2, 1, 2))
    assert {r.accuracy for r in result.results} == {0.5}


def test_joined_layers_are_compared():
    """Names joined by + are put side by side in the order given."""
    rng = np.random.default_rng(0)
    y = rng.permutation(np.arange(120) % 4)
    layers = {"row": layer_of(y // 2, 0.8), "column": layer_of(y % 2, 0.8, seed=1)}
    names = [*layers, *joined_layers(list(layers))]
    result = compare_candidates(layers, y, [Candidate(name, "zscore", "none", "ridge") for name in names], FAST)
    assert result.best.candidate.layer == "row+column"
    assert result.best.accuracy > result.results[1].accuracy + 0.15


# --- what is wrong ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("candidate", "message"),
    [
        (Candidate("midle", "none", "none", "ridge"), "no features 'midle'; there are early, late"),
        (Candidate("early+midle", "none", "none", "ridge"), "no features 'midle'"),
        (Candidate("late", "robust", "none", "ridge"), "unknown scaler 'robust'"),
        (Candidate("late", "none", "ica:2", "ridge"), "unknown reducer 'ica:2'"),
        (Candidate("late", "none", "none", "perceptron"), "unknown head 'perceptron'"),
    ],
)
def test_unknown_names_are_found_before_anything_is_measured(fits, candidate, message):
    """A typing error in the last candidate does not cost the time of the first."""
    layers, y = made_up()
    with pytest.raises(UsageError, match=message):
        compare_candidates(layers, y, [*CANDIDATES, candidate], FAST)
    assert fits == []


def test_unusable_rows_are_named():
    """NaN, one class, no class, shapes that do not fit, and nothing to compare are errors that say what was found."""
    layers, y = made_up()
    spoiled = {**layers, "late": layers["late"].copy()}
    spoiled["late"][[3, 5], 0] = np.nan, np.inf
    shorter = {**layers, "late": layers["late"][:80]}
    flat = {**layers, "late": layers["late"][:, 0]}
    for features, classes, groups, message in [
        (spoiled, y, None, "2 of 90 rows hold NaN"),
        (layers, np.zeros(90, int), None, r"all 90 rows are of one class \(0\)"),
        (layers, y[:40], None, r"shape \(90, 20\) and classes of shape \(40,\)"),
        (layers, y.astype(float), None, "type float64"),
        (layers, y.astype(str), None, "type <U"),
        (layers, y - 1, None, "the smallest -1"),
        (layers, y[:, None], None, r"classes of shape \(90, 1\)"),
        (layers, [], None, r"classes of shape \(0,\)"),
        (layers, np.arange(90), None, "fewer than two classes have two rows"),
        (layers, y, y, r"fewer than two classes have two rows \(or groups\)"),
        (layers, y, [1, 2], "one group a row"),
        (shorter, y, None, r"shapes? .*80"),
        (flat, y, None, r"shapes? .*90"),
    ]:
        with pytest.raises(HeadError, match=message):
            compare_candidates(features, classes, CANDIDATES, FAST, groups=groups)
    for wrong in (shorter, flat):
        with pytest.raises(HeadError, match="needed is"):
            compare_candidates(wrong, y, CANDIDATES[4:], FAST)
    with pytest.raises(HeadError, match="no candidate"):
        compare_candidates(layers, y, [], FAST)


@pytest.mark.parametrize("name", ["n_folds", "n_repeats", "n_inner_folds", "n_jobs"])
def test_settings_that_make_no_sense_are_named(name):
    """Less than one, or than two parts, is an error that names the setting."""
    with pytest.raises(UsageError, match=f"{name}=0 was given"):
        ComparisonSettings(**{name: 0})


def test_folds_of_all_repeats_are_as_many(monkeypatch):
    """A repeat for which groups allow fewer folds than the first had is left out, and a note says so."""
    layers, y = made_up(60)
    groups = np.arange(60) // 2
    original = running.make_folds

    def fewer(y, groups, n_folds, seed):
        folds, notes = original(y, groups, n_folds, seed)
        return (folds[:-1], notes) if seed == 1 and len(y) == 60 else (folds, notes)

    monkeypatch.setattr(running, "make_folds", fewer)
    result = compare_candidates(layers, y, CANDIDATES[:1], replace(FAST, n_repeats=3), groups=groups)
    assert (result.n_folds, result.n_repeats, len(result.best.fold_accuracies)) == (3, 2, 6)
    assert result.notes == ("2 of 3 repeats: there are no more ways to divide the rows",)


def test_the_same_folds_are_never_counted_twice(monkeypatch):
    """Where every seed divides the groups alike, one repeat counts: more of them would make intervals too narrow."""
    layers, y = made_up(60)
    original = running.make_folds
    monkeypatch.setattr(running, "make_folds", lambda y, groups, n_folds, _seed: original(y, groups, n_folds, 0))
    once, thrice = (
        compare_candidates(layers, y, CANDIDATES[:1], replace(FAST, n_repeats=n), groups=np.arange(60)) for n in (1, 3)
    )
    assert (once.n_repeats, thrice.n_repeats) == (1, 1)
    assert thrice.best.interval == once.best.interval
    assert thrice.notes == ("1 of 3 repeats: there are no more ways to divide the rows",)


def test_class_numbers_may_be_large():
    """Numbers of classes name them, they are no sizes: the scores are those of the same classes numbered from 0."""
    layers, y = made_up(60)
    small, large = (compare_candidates(layers, labels, CANDIDATES[:1], FAST) for labels in (y, 10**6 * y))
    assert small.best.macro_f1 == large.best.macro_f1
    assert small.best.fold_accuracies == large.best.fold_accuracies
