"""What numpy takes as an index, made into row numbers from 0 to n − 1."""

from __future__ import annotations

from typing import Any

import numpy as np


def as_index(part: Any) -> Any:
    """Return one part of an index as a slice, an ellipsis or an array of numbers or booleans.

    Raises
    ------
    IndexError
        It is none of these.
    """
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


def is_mask(part: Any) -> bool:
    """Return whether a part of an index is an array of booleans."""
    return isinstance(part, np.ndarray) and part.dtype == bool


def mask_numbers(mask: np.ndarray, shape: tuple[int, ...]) -> list[np.ndarray]:
    """Return where a mask is true, one array of numbers for each of its axes.

    Raises
    ------
    IndexError
        It is of another shape than what it selects from.
    """
    if mask.shape != shape:
        raise IndexError(f"a mask must have the shape {shape} of what it selects from; got {mask.shape}")
    return list(mask.nonzero())


def wrapped(rows: np.ndarray, n_rows: int) -> np.ndarray:
    """Return row numbers with negative ones counted from the end.

    Raises
    ------
    IndexError
        One is out of range.
    """
    outside = (rows < -n_rows) | (rows >= n_rows)
    if outside.any():
        raise IndexError(f"row {np.atleast_1d(rows[outside])[0]} is out of range; there are {n_rows} rows")
    rows = rows.astype(np.int64)
    return np.where(rows < 0, rows + n_rows, rows)
