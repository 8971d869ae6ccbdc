"""Vectors moved towards their neighbours: α-weighted query expansion, and the same for the rows of the database."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from featx.errors import UsageError
from featx.retrieval.vectors import unit_vectors

Search = Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]
Take = Callable[[np.ndarray], np.ndarray]


def expand_queries(
    queries: np.ndarray, neighbours: np.ndarray, scores: np.ndarray, *, alpha: float = 3.0
) -> np.ndarray:
    """Return each query plus its neighbours, each neighbour times score to the power of α, brought to length 1.

    Parameters
    ----------
    queries : ndarray of shape (q, d)
        Of length 1; a query itself has weight 1.
    neighbours : ndarray of shape (q, m, d)
        Vectors of the rows that were found first for each query, length 1.
    scores : ndarray of shape (q, m)
        Their cosines with the query. A neighbour of score 0 or less does not count; fill with ``-inf`` where a query
        has fewer than m.
    alpha : float
        0 or more: 0 gives all neighbours weight 1 (average query expansion), larger values favour the nearest.

    Returns
    -------
    ndarray of float32, shape (q, d)

    Raises
    ------
    UsageError
        For shapes that do not fit, a negative α, NaN.

    References
    ----------
    F. Radenović, G. Tolias, O. Chum: Fine-tuning CNN image retrieval with no human annotation, TPAMI 2018
    (arXiv 1711.02512), section 3.4. O. Chum, J. Philbin, J. Sivic, M. Isard, A. Zisserman: Total recall, ICCV 2007
    (α = 0).

    Examples
    --------
    >>> import numpy as np
    >>> expand_queries(np.array([[1.0, 0.0]]), np.array([[[0.8, 0.6]]]), np.array([[0.8]]), alpha=1).round(2)
    array([[0.96, 0.28]], dtype=float32)
    """
    _check_shapes(queries, neighbours, scores)
    if not 0 <= alpha < np.inf:
        raise UsageError(f"alpha={alpha} was given; allowed are 0 (all neighbours alike) and more, such as 3.")
    if np.isnan(scores).any():
        raise UsageError("scores hold NaN; needed are cosines, or -inf where there is no neighbour. Search again.")
    wide = np.maximum(scores, 0).astype(np.float64)
    weights = np.where(wide > 0, wide**alpha, 0.0)
    counted = np.where((weights > 0)[:, :, None], neighbours, 0)  # what fills places without a neighbour may be NaN
    moved = queries + np.einsum("qm,qmd->qd", weights, counted)
    return unit_vectors(moved, what="queries")


def augment_blocks(
    take: Take,
    n_rows: int,
    search: Search,
    *,
    n_neighbours: int = 10,
    alpha: float = 3.0,
    block_rows: int = 1024,
) -> Iterator[np.ndarray]:
    """Yield the rows of a database, each moved towards its nearest neighbours in it, in order and in blocks.

    Every row becomes what `expand_queries` makes of it, the row itself not counted among its neighbours. Search is then
    as before: the cost lies in the building, the number of vectors does not grow.

    Parameters
    ----------
    take : callable
        From row numbers, int64 of shape (m,), to their vectors, float32 of shape (m, d), length 1. All neighbours come
        from it: it must go on giving the rows as they were.
    n_rows : int
        Rows of the database.
    search : callable
        From vectors of shape (b, d) and k to row numbers and cosines, each of shape (b, k), best first; −1 where fewer
        were found. `featx.retrieval.scanning.nearest_places` is exact.
    n_neighbours : int
        Neighbours of a row, without the row itself; lowered to the others that there are.
    alpha : float
        As in `expand_queries`.
    block_rows : int
        Rows at a time. Memory is about 8·(n_neighbours + 2)·d bytes for each.

    Yields
    ------
    ndarray of float32, shape (at most block_rows, d)

    Raises
    ------
    UsageError
        For fewer than one neighbour, and as in `expand_queries`.

    Notes
    -----
    With an exact search all pairs are compared: n rows of d columns take n²·d multiplications, and a database outside
    of memory is read once for each block. Up to some 100,000 rows that is minutes; above, search in an index.

    References
    ----------
    R. Arandjelović, A. Zisserman: Three things everyone should know to improve object retrieval, CVPR 2012.
    A. Gordo, J. Almazán, J. Revaud, D. Larlus: End-to-end learning of deep visual representations for image retrieval,
    IJCV 2017, section 4.3 (weighted).
    """
    if n_neighbours < 1 or block_rows < 1:
        raise UsageError(
            f"{n_neighbours} neighbours in blocks of {block_rows} rows were asked for; allowed are 1 and more. Leave "
            "augmentation out where no neighbour is to count."
        )
    n_asked = min(n_neighbours + 1, n_rows)
    for start in range(0, n_rows, block_rows):
        rows = np.arange(start, min(start + block_rows, n_rows))
        vectors = take(rows)
        found, scores = search(vectors, n_asked)
        found, scores = _without_self(rows, found, scores, n_asked - 1)
        neighbours = take(np.maximum(found, 0).reshape(-1)).reshape(*found.shape, vectors.shape[1])
        yield expand_queries(vectors, neighbours, scores, alpha=alpha)


def _without_self(
    rows: np.ndarray, found: np.ndarray, scores: np.ndarray, n_kept: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the first neighbours that are not the row itself; unfilled places last, with score −inf.

    Where copies pushed the row itself off the end, its last neighbour is one too many.
    """
    unwanted = (found == rows[:, None]) | (found < 0)
    order = np.argsort(unwanted, axis=1, kind="stable")[:, :n_kept]
    kept = np.take_along_axis(np.where(unwanted, -np.inf, scores), order, axis=1)
    return np.where(np.isneginf(kept), -1, np.take_along_axis(found, order, axis=1)), kept


def _check_shapes(queries: np.ndarray, neighbours: np.ndarray, scores: np.ndarray) -> None:
    fits = queries.ndim == 2 and scores.ndim == 2 and len(scores) == len(queries)
    if not fits or neighbours.shape != (*scores.shape, queries.shape[1]):
        raise UsageError(
            f"queries of shape {queries.shape}, neighbours of shape {neighbours.shape} and scores of shape "
            f"{scores.shape} do not fit; needed are (q, d), (q, m, d) and (q, m)."
        )
