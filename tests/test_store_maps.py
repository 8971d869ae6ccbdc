"""Spatial maps in a store: what was written comes back, lazily, and damage is noticed before anything believes it."""

from __future__ import annotations

import pickle
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest

from featx.errors import FeatureKeyError, StoreError, UnsafeFileError, UsageError
from featx.store import (
    FeatureInfo,
    FeatureStore,
    ImageTable,
    MapInfo,
    NewFeatures,
    RowBlock,
    RowInfo,
    as_row_source,
    merge,
    merging,
    open_segments,
    rewrite,
    verify,
    write_segment,
)

ARCHIVE = Path(__file__).parent / "archives" / "format-1.h5"
FINGERPRINT = {"model": "m", "weights": "w", "transform": {"size": 8}, "decoder": "d", "precision": "f32"}
LATE = FeatureInfo("late@avg", "late", "avg", 1.0, (3,), 3, "float32")
# Not in the order of the alphabet, and with sides that differ, so that no axis can be taken for another.
DEEP, SHALLOW = MapInfo("blocks.10", (2, 3, 5)), MapInfo("blocks.2", (4, 1, 2))
N_IMAGES = 7


def values_of(info: RowInfo, numbers: Sequence[int]) -> np.ndarray:
    """Return values that all tell the number of their image and differ from place to place."""
    one = np.arange(np.prod(info.row_shape)).reshape(info.row_shape) / 8
    return np.stack([one + 10 * number for number in numbers]).astype(np.float32)


def digests_of(numbers: Sequence[int]) -> np.ndarray:
    digests = np.zeros((len(numbers), 16), np.uint8)
    digests[:, 0] = numbers
    return digests


def block_of(numbers: Sequence[int], infos: Sequence[RowInfo]) -> RowBlock:
    n = len(numbers)
    features = {info.key: values_of(info, numbers) for info in infos}
    paths = [f"{number}.jpg" for number in numbers]
    return RowBlock(paths, digests_of(numbers), np.zeros((n, 8), np.uint8), np.ones((n, 2), np.int32), features)


def merge_plainly(out: Path, numbers: Sequence[int], infos: Sequence[RowInfo], sources: Sequence, **changes) -> None:
    n = len(numbers)
    paths = [f"{number}.jpg" for number in numbers]
    table = ImageTable(paths, digests_of(numbers), np.full(n, -1, np.int32), [], np.full(n, -1, np.int8), None)
    options = {"fingerprint": FINGERPRINT, "source": "s", "aliases": {}, "failures": [], **changes}
    merge(out, table, infos, sources, **options)


def write_store(path: Path, infos: Sequence[RowInfo] = (LATE, SHALLOW, DEEP), **changes) -> Path:
    """Write a store of seven images from two segments, the second in another order."""
    folder = path.with_suffix(".segments")
    for numbers in ([0, 1, 2, 3], [6, 5, 4]):
        write_segment(folder, block_of(numbers, infos), infos, FINGERPRINT)
    merge_plainly(path, range(N_IMAGES), infos, open_segments(folder), **changes)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_store(tmp_path / "s.h5", aliases={"middle": "blocks.10", "first": "blocks.2@avg"})


def test_maps_come_back(path: Path) -> None:
    """Maps are float16 at their images' rows, described in the order they were given in, and verify."""
    with FeatureStore(path) as store:
        assert list(store.maps.items()) == [("blocks.2", SHALLOW), ("blocks.10", DEEP)]
        for info in (SHALLOW, DEEP):
            expected = values_of(info, range(N_IMAGES)).astype(np.float16)
            np.testing.assert_array_equal(np.asarray(store.map(info.layer)), expected, strict=True)
        np.testing.assert_array_equal(store["late"][:], values_of(LATE, range(N_IMAGES)))
        assert store.keys == ["late@avg"]
    assert verify(path) == []


