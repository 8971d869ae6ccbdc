"""Features to learn from are those of the layers that were named, and the way back to images is kept with them."""

from __future__ import annotations

import numpy as np
import pytest
from layered_stores import NOT_BUILT, WIDTHS, layered, write_layers

from featx.errors import FeatureKeyError, UsageError
from featx.extraction import FeatureSpec
from featx.store import FeatureStore
from featx.workflows.learnable_features import (
    features_by_layer,
    late_layer,
    layers_to_try,
    learnable_features,
    reduction_notes,
)
from featx.workflows.reducing import reduce_store

LABELS = [row % 3 for row in range(60)]
FEATURES = layered(LABELS)
KEYS = list(FEATURES)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """An open store of four layers."""
    with FeatureStore(write_layers(tmp_path_factory.mktemp("store") / "s.h5", LABELS)) as opened:
        yield opened


@pytest.fixture(scope="module", params=["pca:3", "pq:2"])
def reduced(request, store, tmp_path_factory):
    """The same store, every layer reduced."""
    out = tmp_path_factory.mktemp("reduced") / "r.h5"
    reduce_store(store, request.param, out)
    with FeatureStore(out) as opened:
        yield opened


def test_one_layer_is_what_the_store_holds(store):
    """A named layer, and the default, are the stored numbers, with the specification of the store."""
    for name, key in (("blocks.2", "blocks.2@avg"), (None, "penultimate@avg"), ("blocks.0@avg", "blocks.0@avg")):
        features = learnable_features(store, name)
        np.testing.assert_array_equal(features.matrix, FEATURES[key])
        assert features.matrix.dtype == np.float32
        assert features.spec == FeatureSpec(key, WIDTHS[key], store.fingerprint)
        assert (features.widths, features.reducer) == ((WIDTHS[key],), None)


def test_layers_side_by_side_keep_the_order_given(store):
    """``B+A`` has the columns of B first, and says so in its specification and widths."""
    features = learnable_features(store, "penultimate+blocks.0+blocks.2@avg")
    order = ["penultimate@avg", "blocks.0@avg", "blocks.2@avg"]
    np.testing.assert_array_equal(features.matrix, np.hstack([FEATURES[key] for key in order]))
    assert (features.spec.key, features.spec.width, features.widths) == ("+".join(order), 20, (10, 4, 6))


@pytest.mark.parametrize(
    ("name", "error", "said"),
    [
        ("blocks.9", FeatureKeyError, "The store holds: blocks.0@avg"),
        ("blocks.0+blocks.9", FeatureKeyError, "blocks.9"),
        ("blocks.0+", FeatureKeyError, "''"),
        ("blocks.0+blocks.0@avg", UsageError, "names the same features twice"),
    ],
)
def test_names_that_fit_nothing(name, error, said, store):
    """An unknown layer, an empty one and one that is named twice are errors that quote what was typed."""
    with pytest.raises(error, match=said):
        learnable_features(store, name)


def test_reduced_features_come_with_what_made_them(store, reduced):
    """The matrix is what the kept reducer makes of the network's own features, which the specification asks for."""
    for key in KEYS:
        features = learnable_features(reduced, key)
        expected = features.reducer.transform(FEATURES[key])
        np.testing.assert_allclose(features.matrix, expected, atol=1e-5)
        assert features.spec == FeatureSpec(key, WIDTHS[key], dict(store.fingerprint))
        assert features.widths == (features.matrix.shape[1],)
        assert np.abs(features.matrix).max() > 0.1


def test_reduced_layers_do_not_stand_side_by_side(reduced):
    """Several layers of a reduced store are refused with what to do instead."""
    with pytest.raises(UsageError, match=r"several cannot stand side by side. Use the store that it was made from"):
        learnable_features(reduced, "blocks.0+blocks.2")


def test_layers_to_try(store, reduced):
    """All layers, then the deepest two, four and all side by side; reduced ones each by itself."""
    assert layers_to_try(store) == [*KEYS, "+".join(KEYS[-2:]), "+".join(KEYS)]
    assert layers_to_try(reduced) == KEYS


def test_of_several_pools_the_first_stands_side_by_side(tmp_path):
    """A layer with two pools is tried with both, and joined with one."""
    pools = ("blocks.0@avg", "blocks.0@max", "blocks.2@max", "blocks.2@avg")
    matrices = dict(zip(pools, FEATURES.values(), strict=True))
    with FeatureStore(write_layers(tmp_path / "s.h5", LABELS, matrices)) as opened:
        keys = opened.keys
        tried = layers_to_try(opened)
        first = {layer: next(key for key in keys if key.startswith(layer)) for layer in ("blocks.0@", "blocks.2@")}
        assert tried == [*keys, "+".join(first.values())]
        assert set(keys) == set(pools)


def test_features_of_several_layers_stay_on_disk(store):
    """All layers, or those that names stand for, from the shallowest; nothing is read before it is indexed."""
    assert list(features_by_layer(store)) == KEYS
    some = features_by_layer(store, ["penultimate+blocks.0@avg", "blocks.0"])
    assert list(some) == ["blocks.0@avg", "penultimate@avg"]
    assert not isinstance(some["blocks.0@avg"], np.ndarray)
    np.testing.assert_array_equal(some["penultimate@avg"][[3, 5]], FEATURES["penultimate@avg"][[3, 5]])
    with pytest.raises(FeatureKeyError, match=r"blocks\.9"):
        features_by_layer(store, ["blocks.9"])


def test_reduced_features_of_several_layers_are_decoded(reduced):
    """Indexing gives what `learnable_features` gives, codes or not."""
    for key, features in features_by_layer(reduced).items():
        np.testing.assert_array_equal(features[4:9], learnable_features(reduced, key).matrix[4:9])


def test_the_late_layer(store, tmp_path):
    """``penultimate`` where it is there, else the deepest, of several pools the first; nothing is an error."""
    assert late_layer(store) == "penultimate@avg"
    matrices = dict(zip(("blocks.0@avg", "blocks.2@max", "blocks.2@avg"), FEATURES.values(), strict=False))
    infos = write_layers(tmp_path / "s.h5", LABELS, matrices)
    with FeatureStore(infos) as opened:
        assert late_layer(opened).startswith("blocks.2@")
        assert late_layer(opened) in opened.keys
    with FeatureStore(write_layers(tmp_path / "none.h5", LABELS, {})) as opened:
        with pytest.raises(FeatureKeyError, match="holds no features"):
            late_layer(opened)
        assert opened.fingerprint["model"] == NOT_BUILT["model"]


@pytest.mark.parametrize("with_test", [False, True])
def test_a_reducer_that_saw_the_scored_rows_is_said(tmp_path, with_test):
    """A note says that the reducer saw the folds or, in a store without splits, what is scored on as well."""
    splits = np.where(np.arange(len(LABELS)) % 5 == 0, 2, 0) if with_test else np.full(len(LABELS), -1)
    with FeatureStore(write_layers(tmp_path / "s.h5", LABELS, splits=splits)) as store:
        assert reduction_notes(store) == ()
        reduce_store(store, "pca:2", tmp_path / "r.h5")
    with FeatureStore(tmp_path / "r.h5") as reduced:
        notes = reduction_notes(reduced)
    (note,) = notes
    assert ("has seen all folds" if with_test else "has seen the rows that are scored on too") in note
