"""Rows of an HDF5 dataset in any order, reading each chunk at most once."""

from __future__ import annotations

import math

import h5py
import numpy as np

BYTES_PER_CHUNK = 2**20


def rows_per_chunk(row_shape: tuple[int, ...], itemsize: int, n_bytes: int = BYTES_PER_CHUNK) -> int:
    """Return how many whole rows make a chunk of about 1 MiB, or of `n_bytes`; at least one."""
    return max(1, n_bytes // max(1, math.prod(row_shape) * itemsize))


def rows_per_block(row_shape: tuple[int, ...], itemsize: int, n_rows: int, n_bytes: int) -> int:
    """Return how many rows, in whole chunks of `n_rows`, make a block of at most `n_bytes`; at least one chunk."""
    return n_rows * max(1, n_bytes // max(1, n_rows * math.prod(row_shape) * itemsize))


def read_rows(dataset: h5py.Dataset, rows: np.ndarray) -> np.ndarray:
    """Return ``dataset[rows]`` for row numbers in any order, with repeats.

    Parameters
    ----------
    dataset : h5py.Dataset of shape (n, ...)
        Open for reading.
    rows : ndarray of shape (m,), integer
        From 0 to n − 1.

    Returns
    -------
    ndarray of shape (m, ...)

    Notes
    -----
    A chunk carries one checksum, so it is read whole even for one of its rows. Hence one slice per touched chunk, not
    per row; beside the result at most one chunk is in memory.
    """
    if not len(rows):
        return np.empty((0, *dataset.shape[1:]), dataset.dtype)
    if np.array_equal(rows, np.arange(rows[0], rows[0] + len(rows))):
        return dataset[int(rows[0]) : int(rows[0]) + len(rows)]
    out = np.empty((len(rows), *dataset.shape[1:]), dataset.dtype)
    order = np.argsort(rows, kind="stable")
    ascending = rows[order]
    n_rows = dataset.chunks[0] if dataset.chunks else rows_per_chunk(dataset.shape[1:], dataset.dtype.itemsize)
    starts = np.flatnonzero(np.diff(ascending // n_rows, prepend=-1))
    for start, stop in zip(starts, [*starts[1:], len(rows)], strict=True):
        first, last = int(ascending[start]), int(ascending[stop - 1])
        piece = dataset[first : last + 1]
        out[order[start:stop]] = piece[ascending[start:stop] - first]
    return out
