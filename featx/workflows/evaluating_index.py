"""How good the neighbours of an index are: against labels or a ground truth, and against exact search."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from featx.errors import UsageError
from featx.retrieval.metrics import RankingMetrics, measure_rankings
from featx.retrieval.ranking import RankingSteps, rank
from featx.retrieval.tuning.sweeping import mean_interval
from featx.workflows.query_sets import QuerySet

if TYPE_CHECKING:
    from featx.retrieval import ImageIndex
    from featx.workflows.second_stage import SecondStage

_BLOCK = 256  # queries whose rankings are in memory at a time
_FULL_DEPTH = 10_000  # rows up to which exact rankings are taken as a whole
_DEPTH = 100
_KS = (1, 5, 10, 100)
_NONE = np.empty(0, np.int64)

Relevant = Callable[[int], np.ndarray]


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
        Of its mean over queries, 95 %; see `featx.retrieval.tuning.sweeping.mean_interval`.
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
        See `featx.workflows.query_sets`.
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
        mean, interval = float(np.mean(overlaps)), mean_interval(np.array(overlaps))
        stages.append(StageEvaluation(name, metrics, mean, interval, len(first) / max(shallow.seconds, 1e-9)))
    said = "labels" if truth is None else "the ground truth"
    return IndexEvaluation(tuple(stages), min(k, depth), depth, queries, said, depth == n_rows)


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
