"""A picture of queries and their neighbours, one line a query, for a report or a message."""

from __future__ import annotations

import bisect
import io
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont, UnidentifiedImageError

from featx.errors import UsageError
from featx.workflows.one_step_files import draft_of
from featx.workflows.result_pages import PagePicture, PageRow, visible_text

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

MAX_QUERIES = 50
MAX_HITS = 100
SUFFIXES = (".png", ".jpg", ".jpeg")

_SIZES = (48, 512)
_MAX_PIXELS = 64_000_000  # of the whole picture: 192 MB while it is drawn
_MARGIN, _GAP = 16, 10
_PAPER, _INK, _SOFT, _WELL, _SAME, _SAME_INK = (
    "#ffffff", "#14171c", "#59616d", "#eceef2", "#43a77b", "#11734a",
)  # fmt: skip


def write_results_grid(path: str | Path, rows: Iterable[PageRow], *, size: int = 160, overwrite: bool = False) -> int:
    """Write a contact sheet: each query, then its neighbours with score and label; those of its label are framed.

    Parameters
    ----------
    path : str or Path
        Ends in .png, .jpg or .jpeg; its folder must exist.
    rows : iterable of PageRow
        The first 50 are drawn, or fewer where the picture would have more than 64 million pixels, and the first 100
        neighbours of each. All are taken, since the rest is counted.
    size : int
        Longest side of each small picture in pixels, from 48 to 512.
    overwrite : bool
        Replace a file that is already there.

    Returns
    -------
    int
        Queries that were left out.

    Raises
    ------
    UsageError
        Another ending or size, or no rows.
    WouldOverwriteError
        There is a file already, and `overwrite` is false.
    StoreError
        It cannot be written.
    """
    check_grid_name(path)
    if not _SIZES[0] <= size <= _SIZES[1]:
        raise UsageError(f"a grid of pictures of {size} pixels was asked for; allowed are {_SIZES[0]} to {_SIZES[1]}.")
    with draft_of(path, overwrite=overwrite) as draft:
        remaining = iter(rows)
        drawn = list(itertools.islice(remaining, MAX_QUERIES))
        if not drawn:
            raise UsageError("there is no query to draw; give at least one.")
        sheet = _Sheet(drawn, size)
        sheet.draw().save(draft, quality=88)  # PNG has none, and passes over it
        return len(drawn) - sheet.n_lines + sum(1 for _ in remaining)


def check_grid_name(path: str | Path) -> None:
    """Raise `UsageError` where a contact sheet cannot be written under a name."""
    if Path(path).suffix.lower() not in SUFFIXES:
        raise UsageError(f"a grid {Path(path).name!r} was asked for; allowed endings are {', '.join(SUFFIXES)}.")


class _Sheet:
    """Where things lie on one contact sheet, and the drawing of them."""

    def __init__(self, rows: list[PageRow], size: int) -> None:
        self.rows, self.size = rows, size
        self.font: FreeTypeFont = ImageFont.load_default(max(10, size // 12))  # type: ignore[assignment]
        self.text_height = int(self.font.size * 1.4)
        self.n_queries = max(len(row.query) for row in rows)
        n_hits = max(min(len(row.hits), MAX_HITS) for row in rows)
        # The gap after the queries is twice the others: it says where the neighbours begin.
        columns = self.n_queries + n_hits
        self.width = 2 * _MARGIN + columns * (size + _GAP) + _GAP
        self.line_height = size + 2 * self.text_height + 2 * _GAP
        self.n_lines = max(1, min(len(rows), _MAX_PIXELS // (self.width * self.line_height)))
        self.canvas = Image.new("RGB", (self.width, 2 * _MARGIN + self.n_lines * self.line_height - _GAP), _PAPER)
        self.pen = ImageDraw.Draw(self.canvas)

    def draw(self) -> Image.Image:
        """Return the drawn sheet."""
        for line, row in enumerate(self.rows[: self.n_lines]):
            top = _MARGIN + line * self.line_height
            for column, picture in enumerate(row.query):
                self._cell(self._left(column), top, picture, is_same=False)
            if row.failure:
                self._write(self._left(self.n_queries) + _GAP, top, row.failure, _SOFT, self.width)
            for column, hit in enumerate(row.hits[:MAX_HITS], start=self.n_queries):
                is_same = row.marks_labels and row.label is not None and hit.label == row.label
                self._cell(self._left(column) + 2 * _GAP, top, hit, is_same=is_same)
        return self.canvas

    def _left(self, column: int) -> int:
        return _MARGIN + column * (self.size + _GAP)

    def _cell(self, left: int, top: int, picture: PagePicture, *, is_same: bool) -> None:
        frame = (left, top, left + self.size - 1, top + self.size - 1)
        self.pen.rectangle(frame, fill=_WELL)
        small = _opened(picture.thumbnail, self.size)
        if small is None:
            self._write(left + 6, top + 6, "no picture", _SOFT, self.size - 12)
        else:
            place = (left + (self.size - small.width) // 2, top + (self.size - small.height) // 2)
            self.canvas.paste(small, place)
        below = top + self.size + 4
        if is_same:
            self.pen.rectangle(frame, outline=_SAME, width=max(2, self.size // 50))
            self.pen.text((left + self.size - 1, below), "same", fill=_SAME_INK, font=self.font, anchor="ra")
        for text, colour in _captions(picture):
            self._write(left, below, text, colour, self.size)
            below += self.text_height

    def _write(self, left: int, top: int, text: str, colour: str, room: int) -> None:
        self.pen.text((left, top), shortened_text(visible_text(text), self.font, room), fill=colour, font=self.font)


def _captions(picture: PagePicture) -> Iterator[tuple[str, str]]:
    if picture.score is not None:
        yield f"{picture.score:.4f}", _INK
    elif picture.against:
        yield "not like this", _INK
    else:
        yield picture.path.rpartition("/")[2], _INK
    if picture.label is not None:
        yield picture.label, _SOFT


def _opened(thumbnail: bytes | None, size: int) -> Image.Image | None:
    if not thumbnail:
        return None
    try:
        picture = Image.open(io.BytesIO(thumbnail), formats=("JPEG",)).convert("RGB")
    except (UnidentifiedImageError, OSError):
        return None
    scale = size / max(picture.size)
    if scale != 1:
        picture = picture.resize([max(1, round(side * scale)) for side in picture.size], Image.Resampling.LANCZOS)
    return picture


def shortened_text(text: str, font: FreeTypeFont, room: float) -> str:
    """Return as much of a text as there is room for, in pixels."""
    text = text[:200]
    if font.getlength(text) <= room:
        return text
    n_fitting = bisect.bisect_right(range(len(text)), room, key=lambda n: font.getlength(f"{text[:n]}…")) - 1
    return f"{text[: max(n_fitting, 0)]}…"
