"""Which rows a classifier learns from, and which rows it is scored on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from featx.errors import HeadError

TRAIN, VAL, TEST = 0, 1, 2


@dataclass(frozen=True)
class RowSplit:
    """Rows to learn from and rows to be scored on; both sorted, disjoint, and labelled.

    Attributes
    ----------
    train, held_out : ndarray of int64
        Row indices.
    on : str
        What the held-out rows are, in words for a report.
    """

    train: np.ndarray
    held_out: np.ndarray
    on: str


def split_rows(
    labels: Any, splits: Any = None, *, groups: Any = None, held_out: float = 0.2, seed: int = 0
) -> RowSplit:
    """Return the rows to learn from and the rows to be scored on.

    The test split is held out if it has labelled rows, else the val split, else a stratified fraction. Everything
    else that has a label is learned from: when the test split is scored on, the val rows are training rows too (the
    hyper-parameters come from cross-validation, which needs no val rows), and so are rows without a split.

    Parameters
    ----------
    labels : array-like of int, shape (n,)
        Class of each row, −1 for none. Rows without a label are in neither part.
    splits : array-like of int, shape (n,), optional
        −1 none, 0 train, 1 val, 2 test.
    groups : array-like of int, shape (n,), optional
        Rows of one group (0 or more) stay on one side; a negative group is a group of its own.
    held_out : float
        Fraction to hold out of each class where there is no split, at least one row of every class that has two rows
        (with groups: that lies in two groups). What has fewer stays in training.
    seed : int
        Of the draw.

    Raises
    ------
    HeadError
        When nothing is labelled, when one side would be empty, or when the splits cut through a group.
    """
    labels = np.asarray(labels)
    labelled = labels >= 0
    if not labelled.any():
        raise HeadError("no row has a label. Put the images of each class in a folder of its own, or give a CSV.")
    group_of_row = None if groups is None else own_groups(groups)
    if splits is not None:
        splits = np.asarray(splits)
        for value, name in ((TEST, "test split"), (VAL, "val split")):
            scored = labelled & (splits == value)
            if scored.any():
                return _split_as_told(labelled & ~scored, scored, group_of_row, name)
    rows = np.flatnonzero(labelled)
    if group_of_row is None:
        chosen = _draw_rows(labels[rows], held_out, seed)
    else:
        chosen = _draw_groups(labels[rows], group_of_row[rows], held_out, seed)
    if not chosen.any():
        raise HeadError(
            "no class has two labelled rows (or two groups), so that none can be held out. Add images, or give a test "
            "split."
        )
    kind = "stratified" if group_of_row is None else "stratified, groups kept whole"
    return RowSplit(
        train=rows[~chosen],
        held_out=rows[chosen],
        on=f"held-out {held_out:.0%} of the labelled rows, {kind}, seed {seed}".replace("%", " %"),
    )


def own_groups(groups: Any) -> np.ndarray:
    """Return group numbers in which every negative group has been given a number that nobody else has."""
    groups = np.array(groups, dtype=np.int64)
    alone = np.flatnonzero(groups < 0)
    groups[alone] = max(groups.max(initial=-1), -1) + 1 + np.arange(len(alone))
    return groups


def _split_as_told(train: np.ndarray, scored: np.ndarray, groups: np.ndarray | None, name: str) -> RowSplit:
    if not train.any():
        raise HeadError(f"all labelled rows are in the {name}, none is left to learn from. Mark some as train.")
    if groups is not None:
        shared = np.intersect1d(groups[train], groups[scored])
        if len(shared):
            raise HeadError(
                f"{len(shared)} groups (the first is {shared[0]}) have rows both in the {name} and in training. "
                "Correct the splits or leave out the groups."
            )
    return RowSplit(train=np.flatnonzero(train), held_out=np.flatnonzero(scored), on=name)


def _targets(counts: np.ndarray, held_out: float) -> np.ndarray:
    """Return how many of each class to hold out: the fraction, at least one, and never all."""
    return np.minimum(np.maximum(np.rint(counts * held_out), 1), counts - 1).astype(np.int64)


def _draw_rows(labels: np.ndarray, held_out: float, seed: int) -> np.ndarray:
    """Return a mask of the rows to hold out, the wanted number of each class."""
    rng = np.random.default_rng(seed)
    chosen = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        chosen[rng.permutation(rows)[: _targets(np.array(len(rows)), held_out)]] = True
    return chosen


def _draw_groups(labels: np.ndarray, groups: np.ndarray, held_out: float, seed: int) -> np.ndarray:
    """Return a mask of the rows to hold out, whole groups that together come near the wanted number of each class.

    Notes
    -----
    Groups are taken greedily in random order, which is near the best choice, not the best.
    """
    class_of_row = np.unique(labels, return_inverse=True)[1]
    group_of_row = np.unique(groups, return_inverse=True)[1]
    # counts[g, c]: rows of class c in group g
    counts = np.zeros((group_of_row.max() + 1, class_of_row.max() + 1), dtype=np.int64)
    np.add.at(counts, (group_of_row, class_of_row), 1)
    order = np.random.default_rng(seed).permutation(len(counts))
    taken = _take_groups(counts, order, _targets(counts.sum(axis=0), held_out))
    return taken[group_of_row]


def _take_groups(counts: np.ndarray, order: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return a mask over groups; every class keeps at least one group for training."""
    taken = np.zeros(len(counts), dtype=bool)
    groups_left = (counts > 0).sum(axis=0)
    missing = targets.copy()

    def take(group: int) -> None:
        nonlocal missing, groups_left
        taken[group] = True
        missing = missing - counts[group]
        groups_left = groups_left - (counts[group] > 0)

    def can_be_spared(group: int) -> bool:
        return bool((groups_left[counts[group] > 0] > 1).all())

    for group in order:
        if can_be_spared(group) and np.abs(missing - counts[group]).sum() < np.abs(missing).sum():
            take(group)
    for label in range(counts.shape[1]):  # a class whose groups were all too large still gets its smallest one
        if (counts[taken, label] > 0).any():
            continue
        holders = [group for group in order if counts[group, label] and not taken[group] and can_be_spared(group)]
        if holders:
            take(min(holders, key=lambda group: counts[group].sum()))
    return taken
