"""Which structures are worth a try for so many vectors, from cheap to dear to build, and what they will take."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

_VARIANCE_KEPT = 0.75
_FEWEST_COMPONENTS = 32
_MOST_COMPONENTS = 256
_POINTS_PER_CELL = 39  # FAISS' own advice
_NARROW = 512  # vectors up to this width are also tried as they are


@dataclass(frozen=True)
class Candidate:
    """A structure to try.

    Attributes
    ----------
    factory : str
    n_bytes : int
        That it will take in memory, about.
    """

    factory: str
    n_bytes: int


def candidate_structures(n_rows: int, variances: np.ndarray, *, flat_fits: bool = True) -> list[Candidate]:
    """Return structures to try, those that are built fastest first.

    Parameters
    ----------
    n_rows : int
        Vectors.
    variances : ndarray of float, shape (d,)
        Along the principal components, descending.
    flat_fits : bool
        Whether the vectors themselves fit into memory; if not, structures that only save memory are tried too.

    Notes
    -----
    Scoring candidates costs more time than proposing them, so what counts is how few candidates hold the neighbours.
    Principal components that keep three quarters of the variance do that nearly as well as all, and make everything
    else several times faster.
    """
    width = len(variances)
    n_components = _components(variances)
    reduced = [(f"PCA{n_components},", n_components)] if n_components < width else []
    as_they_are = [("", width)] if width <= _NARROW or not reduced else []
    cells = n_cells(n_rows)
    factories = []
    for prefix, kept in reduced or as_they_are:
        half = max(kept // 2, 1)
        factories += [
            f"{prefix}IVF{cells},SQ8",
            f"{prefix}IVF{cells},PQ{half}x4fs",
            f"{prefix}HNSW32_SQ8",
            f"{prefix}OPQ{half},IVF{cells},PQ{half}x4fs",
        ]
    factories += [f"IVF{cells},SQ8" for _ in as_they_are if reduced]
    if 2 * n_components < width:
        factories.append(f"PCA{2 * n_components},HNSW32_SQ8")
    if not flat_fits:
        factories += [f"PCA{n_components},SQ8"] if reduced else []
        factories.append("SQ8")
    factories = [each for each in factories if "PQ" not in each or _halves(each, width)]
    return [Candidate(factory, predicted_bytes(factory, n_rows, width)) for factory in dict.fromkeys(factories)]


def _components(variances: np.ndarray) -> int:
    """Return how many principal components to keep; all, where vectors are narrow already."""
    width = len(variances)
    if width <= 2 * _FEWEST_COMPONENTS or not variances.sum():
        return width
    needed = int(np.searchsorted(np.cumsum(variances) / variances.sum(), _VARIANCE_KEPT)) + 1
    rounded = min(max(-(-needed // 32) * 32, _FEWEST_COMPONENTS), _MOST_COMPONENTS)
    return rounded if rounded <= 0.75 * width else width


def _halves(factory: str, width: int) -> bool:
    """Return whether vectors can be cut into pairs of numbers."""
    found = re.match(r"PCA(\d+),", factory)
    return (int(found[1]) if found else width) % 2 == 0


def n_cells(n_rows: int) -> int:
    """Return how many cells an inverted file should have: about twice the root of the rows, a power of two."""
    cells = 2 ** round(np.log2(max(2 * n_rows**0.5, 1)))
    while cells > 1 and n_rows < _POINTS_PER_CELL * cells:
        cells //= 2
    return int(cells)


def predicted_bytes(factory: str, n_rows: int, width: int) -> int:
    """Return about how many bytes a structure of one of the kinds above will take.

    Parameters
    ----------
    factory : str
        Of PCA, OPQ, IVF, HNSW, SQ8, PQ with 4 bits, and Flat.
    n_rows : int
        Vectors in it.
    width : int
        Numbers in a vector.
    """
    fixed, each = 0, 8.0  # where each vector belongs
    kept, cells = width, 1
    for part in factory.split(","):
        if found := re.fullmatch(r"(PCA|OPQ)(\d+)(?:_(\d+))?", part):
            before, kept = kept, int(found[2]) if found[1] == "PCA" else int(found[3] or kept)
            fixed += 4 * before * kept + 4 * kept
        elif found := re.fullmatch(r"IVF(\d+)", part):
            cells = int(found[1])
            fixed += cells * (4 * kept + 8)
            each += 8
        elif found := re.fullmatch(r"HNSW(\d+)(_SQ8|_Flat)?", part):
            links = int(found[1])
            each += 4 * (2 * links + links / (links - 1)) + 12 + (kept if found[2] == "_SQ8" else 4 * kept)
        elif part == "SQ8":
            each += kept
            fixed += 8 * kept
        elif found := re.fullmatch(r"PQ(\d+)x4fs", part):
            each += int(found[1]) / 2
            fixed += cells * 16 * int(found[1]) // 2  # the last block of 32 rows in a cell is filled up
            fixed += 2 * 4 * 16 * kept
        else:
            each += 4 * kept
    return int(fixed + each * n_rows)
