"""What is seen where on pictures: the map of one layer, over one or several views."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.errors import LayerError, StoreError
from featx.extraction import ComputeOptions, FeatureComputer, as_maps, map_shape, map_tap
from featx.images import View, view_box
from featx.retrieval.local.descriptors import LocalEncoder, fit_local_encoder
from featx.retrieval.local.places import place_positions

if TYPE_CHECKING:
    from featx.backbones import Backbone
    from featx.images import ImageEntry

OWN = (View(),)
WHOLE = (View(span=8.0),)  # wider than any picture is long: all of it, stretched to the network's shape

IMAGES_AT_ONCE = 32
MOST_LEARNED = 1000  # pictures that an encoder learns from
SEED = 0
BITS = 4  # a number; half the bytes of 8, and no loss was measured
_FEWEST_ROWS = 12  # of a map that is fine enough to tell where things are


class PlaceComputer:
    """Sees what is where on pictures, with one layer of a network.

    Parameters
    ----------
    backbone : Backbone
        The network.
    layer : str or None
        Whose map; by default the deepest stage whose map has at least 12 rows.
    options : ComputeOptions, optional
        How to run.

    Raises
    ------
    LayerError
        There is no such layer, or it has no map.
    """

    def __init__(self, backbone: Backbone, layer: str | None, options: ComputeOptions | None = None) -> None:
        tap = map_tap(backbone, layer or deepest_fine_layer(backbone))
        self.layer = tap.layer.name
        self.map_shape = map_shape(tap)
        self._tap = tap
        self._computer = FeatureComputer(backbone, [tap], options or ComputeOptions())
        transform = backbone.transform
        self._geometry: dict[str, Any] = {
            "size": transform.size, "resize_size": transform.resize_size, "crop_mode": transform.crop_mode,
        }  # fmt: skip
        self.is_square = transform.size[0] == transform.size[1] and self.map_shape[0] == self.map_shape[1]

    def maps_of(self, entries: Sequence[Any], views: Sequence[View]) -> tuple[np.ndarray, np.ndarray, dict[int, str]]:
        """Return maps (n, n_views, h, w, c), sizes (n, 2) and reasons of pictures that cannot be read."""
        features, failures, sizes = self._computer.sized_view_features_of(entries, views)
        return as_maps(features[self._tap.key], self._tap), sizes, failures

    def positions(self, size: np.ndarray, views: Sequence[View]) -> np.ndarray:
        """Return where the places of all views lie on a picture of a size, (n_views·h·w, 2)."""
        width, height = int(size[0]), int(size[1])
        boxes = np.array([view_box(view, (width, height), **self._geometry) for view in views])
        return place_positions(self.map_shape[:2], boxes, (width, height))


def deepest_fine_layer(backbone: Backbone) -> str:
    """Return the deepest stage whose map is fine enough to tell where things are.

    Raises
    ------
    LayerError
        No stage has such a map.
    """
    found = None
    for tap in backbone.select(["all-stages"]).taps:
        try:
            n_rows = map_shape(map_tap(backbone, tap.layer.name))[0]
        except LayerError:
            continue
        if n_rows >= _FEWEST_ROWS:
            found = tap.layer.name
    if found is None:
        raise LayerError(f"no stage of {backbone.name} has a map of {_FEWEST_ROWS} rows or more; name a layer")
    return found


def encoded(
    computer: PlaceComputer, encoder: LocalEncoder, entries: Sequence[ImageEntry], views: Sequence[View]
) -> tuple[np.ndarray, np.ndarray]:
    """Return codes (n, places, d) and sizes (n, 2) of pictures; zeros where one cannot be read."""
    n_places = len(views) * computer.map_shape[0] * computer.map_shape[1]
    codes = np.zeros((len(entries), n_places, encoder.n_bytes), np.uint8)
    all_sizes = np.zeros((len(entries), 2), np.int32)
    for start in range(0, len(entries), IMAGES_AT_ONCE):
        block = entries[start : start + IMAGES_AT_ONCE]
        maps, sizes, failures = computer.maps_of(block, views)
        read = np.array([place for place in range(len(block)) if place not in failures], np.int64)
        if len(read):
            codes[start + read] = encoder.encode(maps[read])
            all_sizes[start + read] = sizes[read]
    return codes, all_sizes


def learned_encoder(computer: PlaceComputer, entries: Sequence[ImageEntry]) -> LocalEncoder:
    """Return an encoder that has learned from whole pictures, of which it takes some.

    Raises
    ------
    StoreError
        None of them can be read.
    """
    order = np.random.default_rng(SEED).permutation(len(entries))[:MOST_LEARNED]

    def blocks() -> Iterator[np.ndarray]:
        for start in range(0, len(order), IMAGES_AT_ONCE):
            maps, _, failures = computer.maps_of([entries[row] for row in order[start : start + IMAGES_AT_ONCE]], WHOLE)
            read = [place for place in range(len(maps)) if place not in failures]
            if read:
                yield maps[read]

    first = next(found := blocks(), None)
    if first is None:
        raise StoreError(
            f"none of {len(order)} original images can be read; places of pictures need them, or a store with their"
            " maps (featx extract --keep-map)"
        )
    return fit_local_encoder(chain([first], found), bits=BITS)
