"""Ground truth for queries: a CSV that says which images should be found."""

from __future__ import annotations

import csv

from featx.errors import SourceError, UsageError

_COLUMNS = ("query", "path")


def read_truth(file: str) -> list[tuple[str, str]]:
    """Return (query, path) pairs of a CSV with the columns ``query`` and ``path``; other columns are ignored.

    Parameters
    ----------
    file : str
        UTF-8, one pair a row; a query with several answers has several rows.

    Raises
    ------
    SourceError
        There is no such file, or it cannot be read as a CSV.
    UsageError
        A column is missing, a row is incomplete, or there is no row.
    """
    try:
        with open(file, encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            found = list(reader)
            columns = reader.fieldnames or []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"{file} cannot be read as a ground truth: {error}; give a CSV with query,path") from error
    missing = [name for name in _COLUMNS if name not in columns]
    if missing or not found:
        what = f"no column {' and no column '.join(missing)}" if missing else "no row"
        raise UsageError(f"{file} has {what}; needed are the columns query,path with one pair a row")
    for number, row in enumerate(found, start=2):
        if not row["query"] or not row["path"]:
            raise UsageError(f"{file}, row {number}, has no query or no path; needed are both")
    return [(row["query"], row["path"]) for row in found]
