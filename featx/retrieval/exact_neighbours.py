"""Exact neighbours of many queries in one pass over vectors that need not fit into memory."""

from __future__ import annotations

import numpy as np

from featx.retrieval.faiss_indexes import row_ranges
from featx.retrieval.scanning import nearest_places
from featx.retrieval.search import _import_faiss, _rounding, best_of
from featx.retrieval.vector_rows import VectorRows

_SLACK = 32


def exact_neighbours(
    queries: np.ndarray, vectors: VectorRows, k: int, without: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the k nearest rows of each query, exactly, ordered by score, then row.

    Parameters
    ----------
    queries : ndarray of float32, shape (n_queries, d)
        Of length 1, or 0.
    vectors : VectorRows
        Of length 1, or 0; shape (n, d).
    k : int
        1 to the number of rows that take part.
    without : ndarray of int64, optional
        Rows that do not, ascending.

    Returns
    -------
    rows : ndarray of int64, shape (n_queries, k)
    scores : ndarray of float32, shape (n_queries, k)

    Notes
    -----
    FAISS' flat search runs over blocks, and a few more than k are kept of each query, scored as `nearest` does. Where
    one that was dropped might belong to the k best, because of rounding or many ties, the query is searched again by
    `nearest_places`, which is slower.
    """
    without = np.empty(0, np.int64) if without is None else without
    rows, approximate = _candidates(queries, vectors, min(k + _SLACK, len(vectors) - len(without)), without)
    found, scores = np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32)
    complete = rows.shape[1] == len(vectors) - len(without)
    undecided = []
    rounding = _rounding(queries)
    for number, query in enumerate(queries):
        candidates = np.sort(rows[number])
        order, scores[number] = best_of(query, vectors.take(candidates), np.arange(len(candidates)), k)
        found[number] = candidates[order]
        if not complete and approximate[number, -1] + rounding >= scores[number, -1]:
            undecided.append(number)
    if undecided:
        places = np.delete(np.arange(len(vectors)), without) if len(without) else None
        found[undecided], scores[undecided] = nearest_places(queries[undecided], vectors, k, places)
    return found, scores


def _candidates(queries: np.ndarray, vectors: VectorRows, n: int, without: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the n best rows of each query by FAISS' scores, and these, best first."""
    faiss = _import_faiss()
    queries = np.ascontiguousarray(queries)
    best, best_scores = np.empty((len(queries), 0), np.int64), np.empty((len(queries), 0), np.float32)
    for start, stop in row_ranges(len(vectors), vectors.width):
        numbers = np.arange(start, stop)
        left_out = without[np.searchsorted(without, start) : np.searchsorted(without, stop)] - start
        blocks = list(vectors.blocks(stop - start, start, stop))
        block = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
        if len(left_out):
            numbers, block = np.delete(numbers, left_out), np.delete(block, left_out, axis=0)
        if not len(block):
            continue
        scores, found = faiss.knn(queries, block, min(n, len(block)), metric=faiss.METRIC_INNER_PRODUCT)
        best = np.concatenate([best, numbers[found]], axis=1)
        best_scores = np.concatenate([best_scores, scores], axis=1)
        order = np.argsort(-best_scores, axis=1, kind="stable")[:, :n]
        best, best_scores = np.take_along_axis(best, order, 1), np.take_along_axis(best_scores, order, 1)
    return best, best_scores
