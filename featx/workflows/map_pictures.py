"""The activation maps of layers for one image, as a picture: what early and late layers see in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from featx.errors import ImageError, UsageError
from featx.extraction import as_maps, map_shape
from featx.images import resize_and_crop
from featx.workflows.one_step_files import draft_of
from featx.workflows.result_grids import shortened_text
from featx.workflows.result_pages import visible_text

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

    from featx.backbones import Tap, TransformSpec
    from featx.extraction import FeatureComputer
    from featx.images import ImageEntry

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".pdf")
DEFAULT_CHANNELS = 64

# Maps of 112, 56, 28, 14 and 7 places a side are enlarged by whole numbers.
_TILE, _GAP, _MARGIN = 112, 6, 20
_COLUMNS = 13  # 64 maps and the input fill five lines
_LEAST_COLUMNS = 8  # the title needs the room
_TEXT, _TITLE, _SMALL = 15, 21, 11  # heights in pixels
_PAPER, _INK, _SOFT, _FLAT = "#ffffff", "#14171c", "#59616d", "#d9dce1"
_OUTER = (0.5, 99.5)  # percentiles that get the darkest and the brightest colour
_MAX_PIXELS, _MAX_SIDE = 64_000_000, 16_000  # 192 MB while it is drawn; WebP ends at 16,383
_SCALE = ("Each map is scaled by itself, from its lowest value", "to its highest.")  # the colours stand between them
_ORDER = "Those that vary most over the picture come first; # is the channel's number, grey the same value everywhere."


@dataclass(frozen=True)
class ShownMaps:
    """What of one layer is in a picture.

    Parameters
    ----------
    layer : str
        Its name.
    shape : (int, int, int)
        Rows, columns and channels of its map.
    depth : float
        Its part of the network's work, 0..1.
    channels : tuple of int
        The channels that are shown, in their order.
    """

    layer: str
    shape: tuple[int, int, int]
    depth: float
    channels: tuple[int, ...]

    def __str__(self) -> str:
        n_rows, n_columns, n_channels = self.shape
        shown = "all" if len(self.channels) == n_channels else f"the {len(self.channels)} that vary most"
        return f"{n_rows} x {n_columns} places, {n_channels} channels ({shown}), after {self.depth:.0%} of the work"


def write_map_picture(
    path: str | Path,
    image: ImageEntry,
    computer: FeatureComputer,
    *,
    n_channels: int = DEFAULT_CHANNELS,
    overwrite: bool = False,
) -> tuple[ShownMaps, ...]:
    """Draw the maps of one image, a block of lines a layer, each beginning with the image as the network sees it.

    Parameters
    ----------
    path : str or Path
        Ends in .png, .jpg, .jpeg, .webp or .pdf; its folder must exist.
    image : ImageEntry
        What is looked at.
    computer : FeatureComputer
        A network with the taps of `select_maps`.
    n_channels : int
        Maps of each layer at the most.
    overwrite : bool
        Replace a file that is already there.

    Returns
    -------
    tuple of ShownMaps
        One a layer, in the order in which the network computes them.

    Raises
    ------
    UsageError
        Another ending, no channel, or more maps than a picture has room for.
    ImageError
        The image cannot be read.
    WouldOverwriteError
        There is a file already, and `overwrite` is false.
    StoreError
        It cannot be written.

    Notes
    -----
    Each map has a scale of its own: patterns can be compared, strengths cannot. Its outermost half percents take the
    end colours, so that one extreme place does not hide the others.
    """
    path = Path(path)
    check_picture_name(path)
    if n_channels < 1:
        raise UsageError(f"{n_channels} channels were asked for; needed is at least 1, such as {DEFAULT_CHANNELS}")
    n_maps = [min(n_channels, map_shape(tap)[2]) for tap in computer.taps]
    sheet = _Sheet(n_maps)
    backbone = computer.backbone
    seen = _as_seen(image, backbone.transform)
    features, failures = computer.features_of([image])
    if failures:
        raise ImageError(f"{image.path}: {failures[0]}")
    with draft_of(path, overwrite=overwrite) as draft:
        untrained = ", untrained weights" if backbone.weights.is_random else ""
        sheet.write_heading(f"{backbone.name}{untrained}: {Path(image.path).name}")
        drawn = [
            sheet.draw_block(seen, tap, as_maps(features[tap.key], tap)[0], n)
            for tap, n in zip(computer.taps, n_maps, strict=True)
        ]
        options: dict[str, Any] = {"resolution": 150.0} if path.suffix.lower() == ".pdf" else {}
        sheet.canvas.save(draft, quality=92, **options)  # PNG has none, and passes over it
    return tuple(drawn)


def check_picture_name(path: str | Path) -> None:
    """Raise `UsageError` where a picture of maps cannot be written under a name."""
    if Path(path).suffix.lower() not in SUFFIXES:
        raise UsageError(f"a picture {Path(path).name!r} was asked for; allowed endings are {', '.join(SUFFIXES)}")


def read_picture(image: ImageEntry) -> Image.Image:
    """Return a decoded image.

    Raises
    ------
    ImageError
        It cannot be read; the message names it.
    """
    try:
        return image.read().decode()
    except ImageError as error:
        raise ImageError(f"{image.path}: {error}") from error


def channels_by_spread(maps: np.ndarray) -> np.ndarray:
    """Return the channels of a map, those that vary most over its places first.

    Parameters
    ----------
    maps : ndarray of shape (h, w, c)
        Map of one layer.

    Returns
    -------
    ndarray of shape (c,)
        Numbers of channels by falling standard deviation over the places; equal ones by their number.
    """
    with np.errstate(invalid="ignore"):  # what is no number has no spread, and comes last
        return np.argsort(-maps.std(axis=(0, 1), dtype=np.float64), kind="stable")


def scaled_map(values: np.ndarray) -> np.ndarray | None:
    """Return one channel of a map between 0 and 1, its outermost half percents cut off.

    Parameters
    ----------
    values : ndarray of shape (h, w)
        Of any range.

    Returns
    -------
    ndarray of shape (h, w) or None
        None where nothing varies, or not all are numbers.
    """
    if not np.isfinite(values).all():
        return None
    low, high = np.percentile(values, _OUTER)
    if not low < high:  # a few places differ from all others
        low, high = values.min(), values.max()
    return np.clip((values - low) / (high - low), 0, 1) if low < high else None


def _as_seen(image: ImageEntry, transform: TransformSpec) -> Image.Image:
    """Return the pixels that the network takes."""
    return Image.fromarray(resize_and_crop(read_picture(image), **transform.geometry))


class _Sheet:
    """A canvas with room for the blocks of several layers, drawn one under the other."""

    def __init__(self, n_maps: Sequence[int]) -> None:
        self._columns = max(_LEAST_COLUMNS, min(_COLUMNS, max(n_maps) + 1))
        heights = [self._block_height(n) for n in n_maps]
        width = 2 * _MARGIN + self._columns * (_TILE + _GAP) - _GAP
        height = 2 * _MARGIN + self._heading_height() + sum(heights)
        if width * height > _MAX_PIXELS or height > _MAX_SIDE:
            raise UsageError(
                f"{sum(n_maps)} maps of {len(n_maps)} layers do not fit into one picture ({width} x {height} pixels);"
                " name fewer layers, or give fewer --channels"
            )
        self.canvas = Image.new("RGB", (width, height), _PAPER)
        self._pen = ImageDraw.Draw(self.canvas)
        self._top = _MARGIN
        self._colours = _colours()

    def _heading_height(self) -> int:
        return 2 * _TITLE + 2 * (_TEXT + _GAP) + _GAP

    def _block_height(self, n_maps: int) -> int:
        n_lines = -(-(n_maps + 1) // self._columns)
        return 2 * _TITLE + n_lines * (_TILE + _SMALL + 2 * _GAP) + 2 * _GAP

    def write_heading(self, title: str) -> None:
        """Write what the picture is, and how to read it."""
        self._write(_MARGIN, self._top, title, _TITLE, _INK)
        top = self._top + _TITLE + 2 * _GAP
        left = _MARGIN + self._write(_MARGIN, top, _SCALE[0], _TEXT, _SOFT) + _GAP
        bar = np.repeat(self._colours[None, ::2], _TEXT - 4, axis=0)
        self.canvas.paste(Image.fromarray(bar), (left, top + 4))
        self._write(left + bar.shape[1] + _GAP, top, _SCALE[1], _TEXT, _SOFT)
        self._write(_MARGIN, top + _TEXT + _GAP, _ORDER, _TEXT, _SOFT)
        self._top += self._heading_height()

    def draw_block(self, seen: Image.Image, tap: Tap, maps: np.ndarray, n_maps: int) -> ShownMaps:
        """Draw maps of one layer under what is there, and return what was drawn."""
        channels = tuple(channels_by_spread(maps)[:n_maps].tolist())
        shown = ShownMaps(tap.layer.name, map_shape(tap), tap.layer.depth, channels)
        name_width = self._write(_MARGIN, self._top, shown.layer, _TITLE, _INK)
        self._write(_MARGIN + name_width + 12, self._top + _TITLE - _TEXT, str(shown), _TEXT, _SOFT)
        top = self._top + _TITLE + 2 * _GAP
        self._place(0, top, seen.resize(_fitting(seen.size), Image.Resampling.LANCZOS), "input")
        for place, channel in enumerate(shown.channels, start=1):
            self._place(place, top, self._tile(maps[:, :, channel]), f"#{channel}")
        self._top += self._block_height(len(shown.channels))
        return shown

    def _place(self, number: int, top: int, tile: Image.Image, caption: str) -> None:
        line, column = divmod(number, self._columns)
        left = _MARGIN + column * (_TILE + _GAP)
        top += line * (_TILE + _SMALL + 2 * _GAP)
        self.canvas.paste(tile, (left + (_TILE - tile.width) // 2, top + (_TILE - tile.height) // 2))
        self._pen.text((left, top + _TILE + 2), caption, fill=_SOFT, font=_font(_SMALL))

    def _tile(self, values: np.ndarray) -> Image.Image:
        size = _fitting((values.shape[1], values.shape[0]))
        scaled = scaled_map(values)
        if scaled is None:
            return Image.new("RGB", size, _FLAT)
        small = Image.fromarray(self._colours[np.round(255 * scaled).astype(np.uint8)])
        # Enlarged places keep their edges: they show how coarse the layer sees.
        enlarged = size[0] >= small.width
        return small.resize(size, Image.Resampling.NEAREST if enlarged else Image.Resampling.BOX)

    def _write(self, left: int, top: int, text: str, height: int, colour: str) -> int:
        """Write as much of a line as there is room for, and return its width."""
        font = _font(height)
        text = shortened_text(visible_text(text), font, self.canvas.width - _MARGIN - left)
        self._pen.text((left, top), text, fill=colour, font=font)
        return round(font.getlength(text))


def _fitting(size: tuple[int, int]) -> tuple[int, int]:
    """Return width and height of a picture that fills a tile in its own proportions."""
    scale = _TILE / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _font(height: int) -> FreeTypeFont:
    return ImageFont.load_default(height)  # type: ignore[return-value]


def _colours() -> np.ndarray:
    """Return 256 colours of even steps in lightness, dark to bright, (256, 3) uint8."""
    from matplotlib import colormaps

    return np.round(255 * colormaps["viridis"](np.arange(256))[:, :3]).astype(np.uint8)
