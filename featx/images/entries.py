"""What a listing of images is: entries in a fixed order, with class, split and group."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from featx.images.decoding import EncodedImage, read_image_file

NO_SPLIT, TRAIN, VAL, TEST = -1, 0, 1, 2
SPLIT_NAMES = ("train", "val", "test")
SPLITS = {"train": TRAIN, "val": VAL, "valid": VAL, "validation": VAL, "test": TEST}


@dataclass(frozen=True)
class ImageEntry:
    """One image of a source.

    Attributes
    ----------
    path : str
        As stored: see :func:`featx.images.escape_path`.
    label : int
        Index into ``ImageListing.class_names``; -1 is none.
    split : int
        ``NO_SPLIT``, ``TRAIN``, ``VAL`` or ``TEST``.
    group : int
        Index into ``ImageListing.group_names``; -1 is none.
    location : str
        Absolute path of the file, as ``os`` functions take it.
    """

    path: str
    label: int = -1
    split: int = NO_SPLIT
    group: int = -1
    location: str = field(default="", repr=False)

    def read(self) -> EncodedImage:
        """Bytes of the image and their digest.

        Raises
        ------
        ImageError
            With a short reason, if the file is missing, not a regular file, or cannot be read.
        """
        return read_image_file(self.location)


@dataclass(frozen=True)
class ImageListing:
    """The images of a source, in an order that depends on nothing but their names (or on the list given).

    Attributes
    ----------
    source : str
        Absolute folder or file (escaped like a stored path), ``-``, or the ``torchvision-data:`` specification.
    entries : tuple of ImageEntry
    class_names, group_names : tuple of str
        In code-point order.
    n_ignored : int
        Other and hidden files and folders that were passed over.
    n_left_out : int
        Images of the source that a limit left out.
    """

    source: str
    entries: tuple[ImageEntry, ...]
    class_names: tuple[str, ...] = ()
    n_ignored: int = 0
    group_names: tuple[str, ...] = ()
    n_left_out: int = 0

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def has_labels(self) -> bool:
        """Whether any image has a class."""
        return any(entry.label >= 0 for entry in self.entries)

    @property
    def has_splits(self) -> bool:
        """Whether any image belongs to a split."""
        return any(entry.split != NO_SPLIT for entry in self.entries)

    @property
    def labels(self) -> np.ndarray:
        """Class of each image: int32 of shape (n,), -1 where there is none."""
        return np.array([entry.label for entry in self.entries], dtype=np.int32)

    @property
    def splits(self) -> np.ndarray:
        """Split of each image: int8 of shape (n,), -1 where there is none."""
        return np.array([entry.split for entry in self.entries], dtype=np.int8)

    @property
    def groups(self) -> np.ndarray | None:
        """Group of each image: int32 of shape (n,), -1 where there is none; None if no image has one."""
        groups = np.array([entry.group for entry in self.entries], dtype=np.int32)
        return groups if (groups >= 0).any() else None

    def evenly_spaced(self, limit: int) -> ImageListing:
        """The same listing with at most `limit` images, taken at even steps so that classes stay mixed.

        Parameters
        ----------
        limit : int
            At least 1. Class and group names are kept, also those that no longer occur.
        """
        n = len(self.entries)
        if limit >= n:
            return self
        taken = tuple(self.entries[step * n // limit] for step in range(limit))
        return replace(self, entries=taken, n_left_out=n - limit)


def index_names(names: list[str | None]) -> tuple[tuple[str, ...], list[int]]:
    """Distinct names in code-point order, and for each given name its index there (-1 for None).

    Parameters
    ----------
    names : list of str or None
        One a row.
    """
    distinct = tuple(sorted({name for name in names if name is not None}))
    index = {name: number for number, name in enumerate(distinct)}
    return distinct, [-1 if name is None else index[name] for name in names]
