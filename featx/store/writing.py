"""Writing one HDF5 file of the layout in `featx.store.layout`: datasets with checksums and digests, then attributes."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np

from featx.errors import StoreError
from featx.store.digests import ATTRIBUTES, DIGESTS, RunningDigest, attributes_digest
from featx.store.layout import FORMAT_VERSION, ROW_COLUMNS, MapInfo, RowInfo, StoredReducer
from featx.store.reducer_arrays import check_reducer
from featx.store.row_selection import BYTES_PER_CHUNK, rows_per_chunk
from featx.store.strings import encode_strings, encoded_length

# Readable by every HDF5 since 1.10 (2016); the older default has no checksums on its metadata.
_LIBRARY_VERSION = ("v110", "v110")
_STRINGS_AT_ONCE = 2**16
# Features are read by blocks, maps image by image: those of a few candidates should not drag their neighbours along.
_BYTES_PER_MAP_CHUNK = 2**16


class _Disk(io.RawIOBase):
    """A file that HDF5 writes through, which remembers the first error and from then on drops what it is given.

    HDF5 crashes the process when a write fails in the middle of closing a file, which is what a full disk does. So
    HDF5 never hears of the error; `StoreWriter` asks for it after each block and at the end.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        self._position = 0
        self.error: OSError | None = None

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        origins = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: os.fstat(self._descriptor).st_size}
        self._position = origins[whence] + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        os.lseek(self._descriptor, self._position, os.SEEK_SET)
        content = os.read(self._descriptor, len(buffer))
        buffer[: len(content)] = content
        self._position += len(content)
        return len(content)

    def write(self, buffer: Any) -> int:
        content = memoryview(buffer).cast("B")
        self._try(self._write_all, content)
        self._position += len(content)
        return len(content)

    def truncate(self, size: int | None = None) -> int:
        size = self._position if size is None else size
        self._try(os.ftruncate, self._descriptor, size)
        return size

    def close(self) -> None:
        if not self.closed:
            os.close(self._descriptor)
        super().close()

    def _write_all(self, content: memoryview) -> None:
        os.lseek(self._descriptor, self._position, os.SEEK_SET)
        while content:
            content = content[os.write(self._descriptor, content) :]

    def _try(self, action: Any, *arguments: Any) -> None:
        if self.error is None:
            try:
                action(*arguments)
            except OSError as error:
                self.error = error