def test_plain_h5py_reads_maps(path: Path) -> None:
    """Without featx, maps are found at the name and dtype of the format, an image or a few in a chunk."""
    with h5py.File(path) as file:
        assert file.attrs["format_version"] == 1
        dataset = file["maps/blocks.10"]
        assert (dataset.shape, dataset.dtype) == ((7, 2, 3, 5), np.dtype("<f2"))
        assert dataset.fletcher32
        assert dataset[6, 1, 2, 4] == 60 + 29 / 8
        assert "/maps/blocks.10" in file["digests"].attrs
        assert "maps" not in file.attrs["fingerprint"]


def test_what_a_map_costs_is_said() -> None:
    """A map's description has rows, columns, channels and bytes an image."""
    info = MapInfo("blocks.4", (14, 14, 112))
    assert info.bytes_per_image == 14 * 14 * 112 * 2
    assert (info.shape, info.dtype) == ((14, 14, 112), "float16")
    assert str(info) == "map of blocks.4: 14 x 14 x 112, 43.9 kB an image"


@pytest.mark.parametrize(
    "index",
    [3, -1, slice(None), slice(1, 6, 2), slice(None, None, -1), [5, 0, 5], np.array([[1, 2], [6, -7]]), ..., []],
    ids=str,
)
def test_maps_are_indexed_as_numpy_does(path: Path, index: object) -> None:
    """Numbers, slices and arrays of numbers, with repeats and in any order, give what they give in memory."""
    expected = values_of(DEEP, range(N_IMAGES)).astype(np.float16)
    with FeatureStore(path) as store:
        in_memory = expected[np.array(index, int) if isinstance(index, list) else index]
        np.testing.assert_array_equal(store.map("blocks.10")[index], in_memory, strict=True)


def test_a_mask_selects_maps(path: Path) -> None:
    """A mask of images gives the maps where it is true."""
    mask = np.array([True, False, False, True, False, False, True])
    with FeatureStore(path) as store:
        np.testing.assert_array_equal(store.map("blocks.2")[mask], values_of(SHALLOW, [0, 3, 6]))


@pytest.mark.parametrize("index", [7, -8, (0, 1), None, 1.5, "x", np.ones(6, bool), np.ones((7, 2), bool)], ids=str)
def test_other_indices_are_refused(path: Path, index: object) -> None:
    """What is out of range, no index of images, or reaches further than the first axis is an IndexError."""
    with FeatureStore(path) as store, pytest.raises(IndexError):
        store.map("blocks.10")[index]


def test_maps_are_an_array_on_disk(path: Path) -> None:
    """Length, shape, blocks, iteration, a copy in memory and a pickle are what they are for features."""
    expected = values_of(DEEP, range(N_IMAGES))
    maps = FeatureStore(path).map("blocks.10")
    assert (len(maps), maps.shape, maps.ndim, maps.dtype) == (7, (7, 2, 3, 5), 4, np.dtype("float16"))
    assert (maps.layer, maps.info) == ("blocks.10", DEEP)
    blocks = list(maps.blocks(3))
    assert [len(block) for block in blocks] == [3, 3, 1]
    np.testing.assert_array_equal(np.concatenate(blocks), expected)
    np.testing.assert_array_equal(np.stack(list(maps)), expected)
    np.testing.assert_array_equal(np.asarray(pickle.loads(pickle.dumps(maps)), np.float64), expected)
    assert "blocks.10" in repr(maps)
    with pytest.raises(UsageError, match="n_rows must be at least 1, got 0"):
        next(maps.blocks(0))
    with pytest.raises(ValueError, match="Maps on disk cannot become an array without a copy"):
        np.array(maps, copy=False)


def test_maps_have_names(path: Path, tmp_path: Path) -> None:
    """A map is found by its layer or an alias of it; without a name only where there is one."""
    with FeatureStore(path) as store:
        assert store.map("middle").layer == "blocks.10"
        assert store.map("first").layer == "blocks.2"
        with pytest.raises(FeatureKeyError, match=r"no map 'late'\. The store holds maps of: blocks\.2, blocks\.10"):
            store.map("late")
        with pytest.raises(FeatureKeyError, match=r"there are several maps\. Take one of: blocks\.2, blocks\.10"):
            store.map()
        with pytest.raises(FeatureKeyError, match=r"no features 'middle'\. The store holds: late@avg"):
            store["middle"]
    with FeatureStore(write_store(tmp_path / "one.h5", [LATE, DEEP])) as store:
        assert store.map().layer == "blocks.10"


