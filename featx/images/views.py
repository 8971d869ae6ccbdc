"""Several views of one picture at the network's size: crops, scales and mirror images, for answers that are averaged.

The network's own view, the centre, is what `resize_and_crop` makes of the picture, bit for bit, and a mirrored view is
the exact mirror image of its pixels. Every other view is cut from the picture itself with Pillow's ``resize(box=…)``,
so a closer view shows more detail and is no enlargement of the network's pixels.

Places are counted on the canvas: the whole picture as it is resized before the crop, with the border that the crop
mode adds around it. Corner views are those of torchvision's ``five_crop`` of that canvas at the network's size. Where
the network crops nothing off (timm's ``crop_pct`` 1.0), and corners would show what the centre shows, they are crops
of 0.875 of its side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from featx.errors import UsageError
from featx.images.geometry import FILTER_REACH, check_geometry, pillow_filter, resize_and_crop, resized_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image

_CLOSER = 0.875  # of the side of the network's own view
_WIDER = 1 / _CLOSER


@dataclass(frozen=True)
class View:
    """A part of the picture, and whether it is mirrored.

    Parameters
    ----------
    span : float
        Side of the part; 1 is that of the network's own view, less is closer, more is wider (as far as the picture
        goes: in each direction for itself, so that the result can be stretched a little).
    place : (float, float)
        Where it lies from top to bottom and from left to right: 0.5 is the middle, 0 and 1 are the edges.
    mirrored : bool
        Left and right exchanged.
    quarter_turns : int
        By which the result is then turned, counter-clockwise; only networks that take squares can be shown such views.
    """

    span: float = 1.0
    place: tuple[float, float] = (0.5, 0.5)
    mirrored: bool = False
    quarter_turns: int = 0


def _with_mirror_images(views: tuple[View, ...]) -> tuple[View, ...]:
    return (*views, *(replace(view, mirrored=True) for view in views))


_CENTRE = (View(),)
_SCALES = (View(), View(span=_CLOSER), View(span=_WIDER))
_CROPS = (View(), View(place=(0, 0)), View(place=(0, 1)), View(place=(1, 0)), View(place=(1, 1)))

# By their number. The first of each is the network's own view.
VIEWS: dict[int, tuple[View, ...]] = {
    1: _CENTRE,
    2: _with_mirror_images(_CENTRE),
    3: _SCALES,
    5: _CROPS,
    6: _with_mirror_images(_SCALES),
    10: _with_mirror_images(_CROPS),
}
VIEWS_IN_WORDS = {
    1: "the network's own view",
    2: "flip: that view and its mirror image",
    3: "scales: that view, a closer and a wider one",
    5: "crops: that view and the four corners",
    6: "scales and their mirror images",
    10: "crops and their mirror images",
}


def views_of(number: int) -> tuple[View, ...]:
    """Views of an entry of `VIEWS`.

    Parameters
    ----------
    number : int
        How many.

    Raises
    ------
    UsageError
        There is no set of so many views; the message lists those there are.
    """
    if number not in VIEWS:
        offered = "; ".join(f"{key} ({words})" for key, words in VIEWS_IN_WORDS.items())
        raise UsageError(f"{number} views of an image are not among those offered; use {offered}")
    return VIEWS[number]


def view_pixels(
    image: Image.Image,
    views: Sequence[View],
    *,
    size: tuple[int, int],
    resize_size: tuple[int, int],
    crop_mode: str = "center",
    interpolation: str = "bicubic",
    fill: tuple[int, int, int] = (0, 0, 0),
) -> np.ndarray:
    """Pixels of several views of a picture: uint8 of shape (n_views, height, width, 3).

    Parameters
    ----------
    image : PIL.Image.Image
        Mode RGB.
    views : sequence of View
        Which; for the usual ones see `views_of`.
    size, resize_size, crop_mode, interpolation, fill
        Geometry of the network, see `resize_and_crop`.

    Raises
    ------
    UsageError
        As `resize_and_crop` does.

    Notes
    -----
    Corner views are within 2 levels of torchvision's on nearly all pixels, not equal: Pillow keeps a box in single
    precision, and only the network's own view goes to the length that exactness takes.
    """
    check_geometry(image, size, resize_size, crop_mode, interpolation)
    if size[0] != size[1] and any(view.quarter_turns % 2 for view in views):
        raise UsageError(
            f"views turned by 90° were asked for at {size[0]} x {size[1]} pixels; only squares can be turned"
        )
    made: dict[View, np.ndarray] = {}
    pixels = np.empty((len(views), *size, 3), np.uint8)
    for row, view in zip(pixels, views, strict=True):
        upright = replace(view, mirrored=False, quarter_turns=0)
        if upright == View():
            made[upright] = resize_and_crop(
                image,
                size=size,
                resize_size=resize_size,
                crop_mode=crop_mode,
                interpolation=interpolation,
                fill=fill,
            )
        elif upright not in made:
            border = fill if crop_mode == "border" else (0, 0, 0)
            made[upright] = _cut_out(image, upright, size, resize_size, crop_mode, interpolation, border)
        row[...] = np.rot90(made[upright][:, ::-1] if view.mirrored else made[upright], view.quarter_turns)
    return pixels


def view_box(
    view: View,
    picture_size: tuple[int, int],
    *,
    size: tuple[int, int],
    resize_size: tuple[int, int],
    crop_mode: str = "center",
) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of what a view shows, as shares of the picture's width and height.

    Shares below 0 and above 1 are border. Of a mirrored or turned view it is the box of the view before that.

    Parameters
    ----------
    view : View
        Which.
    picture_size : (int, int)
        Width and height of the picture.
    size, resize_size, crop_mode
        Geometry of the network, see `resize_and_crop`.
    """
    edges = []
    for extent, n_source, n_crop in zip(
        _extents(picture_size, view, size, resize_size, crop_mode), picture_size[::-1], size, strict=True
    ):
        (start, stop), (first, last) = extent.source, extent.target
        per_pixel = (stop - start) / (last - first)
        edges.append(((start - first * per_pixel) / n_source, (stop + (n_crop - last) * per_pixel) / n_source))
    (top, bottom), (left, right) = edges
    return left, top, right, bottom


