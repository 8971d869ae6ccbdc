"""Keeping copies of one picture on one side: groups for folds, and held-out rows that training has seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.errors import FeatureKeyError
from featx.retrieval.near_duplicates import NearDuplicates, find_near_duplicates, join, number_groups

if TYPE_CHECKING:
    from featx.store import FeatureStore

_N_NAMED = 3
_SPLITS = {2: "test", 1: "val"}


@dataclass(frozen=True)
class LeakGuard:
    """What must not be split between learning and scoring.

    Attributes
    ----------
    groups : ndarray of int32, shape (n,), or None
        The groups given, joined with the near-duplicates; −1 is alone. None where nothing belongs together.
    near_groups : ndarray of int32, shape (n,)
        Groups of identical and nearly identical images only, numbered in the order of their first rows; −1 is alone.
        Rows without a label are alone.
    n_identical : int
        Labelled rows whose file is that of an earlier labelled row.
    n_near : int
        Further labelled rows that are nearly an earlier row of their group.
    notes : tuple of str
        What the user should know, a sentence each; empty where there are no duplicates.
    """

    groups: np.ndarray | None
    near_groups: np.ndarray
    n_identical: int
    n_near: int
    notes: tuple[str, ...]

    def crossing(self, train_rows: np.ndarray, held_out_rows: np.ndarray) -> np.ndarray:
        """Return the held-out rows of which a copy or near-copy is in training; groups given by the user don't count.

        Parameters
        ----------
        train_rows, held_out_rows : ndarray of int
            Row numbers.

        Returns
        -------
        ndarray of int64
            A part of `held_out_rows`, in their order.
        """
        held_out_rows = np.asarray(held_out_rows, np.int64)
        learned = self.near_groups[np.asarray(train_rows, np.int64)]
        groups = self.near_groups[held_out_rows]
        return held_out_rows[(groups >= 0) & np.isin(groups, learned)]


def guard_rows(
    store: FeatureStore, labels: Any, splits: Any = None, groups: Any = None, *, detect: bool = True
) -> LeakGuard:
    """Return the groups of a store's rows that folds must keep whole.

    Near-duplicates are looked for among the labelled rows, by `featx.retrieval.near_duplicates`: by digest, and by
    perceptual hash and ``penultimate`` features together. Where a store has no such features of a trained network, or
    only reduced ones, by digest and equal perceptual hashes.

    Parameters
    ----------
    store : FeatureStore
        Where digests, hashes and features are.
    labels : array-like of int, shape (n,)
        Class of each row, −1 for none.
    splits : array-like of int, shape (n,), optional
        −1 none, 0 train, 1 val, 2 test: for a note on duplicates across the split that is scored on.
    groups : array-like of int, shape (n,), optional
        Rows that belong together anyway; negative is alone.
    detect : bool
        Look for near-duplicates; else only the groups given are passed on.

    Notes
    -----
    Reads digests and hashes of all rows, and features only of those rows whose hashes are near.
    """
    labels = np.asarray(labels)
    found = _duplicates_of(store, np.flatnonzero(labels >= 0)) if detect else _none(len(labels))
    notes = (
        _count_note(found),
        _conflict_note(found.groups, labels, store),
        _crossing_note(found.groups, labels, splits),
        _large_note(found.n_split_up),
    )
    return LeakGuard(
        groups=_merged(found.groups, groups),
        near_groups=found.groups,
        n_identical=found.n_identical,
        n_near=found.n_near,
        notes=tuple(note for note in notes if note),
    )


def _none(n_rows: int) -> NearDuplicates:
    return NearDuplicates(np.full(n_rows, -1, np.int32), 0, 0, 0)


def _duplicates_of(store: FeatureStore, rows: np.ndarray) -> NearDuplicates:
    """Return near-duplicates among some rows, with groups of all rows."""
    features = late_features(store)
    everything = len(rows) == store.rows
    # What is read late is read by row of the store; a copy is made only where some rows are left out.
    if features is not None and not everything:
        features = features[rows]
    found = find_near_duplicates(store.digests[rows], store.phashes[rows], features)
    groups = np.full(store.rows, -1, np.int32)
    groups[rows] = found.groups
    return NearDuplicates(groups, found.n_identical, found.n_near, found.n_split_up)


def late_features(store: FeatureStore) -> Any:
    """Return the features for which likeness was calibrated, or None."""
    fingerprint = store.fingerprint
    if str(fingerprint.get("weights_source", "")).startswith("random:") or fingerprint.get("reduction"):
        return None
    try:
        features = store["penultimate"]
    except FeatureKeyError:
        return None
    return features if features.dtype.kind == "f" else None  # codes of a quantizer are no vectors


def _merged(near_groups: np.ndarray, groups: Any) -> np.ndarray | None:
    """Return the connected components of two groupings, or None where all rows are alone in both."""
    components = np.arange(len(near_groups))
    for grouping in (near_groups, near_groups[:0] if groups is None else np.asarray(groups)):
        rows = np.flatnonzero(grouping >= 0)
        _, first, place = np.unique(grouping[rows], return_index=True, return_inverse=True)
        components = join(components, rows, rows[first[place]])
    merged = number_groups(components)
    return merged if (merged >= 0).any() else None


def _count_note(found: NearDuplicates) -> str:
    n_copies = found.n_identical + found.n_near
    if not n_copies:
        return ""
    verb = "repeats" if n_copies == 1 else "repeat"
    return (
        f"{n_copies} of the labelled images {verb} another one ({found.n_identical} identical, {found.n_near} nearly),"
        f" in {_counted(found.groups.max() + 1, 'group')}: folds keep each group whole"
    )


def _conflict_note(near_groups: np.ndarray, labels: np.ndarray, store: FeatureStore) -> str:
    """Return which images are the same picture under several labels."""
    rows = np.flatnonzero(near_groups >= 0)
    pairs = np.unique(np.stack([near_groups[rows], labels[rows]]), axis=1)
    groups, n_classes = np.unique(pairs[0], return_counts=True)
    conflicting = groups[n_classes > 1]
    if not len(conflicting):
        return ""
    paths = store.paths
    shown = [paths[row] for row in np.flatnonzero(np.isin(near_groups, conflicting[:1]))[:_N_NAMED]]
    return (
        f"{_counted(len(conflicting), 'group')} of identical or near-duplicate images"
        f" {'has' if len(conflicting) == 1 else 'have'} more than one class: look at the labels of {', '.join(shown)}"
    )


def _crossing_note(near_groups: np.ndarray, labels: np.ndarray, splits: Any) -> str:
    """Return how much of the split that is scored on has a copy in what is learned from."""
    if splits is None:
        return ""
    splits = np.asarray(splits)
    for number, name in _SPLITS.items():
        held_out = (labels >= 0) & (splits == number)
        if held_out.any():
            learned = near_groups[(labels >= 0) & ~held_out]
            n_seen = int(np.isin(near_groups[held_out & (near_groups >= 0)], learned).sum())
            if not n_seen:
                return ""
            return (
                f"{n_seen} of the {held_out.sum()} images of the {name} split"
                f" {'has a copy or near-copy' if n_seen == 1 else 'have copies or near-copies'} in training"
            )
    return ""


def _large_note(n_split_up: int) -> str:
    if not n_split_up:
        return ""
    return (
        f"{_counted(n_split_up, 'group')} of pictures that are all alike grew too large to be copies of one, and only"
        " their nearest images were kept together; if they belong together, name a column of groups"
    )


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
