"""Search over vectors that may not all take part, or fit into memory: exact, or exact among what is proposed."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from featx.retrieval.faiss_library import import_faiss, n_search_threads
from featx.retrieval.search import best_of, nearest, rounding_of

if TYPE_CHECKING:
    from featx.retrieval.structures import Structure
    from featx.retrieval.tuning import Tuning
    from featx.retrieval.vector_rows import VectorRows

_BLOCK_BYTES = 32 * 2**20
_SLACK = 32  # candidates more than asked for
_FEWEST_THREADS = 2


def nearest_places(
    queries: np.ndarray, vectors: VectorRows, k: int, places: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the k nearest of some rows to each query, exactly, ordered by score, then place.

    Parameters
    ----------
    queries : ndarray of float32, shape (n_queries, d)
        Of length 1, or 0.
    vectors : VectorRows
        Of length 1, or 0.
    k : int
        1 to the number of places.
    places : ndarray of int64, optional
        Rows that take part, ascending; all by default.

    Returns
    -------
    places : ndarray of int64, shape (n_queries, k)
    scores : ndarray of float32, shape (n_queries, k)
    """
    if places is None and vectors.in_memory:
        return nearest(queries, vectors.as_array(), k)
    n_places = len(vectors) if places is None else len(places)
    candidates, approximate = _best_by_faiss(queries, vectors, min(k + _SLACK, n_places), places)
    found, scores = best_proposed(queries, vectors, candidates, k)
    # As in `nearest`: one that FAISS left out might still belong to the k best, because of rounding or many ties.
    in_doubt = approximate[:, -1] + rounding_of(queries) >= scores[:, -1]
    if candidates.shape[1] < n_places and in_doubt.any():
        found[in_doubt], scores[in_doubt] = _nearest_by_blocks(queries[in_doubt], vectors, k, places)
    return found, scores


def _best_by_faiss(
    queries: np.ndarray, vectors: VectorRows, n: int, places: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the n best places of each query by FAISS' own scores, and these, best first; in one pass by blocks."""
    faiss, queries = import_faiss(), np.ascontiguousarray(queries)
    best, best_scores = np.empty((len(queries), 0), np.int64), np.empty((len(queries), 0), np.float32)
    for numbers, block in _blocks(vectors, places):
        scores, found = faiss.knn(queries, block, min(n, len(block)), metric=faiss.METRIC_INNER_PRODUCT)
        best, best_scores = _merged(best, best_scores, numbers[found], scores, n)
    return best, best_scores


def _nearest_by_blocks(
    queries: np.ndarray, vectors: VectorRows, k: int, places: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return what `nearest_places` does, with an exact search of each block: slower, and right however many tie."""
    best, best_scores = np.empty((len(queries), 0), np.int64), np.empty((len(queries), 0), np.float32)
    for numbers, block in _blocks(vectors, places):
        found, scores = nearest(queries, block, min(k, len(block)))
        best, best_scores = _merged(best, best_scores, numbers[found], scores, k)
    return best, best_scores


def _merged(
    best: np.ndarray, best_scores: np.ndarray, found: np.ndarray, scores: np.ndarray, n: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the n best of both; blocks come in the order of places, and a stable sort keeps it among equal scores."""
    best, best_scores = np.concatenate([best, found], axis=1), np.concatenate([best_scores, scores], axis=1)
    order = np.argsort(-best_scores, axis=1, kind="stable")[:, :n]
    return np.take_along_axis(best, order, axis=1), np.take_along_axis(best_scores, order, axis=1)


def best_proposed(
    queries: np.ndarray, vectors: VectorRows, proposals: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the k best of the places that were proposed for each query, by exact scores.

    Parameters
    ----------
    queries : ndarray of float32, shape (n_queries, d)
        Of length 1, or 0.
    vectors : VectorRows
        Of length 1, or 0.
    proposals : ndarray of int64, shape (n_queries, m)
        Places, in any order, none twice; −1 is none.
    k : int
        At least 1.

    Returns
    -------
    places : ndarray of int64, shape (n_queries, k)
        −1 behind the last where fewer were proposed.
    scores : ndarray of float32, shape (n_queries, k)
        −infinity there.
    """
    found = np.full((len(queries), k), -1, np.int64)
    scores = np.full((len(queries), k), -np.inf, np.float32)

    def score(row: int) -> None:
        proposed = np.sort(proposals[row][proposals[row] >= 0])  # in the order of the file
        order, its_scores = best_of(queries[row], vectors.take(proposed), np.arange(len(proposed)), k)
        found[row, : len(order)], scores[row, : len(order)] = proposed[order], its_scores

    n_threads = min(n_search_threads(), len(queries))
    if n_threads < _FEWEST_THREADS:
        for row in range(len(queries)):
            score(row)
        return found, scores
    # reading from a file and NumPy's sums both let other threads run
    with ThreadPoolExecutor(n_threads) as pool:
        list(pool.map(score, range(len(queries))))
    return found, scores


def proposed_places(
    structure: Structure,
    tuning: Tuning,
    queries: np.ndarray,
    vectors: VectorRows,
    k: int,
    allowed: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return k places near to each query: proposed with tuned parameters, then scored exactly.

    Parameters
    ----------
    structure : Structure
        Of all places.
    tuning : Tuning
        Whose chosen parameters are used; for a larger k than its wish, more is proposed in proportion.
    queries : ndarray of float32, shape (n_queries, d)
        Of length 1, or 0.
    vectors : VectorRows
        All places.
    k : int
        1 to the number of allowed places.
    allowed : ndarray of int64, optional
        Places that may be found; all by default.

    Returns
    -------
    places : ndarray of int64, shape (n_queries, k)
    scores : ndarray of float32, shape (n_queries, k)

    Notes
    -----
    Where fewer than k are proposed for a query, it is searched exactly.
    """
    parameters = tuning.chosen.parameters
    n_candidates = max(k, -(-parameters.n_candidates * k // tuning.wish.k))
    removed = None
    if allowed is not None:
        removed = np.ones(len(vectors), bool)
        removed[allowed] = False
    proposals = structure.propose(queries, min(n_candidates, len(vectors)), parameters, removed)
    places, scores = best_proposed(queries, vectors, proposals, k)
    short = np.flatnonzero(places[:, -1] < 0)
    if len(short):
        places[short], scores[short] = nearest_places(queries[short], vectors, k, allowed)
    return places, scores


def _blocks(vectors: VectorRows, places: np.ndarray | None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield places and their vectors."""
    n_rows = max(1, _BLOCK_BYTES // (4 * vectors.width))
    if places is None:
        start = 0
        for block in vectors.blocks(n_rows):
            yield np.arange(start, start + len(block)), block
            start += len(block)
        return
    for start in range(0, len(places), n_rows):
        chosen = places[start : start + n_rows]
        yield chosen, vectors.take(chosen)