def test_a_store_without_maps_reads_as_ever() -> None:
    """The archive of the first release has no maps, which is no error until one is asked for."""
    with FeatureStore(ARCHIVE) as store:
        assert store.maps == {}
        with pytest.raises(FeatureKeyError, match=r"no map 'blocks\.0': the store holds none.*--keep-map"):
            store.map("blocks.0")


def test_a_store_may_hold_maps_alone(tmp_path: Path) -> None:
    """A layer needs no features to have a map, and a store of no images has maps of no images."""
    with FeatureStore(write_store(tmp_path / "s.h5", [DEEP])) as store:
        assert (store.keys, list(store.maps)) == ([], ["blocks.10"])
    merge_plainly(tmp_path / "empty.h5", [], [DEEP], [])
    with FeatureStore(tmp_path / "empty.h5") as store:
        assert store.map()[:].shape == (0, 2, 3, 5)
    assert verify(tmp_path / "empty.h5") == []


def test_a_map_is_merged_into_a_store(path: Path, tmp_path: Path) -> None:
    """Maps from a store and another layer's from segments meet in a new store, row by row, in another order."""
    extra = MapInfo("blocks.5", (1, 1, 4))
    write_segment(tmp_path / "more", block_of(range(N_IMAGES), [extra]), [extra], FINGERPRINT)
    order = [5, 0, 6, 2]
    with FeatureStore(path) as store:
        assert set(as_row_source(store).infos) == {"late@avg", "blocks.2", "blocks.10"}
        sources = [as_row_source(store), *open_segments(tmp_path / "more")]
        merge_plainly(tmp_path / "t.h5", order, [LATE, DEEP, extra], sources)
    with FeatureStore(tmp_path / "t.h5") as store:
        assert list(store.maps) == ["blocks.10", "blocks.5"]
        np.testing.assert_array_equal(store.map("blocks.10")[:], values_of(DEEP, order))
        np.testing.assert_array_equal(store.map("blocks.5")[:], values_of(extra, order))
        np.testing.assert_array_equal(store["late"][:], values_of(LATE, order))


def test_rows_without_a_map_are_named(path: Path, tmp_path: Path) -> None:
    """A row whose map no source has, and a source whose maps have another shape, stop the merge."""
    extra = MapInfo("blocks.5", (1, 1, 4))
    with FeatureStore(path) as store:
        with pytest.raises(StoreError, match=r"Row 0 .* none of 0 sources has its map 'blocks\.5'; 7 of 7"):
            merge_plainly(tmp_path / "t.h5", range(N_IMAGES), [extra], [as_row_source(store)])
        turned = MapInfo("blocks.10", (3, 2, 5))
        with pytest.raises(StoreError, match=r"has map 'blocks\.10' of 2 x 3 x 5 values an image, not 3 x 2 x 5"):
            merge_plainly(tmp_path / "t.h5", range(N_IMAGES), [turned], [as_row_source(store)])
    assert not (tmp_path / "t.h5").exists()


def test_values_too_large_for_float16_are_noticed(tmp_path: Path) -> None:
    """What float16 cannot hold is an error that names the map, not an infinity in the file; infinities stay."""
    for value, message in ((7e4, r"Map 'blocks\.10': values reach 7e\+04; float16 holds"), (np.inf, "")):
        block = block_of([0], [DEEP])
        block.features["blocks.10"][0, 1, 1, 1] = value
        if message:
            with pytest.raises(StoreError, match=message):
                write_segment(tmp_path / "parts", block, [DEEP], FINGERPRINT)
        else:
            write_segment(tmp_path / "parts", block, [DEEP], FINGERPRINT)
            merge_plainly(tmp_path / "s.h5", [0], [DEEP], open_segments(tmp_path / "parts"))
    with FeatureStore(tmp_path / "s.h5") as store:
        assert np.isposinf(store.map()[0][1, 1, 1])


