"""Somewhere computed rows can be copied from, found by the digest of their image: a segment or a store."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from featx.errors import FeatureKeyError
from featx.store.layout import RowInfo
from featx.store.row_selection import read_rows
from featx.store.safety import read_errors

if TYPE_CHECKING:
    from featx.store.feature_store import FeatureStore


class RowSource:
    """Rows of one file, to be read in any order.

    Parameters
    ----------
    path : Path
        A file that was checked already.
    fingerprint : mapping
    infos : mapping of str to FeatureInfo or MapInfo
        By key: ``LAYER@POOL`` for features, ``LAYER`` for maps.
    digests : ndarray of shape (n, 16), uint8

    Notes
    -----
    The file is opened for each read and closed after it: a store may have thousands of segments, and a process may
    not have that many files open. That costs about a millisecond a read.
    """

    def __init__(
        self, path: Path, fingerprint: Mapping[str, Any], infos: Mapping[str, RowInfo], digests: np.ndarray
    ) -> None:
        self.path = path
        self.fingerprint = dict(fingerprint)
        self.infos = dict(infos)
        self.digests = digests

    def __len__(self) -> int:
        return len(self.digests)

    def __repr__(self) -> str:
        return f"RowSource({str(self.path)!r}, {len(self)} rows)"

    def find(self, digests: np.ndarray) -> np.ndarray:
        """Return the first row with each digest, −1 where there is none.

        Parameters
        ----------
        digests : ndarray of shape (m, 16), uint8
            What to look for.

        Returns
        -------
        ndarray of shape (m,), int64
        """
        known, rows = self._known
        wanted = _as_bytes(digests)
        if not len(known):
            return np.full(len(wanted), -1, dtype=np.int64)
        place = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
        return np.where(known[place] == wanted, rows[place], -1)

    def read(self, key: str, rows: np.ndarray) -> np.ndarray:
        """Return features (m, d) or maps (m, h, w, c) of the given rows, in the order asked for.

        Raises
        ------
        FeatureKeyError
            The file has neither features nor a map `key`.
        StoreError
            The file is damaged or gone.
        """
        if key not in self.infos:
            raise FeatureKeyError(
                f"{self.path} has no features {key!r}, only {', '.join(self.infos)}. Ask for one of these."
            )
        return self._read(self.infos[key].dataset, rows)

    def read_phashes(self, rows: np.ndarray) -> np.ndarray:
        """Return perceptual hashes of the given rows, shape (m, 8), uint8."""
        return self._read("/images/phash", rows)

    def read_sizes(self, rows: np.ndarray) -> np.ndarray:
        """Return width and height in pixels of the given rows, shape (m, 2), int32."""
        return self._read("/images/size", rows)

    def _read(self, name: str, rows: np.ndarray) -> np.ndarray:
        with read_errors(self.path, name), h5py.File(self.path, "r") as file:
            return read_rows(file[name], np.asarray(rows))

    @cached_property
    def _known(self) -> tuple[np.ndarray, np.ndarray]:
        """Distinct digests in order, and the first row of each."""
        return np.unique(_as_bytes(self.digests), return_index=True)


def as_row_source(store: FeatureStore) -> RowSource:
    """Return a store as somewhere rows can be copied from.

    Parameters
    ----------
    store : FeatureStore
        Is opened if it was not yet.

    Returns
    -------
    RowSource
        Reads the file that the store's path names.

    Raises
    ------
    StoreError
        The store cannot be read.
    """
    infos: dict[str, RowInfo] = {**store.infos, **store.maps}
    return RowSource(store.path.absolute(), store.fingerprint, infos, store.digests)


def _as_bytes(digests: np.ndarray) -> np.ndarray:
    """View (n, 16) uint8 as (n,) strings of 16 bytes, which numpy can sort; equal strings are equal digests."""
    return np.ascontiguousarray(digests, dtype=np.uint8).reshape(-1, 16).view("S16").reshape(-1)
