"""Vectors of an index where they lie: in memory, in files, or in both."""

from __future__ import annotations

import itertools
import mmap
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from featx.errors import StoreError, UsageError
from featx.retrieval.row_files import OpenFile


class VectorRows:
    """Rows of float32 numbers, in memory or in files, that grow at the end.

    Parameters
    ----------
    chunks : sequence of ndarray or np.memmap of float32, each of shape (n_i, d), C order
        They follow each other. A memory map is read from its file with plain reads and not through the map: pages of
        a map count as memory of the process for as long as the system likes.

    Raises
    ------
    UsageError
        For no chunk, or one of another shape, type or order.
    StoreError
        When the file behind a memory map cannot be opened.
    """

    def __init__(self, chunks: Sequence[np.ndarray]) -> None:
        if not chunks:
            raise UsageError("no chunk of vectors was given; at least one is needed, for its width.")
        for chunk in chunks:
            _check(chunk, chunks[0].shape[-1])
        self._hold([_chunk_of(chunk) for chunk in chunks], int(chunks[0].shape[1]))

    def _hold(self, chunks: list[_Chunk], width: int) -> None:
        self.width = width
        self._chunks = chunks
        self._n_given = len(chunks)  # chunks behind these were appended
        self._count()

    def _count(self) -> None:
        # starts[i]: first row of chunk i; one more at the end, the number of rows
        self._starts = np.cumsum([0, *(len(chunk) for chunk in self._chunks)])

    @classmethod
    def spooled(cls, blocks: Iterable[np.ndarray], *, memory: int, folder: Path | None = None) -> VectorRows:
        """Return rows that stay in memory while they are few, and else lie in a temporary file.

        Parameters
        ----------
        blocks : iterable of ndarray of float32, each of shape (n_i, d)
            Read once, in order.
        memory : int
            Bytes that may stay in memory, in all.
        folder : Path, optional
            Where the file goes; by default where temporary files go. It has no name there, and its room is free again
            when the rows are no longer in use, even after a crash.

        Raises
        ------
        UsageError
            For no block, or one of another shape or type.
        StoreError
            When the file cannot be written; the message says what to do.
        """
        buffer, file, width, n_rows = np.empty(0, np.float32), None, 0, 0
        for given in blocks:
            block = np.ascontiguousarray(given)
            width = width or block.shape[-1]
            _check(block, width)
            if file is None and 4 * width * (n_rows + len(block)) > memory:
                file = OpenFile.temporary(folder)
                file.write(buffer[: n_rows * width], 0)
                buffer = np.empty(0, np.float32)
            if file is not None:
                file.write(block, 4 * width * n_rows)
            else:
                buffer = _grown(buffer, (n_rows + len(block)) * width)
                buffer[n_rows * width : (n_rows + len(block)) * width] = block.ravel()
            n_rows += len(block)
        if not width:
            raise UsageError("no vectors were given; at least one is needed. Check that the store has rows.")
        rows = cls.__new__(cls)
        if file is None:
            buffer.resize(n_rows * width, refcheck=False)
            rows._hold([_ArrayChunk(buffer.reshape(n_rows, width))], width)
        else:
            rows._hold([_FileChunk(file, 0, n_rows, width)], width)
        return rows

    def __reduce__(self) -> tuple[type[VectorRows], tuple[list[np.ndarray]]]:
        # Copies, in this process or another one, hold the rows themselves: an open file does not travel.
        return type(self), ([np.array(self.as_array())],)

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and numbers in a row."""
        return len(self), self.width

    @property
    def in_memory(self) -> bool:
        """Whether no row lies in a file."""
        return all(isinstance(chunk, _ArrayChunk) for chunk in self._chunks)

    @property
    def n_bytes_in_memory(self) -> int:
        """Bytes of the rows that do not lie in files."""
        return sum(4 * self.width * len(chunk) for chunk in self._chunks if isinstance(chunk, _ArrayChunk))

    def take(self, rows: np.ndarray | Sequence[int]) -> np.ndarray:
        """Return a copy of these rows.

        Parameters
        ----------
        rows : array-like of int, shape (m,)
            In any order, repeats allowed; ascending is fastest where they lie in a file.

        Returns
        -------
        ndarray of float32, shape (m, d)

        Raises
        ------
        UsageError
            For a row that is not there.
        StoreError
            When the file cannot be read.
        """
        wanted = np.asarray(rows, dtype=np.int64).ravel()
        outside = wanted[(wanted < 0) | (wanted >= len(self))]
        if len(outside):
            raise UsageError(f"row {outside[0]} was asked for; there are rows 0 to {len(self) - 1}.")
        if len(self._chunks) == 1:
            return self._chunks[0].take(wanted)
        taken = np.empty((len(wanted), self.width), np.float32)
        chunk_of_row = np.searchsorted(self._starts, wanted, side="right") - 1
        for number in np.unique(chunk_of_row):
            chosen = np.flatnonzero(chunk_of_row == number)
            taken[chosen] = self._chunks[number].take(wanted[chosen] - self._starts[number])
        return taken

    def blocks(self, n_rows: int = 4096, start: int = 0, stop: int | None = None) -> Iterator[np.ndarray]:
        """Yield the rows from start to stop in order, as blocks of at most n_rows; not to be written to."""
        stop = len(self) if stop is None else min(stop, len(self))
        for number, chunk in enumerate(self._chunks):
            first = int(self._starts[number])
            for row in range(max(start - first, 0), min(stop - first, len(chunk)), n_rows):
                yield chunk.read(row, min(row + n_rows, stop - first, len(chunk)))

    def append(self, block: np.ndarray) -> None:
        """Put rows behind the last, in memory.

        Raises
        ------
        UsageError
            For a block of another width or type.
        """
        block = np.ascontiguousarray(block)
        _check(block, self.width)
        self._chunks.append(_ArrayChunk(block.copy()))
        # Chunks that were appended at least double from the last to the first: few of them, each row copied rarely.
        while len(self._chunks) > self._n_given + 1 and 2 * len(self._chunks[-1]) > len(self._chunks[-2]):
            last, previous = self._chunks.pop(), self._chunks.pop()
            self._chunks.append(_ArrayChunk(np.concatenate([previous.as_array(), last.as_array()])))
        self._count()

    def as_array(self) -> np.ndarray:
        """Return all rows as one C-contiguous array, float32 of shape (n, d); no copy where there is one chunk.

        A file is mapped, not read. Several chunks that are all in memory become one.
        """
        if len(self._chunks) == 1:
            return self._chunks[0].as_array()
        whole = np.concatenate([chunk.as_array() for chunk in self._chunks])
        if self.in_memory:
            self._hold([_ArrayChunk(whole)], self.width)
        return whole


class _Chunk(Protocol):
    """Some of the rows, all in one place."""

    def __len__(self) -> int: ...

    def take(self, rows: np.ndarray) -> np.ndarray: ...

    def read(self, start: int, stop: int) -> np.ndarray: ...

    def as_array(self) -> np.ndarray: ...


class _ArrayChunk:
    """Rows in memory."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def __len__(self) -> int:
        return len(self._array)

    def take(self, rows: np.ndarray) -> np.ndarray:
        return self._array.take(rows, axis=0)

    def read(self, start: int, stop: int) -> np.ndarray:
        return self._array[start:stop]

    def as_array(self) -> np.ndarray:
        return self._array


