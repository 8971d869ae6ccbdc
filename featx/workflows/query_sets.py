"""Queries with what is needed to tell which answers are right: of an index itself, of a store, or of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from featx.errors import StoreError, UsageError
from featx.extraction import FeatureSpec
from featx.images import ImageEntry
from featx.store import check_same
from featx.workflows.indexing import JoinedFeatures, index_spec
from featx.workflows.originals import original_location
from featx.workflows.searching import QueryEmbedder

if TYPE_CHECKING:
    from featx.extraction import ComputeOptions
    from featx.images import ImageListing
    from featx.retrieval import ImageIndex
    from featx.store import FeatureStore

_BLOCK = 256  # images in memory at a time


@dataclass(frozen=True, eq=False)
class QuerySet:
    """Queries with what is needed to tell which answers are right.

    Attributes
    ----------
    vectors : ndarray of float32, shape (n_queries, d)
        As the index is searched with.
    paths : tuple of str
    labels : tuple of str or None
    rows : ndarray of int64, shape (n_queries,)
        Where the queries are in the index themselves, and left out of their own answers; −1 where they are not.
    images : tuple of ImageEntry or int
        The pictures, for a second stage; an int is a row of the index.
    what : str
        What they are, in words.
    failures : tuple of (str, str)
        Paths and reasons of images that could not be read.
    """

    vectors: np.ndarray
    paths: tuple[str, ...]
    labels: tuple[str | None, ...]
    rows: np.ndarray
    images: tuple[ImageEntry | int, ...]
    what: str
    failures: tuple[tuple[str, str], ...] = ()


def own_queries(
    index: ImageIndex, chosen: np.ndarray | None = None, truth: Sequence[tuple[str, str]] | None = None
) -> QuerySet:
    """Return rows of an index as queries.

    Parameters
    ----------
    index : ImageIndex
        Where they are.
    chosen : ndarray of bool, shape (n,), optional
        Which; by default those that the truth names and, without a truth, all that have a label.
    truth : sequence of (query path, index path), optional
        See `featx.workflows.ground_truth`.

    Raises
    ------
    UsageError
        There is none.
    """
    named = {query for query, _ in truth or ()}
    if chosen is None and truth is not None:
        chosen = np.array([path in named for path in index.paths])
    rows = np.flatnonzero([label is not None for label in index.labels] if chosen is None else chosen)
    if not len(rows):
        why = "is named as a query by the ground truth" if truth is not None else "has a label"
        raise UsageError(f"no image of the index {why}; give a ground truth, or queries that have labels")
    return QuerySet(
        index.take(rows),
        tuple(index.paths[row] for row in rows),
        tuple(index.labels[row] for row in rows),
        rows,
        tuple(rows.tolist()),
        f"{len(rows)} images of the index",
    )


def stored_queries(index: ImageIndex, store: FeatureStore) -> QuerySet:
    """Return the rows of a store as queries.

    Raises
    ------
    FingerprintMismatchError
        Its features were made in another way than those of the index.
    FeatureKeyError
        It does not have the features that the index holds.
    """
    check_same(index.fingerprint or {}, store.fingerprint, what=f"the store {store.path}")
    features = JoinedFeatures(store, FeatureSpec.of_store(store, index_spec(index).key))
    names, paths = store.label_names, store.paths.tolist()
    return QuerySet(
        index.embed(features[:]),
        tuple(paths),
        tuple(names[label] if label >= 0 else None for label in store.labels),
        _rows_of_files(index, np.asarray(store.digests)),
        tuple(ImageEntry(path, location=original_location(store.source, path)) for path in paths),
        f"{store.rows} images of {store.path}",
    )


def image_queries(
    index: ImageIndex, listing: ImageListing, options: ComputeOptions | None = None, *, weights: str | None = None
) -> QuerySet:
    """Return the images of a source as queries; those that cannot be read are left out and named.

    Raises
    ------
    StoreError
        None can be read; and as `featx.workflows.searching.query_images` does.
    """
    embedder = QueryEmbedder(index, options, weights)
    found: dict[ImageEntry, np.ndarray] = {}
    reasons: dict[ImageEntry, str] = {}
    for start in range(0, len(listing.entries), _BLOCK):
        vectors, failed = embedder.vectors_of(listing.entries[start : start + _BLOCK])
        found |= vectors
        reasons |= failed
    if not found:
        raise StoreError(f"none of the {len(reasons)} images of {listing.source} can be read")
    names = listing.class_names
    return QuerySet(
        np.stack(list(found.values())),
        tuple(entry.path for entry in found),
        tuple(names[entry.label] if entry.label >= 0 else None for entry in found),
        _rows_of_files(index, np.array([np.frombuffer(entry.read().digest, np.uint8) for entry in found])),
        tuple(found),
        f"{len(found)} images of {listing.source}",
        tuple((entry.path, reason) for entry, reason in reasons.items()),
    )


def _rows_of_files(index: ImageIndex, digests: np.ndarray) -> np.ndarray:
    """Return the row of each image file that is in the index, by its digest; −1 of the others."""
    if index.images.digests is None:
        return np.full(len(digests), -1)
    row_of = {digest.tobytes(): row for row, digest in enumerate(index.images.digests)}
    return np.array([row_of.get(digest.tobytes(), -1) for digest in digests], np.int64)
