"""Rows of one dataset that stay on disk until they are indexed: what features and maps have in common."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.errors import UsageError
from featx.store.layout import RowInfo
from featx.store.row_selection import rows_per_chunk

if TYPE_CHECKING:
    from featx.store.feature_store import FeatureStore


class StoredRows:
    """One row an image, read where and when they are indexed.

    Parameters
    ----------
    store : FeatureStore
    info : FeatureInfo or MapInfo
    """

    _plural = "Rows"

    def __init__(self, store: FeatureStore, info: RowInfo) -> None:
        self._store = store
        self._dataset = info.dataset
        self.shape: tuple[int, ...] = (store.rows, *info.row_shape)
        self.dtype = np.dtype(info.dtype)

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[np.ndarray]:
        for block in self.blocks(rows_per_chunk(self.shape[1:], self.dtype.itemsize)):
            yield from block

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        """Return all rows in memory.

        Raises
        ------
        ValueError
            `copy` is False: what is on disk must be copied into memory.
        """
        if copy is False:
            raise UsageError(
                f"{self._plural} on disk cannot become an array without a copy, got copy=False. Leave it out."
            )
        return self[:] if dtype is None else self[:].astype(dtype, copy=False)

    def __getitem__(self, index: Any) -> Any:
        raise NotImplementedError

    def blocks(self, n_rows: int) -> Iterator[np.ndarray]:
        """Yield all rows in order as arrays of `n_rows` rows, the last one maybe shorter.

        Parameters
        ----------
        n_rows : int
            At least 1.

        Yields
        ------
        ndarray of shape (n_rows, ...)
        """
        if n_rows < 1:
            raise UsageError(f"n_rows must be at least 1, got {n_rows}.")
        for start in range(0, len(self), n_rows):
            yield self[start : start + n_rows]

    def _read_slice(self, rows: slice) -> np.ndarray:
        return self._read(np.arange(*rows.indices(len(self))))

    def _read(self, rows: np.ndarray) -> np.ndarray:
        return self._store.read_rows(self._dataset, rows)