@pytest.mark.parametrize(
    ("info", "message"),
    [
        (MapInfo("a/b", (1, 1, 1)), "layer without '/' and '@'"),
        (MapInfo("a@avg", (1, 1, 1)), "layer without '/' and '@'"),
        (MapInfo("", (1, 1, 1)), "layer without '/' and '@'"),
        (MapInfo("a", (0, 1, 1)), "at least one row, column and channel"),
        (MapInfo("a", (1, 1)), "at least one row, column and channel"),
        (MapInfo("a", (1, 1, 1), "float32"), "a map is float16 of .* got float32"),
    ],
)
def test_maps_that_the_format_cannot_hold_are_refused(tmp_path: Path, info: MapInfo, message: str) -> None:
    """The message says what a map may be called and look like."""
    with pytest.raises(UsageError, match=message):
        write_segment(tmp_path / "parts", block_of([0], [info]), [info], FINGERPRINT)


def test_maps_must_be_there_and_of_their_shape(tmp_path: Path) -> None:
    """A block whose maps are missing, flat or too few is refused before anything is written."""
    block = block_of([0, 1], [DEEP])
    for given in ({}, {"blocks.10": np.zeros((2, 30))}, {"blocks.10": np.zeros((1, 2, 3, 5))}):
        bad = RowBlock(block.paths, block.digests, block.phashes, block.sizes, given)
        with pytest.raises(UsageError, match=r"blocks\.10 of 2 rows must have the shape \(2, 2, 3, 5\)"):
            write_segment(tmp_path / "parts", bad, [DEEP], FINGERPRINT)
    assert open_segments(tmp_path / "parts") == []


def flip(path: Path) -> None:
    with h5py.File(path) as file:
        offset = file["maps/blocks.10"].id.get_chunk_info(0).byte_offset
    content = bytearray(path.read_bytes())
    content[offset] ^= 0x10
    path.write_bytes(content)


def test_a_flipped_byte_in_a_map_is_found(path: Path) -> None:
    """One changed byte is reported for that map alone; reading it is an error, the other map is as it was."""
    flip(path)
    (problem,) = verify(path)
    assert problem.startswith("/maps/blocks.10 is damaged")
    with FeatureStore(path) as store:
        with pytest.raises(StoreError, match=r"/maps/blocks\.10 cannot be read .*damaged"):
            store.map("blocks.10")[2]
        np.testing.assert_array_equal(store.map("blocks.2")[2], values_of(SHALLOW, [2])[0])


def test_a_segment_with_a_damaged_map_is_left_out(tmp_path: Path) -> None:
    """A damaged map makes the whole segment unknown, so that its images are computed again."""
    for numbers in ([0, 1], [2, 3]):
        write_segment(tmp_path / "parts", block_of(numbers, [DEEP]), [DEEP], FINGERPRINT)
    flip(tmp_path / "parts" / "000001.h5")
    assert [source.path.name for source in open_segments(tmp_path / "parts")] == ["000002.h5"]


def replaced(shape: tuple[int, ...], chunks: tuple[int, ...], dtype: str = "f2") -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file["maps/blocks.10"]
        file.create_dataset("maps/blocks.10", shape=shape, dtype=dtype, chunks=chunks, fletcher32=True)

    return change


def test_a_map_that_was_not_written_is_found(path: Path) -> None:
    """Chunks that would read as zeros are reported, and such a store is not opened."""
    with h5py.File(path, "r+") as file:
        replaced((7, 2, 3, 5), (1, 2, 3, 5))(file)
    assert verify(path) == ["/maps/blocks.10 lacks 7 of its chunks, which would read as zeros"]
    with pytest.raises(UnsafeFileError, match=r"/maps/blocks\.10 of shape .* bytes, but 0 are stored"):
        _ = FeatureStore(path).maps


