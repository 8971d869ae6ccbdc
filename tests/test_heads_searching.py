"""Hyper-parameters: shared folds find what plain pipelines find, one path serves all alphas, folds are honest."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.dummy import DummyClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import RidgeClassifier
from sklearn.pipeline import Pipeline
from sklearn.svm import LinearSVC
from threadpoolctl import threadpool_info

from featx.errors import HeadError
from featx.heads import HEADS
from featx.heads.fitting import check_classes, make_folds
from featx.heads.fold_rows import FoldRows
from featx.heads.searching import (
    NOT_CONVERGED,
    FoldSearch,
    RidgePath,
    best_candidate,
    fit_fold,
    fit_quietly,
    mean_square_norm,
    search_fold,
    solver_params,
)
from featx.heads.threads import MANY_VALUES, few_threads
from featx.reducers import make_reducer, make_scaler

N_TEST = 60


def made_up(n_train, width, n_classes=3, seed=0, sizes=None):
    """Return overlapping classes, training and test rows apart."""
    rng = np.random.default_rng(seed)
    classes = rng.permutation(np.arange(n_train + N_TEST) % n_classes)
    if sizes is not None:
        classes = rng.choice(n_classes, size=len(classes), p=sizes)
    X = 2 + 0.5 * rng.normal(size=(n_classes, width))[classes] + rng.normal(size=(len(classes), width))
    return X[:n_train], X[n_train:], classes[:n_train], classes[n_train:]


def plain_pipelines(head, candidates, train, test, y_train, scale, reduce, class_weight=None):
    """Return what each candidate names, in a pipeline of its own, converged."""
    template = Pipeline(
        [
            ("scale", make_scaler(scale)),
            ("reduce", make_reducer(reduce, random_state=0)),
            ("head", HEADS[head].make(0, class_weight)),
        ]
    )
    exact = {"svm": {"tol": 1e-6, "max_iter": 100_000}, "logistic": {"tol": 1e-7, "max_iter": 10_000}}.get(head, {})
    named = []
    for params in candidates:
        model = clone(template)
        model.named_steps["head"].set_params(**params, **exact)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            named.append(model.fit(train, y_train).predict(test))
    return named


# --- search ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(45, 120), (150, 12)], ids=["wide", "tall"])
@pytest.mark.parametrize(
    ("head", "scale", "reduce", "rows_apart"),
    [
        # A search of these stops early, by design: a row that lies on the border may change sides.
        ("svm", "zscore", "none", 2),
        ("svm", "none", "pca:6", 2),
        ("logistic", "l2", "none", 1),
        ("logistic", "zscore", "pca:6", 1),
        # Everything else is exact.
        ("ridge", "none", "none", 0),
        ("ridge", "zscore", "pca:6", 0),
        ("ridge", "minmax", "pq:4", 0),
        ("knn", "l2", "none", 0),
        ("svm-rbf", "zscore", "pca:0.8", 0),
        ("tree", "none", "none", 0),
        ("boosting", "none", "pca:6", 0),
    ],
)
def test_search_equals_a_loop_of_pipelines(head, scale, reduce, rows_apart, shape):
    """Each candidate is as accurate as it is in a pipeline of its own that was fitted to the end."""
    train, test, y_train, y_test = made_up(*shape)
    norm = mean_square_norm(make_scaler(scale).fit_transform(train))
    candidates = HEADS[head].candidates(norm, 20)
    rows = FoldRows(train, test, scale=scale)
    ours = search_fold(head, HEADS[head], candidates, rows, y_train, y_test, reduce=reduce)
    named = plain_pipelines(head, candidates, train, test, y_train, scale, reduce)
    expected = [np.mean(classes == y_test) for classes in named]
    assert len(ours.accuracy) == len(ours.converged) == len(candidates)
    apart = np.abs(np.array(ours.accuracy) - expected) * N_TEST
    # of the candidates that the search brought to an end
    assert (apart[np.array(ours.converged)] <= rows_apart + 1e-9).all()
    assert sum(ours.converged) >= len(candidates) - 1
    assert max(expected) > 0.5  # something was there to be found


@pytest.mark.parametrize("class_weight", [None, "balanced"])
@pytest.mark.parametrize("head", ["svm", "logistic", "ridge", "tree"])
def test_kept_fit_equals_a_pipeline(head, class_weight):
    """With given hyper-parameters the named classes are those of the pipeline; class weights reach the head."""
    train, test, y_train, _ = made_up(60, 130, sizes=[0.8, 0.15, 0.05], seed=2)
    norm = mean_square_norm(make_scaler("zscore").fit_transform(train))
    params = HEADS[head].candidates(norm, 40)[2]
    rows = FoldRows(train, test, scale="zscore")
    ours = fit_fold(head, HEADS[head], params, rows, y_train, class_weight=class_weight)
    (expected,) = plain_pipelines(head, [params], train, test, y_train, "zscore", "none", class_weight)
    np.testing.assert_array_equal(ours.classes, expected)
    assert ours.notes == ()
    assert min(ours.fit_seconds, ours.predict_seconds) > 0


def test_class_weights_change_what_is_named():
    """Balanced weights make every weighted head name the rare classes more often."""
    train, test, y_train, _ = made_up(80, 10, n_classes=2, sizes=[0.85, 0.15], seed=4)
    for head in sorted(set(HEADS) - {"knn", "majority"}):
        norm = mean_square_norm(train)
        params = HEADS[head].candidates(norm, 40)[0]
        rows = FoldRows(train, test, scale="none")
        plain, balanced = (
            fit_fold(head, HEADS[head], params, rows, y_train, class_weight=weight) for weight in (None, "balanced")
        )
        assert balanced.classes.mean() > plain.classes.mean(), head


def test_notes_of_rows_and_solver_are_kept():
    """What was lowered, and what did not converge, is said; nothing warns."""
    train, test, y_train, y_test = made_up(30, 50)
    kind = HEADS["svm"]
    lazy = dataclasses.replace(kind, make=lambda *args: kind.make(*args).set_params(max_iter=1, tol=1e-9))
    rows = FoldRows(train, test, scale="none")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours = fit_fold("svm", lazy, {"C": 10.0}, rows, y_train, reduce="pca:90")
        searched = search_fold("svm", lazy, [{"C": 1e-9}, {"C": 10.0}], rows, y_train, y_test)
    assert ours.notes == ("pca:90 lowered to pca:30: 30 training rows of 50 features allow no more", NOT_CONVERGED)
    assert searched.converged[1] is False


def test_best_candidate_is_the_first_of_equals_by_the_mean():
    """Means over folds decide, computed by hand; of equal ones the first, which is the simplest."""
    fine = (True, True, True)
    results = [FoldSearch((0.5, 0.75, 0.5), fine), FoldSearch((0.75, 0.5, 0.5), fine)]
    assert best_candidate(results) == (0, 0.625)
    assert best_candidate([*results, FoldSearch((0.5, 0.75, 0.25), fine)]) == (1, pytest.approx(2 / 3))


@pytest.mark.parametrize(
    ("head", "rows", "norm", "cost", "dual"),
    [
        ("svm", (500, 10), 10.0, 100.0, False),  # many rows, long way: the primal problem
        ("svm", (500, 10), 10.0, 1e-4, True),  # the dual one has little to do
        ("svm", (50, 100), 100.0, 100.0, True),  # few rows
    ],
)
def test_solver_follows_the_rows(head, rows, norm, cost, dual):
    """Where rows are many a column and C·|x|² is large the primal problem is solved, else the dual one."""
    assert solver_params(head, {"C": cost}, rows, norm) == {"dual": dual}
    assert solver_params("logistic", {"C": cost}, rows, norm) == {}


@pytest.mark.parametrize("cost", [1e-3, 1e-1, 1.0])
def test_solver_changes_no_prediction(cost):
    """Both problems have one solution: primal and dual agree on decision values and classes."""
    train, test, y_train, _ = made_up(300, 8)
    seen = set()
    fitted = []
    for shape in ((300, 8), (300, 300)):
        settings = solver_params("svm", {"C": cost}, shape, 1e4)
        seen.add(settings["dual"])
        model = HEADS["svm"].make(0, None).set_params(C=cost, tol=1e-8, max_iter=200_000, **settings)
        fitted.append(model.fit((train - 2) / 2, y_train))
    assert seen == {True, False}
    primal, dual = (model.decision_function((test - 2) / 2) for model in fitted)
    np.testing.assert_allclose(primal, dual, atol=1e-3 * np.abs(dual).max())
    assert np.mean(primal.argmax(axis=1) == dual.argmax(axis=1)) >= 1 - 1 / N_TEST


def test_mean_square_norm_by_hand():
    """(9 + 16 + 1) / 2; large float32 values are summed in float64."""
    assert mean_square_norm(np.array([[3.0, 4.0], [0.0, 1.0]])) == 13
    assert mean_square_norm(np.full((2, 2), 1e30, np.float32)) == pytest.approx(2e60)


def test_only_convergence_is_kept_quiet():
    """A warning about convergence becomes an answer, any other is passed on."""

    class Loud(DummyClassifier):
        def fit(self, X, y):
            warnings.warn("look here", UserWarning, stacklevel=1)
            return super().fit(X, y)

    X, y = np.zeros((4, 1)), np.array([0, 1, 0, 1])
    with pytest.warns(UserWarning, match="look here"):
        assert fit_quietly(Loud(), X, y)
    train, _, y_train, _ = made_up(90, 10)
    assert not fit_quietly(LinearSVC(max_iter=1, tol=1e-9), train, y_train)


# --- ridge -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_classes", [2, 3, 12])
@pytest.mark.parametrize("shape", [(40, 100), (40, 40), (120, 15)])
@pytest.mark.parametrize("scale", ["none", "zscore", "l2"])
def test_ridge_path_equals_scikit_learn_for_every_alpha(n_classes, shape, scale):
    """Every alpha of the grid names what RidgeClassifier names on the original columns."""
    train, test, y_train, _ = made_up(*shape, n_classes=n_classes)
    y_train = 3 * y_train + 1  # classes need not be contiguous
    rows = FoldRows(train, test, scale=scale).orthogonal("none")
    path = RidgePath(rows.train, y_train)
    norm = mean_square_norm(make_scaler(scale).fit_transform(train))
    for params in HEADS["ridge"].candidates(norm, 10):
        oracle = Pipeline([("scale", make_scaler(scale)), ("head", RidgeClassifier(**params))]).fit(train, y_train)
        np.testing.assert_array_equal(path.predict(rows.test, params["alpha"]), oracle.predict(test))


@pytest.mark.parametrize("scale", ["none", "zscore"])
def test_ridge_path_in_float32_is_as_good(scale):
    """In float32 at most one row in a hundred changes sides, for the smallest alphas and with every row twice too."""
    train, test, y_train, _ = made_up(60, 200)
    train, y_train = np.repeat(train, 2, axis=0) + 20, np.repeat(y_train, 2)
    test = np.repeat(test, 5, axis=0) + 20 + 0.1 * np.random.default_rng(0).normal(size=(5 * N_TEST, 200))
    rows = FoldRows(train.astype(np.float32), test.astype(np.float32), scale=scale).orthogonal("none")
    path = RidgePath(rows.train, y_train)
    norm = mean_square_norm(make_scaler(scale).fit_transform(train))
    for params in HEADS["ridge"].candidates(norm, 10):
        oracle = Pipeline([("scale", make_scaler(scale)), ("head", RidgeClassifier(**params))]).fit(train, y_train)
        assert np.mean(path.predict(rows.test, params["alpha"]) == oracle.predict(test)) >= 0.99


def test_ridge_alpha_matters():
    """A huge alpha leaves the intercept alone: the largest class; a small one does not."""
    train, test, y_train, _ = made_up(60, 10, sizes=[0.2, 0.6, 0.2])
    rows = FoldRows(train, test, scale="zscore").orthogonal("none")
    path = RidgePath(rows.train, y_train)
    assert set(path.predict(rows.test, 1e12)) == {1}
    assert set(path.predict(rows.test, 1.0)) == {0, 1, 2}


# --- the table -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", ["svm", "logistic", "ridge"])
def test_grids_follow_the_length_of_the_rows(head):
    """Rows a hundred times as long have a grid moved by four decades, and the same classes named."""
    train, test, y_train, y_test = made_up(50, 20)
    # 10,000 times the squared length: C a 10,000th, alpha 10,000 times
    (name, power), factor = next(iter(HEADS[head].norm_power.items())), 1e4
    short, long = HEADS[head].candidates(20.0, 9), HEADS[head].candidates(20.0 * factor, 9)
    assert [b[name] for b in long] == pytest.approx([a[name] * factor**power for a in short])
    results = [
        search_fold(head, HEADS[head], grid, FoldRows(size * train, size * test, scale="none"), y_train, y_test)
        for grid, size in ((short, 1.0), (long, 100.0))
    ]
    # not the intercept of LinearSVC, which is penalised and means less beside longer rows
    tolerance = 3 if head == "svm" else 1
    np.testing.assert_allclose(results[0].accuracy, results[1].accuracy, atol=tolerance / N_TEST + 1e-9)


def test_grids_by_hand():
    """Values are the table's, times a power of ten, written as people write them; zero rows have the table's own."""
    assert [p["C"] for p in HEADS["svm"].candidates(1280.0, 9)] == [1e-5, 1e-4, 1e-3, 1e-2, 1e-1]
    assert [p["C"] for p in HEADS["logistic"].candidates(1.0, 9)] == [0.1, 1.0, 10.0, 100.0, 1000.0]
    assert [p["C"] for p in HEADS["logistic"].candidates(0.0, 9)] == [0.1, 1.0, 10.0, 100.0, 1000.0]
    alphas = [p["alpha"] for p in HEADS["ridge"].candidates(100.0, 9)]
    assert alphas == [1e5, 31620.0, 1e4, 3162.0, 1e3, 316.2, 100.0, 31.62, 10.0, 3.162, 1.0, 0.3162, 0.1]
    assert [p["n_neighbors"] for p in HEADS["knn"].candidates(1.0, 9)] == [5, 3, 1]
    assert [p["n_neighbors"] for p in HEADS["knn"].candidates(1.0, 0)] == [1]
    assert HEADS["majority"].candidates(1.0, 9) == [{}]


@pytest.mark.parametrize("head", sorted(HEADS))
def test_defaults_are_complete_and_usable(head):
    """What is taken without cross-validation names every parameter of the grid, and fits two rows."""
    defaults = HEADS[head].defaults(30.0)
    assert defaults.keys() == HEADS[head].grid.keys()
    rows = FoldRows(np.eye(2, 5), np.eye(2, 5), scale="none")
    fitted = fit_fold(head, HEADS[head], defaults, rows, np.array([0, 1]))
    assert fitted.classes.shape == (2,)


# --- folds -----------------------------------------------------------------------------------------------------------


def check_folds(y, groups, folds):
    """Check what must hold for any folds; return the rows that are tested."""
    tested = np.concatenate([test for _, test in folds])
    assert len(set(tested.tolist())) == len(tested)
    own = np.arange(len(y)) if groups is None else np.where(groups < 0, 10**6 + np.arange(len(y)), groups)
    for train, test in folds:
        assert set(train) | set(tested) == set(range(len(y)))  # what is never tested is always learned from
        assert set(train).isdisjoint(test)
        assert len(test)
        assert set(own[train]).isdisjoint(own[test])
        assert set(y[train]) == set(y)
        assert (np.diff(train) > 0).all()
    return tested


@pytest.mark.parametrize("seed", range(5))
def test_folds_are_a_stratified_partition(seed):
    """Every row is tested once, and a fold's share of each class differs by less than one row."""
    y = np.random.default_rng(seed).permutation(np.repeat([0, 4, 9], [23, 17, 6]))
    folds, notes = make_folds(y, None, 5, seed)
    assert notes == ()
    assert len(folds) == 5
    assert sorted(check_folds(y, None, folds)) == list(range(46))
    for label, size in ((0, 23), (4, 17), (9, 6)):
        counts = [(y[test] == label).sum() for _, test in folds]
        assert max(counts) - min(counts) <= 1
        assert sum(counts) == size


