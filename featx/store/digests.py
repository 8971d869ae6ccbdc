"""BLAKE2b-128 digests of datasets and attributes, as they stand in ``/digests``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np

from featx.store.row_selection import rows_per_block, rows_per_chunk
from featx.store.safety import walk

DIGESTS = "/digests"
ATTRIBUTES = "attributes"  # a name without a slash, so no dataset can have it
_BYTES_AT_ONCE = 8 * 2**20


class RunningDigest:
    """The digest of a dataset whose rows come in blocks."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=16)

    def update(self, block: np.ndarray) -> None:
        """Take in the next rows, as little-endian bytes in C order."""
        self._hash.update(np.ascontiguousarray(block, dtype=block.dtype.newbyteorder("<")).data)

    def hexdigest(self) -> str:
        """Return the digest of all rows so far, 32 lower-case hex digits."""
        return self._hash.hexdigest()


def dataset_digest(dataset: h5py.Dataset) -> str:
    """Return the digest of what the dataset reads as now, a few chunks in memory at a time."""
    digest = RunningDigest()
    for block in blocks_of(dataset):
        digest.update(block)
    return digest.hexdigest()


def blocks_of(dataset: h5py.Dataset) -> Iterator[np.ndarray]:
    """Yield the dataset's rows in order, in blocks of whole chunks of about 8 MiB."""
    if not dataset.shape:
        yield np.asarray(dataset[()])
        return
    row_shape, itemsize = dataset.shape[1:], dataset.dtype.itemsize
    n_rows = dataset.chunks[0] if dataset.chunks else rows_per_chunk(row_shape, itemsize)
    step = rows_per_block(row_shape, itemsize, n_rows, _BYTES_AT_ONCE)
    for start in range(0, len(dataset), step):
        yield dataset[start : start + step]


def attributes_digest(file: h5py.File) -> str:
    """Return the digest of all attributes of all objects but ``/digests``, as `featx.store.layout` defines it."""
    attributes = {}
    for path, item in walk(file):
        if path != DIGESTS and len(item.attrs):
            attributes[path] = {name: _as_json(item.attrs[name]) for name in item.attrs}
    text = json.dumps(attributes, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _as_json(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return [_as_json(item) for item in value.tolist()]
    if isinstance(value, np.generic):
        return _as_json(value.item())
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return value if isinstance(value, str | int | float | bool) else str(value)
