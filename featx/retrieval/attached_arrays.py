"""Arrays that travel with an index: plain little-endian numbers, one part of the archive each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from featx.archive import Archive
from featx.errors import StoreError, UsageError

_DTYPES = ("float16", "float32", "float64", "int8", "uint8", "int32", "int64")


def array_parts(arrays: Mapping[str, np.ndarray]) -> tuple[list[dict[str, Any]], dict[str, memoryview]]:
    """Return what says which arrays there are, as JSON values, and the parts that hold them.

    Raises
    ------
    UsageError
        An array is not of plain numbers, or is empty.
    """
    table, parts = [], {}
    for number, (name, array) in enumerate(arrays.items()):
        if array.dtype.name not in _DTYPES or not array.size:
            raise UsageError(
                f"the array {name!r} is {array.dtype} of shape {array.shape}; an index holds {', '.join(_DTYPES)} with"
                " at least one value"
            )
        table.append({"name": name, "dtype": array.dtype.name, "shape": list(array.shape)})
        little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        parts[_part(number)] = little.reshape(-1).data
    return table, parts


def read_arrays(archive: Archive) -> dict[str, np.ndarray]:
    """Return the arrays of an archive by name, as they lie in the file; none where it has none.

    Raises
    ------
    StoreError
        They are not what the archive says that they are.
    """
    table = archive.content.get("arrays", [])
    try:
        return {row["name"]: _read(archive, _part(number), row) for number, row in enumerate(table)}
    except (KeyError, TypeError, ValueError, OverflowError, UsageError) as error:
        raise StoreError(
            f"{archive.path} cannot be an index that featx wrote: its arrays cannot be read ({error}). Build it again."
        ) from error


def _part(number: int) -> str:
    return f"array.{number}.bin"


def _read(archive: Archive, part: str, row: Mapping[str, Any]) -> np.ndarray:
    dtype, shape = row["dtype"], tuple(row["shape"])
    if dtype not in _DTYPES or not all(type(size) is int and size > 0 for size in shape):
        raise ValueError(f"{part} is {dtype} of shape {shape}")
    content = archive.map(part)
    if len(content) != math.prod(shape) * np.dtype(dtype).itemsize:
        raise ValueError(f"{part} has {len(content)} bytes, not those of {dtype} of shape {shape}")
    little = np.dtype(dtype).newbyteorder("<")
    return content.view(little).reshape(shape).astype(dtype, copy=False)