@pytest.mark.parametrize("seed", range(20))
def test_groups_are_never_cut(seed):
    """Whatever groups and classes look like, no group has rows on both sides, and every class is learned from."""
    rng = np.random.default_rng(seed)
    n_rows = int(rng.integers(20, 120))
    y = rng.choice(5, size=n_rows, p=[0.5, 0.3, 0.1, 0.06, 0.04])
    groups = rng.integers(-1, rng.integers(5, 60), size=n_rows)  # of several classes too
    folds, _ = make_folds(y, groups, 4, seed)
    assert folds
    check_folds(y, groups, folds)


def test_group_that_holds_a_class_alone_is_learned_from_whole():
    """A row of the only group of a class keeps its copies, of whatever class, out of the test parts."""
    y = np.array([0] * 6 + [1] * 6 + [2])
    groups = np.array([0, 1, 2, 3, 4, 7, 5, 6, 8, 9, 10, 11, 7])  # group 7: a row of class 0, and class 2
    folds, notes = make_folds(y, groups, 5, 0)
    assert sorted(check_folds(y, groups, folds)) == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11]
    assert notes == ("1 class has one of the groups only: always learned from, never scored on in cross-validation",)


def test_taking_a_group_may_leave_another_class_alone():
    """Class 1 has two groups, one of them the only one of class 2: the other one cannot be tested then."""
    y = np.array([0] * 4 + [3] * 4 + [1, 1, 2])
    groups = np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9])
    folds, notes = make_folds(y, groups, 4, 0)
    assert sorted(check_folds(y, groups, folds)) == list(range(8))
    assert "2 classes have one of the groups only" in notes[-1]


