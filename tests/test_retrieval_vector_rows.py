"""Vector rows: the same numbers wherever they lie, and a disk that is full."""

from __future__ import annotations

import errno
import os
import re

import numpy as np
import pytest

from featx.errors import StoreError, UsageError
from featx.retrieval.vector_rows import VectorRows


@pytest.fixture
def numbers():
    """1000 rows of 7 numbers, all different."""
    return np.arange(7000, dtype=np.float32).reshape(1000, 7)


def in_memory(numbers, _folder):
    """One array."""
    return VectorRows([numbers])


def in_chunks(numbers, _folder):
    """Three arrays, one of them empty."""
    return VectorRows([numbers[:300], numbers[300:300], numbers[300:]])


def in_a_file(numbers, folder):
    """A file in which other things come first, as in an archive."""
    path = folder / "vectors.bin"
    path.write_bytes(b"x" * 5000 + numbers.tobytes())
    return VectorRows([np.memmap(path, np.float32, "r", 5000, numbers.shape)])


def in_a_slice_of_a_map(numbers, folder):
    """Part of a map in a file, and the rest in memory."""
    path = folder / "slice.bin"
    path.write_bytes(np.concatenate([numbers[:40] * 0, numbers[:700]]).tobytes())
    return VectorRows([np.memmap(path, np.float32, "r", 0, (740, 7))[40:], numbers[700:]])


def spooled(numbers, folder):
    """More than may stay in memory."""
    return VectorRows.spooled(np.array_split(numbers, 9), memory=10_000, folder=folder)


def spooled_in_memory(numbers, folder):
    """Just as much as may stay in memory."""
    return VectorRows.spooled(np.array_split(numbers, 9), memory=28_000, folder=folder)


def appended(numbers, folder):
    """A file first, and blocks behind it."""
    rows = in_a_file(numbers[:400], folder)
    for block in np.split(numbers[400:], [1, 2, 3, 10, 300]):
        rows.append(block)
    return rows


KINDS = [in_memory, in_chunks, in_a_file, in_a_slice_of_a_map, spooled, spooled_in_memory, appended]


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_the_same_wherever_they_lie(kind, numbers, tmp_path):
    """Taking rows, reading blocks and the whole array agree with a plain array."""
    rows = kind(numbers, tmp_path)
    assert (rows.shape, rows.width, len(rows)) == ((1000, 7), 7, 1000)
    wanted = np.array([999, 0, 5, 5, 6, 7, 701, 300, 299, 0])
    np.testing.assert_array_equal(rows.take(wanted), numbers[wanted])
    assert rows.take([]).shape == (0, 7)
    for start, stop in ((0, None), (290, 720), (5, 5), (990, 5000)):
        blocks = list(rows.blocks(64, start, stop))
        assert all(0 < len(block) <= 64 for block in blocks)
        np.testing.assert_array_equal(np.concatenate([numbers[:0], *blocks]), numbers[start:stop])
    np.testing.assert_array_equal(rows.as_array(), numbers)
    assert rows.as_array().flags.c_contiguous
    np.testing.assert_array_equal(rows.take(wanted), numbers[wanted])


@pytest.mark.parametrize("kind", KINDS)
def test_rows_know_whether_they_lie_in_memory(kind, numbers, tmp_path):
    """Rows of which some lie in a file are not in memory."""
    expected = kind in (in_memory, in_chunks, spooled_in_memory)
    assert kind(numbers, tmp_path).in_memory == expected


def test_one_array_is_not_copied(numbers):
    """The whole of one chunk is the chunk itself; its blocks are views."""
    rows = VectorRows([numbers])
    assert np.shares_memory(rows.as_array(), numbers)
    assert all(np.shares_memory(block, numbers) for block in rows.blocks(100))


def test_what_is_appended_is_a_copy_of_its_own(numbers):
    """Rows do not change when the block that they came from does."""
    rows, block = VectorRows([numbers]), numbers[:2].copy()
    rows.append(block)
    block[:] = -1
    np.testing.assert_array_equal(rows.take([1000, 1001]), numbers[:2])


def test_many_small_appends_stay_few_chunks(numbers):
    """A thousand single rows are kept in about log2(1000) chunks."""
    rows = VectorRows([numbers])
    for row in numbers:
        rows.append(row[None])
    assert sum(1 for _ in rows.blocks(10_000)) <= 12
    np.testing.assert_array_equal(rows.as_array(), np.concatenate([numbers, numbers]))


def test_rows_outlive_the_name_of_their_file(numbers, tmp_path):
    """A file that is removed or replaced while rows are in use is still read."""
    rows = in_a_file(numbers, tmp_path)
    (tmp_path / "vectors.bin").unlink()
    np.testing.assert_array_equal(rows.take([3]), numbers[3:4])


def test_a_spool_file_has_no_name(numbers, tmp_path):
    """Nothing is left behind in the folder, not even while the rows are in use."""
    rows = spooled(numbers, tmp_path)
    assert not rows.in_memory
    assert rows.n_bytes_in_memory == 0
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_became_shorter_is_named(numbers, tmp_path):
    """Rows that are gone are an error, never zeros."""
    rows = in_a_file(numbers, tmp_path)
    os.truncate(tmp_path / "vectors.bin", 30_000)
    with pytest.raises(StoreError, match="ends at byte 30200"):
        rows.take([900])


def test_a_full_disk_says_what_to_do(numbers, tmp_path, monkeypatch):
    """The error names the folder and the ways out."""

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StoreError, match=f"{re.escape(str(tmp_path))}: No space left.*TMPDIR"):
        spooled(numbers, tmp_path)


def test_a_folder_that_is_not_there_is_an_error(numbers, tmp_path):
    """Spooling into nowhere is refused with the name of the folder."""
    with pytest.raises(StoreError, match="nowhere"):
        spooled(numbers, tmp_path / "nowhere")


@pytest.mark.parametrize("row", [-1, 1000])
@pytest.mark.parametrize("kind", [in_memory, in_a_file, in_chunks])
def test_rows_outside_are_refused(kind, row, numbers, tmp_path):
    """There are no rows before the first or behind the last."""
    with pytest.raises(UsageError, match=f"row {row} .* 0 to 999"):
        kind(numbers, tmp_path).take([1, row])


@pytest.mark.parametrize(
    "chunks",
    [
        [],
        [np.zeros(3, np.float32)],
        [np.zeros((2, 3))],
        [np.zeros((3, 2), np.float32).T],
        [np.zeros((2, 3), np.float32), np.zeros((2, 4), np.float32)],
        [np.zeros((2, 0), np.float32)],
    ],
)
def test_other_arrays_are_refused(chunks):
    """Chunks are float32, two-dimensional, in C order and of one width."""
    with pytest.raises(UsageError):
        VectorRows(chunks)


@pytest.mark.parametrize(
    "blocks",
    [
        [],
        [np.zeros(3, np.float32)],
        [np.zeros((2, 3))],
        [np.zeros((2, 3), np.float32), np.zeros((2, 4), np.float32)],
    ],
)
def test_other_blocks_are_refused(blocks):
    """The same holds for blocks that are spooled, before and after the first goes to a file."""
    with pytest.raises(UsageError):
        VectorRows.spooled(blocks, memory=0)
