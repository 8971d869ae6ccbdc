"""Features of reduced stores, the reducers behind them, and what damaged or foreign ones are answered with."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from gallery import TRAINED, separable, write_store

from featx.errors import FeatureKeyError, StoreError, UsageError
from featx.reducers import ProductQuantizer, StreamingPCA
from featx.store import FeatureStore, NewFeatures, StoredReducer, reducer_digest, rewrite
from featx.workflows.exporting import export_features
from featx.workflows.fitted_reducers import as_stored, restore_reducer
from featx.workflows.reducing import reduce_store
from featx.workflows.stored_features import base_fingerprint, decoded, read_features, reduction_of

FEATURES = separable([row % 3 for row in range(60)], 12)
NEW = separable([0, 1, 2, 0], 12, seed=9)
KEY = "penultimate@avg"


@pytest.fixture
def store(tmp_path):
    """An open store of sixty rows of twelve features."""
    with FeatureStore(write_store(tmp_path / "full.h5", FEATURES, [row % 3 for row in range(60)])) as opened:
        yield opened


@pytest.fixture(params=["pca:4", "pca:0.8", "pq:3"])
def small(request, store, tmp_path):
    """The same store reduced, open."""
    reduce_store(store, request.param, tmp_path / "small.h5")
    with FeatureStore(tmp_path / "small.h5") as opened:
        yield opened


def test_the_reducer_makes_the_matrix_of_the_original_features(small):
    """A reducer from the file turns original features into exactly the columns that the store gives."""
    found = read_features(small)
    assert (found.key, found.source_width, found.matrix.dtype) == (KEY, 12, np.float32)
    np.testing.assert_array_equal(found.reducer.transform(FEATURES), found.matrix)
    assert found.reducer.n_features_in_ == 12


@pytest.mark.parametrize("by", [StreamingPCA(4), StreamingPCA(0.8, whiten=True), ProductQuantizer(3, n_bits=4)])
def test_a_restored_reducer_is_the_fitted_one(by):
    """Parameters, learned state and what is made of rows never seen are the same after a trip through arrays."""
    fitted = by.fit(FEATURES)
    restored = restore_reducer(as_stored(fitted), where="here")
    assert restored.get_params() == fitted.get_params()
    assert vars(restored).keys() == vars(fitted).keys()
    np.testing.assert_array_equal(restored.transform(NEW), fitted.transform(NEW), strict=True)
    for name, value in vars(fitted).items():
        np.testing.assert_array_equal(getattr(restored, name), value)


def test_a_quantizer_without_rotation_is_restored():
    """A file has no None; where there is no rotation the quantizer has none."""
    fitted = ProductQuantizer(3, rotation=None).fit(FEATURES)
    restored = restore_reducer(as_stored(fitted), where="here")
    assert restored.rotation is restored.rotation_ is None
    np.testing.assert_array_equal(restored.transform(NEW), fitted.transform(NEW))


def test_features_that_are_not_reduced_have_no_reducer(store):
    """The network's own features come as they are."""
    found = read_features(store, "penultimate")
    np.testing.assert_array_equal(found.matrix, FEATURES)
    assert (found.reducer, found.source_width) == (None, 12)
    with pytest.raises(FeatureKeyError, match="no features 'x'"):
        read_features(store, "x")


def test_codes_are_decoded_where_they_are_indexed(store, tmp_path):
    """Slices, rows, masks, blocks and the whole of decoded codes are the quantizer's reconstruction."""
    reduce_store(store, "pq:3", tmp_path / "codes.h5")
    expected = ProductQuantizer(3).fit(FEATURES).transform(FEATURES)
    with FeatureStore(tmp_path / "codes.h5") as codes:
        features = decoded(codes, KEY)
        assert (features.shape, len(features), features.dtype, features.ndim) == ((60, 12), 60, np.float32, 2)
        for index in (slice(5, 50, 7), [3, 1, 59], np.arange(60) % 4 == 0, slice(None)):
            np.testing.assert_array_equal(features[index], expected[index], strict=True)
        blocks = list(features.blocks(25))
        assert [len(block) for block in blocks] == [25, 25, 10]
        np.testing.assert_array_equal(np.concatenate(blocks), expected)
        np.testing.assert_array_equal(np.asarray(features, dtype=np.float64), expected.astype(np.float64), strict=True)
        with pytest.raises(UsageError, match="without a copy"):
            features.__array__(copy=False)


