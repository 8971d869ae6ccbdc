"""Rows of an index, as people name them: by id, by path, by conditions on what is known of them."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

import numpy as np

from featx.errors import UsageError
from featx.retrieval.row_filters import matching_rows, parse_condition

if TYPE_CHECKING:
    from collections.abc import Sequence

    from featx.retrieval import ImageIndex

_N_COMPARED = 10_000  # paths that a misspelt one is compared with


def rows_named(index: ImageIndex, names: Sequence[str]) -> list[int]:
    """Return the row of each image that is named by its path or, where no path is so called, by its id.

    Raises
    ------
    UsageError
        There is no such image; the message names paths that are spelt nearly so.
    """
    return [_row_named(index, name) for name in names]


def _row_named(index: ImageIndex, name: str) -> int:
    if name in index.paths:
        return index.paths.index(name)
    if name.isascii() and name.isdigit() and int(name) <= index.ids[-1]:
        return int(index.images.rows_of_ids(np.array([int(name)]))[0])
    close = difflib.get_close_matches(name, index.paths[:_N_COMPARED], n=3)
    advice = f"did you mean {' or '.join(close)}?" if close else f"There are {index.paths[0]} and others."
    raise UsageError(f"no image of the index is called {name!r}. {advice} Ids, from 0 to {index.ids[-1]}, do as well.")


def conditions_hold(index: ImageIndex, conditions: Sequence[str]) -> np.ndarray | None:
    """Return for which rows all conditions hold, bool of shape (n,); None where there is no condition.

    Parameters
    ----------
    index : ImageIndex
        Whose rows are meant.
    conditions : sequence of str
        Such as ``label=cat``, ``split!=test``, ``path=pets/*.jpg``; see `featx.retrieval.row_filters`.

    Raises
    ------
    UsageError
        One cannot be read, names what there is not, or they never hold together.
    """
    if not conditions:
        return None
    images = index.images
    columns = {"label": images.labels, "split": images.splits, "path": images.paths}
    holds = matching_rows([parse_condition(text) for text in conditions], columns)
    if not holds.any():
        raise UsageError(f"no image of the index meets {' and '.join(conditions)} together; leave one out")
    return holds
