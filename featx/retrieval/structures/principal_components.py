"""Principal components of vectors, for structures that keep fewer numbers than a vector has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

if TYPE_CHECKING:
    from featx.retrieval.vector_rows import VectorRows

_MOST_ROWS = 50_000


@dataclass(frozen=True)
class PrincipalComponents:
    """Directions of most variance, best first.

    Attributes
    ----------
    mean : ndarray of float32, shape (d,)
    components : ndarray of float32, shape (d, d)
        One a row, of length 1.
    variances : ndarray of float64, shape (d,)
        Along each of them, descending.
    """

    mean: np.ndarray
    components: np.ndarray
    variances: np.ndarray

    def transform(self, vectors: np.ndarray, n_components: int) -> np.ndarray:
        """Return the first components of vectors, float32 of shape (n, n_components)."""
        return (vectors - self.mean) @ self.components[:n_components].T

    def faiss_transforms(self, faiss: Any, n_components: int) -> list[Any]:
        """Return FAISS' own objects for the same, in order.

        They are two, for a linear transform with a bias cannot be undone: what the mean has beside the components
        would be lost.
        """
        centring = faiss.CenteringTransform(len(self.mean))
        faiss.copy_array_to_vector(self.mean, centring.mean)
        centring.is_trained = True
        linear = faiss.LinearTransform(len(self.mean), n_components, False)
        faiss.copy_array_to_vector(np.ascontiguousarray(self.components[:n_components]).ravel(), linear.A)
        linear.is_trained = True
        linear.set_is_orthonormal()
        return [centring, linear]


def fit_components(vectors: VectorRows, rows: np.ndarray) -> PrincipalComponents:
    """Return the principal components of some rows.

    Parameters
    ----------
    vectors : VectorRows
        Of shape (n, d).
    rows : ndarray of int64
        Rows to learn from, at random; at most the first 50,000 are read, block by block. Memory is 16·d² bytes and
        one block.
    """
    rows = np.sort(rows[:_MOST_ROWS])
    total, products = np.zeros(vectors.width), np.zeros((vectors.width, vectors.width))
    for start in range(0, len(rows), 4096):
        block = vectors.take(rows[start : start + 4096])
        total += block.sum(axis=0, dtype=np.float64)
        products += block.T @ block  # float32 within a block, float64 from block to block
    mean = total / len(rows)
    # On few columns threads of BLAS wait for each other longer than they work.
    with threadpool_limits(limits=1):
        variances, columns = np.linalg.eigh(products / len(rows) - np.outer(mean, mean))
    components = np.ascontiguousarray(columns[:, ::-1].T, dtype=np.float32)
    return PrincipalComponents(mean.astype(np.float32), components, np.maximum(variances[::-1], 0.0))
