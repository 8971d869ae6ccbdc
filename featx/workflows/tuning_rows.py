"""Which images a network is tuned on, which choose the epoch, and which it is scored on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from featx.errors import HeadError, SourceError
from featx.heads import split_rows
from featx.images import TEST, TRAIN, VAL
from featx.workflows.labelled_rows import LabelledRows, labelled_rows

if TYPE_CHECKING:
    from featx.images import ImageEntry, ImageListing
    from featx.store import FeatureStore

VALIDATION_SHARE = 0.15  # of the training rows, where the source has no val split of its own


@dataclass(frozen=True)
class TuningRows:
    """The labelled rows of a store in three parts, with their images.

    Attributes
    ----------
    entries : tuple of ImageEntry
        The image of every row of the store.
    labels : ndarray of int64, shape (n,)
        Class of every row, as an index into `classes`; −1 where it has none, or one that is not learned.
    classes : ndarray of int
        Classes learned, as indices into the store's names.
    train, validation, held_out : ndarray of int64
        Rows to learn from, to choose the epoch by, and to be scored on.
    rows : LabelledRows
        What a classifier on features would learn from and be scored on: `train` and `validation` are its training
        rows, `held_out` is the same.
    chosen_by : str
        What the validation rows are, in words.
    """

    entries: tuple[ImageEntry, ...]
    labels: np.ndarray
    classes: np.ndarray
    train: np.ndarray
    validation: np.ndarray
    held_out: np.ndarray
    rows: LabelledRows
    chosen_by: str

    def entries_of(self, rows: np.ndarray) -> list[ImageEntry]:
        """Return the images of some rows."""
        return [self.entries[row] for row in rows]

    def digest(self, store: FeatureStore) -> str:
        """Return a digest of images, classes and parts: it changes when a training must begin anew."""
        digest = hashlib.blake2b(digest_size=16)
        for array in (store.digests[:], self.labels, self.train, self.validation, self.held_out):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def as_told(self, listing: ImageListing, store: FeatureStore) -> ImageListing:
        """Return the images of the store with its labels, and these parts as their splits: nothing is told anew.

        What the source says by now may differ: images and classes may have come, and labels may have changed.
        """
        splits = np.full(len(self.entries), TRAIN)
        for split, rows in ((VAL, self.validation), (TEST, self.held_out)):
            splits[rows] = split
        told = zip(self.entries, self.rows.labels.tolist(), splits.tolist(), strict=True)
        entries = tuple(replace(entry, label=label, split=split) for entry, label, split in told)
        return replace(listing, entries=entries, class_names=tuple(store.label_names))


def tuning_rows(
    store: FeatureStore,
    listing: ImageListing,
    *,
    held_out: float = 0.2,
    seed: int = 0,
    group_column: str | None = None,
    allow_duplicates: bool = False,
) -> TuningRows:
    """Return the rows of a store in three parts; the held-out part is that of ``fit-…`` with the same options.

    Parameters
    ----------
    store : FeatureStore
        Features of the images, with labels.
    listing : ImageListing
        The images.
    held_out, seed, group_column, allow_duplicates
        As in `labelled_rows`.

    Raises
    ------
    HeadError
        There are no labels, only one class, or too few images to choose an epoch by.
    SourceError
        Images of the store are not in the listing.
    UsageError
        There is no such column.
    """
    rows = labelled_rows(
        store, held_out=held_out, seed=seed, group_column=group_column, allow_duplicates=allow_duplicates
    )
    entries = listed_entries(store, listing)
    train, validation, chosen_by = _choose_validation(store, rows, seed)
    classes = np.unique(rows.labels[train])
    if len(classes) < 2:
        raise HeadError(
            "fewer than two classes have images to learn from beside those that are held out; add images of others"
        )
    labels = np.full(store.rows, -1, np.int64)
    known = np.isin(rows.labels, classes)
    labels[known] = np.searchsorted(classes, rows.labels[known])
    validation = validation[labels[validation] >= 0]
    if not len(validation):
        raise HeadError(
            "no image of a class that is learned is left to choose the epoch by; add images to the val split"
        )
    return TuningRows(entries, labels, classes, train, validation, rows.split.held_out, rows, chosen_by)


def listed_entries(store: FeatureStore, listing: ImageListing) -> tuple[ImageEntry, ...]:
    """Return the image of every row of a store.

    Raises
    ------
    SourceError
        One is not in the listing.
    """
    by_path = {entry.path: entry for entry in listing.entries}
    gone = [path for path in store.paths.tolist() if path not in by_path]
    if gone:
        raise SourceError(
            f"{len(gone)} of the {store.rows} images of {store.path} are not in {listing.source} (the first is"
            f" {gone[0]}); put them back, or run featx extract again"
        )
    return tuple(by_path[path] for path in store.paths.tolist())


def _choose_validation(store: FeatureStore, rows: LabelledRows, seed: int) -> tuple[np.ndarray, np.ndarray, str]:
    """Return training rows without the validation rows, those, and what they are: the val split, or a part drawn."""
    train = rows.split.train
    is_val = np.asarray(store.splits)[train] == VAL
    if is_val.any() and not is_val.all():
        return train[~is_val], train[is_val], "val split"
    labels = np.full(store.rows, -1, np.int64)
    labels[train] = rows.labels[train]
    drawn = split_rows(labels, None, groups=rows.groups, held_out=VALIDATION_SHARE, seed=seed + 1)
    return drawn.train, drawn.held_out, f"{VALIDATION_SHARE:.0%} of the others".replace("%", " %")
