"""Segments and merging: rows find their place by content, and a file is there whole or not at all."""

from __future__ import annotations

import errno
import logging
import os
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import featx.errors
import featx.store.replacing
from featx.errors import FingerprintMismatchError, StoreError, UsageError
from featx.store import (
    FeatureInfo,
    FeatureStore,
    ImageTable,
    RowBlock,
    RowSource,
    as_row_source,
    merge,
    merging,
    open_segments,
    verify,
    write_segment,
)

FINGERPRINT = {"model": "m", "weights": "w", "transform": {"size": 8}, "decoder": "d", "precision": "f32"}


def info(key: str = "a@avg", width: int = 2, dtype: str = "float32") -> FeatureInfo:
    return FeatureInfo(key, *key.split("@"), 0.5, (width, 4, 4), width, dtype)


def digests_of(numbers: Sequence[int]) -> np.ndarray:
    """Return digests that say which image they are of, many with trailing zeros."""
    digests = np.zeros((len(numbers), 16), dtype=np.uint8)
    digests[:, 0] = numbers
    return digests


def values_of(numbers: Sequence[int], width: int = 2) -> np.ndarray:
    return np.outer(np.asarray(numbers, dtype=np.float32), 10.0 ** (np.arange(width, dtype=np.float32) % 4))


def block_of(numbers: Sequence[int], infos: Sequence[FeatureInfo]) -> RowBlock:
    """Return rows whose features, hash and size all tell the number of their image."""
    column = np.asarray(numbers)[:, None]
    return RowBlock(
        paths=[f"{number}.jpg" for number in numbers],
        digests=digests_of(numbers),
        phashes=np.broadcast_to(column, (len(numbers), 8)).astype(np.uint8),
        sizes=np.broadcast_to(column + 1, (len(numbers), 2)).astype(np.int32),
        features={info.key: values_of(numbers, info.width) for info in infos},
    )


def table_of(numbers: Sequence[int]) -> ImageTable:
    n = len(numbers)
    paths = [f"{place}/{number}.jpg" for place, number in enumerate(numbers)]
    return ImageTable(paths, digests_of(numbers), np.full(n, -1, np.int32), [], np.full(n, -1, np.int8), None)


def merge_plainly(
    out: Path, numbers: Sequence[int], infos: Sequence[FeatureInfo], sources: Sequence[RowSource], **changes: Any
) -> None:
    options = {"fingerprint": FINGERPRINT, "source": "s", "aliases": {}, "failures": [], **changes}
    merge(out, table_of(numbers), infos, sources, **options)


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """Three segments: images 1–3, 3–5 and 9."""
    for numbers in ([1, 2, 3], [5, 4, 3], [9]):
        write_segment(tmp_path / "parts", block_of(numbers, [info()]), [info()], FINGERPRINT)
    return tmp_path / "parts"


def test_segments_are_numbered_and_read_back(parts: Path) -> None:
    """Segments get the next number and give back rows, hashes and sizes in any order."""
    sources = open_segments(parts)
    assert [source.path.name for source in sources] == ["000001.h5", "000002.h5", "000003.h5"]
    assert sources[1].fingerprint == FINGERPRINT
    assert sources[1].infos == {"a@avg": info()}
    np.testing.assert_array_equal(sources[1].digests, digests_of([5, 4, 3]), strict=True)
    rows = np.array([2, 0, 2])
    np.testing.assert_array_equal(sources[1].read("a@avg", rows), values_of([3, 5, 3]), strict=True)
    np.testing.assert_array_equal(sources[1].read_phashes(rows)[:, 0], [3, 5, 3])
    np.testing.assert_array_equal(sources[1].read_sizes(rows)[:, 1], [4, 6, 4])
    np.testing.assert_array_equal(sources[1].find(digests_of([4, 7, 0, 3])), [1, -1, -1, 2])
    (parts / "000002.h5").unlink()
    assert write_segment(parts, block_of([7], [info()]), [info()], FINGERPRINT).name == "000004.h5"
    assert open_segments(parts / "missing") == []


