"""How good the neighbours of an index are: against labels or a ground truth, and against exact search."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from featx.errors import StoreError, UsageError
from featx.extraction import FeatureSpec
from featx.images import ImageEntry
from featx.retrieval.metrics import RankingMetrics, measure_rankings
from featx.retrieval.ranking import RankingSteps, rank
from featx.store import check_same
from featx.workflows.indexing import JoinedFeatures, index_spec
from featx.workflows.originals import original_location
from featx.workflows.searching import QueryEmbedder

if TYPE_CHECKING:
    from featx.extraction import ComputeOptions
    from featx.images import ImageListing
    from featx.retrieval import ImageIndex
    from featx.store import FeatureStore
    from featx.workflows.second_stage import SecondStage

_BLOCK = 256  # queries whose rankings are in memory at a time
_FULL_DEPTH = 10_000  # rows up to which exact rankings are taken as a whole
_DEPTH = 100
_KS = (1, 5, 10, 100)
_NONE = np.empty(0, np.int64)

Relevant = Callable[[int], np.ndarray]


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


@dataclass(frozen=True)
class StageEvaluation:
    """What one way of searching finds.

    Attributes
    ----------
    name : str
        Such as ``exact search``, ``the index``, ``+ expand 5``.
    metrics : RankingMetrics
        Against what should be found.
    ann_recall : float
        Share of the exact k nearest that are among its first k; after re-ranking, how much of them is left.
    ann_interval : tuple of float
        Of its mean over queries, 95 %.
    queries_per_second : float
        On all threads, in blocks of 256 queries.
    """

    name: str
    metrics: RankingMetrics
    ann_recall: float
    ann_interval: tuple[float, float]
    queries_per_second: float


@dataclass(frozen=True)
class IndexEvaluation:
    """What an index finds, step by step.

    Attributes
    ----------
    stages : tuple of StageEvaluation
        The first is exact search by cosine.
    k : int
        Of the recall against exact search.
    depth : int
        Rows in a ranking.
    queries : QuerySet
    truth : str
        What says which rows are right.
    is_whole : bool
        Whether rankings hold every row that may be found.
    """

    stages: tuple[StageEvaluation, ...]
    k: int
    depth: int
    queries: QuerySet
    truth: str
    is_whole: bool


def evaluate_index(
    index: ImageIndex,
    queries: QuerySet,
    *,
    truth: Sequence[tuple[str, str]] | None = None,
    k: int = 10,
    depth: int | None = None,
    steps: RankingSteps | None = None,
    where: np.ndarray | None = None,
    stage: SecondStage | None = None,
) -> IndexEvaluation:
    """Return what an index finds for queries: by exact search, by its structure if it has one, and after each step.

    Parameters
    ----------
    index : ImageIndex
        What is measured.
    queries : QuerySet
        See `own_queries`, `stored_queries` and `image_queries`.
    truth : sequence of (query path, index path), optional
        Which images should be found; by default those with the label of the query.
    k : int
        For the recall against exact search.
    depth : int, optional
        Rows in a ranking: by default all up to 10,000 where search is exact, else 100.
    steps : RankingSteps, optional
        Each is measured on top of those before it.
    where : ndarray of bool, shape (n,), optional
        Rows that may be found.
    stage : SecondStage, optional
        Measured last, on top of the steps.

    Raises
    ------
    UsageError
        No query has anything to find, or the truth names what there is not.
    """
    steps = steps or RankingSteps()
    n_rows = len(index) if where is None else int(np.sum(where))
    depth = depth or (n_rows if index.structure is None and n_rows <= _FULL_DEPTH else _DEPTH)
    depth = max(1, min(depth, n_rows))
    relevant = _by_truth(index, queries, truth, where) if truth is not None else _by_label(index, queries, where)
    stages: list[StageEvaluation] = []
    exact: list[np.ndarray] = []
    for name, its_steps, is_exact, is_last in _ways(index, steps, where, stage is not None):
        # Searched for k as well: for more, a structure proposes more, and misses fewer of the k nearest.
        shallow = _Timed(_rankings(index, queries, min(k, depth), its_steps, where, is_exact))
        first = [] if is_last else list(shallow)
        rankings: Iterator[np.ndarray] = _rankings(index, queries, depth, its_steps, where, is_exact)
        if is_last and stage is not None:
            shallow = _Timed(_reranked(rankings, stage, queries, steps.n_candidates))
            rankings = _noted(shallow, first, min(k, depth))
        pairs = ((found, relevant(number)) for number, found in enumerate(rankings))
        metrics = measure_rankings(pairs, _KS, query_left_out=bool((queries.rows >= 0).all()))
        exact = exact or first
        overlaps = [_overlap(found, nearest) for found, nearest in zip(first, exact, strict=True)]
        mean, interval = float(np.mean(overlaps)), _interval(overlaps)
        stages.append(StageEvaluation(name, metrics, mean, interval, len(first) / max(shallow.seconds, 1e-9)))
    said = "labels" if truth is None else "the ground truth"
    return IndexEvaluation(tuple(stages), min(k, depth), depth, queries, said, depth == n_rows)


def own_queries(
    index: ImageIndex, chosen: np.ndarray | None = None, truth: Sequence[tuple[str, str]] | None = None
) -> QuerySet:
    """Return rows of an index as queries: those for which `chosen` holds, else those that the truth names, or all
    that have a label.
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


