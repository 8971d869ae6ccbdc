"""Which images of a store are copies of each other, or nearly: groups, and where they do harm."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.images import SPLIT_NAMES
from featx.retrieval.near_duplicates import MIN_LIKENESS, find_near_duplicates, likeness, number_groups
from featx.workflows.leak_guard import late_features
from featx.workflows.one_step_files import draft_of
from featx.workflows.originals import original_location
from featx.workflows.result_pages import PagePicture, PageRow
from featx.workflows.thumbnails import thumbnail_of

if TYPE_CHECKING:
    from featx.store import FeatureStore

EXACT, NEAR = "exact", "near"


@dataclass(frozen=True)
class DuplicateImage:
    """One image of a group.

    Attributes
    ----------
    row : int
        In the store.
    path : str
        As stored.
    label, split : str or None
        Where they are known.
    likeness : float or None
        To the first image of the group: 1 for the same file; None where nothing but equal perceptual hashes was looked
        at. It may be lower than what was asked for, where an image between them links the two.
    """

    row: int
    path: str
    label: str | None
    split: str | None
    likeness: float | None


@dataclass(frozen=True)
class DuplicateGroup:
    """Images that show the same picture.

    Attributes
    ----------
    number : int
        From 1, in the order of the first images.
    kind : str
        ``exact`` where all files are the same, byte for byte, else ``near``.
    images : tuple of DuplicateImage
        In the order of the store, at least two.
    """

    number: int
    kind: str
    images: tuple[DuplicateImage, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """The distinct labels, in order of appearance."""
        return tuple(dict.fromkeys(image.label for image in self.images if image.label is not None))

    @property
    def splits(self) -> tuple[str, ...]:
        """The distinct splits, in order of appearance."""
        return tuple(dict.fromkeys(image.split for image in self.images if image.split is not None))

    @property
    def concerns(self) -> tuple[str, ...]:
        """Why this group matters to who learns from these images; empty where it does not."""
        return (
            *((f"crosses splits: {', '.join(self.splits)}",) if len(self.splits) > 1 else ()),
            *((f"labels differ: {', '.join(self.labels)}",) if len(self.labels) > 1 else ()),
        )


@dataclass(frozen=True)
class Duplicates:
    """All groups of a store.

    Attributes
    ----------
    groups : tuple of DuplicateGroup
    n_rows : int
        Images looked at.
    n_identical : int
        Images whose file is that of an earlier one.
    n_near : int
        Further images that are nearly an earlier one.
    n_split_up : int
        Groups too large to be believed, of which only the nearest images were kept together.
    compared_by : str
        What was looked at, in words.
    """

    groups: tuple[DuplicateGroup, ...]
    n_rows: int
    n_identical: int
    n_near: int
    n_split_up: int
    compared_by: str

    @property
    def n_droppable(self) -> int:
        """Images that could be dropped so that one of each group is left."""
        return self.n_identical + self.n_near


def find_duplicates(store: FeatureStore, *, min_likeness: float = MIN_LIKENESS, exact_only: bool = False) -> Duplicates:
    """Return the groups of identical and nearly identical images of a store, see `featx.retrieval.near_duplicates`.

    Parameters
    ----------
    store : FeatureStore
        Where digests, perceptual hashes and features are. Likeness needs ``penultimate`` features of a trained network
        that were not reduced; without them, images are near whose perceptual hashes are equal.
    min_likeness : float
        Above 0, at most 1.
    exact_only : bool
        Look for identical files only.

    Raises
    ------
    UsageError
        `min_likeness` is out of range.
    """
    digests, phashes = store.digests, store.phashes
    if exact_only:
        files = np.unique(digests, axis=0, return_inverse=True)[1].ravel()
        n_identical = len(files) - len(np.unique(files))
        groups = _listed(store, number_groups(files), digests, phashes, None)
        return Duplicates(groups, store.rows, n_identical, 0, 0, "identical files")
    features = late_features(store)
    found = find_near_duplicates(digests, phashes, features, min_likeness=min_likeness)
    compared_by = (
        "identical files and equal perceptual hashes, for want of penultimate features of a trained network"
        if features is None
        else f"identical files, perceptual hashes and penultimate features, likeness at least {min_likeness:g}"
    )
    groups = _listed(store, found.groups, digests, phashes, features)
    return Duplicates(groups, store.rows, found.n_identical, found.n_near, found.n_split_up, compared_by)


def _listed(
    store: FeatureStore, groups: np.ndarray, digests: np.ndarray, phashes: np.ndarray, features: Any
) -> tuple[DuplicateGroup, ...]:
    rows = np.flatnonzero(groups >= 0)
    if not len(rows):
        return ()
    rows = rows[np.argsort(groups[rows], kind="stable")]
    numbers, starts = np.unique(groups[rows], return_index=True)
    firsts = rows[starts][groups[rows]]  # groups are numbered from 0 without gaps
    same = (digests[rows] == digests[firsts]).all(axis=1)
    alike = _likenesses(phashes, features, rows, firsts, same)
    paths, names, labels, splits = store.paths, store.label_names, store.labels, store.splits
    images = [
        DuplicateImage(
            row=row,
            path=paths[row],
            label=names[labels[row]] if labels[row] >= 0 else None,
            split=SPLIT_NAMES[splits[row]] if splits[row] >= 0 else None,
            likeness=value,
        )
        for row, value in zip(rows.tolist(), alike, strict=True)
    ]
    stops = [*starts[1:].tolist(), len(rows)]
    return tuple(
        DuplicateGroup(number + 1, EXACT if same[start:stop].all() else NEAR, tuple(images[start:stop]))
        for number, start, stop in zip(numbers.tolist(), starts.tolist(), stops, strict=True)
    )


def _likenesses(
    phashes: np.ndarray, features: Any, rows: np.ndarray, firsts: np.ndarray, same: np.ndarray
) -> list[float | None]:
    """Return the likeness of each row to the first of its group: exactly 1 for the same file."""
    values: list[float | None] = [1.0 if is_same else None for is_same in same]
    others = np.flatnonzero(~same)
    if features is not None and len(others):
        found = likeness(phashes, features, rows[others], firsts[others])
        for place, value in zip(others.tolist(), found.tolist(), strict=True):
            values[place] = value
    return values


def write_table(found: Duplicates, path: str | Path, *, overwrite: bool = False) -> None:
    """Write a CSV with a row an image: group, kind, path, label, split, likeness.

    Raises
    ------
    WouldOverwriteError
        There is a file already, and `overwrite` is false.
    StoreError
        It cannot be written.
    """
    with (
        draft_of(path, overwrite=overwrite) as draft,
        open(draft, "x", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(["group", "kind", "path", "label", "split", "likeness"])
        for group in found.groups:
            for image in group.images:
                value = "" if image.likeness is None else f"{image.likeness:.6f}"
                writer.writerow([group.number, group.kind, image.path, image.label or "", image.split or "", value])


def page_rows(store: FeatureStore, found: Duplicates) -> Iterator[PageRow]:
    """Yield a row of a page for each group: its first image, then those that are like it.

    Thumbnails are made of the originals, one group at a time; where they are gone, there are none.
    """
    for group in found.groups:
        pictures = [
            PagePicture(
                path=image.path,
                thumbnail=thumbnail_of(original_location(store.source, image.path)),
                label=image.label,
                score=image.likeness if place else None,
                note=image.split or "",
            )
            for place, image in enumerate(group.images)
        ]
        yield PageRow(
            query=(pictures[0],),
            hits=tuple(pictures[1:]),
            heading=f"Group {group.number}, {group.kind}",
            notes=group.concerns,
            marks_labels=False,
        )
