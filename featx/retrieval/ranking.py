"""A search in several steps: query expansion, and re-ranking of what was found first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from featx.errors import UsageError
from featx.retrieval.expansion import expand_queries
from featx.retrieval.reciprocal import reciprocal_scores
from featx.retrieval.vectors import unit_vectors

if TYPE_CHECKING:
    from featx.retrieval.index import ImageIndex

_UNLIKE_WEIGHT = 0.5  # less than 1, so that what both kinds have in common still counts for the query


@dataclass(frozen=True)
class RankingSteps:
    """What a search does beside looking for the nearest.

    Parameters
    ----------
    expand : int
        First neighbours that a query is averaged with before it searches again; 0 for none.
    alpha : float
        Power of their scores, by which they are weighed (see `featx.retrieval.expansion`).
    reciprocal : bool
        Order the first `n_candidates` anew by their k-reciprocal neighbours (see `featx.retrieval.reciprocal`).
    n_candidates : int
        How many are ordered anew.

    Raises
    ------
    UsageError
        A number is out of its range.
    """

    expand: int = 0
    alpha: float = 3.0
    reciprocal: bool = False
    n_candidates: int = 100

    def __post_init__(self) -> None:
        if self.expand < 0 or not 0 <= self.alpha < np.inf or self.n_candidates < 1:
            raise UsageError(
                f"expand={self.expand}, alpha={self.alpha}, n_candidates={self.n_candidates}; the first two are 0 or"
                " more, the last is 1 or more"
            )


def rank(
    index: ImageIndex,
    vectors: np.ndarray,
    k: int,
    steps: RankingSteps,
    *,
    where: np.ndarray | None = None,
    without: Sequence[Sequence[int]] | None = None,
    exact: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of an index that are most like each query, after all steps.

    Parameters
    ----------
    index : ImageIndex
        Where to search.
    vectors : ndarray of float32, shape (n_queries, d)
        Queries that went through ``index.embed``.
    k : int
        Lowered to the rows that there are.
    steps : RankingSteps
        What to do besides.
    where : ndarray of bool, shape (n,), optional
        Rows that may be found. Neighbours that a query is expanded by may be others: they are no answers, and the more
        there are to choose from, the better they are.
    without : sequence of sequences of int, optional
        For each query, rows that it is made of: they are neither found, nor are they neighbours that it is expanded by.
    exact : bool
        Do without the structure of the index.

    Returns
    -------
    rows : ndarray of int64, shape (n_queries, k)
        Best first; −1 behind the last where fewer may be found.
    scores : ndarray of float32, shape (n_queries, k)
        Cosines, −infinity where there is no row; with `reciprocal`, the rows ordered anew have their new scores, which
        can only be compared with each other.
    """
    named = [[] for _ in vectors] if without is None else [list(rows) for rows in without]

    def search(queries: np.ndarray, depth: int, among: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        n_more = max((len(rows) for rows in named), default=0)
        found = index.search_vectors(queries, depth + n_more, where=among, exact=exact)
        return _left_out(found.rows, found.scores, named, depth)

    if steps.expand:
        rows, scores = search(vectors, steps.expand, None)
        neighbours = np.stack([index.take(np.maximum(its_rows, 0)) for its_rows in rows])
        vectors = expand_queries(vectors, neighbours, scores, alpha=steps.alpha)
    rows, scores = search(vectors, max(k, steps.n_candidates) if steps.reciprocal else k, where)
    if steps.reciprocal:
        for query, its_rows, its_scores in zip(vectors, rows, scores, strict=True):
            n_first = int((its_rows[: steps.n_candidates] >= 0).sum())
            _order_anew(index, query, its_rows[:n_first], its_scores[:n_first])
    return rows[:, :k], scores[:, :k]


def _left_out(
    rows: np.ndarray, scores: np.ndarray, named: Sequence[Sequence[int]], k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return rankings without the rows that are named for each, at most k long."""
    dropped = np.stack([np.isin(its_rows, its_named) for its_rows, its_named in zip(rows, named, strict=True)])
    order = np.argsort(dropped, axis=1, kind="stable")[:, :k]
    dropped, rows, scores = (np.take_along_axis(values, order, axis=1) for values in (dropped, rows, scores))
    return np.where(dropped, -1, rows), np.where(dropped, -np.inf, scores).astype(np.float32)


def _order_anew(index: ImageIndex, query: np.ndarray, rows: np.ndarray, scores: np.ndarray) -> None:
    """Change rows and scores of one query in place."""
    if not len(rows):
        return
    new = reciprocal_scores(query, index.take(rows))
    order = np.argsort(-new, kind="stable")
    rows[:], scores[:] = rows[order], new[order]


def combined(like: Sequence[np.ndarray], unlike: Sequence[np.ndarray] = ()) -> np.ndarray:
    """Return one query for images that its answers should be like, and others that they should not be like.

    Parameters
    ----------
    like : sequence of ndarray of float32, shape (d,)
        Unit vectors, at least one.
    unlike : sequence of ndarray of float32, shape (d,)
        Unit vectors.

    Returns
    -------
    ndarray of float32, shape (d,)
        Of length 1, or 0: the mean of `like`, less half the mean of `unlike`.

    References
    ----------
    J. J. Rocchio: Relevance feedback in information retrieval, in The SMART retrieval system, 1971.
    """
    if len(like) == 1 and not unlike:
        return like[0]
    query = np.mean(np.stack(like), axis=0, dtype=np.float64, keepdims=True)
    if unlike:
        query -= _UNLIKE_WEIGHT * np.mean(np.stack(unlike), axis=0, dtype=np.float64, keepdims=True)
    return unit_vectors(query, what="queries")[0]
