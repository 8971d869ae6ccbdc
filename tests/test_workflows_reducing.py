"""Reduced stores: the same images with fewer numbers, by reducers that have not seen the rows to score on."""

from __future__ import annotations

import os
import tracemalloc

import h5py
import numpy as np
import pytest
from gallery import TRAINED, separable, write_store

import featx.store.rewriting
from featx.errors import FeatureKeyError, RefusedError, StoreError, UsageError, WouldOverwriteError
from featx.reducers import ProductQuantizer, StreamingPCA, row_blocks
from featx.store import (
    FeatureInfo,
    FeatureStore,
    ImageTable,
    NewFeatures,
    merge,
    open_segments,
    reducer_digest,
    rewrite,
    verify,
)
from featx.workflows import layer_reduction
from featx.workflows.reducing import reduce_store
from featx.workflows.stored_features import read_features

N_ROWS = 90
LABELS = [row % 3 for row in range(N_ROWS)]
# every fifth row is a test row, every seventh of the others a val row
SPLITS = [2 if row % 5 == 0 else 1 if row % 7 == 0 else 0 for row in range(N_ROWS)]
TRAINING = np.flatnonzero(np.array(SPLITS) == 0)
FEATURES = separable(LABELS, 12)
EARLY = FeatureInfo("blocks.1@avg", "blocks.1", "avg", 0.25, (5, 8, 8), 5, "float16")
EARLY_VALUES = np.random.default_rng(1).normal(size=(N_ROWS, 5)).astype(np.float16)


def write_two(path, features=FEATURES, splits=SPLITS, fingerprint=TRAINED):
    """Write a store of two layers, the earlier one in float16, with a group a pair of rows and two aliases."""
    groups = np.arange(N_ROWS) // 2
    one = write_store(path.with_name("one.h5"), features, LABELS, splits=splits, groups=groups, fingerprint=fingerprint)
    with FeatureStore(one) as store:
        late = NewFeatures(store.infos["penultimate@avg"], [features])
        aliases = {"early": "blocks.1", "last": "penultimate@avg"}
        early = NewFeatures(EARLY, [EARLY_VALUES])
        rewrite(store, path, [late, early], fingerprint=fingerprint, aliases=aliases)
    return path


@pytest.fixture
def store(tmp_path):
    """An open store of two layers with splits."""
    with FeatureStore(write_two(tmp_path / "full.h5")) as opened:
        yield opened


def test_principal_components_are_those_of_the_training_rows(store, tmp_path):
    """The columns are what a PCA fitted in memory on the training rows gives, and the report says what it kept."""
    report = reduce_store(store, "pca:3", tmp_path / "small.h5")
    assert verify(tmp_path / "small.h5") == []
    with FeatureStore(tmp_path / "small.h5") as small:
        for values, info in ((FEATURES, small.infos["penultimate@avg"]), (EARLY_VALUES, small.infos["blocks.1@avg"])):
            expected = StreamingPCA(3).fit(values[TRAINING].astype(np.float32))
            reduced = small[info.key][:]
            assert (info.width, info.dtype, info.codec) == (3, "float32", "")
            np.testing.assert_allclose(reduced, expected.transform(values.astype(np.float32)), atol=1e-5)
            (layer,) = [layer for layer in report.layers if layer.key == info.key]
            assert layer.explained_variance == pytest.approx(expected.explained_variance_ratio_.sum(), abs=1e-9)
        assert small.reducers == {"blocks.1@avg": "pca", "penultimate@avg": "pca"}
    early, late = report.layers
    assert (early.width_before, early.bytes_before, early.n_bytes) == (5, N_ROWS * 5 * 2, N_ROWS * 3 * 4)
    assert (late.width_before, late.bytes_before, late.n_bytes) == (12, N_ROWS * 12 * 4, N_ROWS * 3 * 4)
    assert (report.rows, report.fitted_rows) == (N_ROWS, len(TRAINING))
    assert report.fitted_on == "rows outside of val and test"
    assert report.n_bytes == os.path.getsize(tmp_path / "small.h5")
    assert (late.reconstruction_error, late.n_subspaces, late.n_bits, late.notes) == (None, None, None, ())


