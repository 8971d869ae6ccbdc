"""Matches looked for again where an alignment says that they should be: guided matching.

The first matches of a candidate are the best of the whole query, and on a blurred photo many of the right ones are
beaten by something else somewhere. Once it is known where the candidate would lie, only what lies there is asked. So
that a candidate gains nothing from things that look alike all over the query, the same is asked a little off, and what
is found there is taken off.

References
----------
R. Hartley, A. Zisserman: Multiple View Geometry in Computer Vision, 2nd edition 2004, section 4.8 (guided matching).
"""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from featx.retrieval.local.places import LocalPlaces

_MOST_NEAR = 32  # places of the query that a place of a candidate is compared with
_OFF = 2.5  # tolerances, in four directions, for what is found by chance
_RIDGE = 1e-2  # as in `geometry`


class GuidedMatching:
    """Places of one query, by where they are.

    Parameters
    ----------
    places : LocalPlaces
        Of the query.
    average : ndarray of float32, shape (d,)
        The average place of the candidates; its similarity is taken off.
    tolerance : float
        How far off a match may lie, of the query's longer side.
    """

    def __init__(self, places: LocalPlaces, average: np.ndarray, tolerance: float) -> None:
        self._places = places
        self._expected = places.vectors @ average.astype(np.float32)
        self._tolerance = tolerance
        self._tree = cKDTree(places.positions)

    def similarity(self, vectors: np.ndarray, positions: np.ndarray, transform: np.ndarray) -> float:
        """Return the mean similarity of a candidate's places to what lies where they should be, above chance.

        Parameters
        ----------
        vectors : ndarray of float32, shape (n, d)
            The candidate's places.
        positions : ndarray of float32, shape (n, 2)
            Where they lie on the candidate.
        transform : ndarray of float32, shape (2, 3)
            Affine, from there to the query. It is refined once on the new matches; the better of both counts.
        """
        source = np.column_stack([positions, np.ones(len(positions))])
        similarity, matched = self._found(vectors, source @ transform.T)
        weighted = source * similarity[:, None]
        refined = np.linalg.solve(
            weighted.T @ source + _RIDGE * np.eye(3), weighted.T @ matched + _RIDGE * transform.T
        ).T
        best = max(similarity.mean(), self._found(vectors, source @ refined.T)[0].mean())
        steps = _OFF * self._tolerance * np.array([[1, 0], [-1, 0], [0, 1], [0, -1]])
        chance = [self._found(vectors, source @ transform.T + step)[0].mean() for step in steps]
        return max(0.0, float(best - np.mean(chance)))

    def _found(self, vectors: np.ndarray, where: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return similarity, 0 where there is nothing, times closeness, (n,), and position, (n, 2), of the best."""
        n_near = min(_MOST_NEAR, len(self._places.vectors))
        distances, near = self._tree.query(where, k=np.arange(1, n_near + 1), distance_upper_bound=self._tolerance)
        inside = np.isfinite(distances)
        near = np.where(inside, near, 0)
        compared = np.matmul(self._places.vectors[near], vectors[:, :, None])[:, :, 0] - self._expected[near]
        compared = np.where(inside, np.maximum(compared, 0) * (1 - np.minimum(distances / self._tolerance, 1) ** 2), 0)
        best = compared.argmax(axis=1)
        rows = np.arange(len(where))
        return compared[rows, best], self._places.positions[near[rows, best]]
