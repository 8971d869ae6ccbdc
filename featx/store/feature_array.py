"""One dataset of features that stays on disk until it is indexed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from featx.store.layout import FeatureInfo
from featx.store.row_numbers import as_index, is_mask, mask_numbers, wrapped
from featx.store.stored_rows import StoredRows

if TYPE_CHECKING:
    from featx.store.feature_store import FeatureStore


class FeatureArray(StoredRows):
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
    _plural = "Features"

    def __init__(self, store: FeatureStore, info: FeatureInfo) -> None:
        super().__init__(store, info)
        self.info = info

    @property
    def key(self) -> str:
        """``LAYER@POOL``."""
        return self.info.key

    def __repr__(self) -> str:
        return f"FeatureArray({self.key!r}, shape={self.shape}, dtype={self.dtype})"

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


def _columns_of(block: np.ndarray, rows: slice | np.ndarray, columns: Any) -> np.ndarray:
    if isinstance(rows, slice) and _is_everything(columns):
        return block
    return block[rows, columns]


def _is_everything(index: Any) -> bool:
    return isinstance(index, slice) and index == slice(None)


def _two_indices(index: Any, shape: tuple[int, ...]) -> tuple[slice | np.ndarray, Any]:
    """Return a slice or non-negative row numbers, and the index of the columns."""
    parts = [as_index(part) for part in (index if isinstance(index, tuple) else (index,))]
    n_used = sum(part.ndim if is_mask(part) else 1 for part in parts if part is not Ellipsis)
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
        elif is_mask(part):
            axes += mask_numbers(part, shape[len(axes) : len(axes) + part.ndim])
        else:
            axes.append(part)
    rows, columns = axes
    return (rows if isinstance(rows, slice) else wrapped(rows, shape[0])), columns