def test_codes_are_those_of_a_quantizer_on_the_training_rows(store, tmp_path):
    """The codes are what a quantizer fitted in memory gives, and the error is that of rows that it did not see."""
    report = reduce_store(store, "pq:4", tmp_path / "small.h5", seed=5)
    expected = ProductQuantizer(4, random_state=5).fit(FEATURES[TRAINING])
    with FeatureStore(tmp_path / "small.h5") as small:
        info = small.infos["penultimate@avg"]
        assert (info.width, info.dtype, info.codec) == (4, "uint8", "pq")
        np.testing.assert_array_equal(small["penultimate"][:], expected.encode(FEATURES), strict=True)
        assert small.fingerprint["reduction"]["seed"] == 5
    late = report.layers[1]
    unseen = np.delete(FEATURES, TRAINING, axis=0).astype(np.float64)
    error = np.square(unseen - expected.transform(unseen.astype(np.float32))).sum()
    assert late.reconstruction_error == pytest.approx(error / np.square(unseen - unseen.mean(axis=0)).sum(), rel=1e-6)
    assert (late.n_subspaces, late.n_bits, late.explained_variance) == (4, expected.n_bits_, None)
    assert late.n_bits < 8
    assert late.notes == (f"codes of {expected.n_bits_} instead of 8 bits: {len(TRAINING)} rows of 12 columns",)
    assert late.n_bytes == N_ROWS * 4


@pytest.mark.parametrize("by", ["pca:3", "pq:4"])
def test_rows_to_score_on_are_not_seen(by, tmp_path):
    """Other values in the val and test rows give the same reducer; other values in a training row do not."""
    digests = []
    changes = (np.zeros(0, int), np.setdiff1d(np.arange(N_ROWS), TRAINING), TRAINING[:1])
    for number, changed in enumerate(changes):
        features = FEATURES.copy()
        features[changed] += 100
        with FeatureStore(write_two(tmp_path / f"{number}.h5", features)) as store:
            reduce_store(store, by, tmp_path / f"small{number}.h5", layers=["penultimate"])
        with FeatureStore(tmp_path / f"small{number}.h5") as small:
            digests.append(reducer_digest(small.read_reducer("penultimate@avg")))
    assert digests[0] == digests[1] != digests[2]


def test_without_splits_all_rows_are_seen_and_it_is_said(tmp_path):
    """Where nothing is set apart the reducer is fitted on all rows; report and fingerprint say so."""
    with FeatureStore(write_two(tmp_path / "full.h5", splits=[-1] * N_ROWS)) as store:
        report = reduce_store(store, "pca:2", tmp_path / "small.h5")
    assert (report.fitted_rows, report.fitted_on) == (N_ROWS, "all rows")
    with FeatureStore(tmp_path / "small.h5") as small:
        found = read_features(small)
        np.testing.assert_allclose(found.reducer.mean_, FEATURES.mean(axis=0), atol=1e-6)


def test_the_fingerprint_says_what_was_done(store, tmp_path):
    """Everything else of the fingerprint stays, and the reduction names reducer, rows and the fitted arrays."""
    reduce_store(store, "pca:0.9", tmp_path / "small.h5")
    with FeatureStore(tmp_path / "small.h5") as small:
        reduction = small.fingerprint["reduction"]
        assert {**small.fingerprint, "reduction": None} == {**TRAINED, "reduction": None}
        assert reduction == {
            "by": "pca:0.9",
            "of": {key: reducer_digest(small.read_reducer(key)) for key in ("blocks.1@avg", "penultimate@avg")},
            "on": "rows outside of val and test",
            "rows": len(TRAINING),
        }
        assert 1 <= small.infos["penultimate@avg"].width < 12


def test_everything_about_the_images_is_as_it_was(store, tmp_path):
    """Paths, digests, labels, splits, groups and the rest are copied; aliases stay where their layer stays."""
    reduce_store(store, "pca:2", tmp_path / "all.h5")
    reduce_store(store, "pca:2", tmp_path / "one.h5", layers=["last"], overwrite=True)
    with h5py.File(store.path) as old, h5py.File(tmp_path / "all.h5") as new:
        names = [name for name in old["digests"].attrs if name.startswith(("/images/", "/labels/", "/failures/"))]
        assert len(names) == 10
        assert all(new["digests"].attrs[name] == old["digests"].attrs[name] for name in names)
    with FeatureStore(tmp_path / "all.h5") as small, FeatureStore(tmp_path / "one.h5") as one:
        assert small.aliases == {"early": "blocks.1", "last": "penultimate@avg"}
        assert small.source == store.source
        assert (one.keys, one.aliases) == (["penultimate@avg"], {"last": "penultimate@avg"})
        np.testing.assert_array_equal(one["last"][:], small["last"][:])


