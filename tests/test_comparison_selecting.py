"""Choosing a layer: the good one is found, near-ties go to the late one, and only the given rows are looked at."""

from __future__ import annotations

import weakref

import numpy as np
import pytest

from featx.comparison import select_layer
from featx.comparison.selecting import NEAR_TIE
from featx.errors import HeadError, UsageError
from featx.heads import HEADS, fit_head
from featx.heads.fitting import make_folds
from featx.heads.fold_rows import FoldRows
from featx.heads.searching import best_candidate, mean_square_norm, search_fold
from featx.reducers import make_scaler


def layer_of(y, signal, width=20, seed=0):
    """Return features in which the classes are so far apart."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(y.max() + 1, width))
    return (signal * centres[y] + rng.normal(size=(len(y), width))).astype(np.float32)


def planted(signals, n_rows=90, n_classes=3, seed=0):
    """Return layers of given signal, shallowest first, and classes."""
    y = np.random.default_rng(seed).permutation(np.arange(n_rows) % n_classes)
    layers = {name: layer_of(y, signal, seed=place) for place, (name, signal) in enumerate(signals.items())}
    return layers, y


@pytest.mark.parametrize(
    ("head", "good"),
    [
        ("ridge", "early"),
        ("ridge", "middle"),
        ("ridge", "late"),
        ("svm", "middle"),
        ("logistic", "early"),
        ("knn", "middle"),
        ("tree", "early"),
    ],
)
def test_planted_layer_is_found(head, good):
    """The one layer in which classes differ is taken, wherever it lies."""
    layers, y = planted({name: 1.0 if name == good else 0.1 for name in ("early", "middle", "late")})
    choice = select_layer(layers, y, head=head)
    assert (choice.layer, choice.reason) == (good, "the best in cross-validation")
    assert choice.cheapest.layer == good
    assert [score.layer for score in choice.scores] == ["early", "middle", "late"]
    assert {score.layer for score in choice.scores if score.loss == 0} == {good}


@pytest.mark.parametrize("n_rows", [90, 600])
def test_scores_equal_a_plain_loop(n_rows):
    """Accuracy, loss and its error are those of folds, searched one after the other; few rows have five draws."""
    layers, y = planted({"a": 0.4, "b": 0.3}, n_rows)
    choice = select_layer(layers, y, head="tree", scale="l2", cv=3, seed=7)
    folds = [fold for repeat in range(5 if n_rows < 500 else 1) for fold in make_folds(y, None, 3, 7 + repeat)[0]]
    expected = {}
    for name, X in layers.items():
        grid = HEADS["tree"].candidates(mean_square_norm(make_scaler("l2").fit_transform(X)), 1)
        found = [
            search_fold("tree", HEADS["tree"], grid, FoldRows(X[a], X[b], scale="l2", seed=7), y[a], y[b], seed=7)
            for a, b in folds
        ]
        best, _ = best_candidate(found)
        expected[name] = np.array([result.accuracy[best] for result in found])
    best = max(expected, key=lambda name: expected[name].mean())
    for score in choice.scores:
        losses = expected[best] - expected[score.layer]
        assert score.accuracy == pytest.approx(expected[score.layer].mean())
        assert score.loss == pytest.approx(losses.mean())
        assert score.loss_error == pytest.approx(losses.std(ddof=1) / len(losses) ** 0.5)


def test_linear_heads_are_ranked_by_a_ridge():
    """For svm, logistic and ridge the scores are those of a ridge; another head has its own."""
    layers, y = planted({"a": 0.3, "b": 0.5})
    svm, logistic, ridge, knn = (select_layer(layers, y, head=h) for h in ("svm", "logistic", "ridge", "knn"))
    assert svm.scores == logistic.scores == ridge.scores != knn.scores


def test_near_ties_go_to_the_late_layer():
    """As good as the best is good enough for the late one, the last or the one named."""
    layers, y = planted({"early": 0.7, "other": 0.1})
    layers["late"] = layers["early"].copy()
    choice = select_layer(layers, y)
    assert (choice.layer, choice.reason) == ("late", "the best in cross-validation")
    assert select_layer(layers, y, late="early").layer == "early"
    # far behind, or not there: the deepest of equals
    assert select_layer(layers, y, late="other").layer == "late"
    assert select_layer(layers, y, late="not among them").layer == "late"
    assert choice.cheapest.layer == "early"


@pytest.mark.parametrize("seed", range(2))
def test_the_rule_of_near_ties(seed):
    """Whatever the scores: the late layer if it loses next to nothing, else the deepest of those that do."""
    layers, y = planted({"a": 1.2, "b": 1.25, "c": 1.2, "d": 0.5}, seed=seed)
    scores = select_layer(layers, y).scores
    near = [score.layer for score in scores if score.loss < NEAR_TIE]
    assert near
    assert "d" not in near
    for late in layers:
        choice = select_layer(layers, y, late=late)
        assert choice.scores == scores
        assert choice.layer == (late if late in near else near[-1])
        is_best = next(score.loss for score in scores if score.layer == choice.layer) == 0
        assert choice.reason == ("the best" if is_best else "as good as the best") + " in cross-validation"


def test_cheap_takes_the_shallowest_not_told_apart():
    """Layers in the order of depth: the first whose loss is within its standard error, and its loss is said."""
    layers, y = planted({"noise": 0.0, "good": 0.9, "better": 0.95, "late": 0.3})
    choice = select_layer(layers, y, prefer="cheap")
    near = [score for score in choice.scores if score.loss <= score.loss_error]
    assert choice.layer == near[0].layer == choice.cheapest.layer in ("good", "better")
    assert choice.reason.endswith(f"expected loss {100 * near[0].loss:.1f} points")
    assert select_layer(layers, y).cheapest == choice.cheapest


def test_groups_are_respected():
    """A layer that only knows copies again wins where copies are divided, and not where they are kept together."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(30), 4)
    y = np.repeat(rng.permutation(30) % 2, 4)
    copies = np.repeat(rng.normal(size=(30, 100)), 4, axis=0) + 0.01 * rng.normal(size=(120, 100))
    layers = {"honest": layer_of(y, 0.25), "copies": copies.astype(np.float32)}
    assert select_layer(layers, y).layer == "copies"
    grouped = select_layer(layers, y, groups=groups)
    assert grouped.layer == "honest"
    assert grouped.scores[1].accuracy < 0.65


