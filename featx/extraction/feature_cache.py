"""A store used as a cache: features by the content of images, whatever is asked for when."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.errors import ImageError, SourceError, WouldOverwriteError
from featx.extraction.extracting import Extraction
from featx.extraction.locking import locked
from featx.extraction.memory_entries import MemoryEntry
from featx.images import NO_SPLIT, ImageEntry, ImageListing, escape_path, unescape_path
from featx.store import FeatureStore

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from PIL.Image import Image

    from featx.extraction.computing import FeatureComputer
    from featx.images import EncodedImage

CACHE_SOURCE = "featx cache"


@dataclass(frozen=True)
class CachedEntry:
    """A row of a cache: its digest is known, and its file is opened only where features are missing."""

    path: str
    digest: bytes
    label: int = -1
    split: int = NO_SPLIT
    group: int = -1

    def read(self) -> _CachedImage:
        """Return the row's digest, with the file behind it."""
        return _CachedImage(self.path, self.digest)


@dataclass(frozen=True)
class _CachedImage:
    path: str
    digest: bytes

    def decode(self) -> Image:
        """Return the picture, if the file still holds what the row was computed from."""
        encoded: EncodedImage = ImageEntry(self.path, location=unescape_path(self.path)).read()
        if encoded.digest != self.digest:
            raise ImageError("the file has changed since it was cached")
        return encoded.decode()


def cached_features(
    path: Path, entries: Sequence[ImageEntry | MemoryEntry], computer: FeatureComputer
) -> tuple[dict[str, np.ndarray], dict[int, str]]:
    """Return the features of images from a cache, after adding to it what it lacks.

    Parameters
    ----------
    path : Path
        The cache; made where it is not there. Other processes that use it are waited for.
    entries : sequence of ImageEntry or MemoryEntry
        Images, at least one.
    computer : FeatureComputer
        The network with the taps wanted.

    Returns
    -------
    features : dict of str to ndarray
        Key to (n, width) float32; rows of images that failed are NaN.
    failures : dict of int to str
        Place of an image that could not be read, to the reason.

    Raises
    ------
    WouldOverwriteError
        The file holds features that were made in another way, or is no cache.

    Notes
    -----
    Every row has all features of the cache, so rows not asked for get a new layer as well. Pictures in memory
    cannot: those that are not asked for while a layer is added leave the cache.
    """
    named = [_named(entry) for entry in entries]
    with locked(path.with_name(f"{path.name}.lock"), waits=True):
        wanted = {entry.path: entry for entry in named}
        # Known rows keep their places, or the cache would be written anew whenever another part of it is asked for.
        listed = {**_cached_entries(path), **wanted}
        listing = ImageListing(source=CACHE_SOURCE, entries=tuple(listed.values()))
        try:
            # The computer is copied: an extraction takes in the features that the store has already.
            report = Extraction(listing, replace(computer), path).run()
        except SourceError:  # not one image can be read, so there is nothing to keep
            return computer.features_of(entries)
        with FeatureStore(path) as store:
            return _rows(store, [entry.path for entry in named], computer, dict(report.failures))


def _rows(
    store: FeatureStore, paths: Sequence[str], computer: FeatureComputer, reasons: dict[str, str]
) -> tuple[dict[str, np.ndarray], dict[int, str]]:
    row_of = {name: row for row, name in enumerate(store.paths.tolist())}
    rows = np.array([row_of.get(name, -1) for name in paths])
    failed = np.flatnonzero(rows < 0)
    features = {}
    for tap in computer.taps:
        features[tap.key] = np.asarray(store[tap.key][np.maximum(rows, 0)], np.float32)
        features[tap.key][failed] = np.nan
    return features, {place: reasons[paths[place]] for place in failed.tolist()}


def _named(entry: ImageEntry | MemoryEntry) -> Any:
    """Return the entry under a path that means the same from everywhere."""
    if isinstance(entry, MemoryEntry):
        return entry.named_by_content()
    return replace(entry, path=escape_path(entry.location))


def _cached_entries(path: Path) -> dict[str, CachedEntry]:
    """Return the rows of a cache by path."""
    if not path.exists():
        return {}
    with FeatureStore(path) as store:
        if store.source != CACHE_SOURCE:
            raise WouldOverwriteError(
                f"{path} holds features of {store.source} and is no cache; give another file as the cache"
            )
        pairs = zip(store.paths.tolist(), store.digests, strict=True)
        return {name: CachedEntry(name, bytes(digest)) for name, digest in pairs}
