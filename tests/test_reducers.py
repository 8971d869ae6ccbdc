"""Scalers, and reducers by name."""

import numpy as np
import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from featx.errors import UsageError
from featx.reducers import SCALERS, ProductQuantizer, SignedSquareRoot, StreamingPCA, make_reducer, make_scaler

X = np.array([[1.0, -4.0, 0.0], [3.0, 0.0, 9.0], [2.0, -16.0, 0.25]], dtype=np.float32)


@parametrize_with_checks([SignedSquareRoot()])
def test_estimators_follow_scikit_learn(estimator, check):
    """Our own estimators pass all of scikit-learn's checks."""
    check(estimator)


@pytest.mark.parametrize("name", sorted(SCALERS))
def test_every_scaler_keeps_float32_and_names(name):
    """float32 stays float32, shapes stay, and features keep their names."""
    scaler = make_scaler(name).fit(X)
    assert scaler.transform(X).dtype == np.float32
    assert scaler.transform(X).shape == X.shape
    assert list(scaler.get_feature_names_out(["a", "b", "c"])) == ["a", "b", "c"]


def test_scalers_give_values_computed_by_hand():
    """Each name does what it says."""
    outputs = {name: make_scaler(name).fit_transform(X) for name in SCALERS}
    np.testing.assert_array_equal(outputs["none"], X)
    np.testing.assert_allclose(outputs["zscore"][:, 0], [-(1.5**0.5), 1.5**0.5, 0], rtol=1e-6)
    np.testing.assert_allclose(outputs["minmax"], [[0, 0.75, 0], [1, 1, 1], [0.5, 0, 1 / 36]], rtol=1e-6)
    np.testing.assert_allclose(outputs["l2"][0], np.array([1, -4, 0]) / 17**0.5, rtol=1e-6)
    np.testing.assert_allclose(outputs["sqrt"][2], [2**0.5, -4, 0.5], rtol=1e-6)


def test_signed_square_root_leaves_its_input():
    """The input array is not changed."""
    copy = X.copy()
    SignedSquareRoot().fit(copy).transform(copy)
    np.testing.assert_array_equal(copy, X)


def test_each_call_gives_a_new_scaler():
    """Fitting one scaler does not touch another of the same name."""
    assert make_scaler("zscore") is not make_scaler("zscore")


def test_pca_matches_a_singular_value_decomposition():
    """pca:N projects on the N leading right singular vectors, up to sign."""
    rows = np.random.default_rng(0).normal(size=(40, 6))
    ours = make_reducer("pca:2").fit_transform(rows)
    centred = rows - rows.mean(axis=0)
    _, _, axes = np.linalg.svd(centred)
    np.testing.assert_allclose(np.abs(ours), np.abs(centred @ axes[:2].T), atol=1e-10)


def test_pca_fraction_keeps_just_enough_variance():
    """pca:F keeps the fewest components that explain the fraction F."""
    rows = np.random.default_rng(0).normal(size=(200, 5)) * [10, 5, 1, 1, 1]
    reducer = make_reducer("pca:0.95").fit(rows)
    explained = np.cumsum(reducer.explained_variance_ratio_)
    assert explained[-1] >= 0.95
    assert len(explained) == 1 or explained[-2] < 0.95


def test_pca_is_lowered_to_what_is_allowed():
    """A size beyond what rows and features allow is lowered; one within is not."""
    assert make_reducer("pca:500", max_components=79).n_components == 79
    assert make_reducer("pca:50", max_components=79).n_components == 50
    assert make_reducer("pca:0.5", max_components=79).n_components == 0.5


def test_no_reducer_hands_features_through():
    """none changes nothing."""
    np.testing.assert_array_equal(make_reducer("none").fit_transform(X), X)


@pytest.mark.parametrize(
    "text",
    ["pca", "pca:", "pca:0", "pca:-3", "pca:1.5", "pca:0.0", "pca:many", "pq", "pq:0", "pq:0.5", "pq:x", "", "PCA:3"],
)
def test_unknown_reducers_are_named(text):
    """The error says what was given and what is allowed."""
    with pytest.raises(UsageError, match=r"allowed are none, pca:N .* pca:F .* and pq:M ") as error:
        make_reducer(text)
    assert repr(text) in str(error.value)


def test_names_become_estimators():
    """pca and pq stand for featx's own estimators, and the seed reaches the one that draws."""
    assert isinstance(make_reducer("pca:3"), StreamingPCA)
    assert isinstance(make_reducer("pca:0.9"), StreamingPCA)
    assert isinstance(make_reducer("pq:8"), ProductQuantizer)
    assert make_reducer("pq:8", max_components=4, random_state=5).get_params() == {
        **ProductQuantizer().get_params(),
        "n_subspaces": 8,
        "random_state": 5,
    }


def test_unknown_scaler_is_named():
    """The error lists the scalers there are."""
    with pytest.raises(UsageError, match="'robust'; allowed are none, zscore, minmax, l2, sqrt"):
        make_scaler("robust")
