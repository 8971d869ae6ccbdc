"""Resize and crop, equal to timm's evaluation transform, at three quarters of its cost.

timm resizes the whole picture and then throws away what the crop does not keep. Here only the crop is computed, in two
one-axis passes over just the pixels that its filter reaches. Two things decide about equality:

- *Order of the passes.* Values are rounded between them, so the order shows (up to 24 levels). Pillow 13 goes
  vertically first where the height shrinks by more than twice as many pixels as the width, else horizontally first;
  earlier versions always went horizontally first. The rule of Pillow 13 is applied here whichever version is
  installed, so features do not depend on it.
- *Pillow keeps a box in single precision.* A box that ends at 341.3333 is moved a little, with it every filter weight,
  and values that lay half way between two levels fall to the other side. So the range that is resized is widened to the
  next places where source and result meet in a number that single precision holds, and the surplus is cut off again.
  For sides that are a power of two, such as 256, that is every place; for others often the whole side.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from featx.errors import UsageError

CROP_MODES = ("center", "squash", "border")
INTERPOLATIONS = ("bicubic", "bilinear", "nearest", "lanczos", "hamming", "box")

# Reach of each filter, in pixels of the coarser grid.
FILTER_REACH = {"bicubic": 2.0, "bilinear": 1.0, "lanczos": 3.0, "hamming": 1.0, "box": 0.5, "nearest": 0.0}
# These filters jump at their edge: the least rounding takes another pixel. They need the whole picture to be exact.
_JUMPING = ("box", "nearest")
_LARGEST_WHOLE_SIDE = 16384


@dataclass(frozen=True)
class _AxisPlan:
    """What to do along one axis, all in pixels; ranges are (start, stop)."""

    needed: tuple[int, int]  # range of the picture that the wanted pixels are made of
    spanned: tuple[int, int]  # the same or more: what the box below reaches over; beyond `needed` it may hold anything
    box: tuple[float, float]  # the part that is resized, counted from the start of `spanned`
    n_computed: int  # pixels that `box` is resized to
    kept: tuple[int, int]  # the part of them that is wanted
    n_before: int  # padding in front of it
    is_resized: bool


def resize_and_crop(
    image: Image.Image,
    *,
    size: tuple[int, int],
    resize_size: tuple[int, int],
    crop_mode: str = "center",
    interpolation: str = "bicubic",
    fill: tuple[int, int, int] = (0, 0, 0),
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Pixels of the network's input: uint8 of shape (height, width, 3), equal to timm's evaluation transform.

    Parameters
    ----------
    image : PIL.Image.Image
        Mode RGB.
    size : (int, int)
        Height and width of the result.
    resize_size : (int, int)
        Height and width that the picture is resized towards before the crop: timm's
        ``floor(size / crop_pct)``.
    crop_mode : str
        ``center``: the aspect ratio is kept and the short side fits, what is too long is cut off. ``squash``: resized
        to exactly `resize_size`. ``border``: the aspect ratio is kept and the long side fits, the rest is `fill`.
    interpolation : str
        ``bicubic``, ``bilinear``, ``nearest``, ``lanczos``, ``hamming`` or ``box``.
    fill : (int, int, int)
        Colour of the border in mode ``border``; in the other modes what is missing is black.
    out : numpy.ndarray, optional
        uint8 of shape (height, width, 3) to write into, for example one row of a batch.

    Raises
    ------
    UsageError
        For an unknown crop mode or interpolation, a size below 1, or an image of another mode.

    Notes
    -----
    In tests every pixel equals timm 1.0.31's, in all modes and interpolations. ``box`` and ``nearest`` cost what the
    whole picture costs; the others about 1.3 ms for 500×375 pixels to 224×224. Where timm fails because a side of a
    very thin picture would be rounded to 0, it becomes 1 here.
    """
    check_geometry(image, size, resize_size, crop_mode, interpolation)
    resized = resized_size(image.size, resize_size, crop_mode)
    if interpolation in _JUMPING and max(resized) <= _LARGEST_WHOLE_SIDE:
        image, interpolation = image.resize(resized, pillow_filter(interpolation)), "nearest"
    rows = _plan_axis(image.height, resized[1], size[0], FILTER_REACH[interpolation])
    columns = _plan_axis(image.width, resized[0], size[1], FILTER_REACH[interpolation])
    vertical_first = image.height - resized[1] > 2 * max(0, image.width - resized[0])
    if vertical_first:
        image = _cut(image, columns.needed, rows.spanned)
        image = _cut(_resize_rows(image, rows, interpolation), _within(columns), rows.kept)
        image = _cut(_resize_columns(image, columns, interpolation), columns.kept, (0, image.height))
    else:
        image = _cut(image, columns.spanned, rows.needed)
        image = _cut(_resize_columns(image, columns, interpolation), columns.kept, _within(rows))
        image = _cut(_resize_rows(image, rows, interpolation), (0, image.width), rows.kept)
    return _place(np.asarray(image), rows, columns, size, fill if crop_mode == "border" else (0, 0, 0), out)


