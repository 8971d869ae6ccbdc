"""Listing images that a file names: one path a line, or a CSV with labels, splits and groups."""

from __future__ import annotations

import csv
import os
from collections.abc import Collection, Iterable, Sequence

from featx.errors import SourceError
from featx.images.entries import NO_SPLIT, SPLITS, ImageEntry, ImageListing, index_names
from featx.images.stored_paths import escape_path, stored_path

CSV_COLUMNS = ("path", "label", "split", "group")


def list_paths(paths: Iterable[str | os.PathLike[str]]) -> ImageListing:
    """Images of a Python sequence of paths, in its order, without labels; a path may occur more than once.

    Parameters
    ----------
    paths : iterable of str or os.PathLike
        Relative ones count from the current folder.

    Raises
    ------
    SourceError
        If there is none, or one is not a path.
    """
    here = os.getcwd()
    locations = [os.path.join(here, _as_text(path)) for path in paths]
    if not locations:
        raise SourceError("an empty sequence was given; give at least one path")
    entries = tuple(ImageEntry(stored_path(location, here), location=location) for location in locations)
    return ImageListing(escape_path(here), entries)


def list_text(content: bytes, source: str) -> ImageListing:
    """Images named one a line, in that order; only empty lines are skipped (a path may begin with ``#``).

    Parameters
    ----------
    content : bytes
        The text; relative paths count from the current folder.
    source : str
        Where it comes from: an absolute path, or ``-``.

    Raises
    ------
    SourceError
        If it is not text, names nothing, or names a path twice.
    """
    shown = "standard input" if source == "-" else source
    if b"\0" in content:
        raise SourceError(
            f"{shown} is not a text of paths, for it holds null bytes; give one path a line, a folder, a .csv, or an "
            "image whose name ends like one"
        )
    here = os.getcwd()
    lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    numbered = [(number, line.removesuffix(b"\r")) for number, line in enumerate(lines, start=1) if line.strip()]
    if not numbered:
        raise SourceError(f"{shown} names no images; give one path a line")
    locations = [os.path.join(here, os.fsdecode(line)) for _, line in numbered]
    entries = tuple(ImageEntry(stored_path(location, here), location=location) for location in locations)
    _refuse_duplicates(shown, [entry.path for entry in entries], [number for number, _ in numbered])
    return ImageListing(source, entries)


def list_csv(file: str) -> ImageListing:
    """Images of a CSV with a header and the columns ``path[,label][,split][,group]``, in its order; others are ignored.

    Paths count from the folder of the CSV; those outside it are stored absolute. An empty label, split or group is
    none.

    Parameters
    ----------
    file : str
        Path of the CSV, in UTF-8 with or without byte order mark.

    Raises
    ------
    SourceError
        If there is no column ``path``, no row, a row without path or with too many fields, an unknown split, or a path
        that occurs twice. The message names the line.
    """
    file = os.path.abspath(file)
    shown = escape_path(file)
    numbers, rows = _read_csv(file, shown)
    if not rows:
        raise SourceError(f"{shown} has a header but no rows; add one row an image")
    folder = os.path.dirname(file)
    locations = [os.path.join(folder, row["path"]) for row in rows]
    paths = [stored_path(location, folder) for location in locations]
    _refuse_duplicates(shown, paths, numbers)
    class_names, labels = index_names([_name(row, "label") for row in rows])
    group_names, groups = index_names([_name(row, "group") for row in rows])
    splits = [_split(row.get("split", ""), shown, number) for row, number in zip(rows, numbers, strict=True)]
    entries = map(ImageEntry, paths, labels, splits, groups, locations)
    return ImageListing(shown, tuple(entries), class_names, 0, group_names)