class _Timed(Iterator[np.ndarray]):
    """An iterator that knows how long it has taken to give what it gave."""

    def __init__(self, items: Iterator[np.ndarray]) -> None:
        self._items = items
        self.seconds = 0.0

    def __next__(self) -> np.ndarray:
        started = time.perf_counter()
        try:
            return next(self._items)
        finally:
            self.seconds += time.perf_counter() - started


def _ways(
    index: ImageIndex, steps: RankingSteps, where: np.ndarray | None, has_stage: bool
) -> Iterator[tuple[str, RankingSteps, bool, bool]]:
    """Yield a name, the steps up to there, whether search is exact, and whether the second stage follows."""
    now = RankingSteps(n_candidates=steps.n_candidates)
    yield "exact search", now, True, False
    if index.structure is not None and where is None:
        yield "the index", now, False, False
    if steps.expand:
        now = replace(now, expand=steps.expand, alpha=steps.alpha)
        yield f"+ expand {steps.expand}", now, False, False
    if steps.reciprocal:
        now = replace(now, reciprocal=True)
        yield "+ reciprocal", now, False, False
    if has_stage:
        yield "+ rerank", now, False, True


def _reranked(
    rankings: Iterator[np.ndarray], stage: SecondStage, queries: QuerySet, n_candidates: int
) -> Iterator[np.ndarray]:
    """Yield rankings whose first rows the second stage has ordered anew."""
    for image, found in zip(queries.images, rankings, strict=True):
        first, _ = stage.order([image], found, n_candidates)
        yield np.concatenate([first, found[len(first) :]])


def _rankings(
    index: ImageIndex, queries: QuerySet, depth: int, steps: RankingSteps, where: np.ndarray | None, exact: bool
) -> Iterator[np.ndarray]:
    """Yield the rows found for each query, itself left out."""
    for start in range(0, len(queries.vectors), _BLOCK):
        block = slice(start, start + _BLOCK)
        own = [[row] if row >= 0 else [] for row in queries.rows[block].tolist()]
        rows, _ = rank(index, queries.vectors[block], depth, steps, where=where, without=own, exact=exact)
        yield from (found[found >= 0] for found in rows)


def _noted(rankings: Iterator[np.ndarray], first: list[np.ndarray], k: int) -> Iterator[np.ndarray]:
    """Pass rankings on, and note the first k rows of each."""
    for found in rankings:
        first.append(found[:k])
        yield found


def _overlap(found: np.ndarray, nearest: np.ndarray) -> float:
    """Return which share of the nearest rows was found."""
    return len(np.intersect1d(nearest, found)) / max(1, len(nearest))


def _by_label(index: ImageIndex, queries: QuerySet, where: np.ndarray | None) -> Relevant:
    """Return what gives the rows that have the label of a query; none where it has no label."""
    labels = np.array([label or "" for label in index.labels])
    allowed = np.ones(len(labels), bool) if where is None else np.asarray(where, bool)
    rows_of = {label: np.flatnonzero((labels == label) & allowed) for label in set(labels.tolist()) - {""}}

    def relevant(number: int) -> np.ndarray:
        rows = rows_of.get(queries.labels[number] or "", _NONE)
        return rows[rows != queries.rows[number]]

    return relevant


def _by_truth(
    index: ImageIndex, queries: QuerySet, truth: Sequence[tuple[str, str]], where: np.ndarray | None
) -> Relevant:
    """Return what gives the rows that a ground truth names for a query."""
    row_of = {path: row for row, path in enumerate(index.paths)}
    asked = set(queries.paths)
    strangers = [path for query, path in truth if query in asked and path not in row_of]
    if strangers or not any(query in asked for query, _ in truth):
        named = f"{strangers[0]!r} is not in the index" if strangers else f"no query is called {truth[0][0]!r}"
        raise UsageError(
            f"the ground truth does not go with the index and the queries: {named}; write paths as they do"
        )
    rows_of: dict[str, list[int]] = {}
    for query, path in (pair for pair in truth if pair[0] in asked):
        if where is None or (path in row_of and where[row_of[path]]):
            rows_of.setdefault(query, []).append(row_of[path])

    def relevant(number: int) -> np.ndarray:
        rows = np.array(rows_of.get(queries.paths[number], []), np.int64)
        return rows[rows != queries.rows[number]]

    return relevant


def _interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % interval of a mean, by the normal distribution."""
    half = 1.96 * float(np.std(values)) / math.sqrt(len(values))
    mean = float(np.mean(values))
    return max(0.0, mean - half), min(1.0, mean + half)
