"""Rows of features for an estimator: checked by scikit-learn's rules, and read a block at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.base import BaseEstimator
from sklearn.utils.validation import validate_data

BLOCK_BYTES = 32_000_000  # as float64; larger blocks multiply no faster


class RowBlocks:
    """The rows of `X`, validated for an estimator and given out in blocks.

    What is in memory (arrays, lists, data frames) is validated at once. What only has a shape and gives rows by slices
    (an h5py dataset, a ``numpy.memmap``, features in a store) is read and validated a block at a time, never whole.

    Parameters
    ----------
    estimator : BaseEstimator
        Its ``n_features_in_`` and feature names are set or compared.
    X : array-like of shape (n_samples, n_features)
        Numbers; float32 stays float32, everything else becomes float64.
    reset : bool
        True sets what the estimator knows of its features, False compares with it.
    min_rows : int, default=1
        The fewest rows that will do.

    Attributes
    ----------
    shape : tuple of two ints
        (n_samples, n_features).

    Raises
    ------
    ValueError
        scikit-learn's, for NaN and infinity, wrong widths, too few rows, and what is not a matrix of numbers. What is
        read lazily raises it from ``blocks``.
    """

    def __init__(self, estimator: BaseEstimator, X: Any, *, reset: bool, min_rows: int = 1) -> None:
        self._estimator = estimator
        self._is_lazy = _is_read_by_slices(X)
        first = X[: max(min_rows, 1)] if self._is_lazy else X
        checked = self._validate(np.asarray(first) if self._is_lazy else first, reset, min_rows)
        self._X = X if self._is_lazy else checked
        self.shape: tuple[int, int] = (int(self._X.shape[0]), int(self._X.shape[1]))

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield the rows in order as arrays of at most ``BLOCK_BYTES`` as float64, and of at least one row."""
        n_rows = rows_per_block(self.shape[1])
        for start in range(0, self.shape[0], n_rows):
            block = self._X[start : start + n_rows]
            yield self._validate(np.asarray(block), False, 1) if self._is_lazy else block

    def _validate(self, rows: Any, reset: bool, min_rows: int) -> np.ndarray:
        return validate_data(
            self._estimator, rows, dtype=[np.float64, np.float32], reset=reset, ensure_min_samples=min_rows
        )


def rows_per_block(n_columns: int) -> int:
    """Return how many rows make a block of at most ``BLOCK_BYTES`` as float64, at least one."""
    return max(1, BLOCK_BYTES // (8 * max(1, n_columns)))


def _is_read_by_slices(X: Any) -> bool:
    """Return whether `X` lies outside of memory, or may. Data frames also have a shape; they carry column names."""
    if isinstance(X, np.ndarray):
        return isinstance(X, np.memmap)
    is_like_array = hasattr(X, "shape") and hasattr(X, "__getitem__") and len(X.shape) > 0
    return is_like_array and not hasattr(X, "columns") and not sparse.issparse(X)