def test_a_number_taken_meanwhile_is_not_overwritten(parts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that saw an older list of segments takes the next number instead of another's."""
    monkeypatch.setattr("featx.store.segments._numbers", lambda _: {1: None})
    assert write_segment(parts, block_of([7], [info()]), [info()], FINGERPRINT).name == "000004.h5"
    monkeypatch.undo()
    assert [len(source) for source in open_segments(parts)] == [3, 3, 1, 1]


@pytest.mark.parametrize("damage", ["cut", "flipped", "foreign", "text"])
def test_damaged_segments_are_left_out(parts: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    """A segment that is cut, changed or something else is skipped with a warning, the others are read."""
    path = parts / "000002.h5"
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        with h5py.File(path) as file:
            offset = file["features/a@avg"].id.get_chunk_info(0).byte_offset
        content[offset] ^= 1
    path.write_bytes(b"hello" if damage == "text" else content[: len(content) // 2] if damage == "cut" else content)
    if damage == "foreign":
        h5py.File(path, "w").close()
    with caplog.at_level(logging.WARNING):
        sources = open_segments(parts)
    assert [source.path.name for source in sources] == ["000001.h5", "000003.h5"]
    assert "000002.h5 is left out" in caplog.text


def test_empty_numbers_and_other_files_are_no_segments(parts: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A reserved number and files of other names are passed over silently."""
    (parts / "000004.h5").touch()
    (parts / "notes.txt").write_text("x")
    assert len(open_segments(parts)) == 3
    assert caplog.text == ""


def test_merging_finds_rows_by_digest(parts: Path, tmp_path: Path) -> None:
    """Rows come in the order of the listing from whichever source knows them, equal images share theirs."""
    numbers = [9, 3, 1, 5, 3, 2, 4, 9]
    merge_plainly(tmp_path / "s.h5", numbers, [info()], open_segments(parts))
    with FeatureStore(tmp_path / "s.h5") as store:
        np.testing.assert_array_equal(store["a"][:], values_of(numbers), strict=True)
        np.testing.assert_array_equal(store.digests, digests_of(numbers), strict=True)
        np.testing.assert_array_equal(store.phashes[:, 3], numbers)
        np.testing.assert_array_equal(store.sizes[:, 0], np.array(numbers) + 1)
        assert store.paths[:2].tolist() == ["0/9.jpg", "1/3.jpg"]
    assert verify(tmp_path / "s.h5") == []


def test_the_first_source_wins(tmp_path: Path) -> None:
    """Where two sources know a row, the first one given is used."""
    for factor in (1, 100):
        block = block_of([1], [info()])
        block.features["a@avg"][:] *= factor
        write_segment(tmp_path / "parts", block, [info()], FINGERPRINT)
    first, second = open_segments(tmp_path / "parts")
    merge_plainly(tmp_path / "s.h5", [1], [info()], [second, first])
    with FeatureStore(tmp_path / "s.h5") as store:
        np.testing.assert_array_equal(store["a"][:], [[100, 1000]])


def test_a_store_is_a_source_and_gains_a_layer(parts: Path, tmp_path: Path) -> None:
    """Old features come from the store itself, new ones from segments that hold only those."""
    out, numbers = tmp_path / "s.h5", [4, 1]
    merge_plainly(out, numbers, [info()], open_segments(parts))
    write_segment(tmp_path / "new", block_of([1, 4], [info("b@max", 3)]), [info("b@max", 3)], FINGERPRINT)
    with FeatureStore(out) as store:
        sources = [as_row_source(store), *open_segments(tmp_path / "new")]
        merge_plainly(out, numbers, [info(), info("b@max", 3)], sources)
        assert store.keys == ["a@avg"], "an open store goes on reading the old file"
    with FeatureStore(out) as store:
        np.testing.assert_array_equal(store["a"][:], values_of(numbers), strict=True)
        np.testing.assert_array_equal(store["b"][:], values_of(numbers, 3), strict=True)


def test_an_unknown_row_is_named(parts: Path, tmp_path: Path) -> None:
    """The first row that nobody knows is named, and nothing is written."""
    with pytest.raises(StoreError, match=r"Row 1 \(1/7\.jpg, digest 0700.*3 sources.*2 of 4 rows"):
        merge_plainly(tmp_path / "s.h5", [1, 7, 2, 8], [info()], open_segments(parts))
    with pytest.raises(StoreError, match=r"Row 0 .*none of 0 sources has its features 'b@avg'"):
        merge_plainly(tmp_path / "s.h5", [1], [info("b@avg")], open_segments(parts))
    assert [path.name for path in tmp_path.iterdir()] == ["parts"]


def test_sources_made_in_another_way_are_refused(parts: Path, tmp_path: Path) -> None:
    """Features of another fingerprint or width are never mixed in."""
    with pytest.raises(FingerprintMismatchError, match=r"000001\.h5 .*\n  model: expected \"x\", found \"m\""):
        merge_plainly(tmp_path / "s.h5", [1], [info()], open_segments(parts), fingerprint={**FINGERPRINT, "model": "x"})
    with pytest.raises(StoreError, match="of 2 values an image, not 5"):
        merge_plainly(tmp_path / "s.h5", [1], [info(width=5)], open_segments(parts))


def test_a_store_of_nothing(tmp_path: Path) -> None:
    """No rows at all make a store that reads and verifies, and so does a segment."""
    write_segment(tmp_path / "parts", block_of([], [info()]), [info()], FINGERPRINT)
    merge_plainly(tmp_path / "s.h5", [], [info()], open_segments(tmp_path / "parts"))
    with FeatureStore(tmp_path / "s.h5") as store:
        assert (len(store), store["a"].shape, store["a"][:].shape) == (0, (0, 2), (0, 2))
        assert store["a"][[]].shape == (0, 2)
        assert (store.paths.tolist(), store.labels.tolist(), store.failures) == ([], [], [])
    assert verify(tmp_path / "s.h5") == []


def test_long_and_strange_texts_come_back(parts: Path, tmp_path: Path) -> None:
    """Paths of thousands of bytes and any script come back; bytes that are not UTF-8 are percent-escaped."""
    paths = ["深" * 1500 + ".jpg", b"caf\xe9.jpg".decode("utf-8", "surrogateescape"), "100%.jpg", ""]
    table = table_of([1, 2, 3, 4])
    strange = ImageTable(paths, table.digests, table.labels, ["", "ß\0"], table.splits, None)
    failures = [("x" * 5000, "line\nline"), ("💥.jpg", "")]
    merge(
        tmp_path / "s.h5",
        strange,
        [info()],
        open_segments(parts),
        fingerprint=FINGERPRINT,
        source="日本",
        aliases={"浅": "a"},
        failures=failures,
    )
    with FeatureStore(tmp_path / "s.h5") as store:
        assert store.paths.tolist() == [paths[0], "caf%E9.jpg", "100%.jpg", ""]
        assert store.label_names == ["", "ß%00"]
        assert (store.failures, store.source, store.resolve("浅")) == (failures, "日本", "a@avg")
    assert verify(tmp_path / "s.h5") == []


def test_float16_is_cast_when_written(tmp_path: Path) -> None:
    """The dtype of the info decides how values are stored; what float16 cannot hold is an error."""
    half = info(dtype="float16")
    write_segment(tmp_path / "parts", block_of([1, 2], [half]), [half], FINGERPRINT)
    (source,) = open_segments(tmp_path / "parts")
    assert source.read("a@avg", np.array([1])).dtype == np.float16
    merge_plainly(tmp_path / "s.h5", [2, 1], [info()], [source])
    with FeatureStore(tmp_path / "s.h5") as store:
        np.testing.assert_array_equal(store["a"][:], values_of([2, 1]), strict=True)
    large = block_of([1], [half])
    large.features["a@avg"][0, 0] = 7e4
    with pytest.raises(StoreError, match=r"reach 7e\+04; float16 holds at most 65504"):
        write_segment(tmp_path / "parts", large, [half], FINGERPRINT)
    large.features["a@avg"][0, 0] = np.inf
    write_segment(tmp_path / "parts", large, [half], FINGERPRINT)
    assert len(list((tmp_path / "parts").iterdir())) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"key": "b@avg"}, "LAYER@POOL"),
        ({"key": "a/b@avg", "layer": "a/b"}, "without '/'"),
        ({"dtype": "float64"}, "dtype must be"),
        ({"depth": 1.5}, "depth must be"),
        ({"width": 3}, r"a@avg of 1 rows must have the shape \(1, 3\), got \(1, 2\)"),
    ],
)
def test_unfit_features_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    """What the format cannot hold, or does not match its description, is an error before anything is written."""
    wrong = FeatureInfo(**{**vars(info()), **change})
    with pytest.raises(UsageError, match=message):
        write_segment(tmp_path / "parts", block_of([1], [info()]), [wrong], FINGERPRINT)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("labels", [0, 2], "labels must be from -1 to 1, got 2"),
        ("splits", [0, 3], "splits must be from -1 to 2, got 3"),
        ("labels", [0], r"labels of 2 rows must have the shape \(2,\)"),
        ("groups", [[1], [2]], "groups of 2 rows"),
    ],
)
def test_unfit_tables_are_refused(parts: Path, tmp_path: Path, column: str, values: list[Any], message: str) -> None:
    """Labels without a name, unknown splits and columns of another length are an error."""
    columns = {**vars(table_of([1, 2])), "label_names": ["x", "y"], column: np.array(values)}
    with pytest.raises(UsageError, match=message):
        merge(
            tmp_path / "s.h5",
            ImageTable(**columns),
            [info()],
            open_segments(parts),
            fingerprint=FINGERPRINT,
            source="",
            aliases={},
            failures=[],
        )


def test_merging_takes_bounded_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Merging 24 MiB in blocks of 1 MiB takes a few MiB."""
    monkeypatch.setattr(merging, "_CHUNKS_PER_BLOCK", 1)
    wide = info(width=2**17)
    for start in (0, 24):
        numbers = range(start, start + 24)
        write_segment(tmp_path / "parts", block_of(numbers, [wide]), [wide], FINGERPRINT)
    sources = open_segments(tmp_path / "parts")
    tracemalloc.start()
    merge_plainly(tmp_path / "s.h5", range(48), [wide], sources)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 * 2**20
    assert (tmp_path / "s.h5").stat().st_size > 24 * 2**20


def failing_after(n_calls: int, function: Any, number: int = errno.ENOSPC) -> Any:
    calls = 0

    def call(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > n_calls:
            raise OSError(number, os.strerror(number))
        return function(*arguments)

    return call


def failing_merge(
    out: Path, sources: Sequence[RowSource], function: str, n_calls: int, monkeypatch: pytest.MonkeyPatch
) -> str:
    """Merge other rows while a function of the system fails after some calls; return the error's message, or ""."""
    with monkeypatch.context() as patch:
        patch.setattr(os, function, failing_after(n_calls, getattr(os, function)))
        try:
            merge_plainly(out, [2, 3, 4], [info()], sources)
        except StoreError as error:
            return str(error)
    return ""


@pytest.mark.parametrize("function", ["fsync", "replace", "write", "ftruncate"])
def test_a_full_disk_leaves_the_old_store(
    parts: Path, tmp_path: Path, function: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever write is the first that fails, the old store stays, the temporary file goes, the message is clear."""
    out, sources = tmp_path / "s.h5", open_segments(parts)
    merge_plainly(out, [1], [info()], sources)
    before = out.read_bytes()
    n_failures = 0
    while message := failing_merge(out, sources, function, n_failures, monkeypatch):
        n_failures += 1
        assert f"{out} could not be written: No space left on device. A store that was there before" in message
        assert "Free some space" in message
        assert out.read_bytes() == before
        assert sorted(path.name for path in tmp_path.iterdir()) == ["parts", "s.h5"]
    assert n_failures > 0
    assert verify(out) == []


@pytest.mark.parametrize("function", ["fsync", "replace", "write"])
def test_a_full_disk_keeps_the_segments(parts: Path, function: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A segment that cannot be written leaves no trace beside those that were."""
    with monkeypatch.context() as patch:
        patch.setattr(os, function, failing_after(0, getattr(os, function)))
        with pytest.raises(StoreError, match=r"parts could not be written: No space left.*before is kept"):
            write_segment(parts, block_of([8], [info()]), [info()], FINGERPRINT)
    assert sorted(path.name for path in parts.iterdir()) == ["000001.h5", "000002.h5", "000003.h5"]


def test_temporary_files_of_the_living_stay(parts: Path) -> None:
    """A temporary file of a living process, of another machine or of another store is not removed."""
    name = "segment.h5.tmp-{}-1@{}"
    host = featx.store.replacing._HOST
    (parts / name.format(os.getppid(), host)).touch()
    (parts / name.format(99999999, "elsewhere")).touch()
    (parts / f"other.h5.tmp-99999999-1@{host}").touch()
    (parts / name.format(99999999, host)).touch()
    old = parts / name.format(99999998, "elsewhere")
    old.touch()
    os.utime(old, (0, 0))
    assert len(open_segments(parts)) == 3
    left = {path.name for path in parts.iterdir() if ".tmp-" in path.name}
    assert left == {
        name.format(os.getppid(), host),
        name.format(99999999, "elsewhere"),
        f"other.h5.tmp-99999999-1@{host}",
    }
