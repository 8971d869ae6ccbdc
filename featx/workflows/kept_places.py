"""Places of pictures that an index keeps, so that no picture needs to be opened for the second stage."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.errors import StoreError
from featx.images import ImageEntry
from featx.retrieval.local.descriptors import LocalEncoder, fit_local_encoder
from featx.workflows.originals import original_location
from featx.workflows.picture_places import (
    BITS,
    IMAGES_AT_ONCE,
    MOST_LEARNED,
    OWN,
    SEED,
    WHOLE,
    encoded,
    learned_encoder,
)

if TYPE_CHECKING:
    from featx.images import View
    from featx.retrieval import ImageIndex
    from featx.store import FeatureStore
    from featx.workflows.picture_places import PlaceComputer

PLACES = "places"  # a key of an index's metadata, and the beginning of array names
_CODES, _SIZES = f"{PLACES}/codes", f"{PLACES}/sizes"
_ENCODER = f"{PLACES}/encoder/"
_VIEWS_BY_NAME = {"whole": WHOLE, "own": OWN}


@dataclass(frozen=True)
class KeptPlaces:
    """Places of the pictures of an index, as bytes.

    Attributes
    ----------
    layer : str
    views : str
        ``whole`` pictures, or the network's ``own`` view of them.
    encoder : LocalEncoder
    codes : ndarray of uint8, shape (n, places, d)
        By id; those of pictures that could not be read are all zero.
    sizes : ndarray of int32, shape (n, 2)
        Width and height of each picture, by id; 0 where it could not be read.
    """

    layer: str
    views: str
    encoder: LocalEncoder
    codes: np.ndarray
    sizes: np.ndarray

    @property
    def seen(self) -> tuple[View, ...]:
        """The views."""
        return _VIEWS_BY_NAME[self.views]

    @property
    def n_unread(self) -> int:
        """Pictures that could not be read, and have no places."""
        return int((~self.sizes.any(axis=1)).sum())

    @property
    def bytes_per_image(self) -> int:
        """Bytes of one picture's places."""
        return int(self.codes[0].nbytes)

    def extended(self, ids: np.ndarray, codes: np.ndarray, sizes: np.ndarray) -> KeptPlaces:
        """Return these places and those of some more ids, all of them larger; ids between are as if unreadable."""
        n_ids = int(ids[-1]) + 1
        all_codes = np.zeros((n_ids, *self.codes.shape[1:]), np.uint8)
        all_sizes = np.zeros((n_ids, 2), np.int32)
        for target, old, new in ((all_codes, self.codes, codes), (all_sizes, self.sizes, sizes)):
            target[: len(old)], target[ids] = old, new
        return replace(self, codes=all_codes, sizes=all_sizes)

    def to_parts(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Return what an index keeps of it: metadata and arrays."""
        described, learned = self.encoder.to_parts()
        arrays = {_CODES: self.codes, _SIZES: self.sizes, **{_ENCODER + name: array for name, array in learned.items()}}
        return {PLACES: {"layer": self.layer, "views": self.views, "encoder": described}}, arrays

    @classmethod
    def of_index(cls, index: ImageIndex) -> KeptPlaces | None:
        """Return the places that an index keeps; None where it keeps none.

        Raises
        ------
        StoreError
            They do not fit each other.
        """
        described = index.metadata.get(PLACES)
        if described is None:
            return None
        learned = {
            name.removeprefix(_ENCODER): array for name, array in index.arrays.items() if name.startswith(_ENCODER)
        }
        try:
            encoder = LocalEncoder.from_parts(described["encoder"], learned)
            kept = cls(str(described["layer"]), described["views"], encoder, index.arrays[_CODES], index.arrays[_SIZES])
        except (KeyError, TypeError) as error:
            raise StoreError(f"the places of an index cannot be read ({error}); build it again") from error
        fits = isinstance(kept.views, str) and kept.views in _VIEWS_BY_NAME and kept.sizes.dtype == np.int32
        fits = fits and kept.codes.ndim == 3 and kept.codes.dtype == np.uint8 and kept.codes.shape[2] == encoder.n_bytes
        if not fits or kept.sizes.shape != (len(kept.codes), 2):
            raise StoreError("the places of an index do not fit each other; build it again")
        return kept


def places_of_store(store: FeatureStore, computer: PlaceComputer | None, layer: str) -> KeptPlaces:
    """Return the places of all pictures of a store: of the originals, or of the maps that it keeps.

    Parameters
    ----------
    store : FeatureStore
        Where the originals are said to lie.
    computer : PlaceComputer or None
        That sees the originals; None to take the store's map of the layer.
    layer : str
        Of the map.

    Raises
    ------
    StoreError
        None of the originals can be read.
    """
    rows = np.arange(store.rows)
    if computer is not None:
        encoder = learned_encoder(computer, _entries(store, rows))
    else:
        maps = store.map(layer)
        chosen = np.sort(np.random.default_rng(SEED).permutation(rows)[:MOST_LEARNED])
        parts = np.array_split(chosen, -(-len(chosen) // IMAGES_AT_ONCE))
        encoder = fit_local_encoder((np.asarray(maps[part]) for part in parts), bits=BITS)
    codes, sizes = places_of_rows(store, computer, encoder, layer, rows)
    return KeptPlaces(layer, "own" if computer is None else "whole", encoder, codes, sizes)


def places_of_rows(
    store: FeatureStore, computer: PlaceComputer | None, encoder: LocalEncoder, layer: str, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return codes (m, places, d) and sizes (m, 2) of some pictures of a store, as `places_of_store` does."""
    if computer is not None:
        return encoded(computer, encoder, _entries(store, rows), WHOLE)
    maps = store.map(layer)
    starts = range(0, len(rows), IMAGES_AT_ONCE)
    codes = [encoder.encode(np.asarray(maps[rows[start : start + IMAGES_AT_ONCE]])) for start in starts]
    return np.concatenate(codes), np.asarray(store.sizes, np.int32)[rows]


def _entries(store: FeatureStore, rows: np.ndarray) -> list[ImageEntry]:
    paths = store.paths[rows].tolist()
    return [ImageEntry(path, location=original_location(store.source, path)) for path in paths]