class _FileChunk:
    """Rows in a file, from some byte on."""

    def __init__(self, file: OpenFile, offset: int, n_rows: int, width: int) -> None:
        self._file = file
        self._offset = offset
        self._n_rows = n_rows
        self._width = width

    def __len__(self) -> int:
        return self._n_rows

    def take(self, rows: np.ndarray) -> np.ndarray:
        taken = np.empty((len(rows), self._width), np.float32)
        if not taken.size:
            return taken
        # Rows that follow each other in the file are read together.
        borders = np.flatnonzero(np.diff(rows) != 1) + 1
        for first, last in itertools.pairwise([0, *borders.tolist(), len(rows)]):
            self._file.read_into(taken[first:last], self._offset + 4 * self._width * int(rows[first]))
        return taken

    def read(self, start: int, stop: int) -> np.ndarray:
        block = np.empty((stop - start, self._width), np.float32)
        self._file.read_into(block, self._offset + 4 * self._width * start)
        return block

    def as_array(self) -> np.ndarray:
        return self._file.mapped(self._offset, (self._n_rows, self._width))


def _check(block: np.ndarray, width: int) -> None:
    ordered = block.ndim == 2 and (block.flags.c_contiguous or not block.size)
    if block.dtype != np.float32 or not ordered or block.shape[1] != width or not width:
        raise UsageError(
            f"a block of {block.dtype} of shape {block.shape} was given; needed is float32 of shape (n, {width}) in C "
            "order. np.ascontiguousarray(block, dtype=np.float32) makes one."
        )


def _chunk_of(array: np.ndarray) -> _Chunk:
    """Return the rows of an array, or of the file where it is a memory map of one."""
    mapped = getattr(array, "_mmap", None)
    if not isinstance(array, np.memmap) or mapped is None or array.filename is None or not array.size:
        return _ArrayChunk(np.asarray(array))
    # `offset` of a slice is still that of the whole map, so the distance is taken from where both lie in memory.
    start = array.offset - array.offset % mmap.ALLOCATIONGRANULARITY  # maps begin on a page of the file
    distance = array.ctypes.data - np.frombuffer(mapped, np.uint8).ctypes.data
    try:
        descriptor = os.open(array.filename, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    except OSError as error:
        raise StoreError(f"{array.filename} holds vectors and cannot be opened: {error}. Is it still there?") from error
    return _FileChunk(OpenFile(descriptor, str(array.filename)), start + distance, *array.shape)


def _grown(buffer: np.ndarray, size: int) -> np.ndarray:
    """Return the buffer with room for at least so many numbers.

    It grows by an eighth. Large buffers are moved by the system without a copy, so that they are never there twice.
    """
    if len(buffer) < size:
        buffer.resize(max(size, len(buffer) + len(buffer) // 8), refcheck=False)
    return buffer
