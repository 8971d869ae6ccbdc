"""Fitted reducers in a store: groups of plain arrays, whose meaning is known where reducers are made."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import h5py
import numpy as np

from featx.errors import StoreError, UsageError
from featx.store.digests import RunningDigest
from featx.store.layout import StoredReducer

REDUCERS = "/reducers"
_KIND = "kind"
_MOST_AXES = 4
_NUMBERS = "iuf"


def reducer_kinds(file: h5py.File) -> dict[str, str]:
    """Return key → kind of each reducer of a file; groups without a kind are no reducers of this format."""
    group = file.get(REDUCERS)
    if not isinstance(group, h5py.Group):
        return {}
    kinds = {key: _single(item, _KIND) for key, item in group.items() if isinstance(item, h5py.Group)}
    return {key: kind for key, kind in kinds.items() if isinstance(kind, str)}


def read_reducer(file: h5py.File, key: str) -> StoredReducer:
    """Return one reducer of a file whose sizes have been checked.

    Raises
    ------
    StoreError
        An array is not of numbers.
    """
    group = file[f"{REDUCERS}/{key}"]
    arrays = {}
    for name, item in group.items():
        if isinstance(item, h5py.Dataset):
            if item.dtype.kind not in _NUMBERS:
                raise StoreError(f"{file.filename}: {item.name} is {item.dtype}, not numbers. The file is damaged.")
            arrays[name] = item[...]
    names = [name for name in group.attrs if name != _KIND]
    parameters = {name: _single(group, name) for name in names}
    return StoredReducer(
        kind=str(_single(group, _KIND)),
        parameters={name: value for name, value in parameters.items() if value is not None},
        arrays=arrays,
    )


def reducer_digest(reducer: StoredReducer) -> str:
    """Return the digest of a fitted reducer, 32 hex digits, as `featx.store.layout` defines it.

    Parameters
    ----------
    reducer : StoredReducer
        As it was written, or as it was read: both give the same.
    """
    arrays = {}
    for name, array in reducer.arrays.items():
        running = RunningDigest()
        running.update(array)
        arrays[name] = [array.dtype.newbyteorder("<").str, list(array.shape), running.hexdigest()]
    described = {"kind": reducer.kind, "parameters": dict(reducer.parameters), "arrays": arrays}
    text = json.dumps(described, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def check_reducer(key: str, reducer: StoredReducer) -> None:
    """Raise a UsageError if the format cannot hold a reducer."""
    for name, array in reducer.arrays.items():
        if array.dtype.kind not in _NUMBERS or not 1 <= array.ndim <= _MOST_AXES or not array.size or "/" in name:
            message = (
                f"Reducer of {key!r}: {name} is {array.dtype} of shape {array.shape}; stored are numbers with 1 to "
                f"{_MOST_AXES} axes and at least one value."
            )
            raise UsageError(message)
    for name, value in reducer.parameters.items():
        if name == _KIND or not isinstance(value, bool | int | float | str):
            message = f"Reducer of {key!r}: the parameter {name} is {value!r}; stored are numbers, booleans and texts."
            raise UsageError(message)


def _single(item: h5py.Group, name: str) -> Any:
    """Return an attribute that is one value as a Python value, None where it is missing or something else."""
    if name not in item.attrs or item.attrs.get_id(name).shape != ():
        return None
    value = item.attrs[name]
    value = value.item() if isinstance(value, np.generic) else value
    return value if isinstance(value, bool | int | float | str) else None
