"""Reading a store: what was written comes back, lazily, under every name."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from featx.errors import FeatureKeyError, UsageError
from featx.store import FeatureInfo, FeatureStore, ImageTable, RowBlock, merge, open_segments, verify, write_segment

ARCHIVE = Path(__file__).parent / "archives" / "format-1.h5"

FINGERPRINT = {
    "model": "tf_efficientnet_lite0",
    "weights": "blake2b:00112233",
    "transform": {"size": [224, 224], "crop": 0.875, "interpolation": "bicubic", "mean": [0.5, 0.5, 0.5]},
    "decoder": "pillow-rgb",
    "precision": "f32",
    "engine": "torch",
    "versions": {"torch": "2.15"},
}
PATHS = ["train/Bär/1.jpg", "train/Bär/2.jpg", "train/猫/3.jpg", "val/猫/%FF.jpg", "test/猫/5.jpg", "lone.png"]
EARLY = FeatureInfo("blocks.0@avg", "blocks.0", "avg", 0.125, (3, 8, 8), 3, "float32")
LATE = FeatureInfo("penultimate@avg", "penultimate", "avg", 1.0, (4,), 4, "float16")
EARLY_VALUES = np.arange(18, dtype=np.float32).reshape(6, 3) / 3
LATE_VALUES = np.arange(24, dtype=np.float16).reshape(6, 4) / 8
DIGESTS = np.arange(96, dtype=np.uint8).reshape(6, 16)
PHASHES = np.arange(48, dtype=np.uint8).reshape(6, 8) + 100
SIZES = np.array([[500, 375], [375, 500], [1, 1], [640, 480], [30000, 2], [7, 9]], dtype=np.int32)


def write_archive(path: Path) -> None:
    """Write the content of ``archives/format-1.h5``; that file itself must never be written again."""
    features = {EARLY.key: EARLY_VALUES, LATE.key: LATE_VALUES}
    folder = path.with_name(path.name + ".parts")
    write_segment(folder, RowBlock(PATHS, DIGESTS, PHASHES, SIZES, features), [LATE, EARLY], FINGERPRINT)
    table = ImageTable(
        paths=PATHS,
        digests=DIGESTS,
        labels=np.array([0, 0, 1, 1, 1, -1], dtype=np.int32),
        label_names=["Bär", "猫"],
        splits=np.array([0, 0, 0, 1, 2, -1], dtype=np.int8),
        groups=np.array([7, 7, 8, 9, 9, 3], dtype=np.int32),
    )
    merge(
        path,
        table,
        [LATE, EARLY],
        open_segments(folder),
        fingerprint=FINGERPRINT,
        source="photos/Tiere",
        aliases={"late": "penultimate@avg", "first": "blocks.0"},
        failures=[("train/Bär/broken.jpg", "truncated: 12 bytes are missing")],
    )


def build(path: Path, features: dict[str, tuple[float, np.ndarray]], aliases: dict[str, str] | None = None) -> None:
    """Write a store of given features {key: (depth, values)} of anonymous images."""
    n = len(next(iter(features.values()))[1]) if features else 2
    digests = np.arange(n, dtype=np.uint64).view(np.uint8).reshape(n, 8).repeat(2, axis=1)
    infos = [
        FeatureInfo(key, *key.split("@"), depth, (values.shape[1],), values.shape[1], str(values.dtype))
        for key, (depth, values) in features.items()
    ]
    paths = [f"{number}.jpg" for number in range(n)]
    arrays = {key: values for key, (_, values) in features.items()}
    block = RowBlock(paths, digests, np.zeros((n, 8), np.uint8), np.ones((n, 2), np.int32), arrays)
    write_segment(path.with_suffix(".parts"), block, infos, FINGERPRINT)
    table = ImageTable(paths, digests, np.full(n, -1), [], np.full(n, -1), None)
    sources = open_segments(path.with_suffix(".parts"))
    merge(path, table, infos, sources, fingerprint=FINGERPRINT, source="", aliases=aliases or {}, failures=[])


def check_archive_content(path: Path) -> None:
    with FeatureStore(path) as store:
        assert (store.rows, len(store), store.source) == (6, 6, "photos/Tiere")
        assert store.keys == ["blocks.0@avg", "penultimate@avg"]
        assert store.infos == {EARLY.key: EARLY, LATE.key: LATE}
        assert store.fingerprint == FINGERPRINT
        assert store.aliases == {"late": "penultimate@avg", "first": "blocks.0"}
        assert store.paths.tolist() == PATHS
        assert all(type(path) is str for path in store.paths)
        for values, expected in (
            (store.digests, DIGESTS),
            (store.phashes, PHASHES),
            (store.sizes, SIZES),
            (store.labels, np.array([0, 0, 1, 1, 1, -1], np.int32)),
            (store.splits, np.array([0, 0, 0, 1, 2, -1], np.int8)),
            (store.groups, np.array([7, 7, 8, 9, 9, 3], np.int32)),
            (np.asarray(store["blocks.0"]), EARLY_VALUES),
            (np.asarray(store["penultimate"]), LATE_VALUES),
        ):
            np.testing.assert_array_equal(values, expected, strict=True)
        assert store.label_names == ["Bär", "猫"]
        assert store.failures == [("train/Bär/broken.jpg", "truncated: 12 bytes are missing")]


def test_archive_of_format_1_reads_as_ever() -> None:
    """A file written by the first release reads to the exact values that went in, and verifies."""
    check_archive_content(ARCHIVE)
    assert verify(ARCHIVE) == []


def test_what_is_written_today_is_the_archive(tmp_path: Path) -> None:
    """Writing the archive's content today gives the same content and the same digests."""
    write_archive(tmp_path / "new.h5")
    check_archive_content(tmp_path / "new.h5")
    with h5py.File(ARCHIVE) as old, h5py.File(tmp_path / "new.h5") as new:
        assert dict(old["digests"].attrs) == dict(new["digests"].attrs)


