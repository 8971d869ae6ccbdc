"""What a user wishes for: a recall, and the memory that it may take."""

from __future__ import annotations

import re
from dataclasses import dataclass

from featx.errors import UsageError

_UNITS = {
    "": 1,
    "B": 1,
    **{f"{prefix}B": 1000**power for power, prefix in enumerate("KMGT", start=1)},
    **{f"{prefix}IB": 1024**power for power, prefix in enumerate("KMGT", start=1)},
}
_MOST_NEIGHBOURS = 1000


@dataclass(frozen=True)
class RecallWish:
    """Which share of the true nearest neighbours a search should find.

    Attributes
    ----------
    recall : float
        Of the k nearest, in the mean over queries; above 0, at most 1.
    k : int
        Neighbours that are asked for.
    """

    recall: float
    k: int

    def __post_init__(self) -> None:
        if not 0 < self.recall <= 1:
            raise UsageError(f"a recall of {self.recall:g} was wished for; give one above 0 and at most 1, as 0.95@10.")
        if not 1 <= self.k <= _MOST_NEIGHBOURS:
            raise UsageError(f"a recall at {self.k} was wished for; give 1 to {_MOST_NEIGHBOURS} neighbours.")

    def __str__(self) -> str:
        return f"{self.recall:g}@{self.k}"


def parse_recall(text: str) -> RecallWish:
    """Return the wish that a text such as ``0.95@10`` stands for; without ``@``, at 10.

    Raises
    ------
    UsageError
        For anything else.
    """
    if not isinstance(text, str):
        raise UsageError(f"a recall {text!r} was given; give a text such as '0.95@10', which says of how many.")
    found = re.fullmatch(r"\s*(\d*\.?\d+|\d+\.)\s*(%?)\s*(?:@\s*(\d+)\s*)?", text)
    if not found:
        raise UsageError(
            f"{text!r} is no recall; give one as 0.95@10: 95 % of the 10 nearest, in the mean over queries."
        )
    recall = float(found[1]) / (100 if found[2] else 1)
    return RecallWish(recall, int(found[3] or 10))


def parse_bytes(text: str) -> int:
    """Return the number of bytes that a text such as ``2GB``, ``512MB`` or ``1GiB`` stands for.

    Raises
    ------
    UsageError
        For anything else.
    """
    found = re.fullmatch(r"\s*(\d*\.?\d+|\d+\.)\s*([a-zA-Z]*)\s*", text)
    unit = _UNITS.get(found[2].upper()) if found else None
    if not found or unit is None or float(found[1]) * unit < 1:
        raise UsageError(f"{text!r} is no amount of memory; give one as 2GB, 512MB or 1GiB.")
    return int(float(found[1]) * unit)
