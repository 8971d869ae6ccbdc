"""Plain tables and counts for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def count(number: int, noun: str) -> str:
    """Return a number and what it counts, such as ``1 row`` or ``2 rows``."""
    plural = (
        f"{noun[:-1]}ies" if noun.endswith(("ry", "ty", "py")) else f"{noun}es" if noun.endswith("s") else f"{noun}s"
    )
    return f"{number} {noun if number == 1 else plural}"


def format_table(header: Sequence[str], rows: Iterable[Sequence[object]], left: Sequence[int] = (0,)) -> str:
    """Return rows under a header, columns aligned.

    Parameters
    ----------
    header : sequence of str
        Titles.
    rows : iterable of sequences
        Cells, shown by ``str``.
    left : sequence of int
        Columns aligned to the left; the others hold numbers.
    """
    lines = [[str(cell).replace("\n", "\\n") for cell in row] for row in (header, *rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
