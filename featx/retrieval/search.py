"""Exact search: FAISS finds candidates fast, and NumPy decides among them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from featx.retrieval.faiss_library import import_faiss

_QUERIES_PER_BLOCK = 256
_ROWS_PER_BLOCK = 4096
_SLACK = 32


@dataclass(frozen=True)
class SearchResult:
    """The nearest rows of each query, best first; equal scores in the order of their ids.

    Attributes
    ----------
    ids : ndarray of int64, shape (n_queries, k)
        Numbers of the images, which never change.
    rows : ndarray of int64, shape (n_queries, k)
        Where they stand in the index now: positions in ``index.paths``, ``index.labels``, ``index.vectors``.
    scores : ndarray of float32, shape (n_queries, k)
        Cosine similarities, −1 to 1.
    paths : list of list of str
        Paths of these rows.
    labels : list of list of str or None
        Their labels, None where a row has none.
    """

    ids: np.ndarray
    rows: np.ndarray
    scores: np.ndarray
    paths: list[list[str]]
    labels: list[list[str | None]]

    @property
    def distances(self) -> np.ndarray:
        """Cosine distances, 1 − score; float32 of shape (n_queries, k)."""
        return 1 - self.scores


def nearest(queries: np.ndarray, vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return ids and cosines of the k vectors nearest to each query, ordered by score, then id.

    A score is the dot product of two float32 vectors, summed in float64 and rounded to float32. It depends on the two
    vectors alone, so that equal vectors tie wherever they stand.

    Parameters
    ----------
    queries : ndarray of float32, shape (n_queries, d)
        Of length 1, or 0.
    vectors : ndarray of float32, shape (n, d), C order
        Of length 1, or 0.
    k : int
        1 to n.

    Returns
    -------
    ids : ndarray of int64, shape (n_queries, k)
    scores : ndarray of float32, shape (n_queries, k)

    Notes
    -----
    FAISS computes in float32, in an order that depends on where a vector stands, and drops any of several tied vectors
    at the k-th place. So it is asked for a few more than k, these are scored again, and it is asked for twice as many
    while one that it left out might still belong to the k best. Many near-ties cost time, never correctness.
    """
    ids = np.empty((len(queries), k), dtype=np.int64)
    scores = np.empty((len(queries), k), dtype=np.float32)
    is_zero = ~queries.any(axis=1)  # everything ties at 0 with a zero query
    ids[is_zero], scores[is_zero] = np.arange(k), 0.0
    waiting = np.flatnonzero(~is_zero)
    n_candidates = min(k + _SLACK, len(vectors))
    while len(waiting):
        undecided: list[int] = []
        for start in range(0, len(waiting), _QUERIES_PER_BLOCK):
            rows = waiting[start : start + _QUERIES_PER_BLOCK]
            found_scores, found = _search_faiss(queries[rows], vectors, n_candidates)
            for row, approximate, candidates in zip(rows, found_scores, found, strict=True):
                ids[row], scores[row] = best_of(queries[row], vectors, candidates, k)
                if n_candidates < len(vectors) and approximate[-1] + rounding_of(vectors) >= scores[row, -1]:
                    undecided.append(int(row))
        waiting = np.array(undecided, dtype=np.int64)
        n_candidates = min(2 * n_candidates, len(vectors))
    return ids, scores


def rounding_of(vectors: np.ndarray) -> float:
    """Return how far a float32 dot product of vectors of length 1 may lie from ours (Higham 2002, section 3.1).

    Twice the unit roundoff for each of d products, and a few more for the rounding of lengths and of our result.
    """
    return (vectors.shape[1] + 8) * 2.0**-23


def best_of(query: np.ndarray, vectors: Any, candidates: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the k best candidates of one query in their final order, and their scores, as `nearest` defines them.

    Parameters
    ----------
    query : ndarray of float32, shape (d,)
        Of length 1, or 0.
    vectors : array-like of shape (n, d)
        Anything that gives rows by an array of their numbers.
    candidates : ndarray of int64, shape (m,)
        Rows of `vectors`, none twice.
    k : int
        Fewer come back where there are fewer candidates.
    """
    scores = _score(query, vectors, candidates)
    order = np.lexsort((candidates, -scores))[:k]
    return candidates[order], scores[order]


def _score(query: np.ndarray, vectors: Any, rows: np.ndarray) -> np.ndarray:
    """Return the float32 cosine of the query with each of these rows."""
    if not len(rows):
        return np.empty(0, np.float32)
    wide = query.astype(np.float64)
    blocks = [
        # a sum along each row, not a matrix product: BLAS would sum a row in an order that depends on its neighbours
        (vectors[rows[start : start + _ROWS_PER_BLOCK]] * wide).sum(axis=1)
        for start in range(0, len(rows), _ROWS_PER_BLOCK)
    ]
    # vectors of length 1 are so but for rounding, and a cosine is not
    return np.clip(np.concatenate(blocks), -1, 1).astype(np.float32)


def _search_faiss(queries: np.ndarray, vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return FAISS' own scores and ids; its flat search without an index object, so that vectors stay plain arrays."""
    faiss = import_faiss()
    scores, ids = faiss.knn(np.ascontiguousarray(queries), vectors, k, metric=faiss.METRIC_INNER_PRODUCT)
    return scores, ids