def test_folds_are_lowered_and_said():
    """The smallest class that has two rows decides, single ones do not."""
    y = np.array([0] * 10 + [1] * 3 + [2, 3])
    folds, notes = make_folds(y, None, 5, 0)
    assert len(folds) == 3
    assert sorted(check_folds(y, None, folds)) == list(range(13))
    assert notes == (
        "3 folds instead of 5: the smallest class has 3 rows",
        "2 classes have one of the rows only: always learned from, never scored on in cross-validation",
    )


@pytest.mark.parametrize(
    ("y", "groups"),
    [([0, 1, 2], None), ([0, 0, 0, 1], None), ([0] * 5, None), ([0, 0, 1, 1, 1], [1, 1, 2, 3, 4]), ([], None)],
)
def test_no_folds_where_fewer_than_two_classes_can_be_divided(y, groups):
    """There is nothing to tell apart: no folds, and a note."""
    folds, notes = make_folds(np.array(y, dtype=int), None if groups is None else np.array(groups), 5, 0)
    assert folds == []
    assert notes[0].startswith("no cross-validation: fewer than two classes have two")


def test_folds_depend_on_the_seed_only():
    """The same seed divides alike, another one otherwise."""
    y = np.repeat([0, 1], 20)
    divided = [[test.tolist() for _, test in make_folds(y, None, 4, seed)[0]] for seed in (3, 3, 4)]
    assert divided[0] == divided[1] != divided[2]


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([], r"shape \(0,\)"),
        ([[0], [1]], r"shape \(2, 1\)"),
        (["cat", "dog"], "classes of type <U3; needed are whole numbers"),
        ([0.0, np.nan], "type float64"),
        ([0, -1], "the smallest -1"),
        ([True, False], "type bool"),
        ([3, 3], r"all 2 rows are of one class \(3\)"),
    ],
)
def test_unusable_classes_are_named(y, message):
    """What is no class index is an error that says what was found."""
    with pytest.raises(HeadError, match=message):
        check_classes(y)


# --- threads ---------------------------------------------------------------------------------------------------------


def test_small_problems_run_on_one_thread():
    """Inside the context every thread pool has one thread, outside and for large problems as many as before."""
    before = [pool["num_threads"] for pool in threadpool_info()]
    with few_threads(MANY_VALUES):
        assert {pool["num_threads"] for pool in threadpool_info()} <= {1}
    with few_threads(MANY_VALUES + 1):
        assert [pool["num_threads"] for pool in threadpool_info()] == before
    assert [pool["num_threads"] for pool in threadpool_info()] == before
