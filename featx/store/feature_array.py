"""One dataset of features that stays on disk until it is indexed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.errors import UsageError
from featx.store.layout import FeatureInfo
from featx.store.row_selection import rows_per_chunk

if TYPE_CHECKING:
    from featx.store.feature_store import FeatureStore


class FeatureArray:
    """Features of one layer and pooling, shape (n, d), read where and when they are indexed.

    Indexing means what it means in numpy: numbers, slices, masks, arrays of numbers in any order with repeats, a
    second index for columns. Only the chunks that hold the rows asked for are read. It pickles as the path and the
    key, so it can be handed to worker processes.

    Parameters
    ----------
    store : FeatureStore
    info : FeatureInfo
    """

    ndim = 2

    def __init__(self, store: FeatureStore, info: FeatureInfo) -> None:
        self._store = store
        self.info = info
        self.shape = (store.rows, info.width)
        self.dtype = np.dtype(info.dtype)

    @property
    def key(self) -> str:
        """``LAYER@POOL``."""
        return self.info.key

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"FeatureArray({self.key!r}, shape={self.shape}, dtype={self.dtype})"

    def __iter__(self) -> Iterator[np.ndarray]:
        for block in self.blocks(rows_per_chunk(self.shape[1:], self.dtype.itemsize)):
            yield from block

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        """Return all features in memory.

        Raises
        ------
        ValueError
            `copy` is False: what is on disk must be copied into memory.
        """
        if copy is False:
            raise UsageError("Features on disk cannot become an array without a copy, got copy=False. Leave it out.")
        return self[:] if dtype is None else self[:].astype(dtype, copy=False)

    def blocks(self, n_rows: int) -> Iterator[np.ndarray]:
        """Yield the features in order as arrays of `n_rows` rows, the last one maybe shorter.

        Parameters
        ----------
        n_rows : int
            At least 1.

        Yields
        ------
        ndarray of shape (n_rows, d)
        """
        if n_rows < 1:
            raise UsageError(f"n_rows must be at least 1, got {n_rows}.")
        for start in range(0, len(self), n_rows):
            yield self[start : start + n_rows]

    def __getitem__(self, index: Any) -> Any:
        """Return what ``numpy.asarray(self)[index]`` would, reading only the rows needed.

        Raises
        ------
        IndexError
            Out of range, or not an index for two axes.
        StoreError
            The file is damaged.
        """
        rows, columns = _two_indices(index, self.shape)
        if isinstance(rows, slice):
            return _columns_of(self._read_slice(rows), slice(None), columns)
        if rows.ndim == 0:
            return self._read(rows.reshape(1))[0][columns]
        if rows.ndim == 1 and _is_everything(columns):
            return self._read(rows)
        needed, place = np.unique(rows, return_inverse=True)
        return _columns_of(self._read(needed), place.reshape(rows.shape), columns)

    def _read_slice(self, rows: slice) -> np.ndarray:
        return self._read(np.arange(*rows.indices(len(self))))

    def _read(self, rows: np.ndarray) -> np.ndarray:
        return self._store.read_rows(f"/features/{self.key}", rows)


def _columns_of(block: np.ndarray, rows: slice | np.ndarray, columns: Any) -> np.ndarray:
    if isinstance(rows, slice) and _is_everything(columns):
        return block
    return block[rows, columns]


def _is_everything(index: Any) -> bool:
    return isinstance(index, slice) and index == slice(None)


def _two_indices(index: Any, shape: tuple[int, int]) -> tuple[slice | np.ndarray, Any]:
    """Return a slice or non-negative row numbers, and the index of the columns."""
    parts = [_as_index(part) for part in (index if isinstance(index, tuple) else (index,))]
    n_used = sum(part.ndim if _is_mask(part) else 1 for part in parts if part is not Ellipsis)
    n_dots = sum(part is Ellipsis for part in parts)
    if n_used > 2 or n_dots > 1:
        raise IndexError(f"features have two axes, rows and columns; got the index {index!r}")
    filler = [slice(None)] * (2 - n_used)
    if not n_dots:
        parts.append(Ellipsis)
    axes: list[Any] = []
    for part in parts:
        if part is Ellipsis:
            axes += filler
        elif _is_mask(part):
            axes += _mask_numbers(part, shape[len(axes) : len(axes) + part.ndim])
        else:
            axes.append(part)
    rows, columns = axes
    return (rows if isinstance(rows, slice) else _wrapped(rows, shape[0])), columns


def _as_index(part: Any) -> Any:
    if part is Ellipsis or isinstance(part, slice):
        return part
    if part is None or isinstance(part, bool | np.bool_):
        raise IndexError(f"features are indexed by numbers, slices, masks and arrays of numbers; got {part!r}")
    array = np.asarray(part)
    if array.size == 0 and not isinstance(part, np.ndarray):
        array = array.astype(np.intp)  # an empty list
    if array.dtype.kind not in "iub":
        raise IndexError(f"features are indexed by whole numbers or masks; got {array.dtype}")
    return array


def _is_mask(part: Any) -> bool:
    return isinstance(part, np.ndarray) and part.dtype == bool


def _mask_numbers(mask: np.ndarray, shape: tuple[int, ...]) -> list[np.ndarray]:
    if mask.shape != shape:
        raise IndexError(f"a mask must have the shape {shape} of what it selects from; got {mask.shape}")
    return list(mask.nonzero())


def _wrapped(rows: np.ndarray, n_rows: int) -> np.ndarray:
    """Return row numbers with negative ones counted from the end."""
    outside = (rows < -n_rows) | (rows >= n_rows)
    if outside.any():
        raise IndexError(f"row {np.atleast_1d(rows[outside])[0]} is out of range; there are {n_rows} rows")
    rows = rows.astype(np.int64)
    return np.where(rows < 0, rows + n_rows, rows)