def test_an_export_of_codes_is_what_they_stand_for(store, tmp_path):
    """Exported codes are decoded features in every format, with as many columns."""
    reduce_store(store, "pq:3", tmp_path / "codes.h5")
    expected = ProductQuantizer(3).fit(FEATURES).transform(FEATURES)
    with FeatureStore(tmp_path / "codes.h5") as codes:
        for suffix in (".npy", ".csv", ".pt"):
            export_features(codes, tmp_path / f"f{suffix}")
    np.testing.assert_array_equal(np.load(tmp_path / "f.npy"), expected, strict=True)
    header, first = (tmp_path / "f.csv").read_text().splitlines()[:2]
    assert header.endswith(f",{KEY}_11")
    np.testing.assert_array_equal(np.array(first.split(",")[3:], np.float32), expected[0])


def test_the_fingerprint_before_the_reduction(store, small):
    """Without its reduction, the fingerprint is that of the store that was reduced."""
    assert base_fingerprint(small.fingerprint) == store.fingerprint == base_fingerprint(store.fingerprint)
    assert reduction_of(small.fingerprint) == small.fingerprint["reduction"]["by"]
    assert reduction_of(store.fingerprint) == ""


def rewritten(store, path, stored, features=FEATURES[:, :4], fingerprint=None):
    """Write a reduced store with any reducer, digested as it is unless another fingerprint is given."""
    info = replace(store.infos[KEY], width=features.shape[1])
    if features.dtype == np.uint8:
        info = replace(info, dtype="uint8", codec="pq")
    if fingerprint is None:
        fingerprint = {**TRAINED, "reduction": {"by": "x", "of": {KEY: reducer_digest(stored)}}}
    rewrite(store, path, [NewFeatures(info, [features], stored)], fingerprint=fingerprint, aliases={})
    return FeatureStore(path)


def without(stored, name):
    """Return a reducer that lacks an array."""
    return replace(stored, arrays={key: array for key, array in stored.arrays.items() if key != name})


def changed(stored, name, change):
    """Return a reducer with one array changed."""
    return replace(stored, arrays={**stored.arrays, name: change(stored.arrays[name])})


PCA = as_stored(StreamingPCA(4).fit(FEATURES))
PQ = as_stored(ProductQuantizer(3, n_bits=3).fit(FEATURES))


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (replace(PCA, kind="lda"), r"kind 'lda'; this featx knows pca, pq\. Update featx"),
        (without(PCA, "mean_"), "mean_ is missing"),
        (changed(PCA, "mean_", lambda array: array[:5]), r"mean_ has the shape \(5,\), which does not go"),
        (changed(PCA, "components_", lambda array: array[0]), "components_ is float64, shape"),
        (changed(PCA, "components_", lambda array: array.astype(np.int64)), "components_ is int64"),
        (changed(PCA, "mean_", lambda array: array * np.nan), "mean_ is not finite"),
        (replace(PCA, parameters={}), "4 components of 12 columns from None rows"),
        (changed(PQ, "codebooks_", lambda array: array[:, :5]), "3 codebooks of 5 codewords"),
        (changed(PQ, "codebooks_", lambda array: array[:2]), "2 codebooks of 8 codewords"),
        (without(PQ, "codebooks_"), "codebooks_ is missing"),
        (StoredReducer("pca", {}, {}), "components_ is missing"),
        (PQ, "the reducer of penultimate@avg gives 3 columns, and the store has 4"),
    ],
)
def test_reducers_that_cannot_be_are_an_error(store, tmp_path, stored, message):
    """A reducer whose parts are missing, of another type or do not fit each other is a StoreError, not a crash."""
    with rewritten(store, tmp_path / "odd.h5", stored) as odd, pytest.raises(StoreError, match=message):
        read_features(odd)


def test_reducer_and_fingerprint_belong_together(store, tmp_path):
    """A reducer that is not the one of the fingerprint, or that is missing, is an error."""
    other = {**TRAINED, "reduction": {"by": "pca:4", "of": {KEY: "0" * 32}}}
    with (
        rewritten(store, tmp_path / "a.h5", PCA, fingerprint=other) as odd,
        pytest.raises(StoreError, match="is not the one of its fingerprint"),
    ):
        read_features(odd)
    with rewritten(store, tmp_path / "b.h5", PCA, fingerprint=TRAINED) as odd, pytest.raises(StoreError):
        read_features(odd)
    with (
        rewritten(store, tmp_path / "c.h5", None, fingerprint=other) as odd,
        pytest.raises(StoreError, match="has no reducer of penultimate@avg"),
    ):
        read_features(odd)


def test_codes_without_a_codeword_are_an_error(store, tmp_path):
    """A code beyond the codebook is a StoreError that says so."""
    codes = np.full((60, 3), 200, np.uint8)
    with (
        rewritten(store, tmp_path / "odd.h5", PQ, codes) as odd,
        pytest.raises(StoreError, match="codes of penultimate@avg cannot be decoded"),
    ):
        read_features(odd)