@dataclass(frozen=True)
class _Extent:
    """What a view shows along one axis."""

    source: tuple[float, float]  # of the picture, in its pixels
    target: tuple[int, int]  # where that goes, in pixels of the result; the rest is border


def _cut_out(
    image: Image.Image,
    view: View,
    size: tuple[int, int],
    resize_size: tuple[int, int],
    crop_mode: str,
    interpolation: str,
    border: tuple[int, int, int],
) -> np.ndarray:
    """Pixels (height, width, 3) of a view other than the network's own."""
    resized = resized_size(image.size, resize_size, crop_mode)
    rows, columns = _extents(image.size, view, size, resize_size, crop_mode)
    # The order of the passes is that of the network's own view, see `featx.images.geometry`.
    vertical_first = image.height - resized[1] > 2 * max(0, image.width - resized[0])
    part = np.asarray(_resize_part(image, rows, columns, interpolation, vertical_first))
    pixels = np.empty((*size, 3), np.uint8)
    if part.shape != pixels.shape:
        pixels[...] = np.array(border, np.uint8)
    pixels[slice(*rows.target), slice(*columns.target)] = part
    return pixels


def _extents(
    picture_size: tuple[int, int], view: View, size: tuple[int, int], resize_size: tuple[int, int], crop_mode: str
) -> tuple[_Extent, _Extent]:
    """What a view shows from top to bottom, and from left to right."""
    resized = resized_size(picture_size, resize_size, crop_mode)
    has_room = resize_size[0] > size[0] and resize_size[1] > size[1]
    if view.place != (0.5, 0.5) and not has_room:
        view = replace(view, span=view.span * _CLOSER)
    rows = _extent(picture_size[1], resized[1], size[0], view.span, view.place[0])
    return rows, _extent(picture_size[0], resized[0], size[1], view.span, view.place[1])


def _extent(n_source: int, n_resized: int, n_crop: int, span: float, place: float) -> _Extent:
    """What a view shows along an axis of `n_source` pixels, of whose canvas the network takes the middle `n_crop`."""
    n_canvas = max(n_resized, n_crop)
    length = min(span * n_crop, n_canvas)
    if place == 0.5:  # around the middle of the network's view, which is half a pixel off that of an odd canvas
        start = min(max(round((n_canvas - n_crop) / 2) + (n_crop - length) / 2, 0), n_canvas - length)
    else:
        start = place * (n_canvas - length)
    start -= max(0, (n_crop - n_resized) // 2)  # from here on counted from the edge of the resized picture
    low, high = max(start, 0.0), min(start + length, float(n_resized))
    per_pixel = n_crop / length
    first = min(round((low - start) * per_pixel), n_crop - 1)
    last = max(round((high - start) * per_pixel), first + 1)
    scale = n_source / n_resized
    return _Extent((low * scale, min(high * scale, n_source)), (first, last))


def _resize_part(
    image: Image.Image, rows: _Extent, columns: _Extent, interpolation: str, vertical_first: bool
) -> Image.Image:
    """Part of the picture at its size in the result, in two one-axis passes over the pixels that the filter reaches."""
    (left, right), (top, bottom) = (
        _reached(columns, image.width, interpolation),
        _reached(rows, image.height, interpolation),
    )
    image = image.crop((left, top, right, bottom))
    width, height = columns.target[1] - columns.target[0], rows.target[1] - rows.target[0]
    across, down = (
        (columns.source[0] - left, columns.source[1] - left),
        (rows.source[0] - top, rows.source[1] - top),
    )
    kernel = pillow_filter(interpolation)
    if vertical_first:
        image = image.resize((image.width, height), kernel, box=(0, down[0], image.width, down[1]))
        return image.resize((width, height), kernel, box=(across[0], 0, across[1], height))
    image = image.resize((width, image.height), kernel, box=(across[0], 0, across[1], image.height))
    return image.resize((width, height), kernel, box=(0, down[0], width, down[1]))


def _reached(extent: _Extent, n_source: int, interpolation: str) -> tuple[int, int]:
    """Range of the picture's pixels that the filter needs for an extent, one more on each side against rounding."""
    (start, stop), (first, last) = extent.source, extent.target
    reach = FILTER_REACH[interpolation] * max((stop - start) / (last - first), 1.0) + 1
    return max(0, math.floor(start - reach)), min(n_source, math.ceil(stop + reach))