def test_other_maps_than_were_written_are_found(path: Path) -> None:
    """Other values with a right checksum, and a map that nobody wrote, are reported by their digests."""
    with h5py.File(path, "r+") as file:
        file["maps/blocks.10"][...] = file["maps/blocks.10"][...][::-1]
        file.create_dataset("maps/x", data=np.zeros((7, 1, 1, 1), "f2"), chunks=(7, 1, 1, 1), fletcher32=True)
    problems = verify(path)
    assert problems == [
        "/maps/blocks.10 is not what was written: its digest differs",
        "/maps/x has no digest in /digests",
    ]


def bomb(file: h5py.File) -> None:
    replaced((7, 10**5, 10**5, 100), (1, 10, 10, 100))(file)
    file["maps/blocks.10"][0, :10, :10] = 1


def with_values(values: np.ndarray) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file["maps/blocks.10"]
        file["maps/blocks.10"] = values

    return change


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (bomb, UnsafeFileError, "/maps/blocks.10 of shape .* promises 14000000000000 bytes"),
        (
            with_values(np.zeros((7, 2, 3, 5), "f4")),
            StoreError,
            r"blocks\.10 \(float32, .* is not float16 of shape \(7,",
        ),
        (with_values(np.zeros((6, 2, 3, 5), "f2")), StoreError, r"shape \(6, 2, 3, 5\)\) is not float16 of shape"),
        (with_values(np.zeros((7, 30), "f2")), StoreError, r"shape \(7, 30\)\) is not float16"),
        (with_values(np.zeros((7, 0, 3, 5), "f2")), StoreError, r"shape \(7, 0, 3, 5\)\) is not float16"),
        (with_values(np.float16(1)), StoreError, r"shape \(\)\) is not float16"),
        (lambda file: file.move("maps/blocks.10", "maps/a@avg"), StoreError, "/maps/a@avg .* is not float16 of shape"),
    ],
)
def test_maps_of_strangers_are_refused(path: Path, change: Callable, kind: type, message: str) -> None:
    """A shape larger than the stored bytes, another dtype and another number of axes are refused at opening."""
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(kind, match=message):
        _ = FeatureStore(path).maps
    assert verify(path) != []


def test_a_rewritten_store_has_no_maps(path: Path, tmp_path: Path) -> None:
    """Rewriting with other features, as a reduced store is, leaves the maps with the old store."""
    with FeatureStore(path) as store:
        halves = NewFeatures(LATE, [store["late"][:] / 2])
        rewrite(store, tmp_path / "small.h5", [halves], fingerprint=FINGERPRINT, aliases={})
    with FeatureStore(tmp_path / "small.h5") as store:
        assert store.maps == {}
        np.testing.assert_array_equal(store["late"][:], values_of(LATE, range(N_IMAGES)) / 2)
    assert verify(tmp_path / "small.h5") == []


def test_merging_and_verifying_maps_take_bounded_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """24 MiB of maps of half a megabyte are merged in blocks of 2 MiB, and a map alone is a chunk."""
    monkeypatch.setattr(merging, "_CHUNKS_PER_BLOCK", 2)
    large = MapInfo("a", (64, 64, 64))
    for start in (0, 24):
        numbers = range(start, start + 24)
        block = block_of(numbers, [])
        block.features["a"] = np.zeros((24, 64, 64, 64), np.float16) + np.arange(start, start + 24)[:, None, None, None]
        write_segment(tmp_path / "parts", block, [large], FINGERPRINT)
    sources = open_segments(tmp_path / "parts")
    tracemalloc.start()
    merge_plainly(tmp_path / "s.h5", range(48), [large], sources)
    merged = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    assert verify(tmp_path / "s.h5") == []
    verified = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert merged < 8 * 2**20
    assert verified < 20 * 2**20
    with FeatureStore(tmp_path / "s.h5") as store, h5py.File(store.path) as file:
        assert file["maps/a"].chunks == (1, 64, 64, 64)
        np.testing.assert_array_equal(store.map()[[40, 3]].max((1, 2, 3)), [40, 3])
