"""Search by image: queries by image files, by rows of the index, and by several of them together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from featx.errors import UsageError
from featx.images import ImageEntry
from featx.retrieval.ranking import RankingSteps, combined, rank
from featx.workflows.indexed_reducers import reducers_of_index
from featx.workflows.indexing import index_spec
from featx.workflows.moved_weights import moved_weights_explained

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from featx.extraction import ComputeOptions, FeatureComputer, FeatureSpec
    from featx.retrieval import ImageIndex
    from featx.workflows.fitted_reducers import Reducer
    from featx.workflows.second_stage import SecondStage

_BLOCK = 256  # images in memory at a time


@dataclass(frozen=True)
class Query:
    """What is looked for: images, of files or of the index, and others that it should not be like.

    Parameters
    ----------
    like : tuple of ImageEntry or int
        At least one; an int is a row of the index.
    unlike : tuple of ImageEntry or int
        None by default.
    """

    like: tuple[ImageEntry | int, ...]
    unlike: tuple[ImageEntry | int, ...] = ()

    def __post_init__(self) -> None:
        if not self.like:
            raise UsageError("a query of no image was asked for; give at least one that its answers should be like")

    @property
    def entries(self) -> tuple[ImageEntry, ...]:
        """The images of files."""
        return tuple(image for image in self.like + self.unlike if isinstance(image, ImageEntry))

    @property
    def rows(self) -> tuple[int, ...]:
        """The rows of the index."""
        return tuple(image for image in self.like + self.unlike if not isinstance(image, ImageEntry))

    def name(self, index: ImageIndex) -> str:
        """Return the query in words: paths, with ``+`` between those looked for together, ``-`` before the others."""
        like, unlike = (
            [image.path if isinstance(image, ImageEntry) else index.paths[image] for image in images]
            for images in (self.like, self.unlike)
        )
        return " + ".join(like) + "".join(f" - {path}" for path in unlike)


def single_or_together(
    like: Sequence[ImageEntry | int], unlike: Sequence[ImageEntry | int] = (), *, together: bool = False
) -> list[Query]:
    """Return a query for each image, or one of all of them, each less the images that answers should not be like."""
    groups = [tuple(like)] if together else [(image,) for image in like]
    return [Query(group, tuple(unlike)) for group in groups]


@dataclass(frozen=True)
class Hit:
    """One neighbour of a query.

    Parameters
    ----------
    rank : int
        From 1.
    path : str
    score : float
        Cosine similarity, or what re-ranking put in its place.
    label : str or None
    row : int
        Where it stands in the index.
    """

    rank: int
    path: str
    score: float
    label: str | None
    row: int


@dataclass(frozen=True)
class QueryResult:
    """The neighbours of one query, nearest first.

    Parameters
    ----------
    query : str
        The image, or the images.
    hits : tuple of Hit
        With cosine similarities as scores.
    reason : str
        Why an image of it could not be read.
    """

    query: str
    hits: tuple[Hit, ...] = ()
    reason: str = ""


def query_images(
    index: ImageIndex,
    queries: Sequence[Query | ImageEntry],
    k: int = 10,
    options: ComputeOptions | None = None,
    *,
    weights: str | None = None,
    steps: RankingSteps | None = None,
    where: np.ndarray | None = None,
    rerank: bool = False,
) -> Iterator[QueryResult]:
    """Yield the neighbours of each query, in order; rows of the index that a query names are not among them.

    Parameters
    ----------
    index : ImageIndex
        From `featx.workflows.indexing.build_index`.
    queries : sequence of Query or ImageEntry
        An entry stands for a query by that image alone.
    k : int
        Neighbours a query.
    options : ComputeOptions, optional
        How to run the network, which is opened only where a query has an image of a file.
    weights : str, optional
        A file of weights, where the one used for the index has moved.
    steps : RankingSteps, optional
        Query expansion and re-ranking; none by default.
    where : ndarray of bool, shape (n,), optional
        Rows that may be found.
    rerank : bool
        Order the first ``steps.n_candidates``, and no fewer than `k`, anew by `featx.workflows.second_stage`, for the
        same object photographed differently. Scores are then those of the second stage, which does not know what a
        query should be unlike.

    Raises
    ------
    StoreError
        The index was made from plain vectors and does not say how images become features.
    WeightsNotFoundError
        The network's weights are in none of the places where they could be.
    FingerprintMismatchError
        The network that can be opened here is not the one that the index was made with.
    """
    asked = [Query((query,)) if isinstance(query, ImageEntry) else query for query in queries]
    embedder = QueryEmbedder(index, options, weights) if any(query.entries for query in asked) else None
    stage = None
    if rerank:
        from featx.workflows.second_stage import SecondStage, open_second_stage

        if embedder is None:
            stage = open_second_stage(index, options, weights=weights)
        else:  # with the network that is open already
            stage = SecondStage(index, embedder.computer.backbone, embedder.computer.options)
    start = 0
    while start < len(asked):
        block = _next_block(asked, start)
        start += len(block)
        yield from _answers(index, block, embedder, k, steps or RankingSteps(), where, stage)


class QueryEmbedder:
    """Turns images into the vectors that an index is searched with.

    Parameters
    ----------
    index : ImageIndex
    options : ComputeOptions, optional
        How to run the network.
    weights : str, optional
        A file of weights, where the one used for the index has moved.

    Raises
    ------
    StoreError, WeightsNotFoundError, FingerprintMismatchError
        As `query_images` does.
    """

    def __init__(self, index: ImageIndex, options: ComputeOptions | None, weights: str | None) -> None:
        self._index = index
        self._spec: FeatureSpec = index_spec(index)
        with moved_weights_explained(self._spec, weights):
            self.computer: FeatureComputer = self._spec.open(options, weights=weights)
        self._reducers: Mapping[str, Reducer] = reducers_of_index(
            index, {tap.key: tap.width for tap in self.computer.taps}
        )

    def vectors_of(self, entries: Sequence[ImageEntry]) -> tuple[dict[ImageEntry, np.ndarray], dict[ImageEntry, str]]:
        """Return the vector of each image that can be read, float32 of shape (d,), and the reasons of the others."""
        features, failures = self.computer.features_of(entries)
        readable = [place for place in range(len(entries)) if place not in failures]
        vectors: np.ndarray | list[np.ndarray] = []
        if readable:
            chosen = {key: features[key][readable] for key in self._spec.keys}
            reduced = {
                key: self._reducers[key].transform(found) if key in self._reducers else found
                for key, found in chosen.items()
            }
            vectors = self._index.embed(self._spec.join(reduced))
        found = {entries[place]: vector for place, vector in zip(readable, vectors, strict=True)}
        return found, {entries[place]: reason for place, reason in failures.items()}


def _next_block(queries: Sequence[Query], start: int) -> list[Query]:
    """Return the queries from a place on whose images are few enough to be in memory at once; at least one."""
    n_images = 0
    block: list[Query] = []
    for query in queries[start : start + _BLOCK]:
        n_images += len(query.entries)
        if block and n_images > _BLOCK:
            break
        block.append(query)
    return block


def _answers(
    index: ImageIndex,
    queries: Sequence[Query],
    embedder: QueryEmbedder | None,
    k: int,
    steps: RankingSteps,
    where: np.ndarray | None,
    stage: SecondStage | None,
) -> Iterator[QueryResult]:
    entries = list(dict.fromkeys(entry for query in queries for entry in query.entries))
    vectors, reasons = embedder.vectors_of(entries) if embedder is not None and entries else ({}, {})
    readable = [query for query in queries if not any(entry in reasons for entry in query.entries)]
    depth = k if stage is None else max(k, steps.n_candidates)
    rankings = iter(_rankings(index, readable, vectors, depth, steps, where))
    for query in queries:
        failed = [f"{entry.path}: {reasons[entry]}" for entry in query.entries if entry in reasons]
        if failed:
            reason = "; ".join(failed) if len(query.entries) > 1 else reasons[query.entries[0]]
            yield QueryResult(query.name(index), reason=reason)
        else:
            rows, scores = next(rankings)
            if stage is not None:
                rows, scores = stage.order(query.like, rows[rows >= 0], max(k, steps.n_candidates))
            yield QueryResult(query.name(index), _hits(index, rows[:k], scores))


def _rankings(
    index: ImageIndex,
    queries: Sequence[Query],
    vectors: Mapping[ImageEntry, np.ndarray],
    k: int,
    steps: RankingSteps,
    where: np.ndarray | None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield rows and scores of each query, without the rows that it names itself."""
    if not queries:
        return

    def vector_of(image: ImageEntry | int) -> np.ndarray:
        return vectors[image] if isinstance(image, ImageEntry) else index.take(np.array([image]))[0]

    asked = np.stack(
        [combined([vector_of(i) for i in query.like], [vector_of(i) for i in query.unlike]) for query in queries]
    )
    rows, scores = rank(index, asked, k, steps, where=where, without=[query.rows for query in queries])
    yield from zip(rows, scores, strict=True)


def _hits(index: ImageIndex, rows: np.ndarray, scores: np.ndarray) -> tuple[Hit, ...]:
    ranked = enumerate(zip(rows.tolist(), scores.tolist(), strict=False), start=1)
    return tuple(
        Hit(rank, index.paths[row], score, index.labels[row], row) for rank, (row, score) in ranked if row >= 0
    )
