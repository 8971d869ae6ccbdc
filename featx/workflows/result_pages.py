"""A page of queries and their neighbours: one HTML file that holds its pictures, runs nothing and asks for nothing.

Paths, labels and reasons come from files of unknown origin: every one of them is written as text, with characters that
are not seen, or that turn the direction of what follows, spelt out. A content security policy in the page forbids
scripts, foreign pictures and any other request, in case a way around that is ever found.
"""

from __future__ import annotations

import base64
import html
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from featx.errors import UsageError
from featx.workflows.one_step_files import draft_of
from featx.workflows.page_style import STYLE

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"

# Controls, marks that turn the direction of writing, what has no width, and bytes of file names that are not UTF-8.
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")
_SUFFIXES = (".html", ".htm")
_END_CHARACTERS = 18  # of a path, which are shown also where there is no room for all of it
_LONGEST = 4096  # characters of one text: the longest path that Linux has


@dataclass(frozen=True)
class PagePicture:
    """One picture of a page.

    Attributes
    ----------
    path : str
        Its name.
    thumbnail : bytes, optional
        A small JPEG; without one, a placeholder is shown.
    label : str, optional
        Its class.
    score : float, optional
        Likeness to the query, 1 at best.
    rank : int, optional
        Its place among the neighbours, from 1.
    note : str
        Anything else, in a few words.
    against : bool
        Of a query: neighbours should not look like this one.
    """

    path: str
    thumbnail: bytes | None = None
    label: str | None = None
    score: float | None = None
    rank: int | None = None
    note: str = ""
    against: bool = False


@dataclass(frozen=True)
class PageRow:
    """One query, or what else belongs together, with its neighbours.

    Attributes
    ----------
    query : tuple of PagePicture
        One, or several that were asked for together.
    hits : tuple of PagePicture
        Nearest first.
    failure : str
        Why there are no neighbours.
    heading : str
        ``Query 1`` and so on where it is empty.
    notes : tuple of str
        What to look at in this row.
    marks_labels : bool
        Mark the neighbours that have the label of the query, where it has one.
    """

    query: tuple[PagePicture, ...]
    hits: tuple[PagePicture, ...] = ()
    failure: str = ""
    heading: str = ""
    notes: tuple[str, ...] = ()
    marks_labels: bool = True

    @property
    def label(self) -> str | None:
        """The one label of those that neighbours should look like; None if there is none, or several."""
        labels = {picture.label for picture in self.query if not picture.against}
        return labels.pop() if len(labels) == 1 else None


def write_results_page(
    path: str | Path, rows: Iterable[PageRow], *, title: str, facts: Mapping[str, str], overwrite: bool = False
) -> None:
    """Write a page; rows are taken, written and dropped one after the other.

    Parameters
    ----------
    path : str or Path
        Of the HTML file; its folder must exist.
    rows : iterable of PageRow
        Queries in the order in which they are shown.
    title : str
        Of the page.
    facts : mapping of str to str
        What to say on top, such as ``{"index": "pets.index", "images": "7,390"}``.
    overwrite : bool
        Replace a file that is already there.

    Raises
    ------
    UsageError
        Another ending than .html or .htm.
    WouldOverwriteError
        There is a file already, and `overwrite` is false.
    StoreError
        It cannot be written.
    """
    check_page_name(path)
    with draft_of(path, overwrite=overwrite) as draft, open(draft, "x", encoding="utf-8", newline="\n") as file:
        file.write(page_head(title, facts))
        number = 0
        for number, row in enumerate(rows, start=1):
            file.writelines(_row(row, number))
        if not number:
            file.write('<p class="nothing">There is nothing to show.</p>\n')
        file.write(PAGE_FOOT)


def check_page_name(path: str | Path) -> None:
    """Raise `UsageError` where a page cannot be written under a name: a wrong one might be that of a picture."""
    if Path(path).suffix.lower() not in _SUFFIXES:
        raise UsageError(f"a page {Path(path).name!r} was asked for; allowed endings are {', '.join(_SUFFIXES)}.")


def visible_text(text: str) -> str:
    """Return a text with what cannot be seen, or would turn what follows, spelt out as ``\\u202e`` and so on.

    Parameters
    ----------
    text : str
        At most 4096 characters of it are kept.
    """
    if len(text) > _LONGEST:
        text = text[: _LONGEST - 1] + "…"
    return _UNSEEN.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def escaped(text: str) -> str:
    """Return a text of unknown origin as HTML that shows it and does nothing else."""
    return html.escape(visible_text(text))


