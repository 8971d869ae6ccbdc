"""Heads: honest splits, the right hyper-parameters, scores that can be checked, and files that cannot harm."""

import dataclasses
import io
import json
import warnings
import zipfile

import numpy as np
import pytest
import skops.io
from sklearn import metrics
from sklearn.calibration import CalibratedClassifierCV
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from featx.errors import HeadError, StoreError, UnsafeFileError, UsageError
from featx.heads import HEADS, dump_head, evaluate_head, fit_head, load_head, split_rows, wilson_interval
from featx.heads.fitting import make_folds
from featx.heads.searching import mean_square_norm
from featx.reducers import SCALERS, make_reducer, make_scaler


def blobs(n_per_class, width=12, spread=1.5, seed=0):
    """Overlapping classes of the given sizes, in mixed order."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.repeat(np.arange(len(n_per_class)), n_per_class))
    centres = rng.normal(size=(len(n_per_class), width))
    return (centres[y] + spread * rng.normal(size=(len(y), width))).astype(np.float32), y


@pytest.fixture(scope="module")
def rows():
    return blobs([30, 30, 30])


@pytest.fixture(scope="module")
def fitted(rows):
    """One fitted head of each kind, with three of the scalers and both reducers among them."""
    scales = dict.fromkeys(HEADS, "zscore") | {"svm-rbf": "sqrt", "logistic": "l2", "tree": "none", "forest": "minmax"}
    return {
        name: fit_head(*rows, head=name, scale=scale, reduce="pca:6" if scale == "zscore" else "none", cv=2)
        for name, scale in scales.items()
    }


# --- which rows ------------------------------------------------------------------------------------------------------


def test_test_split_is_scored_on_and_val_is_learned_from():
    """With a test split, everything else that has a label is training."""
    split = split_rows([0, 1, 0, 1, -1, 0, 1, -1], [0, 0, 1, 2, 2, -1, 2, 0])
    assert split.train.tolist() == [0, 1, 2, 5]
    assert split.held_out.tolist() == [3, 6]
    assert split.on == "test split"


def test_val_split_is_scored_on_where_test_has_no_labels():
    """Without labelled test rows, val rows are held out; unlabelled test rows are in neither part."""
    split = split_rows([0, 1, 0, 1, -1], [0, 0, 1, -1, 2])
    assert (split.train.tolist(), split.held_out.tolist(), split.on) == ([0, 1, 3], [2], "val split")


@pytest.mark.parametrize("splits", [None, "train"])
def test_without_a_split_a_stratified_fifth_is_held_out(splits):
    """The held-out part has 20 % of each class, at least one row, and leaves single rows in training."""
    labels = np.random.default_rng(0).permutation(np.repeat([-1, 0, 1, 2, 3], [9, 50, 10, 2, 1]))
    split = split_rows(labels, None if splits is None else np.zeros(len(labels)))
    assert np.bincount(labels[split.held_out], minlength=4).tolist() == [10, 2, 1, 0]
    assert np.bincount(labels[split.train], minlength=4).tolist() == [40, 8, 1, 1]
    assert sorted([*split.train, *split.held_out]) == np.flatnonzero(labels >= 0).tolist()
    assert split.on == "held-out 20 % of the labelled rows, stratified, seed 0"


def test_draw_depends_on_the_seed_only():
    """The same seed draws the same rows; another one draws others."""
    labels = np.repeat([0, 1], 50)
    draws = [split_rows(labels, seed=seed).held_out.tolist() for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]


@pytest.mark.parametrize("seed", range(5))
def test_groups_are_never_split(seed):
    """All rows of a group are on one side, all labelled rows are used, and every class is on both sides."""
    rng = np.random.default_rng(seed)
    groups = rng.integers(-1, 40, size=300)
    labels = np.where(groups < 0, 0, groups % 4)
    split = split_rows(labels, groups=groups, seed=seed)
    shared = np.intersect1d(groups[split.train], groups[split.held_out])
    assert set(shared.tolist()) <= {-1}
    assert sorted([*split.train, *split.held_out]) == list(range(300))
    assert set(labels[split.train]) == set(labels[split.held_out]) == {0, 1, 2, 3}
    assert 0.1 < len(split.held_out) / 300 < 0.3


def test_large_groups_still_leave_every_class_on_both_sides():
    """A class of two groups, each larger than a fifth, has its smaller group held out."""
    labels = np.array([0] * 10 + [1] * 10)
    groups = np.array([0] * 6 + [1] * 4 + [2] * 10)
    split = split_rows(labels, groups=groups)
    assert split.held_out.tolist() == [6, 7, 8, 9]


def test_impossible_splits_are_named():
    """No labels, nothing left to learn from, nothing to hold out, and splits that cut a group are errors."""
    with pytest.raises(HeadError, match="no row has a label"):
        split_rows([-1, -1])
    with pytest.raises(HeadError, match="none is left to learn from"):
        split_rows([0, 1, -1], [2, 2, 0])
    with pytest.raises(HeadError, match="no class has two"):
        split_rows([0, 1, 2])
    with pytest.raises(HeadError, match=r"1 groups \(the first is 7\) have rows both in the test split"):
        split_rows([0, 1, 0, 1], [0, 0, 2, 2], groups=[7, 8, 7, 9])


# --- fitting ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(HEADS))
def test_classes_and_probabilities_agree(fitted, rows, name):
    """Probabilities sum to 1 and the class named is the most probable one."""
    X, _ = rows
    pipeline = fitted[name].pipeline
    assert list(pipeline.named_steps) == ["scale", "reduce", "head"]
    probabilities = pipeline.predict_proba(X)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)
    assert (probabilities >= 0).all()
    np.testing.assert_array_equal(pipeline.classes_[probabilities.argmax(axis=1)], pipeline.predict(X))


@pytest.mark.parametrize("name", sorted(set(HEADS) - {"majority"}))
def test_every_head_beats_the_majority(fitted, name):
    """Each head learns something: far above chance in cross-validation, and JSON can hold what it chose."""
    assert fitted[name].cv_accuracy > fitted["majority"].cv_accuracy + 0.2
    assert fitted[name].params.keys() == HEADS[name].grid.keys()
    assert json.loads(json.dumps(fitted[name].params)) == fitted[name].params
    assert fitted[name].notes == ()
    assert (fitted[name].n_rows, fitted[name].cv_folds) == (90, 2)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")  # the oracle's; ours become notes
@pytest.mark.parametrize(
    ("head", "scale", "reduce"),
    [("svm", "l2", "none"), ("logistic", "zscore", "pca:4"), ("tree", "none", "none"), ("ridge", "minmax", "pca:0.9")],
)
def test_choice_equals_grid_search(head, scale, reduce):
    """The explicit loop finds what GridSearchCV finds on the same folds."""
    X, y = blobs([40, 25, 15], spread=2.5, seed=3)
    ours = fit_head(X, y, head=head, scale=scale, reduce=reduce, cv=4, seed=1)
    steps = [
        ("scale", make_scaler(scale)),
        ("reduce", make_reducer(reduce, random_state=1)),
        ("head", HEADS[head].make(1, None)),
    ]
    norm = mean_square_norm(make_scaler(scale).fit_transform(X))
    grid = [{f"head__{key}": [value] for key, value in params.items()} for params in HEADS[head].candidates(norm, 60)]
    search = GridSearchCV(Pipeline(steps), grid, cv=StratifiedKFold(4, shuffle=True, random_state=1)).fit(X, y)
    assert {f"head__{key}": value for key, value in ours.params.items()} == search.best_params_
    assert ours.cv_accuracy == pytest.approx(search.best_score_)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_calibration_equals_scikit_learn_around_the_whole_pipeline(n_classes):
    """Probabilities are those of CalibratedClassifierCV around scaler, reducer and machine together."""
    X, y = blobs([30] * n_classes, spread=3)
    ours = fit_head(X, y, head="svm", scale="zscore", reduce="pca:5", cv=3, seed=2)
    head = HEADS["svm"].make(2, None).set_params(**ours.params)
    whole = Pipeline([("scale", StandardScaler()), ("reduce", make_reducer("pca:5", random_state=2)), ("head", head)])
    folds = StratifiedKFold(3, shuffle=True, random_state=2)
    oracle = CalibratedClassifierCV(whole, method="sigmoid", ensemble=False, cv=folds).fit(X, y)
    np.testing.assert_allclose(ours.pipeline.predict_proba(X), oracle.predict_proba(X), rtol=1e-6)


def test_labels_shuffled_give_chance():
    """Nothing leaks: with labels that mean nothing, cross-validation is near chance, with many features too."""
    X, y = blobs([60, 60], width=300)
    shuffled = np.random.default_rng(5).permutation(y)
    assert 0.35 < fit_head(X, shuffled, reduce="pca:20").cv_accuracy < 0.65


@pytest.mark.parametrize("head", ["svm", "tree", "boosting"])
def test_same_seed_gives_the_same_head(rows, head):
    """Fitting twice gives identical probabilities."""
    X, y = rows
    first, second = (fit_head(X, y, head=head, cv=2, seed=4) for _ in range(2))
    assert first.params == second.params
    np.testing.assert_array_equal(first.pipeline.predict_proba(X), second.pipeline.predict_proba(X))


def test_processes_do_not_change_the_result(rows):
    """Two worker processes give what one gives."""
    X, y = rows
    first, second = (fit_head(X, y, n_jobs=n_jobs) for n_jobs in (1, 2))
    assert (first.params, first.cv_accuracy) == (second.params, second.cv_accuracy)
    np.testing.assert_array_equal(first.pipeline.predict_proba(X), second.pipeline.predict_proba(X))


def test_folds_are_lowered_to_the_smallest_class():
    """Three rows of a class allow three folds, and the notes say so."""
    fitted = fit_head(*blobs([20, 3]))
    assert fitted.cv_folds == 3
    assert fitted.notes == ("3 folds instead of 5: the smallest class has 3 rows",)


@pytest.mark.parametrize("head", sorted(HEADS))
def test_single_rows_of_a_class_are_enough(head):
    """Where no fold can be made, defaults are used, there is no cross-validated score, and the notes say so."""
    X, y = blobs([1, 1, 5])
    fitted = fit_head(X, y, head=head)
    assert (fitted.cv_accuracy, fitted.cv_folds) == (None, 0)
    assert "no cross-validation: fewer than two classes have two rows or more" in fitted.notes[0]
    assert any("too sure" in note for note in fitted.notes) == HEADS[head].calibrate
    assert fitted.pipeline.predict_proba(X).shape == (7, 3)


def test_a_single_row_of_one_class_does_not_stop_the_others():
    """A class of one row is in every training part and no test part; it can still be predicted, and a note says so."""
    X, y = blobs([12, 9, 1])
    folds, notes = make_folds(y, None, 5, 0)
    (lone,) = np.flatnonzero(y == 2)
    assert len(folds) == 5
    assert all(lone in train for train, _ in folds)
    assert sorted(np.concatenate([test for _, test in folds])) == [row for row in range(22) if row != lone]
    assert notes == ("1 class has one of the rows only: always learned from, never scored on in cross-validation",)
    fitted = fit_head(X, y)
    assert (fitted.cv_folds, fitted.notes) == (5, notes)
    assert fitted.pipeline.predict_proba(X).shape == (22, 3)


def test_groups_stay_within_folds():
    """Copies of rows under one group cannot betray each other: accuracy is at chance where ungrouped folds cheat."""
    rng = np.random.default_rng(0)
    X = np.repeat(rng.normal(size=(40, 50)), 5, axis=0) + 1e-3 * rng.normal(size=(200, 50))
    y, groups = np.repeat(rng.permutation(40) % 2, 5), np.repeat(np.arange(40), 5)
    assert fit_head(X, y, scale="none", head="svm-rbf").cv_accuracy > 0.95
    assert fit_head(X, y, scale="none", head="svm-rbf", groups=groups).cv_accuracy < 0.75


def test_folds_are_lowered_to_the_groups_of_a_class():
    """A class of two groups allows two folds; of one group, none."""
    X, y = blobs([20, 20])
    two = fit_head(X, y, groups=np.where(y == 0, np.arange(40), 100 + np.cumsum(y) % 2))
    assert (two.cv_folds, two.notes) == (2, ("2 folds instead of 5: the smallest class has 2 groups",))
    assert fit_head(X, y, groups=np.where(y == 0, np.arange(40), 100)).cv_folds == 0


def test_components_are_lowered_to_the_rows_of_a_fold():
    """More components than the smallest training part has rows are lowered alike everywhere, and the notes say so."""
    fitted = fit_head(*blobs([10, 10], width=64), reduce="pca:500", cv=2)
    assert fitted.pipeline.named_steps["reduce"].n_components_ == 10
    assert "pca:500 lowered to pca:10: 10 training rows of 64 features allow no more" in fitted.notes


def test_class_weights_help_the_rare_class():
    """Balanced weights find more of a rare class; weights given as NumPy numbers can be saved."""
    X, y = blobs([200, 15], spread=3, seed=1)
    plain, balanced = (fit_head(X, y, head="logistic", class_weight=weight) for weight in (None, "balanced"))
    assert (balanced.pipeline.predict(X) == 1).sum() > (plain.pipeline.predict(X) == 1).sum()
    told = fit_head(X, y, head="logistic", class_weight={np.int64(0): np.float32(1), np.int64(1): np.float32(9)})
    np.testing.assert_array_equal(load_head(dump_head(told.pipeline)).predict(X), told.pipeline.predict(X))


def test_slow_convergence_is_a_note_not_a_warning(monkeypatch):
    """A solver that stops early does not warn; the notes say it."""
    kind = HEADS["svm"]
    lazy = dataclasses.replace(kind, make=lambda *args: kind.make(*args).set_params(max_iter=1))
    monkeypatch.setitem(HEADS, "svm", lazy)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted = fit_head(*blobs([30, 30], spread=3))
    assert any("before it converged" in note for note in fitted.notes)


def test_float32_is_kept(rows):
    """Scaled and reduced features stay float32."""
    X, y = rows
    pipeline = fit_head(X, y, reduce="pca:4").pipeline
    assert pipeline[:-1].transform(X).dtype == np.float32


def test_classes_need_not_be_contiguous():
    """Class indices with gaps come back as they were given."""
    X, y = blobs([20, 20])
    assert set(fit_head(X, y * 5 + 2).pipeline.predict(X)) == {2, 7}


def test_unusable_rows_are_named(rows):
    """Shapes, NaN, one class, labels that are no indices, and unknown names are errors that say what was found."""
    X, y = rows
    broken = X.copy()
    broken[[3, 5], 0] = np.nan, np.inf
    for bad_X, bad_y, message in [
        (X[:5], y, r"shape \(5, 12\) and classes of shape \(90,\)"),
        (X[:, 0], y, r"shape \(90,\)"),
        (X[:0], y[:0], r"shape \(0, 12\)"),
        (broken, y, "2 of 90 rows hold NaN"),
        (X, np.zeros(90, dtype=int), r"all 90 rows are of one class \(0\)"),
        (X, y - 1, "the smallest -1"),
        (X, y / 2, "classes of type float64"),
    ]:
        with pytest.raises(HeadError, match=message):
            fit_head(bad_X, bad_y)
    with pytest.raises(HeadError, match="one group a row"):
        fit_head(X, y, groups=[1, 2])
    for wrong in ({"head": "perceptron"}, {"scale": "robust"}, {"reduce": "ica:3"}, {"cv": 1}):
        with pytest.raises(UsageError):
            fit_head(X, y, **wrong)


# --- scoring ---------------------------------------------------------------------------------------------------------


class Oracle:
    """A classifier that says what it is given."""

    def predict(self, X):
        return np.asarray(X)


@pytest.mark.parametrize("seed", range(4))
def test_scores_equal_those_of_scikit_learn(seed):
    """Accuracy, balanced accuracy, F1, precision, recall and confusion are those of scikit-learn."""
    rng = np.random.default_rng(seed)
    y, predicted = rng.integers(5, size=60), rng.integers(5, size=60)
    predicted[:30] = y[:30]
    result = evaluate_head(Oracle(), predicted, y, class_names=list("abcde"), y_train=[1, 1, 0], on="test split")
    assert result.accuracy == pytest.approx(metrics.accuracy_score(y, predicted))
    assert result.balanced_accuracy == pytest.approx(metrics.balanced_accuracy_score(y, predicted))
    assert result.macro_f1 == pytest.approx(metrics.f1_score(y, predicted, average="macro"))
    np.testing.assert_array_equal(result.confusion, metrics.confusion_matrix(y, predicted))
    columns = metrics.precision_recall_fscore_support(y, predicted)
    for index, score in enumerate(result.per_class):
        assert (score.precision, score.recall, score.f1, score.support) == pytest.approx(
            [col[index] for col in columns]
        )
    assert (result.majority_class, result.majority_accuracy) == ("b", pytest.approx(np.mean(y == 1)))
    assert result.interval == wilson_interval(int((y == predicted).sum()), 60)


def test_absent_and_unseen_classes():
    """A class that training never saw is an error; classes without rows are counted nowhere and do not warn."""
    result = evaluate_head(Oracle(), [0, 0, 1], [0, 2, 2], class_names=list("abcd"), y_train=[0, 1, 1, 0], on="here")
    assert result.accuracy == pytest.approx(1 / 3)
    assert result.balanced_accuracy == pytest.approx((1 + 0) / 2)
    assert result.macro_f1 == pytest.approx((2 / 3 + 0 + 0) / 3)
    assert [score.support for score in result.per_class] == [1, 0, 2, 0]
    assert (result.majority_class, result.majority_accuracy) == ("a", pytest.approx(1 / 3))
    assert result.confusion.tolist() == [[1, 0, 0, 0], [0, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]]


def test_json_shape():
    """The first six keys are the documented ones, and JSON holds the whole."""
    result = evaluate_head(Oracle(), [0, 1], [0, 0], class_names=["a", "b"], y_train=[0, 1], on="val split").to_json()
    assert list(result)[:6] == ["accuracy", "interval", "balanced_accuracy", "macro_f1", "rows", "on"]
    assert json.loads(json.dumps(result)) == result
    assert result["per_class"][0] == {
        "name": "a",
        "precision": 1.0,
        "recall": 0.5,
        "f1": pytest.approx(2 / 3),
        "support": 2,
    }


def test_scoring_refuses_nonsense():
    """No rows, and classes without a name, are errors."""
    with pytest.raises(HeadError, match="no row to score"):
        evaluate_head(Oracle(), [], [], class_names=["a"], y_train=[0], on="x")
    with pytest.raises(HeadError, match="classes 0 to 3 were given for 2"):
        evaluate_head(Oracle(), [0, 0], [0, 3], class_names=["a", "b"], y_train=[0], on="x")


@pytest.mark.parametrize(
    ("n_correct", "n_rows", "expected"),
    [(8, 10, (0.4902, 0.9433)), (0, 10, (0.0, 0.2775)), (10, 10, (0.7225, 1.0)), (1, 2, (0.0945, 0.9055))],
)
def test_wilson_interval(n_correct, n_rows, expected):
    """Values computed by hand from Wilson's formula."""
    assert wilson_interval(n_correct, n_rows) == pytest.approx(expected, abs=5e-5)


