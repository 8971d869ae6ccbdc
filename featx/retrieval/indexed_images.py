"""What an index knows of its images beside their vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any

import numpy as np

from featx.errors import UsageError

_DIGEST_BYTES = 16


@dataclass(frozen=True, eq=False)
class IndexedImages:
    """The images of an index, row by row.

    Attributes
    ----------
    ids : ndarray of int64, shape (n,)
        Numbers that an image keeps for ever, ascending.
    places : ndarray of int64, shape (n,)
        Where its vector lies, ascending; places of removed images are missing.
    paths : tuple of str
    labels, splits : tuple of str or None
    digests : ndarray of uint8, shape (n, 16), or None
        BLAKE2b-128 of the image files.
    thumbnails : sequence of bytes, or None
        Small picture files; empty bytes where there is none.
    """

    ids: np.ndarray
    places: np.ndarray
    paths: tuple[str, ...]
    labels: tuple[str | None, ...]
    splits: tuple[str | None, ...]
    digests: np.ndarray | None
    thumbnails: Sequence[bytes] | None

    @classmethod
    def of(
        cls,
        ids: np.ndarray,
        places: np.ndarray,
        *,
        paths: Sequence[str] | None = None,
        labels: Sequence[str | None] | None = None,
        splits: Sequence[str | None] | None = None,
        digests: np.ndarray | None = None,
        thumbnails: Sequence[bytes] | None = None,
    ) -> IndexedImages:
        """Return images of which some things are known; without paths, ids stand for them.

        Raises
        ------
        UsageError
            Something has another length than the ids, digests have another shape, or a label or split is no text.
        """
        labels, splits = (None if column is None else list(column) for column in (labels, splits))
        given: dict[str, Any] = {
            "paths": paths,
            "labels": labels,
            "splits": splits,
            "digests": digests,
            "thumbnails": thumbnails,
        }
        for name, values in given.items():
            if values is not None and len(values) != len(ids):
                raise UsageError(f"{len(values)} {name} were given for {len(ids)} vectors. Give one a vector.")
        if digests is not None and (digests.shape != (len(ids), _DIGEST_BYTES) or digests.dtype != np.uint8):
            raise UsageError(
                f"digests are {digests.dtype} of shape {digests.shape}; needed is uint8 of shape"
                f" ({len(ids)}, {_DIGEST_BYTES})."
            )
        for name in ("labels", "splits"):
            others = {type(value).__name__ for value in given[name] or () if not isinstance(value, str | None)}
            if others:
                raise UsageError(f"{name} are texts or None; {', '.join(sorted(others))} was given. Give str(value).")
        nothing = (None,) * len(ids)
        return cls(
            ids=np.asarray(ids, np.int64),
            places=np.asarray(places, np.int64),
            paths=tuple(map(str, ids)) if paths is None else tuple(map(str, paths)),
            labels=nothing if labels is None else tuple(labels),
            splits=nothing if splits is None else tuple(splits),
            digests=digests,
            thumbnails=thumbnails,
        )

    def __len__(self) -> int:
        return len(self.ids)

    def rows_of_ids(self, ids: np.ndarray) -> np.ndarray:
        """Return the row of each id.

        Raises
        ------
        UsageError
            There is no such id; the message names the first few.
        """
        ids = np.asarray(ids)
        if ids.size and ids.dtype.kind not in "iu":
            raise UsageError(f"ids are whole numbers; {ids.dtype} was given. Take them from index.ids or a search.")
        return _find(self.ids, ids.astype(np.int64), "id")

    def rows_of_places(self, places: np.ndarray) -> np.ndarray:
        """Return the row whose vector lies at each place."""
        return _find(self.places, places, "place")

    def places_where(self, mask: np.ndarray) -> np.ndarray:
        """Return the places of some rows, for which a mask of bool holds.

        Raises
        ------
        UsageError
            It is not one value a row, or holds for none.
        """
        if np.shape(mask) != (len(self),) or not np.any(mask):
            raise UsageError(
                f"a condition of shape {np.shape(mask)} holds for {int(np.sum(mask))} of {len(self)} rows. Give one"
                " value a row, true for at least one."
            )
        return self.places[np.asarray(mask, bool)]

    def kept(self, mask: np.ndarray, *, places: np.ndarray | None = None) -> IndexedImages:
        """Return the images of some rows, with their places or with others.

        Parameters
        ----------
        mask : ndarray of bool, shape (n,)
            Rows to keep.
        places : ndarray of int64, optional
            Where the vectors of the kept rows lie from now on.
        """
        return IndexedImages(
            ids=self.ids[mask],
            places=self.places[mask] if places is None else places,
            paths=tuple(compress(self.paths, mask)),
            labels=tuple(compress(self.labels, mask)),
            splits=tuple(compress(self.splits, mask)),
            digests=None if self.digests is None else self.digests[mask],
            thumbnails=None if self.thumbnails is None else tuple(compress(self.thumbnails, mask)),
        )

    def extended(self, more: IndexedImages) -> IndexedImages:
        """Return these images, and more after them; what is known of one side only is empty on the other."""
        digests, thumbnails = None, None
        if self.digests is not None or more.digests is not None:
            digests = np.concatenate([_digests(self), _digests(more)])
        if self.thumbnails is not None or more.thumbnails is not None:
            thumbnails = _thumbnails(self) + _thumbnails(more)
        return IndexedImages(
            ids=np.concatenate([self.ids, more.ids]),
            places=np.concatenate([self.places, more.places]),
            paths=self.paths + more.paths,
            labels=self.labels + more.labels,
            splits=self.splits + more.splits,
            digests=digests,
            thumbnails=thumbnails,
        )


def _find(ascending: np.ndarray, wanted: np.ndarray, what: str) -> np.ndarray:
    rows = np.minimum(np.searchsorted(ascending, wanted), len(ascending) - 1)
    unknown = wanted[ascending[rows] != wanted]
    if len(unknown):
        named = ", ".join(map(str, unknown[:5].tolist())) + (", …" if len(unknown) > 5 else "")
        raise UsageError(f"{len(unknown)} of {len(wanted)} {what}s are not in the index: {named}. Ask for others.")
    return rows


def _digests(images: IndexedImages) -> np.ndarray:
    return np.zeros((len(images), _DIGEST_BYTES), np.uint8) if images.digests is None else images.digests


def _thumbnails(images: IndexedImages) -> tuple[bytes, ...]:
    return (b"",) * len(images) if images.thumbnails is None else tuple(images.thumbnails)
