"""Which rows of a store are learned from and which are scored on, with copies of one picture kept on one side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from featx.errors import HeadError
from featx.heads import RowSplit, split_rows
from featx.heads.splitting import TEST, VAL
from featx.workflows.leak_guard import guard_rows
from featx.workflows.manifest_groups import column_groups

if TYPE_CHECKING:
    from collections.abc import Sequence

    from featx.store import FeatureStore


@dataclass(frozen=True)
class LabelledRows:
    """The labelled rows of a store, divided.

    Attributes
    ----------
    labels : ndarray of int, shape (n,)
        Class of every row of the store, −1 for none.
    split : RowSplit
        Rows to learn from and rows to score on.
    groups : ndarray of int, shape (n,), or None
        Rows that folds must not divide: those of one group of the user's, and copies of one picture; −1 is alone.
    repeated : ndarray of int
        Rows to score on of which a copy or near-copy is learned from.
    notes : tuple of str
        What the user should know about copies.
    one_sided_notes : tuple of str
        Which classes are learned but not scored on, or the other way round.
    """

    labels: np.ndarray
    split: RowSplit
    groups: np.ndarray | None
    repeated: np.ndarray
    notes: tuple[str, ...]
    one_sided_notes: tuple[str, ...]

    @property
    def n_unlabelled(self) -> int:
        """Rows without a label, which take no part."""
        return int((self.labels < 0).sum())

    def groups_of(self, rows: np.ndarray) -> np.ndarray | None:
        """Return the groups of some rows."""
        return None if self.groups is None else self.groups[rows]


def labelled_rows(
    store: FeatureStore,
    *,
    held_out: float = 0.2,
    seed: int = 0,
    group_column: str | None = None,
    allow_duplicates: bool = False,
) -> LabelledRows:
    """Return the labelled rows of a store, divided as `featx.heads.split_rows` divides them.

    Parameters
    ----------
    store : FeatureStore
        With labels.
    held_out : float
        Share of rows to score on where the store has no test or val split.
    seed : int
        Of the rows to score on.
    group_column : str, optional
        A column of the store's CSV whose equal texts belong together; else the groups of the store.
    allow_duplicates : bool
        Do not look for copies and near-copies of images.

    Raises
    ------
    HeadError
        There are no labels, or only one class.
    UsageError
        There is no such column.
    """
    labels = np.asarray(store.labels)
    _check_classes(store, labels)
    told = store.groups if group_column is None else column_groups(store, group_column)
    guard = guard_rows(store, labels, store.splits, told, detect=not allow_duplicates)
    # Splits that were given are kept even where copies cross them: that is reported, with what it does to the score.
    is_told = bool(np.isin(store.splits[labels >= 0], (TEST, VAL)).any())
    split = split_rows(labels, store.splits, groups=told if is_told else guard.groups, held_out=held_out, seed=seed)
    repeated = guard.crossing(split.train, split.held_out)
    one_sided = tuple(_one_sided_notes(store.label_names, labels, split))
    return LabelledRows(labels, split, guard.groups, repeated, guard.notes, one_sided)


def _check_classes(store: FeatureStore, labels: np.ndarray) -> None:
    present = np.unique(labels[labels >= 0])
    if not len(present):
        raise HeadError(
            f"none of the {store.rows} rows of {store.path} has a label; put the images of each class in a folder of"
            " its own, or give extract a CSV with a label column, and run extract again"
        )
    if len(present) == 1:
        raise HeadError(
            f"all labelled rows of {store.path} are of the class {store.label_names[present[0]]!r}; a classifier needs"
            " two classes or more: add images of another, and run extract again"
        )


def _one_sided_notes(names: Sequence[str], labels: np.ndarray, split: RowSplit) -> list[str]:
    """Return notes on classes that are scored on but were never learned, or learned but never scored on."""
    unlearned = np.setdiff1d(labels[split.held_out], labels[split.train])
    unscored = np.setdiff1d(labels[split.train], labels[split.held_out])
    notes = []
    if len(unlearned):
        notes.append(f"no training rows of {_listed(names, unlearned)}: every one of them counts as an error")
    if len(unscored):
        notes.append(f"no rows to score {_listed(names, unscored)} on: the score says nothing about them")
    return notes


def _listed(names: Sequence[str], labels: np.ndarray) -> str:
    shown = ", ".join(names[label] for label in labels[:10])
    return shown + (f" and {len(labels) - 10} more classes" if len(labels) > 10 else "")