def check_geometry(
    image: Image.Image, size: tuple[int, int], resize_size: tuple[int, int], crop_mode: str, interpolation: str
) -> None:
    """Raise a UsageError for what `resize_and_crop` does not take."""
    if image.mode != "RGB":
        raise UsageError(f"image has mode {image.mode}; only RGB can be resized here: decode or convert it first")
    if crop_mode not in CROP_MODES:
        raise UsageError(f"crop_mode {crop_mode!r} is unknown; use one of {', '.join(CROP_MODES)}")
    if interpolation not in INTERPOLATIONS:
        raise UsageError(f"interpolation {interpolation!r} is unknown; use one of {', '.join(INTERPOLATIONS)}")
    if min(*size, *resize_size) < 1:
        raise UsageError(f"size {size} and resize_size {resize_size} must be at least 1: give (height, width)")


def resized_size(source: tuple[int, int], target: tuple[int, int], crop_mode: str) -> tuple[int, int]:
    """Width and height of the whole picture after timm's resize; `source` is (width, height), `target` the reverse."""
    width, height = source
    target_height, target_width = target
    if crop_mode == "squash":
        return target_width, target_height
    if crop_mode == "center" and target_height == target_width:  # torchvision's Resize: the long side rounds down
        if width <= height:
            return target_width, int(target_width * height / width)
        return int(target_height * width / height), target_height
    ratios = (height / target_height, width / target_width)  # timm's ResizeKeepRatio
    ratio = max(ratios) if crop_mode == "border" else min(ratios)
    return max(1, round(width / ratio)), max(1, round(height / ratio))


@functools.lru_cache(maxsize=4096)
def _plan_axis(n_source: int, n_resized: int, n_crop: int, support: float) -> _AxisPlan:
    """Plan for one axis: the centered `n_crop` of the `n_resized` pixels that `n_source` pixels are resized to."""
    n_before = max(0, (n_crop - n_resized) // 2)
    n_kept = min(n_crop, n_resized)
    start = max(0, round((n_resized - n_crop) / 2.0))
    if n_resized == n_source:
        both = (start, start + n_kept)
        return _AxisPlan(both, both, (0.0, n_kept), n_kept, (0, n_kept), n_before, False)
    scale = n_source / n_resized
    reach = support * max(scale, 1.0) + 1  # one more than the filter needs, against rounding
    first = max(0, math.floor(start * scale - reach))
    last = min(n_source, math.ceil((start + n_kept) * scale + reach))
    low, high = _widen(start, start + n_kept, n_source, n_resized)
    box_start, box_stop = low * n_source / n_resized, high * n_source / n_resized
    spanned = (min(first, math.floor(box_start)), min(n_source, max(last, math.ceil(box_stop))))
    box = (box_start - spanned[0], min(box_stop, spanned[1]) - spanned[0])
    kept = (start - low, start - low + n_kept)
    return _AxisPlan((first, last), spanned, box, high - low, kept, n_before, True)


def _widen(start: int, stop: int, n_source: int, n_resized: int) -> tuple[int, int]:
    """The range of result pixels, widened until both ends lie at dyadic fractions of source pixels."""
    step = n_resized // math.gcd(n_source, n_resized)
    step //= step & -step  # halves, quarters, … are exact in any precision: only the odd part counts
    low, high = start // step * step, min(n_resized, -(-stop // step) * step)
    # On a picture thousands of times longer than wide, memory counts more than the last level.
    return (low, high) if high - low <= _LARGEST_WHOLE_SIDE else (start, stop)


def pillow_filter(interpolation: str) -> Image.Resampling:
    """Return Pillow's name of an interpolation."""
    return Image.Resampling[interpolation.upper()]


def _resize_columns(image: Image.Image, plan: _AxisPlan, interpolation: str) -> Image.Image:
    if not plan.is_resized:
        return image
    box = (plan.box[0], 0, plan.box[1], image.height)
    return image.resize((plan.n_computed, image.height), pillow_filter(interpolation), box=box)


def _resize_rows(image: Image.Image, plan: _AxisPlan, interpolation: str) -> Image.Image:
    if not plan.is_resized:
        return image
    box = (0, plan.box[0], image.width, plan.box[1])
    return image.resize((image.width, plan.n_computed), pillow_filter(interpolation), box=box)


def _within(plan: _AxisPlan) -> tuple[int, int]:
    """The spanned range, counted from the start of the needed one: its start is 0 or negative."""
    return plan.spanned[0] - plan.needed[0], plan.spanned[1] - plan.needed[0]


def _cut(image: Image.Image, columns: tuple[int, int], rows: tuple[int, int]) -> Image.Image:
    """Part of the image, black where it reaches over; the image itself, uncopied, if it is just that."""
    box = (columns[0], rows[0], columns[1], rows[1])
    return image if box == (0, 0, *image.size) else image.crop(box)


def _place(
    pixels: np.ndarray,
    rows: _AxisPlan,
    columns: _AxisPlan,
    size: tuple[int, int],
    fill: tuple[int, int, int],
    out: np.ndarray | None,
) -> np.ndarray:
    """The pixels, in `out` if given, with padding around them where the picture is smaller than the crop."""
    if out is None:
        out = np.empty((*size, 3), dtype=np.uint8)
    n_rows, n_columns, _ = pixels.shape
    if pixels.shape != out.shape:
        out[...] = np.array(fill, dtype=np.uint8)
    out[rows.n_before : rows.n_before + n_rows, columns.n_before : columns.n_before + n_columns] = pixels
    return out