def test_more_than_there_can_be_is_lowered_and_said(store, tmp_path):
    """More components, or subspaces, than columns are lowered, with a note for each layer that it concerns."""
    components, codes = (reduce_store(store, by, tmp_path / f"{by}.h5") for by in ("pca:8", "pq:11"))
    assert [layer.width for layer in components.layers] == [5, 8]
    assert components.layers[0].notes == (f"5 of 8 components: {len(TRAINING)} rows of 5 columns allow no more",)
    assert components.layers[1].notes == ()
    assert [layer.n_subspaces for layer in codes.layers] == [5, 11]
    assert codes.layers[0].notes[0] == f"5 of 11 subspaces: {len(TRAINING)} rows of 5 columns allow no more"


def test_blocks_do_not_show(store, tmp_path, monkeypatch):
    """However few rows are in memory at a time, the file is the same byte by byte."""
    reduce_store(store, "pq:3", tmp_path / "a.h5")
    monkeypatch.setattr(layer_reduction, "_BLOCK_BYTES", 7 * 4 * 12)
    reduce_store(store, "pq:3", tmp_path / "b.h5")
    with h5py.File(tmp_path / "a.h5") as a, h5py.File(tmp_path / "b.h5") as b:
        assert dict(a["digests"].attrs) == dict(b["digests"].attrs)


@pytest.mark.parametrize("by", ["pca:4", "pq:4"])
def test_a_store_larger_than_memory(by, tmp_path, monkeypatch):
    """Reducing 24 MiB in blocks of half a MiB takes a few MiB, not the whole."""
    n_rows = 48 * 1024
    features = np.random.default_rng(0).normal(size=(n_rows, 128)).astype(np.float32)
    with FeatureStore(write_store(tmp_path / "full.h5", features, [0] * n_rows)) as store:
        monkeypatch.setattr(layer_reduction, "_BLOCK_BYTES", 2**19)
        monkeypatch.setattr(row_blocks, "BLOCK_BYTES", 2**19)
        monkeypatch.setattr("featx.reducers.product_quantizer._MAX_TRAINING_ROWS", 512)
        del features
        tracemalloc.start()
        reduce_store(store, by, tmp_path / "small.h5")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 10 * 2**20
    with FeatureStore(tmp_path / "small.h5") as small:
        assert len(small["penultimate"]) == n_rows


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"reduce": "none"}, UsageError, "'none' would change nothing; give one such as pca:128"),
        ({"reduce": "svd:3"}, UsageError, "unknown reducer 'svd:3'"),
        ({"reduce": "pca:0"}, UsageError, "unknown reducer 'pca:0'"),
        ({"layers": ["blocks.9"]}, FeatureKeyError, "no features 'blocks.9'"),
        ({"layers": []}, UsageError, "no layer was named"),
    ],
)
def test_wrong_requests_write_nothing(arguments, kind, message, store, tmp_path):
    """An unknown reducer or layer is an error that says what is allowed."""
    before = set(tmp_path.iterdir())
    with pytest.raises(kind, match=message):
        reduce_store(store, **{"reduce": "pca:2", "out": tmp_path / "small.h5", **arguments})
    assert set(tmp_path.iterdir()) == before


def test_a_reduced_store_is_not_reduced_again(store, tmp_path):
    """What was lost does not come back: refused, with what to do."""
    reduce_store(store, "pca:2", tmp_path / "small.h5")
    with FeatureStore(tmp_path / "small.h5") as small, pytest.raises(RefusedError, match=r"already \(pca:2\)"):
        reduce_store(small, "pq:2", tmp_path / "smaller.h5")