def page_head(title: str, facts: Mapping[str, str], *, style: str = "", meta: str = "") -> str:
    """Return how every page of featx begins, up to its content.

    Parameters
    ----------
    title : str
        Of the page.
    facts : mapping of str to str
        What to say under it.
    style : str
        Rules that are added to the common style.
    meta : str
        An element for the head, as HTML.
    """
    listed = "".join(f"<div><dt>{escaped(name)}</dt><dd>{escaped(value)}</dd></div>" for name, value in facts.items())
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">{meta}
<meta http-equiv="Content-Security-Policy" content="{html.escape(POLICY)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<link rel="icon" href="data:,">
<title>{escaped(title)}</title>
<style>{STYLE}{style}</style>
</head>
<body>
<header>
<h1>{escaped(title)}</h1>
{f"<dl>{listed}</dl>" if listed else ""}
</header>
<main>
"""


PAGE_FOOT = """</main>
<footer>Made by featx. All of it is in this file, and it can be read without a network.</footer>
</body>
</html>
"""


def _row(row: PageRow, number: int) -> Iterator[str]:
    heading = f"row-{number}"
    yield f'<section class="row" aria-labelledby="{heading}">\n<div class="about">\n'
    yield f'<h2 id="{heading}">{escaped(row.heading or f"Query {number}")}</h2>\n'
    if row.notes:
        yield f'<ul class="notes">{"".join(f"<li>{escaped(note)}</li>" for note in row.notes)}</ul>\n'
    yield f'<ul class="cards queries{" many" if len(row.query) > 1 else ""}">\n'
    for picture in row.query:
        yield _card(picture, None)
    yield f"</ul>\n{_tally(row)}</div>\n"
    if row.failure:
        yield f'<p class="failure">{escaped(row.failure)}</p>\n'
    else:
        yield '<ol class="cards hits">\n'
        for picture in row.hits:
            yield _card(picture, row.label if row.marks_labels else None)
        yield "</ol>\n"
    yield "</section>\n"


def _tally(row: PageRow) -> str:
    if row.label is None or not row.marks_labels or not row.hits:
        return ""
    n_same = sum(hit.label == row.label for hit in row.hits)
    return f'<p class="tally">{n_same} of {len(row.hits)} have its label</p>\n'


def _card(picture: PagePicture, wanted: str | None) -> str:
    is_same = wanted is not None and picture.label == wanted
    kind = "card" + (" same" if is_same else "") + (" against" if picture.against else "")
    said = [*_measure(picture, is_same), _label(picture.label), _path(picture.path), _note(picture)]
    return f'<li class="{kind}">\n{_frame(picture)}\n<div class="facts">{"".join(said)}</div>\n</li>\n'


def _frame(picture: PagePicture) -> str:
    if not picture.thumbnail:
        return '<div class="frame"><span class="empty">no picture</span></div>'
    data = base64.b64encode(picture.thumbnail).decode()
    alternative = escaped(picture.path)
    return (
        f'<div class="frame"><img src="data:image/jpeg;base64,{data}" alt="{alternative}" title="{alternative}"'
        ' decoding="async"></div>'
    )


def _measure(picture: PagePicture, is_same: bool) -> Iterator[str]:
    mark = '<span class="mark">✓ same<span class="hidden"> label as the query</span></span>' if is_same else ""
    rank = "" if picture.rank is None else f'<span class="rank"><span class="hidden">rank </span>{picture.rank}</span>'
    score = "" if picture.score is None else f'<span class="score">{_number(picture.score)}</span>'
    if mark or rank or score:
        yield f'<div class="measure">{score}{mark}{rank}</div>'
    if picture.score is not None:
        share = min(max(picture.score, 0.0), 1.0) if math.isfinite(picture.score) else 0.0
        yield f'<span class="bar" aria-hidden="true"><i style="width:{share:.1%}"></i></span>'


def _number(score: float) -> str:
    return f"{score:.4f}".replace("-", "−") if math.isfinite(score) else "–"


def _label(label: str | None) -> str:
    return "" if label is None else f'<div class="label" title="{escaped(label)}">{escaped(label)}</div>'


def _path(path: str) -> str:
    """Return a path in two pieces: where there is little room, the first one is shortened, so that the end is seen."""
    shown = visible_text(path)
    n_end = len(shown) - shown.rfind("/") - 1
    cut = len(shown) - (n_end if 0 < n_end <= _END_CHARACTERS else _END_CHARACTERS)
    start, end = shown[: max(cut, 0)], shown[max(cut, 0) :]
    pieces = f'<span class="start">{html.escape(start)}</span><span class="end">{html.escape(end)}</span>'
    return f'<div class="path" title="{html.escape(shown)}">{pieces}</div>'


def _note(picture: PagePicture) -> str:
    note = ", ".join(part for part in ("not like this" if picture.against else "", picture.note) if part)
    return f'<div class="note">{escaped(note)}</div>' if note else ""
