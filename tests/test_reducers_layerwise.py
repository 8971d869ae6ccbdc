"""Several layers side by side: each scaled by itself, all of the same weight."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.preprocessing import MinMaxScaler, Normalizer, StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from featx.errors import UsageError
from featx.reducers import SCALERS, SignedSquareRoot, make_scaler
from featx.reducers.layerwise import LayerwiseScaler


def made_up(widths, n_rows=30, seed=0):
    """Return layers side by side, each of another size."""
    rng = np.random.default_rng(seed)
    return np.hstack([10.0**place * (1 + rng.normal(size=(n_rows, width))) for place, width in enumerate(widths)])


@parametrize_with_checks(
    [
        LayerwiseScaler(),
        LayerwiseScaler(StandardScaler()),
        LayerwiseScaler(MinMaxScaler()),
        LayerwiseScaler(SignedSquareRoot()),
    ]
)
def test_estimator_follows_scikit_learn(estimator, check):
    """All of scikit-learn's checks pass, with a scaler inside and without."""
    check(estimator)


def test_values_by_hand():
    """Of two layers, one column of 3s and two columns: both get rows of mean squared length 1."""
    X = np.array([[3.0, 1.0, 0.0], [3.0, 0.0, 7.0], [-3.0, 5.0, 5.0]])
    scaler = LayerwiseScaler(widths=(1, 2)).fit(X)
    # mean of 9, 9, 9 is 9; mean of 1, 49, 50 is 100/3
    np.testing.assert_allclose(scaler.weights_, [1 / 3, (3 / 100) ** 0.5])
    np.testing.assert_allclose(scaler.transform(X)[:, 0], [1, 1, -1])
    np.testing.assert_allclose(scaler.transform([[6.0, 0.0, 10.0]]), [[2, 0, 3**0.5]])
    assert scaler.scalers_ == [None, None]


def test_scaler_is_fitted_for_each_layer_by_hand():
    """A z-scored layer of one column is ±1 already; one of four such columns is halved."""
    X = np.array([[0.0] + [5.0] * 4, [2.0] + [9.0] * 4])
    scaler = LayerwiseScaler(StandardScaler(), widths=[1, 4]).fit(X)
    np.testing.assert_allclose(scaler.weights_, [1, 0.5])
    np.testing.assert_allclose(scaler.transform(X), [[-1] + [-0.5] * 4, [1] + [0.5] * 4])
    assert [part.mean_.tolist() for part in scaler.scalers_] == [[1], [7] * 4]


@pytest.mark.parametrize("name", sorted(set(SCALERS) - {"none"}))
@pytest.mark.parametrize("widths", [(4, 9), (1, 1, 20), (13,)])
def test_every_layer_weighs_the_same(name, widths):
    """On training rows each layer's mean squared length is 1, whatever its scaler and width."""
    X = made_up(widths)
    scaled = LayerwiseScaler(SCALERS[name](), widths).fit_transform(X)
    for part in np.split(scaled, np.cumsum(widths)[:-1], axis=1):
        assert np.mean((part**2).sum(axis=1)) == pytest.approx(1)


@pytest.mark.parametrize("name", sorted(set(SCALERS) - {"none"}))
def test_each_layer_is_its_scaler_alone_up_to_a_factor(name):
    """Other rows are scaled with what was learned from this layer's columns of the training rows, and nothing else."""
    widths = (4, 9)
    X, other = made_up(widths), made_up(widths, seed=1)
    ours = LayerwiseScaler(SCALERS[name](), widths).fit(X)
    parts = np.split(ours.transform(other), [4], axis=1)
    for part, columns, weight in zip(parts, (slice(0, 4), slice(4, 13)), ours.weights_, strict=True):
        alone = SCALERS[name]().fit(X[:, columns]).transform(other[:, columns])
        np.testing.assert_allclose(part, weight * alone)


def test_one_layer_is_a_standard_scaler_up_to_a_factor():
    """Without widths all columns are one layer; z-scored columns of width d are divided by sqrt(d)."""
    X = made_up((6,))
    ours = LayerwiseScaler(StandardScaler()).fit(X)
    np.testing.assert_allclose(ours.transform(X), StandardScaler().fit_transform(X) / 6**0.5)
    np.testing.assert_allclose(LayerwiseScaler(StandardScaler(), (6,)).fit_transform(X), ours.transform(X))


@pytest.mark.parametrize("scaler", [None, StandardScaler(), MinMaxScaler(), Normalizer(), SignedSquareRoot()])
def test_float32_stays_and_is_as_good(scaler):
    """float32 stays float32, near what float64 gives; whole numbers become float64; the input stays as it is."""
    X = made_up((3, 5)).astype(np.float32)
    copy = X.copy()
    ours = LayerwiseScaler(scaler, (3, 5)).fit(X)
    assert ours.transform(X).dtype == np.float32
    np.testing.assert_array_equal(X, copy)
    exact = LayerwiseScaler(scaler, (3, 5)).fit_transform(X.astype(np.float64))
    assert exact.dtype == np.float64
    np.testing.assert_allclose(ours.transform(X), exact, atol=1e-5)
    assert LayerwiseScaler(scaler, (3, 5)).fit_transform(X.astype(int)).dtype == np.float64


def test_layer_without_any_value_stays_zero():
    """A dead layer has no length to divide by: zeros stay zeros, the others are scaled."""
    X = np.hstack([np.zeros((5, 2)), made_up((3,), 5)])
    scaled = LayerwiseScaler(StandardScaler(), (2, 3)).fit_transform(X)
    assert not scaled[:, :2].any()
    assert np.mean((scaled**2).sum(axis=1)) == pytest.approx(1)


@pytest.mark.parametrize("widths", [(3,), (3, 6), (8, 0), (9, -1), ()])
def test_widths_that_do_not_add_up_are_named(widths):
    """Widths of other columns than there are, or of none, are an error that says both."""
    with pytest.raises(UsageError, match=r"do not add up to the 8 features"):
        LayerwiseScaler(StandardScaler(), widths).fit(made_up((3, 5)))


def test_each_parameter_changes_something():
    """The scaler, and the widths, are seen in the result; clones of a fitted one start anew."""
    X = made_up((3, 5))
    plain = LayerwiseScaler().fit_transform(X)
    assert not np.allclose(plain, LayerwiseScaler(StandardScaler()).fit_transform(X))
    assert not np.allclose(plain, LayerwiseScaler(widths=(3, 5)).fit_transform(X))
    given = StandardScaler()
    fitted = LayerwiseScaler(given, (3, 5)).fit(X)
    assert not hasattr(given, "mean_")
    assert not hasattr(clone(fitted), "weights_")
    assert list(fitted.get_feature_names_out()) == [f"x{column}" for column in range(8)]


def test_names_make_it_where_there_are_several_layers():
    """`make_scaler` takes it for two layers and more, but not for "none", which leaves columns as they are."""
    X = made_up((3, 5))
    assert isinstance(make_scaler("zscore", (3, 5)), LayerwiseScaler)
    assert isinstance(make_scaler("zscore", (8,)), StandardScaler)
    np.testing.assert_array_equal(make_scaler("none", (3, 5)).fit_transform(X), X)
    np.testing.assert_allclose(
        make_scaler("l2", [3, 5]).fit_transform(X), LayerwiseScaler(Normalizer(), (3, 5)).fit_transform(X)
    )
