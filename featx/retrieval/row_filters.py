"""Conditions on what is known of each row besides its vector, such as ``label=cat`` or ``path=pets/*.jpg``."""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from featx.errors import UsageError

_WILDCARDS = re.compile(r"[*?\[]")
_N_NAMED = 5
_N_COMPARED = 10_000  # values that a misspelt one is compared with: difflib takes about 20 µs each


@dataclass(frozen=True)
class RowCondition:
    """One condition that rows must meet.

    Attributes
    ----------
    field : str
        Name of a column.
    values : tuple of str
        Any of them will do; the empty text stands for rows that have no value.
    negated : bool
        None of them will do.
    """

    field: str
    values: tuple[str, ...]
    negated: bool = False

    def __str__(self) -> str:
        return f"{self.field}{'!=' if self.negated else '='}{','.join(self.values)}"


def parse_condition(text: str) -> RowCondition:
    """Return the condition that a text means: ``FIELD=VALUE``, ``FIELD!=VALUE``, or several values with commas.

    Parameters
    ----------
    text : str
        Such as ``label=cat,dog``, ``split!=test``, ``path=pets/*.jpg``; what a value means is decided by
        `matching_rows`, which knows the values that there are.

    Raises
    ------
    UsageError
        There is no ``=``, or nothing before it.
    """
    name, equals, values = text.partition("=")
    negated = name.endswith("!")
    name = name.removesuffix("!").strip()
    if not equals or not name:
        raise UsageError(f"{text!r} is no condition; give FIELD=VALUE or FIELD!=VALUE, such as label=cat or label!=cat")
    return RowCondition(name, tuple(values.split(",")), negated)


def matching_rows(conditions: Iterable[RowCondition], columns: Mapping[str, Sequence[str | None]]) -> np.ndarray:
    """Return which rows meet all conditions.

    A value that some row has is meant as it is, also if it contains commas or wildcards. Otherwise ``*``, ``?`` and
    ``[…]`` stand for what they stand for in a shell, except that ``*`` also crosses slashes; capitals count. A row
    without a value in a field meets no condition on it but ``FIELD=`` and ``FIELD=VALUE,``: neither ``FIELD=VALUE`` nor
    ``FIELD!=VALUE``.

    Parameters
    ----------
    conditions : iterable of RowCondition
        All must hold; without any, every row matches.
    columns : mapping of str to sequence of str or None
        At least one, each with a value or None for every row; the empty text counts as None.

    Returns
    -------
    ndarray of bool, shape (n,)

    Raises
    ------
    UsageError
        There is no such field, or no row has such a value; the message names those that there are. Columns differ in
        length, or there are none.
    """
    lengths = {len(column) for column in columns.values()}
    if len(lengths) != 1:
        raise UsageError(
            f"columns of {sorted(lengths) or 'no'} rows; needed is at least one, all equally long. Give a value or None"
            " for each row."
        )
    matching = np.ones(lengths.pop(), bool)
    for condition in conditions:
        if condition.field not in columns:
            raise UsageError(f"{condition}: there is no field {condition.field!r}; there are {', '.join(columns)}")
        matching &= _matching(condition, columns[condition.field])
    return matching


def _matching(condition: RowCondition, column: Sequence[str | None]) -> np.ndarray:
    existing = {value or "" for value in column}
    meant = _meant(condition, existing)
    if condition.negated:
        meant = existing - meant - {""}
    return np.fromiter(((value or "") in meant for value in column), bool, len(column))


def _meant(condition: RowCondition, existing: Collection[str]) -> set[str]:
    """Return the existing values that a condition names, the empty text for none."""
    whole = ",".join(condition.values)
    if whole in existing:
        return {whole}
    meant: set[str] = set()
    for value in condition.values:
        if value in existing or (not value and condition.negated):
            meant.add(value)
        elif _WILDCARDS.search(value) and (found := _fitting(value, existing)):
            meant.update(found)
        else:
            raise UsageError(_nowhere(condition, value, existing))
    return meant


def _fitting(pattern: str, existing: Iterable[str]) -> list[str]:
    fits = re.compile(fnmatch.translate(pattern)).match
    return [value for value in existing if value and fits(value)]


def _nowhere(condition: RowCondition, value: str, existing: Iterable[str]) -> str:
    known = sorted(set(existing) - {""})
    if not value:
        return f"{condition}: every image has a {condition.field}; give one of {_some(known)}"
    if not known:
        return f"{condition}: no image has a {condition.field}; leave this condition out"
    fits = "fits" if _WILDCARDS.search(value) else "is"
    close = _close(value, known)
    advice = f"did you mean {' or '.join(map(repr, close))}?" if close else f"there are {_some(known)}"
    return f"{condition}: no {condition.field} {fits} {value!r}; {advice}"


def _close(value: str, known: Sequence[str]) -> list[str]:
    """Return existing values that are spelt nearly so, the same but for capitals first."""
    same = [name for name in known if name.casefold() == value.casefold()]
    return same[:_N_NAMED] or difflib.get_close_matches(value, known[:_N_COMPARED], n=3)


def _some(known: Sequence[str]) -> str:
    more = f" and {len(known) - _N_NAMED} more" if len(known) > _N_NAMED else ""
    return ", ".join(known[:_N_NAMED]) + more