def read_column(file: str | os.PathLike[str], column: str) -> dict[str, str]:
    """What one column of a CSV says of each image: stored path → text, in the order of the rows.

    Parameters
    ----------
    file : str or os.PathLike
        A CSV as `list_csv` reads it; paths are as it stores them.
    column : str
        Any column of the header, in any case; an empty field gives an empty text.

    Raises
    ------
    SourceError
        If there is no such column (the message lists those there are), or the CSV is bad in any way that `list_csv`
        refuses, but for its splits.
    """
    file = os.path.abspath(os.fsdecode(file))
    shown = escape_path(file)
    column = column.strip().lower()
    numbers, rows = _read_csv(file, shown, column)
    folder = os.path.dirname(file)
    paths = [stored_path(os.path.join(folder, row["path"]), folder) for row in rows]
    _refuse_duplicates(shown, paths, numbers)
    return {path: _name(row, column) or "" for path, row in zip(paths, rows, strict=True)}


def _read_csv(file: str, shown: str, column: str = "path") -> tuple[list[int], list[dict[str, str]]]:
    """Line number and fields by column of each row; only known columns and `column`, stripped but for the path."""
    kept = {*CSV_COLUMNS, column}
    try:
        with open(file, encoding="utf-8-sig", errors="surrogateescape", newline="") as lines:
            reader = csv.reader(lines, strict=True)
            header = [name.strip().lower() for name in next(reader, [])]
            _check_header(header, shown, column)
            numbers, rows = [], []
            for fields in reader:
                if any(field.strip() for field in fields):
                    numbers.append(reader.line_num)
                    rows.append(_row(header, fields, shown, reader.line_num, kept))
    except csv.Error as error:
        raise SourceError(
            f"{shown}, line {reader.line_num}: not valid CSV ({error}); quote fields with commas"
        ) from error
    except OSError as error:
        raise SourceError(f"{shown} cannot be read: {error.strerror}; make it readable") from error
    return numbers, rows


def _check_header(header: list[str], shown: str, column: str) -> None:
    found = ", ".join(escape_path(name) for name in header) or "none"
    if "path" not in header:
        raise SourceError(
            f"{shown} has no column 'path'; found: {found}. The first line must name the columns: path[,label][,split]"
            "[,group], separated by commas"
        )
    if column not in header:
        raise SourceError(f"{shown} has no column {escape_path(column)!r}; found: {found}. Name one of them")
    for name in {**dict.fromkeys(CSV_COLUMNS), column: None}:
        if header.count(name) > 1:
            raise SourceError(
                f"{shown} has {header.count(name)} columns called {escape_path(name)!r}; keep one of them"
            )


def _row(header: list[str], fields: list[str], shown: str, number: int, kept: Collection[str]) -> dict[str, str]:
    if len(fields) > len(header):
        raise SourceError(
            f"{shown}, line {number}: {len(fields)} fields, but the header names {len(header)}; quote what has commas"
        )
    row = {name: field for name, field in zip(header, fields, strict=False) if name in kept}
    if not row.get("path", "").strip():
        raise SourceError(f"{shown}, line {number}: no path; give one, or remove the line")
    return {name: field if name == "path" else field.strip() for name, field in row.items()}


def _name(row: dict[str, str], column: str) -> str | None:
    return escape_path(row[column]) if row.get(column) else None


def _split(name: str, shown: str, number: int) -> int:
    if not name:
        return NO_SPLIT
    if name.lower() not in SPLITS:
        raise SourceError(
            f"{shown}, line {number}: split {escape_path(name)!r} is unknown; use one of {', '.join(SPLITS)}, or "
            "leave it empty"
        )
    return SPLITS[name.lower()]


def _refuse_duplicates(shown: str, paths: Sequence[str], numbers: Sequence[int]) -> None:
    first: dict[str, int] = {}
    for path, number in zip(paths, numbers, strict=True):
        if path in first:
            raise SourceError(f"{shown} names {path!r} twice, on lines {first[path]} and {number}; keep one of them")
        first[path] = number


def _as_text(path: str | os.PathLike[str]) -> str:
    try:
        return os.fsdecode(path)
    except TypeError as error:
        raise SourceError(f"{path!r} is not a path, but {type(path).__name__}; give str or os.PathLike") from error