def test_plain_h5py_reads_a_store() -> None:
    """Everything in a store is found with h5py alone, at the names and dtypes of the format."""
    with h5py.File(ARCHIVE) as file:
        assert file.attrs["format"] == "featx"
        assert file.attrs["format_version"] == 1
        assert file.attrs["complete"]
        assert file["images/path"].asstr()[2] == "train/猫/3.jpg"
        np.testing.assert_array_equal(file["features/penultimate@avg"][:], LATE_VALUES, strict=True)
        assert dict(file["features/blocks.0@avg"].attrs).keys() == {"layer", "pool", "depth", "map_shape"}
        assert file["failures/reason"].asstr()[0].startswith("truncated")
        datasets: list[h5py.Dataset] = []
        file.visititems(lambda _, item: datasets.append(item) if isinstance(item, h5py.Dataset) else None)
        assert len(datasets) == 12
        assert all(dataset.fletcher32 for dataset in datasets)
        assert set(file["digests"].attrs) == {dataset.name for dataset in datasets} | {"attributes"}


def test_chunks_are_whole_rows_of_about_one_mebibyte(tmp_path: Path) -> None:
    """A chunk holds as many whole rows as fit into 1 MiB."""
    build(tmp_path / "s.h5", {"a@avg": (0.5, np.zeros((600, 1000), np.float32))})
    with h5py.File(tmp_path / "s.h5") as file:
        assert file["features/a@avg"].chunks == (262, 1000)
        assert file["images/phash"].chunks == (600, 8)


INDICES = {
    "number": 5,
    "negative number": -1,
    "numpy number": np.int32(7),
    "slice": slice(10, 290),
    "everything": slice(None),
    "dots": ...,
    "step": slice(None, None, 7),
    "backwards": slice(250, 3, -11),
    "empty slice": slice(9, 9),
    "past the end": slice(280, 9999),
    "list": [3, 1, 3, 299, -300],
    "empty list": [],
    "two axes of rows": np.array([[1, 2], [299, 0]]),
    "unsigned": np.array([0, 200], np.uint8),
    "range": range(3, 9),
    "mask": np.arange(300) % 3 == 1,
    "list mask": [True, False] * 150,
    "mask of nothing": np.zeros(300, bool),
    "mask of cells": np.add.outer(np.arange(300), np.arange(1200)) % 997 == 0,
    "cell": (4, 5),
    "column": (slice(None), 8),
    "columns": (slice(5, 50), [7, 3, 3]),
    "row of columns": (-2, slice(1, 1000, 50)),
    "pairs": ([4, 2, 250], [9, 8, 7]),
    "rows and dots": ([4, 2, 250], ...),
    "dots and column": (..., 3),
    "rows and slice": (np.array([299, 5]), slice(None, 4)),
    "mask and column": (np.arange(300) > 290, 2),
    "outer": (np.array([[4], [290]]), np.array([[1, 2]])),
    "empty tuple": (),
}


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """A store of two chunks, and its values."""
    path = tmp_path_factory.mktemp("large") / "store.h5"
    values = np.random.default_rng(3).standard_normal((300, 1200)).astype(np.float32)
    build(path, {"a@avg": (1.0, values)})
    return path, values


@pytest.mark.parametrize("index", INDICES.values(), ids=INDICES.keys())
def test_an_index_means_what_it_means_in_numpy(large: tuple[Path, np.ndarray], index: object) -> None:
    """Each kind of index gives numpy's values, shape and dtype."""
    path, values = large
    with FeatureStore(path) as store:
        np.testing.assert_array_equal(store["a"][index], values[index], strict=True)


def test_random_indices_equal_numpy(large: tuple[Path, np.ndarray]) -> None:
    """Random rows in random order with repeats, and random slices, give numpy's values."""
    path, values = large
    rng = np.random.default_rng(0)
    with FeatureStore(path) as store:
        features = store["a"]
        for _ in range(40):
            rows = rng.integers(-300, 300, rng.integers(0, 40))
            np.testing.assert_array_equal(features[rows], values[rows], strict=True)
            bounds = rng.integers(-320, 320, 2).tolist()
            piece = slice(*bounds, int(rng.choice([-9, -1, 1, 2, 100])))
            np.testing.assert_array_equal(features[piece], values[piece], strict=True)


