"""What is already computed: in the store at the output path, and in segments of runs that did not finish."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from featx.errors import FingerprintMismatchError, WouldOverwriteError
from featx.store import FeatureStore, as_row_source, check_same, open_segments

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from featx.store import FeatureInfo, RowSource


def parts_folder(out: Path) -> Path:
    """Return the folder of a store's segments."""
    return out.with_name(f"{out.name}.parts")


@dataclass
class KnownRows:
    """Which features of which images are there, by digest.

    Parameters
    ----------
    store : FeatureStore or None
        The store at the output path.
    sources : list of RowSource
        Where rows can be copied from, the store first.
    """

    store: FeatureStore | None
    sources: list[RowSource]
    _keys: tuple[str, ...] = ()
    # digest -> bit i set where the i-th key is there
    _have: dict[bytes, int] = field(default_factory=dict)

    @classmethod
    def find(cls, out: Path, fingerprint: Mapping[str, Any], *, overwrite: bool) -> KnownRows:
        """Return what is there already; what was made in another way is refused, or dropped with `overwrite`.

        Raises
        ------
        WouldOverwriteError
            The store or the segments have another fingerprint, and `overwrite` is not set.
        """
        store = None
        if out.exists() and not overwrite:
            store = FeatureStore(out)
            _check(fingerprint, store.fingerprint, f"the store {out}")
        folder = parts_folder(out)
        segments = open_segments(folder) if folder.is_dir() else []
        for segment in segments:
            try:
                _check(fingerprint, segment.fingerprint, f"the unfinished work in {folder}")
            except WouldOverwriteError:
                if not overwrite:
                    raise
                shutil.rmtree(folder)
                segments = []
                break
        return cls(store, ([as_row_source(store)] if store else []) + segments)

    @property
    def infos(self) -> dict[str, FeatureInfo]:
        """Features of the store at the output path, which stay."""
        return dict(self.store.infos) if self.store else {}

    def index(self, keys: Sequence[str]) -> None:
        """Look up, for every known image, which of these features are there."""
        self._keys = tuple(keys)
        self._have = {}
        for source in self.sources:
            mask = sum(1 << bit for bit, key in enumerate(self._keys) if key in source.infos)
            for digest in map(bytes, source.digests):
                self._have[digest] = self._have.get(digest, 0) | mask

    def missing(self, digest: bytes) -> tuple[str, ...]:
        """Return the features of an image that are still to be computed."""
        have = self._have.get(digest, 0)
        return tuple(key for bit, key in enumerate(self._keys) if not have >> bit & 1)

    def is_complete(self, digest: bytes) -> bool:
        """Return whether nothing of an image is to be computed."""
        return self._have.get(digest, 0) == (1 << len(self._keys)) - 1

    def mark(self, digest: bytes) -> None:
        """Note that an image is taken care of."""
        self._have[digest] = (1 << len(self._keys)) - 1

    def count(self) -> int:
        """Return how many images need nothing."""
        return sum(self.is_complete(digest) for digest in self._have)


def _check(expected: Mapping[str, Any], found: Mapping[str, Any], what: str) -> None:
    try:
        check_same(expected, found, what=what)
    except FingerprintMismatchError as error:
        raise WouldOverwriteError(f"{error}\nOr choose another --out, or give --overwrite to replace it.") from error
