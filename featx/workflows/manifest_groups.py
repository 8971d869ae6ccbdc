"""Groups of images from a column of the CSV that a store was made from."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from featx.errors import UsageError
from featx.images import read_column, unescape_path

if TYPE_CHECKING:
    from featx.store import FeatureStore


def column_groups(store: FeatureStore, column: str) -> np.ndarray:
    """Return the group of each image as a column of the store's CSV names it now.

    Parameters
    ----------
    store : FeatureStore
        Made from a CSV that is still there.
    column : str
        Any of its columns, in any case: the patient, the plant, the day. Rows with the same text are one group; an
        empty field is none.

    Returns
    -------
    ndarray of int32, shape (n,)
        Numbered in code-point order of the texts; −1 is none.

    Raises
    ------
    UsageError
        The store was not made from a CSV, the CSV is gone, or it no longer names every image of the store.
    SourceError
        The CSV has no such column (the message lists those it has), or is bad otherwise.
    """
    said = read_column(_csv_of(store), column)
    paths = store.paths.tolist()
    missing = [path for path in paths if path not in said]
    if missing:
        raise UsageError(
            f"{store.source} no longer names {len(missing)} of the {len(paths)} images of {store.path}, the first is"
            f" {missing[0]!r}; put them back, or run extract again on the CSV as it is now"
        )
    texts = [said[path] for path in paths]
    numbers = {text: number for number, text in enumerate(sorted({text for text in texts if text}))}
    return np.array([numbers.get(text, -1) for text in texts], np.int32)


def _csv_of(store: FeatureStore) -> str:
    file = unescape_path(store.source)
    if os.path.splitext(file)[1].lower() != ".csv" or os.path.isdir(file):
        raise UsageError(
            f"{store.path} was made from {store.source}, which is no CSV; groups are read from a column of the CSV that"
            " a store was made from: write one with the columns path,label and the groups, and run extract on it"
        )
    if not os.path.isfile(file):
        raise UsageError(
            f"{store.source}, from which {store.path} was made, is not there any more; put it back, or run extract on"
            " it where it is now"
        )
    return file
