"""Rows of a fold: turned, cut and shared, and every head finds on them what it finds on the original rows."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from featx.errors import UsageError
from featx.heads.fold_rows import FoldRows
from featx.heads.searching import RidgePath, mean_square_norm
from featx.reducers import SCALERS, StreamingPCA, make_reducer, make_scaler

# Rows to learn from and columns: fewer rows, barely fewer, as many, and more.
SHAPES = {"wide": (40, 150), "one more": (40, 42), "square": (40, 40), "tall": (90, 20)}
N_TEST = 50


def made_up(n_train, width, n_classes=3, offset=3.0, seed=0):
    """Return training rows, test rows and training classes; float64, their mean far beside what they span."""
    rng = np.random.default_rng(seed)
    classes = rng.permutation(np.arange(n_train + N_TEST) % n_classes)
    X = offset + 0.5 * rng.normal(size=(n_classes, width))[classes] + rng.normal(size=(len(classes), width))
    return X[:n_train], X[n_train:], classes[:n_train]


def fold_rows(train, test, scale, **settings):
    return FoldRows(train, test, scale=scale, **settings)


def decisions(model, X):
    return np.asarray(model.decision_function(X)).reshape(len(X), -1)


def assert_close_relative_to_size(actual, expected, tolerance):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * np.abs(expected).max())


# --- the space of the training rows ----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scale", sorted(SCALERS))
@pytest.mark.parametrize("head", ["svm", "svm squared", "logistic", "ridge balanced"])
def test_linear_heads_find_the_same_on_fewer_columns(head, scale, shape):
    """Decision values on rows outside of training equal those of scaler and head on the original columns."""
    train, test, y = made_up(*SHAPES[shape])
    norm = mean_square_norm(make_scaler(scale).fit_transform(train))
    make = {
        # The intercept is penalised with the other weights: it must not notice the turn either.
        "svm": lambda: LinearSVC(C=1 / norm, dual=True, tol=1e-8, max_iter=200_000, random_state=0),
        "svm squared": lambda: LinearSVC(C=10 / norm, dual=False, tol=1e-9, max_iter=10_000),
        "logistic": lambda: LogisticRegression(C=10 / norm, tol=1e-8, max_iter=10_000),
        "ridge balanced": lambda: RidgeClassifier(alpha=0.1 * norm, class_weight={0: 1.0, 1: 7.0, 2: 0.5}),
    }[head]
    space = fold_rows(train, test, scale).for_linear("none")
    ours = make().fit(space.train, y)
    oracle = make_pipeline(make_scaler(scale), make()).fit(train, y)
    assert_close_relative_to_size(decisions(ours, space.test), decisions(oracle, test), 1e-3)
    np.testing.assert_array_equal(ours.predict(space.test), oracle.predict(test))


@pytest.mark.parametrize("scale", sorted(SCALERS))
def test_row_space_keeps_every_product_and_has_few_columns(scale):
    """Products of training rows with all rows stay, which is all that an L2 head knows of them; so few columns do."""
    train, test, _ = made_up(40, 150)
    rows = fold_rows(train, test, scale)
    space, scaled = rows.for_linear("none"), rows.reduced("none")
    assert space.train.shape[1] == space.test.shape[1] == (39 if scale == "zscore" else 40)
    for ours, whole in ((space.train, scaled.train), (space.test, scaled.test)):
        np.testing.assert_allclose(ours @ space.train.T, whole @ scaled.train.T, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("shape", ["square", "tall"])
def test_rows_stay_where_turning_saves_nothing(shape):
    """With at least as many rows as columns the linear heads get the scaled rows themselves."""
    train, test, _ = made_up(*SHAPES[shape])
    rows = fold_rows(train, test, "zscore")
    assert rows.for_linear("none") is rows.reduced("none")


def test_copies_among_the_rows_cost_no_digit():
    """Where each row is there twice, half the directions are empty; the head finds the same."""
    train, test, y = made_up(20, 150)
    train, y = np.repeat(train, 2, axis=0), np.repeat(y, 2)
    space = fold_rows(train, test, "none").for_linear("none")
    assert space.train.shape == (40, 20)
    head = LinearSVC(C=1e-3, dual=True, tol=1e-8, max_iter=200_000)
    ours, oracle = decisions(head.fit(space.train, y), space.test), decisions(head.fit(train, y), test)
    assert_close_relative_to_size(ours, oracle, 1e-3)


@pytest.mark.parametrize("head", [LinearSVC(), LogisticRegression(), RidgeClassifier()])
@pytest.mark.parametrize(("value", "scale"), [(0.0, "none"), (5.0, "zscore"), (5.0, "none")])
def test_features_that_never_vary_can_be_fitted(value, scale, head):
    """A dead layer leaves at least one column to stand on, and every row is named alike."""
    train = np.full((10, 30), value, np.float32)
    rows = fold_rows(train, train[:4], scale)
    y = np.array([0] * 7 + [1] * 3)
    for space in (rows.for_linear("none"), rows.orthogonal("none"), rows.reduced("pca:3"), rows.reduced("pca:0.9")):
        assert np.isfinite(space.train).all()
        assert np.isfinite(space.test).all()
        assert len(set(head.fit(space.train, y).predict(space.test))) == 1
    assert RidgePath(rows.orthogonal("none").train, y).predict(rows.orthogonal("none").test, 1.0).tolist() == [0] * 4


@pytest.mark.parametrize("reduce", ["none", "pca:5", "pca:0.5", "pq:4"])
def test_float32_stays_float32(reduce):
    """No space silently doubles the memory."""
    train, test, _ = (part.astype(np.float32) for part in made_up(40, 150))
    rows = fold_rows(train, test, "zscore")
    for space in (rows.reduced(reduce), rows.for_linear(reduce), rows.orthogonal(reduce)):
        assert space.train.dtype == space.test.dtype == np.float32


# --- reducers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scale", sorted(SCALERS))
def test_components_are_those_of_a_pipeline(scale, shape):
    """The first N columns of the one decomposition are those of scaler and PCA to N."""
    train, test, _ = made_up(*SHAPES[shape])
    rows = fold_rows(train, test, scale)
    for n_components in (1, 7, 19):
        oracle = make_pipeline(make_scaler(scale), StreamingPCA(n_components)).fit(train)
        ours = rows.reduced(f"pca:{n_components}")
        np.testing.assert_allclose(ours.train, oracle.transform(train), rtol=1e-7, atol=1e-7)
        np.testing.assert_allclose(ours.test, oracle.transform(test), rtol=1e-7, atol=1e-7)
        assert ours.note == ""


@pytest.mark.parametrize("shape", ["wide", "tall"])
@pytest.mark.parametrize("fraction", [0.05, 0.5, 0.8, 0.95, 0.999999])
def test_fractions_of_variance_are_those_of_the_pca(fraction, shape):
    """A fraction keeps as many columns as StreamingPCA keeps, and the same ones."""
    train, test, _ = made_up(*SHAPES[shape])
    oracle = make_pipeline(StandardScaler(), StreamingPCA(fraction)).fit(train)
    ours = fold_rows(train, test, "zscore").reduced(f"pca:{fraction}")
    assert ours.train.shape[1] == oracle[-1].n_components_
    np.testing.assert_allclose(ours.test, oracle.transform(test), rtol=1e-7, atol=1e-7)


def test_fraction_that_is_reached_exactly_takes_one_more():
    """Two directions of half the variance each: "more than 0.5" needs both, here as in the PCA."""
    cross = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    assert StreamingPCA(0.5).fit(cross).n_components_ == 2
    assert fold_rows(cross, cross, "none").reduced("pca:0.5").train.shape == (4, 2)


@pytest.mark.parametrize(("shape", "most"), [("wide", 40), ("tall", 20)])
def test_too_many_components_are_lowered_and_said(shape, most):
    """More components than rows or columns become as many as there can be, with a note."""
    n_train, width = SHAPES[shape]
    train, test, _ = made_up(n_train, width)
    ours = fold_rows(train, test, "zscore").reduced("pca:500")
    assert ours.train.shape == (n_train, most)
    assert ours.note == f"pca:500 lowered to pca:{most}: {n_train} training rows of {width} features allow no more"


def test_quantizer_is_the_one_fitted_alone():
    """pq:M sees the scaled training rows, with the seed given, and nothing else."""
    train, test, _ = made_up(60, 24)
    ours = fold_rows(train, test, "minmax", seed=3).reduced("pq:4")
    scaler = make_scaler("minmax").fit(train)
    oracle = make_reducer("pq:4", random_state=3).fit(scaler.transform(train))
    np.testing.assert_array_equal(ours.train, oracle.transform(scaler.transform(train)))
    np.testing.assert_array_equal(ours.test, oracle.transform(scaler.transform(test)))


@pytest.mark.parametrize("reduce", ["none", "pca:6", "pca:0.7", "pq:4"])
@pytest.mark.parametrize("shape", ["wide", "tall"])
def test_orthogonal_rows_are_the_reduced_ones_turned(shape, reduce):
    """Training columns have mean 0 and are orthogonal; distances between training rows stay."""
    train, test, _ = made_up(*SHAPES[shape])
    rows = fold_rows(train, test, "minmax")
    ours, plain = rows.orthogonal(reduce).train.astype(float), rows.reduced(reduce).train.astype(float)
    np.testing.assert_allclose(ours.mean(axis=0), 0, atol=1e-5)
    products = ours.T @ ours
    np.testing.assert_allclose(products - np.diag(np.diag(products)), 0, atol=1e-4)
    assert_close_relative_to_size(pairwise(ours), pairwise(plain), 1e-5)


def pairwise(rows):
    return np.linalg.norm(rows[:, None] - rows[None], axis=2)


@pytest.mark.parametrize("reduce", ["none", "pca:3", "pca:0.5", "pq:3"])
def test_nothing_is_learned_from_test_rows(reduce):
    """Training rows come out the same whatever the test rows are, and a test row whatever the others are."""
    train, test, _ = made_up(40, 60)
    one, other = (fold_rows(train, part, "zscore") for part in (test, 1e6 * test[:3]))
    for name in ("reduced", "for_linear", "orthogonal"):
        first, second = getattr(one, name)(reduce), getattr(other, name)(reduce)
        np.testing.assert_array_equal(first.train, second.train)
        alone = getattr(fold_rows(train, test[:3], "zscore"), name)(reduce)
        np.testing.assert_allclose(alone.test, first.test[:3], rtol=1e-6, atol=1e-6)


def test_announced_reducers_only_save_time():
    """With `reduces` the columns asked for are the same, and asking for others still gives them whole."""
    train, test, _ = made_up(40, 150)
    whole = fold_rows(train, test, "zscore")
    for later in ("none", "pca:12", "pca:0.9"):
        told = fold_rows(train, test, "zscore", reduces=["pca:3", "pca:5"])
        for reduce in ("pca:5", "pca:3", later, "pca:3"):
            for name in ("reduced", "for_linear", "orthogonal"):
                ours, expected = getattr(told, name)(reduce), getattr(whole, name)(reduce)
                # up to rounding; the last axis of "none" is of no variance, where any direction will do
                n_columns = min(expected.train.shape[1], 39)
                assert ours.train.shape == expected.train.shape
                np.testing.assert_allclose(ours.train[:, :n_columns], expected.train[:, :n_columns], atol=1e-8)
                np.testing.assert_allclose(ours.test[:, :n_columns], expected.test[:, :n_columns], atol=1e-8)


def test_layers_side_by_side_are_scaled_one_by_one():
    """With widths, each layer's training columns have a mean squared length of 1."""
    train, test, _ = made_up(40, 150)
    scaled = fold_rows(train, test, "zscore", widths=(30, 120)).reduced("none").train
    assert mean_square_norm(scaled[:, :30]) == pytest.approx(1)
    assert mean_square_norm(scaled[:, 30:]) == pytest.approx(1)


def test_time_of_the_decomposition_is_charged_to_everyone_who_needs_it(monkeypatch):
    """Who comes second does not look faster than who came first; the scaled rows alone do not pay."""
    ticks = iter(range(10_000))
    monkeypatch.setattr("featx.heads.fold_rows.time.perf_counter", lambda: float(next(ticks)))
    train, test, _ = made_up(40, 150)

    def seconds(order):
        rows = fold_rows(train, test, "zscore")
        return {name: getattr(rows, name)("none").fit_seconds for name in order}

    first, second = seconds(["orthogonal", "for_linear"]), seconds(["for_linear", "orthogonal"])
    assert first == second
    assert first["orthogonal"] > fold_rows(train, test, "zscore").reduced("none").fit_seconds


def test_unknown_names_are_named():
    """Scalers and reducers that do not exist are errors."""
    train, test, _ = made_up(10, 5)
    with pytest.raises(UsageError, match="unknown scaler 'robust'"):
        fold_rows(train, test, "robust")
    with pytest.raises(UsageError, match="unknown reducer 'ica:3'"):
        fold_rows(train, test, "none").reduced("ica:3")