def test_wilson_interval_solves_its_equation():
    """At its ends the observed proportion is z standard errors away."""
    for end in wilson_interval(37, 120, confidence=0.9):
        assert abs(37 / 120 - end) / (end * (1 - end) / 120) ** 0.5 == pytest.approx(1.6448536, abs=1e-6)
    with pytest.raises(HeadError, match="not a proportion"):
        wilson_interval(0, 0)


# --- as bytes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(HEADS))
def test_round_trip_of_every_head(fitted, rows, name):
    """A loaded head predicts exactly what the saved one did."""
    X, _ = rows
    loaded = load_head(dump_head(fitted[name].pipeline))
    np.testing.assert_array_equal(loaded.predict(X), fitted[name].pipeline.predict(X))
    np.testing.assert_array_equal(loaded.predict_proba(X), fitted[name].pipeline.predict_proba(X))


@pytest.mark.parametrize("head", ["svm", "svm-rbf", "boosting"])
def test_round_trip_of_two_classes(head):
    """The types that appear only with two classes are allowed as well."""
    X, y = blobs([20, 20])
    pipeline = fit_head(X, y, head=head, cv=2).pipeline
    np.testing.assert_array_equal(load_head(dump_head(pipeline)).predict_proba(X), pipeline.predict_proba(X))


