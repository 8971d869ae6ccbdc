"""A classifier whose every answer can be computed by hand: the mean colour of a view, over the fake network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from fake_backbone import FAKE_TRANSFORM, FakeNetwork
from PIL import Image

from featx.backbones import open_backbone
from featx.bundle import Bundle
from featx.extraction import ComputeOptions, FeatureComputer, FeatureSpec
from featx.images import view_pixels, views_of

NAMES = ("blue", "green", "red")
# The fake network sees 8 of 10 pixels, so that there is room for views.
ROOMY = replace(FAKE_TRANSFORM, resize_size=(10, 10))
_ADDED = 1.0  # by stages.4 to every channel; channels 4 to 6 are B, G, R


@dataclass(frozen=True)
class ColourBundle(Bundle):
    """Gives each of blue, green and red the share that it has in the mean colour of what the network sees."""

    computed: list[FeatureComputer] = field(default_factory=list)

    def predict_proba(self, features: np.ndarray) -> np.ndarray:
        """Return shares of blue, green and red."""
        colours = features[:, 4:7].astype(np.float64) - _ADDED
        return colours / colours.sum(axis=1, keepdims=True)

    def open_features(self, options: ComputeOptions | None = None, **_: Any) -> FeatureComputer:
        """Return a computer over the fake network."""
        backbone = open_backbone(FakeNetwork(), transform=ROOMY)
        taps = backbone.select("penultimate").taps
        self.computed.append(FeatureComputer(backbone, taps, replace(options or ComputeOptions(), engine="torch")))
        return self.computed[-1]


def colour_bundle(names: tuple[str, ...] = NAMES, card: Mapping[str, Any] | None = None) -> ColourBundle:
    """Return such a classifier, with these names for its three classes."""
    return ColourBundle(FeatureSpec("penultimate@avg", 8, {}), None, names, card or {})


def colours_by_hand(picture: Path, n_views: int) -> np.ndarray:
    """Return the shares (n_views, 3) of blue, green and red in the views of a picture, with numpy alone."""
    with Image.open(picture) as opened:
        pixels = view_pixels(
            opened.convert("RGB"),
            views_of(n_views),
            size=ROOMY.size,
            resize_size=ROOMY.resize_size,
            interpolation=ROOMY.interpolation,
        )
    colours = pixels.astype(np.float64).mean((1, 2))[:, ::-1]
    return colours / colours.sum(axis=1, keepdims=True)


Colour = tuple[int, int, int]


def write_halves(path: Path, left: Colour, right: Colour, share: float = 0.5, frame: Colour | None = None) -> Path:
    """Write a picture of 40 x 40 pixels whose left part, of that share, has one colour and the rest another.

    A frame, of 4 pixels, is just what the network's own view does not show.
    """
    pixels = np.empty((40, 40, 3), np.uint8)
    pixels[:] = right
    pixels[:, : round(40 * share)] = left
    if frame is not None:
        inside = pixels[4:36, 4:36].copy()
        pixels[:] = frame
        pixels[4:36, 4:36] = inside
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path