@pytest.mark.parametrize("index", [300, -301, [0, 300], (0, 1200), (0, 0, 0), None, True, 1.5, np.ones(299, bool)])
def test_a_wrong_index_is_an_index_error(large: tuple[Path, np.ndarray], index: object) -> None:
    """What numpy refuses, or what adds an axis, is an IndexError and not wrong rows."""
    with FeatureStore(large[0]) as store, pytest.raises(IndexError):
        store["a"][index]


def test_only_needed_rows_are_read(large: tuple[Path, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    """Far rows are read from their own chunks, never as one span."""
    spans: list[int] = []
    read = h5py.Dataset.__getitem__

    def counting(dataset: h5py.Dataset, index: object) -> np.ndarray:
        result = read(dataset, index)
        spans.append(len(result))
        return result

    with FeatureStore(large[0]) as store:
        features = store["a"]
        monkeypatch.setattr(h5py.Dataset, "__getitem__", counting)
        features[[299, 0, 2]]
    assert spans == [3, 1]


def test_an_array_of_features(large: tuple[Path, np.ndarray]) -> None:
    """Whole, by blocks, row by row and cast, the features are the values; without a copy is refused."""
    path, values = large
    with FeatureStore(path) as store:
        features = store[None]
        assert (features.key, features.shape, features.dtype, features.ndim, len(features)) == (
            "a@avg",
            (300, 1200),
            np.float32,
            2,
            300,
        )
        np.testing.assert_array_equal(np.asarray(features), values, strict=True)
        np.testing.assert_array_equal(np.asarray(features, dtype=np.float64), values.astype(np.float64), strict=True)
        blocks = list(features.blocks(128))
        assert [len(block) for block in blocks] == [128, 128, 44]
        np.testing.assert_array_equal(np.concatenate(blocks), values, strict=True)
        np.testing.assert_array_equal(np.stack(list(features)), values, strict=True)
        with pytest.raises(ValueError, match="without a copy"):
            features.__array__(copy=False)
        with pytest.raises(UsageError, match="at least 1"):
            next(features.blocks(0))


@pytest.fixture
def named(tmp_path: Path) -> FeatureStore:
    """A store with several pools and aliases."""
    one = np.ones((2, 1), np.float32)
    features = {"b.1@max": (0.5, one), "head@avg": (0.9, one), "b.1@avg": (0.5, one), "b.0@avg": (0.1, one)}
    aliases = {"middle": "b.1@max", "last": "head", "both": "b.1", "gone": "b.7"}
    build(tmp_path / "named.h5", features, aliases)
    return FeatureStore(tmp_path / "named.h5")


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("b.1@avg", "b.1@avg"),
        ("b.0", "b.0@avg"),
        ("middle", "b.1@max"),
        ("last", "head@avg"),
        ("both@avg", "b.1@avg"),
        (None, "head@avg"),
    ],
)
def test_names_resolve(named: FeatureStore, name: str | None, key: str) -> None:
    """A full key, a layer with one pool, an alias, an alias with a pool, and nothing at all find their key."""
    assert named.resolve(name) == key
    assert named[name].key == key


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("b.1", r"'b\.1' fits several features.*b\.1@max, b\.1@avg\.$"),
        ("both", r"'both' fits several features.*b\.1@max, b\.1@avg\.$"),
        ("heat", r"no features 'heat'. Did you mean 'head'\?.*b\.0@avg, b\.1@max, b\.1@avg, head@avg"),
        ("gone", r"no features 'gone'"),
        (3, r"named by a text, got 3"),
    ],
)
def test_unclear_names_are_listed(named: FeatureStore, name: str, message: str) -> None:
    """An ambiguous or unknown name is an error that lists what there is."""
    with pytest.raises(FeatureKeyError, match=message):
        named.resolve(name)


def test_keys_are_in_depth_order(named: FeatureStore) -> None:
    """Keys come from shallow to deep, those of one depth in the order in which they were given."""
    assert named.keys == ["b.0@avg", "b.1@max", "b.1@avg", "head@avg"]


def test_no_name_means_penultimate(tmp_path: Path) -> None:
    """Without a name `penultimate` is taken even where something lies as deep; several deepest pools are an error."""
    one = np.ones((2, 1), np.float32)
    build(tmp_path / "p.h5", {"penultimate@avg": (0.9, one), "logits@avg": (1.0, one)})
    assert FeatureStore(tmp_path / "p.h5").resolve(None) == "penultimate@avg"
    build(tmp_path / "q.h5", {"x@avg": (1.0, one), "x@max": (1.0, one)})
    with pytest.raises(FeatureKeyError, match="x@avg, x@max"):
        FeatureStore(tmp_path / "q.h5").resolve(None)
    build(tmp_path / "r.h5", {})
    with pytest.raises(FeatureKeyError, match="holds no features"):
        FeatureStore(tmp_path / "r.h5").resolve(None)