@pytest.mark.parametrize("scale", sorted(SCALERS))
def test_round_trip_of_every_scaler(rows, scale):
    """Every scaler and a fraction of variance can be saved."""
    X, y = rows
    pipeline = fit_head(X, y, head="majority", scale=scale, reduce="pca:0.9").pipeline
    np.testing.assert_array_equal(load_head(dump_head(pipeline))[:-1].transform(X), pipeline[:-1].transform(X))


def test_foreign_types_are_refused_both_ways(rows):
    """A type that is not on the list is named, also if skops itself trusts it."""
    foreign = Pipeline([("scale", StandardScaler()), ("head", GaussianNB())]).fit(*rows)
    with pytest.raises(UnsafeFileError, match="GaussianNB"):
        dump_head(foreign)
    with pytest.raises(UnsafeFileError, match="GaussianNB"):
        load_head(skops.io.dumps(foreign))


@pytest.mark.parametrize(
    "value", [np.sqrt, len, slice(1), {1, 2}, b"bytes", StandardScaler().fit, np.random.RandomState(0)]
)
def test_functions_and_the_like_are_refused(rows, value):
    """What skops can rebuild besides plain data is refused wherever it hides."""
    pipeline = Pipeline([("scale", StandardScaler())]).fit(*rows)
    pipeline.named_steps["scale"].hidden_ = value
    with pytest.raises(UnsafeFileError, match="refused"):
        load_head(skops.io.dumps(pipeline))


