"""Reading a store: opened late, once per process, nothing read before it is asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np

from featx.errors import FeatureKeyError, StoreError
from featx.store.digests import blocks_of
from featx.store.feature_array import FeatureArray
from featx.store.header import Header, open_checked
from featx.store.key_names import resolve_key, resolve_map
from featx.store.layout import FeatureInfo, MapInfo, StoredReducer
from featx.store.map_array import MapArray
from featx.store.reducer_arrays import read_reducer
from featx.store.row_selection import read_rows
from featx.store.safety import STRUCTURE_ERRORS, read_errors
from featx.store.strings import decode_strings


class FeatureStore:
    """A store of features: row i of everything in it is image i.

    ``store[name]`` gives features as a `FeatureArray`, which reads what it is indexed with. The file is opened at
    the first use, checked, and stays open until `close`; pickles and forked processes open it again for themselves.

    Parameters
    ----------
    path : str or Path
        The HDF5 file.
    allow_incomplete : bool
        Read a file even if its writer did not finish it.

    Raises
    ------
    StoreError
        At first use: missing, damaged, not a store, of a newer format, or not complete.
    UnsafeFileError
        At first use: the file asks for more than data.

    Examples
    --------
    >>> with FeatureStore("flowers.h5") as store:  # doctest: +SKIP
    ...     X, y = store["penultimate"][:100], store.labels[:100]
    """

    def __init__(self, path: str | Path, *, allow_incomplete: bool = False) -> None:
        self.path = Path(path)
        self.allow_incomplete = allow_incomplete
        self._location = self.path.absolute()  # the working folder may change before the first use
        self._opened: tuple[int, h5py.File, Header] | None = None

    def __enter__(self) -> FeatureStore:
        self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}

    def __len__(self) -> int:
        return self.rows

    def __repr__(self) -> str:
        return f"FeatureStore({str(self.path)!r})"

    def close(self) -> None:
        """Close the file. Using the store again opens it again."""
        if self._opened is not None:
            process, file, _ = self._opened
            self._opened = None
            if process == os.getpid():
                file.close()

    def _open(self) -> tuple[h5py.File, Header]:
        if self._opened is not None and self._opened[0] == os.getpid():
            return self._opened[1:]
        file, header = open_checked(self._location)
        if not header.complete and not self.allow_incomplete:
            file.close()
            message = (
                f"{self.path} is not complete: its writer was interrupted. Repeat the command that made it, "
                "or read what is there with allow_incomplete=True."
            )
            raise StoreError(message)
        self._opened = (os.getpid(), file, header)
        return file, header

    @property
    def _header(self) -> Header:
        return self._open()[1]

    @property
    def rows(self) -> int:
        """Number of images."""
        return self._header.rows

    @property
    def infos(self) -> Mapping[str, FeatureInfo]:
        """What each key holds, shallowest layer first."""
        return dict(self._header.infos)

    @property
    def keys(self) -> list[str]:
        """Full keys ``LAYER@POOL``, shallowest layer first."""
        return list(self._header.infos)

    @property
    def maps(self) -> Mapping[str, MapInfo]:
        """Shape and bytes an image of the spatial map of each layer that has one; often empty."""
        return dict(self._header.maps)

    @property
    def fingerprint(self) -> dict[str, Any]:
        """How the features were made."""
        return dict(self._header.fingerprint)

    @property
    def source(self) -> str:
        """Where the images came from, for people."""
        return self._header.source

    @property
    def aliases(self) -> dict[str, str]:
        """Other names of keys and layers."""
        return dict(self._header.aliases)

    @property
    def paths(self) -> np.ndarray:
        """Paths relative to the source: shape (n,), dtype object, each a ``str``, escapes left as stored."""
        return self._strings("/images/path")

    @property
    def digests(self) -> np.ndarray:
        """BLAKE2b-128 of each image file: shape (n, 16), uint8."""
        return self._whole("/images/digest")

    @property
    def phashes(self) -> np.ndarray:
        """Perceptual hash of each picture: shape (n, 8), uint8."""
        return self._whole("/images/phash")

    @property
    def sizes(self) -> np.ndarray:
        """Width and height in pixels: shape (n, 2), int32."""
        return self._whole("/images/size")

    @property
    def labels(self) -> np.ndarray:
        """Class numbers, −1 = none: shape (n,), int32."""
        return self._whole("/images/label")

    @property
    def label_names(self) -> list[str]:
        """Names of the classes."""
        return self._strings("/labels/names").tolist()

    @property
    def splits(self) -> np.ndarray:
        """−1 none, 0 train, 1 val, 2 test: shape (n,), int8."""
        return self._whole("/images/split")

    @property
    def groups(self) -> np.ndarray | None:
        """Images of one number belong together: shape (n,), int32; None where there are no groups."""
        return self._whole("/images/group") if "group" in self._open()[0]["images"] else None

    @property
    def failures(self) -> list[tuple[str, str]]:
        """(path, reason) of each image that has no row."""
        paths, reasons = self._strings("/failures/path"), self._strings("/failures/reason")
        return list(zip(paths.tolist(), reasons.tolist(), strict=True))

    @property
    def reducers(self) -> dict[str, str]:
        """Key → kind of the reducer that made its features; empty where they are as the network gave them."""
        return dict(self._header.reducers)

    def read_reducer(self, key: str) -> StoredReducer:
        """Return the reducer that made the features `key`, as the numbers it consists of.

        Raises
        ------
        FeatureKeyError
            There is no reducer for this key.
        StoreError
            It is damaged.
        """
        if key not in self._header.reducers:
            held = ", ".join(self._header.reducers) or "none"
            raise FeatureKeyError(f"{self.path} has no reducer for {key!r}; it has: {held}. Ask for one of these.")
        with read_errors(self.path, f"/reducers/{key}", STRUCTURE_ERRORS):
            return read_reducer(self._open()[0], key)

    def resolve(self, name: str | None = None) -> str:
        """Return the full key that a name means: a key, a layer with one pool, or an alias.

        Parameters
        ----------
        name : str or None
            None is ``penultimate`` if it is there, else the deepest layer.

        Raises
        ------
        FeatureKeyError
            Nothing is called so, or several are; the message lists them.
        """
        return resolve_key(name, self._header.infos, self._header.aliases)

    def __getitem__(self, name: str | None) -> FeatureArray:
        """Return the features that a name means, still on disk; names are as in `resolve`."""
        return FeatureArray(self, self._header.infos[self.resolve(name)])

    def map(self, name: str | None = None) -> MapArray:
        """Return the spatial maps of a layer, still on disk.

        Parameters
        ----------
        name : str or None
            A layer of `maps`, or an alias of one; None is the only map.

        Raises
        ------
        FeatureKeyError
            There is no such map, or none was named and there are several; the message lists them.
        """
        return MapArray(self, self._header.maps[resolve_map(name, self._header.maps, self._header.aliases)])

    def __contains__(self, key: object) -> bool:
        return key in self._header.infos

    def read_rows(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Return rows of any dataset of the file, in any order, with repeats.

        Parameters
        ----------
        name : str
            Absolute path of the dataset, such as ``/features/penultimate@avg``.
        rows : ndarray of shape (m,), integer
            From 0 to n − 1.

        Raises
        ------
        StoreError
            There is no such dataset, or it is damaged.
        """
        file, _ = self._open()
        with read_errors(self.path, name):
            return read_rows(file[name], rows)

    def stored_blocks(self, name: str) -> tuple[tuple[int, ...], np.dtype, Iterator[np.ndarray]]:
        """Return shape and dtype of any dataset of the file, and its rows as stored, a few MiB at a time.

        Parameters
        ----------
        name : str
            Absolute path of the dataset, such as ``/images/path``.

        Raises
        ------
        StoreError
            There is no such dataset, or (while its blocks are read) it is damaged.
        """
        with read_errors(self.path, name):
            dataset = self._open()[0][name]
        return dataset.shape, dataset.dtype, self._blocks(name, dataset)

    def _blocks(self, name: str, dataset: h5py.Dataset) -> Iterator[np.ndarray]:
        blocks = blocks_of(dataset)
        while True:
            with read_errors(self.path, name):
                block = next(blocks, None)
            if block is None:
                return
            yield block

    def _whole(self, name: str) -> np.ndarray:
        file, _ = self._open()
        with read_errors(self.path, name):
            return file[name][...]

    def _strings(self, name: str) -> np.ndarray:
        stored = self._whole(name)
        if stored.dtype.kind != "S" or stored.ndim != 1:
            raise StoreError(f"{self.path}: {name} does not hold fixed-length strings. The file is damaged or foreign.")
        return decode_strings(stored)
