"""Feature vectors as an index keeps them: float32, of length 1, so that a dot product is a cosine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from featx.errors import UsageError

_ROWS_PER_BLOCK = 4096


def unit_vectors(vectors: Any, *, what: str = "vectors") -> np.ndarray:
    """Return L2-normalised copies of vectors; a zero vector stays zero, so that its cosine with anything is 0.

    Parameters
    ----------
    vectors : array-like of shape (n, d), or iterable of such blocks
        An array that reads lazily is read a block at a time.
    what : str
        What they are, for error messages.

    Returns
    -------
    ndarray of float32, shape (n, d), C order

    Raises
    ------
    UsageError
        When there is none, when shapes do not fit, or when values are not finite (the message names rows).
    """
    blocks = [_normalise(block) for block in checked_blocks(vectors, what=what)]
    return np.ascontiguousarray(np.concatenate(blocks)) if len(blocks) > 1 else blocks[0]


def checked_blocks(vectors: Any, *, what: str = "vectors") -> Iterator[np.ndarray]:
    """Yield vectors block by block; what is wrong with them is said at the end, so that all of it is named.

    Parameters
    ----------
    vectors : array-like of shape (n, d), or iterable of such blocks
        An array that reads lazily is read a block at a time.
    what : str
        What they are, for error messages.

    Yields
    ------
    ndarray of shape (m, d)
        As they are, but for rows that are not finite, which are zero.

    Raises
    ------
    UsageError
        As `unit_vectors` does.
    """
    bad: list[int] = []
    n_rows = width = 0
    for block in _blocks(vectors, what):
        if n_rows and block.shape[1] != width:
            raise UsageError(f"{what} of width {block.shape[1]} follow {what} of width {width}. Give all of one width.")
        finite = np.isfinite(block).all(axis=1)
        bad.extend((np.flatnonzero(~finite) + n_rows).tolist())
        n_rows, width = n_rows + len(block), block.shape[1]
        if block.size:
            yield block if finite.all() else np.where(finite[:, None], block, 0)
    if bad:
        named = ", ".join(map(str, bad[:5])) + (", …" if len(bad) > 5 else "")
        raise UsageError(
            f"{what} hold NaN or infinity in {len(bad)} rows ({named}). Leave them out or make them again."
        )
    if not n_rows or not width:
        raise UsageError(f"no {what} were given; at least one is needed. Check that the store has rows.")


def _blocks(vectors: Any, what: str) -> Iterator[np.ndarray]:
    """Yield 2-D blocks of numbers."""
    if hasattr(vectors, "shape"):
        if len(vectors.shape) != 2:
            raise UsageError(f"{what} of shape {tuple(vectors.shape)}; needed is (n, d). One vector is v[None, :].")
        for start in range(0, vectors.shape[0], _ROWS_PER_BLOCK):
            yield np.asarray(vectors[start : start + _ROWS_PER_BLOCK])
        return
    for item in vectors:
        block = np.asarray(item)
        if block.ndim != 2:
            raise UsageError(f"a block of {what} has shape {block.shape}; needed is (n, d). Give np.asarray(rows).")
        yield block


def _normalise(block: np.ndarray) -> np.ndarray:
    # float64: squares of large or tiny float32 numbers would overflow or vanish
    wide = block.astype(np.float64)
    largest = np.abs(wide).max(axis=1, initial=0.0, keepdims=True)
    wide /= np.where(largest > 0, largest, 1)
    length = np.sqrt(np.square(wide).sum(axis=1, keepdims=True))
    return np.ascontiguousarray(wide / np.where(length > 0, length, 1), dtype=np.float32)
