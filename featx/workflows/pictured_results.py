"""Answers of a search with the pictures of queries and neighbours, for pages and contact sheets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from featx.errors import ImageError
from featx.images import ImageEntry
from featx.workflows.originals import original_location
from featx.workflows.result_pages import PagePicture, PageRow
from featx.workflows.thumbnails import THUMBNAIL_SIZE, thumbnail_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from featx.retrieval import ImageIndex
    from featx.workflows.searching import Query, QueryResult


def pictured(
    index: ImageIndex, queries: Sequence[Query], results: Sequence[QueryResult], size: int = THUMBNAIL_SIZE
) -> Iterator[PageRow]:
    """Yield each query with its neighbours as pictures.

    Thumbnails are those of the index; where it has none, they are made from the originals, and missing where these are
    gone.

    Parameters
    ----------
    index : ImageIndex
        That was searched.
    queries, results : sequence of Query and of QueryResult
        One result a query.
    size : int
        Longest side in pixels of thumbnails that are made.
    """
    for query, result in zip(queries, results, strict=True):
        shown = [_asked(index, image, size, against=False) for image in query.like]
        shown += [_asked(index, image, size, against=True) for image in query.unlike]
        hits = tuple(
            PagePicture(hit.path, _thumbnail(index, hit.row, size), hit.label, hit.score, hit.rank)
            for hit in result.hits
        )
        yield PageRow(tuple(shown), hits, failure=result.reason)


def _asked(index: ImageIndex, image: ImageEntry | int, size: int, *, against: bool) -> PagePicture:
    if isinstance(image, ImageEntry):
        return PagePicture(image.path, thumbnail_of(image, size), _label_in_index(index, image), against=against)
    return PagePicture(index.paths[image], _thumbnail(index, image, size), index.labels[image], against=against)


def _label_in_index(index: ImageIndex, image: ImageEntry) -> str | None:
    """Return the label of a picture that is in the index as well, as the very same file."""
    if index.images.digests is None:
        return None
    try:
        digest = np.frombuffer(image.read().digest, np.uint8)
    except ImageError:
        return None
    same = np.flatnonzero((index.images.digests == digest).all(axis=1))
    return index.labels[same[0]] if len(same) else None


def _thumbnail(index: ImageIndex, row: int, size: int) -> bytes | None:
    kept = index.thumbnail(row)
    if kept is not None:
        return kept
    source = index.metadata.get("source")
    return thumbnail_of(original_location(source, index.paths[row]), size) if isinstance(source, str) else None
