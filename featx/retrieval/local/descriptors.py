"""Places of spatial maps as short vectors that can be compared: centred, whitened on the gallery, kept as bytes.

A *place of a map* is one position of a layer's map (h, w, c): what the network sees in one part of a picture. A ViT's
patch tokens are places as well.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from featx.errors import StoreError, UsageError

MOST_PLACES = 200_000  # to learn from; more would move the axes by less than their error
_LARGEST = {8: 127, 4: 7}  # of the whole numbers that a number of a place becomes; that of 0 is in the middle
_STEP_OF_HALF_BYTES = 0.4  # of the numbers' typical size, 1/sqrt(d): 4 bits reach to 2.8 times it
_WEAK = 1e-6  # of the largest variance: axes below are noise, and whitening would blow it up
_NAMES = ("mean", "projection")


@dataclass(frozen=True)
class LocalEncoder:
    """Turns places of maps into vectors of length 1 whose dot product says how alike two places look.

    Attributes
    ----------
    mean : ndarray of float32, shape (c,)
        Of the gallery's places.
    projection : ndarray of float32, shape (c, d)
        Principal axes over their standard deviations, largest variance first.
    own_mean : float
        Share of each picture's own mean place that is taken off, 0..1. What all places of a picture have in common
        (its light, its colour cast, its blur) says little about what is on it.
    bits : {8, 4}
        That `encode` spends on a number.

    References
    ----------
    H. Jégou, O. Chum: Negative evidences and co-occurences in image retrieval: the benefit of PCA and whitening,
    ECCV 2012.
    """

    mean: np.ndarray
    projection: np.ndarray
    own_mean: float = 0.5
    bits: int = 8

    @property
    def n_components(self) -> int:
        """Numbers a place."""
        return int(self.projection.shape[1])

    @property
    def n_bytes(self) -> int:
        """Bytes a place."""
        return (self.n_components * self.bits + 7) // 8

    @property
    def step(self) -> float:
        """What neighbouring codes differ by in a number of a place."""
        return 1 / _LARGEST[8] if self.bits == 8 else _STEP_OF_HALF_BYTES / math.sqrt(self.n_components)

    def describe(self, maps: np.ndarray) -> np.ndarray:
        """Return vectors of length 1, float32 of shape (n, places, d); a place that is nothing special is zero.

        Parameters
        ----------
        maps : ndarray of shape (n, places, c) or (n, h, w, c)
            A row a picture; several views of a picture are its places together, (n, views, h, w, c) for instance.

        Raises
        ------
        UsageError
            Another number of channels, or values that are not finite.
        """
        places = _as_places(maps, len(self.mean)).astype(np.float32)
        places -= self.mean
        if self.own_mean:
            places -= self.own_mean * places.mean(axis=1, keepdims=True)
        vectors = places @ self.projection
        length = np.linalg.norm(vectors, axis=2, keepdims=True)
        if not np.isfinite(length).all():
            raise UsageError("maps hold NaN or infinity. Leave those pictures out or make their maps again.")
        vectors /= np.where(length > 0, length, 1)
        return vectors

    def encode(self, maps: np.ndarray) -> np.ndarray:
        """Return `describe` rounded to `bits` a number, uint8 of shape (n, places, n_bytes)."""
        largest = _LARGEST[self.bits]
        codes = np.clip(np.rint(self.describe(maps) / self.step), -largest, largest)
        codes = (codes + (largest + 1)).astype(np.uint8)
        if self.bits == 8:
            return codes
        if self.n_components % 2:
            codes = np.concatenate([codes, np.zeros_like(codes[..., :1])], axis=-1)
        return codes[..., ::2] | codes[..., 1::2] << 4

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Return the float32 vectors of codes, (..., d): each number within half a `step` of what it was.

        With 4 bits, numbers beyond 7 steps are cut off there; the vectors' lengths are within a few percent of 1.
        """
        if self.bits == 4:
            pairs = np.stack([codes & 15, codes >> 4], axis=-1)
            codes = pairs.reshape(*codes.shape[:-1], -1)[..., : self.n_components]
        vectors = codes.astype(np.float32)
        vectors -= _LARGEST[self.bits] + 1
        vectors *= np.float32(self.step)
        return vectors

    def to_parts(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Return JSON-able values and plain arrays that `from_parts` takes."""
        return {"own_mean": self.own_mean, "bits": self.bits}, {name: getattr(self, name) for name in _NAMES}

    @classmethod
    def from_parts(cls, values: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> LocalEncoder:
        """Return the encoder that `to_parts` took apart.

        Raises
        ------
        StoreError
            They are no parts of one.
        """
        try:
            mean, projection = (np.asarray(arrays[name], np.float32) for name in _NAMES)
            own_mean, bits = float(values["own_mean"]), int(values["bits"])
            fits = mean.ndim == 1 and projection.ndim == 2 and len(projection) == len(mean) and projection.size > 0
            fits = fits and 0 <= own_mean <= 1 and bits in _LARGEST
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(f"no encoder of places of maps can be read ({error}). Build the index again.") from error
        if not fits or not np.isfinite(mean).all() or not np.isfinite(projection).all():
            raise StoreError(
                f"an encoder of places of maps has a mean of shape {mean.shape}, a projection of shape"
                f" {projection.shape}, a share of {own_mean} and {bits} bits; these do not fit. Build the index again."
            )
        return cls(mean, projection, own_mean, bits)


def fit_local_encoder(
    blocks: Iterable[np.ndarray],
    *,
    n_components: int = 64,
    own_mean: float = 0.5,
    bits: int = 8,
    most_places: int = MOST_PLACES,
) -> LocalEncoder:
    """Return an encoder fitted on the gallery's maps.

    Parameters
    ----------
    blocks : iterable of ndarray of shape (n, places, c) or (n, h, w, c)
        Read once, block by block, until there are enough places. Where there are more pictures than needed, give them
        in random order.
    n_components : int
        Numbers kept of a place (d); at most c, fewer where the places do not vary in so many directions.
    own_mean, bits
        See `LocalEncoder`.
    most_places : int
        To learn from. Memory is one block and 8·c² bytes.

    Raises
    ------
    UsageError
        No places, or blocks that do not fit together, or values that are not finite, or a number out of range.
    """
    from featx.reducers import StreamingPCA

    if n_components < 1 or not 0 <= own_mean <= 1 or bits not in _LARGEST:
        raise UsageError(
            f"n_components {n_components}, own_mean {own_mean} and bits {bits}: needed are at least 1, a share from 0"
            f" to 1, and {' or '.join(map(str, _LARGEST))}"
        )
    pca = StreamingPCA()
    for places in _some_places(blocks, most_places):
        pca.partial_fit(places)
    if not hasattr(pca, "mean_"):
        raise UsageError("no maps were given to learn from; at least one is needed. Check that the store has rows.")
    variances = np.asarray(pca.explained_variance_, np.float64)[:n_components]
    n_kept = int((variances > _WEAK * variances.max(initial=0.0)).sum())
    if not n_kept:
        raise UsageError("all places of the maps are the same: nothing can be told apart. Use another layer.")
    axes = np.asarray(pca.components_, np.float64)[:n_kept]
    projection = (axes / np.sqrt(variances[:n_kept, None])).T
    mean = np.asarray(pca.mean_, np.float32)
    return LocalEncoder(mean, np.ascontiguousarray(projection, dtype=np.float32), float(own_mean), bits)


def _some_places(blocks: Iterable[np.ndarray], most_places: int) -> Iterator[np.ndarray]:
    """Yield float32 rows of places, (m, c), until there are enough."""
    n_channels, n_places = None, 0
    for block in blocks:
        places = _as_places(block, n_channels)
        n_channels = places.shape[2]
        rows = places.reshape(-1, n_channels)[: most_places - n_places].astype(np.float32)
        if not np.isfinite(rows).all():
            raise UsageError("maps hold NaN or infinity. Leave those pictures out or make their maps again.")
        n_places += len(rows)
        if len(rows):
            yield rows
        if n_places >= most_places:
            return


def _as_places(maps: np.ndarray, n_channels: int | None) -> np.ndarray:
    """Return maps as (n, places, c)."""
    maps = np.asarray(maps)
    if maps.ndim < 3 or (n_channels is not None and maps.shape[-1] != n_channels):
        wanted = "c" if n_channels is None else n_channels
        raise UsageError(
            f"maps of shape {maps.shape}; needed is (n, places, {wanted}) or (n, h, w, {wanted}). Channels come last;"
            " one map is m[None]."
        )
    return maps.reshape(len(maps), -1, maps.shape[-1]) if len(maps) else maps.reshape(0, 1, maps.shape[-1])