@pytest.mark.parametrize("junk", [np.nan, np.inf, 1e30])
def test_other_rows_are_never_looked_at(junk):
    """Whatever stands in rows outside of `rows`, the scores are the same to the last bit."""
    layers, y = planted({"a": 0.4, "b": 0.5, "c": 0.3})
    rows = np.sort(np.random.default_rng(1).permutation(90)[:50])
    spoiled = {name: np.full_like(X, junk) for name, X in layers.items()}
    for name, X in layers.items():
        spoiled[name][rows] = X[rows]
    cut = {name: X[rows] for name, X in layers.items()}
    choices = [
        select_layer(f, y[rows], rows=r, reduce="pca:5") for f, r in ((spoiled, rows), (layers, rows), (cut, ...))
    ]
    assert choices[0] == choices[1] == choices[2]


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
    """When a layer is read, those before it are gone; each is read once."""
    layers, y = planted({"a": 0.4, "b": 0.5, "c": 0.3})
    alive = []
    watched = {name: Watched(X, alive) for name, X in layers.items()}
    assert select_layer(watched, y) == select_layer(layers, y)
    assert [features.met for features in watched.values()] == [[0], [0], [0]]


def test_layers_can_be_joined():
    """Two layers that each know half are better side by side; the cheapest is still named from all."""
    rng = np.random.default_rng(0)
    y = rng.permutation(np.arange(120) % 4)
    layers = {"row": layer_of(y // 2, 0.8, 10), "column": layer_of(y % 2, 0.8, 200, 1), "late": layer_of(y, 0.1)}
    choice = select_layer(layers, y, layers=["row", "column", "row+column", "late"])
    assert choice.layer == "row+column"


def test_processes_do_not_change_the_choice():
    """Two processes choose as one does."""
    layers, y = planted({"a": 0.4, "b": 0.5})
    assert select_layer(layers, y, n_jobs=2) == select_layer(layers, y)


@pytest.mark.parametrize("head", ["ridge", "knn"])
def test_seed_and_class_weights_are_heard(head):
    """Another seed draws other folds; class weights change the scores of heads that have them."""
    layers, y = planted({"a": 0.4, "b": 0.5})
    y = np.where(y == 2, 0, y)
    choice = select_layer(layers, y, head=head)
    assert select_layer(layers, y, head=head) == choice
    assert select_layer(layers, y, head=head, seed=9).scores != choice.scores
    weighed = select_layer(layers, y, head=head, class_weight="balanced")
    assert (weighed.scores != choice.scores) == (head == "ridge")


def test_nothing_leaks_where_there_is_no_signal():
    """With labels that mean nothing, the chosen layer is at chance on held-out rows, averaged over draws."""
    hits = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        layers = {f"layer {place}": rng.normal(size=(260, 40)).astype(np.float32) for place in range(6)}
        y = rng.permutation(np.arange(260) % 2)
        rows, held_out = np.arange(60), np.arange(60, 260)
        choice = select_layer(layers, y[rows], rows=rows, head="ridge", cv=3, seed=seed)
        fitted = fit_head(layers[choice.layer][rows], y[rows], head="ridge", cv=3, seed=seed)
        hits.append(np.mean(fitted.pipeline.predict(layers[choice.layer][held_out]) == y[held_out]))
    # 2400 rows: four standard errors are 0.041
    assert abs(np.mean(hits) - 0.5) < 0.041


def test_too_little_to_choose_by():
    """One layer is taken as it is; where no folds can be made the late one is; both say why."""
    layers, y = planted({"a": 0.4, "b": 0.5, "c": 0.1})
    only = select_layer(layers, y, layers=["b"])
    assert (only.layer, only.reason) == ("b", "it is the only one")
    single = np.arange(90)
    assert select_layer(layers, single).layer == "c"
    assert select_layer(layers, single, late="a").layer == "a"
    assert "too few rows" in select_layer(layers, single).reason


def test_wrong_arguments_are_named():
    """Unknown names and shapes that do not fit are errors that say so."""
    layers, y = planted({"a": 0.4, "b": 0.5})
    spoiled = {**layers, "b": np.full_like(layers["b"], np.nan)}
    for wrong, message in [
        ({"prefer": "fast"}, "allowed are best and cheap"),
        ({"layers": []}, "no layer to choose from"),
        ({"layers": ["a", "d"]}, "no features 'd'; there are a, b"),
        ({"head": "perceptron"}, "unknown head"),
        ({"scale": "robust"}, "unknown scaler"),
        ({"reduce": "ica:2"}, "unknown reducer"),
        ({"cv": 1}, "cv=1 was given"),
    ]:
        with pytest.raises(UsageError, match=message):
            select_layer(layers, y, **wrong)
    for features, classes, groups, message in [
        (spoiled, y, None, "90 of 90 rows hold NaN"),
        (layers, y[:50], None, r"shape \(90, 20\) and classes of shape \(50,\)"),
        (layers, np.zeros(90, int), None, "of one class"),
        (layers, y.astype(float), None, "type float64"),
        (layers, y - 1, None, "smallest -1"),
        (layers, y, [1, 2], "one group a row"),
        ({"a": layers["a"][:, 0], "b": layers["b"]}, y, None, r"shapes \[\(90,\)\]"),
    ]:
        with pytest.raises(HeadError, match=message):
            select_layer(features, classes, groups=groups)
