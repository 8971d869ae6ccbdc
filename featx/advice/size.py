"""How large a set is: images a class, balance and copies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

SMALL = 1000  # images a class, below which a set is small
FEW = 100  # below which fine-tuning may not converge
_UNEVEN = 3.0  # largest class by smallest, from which it is spoken of


@dataclass(frozen=True)
class SetSize:
    """How many images a set has, a class and in all.

    Attributes
    ----------
    n_images : int
        All of them.
    n_labelled : int
        With a label, copies of another image counted too.
    n_copies : int
        Labelled images that repeat another one, identically or nearly.
    classes : tuple of (str, int)
        Name and images without copies, of each class that has any.
    """

    n_images: int
    n_labelled: int
    n_copies: int
    classes: tuple[tuple[str, int], ...]

    @property
    def smallest(self) -> tuple[str, int] | None:
        """Name and images of the smallest class; the first of equals."""
        return min(self.classes, key=lambda entry: entry[1], default=None)

    @property
    def largest(self) -> tuple[str, int] | None:
        """Name and images of the largest class; the first of equals."""
        return max(self.classes, key=lambda entry: entry[1], default=None)

    @property
    def per_class(self) -> float:
        """The median of images a class; without labels half of all images, since there are two classes at least.

        Of an even number of classes it is the lower one of the two in the middle: the size of a class that there is.
        With two classes their mean would say nothing, where one has 20 images and the other 1,990.
        """
        counts = sorted(n for _, n in self.classes)
        return float(counts[(len(counts) - 1) // 2]) if counts else self.n_images / 2

    @property
    def has_lower_median(self) -> bool:
        """Whether two different classes are in the middle, and `per_class` is that of the smaller one."""
        counts = sorted(n for _, n in self.classes)
        return bool(counts) and counts[(len(counts) - 1) // 2] != counts[len(counts) // 2]

    @property
    def is_small(self) -> bool:
        """Whether the median class has fewer than 1000 images."""
        return self.per_class < SMALL

    @property
    def imbalance(self) -> float | None:
        """Images of the largest class by those of the smallest; None without classes."""
        if self.smallest is None or self.largest is None:
            return None
        return self.largest[1] / self.smallest[1]

    @property
    def is_uneven(self) -> bool:
        """Whether the largest class has so much more images than the smallest that classes should be weighed."""
        return self.imbalance is not None and self.imbalance >= _UNEVEN

    def to_json(self) -> dict[str, Any]:
        """Return plain numbers and texts."""
        counts = [n for _, n in self.classes]
        return {
            "verdict": "small" if self.is_small else "large",
            "images": self.n_images,
            "labelled": self.n_labelled,
            "copies": self.n_copies,
            "classes": len(self.classes),
            "min": min(counts, default=None),
            "median": self.per_class if counts else None,
            "max": max(counts, default=None),
            "imbalance": None if self.imbalance is None else round(self.imbalance, 3),
        }


def measure_size(labels: Any, names: Sequence[str], copy_groups: Any = None) -> SetSize:
    """Return the size of a set.

    Parameters
    ----------
    labels : array-like of int, shape (n,)
        Class of each image, −1 for none.
    names : sequence of str
        Of the classes.
    copy_groups : array-like of int, shape (n,), optional
        Images of one group (0 or more) are copies of one picture, and count once in each class.
    """
    labels = np.asarray(labels)
    rows = np.flatnonzero(labels >= 0)
    groups = np.full(len(labels), -1) if copy_groups is None else np.asarray(copy_groups)
    own = np.where(groups[rows] < 0, -1 - rows, groups[rows])
    pictures = np.unique(np.stack([labels[rows], own]), axis=1)
    present, counts = np.unique(pictures[0], return_counts=True)
    classes = tuple((names[label], int(n)) for label, n in zip(present, counts, strict=True))
    return SetSize(len(labels), len(rows), len(rows) - pictures.shape[1], classes)