def test_other_bytes_are_refused(rows, fitted):
    """Noise, half a file, compressed entries and objects that are no pipeline are errors."""
    data = dump_head(fitted["majority"].pipeline)
    for broken in (b"", b"noise", data[: len(data) // 2]):
        with pytest.raises(StoreError, match="cannot be read"):
            load_head(broken)
    with pytest.raises(UnsafeFileError, match="compressed"):
        load_head(skops.io.dumps(fitted["majority"].pipeline, compression=zipfile.ZIP_DEFLATED))
    with pytest.raises(UnsafeFileError, match="not a Pipeline"):
        load_head(skops.io.dumps(StandardScaler().fit(rows[0])))


def tampered(data, change):
    """Rewrite the bytes of a head with every array passed through ``change``, which may return another."""
    source, target = zipfile.ZipFile(io.BytesIO(data)), io.BytesIO()
    n_changed = 0
    with zipfile.ZipFile(target, "w") as zip_file:
        for name in source.namelist():
            content = source.read(name)
            if name.endswith(".npy"):
                array = np.load(io.BytesIO(content))
                outcome = change(array)
                array = outcome if isinstance(outcome, np.ndarray) else array
                n_changed += outcome is not False
                buffer = io.BytesIO()
                np.save(buffer, array)
                content = buffer.getvalue()
            zip_file.writestr(name, content)
    assert n_changed
    return target.getvalue()


def set_field(field, value, where):
    """Return a change that sets one field of all nodes that are leaves or inner."""

    def change(array):
        if array.dtype.names is None or field not in array.dtype.names:
            return False
        left = "left_child" if "left_child" in array.dtype.names else "left"
        is_inner = array["left_child"] != -1 if left == "left_child" else array["is_leaf"] == 0
        rows = np.flatnonzero(is_inner if where == "inner" else ~is_inner)
        array[field][rows] = value
        return len(rows) > 0

    return change


@pytest.mark.parametrize(
    ("head", "field", "value", "where", "message"),
    [
        ("tree", "left_child", 10**6, "inner", "child outside"),
        ("tree", "left_child", -7, "inner", "child outside"),
        ("tree", "right_child", 10**6, "inner", "child outside"),
        ("tree", "right_child", -1, "inner", "child outside"),
        ("tree", "left_child", 0, "inner", "a circle"),
        ("tree", "left_child", 0, "leaf", "a circle"),
        ("tree", "feature", 12, "inner", "feature outside of its 12"),
        ("tree", "feature", -2, "inner", "feature outside"),
        ("forest", "left_child", 10**6, "inner", "child outside"),
        ("forest", "feature", 12, "inner", "feature outside of its 12"),
        ("boosting", "left", 10**6, "inner", "child outside"),
        ("boosting", "right", 0, "inner", "a circle"),
        ("boosting", "feature_idx", 6, "inner", "feature outside of its 6"),
        ("boosting", "feature_idx", -1, "inner", "feature outside"),
        ("boosting", "is_leaf", 0, "leaf", "a circle"),
        ("boosting", "is_categorical", 1, "inner", "category"),
    ],
)
def test_tampered_trees_are_refused(fitted, head, field, value, where, message):
    """Children and features out of bounds, and circles, are found before any prediction."""
    data = tampered(dump_head(fitted[head].pipeline), set_field(field, value, where))
    with pytest.raises(UnsafeFileError, match=message):
        load_head(data)


def edited(data, edit):
    """Rewrite the schema of a head, every object of which is passed through ``edit``."""
    source, target = zipfile.ZipFile(io.BytesIO(data)), io.BytesIO()
    with zipfile.ZipFile(target, "w") as zip_file:
        for name in source.namelist():
            content = source.read(name)
            if name == "schema.json":
                content = json.dumps(json.loads(content, object_hook=lambda node: edit(node) or node)).encode()
            zip_file.writestr(name, content)
    return target.getvalue()


def number(value):
    return {"__class__": "str", "__module__": "builtins", "__loader__": "JsonNode", "content": json.dumps(value)}


@pytest.mark.parametrize(
    ("head", "attribute", "value", "message"),
    [
        ("tree", "node_count", 1, "another number of nodes"),
        ("tree", "node_count", -1, "another number of nodes"),
        ("tree", "n_features_in_", 3, "takes 12 features, its classifier 3"),
        ("tree", "n_features_in_", None, "does not say how many"),
        ("forest", "n_features_in_", 3, "a forest and its trees"),
        ("boosting", "_n_features", 100, "does not say how many"),
        ("svm-rbf", "n_features_in_", 3, "do not fit each other"),
        ("svm-rbf", "kernel", "linear", "do not fit each other"),
        ("svm-rbf", "probability", True, "do not fit each other"),
        ("svm-rbf", "_probA", 0.5, "do not fit each other"),
    ],
)
def test_tampered_numbers_are_refused(fitted, head, attribute, value, message):
    """Counts and widths that compiled code relies on must agree with the arrays."""
    wanted = {"tree": "nodes", "forest": "estimators_", "boosting": "_predictors", "svm-rbf": "_n_support"}[head]
    if head == "tree" and attribute != "node_count":
        wanted = "tree_"
    changed = []

    def edit(node):
        if wanted in node:
            changed.append(node)
            return node | {attribute: number(value)}
        return None

    data = edited(dump_head(fitted[head].pipeline), edit)
    assert changed
    with pytest.raises(UnsafeFileError, match=message):
        load_head(data)


def test_attributes_in_the_place_of_methods_are_refused(fitted):
    """A file cannot replace what an estimator does."""

    def edit(node):
        return {"predict" if key == "fit_status_" else key: value for key, value in node.items()}

    with pytest.raises(UnsafeFileError, match="in the place of its method 'predict'"):
        load_head(edited(dump_head(fitted["svm-rbf"].pipeline), edit))


def test_harmless_edit_still_loads(fitted, rows):
    """Rewriting a file without changing it is accepted, so that the refusals above are due to their changes."""
    data = edited(tampered(dump_head(fitted["forest"].pipeline), lambda _: True), lambda _: None)
    np.testing.assert_array_equal(load_head(data).predict(rows[0]), fitted["forest"].pipeline.predict(rows[0]))


def test_support_vectors_that_do_not_add_up_are_refused(fitted):
    """libsvm's counts must match the vectors that are there."""

    def change(array):
        if array.dtype == np.int32 and array.shape == (3,):
            array += 1000
            return True
        return False

    with pytest.raises(UnsafeFileError, match="support vector machine"):
        load_head(tampered(dump_head(fitted["svm-rbf"].pipeline), change))


def knn_array(dtype, n_axes, change):
    """Return a change of the one array of a nearest-neighbour head that has 90 rows and this type."""

    def changed(array):
        if array.dtype != dtype or array.ndim != n_axes or array.shape[0] != 90:
            return False
        return change(array)

    return changed


def last_is(value):
    return lambda array: np.append(array[:-1], value)


def resized(*shape):
    return lambda array: np.resize(array, shape)


@pytest.mark.parametrize(
    "change",
    [
        knn_array(np.int64, 1, last_is(3)),  # three classes: 0, 1, 2
        knn_array(np.int64, 1, last_is(10**12)),
        knn_array(np.int64, 1, last_is(-1)),
        knn_array(np.int64, 1, resized(89)),
        knn_array(np.int64, 1, resized(90, 1)),
        knn_array(np.float32, 2, resized(90, 5)),
        knn_array(np.float32, 2, resized(90, 7)),
        knn_array(np.float32, 2, resized(60, 6)),
        knn_array(np.float32, 2, resized(540)),
    ],
)
def test_tampered_neighbours_are_refused(fitted, change):
    """Class numbers out of bounds, and rows of another width or number, are found before any search."""
    with pytest.raises(UnsafeFileError, match="nearest-neighbour classifier"):
        load_head(tampered(dump_head(fitted["knn"].pipeline), change))


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ("_fit_method", "kd_tree"),
        ("_fit_method", None),
        ("n_samples_fit_", 10**6),
        ("n_neighbors", 91),
        ("n_neighbors", 0),
        ("n_features_in_", 5),
        ("_y", None),
        ("_fit_X", None),
        ("classes_", 3),
    ],
)
def test_tampered_numbers_of_neighbours_are_refused(fitted, attribute, value):
    """Search method and counts must be those that the arrays were made for."""

    def edit(node):
        return node | {attribute: number(value)} if "_fit_method" in node else None

    with pytest.raises(UnsafeFileError, match="nearest-neighbour classifier"):
        load_head(edited(dump_head(fitted["knn"].pipeline), edit))


def test_neighbours_cannot_be_weighed_by_a_function(fitted):
    """scikit-learn calls `weights` and `metric` where they are functions; a file cannot bring one."""
    for attribute in ("weights", "metric", "effective_metric_"):
        pipeline = load_head(dump_head(fitted["knn"].pipeline))
        setattr(pipeline.named_steps["head"].calibrated_classifiers_[0].estimator, attribute, np.sqrt)
        with pytest.raises(UnsafeFileError, match="refused"):
            load_head(skops.io.dumps(pipeline))


def test_tree_outside_of_a_classifier_is_refused(rows):
    """A bare tree, which nothing would guard, is refused as a step of the pipeline."""
    tree = DecisionTreeClassifier().fit(*rows).tree_
    with pytest.raises(UnsafeFileError, match="outside of a tree classifier"):
        load_head(skops.io.dumps(Pipeline([("head", tree)])))


def test_odd_random_generators_are_refused(fitted):
    """Only the generator that scikit-learn makes may be rebuilt."""

    def edit(node):
        return node | {"content": '"seed"'} if node.get("content") == '"PCG64"' else None

    with pytest.raises(UnsafeFileError, match="random generator"):
        load_head(edited(dump_head(fitted["boosting"].pipeline), edit))