class StoreWriter:
    """Writes a new file of the layout: `put` datasets, then `finish`. A context manager.

    Parameters
    ----------
    path : Path
        Must not exist.
    """

    def __init__(self, path: Path) -> None:
        self._disk = _Disk(path)
        self._digests: dict[str, str] = {}
        try:
            self._file = h5py.File(self._disk, "w", libver=_LIBRARY_VERSION)
        except BaseException:
            self._disk.close()
            raise
        # Features are listed in the order in which they were put.
        self._file.create_group("features", track_order=True)

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._file.close()
            if kind is None:
                self._check_disk()
        finally:
            self._disk.close()

    def put_blocks(
        self,
        path: str,
        shape: tuple[int, ...],
        dtype: np.dtype,
        blocks: Iterable[np.ndarray],
        attributes: Mapping[str, Any] | None = None,
        bytes_per_chunk: int = BYTES_PER_CHUNK,
    ) -> None:
        """Write one dataset whose rows come in blocks, in order; none is kept in memory.

        Raises
        ------
        OSError
            The disk is full or broken.
        """
        n_rows = min(max(1, shape[0]), rows_per_chunk(shape[1:], dtype.itemsize, bytes_per_chunk))
        dataset = self._file.create_dataset(
            path,
            shape=shape,
            dtype=h5py.string_dtype("utf-8", dtype.itemsize) if dtype.kind == "S" else dtype,
            chunks=(n_rows, *shape[1:]),
            maxshape=(max(1, shape[0]), *shape[1:]),  # a chunk must fit even where there are no rows
            fletcher32=True,
        )
        for name, value in (attributes or {}).items():
            dataset.attrs[name] = value
        digest = RunningDigest()
        start = 0
        for block in blocks:
            stored = block.astype(dtype, copy=False)
            # The view says that strings are UTF-8, which the dtype of the dataset carries as metadata.
            dataset[start : start + len(stored)] = stored.view(dataset.dtype)
            digest.update(stored)
            start += len(stored)
            self._check_disk()
        self._digests[path] = digest.hexdigest()

    def put(self, path: str, values: np.ndarray) -> None:
        """Write one dataset that is in memory."""
        self.put_blocks(path, values.shape, values.dtype, [values])

    def put_column(self, name: str, values: np.ndarray) -> None:
        """Write one numeric column of ``/images`` with the dtype of the format."""
        self.put(f"/images/{name}", np.asarray(values).astype(ROW_COLUMNS[name][0]))

    def put_strings(self, path: str, texts: Sequence[str]) -> None:
        """Write one dataset of strings."""
        length = encoded_length(texts)
        starts = range(0, len(texts), _STRINGS_AT_ONCE)
        blocks = (encode_strings(texts[start : start + _STRINGS_AT_ONCE], length) for start in starts)
        self.put_blocks(path, (len(texts),), np.dtype(f"S{length}"), blocks)

    def put_rows(self, info: RowInfo, n_rows: int, blocks: Iterable[np.ndarray]) -> None:
        """Write one dataset of ``/features`` or ``/maps``, cast to the dtype that `info` names.

        Raises
        ------
        StoreError
            A value is too large for float16.
        """
        is_map = isinstance(info, MapInfo)
        if is_map and "maps" not in self._file:
            self._file.create_group("maps", track_order=True)  # listed in the order in which they were put
        self.put_blocks(
            info.dataset,
            (n_rows, *info.row_shape),
            np.dtype(info.dtype).newbyteorder("<"),
            (_cast(block, info) for block in blocks),
            _attributes_of(info),
            _BYTES_PER_MAP_CHUNK if is_map else BYTES_PER_CHUNK,
        )

    def put_reducer(self, key: str, reducer: StoredReducer) -> None:
        """Write a fitted reducer under ``/reducers/KEY``.

        Raises
        ------
        UsageError
            An array or parameter is not of a kind that the format has.
        """
        check_reducer(key, reducer)
        group = self._file.create_group(f"/reducers/{key}")
        for name, value in {"kind": reducer.kind, **reducer.parameters}.items():
            group.attrs[name] = value
        for name, array in reducer.arrays.items():
            self.put(f"/reducers/{key}/{name}", array.astype(array.dtype.newbyteorder("<"), copy=False))

    def finish(
        self, *, format_name: str, rows: int, fingerprint: Mapping, attributes: Mapping[str, Any] | None = None
    ) -> None:
        """Write the attributes of the file, ``complete`` last, and all digests."""
        attributes = {
            "format": format_name,
            "format_version": FORMAT_VERSION,
            "rows": rows,
            "fingerprint": canonical_json(fingerprint),
            **(attributes or {}),
            "complete": True,
        }
        for name, value in attributes.items():
            self._file.attrs[name] = value
        group = self._file.create_group(DIGESTS)
        for path, digest in self._digests.items():
            group.attrs[path] = digest
        group.attrs[ATTRIBUTES] = attributes_digest(self._file)
        self._check_disk()

    def _check_disk(self) -> None:
        if self._disk.error is not None:
            raise self._disk.error


def canonical_json(value: Mapping) -> str:
    """Return a mapping as JSON text that is the same for the same content."""
    return json.dumps(dict(value), sort_keys=True, ensure_ascii=False)


def _attributes_of(info: RowInfo) -> dict[str, Any]:
    if isinstance(info, MapInfo):
        return {}
    return {
        "layer": info.layer,
        "pool": info.pool,
        "depth": float(info.depth),
        "map_shape": np.asarray(info.map_shape, dtype="<i8"),
        **({"codec": info.codec} if info.codec else {}),
    }


def _cast(values: np.ndarray, info: RowInfo) -> np.ndarray:
    with np.errstate(over="ignore"):
        cast = values.astype(info.dtype, copy=False)
    if info.dtype == "float16" and np.any(np.isinf(cast) & np.isfinite(values)):
        largest = np.abs(values[np.isfinite(values)]).max()
        advice = "Keep the map of another layer." if isinstance(info, MapInfo) else "Store them as float32."
        title = f"{info.title[0].upper()}{info.title[1:]}"
        raise StoreError(f"{title}: values reach {largest:.4g}; float16 holds at most 65504. {advice}")
    return cast