def test_too_few_rows_are_an_error(tmp_path):
    """A store whose rows are all to be scored on has nothing that a reducer may see."""
    with (
        FeatureStore(write_two(tmp_path / "full.h5", splits=[2] * N_ROWS)) as store,
        pytest.raises(UsageError, match="0 rows outside of its val and test splits"),
    ):
        reduce_store(store, "pca:2", tmp_path / "small.h5")


def test_features_that_are_no_numbers_are_named(tmp_path):
    """NaN in the rows to fit, or in the others, is an error that names the layer, and leaves nothing behind."""
    for row in (TRAINING[3], 0):
        features = FEATURES.copy()
        features[row, 4] = np.nan
        with (
            FeatureStore(write_two(tmp_path / f"{row}.h5", features)) as store,
            pytest.raises(UsageError, match=r"penultimate@avg cannot be reduced: .*NaN"),
        ):
            reduce_store(store, "pca:2", tmp_path / "small.h5")
        assert not (tmp_path / "small.h5").exists()


def test_features_of_random_weights_pass(tmp_path):
    """Reducing means nothing by itself, so untrained weights need no permission; their mark stays."""
    random = {**TRAINED, "weights_source": "random:0"}
    with FeatureStore(write_two(tmp_path / "full.h5", fingerprint=random)) as store:
        reduce_store(store, "pca:2", tmp_path / "small.h5")
    with FeatureStore(tmp_path / "small.h5") as small:
        assert small.fingerprint["weights_source"] == "random:0"


def test_nothing_is_replaced_unasked(store, tmp_path):
    """A file that is there stays unless replacing is allowed, and the store itself always stays."""
    (tmp_path / "small.h5").write_text("precious")
    with pytest.raises(WouldOverwriteError, match="is already there"):
        reduce_store(store, "pca:2", tmp_path / "small.h5")
    assert (tmp_path / "small.h5").read_text() == "precious"
    before = store.path.read_bytes()
    with pytest.raises(WouldOverwriteError, match="is the store that is to be reduced"):
        reduce_store(store, "pca:2", store.path, overwrite=True)
    assert store.path.read_bytes() == before
    reduce_store(store, "pca:2", tmp_path / "small.h5", overwrite=True)
    assert verify(tmp_path / "small.h5") == []


@pytest.mark.parametrize("step", ["writing", "publishing"])
def test_what_stops_half_way_leaves_the_old_file(step, store, tmp_path, monkeypatch):
    """An interruption while rows are written, or a disk that is full at the end, leaves the old file and no draft."""
    out = tmp_path / "small.h5"
    reduce_store(store, "pca:2", out)
    before, names = out.read_bytes(), set(tmp_path.iterdir())
    if step == "writing":

        def stop(progress):
            if progress.step == 4:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            reduce_store(store, "pca:3", out, overwrite=True, progress=stop)
    else:

        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(featx.store.rewriting, "publish", full)
        with pytest.raises(StoreError, match=r"No space left on device.*is unchanged\. Free some space"):
            reduce_store(store, "pca:3", out, overwrite=True)
    assert out.read_bytes() == before
    assert set(tmp_path.iterdir()) == names


def test_progress_counts_two_steps_a_layer(store, tmp_path):
    """Each layer is fitted, then written; steps count to the number that was announced."""
    seen = []
    reduce_store(store, "pca:2", tmp_path / "small.h5", progress=seen.append)
    assert [(progress.step, progress.n_steps) for progress in seen] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert [progress.what for progress in seen] == [
        "fitting pca:2 on blocks.1@avg",
        "fitting pca:2 on penultimate@avg",
        "writing blocks.1@avg",
        "writing penultimate@avg",
    ]


def test_reduced_features_are_not_mixed_with_others(store, tmp_path):
    """A segment of the network's own features does not go into a reduced store."""
    reduce_store(store, "pca:2", tmp_path / "small.h5")
    segments = open_segments(tmp_path / "one.h5.segments")
    with FeatureStore(tmp_path / "small.h5") as small:
        table = ImageTable(small.paths, small.digests, small.labels, small.label_names, small.splits, small.groups)
        info, fingerprint = store.infos["penultimate@avg"], small.fingerprint
    with pytest.raises(RefusedError, match=r"reduction: expected .*pca:2.*found nothing"):
        merge(tmp_path / "x.h5", table, [info], segments, fingerprint=fingerprint, source="", aliases={}, failures=[])
