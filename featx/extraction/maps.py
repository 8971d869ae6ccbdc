"""Spatial maps: which tap gives one, and how its rows become places with channels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from featx.errors import LayerError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from featx.backbones import Backbone, LayerInfo, Selection, Tap

_POOL = "flatten"
_N_NAMED = 6  # layers that a message names


def map_tap(backbone: Backbone, layer: str) -> Tap:
    """Return the tap that gives the spatial map of a layer, as rows for `as_maps`.

    Parameters
    ----------
    backbone : Backbone
        The network.
    layer : str
        One layer: its name, or ``early``, ``middle``, ``late``, ``P%``.

    Raises
    ------
    LayerError
        There is no such layer, it has no spatial map, or several are named.
    """
    taps = select_maps(backbone, [layer]).taps
    if len(taps) > 1:
        raise LayerError(f"{layer!r} names {len(taps)} layers ({', '.join(_names(taps))}); name one")
    return taps[0]


def select_maps(backbone: Backbone, layers: str | Sequence[str]) -> Selection:
    """Return the taps that give the spatial maps of several layers, and the names that the user had for them.

    Parameters
    ----------
    backbone : Backbone
        The network.
    layers : str or sequence of str
        As in `Backbone.select`, without poolings.

    Raises
    ------
    LayerError
        There is no such layer, it has no spatial map, or a pooling is named.
    """
    items = layers.split(",") if isinstance(layers, str) else list(layers)
    pooled = next((item for item in items if "@" in item), None)
    if pooled is not None:
        raise LayerError(f"map {pooled!r}: a map is kept as it is, without a pooling; write {pooled.partition('@')[0]}")
    selection = backbone.select(items, _POOL)
    for tap in selection.taps:
        if not _has_map(tap.layer):
            raise LayerError(f"layer {tap.layer.name!r} {_what_it_is(tap.layer)}, no spatial map{_advice(backbone)}")
    return selection


def map_shape(tap: Tap) -> tuple[int, int, int]:
    """Return rows, columns and channels of the map that a tap of `map_tap` gives.

    Raises
    ------
    LayerError
        The tap is another one.
    """
    layer = tap.layer
    if tap.pool != _POOL or not _has_map(layer):
        raise LayerError(f"{tap.key} does not give a map; make its tap with map_tap(backbone, {layer.name!r})")
    if layer.layout.grid is not None:
        return (*layer.layout.grid, layer.shape[-1])
    if layer.layout.kind == "nhwc":
        n_rows, n_columns, n_channels = layer.shape
    else:
        n_channels, n_rows, n_columns = layer.shape
    return n_rows, n_columns, n_channels


def as_maps(rows: np.ndarray, tap: Tap) -> np.ndarray:
    """Return what a tap gave as maps.

    Parameters
    ----------
    rows : ndarray of shape (..., width)
        What `FeatureComputer.features_of` or `view_features_of` gives for the tap: (n, width), (n, n_views, width).
    tap : Tap
        From `map_tap`.

    Returns
    -------
    ndarray of shape (..., h, w, c), float32
        A copy.

    Raises
    ------
    LayerError
        The tap does not give a map, or the rows are not its.
    """
    n_rows, n_columns, n_channels = map_shape(tap)
    if rows.shape[-1] != tap.width:
        raise LayerError(f"rows of {rows.shape[-1]} values are not of {tap.key}, which gives {tap.width}; give its own")
    channels_first = rows.reshape(*rows.shape[:-1], n_channels, n_rows, n_columns)
    return np.ascontiguousarray(np.moveaxis(channels_first, -3, -1), np.float32)


def _has_map(layer: LayerInfo) -> bool:
    return layer.layout.kind in ("nchw", "nhwc") or (layer.layout.kind == "tokens" and layer.layout.grid is not None)


def _what_it_is(layer: LayerInfo) -> str:
    if layer.layout.kind == "vector":
        return f"gives a vector of {layer.shape[0]} numbers"
    return f"gives {layer.shape[0]} tokens that form no grid"


def _advice(backbone: Backbone) -> str:
    """Return the layers that have one, among those that a user would name first."""
    stages = [tap.layer for tap in _stages(backbone)] or list(backbone.layers.values())
    names = [layer.name for layer in stages if not layer.problem and _has_map(layer)]
    if not names:
        return "; this network has none: keep features instead"
    shown = ", ".join(names[:_N_NAMED]) + (", …" if len(names) > _N_NAMED else "")
    return f"; layers that have one: {shown}"


def _stages(backbone: Backbone) -> Sequence[Tap]:
    try:
        return backbone.select("all-stages").taps
    except LayerError:  # the network has no stages
        return ()


def _names(taps: Sequence[Tap]) -> list[str]:
    return [tap.layer.name for tap in taps]
