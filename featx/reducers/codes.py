"""From rows to codes and back, for given codebooks: one byte a subspace, the number of a codeword."""

from __future__ import annotations

from typing import Any

import numpy as np

from featx.errors import UsageError

_ROWS_AT_ONCE = 128  # their distances to 256 codewords stay in the cache; too few for BLAS to start threads


def nearest_codewords(rows: np.ndarray, codebooks: np.ndarray) -> np.ndarray:
    """Return of each part of each row the number of the nearest codeword, the lowest of equally near ones.

    Parameters
    ----------
    rows : ndarray of float64, shape (n, n_subspaces * width)
        In the space of the codebooks.
    codebooks : ndarray of float32, shape (n_subspaces, n_codewords, width)
        At most 256 codewords.

    Returns
    -------
    ndarray of uint8, shape (n, n_subspaces)

    Notes
    -----
    Distances are taken in float64, which costs twice the time of float32: the code of a row then does not depend on the
    rows beside it, as the rounding of a matrix product may.
    """
    # parts[n, m]: what of row n lies in subspace m
    parts = rows.reshape(len(rows), len(codebooks), -1)
    codebooks = codebooks.astype(np.float64)
    half_squares = np.square(codebooks).sum(axis=2) / 2
    codes = np.empty(parts.shape[:2], dtype=np.uint8)
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        some = slice(start, start + _ROWS_AT_ONCE)
        for subspace, codebook in enumerate(codebooks):
            # |x - c|²/2 without |x|²/2, which is the same for all codewords
            distances = half_squares[subspace] - parts[some, subspace] @ codebook.T
            codes[some, subspace] = distances.argmin(axis=1)
    return codes


def joined_codewords(codes: np.ndarray, codebooks: np.ndarray) -> np.ndarray:
    """Return the rows that codes stand for, in the space of the codebooks.

    Parameters
    ----------
    codes : ndarray of int, shape (n, n_subspaces)
        Numbers of codewords.
    codebooks : ndarray of float32, shape (n_subspaces, n_codewords, width)
        Codewords.

    Returns
    -------
    ndarray of float32, shape (n, n_subspaces * width)
    """
    # codebooks[arange, codes][n, m]: codeword of row n in subspace m
    return codebooks[np.arange(len(codebooks)), codes].reshape(len(codes), -1)


def checked_codes(codes: Any, n_subspaces: int, n_codewords: int) -> np.ndarray:
    """Return codes as an array, after a look at type, shape and range.

    Raises
    ------
    UsageError
        When they cannot be codes of n_subspaces parts with n_codewords each.
    """
    codes = np.asarray(codes)
    if not np.issubdtype(codes.dtype, np.integer) or codes.ndim != 2 or codes.shape[1] != n_subspaces:
        raise UsageError(
            f"codes of shape {codes.shape} and type {codes.dtype}; needed are integers of shape (n, {n_subspaces}). "
            "Give what encode returned."
        )
    if codes.size and (codes.min() < 0 or codes.max() >= n_codewords):
        raise UsageError(
            f"codes go from {codes.min()} to {codes.max()}; this quantizer has {n_codewords} codewords a subspace, "
            f"0 to {n_codewords - 1}. Give what its own encode returned."
        )
    return codes
