"""k-reciprocal re-ranking: whether two images are neighbours of each other, and have their neighbours in common."""

from __future__ import annotations

import numpy as np

from featx.errors import UsageError


def reciprocal_scores(
    query: np.ndarray, candidates: np.ndarray, *, k1: int = 20, k2: int = 6, lambda_value: float = 0.6
) -> np.ndarray:
    """Return new scores of the rows that a search found for one query; higher is better.

    The score is (1 − λ)·J + λ·c, where c is the cosine and J, from 0 to 1, the Jaccard similarity of two
    neighbourhoods: of the query and of the candidate, in the pool of the query and all candidates.

    Parameters
    ----------
    query : ndarray of shape (d,)
        Of length 1.
    candidates : ndarray of shape (n, d)
        Vectors of the rows that were found, length 1, in any order. 50 to 200 do; there should be more than k1.
    k1 : int
        Neighbours of an image that may be reciprocal, 1 or more; those of a neighbour are half as many.
    k2 : int
        Neighbourhoods that are averaged to one, the image's own among them; 1 for none but its own.
    lambda_value : float
        Share of the cosine, 0 to 1. The paper takes 0.3, for galleries with a score of images of each person. Where an
        image has fewer neighbours that are right than k1, neighbourhoods mislead: 0.6 then loses a third of what 0.3
        does, and gains nearly as much elsewhere.

    Returns
    -------
    ndarray of float32, shape (n,)
        From −1 to 1, to be compared within one query only. Rows outside of the pool keep their places behind it.

    Raises
    ------
    UsageError
        For shapes that do not fit, NaN or infinity, and parameters out of range.

    Notes
    -----
    The paper's R, R* and V are `reciprocal`, `expanded` and `encoded` here. Distances are 1 − cosine. As in the
    authors' code an image belongs to its own neighbourhood, beside the k1. The paper builds neighbourhoods in the whole
    gallery and in advance; a pool of what was found needs no such preparation, but lacks the neighbours that candidates
    have elsewhere. Time is that of a few matrix products of (n + 1)² numbers and of n·(n + 1) minima.

    References
    ----------
    Z. Zhong, L. Zheng, D. Cao, S. Li: Re-ranking person re-identification with k-reciprocal encoding, CVPR 2017
    (arXiv 1701.08398).
    """
    _check(query, candidates, k1, k2, lambda_value)
    if not len(candidates):
        return np.empty(0, dtype=np.float32)
    pool = np.concatenate([query[None], candidates]).astype(np.float64)  # row 0 is the query
    cosines = pool @ pool.T
    order = _nearest_first(cosines)
    expanded = _expanded_neighbourhoods(order, k1)
    # encoded[p, g]: how much g belongs to the neighbourhood of p; each row sums to 1
    encoded = np.where(expanded, np.exp(cosines - 1), 0)
    encoded /= encoded.sum(axis=1, keepdims=True)
    n_averaged = min(k2, len(pool))
    averaged = np.zeros_like(encoded)
    for place in range(n_averaged):  # one at a time: all at once would be k2 times the memory
        averaged += encoded[order[:, place]] / n_averaged
    shared = np.minimum(averaged[0], averaged[1:]).sum(axis=1)
    jaccard = shared / (2 - shared)  # both rows sum to 1: the sum of maxima is 2 less the sum of minima
    return ((1 - lambda_value) * jaccard + lambda_value * cosines[0, 1:]).astype(np.float32)


def _nearest_first(cosines: np.ndarray) -> np.ndarray:
    """Return for each image all images, itself first, then by descending cosine; ties in the order of the pool."""
    distances = -cosines
    np.fill_diagonal(distances, -np.inf)  # before a copy of itself, too
    return np.argsort(distances, axis=1, kind="stable")


def _expanded_neighbourhoods(order: np.ndarray, k1: int) -> np.ndarray:
    """Return R*: bool, [p, g] is whether g is a reciprocal neighbour of p, or of enough that p and g have in common."""
    reciprocal = _reciprocal(order, k1)
    nearer = _reciprocal(order, round(k1 / 2))
    # numbers in place of bool: matrix products count
    common = reciprocal.astype(np.float32) @ nearer.T.astype(np.float32)  # [p, q]: members of q's that are in p's
    joins = reciprocal & (3 * common >= 2 * nearer.sum(axis=1))
    return reciprocal | (joins.astype(np.float32) @ nearer.astype(np.float32) > 0)


def _reciprocal(order: np.ndarray, k: int) -> np.ndarray:
    """Return bool, [p, g]: whether each is among the k nearest of the other, itself not counted but included."""
    near = np.zeros(order.shape, dtype=bool)
    np.put_along_axis(near, order[:, : k + 1], values=True, axis=1)
    return near & near.T


def _check(query: np.ndarray, candidates: np.ndarray, k1: int, k2: int, lambda_value: float) -> None:
    if query.ndim != 1 or candidates.ndim != 2 or candidates.shape[1] != len(query):
        raise UsageError(
            f"a query of shape {query.shape} and candidates of shape {candidates.shape} do not fit; needed are (d,) "
            "and (n, d). Give one query at a time."
        )
    if not (np.isfinite(query).all() and np.isfinite(candidates).all()):
        raise UsageError("the query or its candidates hold NaN or infinity. Leave them out or make them again.")
    if k1 < 1 or k2 < 1 or not 0 <= lambda_value <= 1:
        raise UsageError(
            f"k1={k1}, k2={k2} and lambda={lambda_value} were given; allowed are k1 and k2 of 1 or more and lambda "
            "from 0 to 1, such as 20, 6 and 0.6."
        )
