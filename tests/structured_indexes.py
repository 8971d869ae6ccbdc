"""Small indexes with a FAISS structure that is searched thoroughly, and the plain loop whose answers they must give."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from featx.retrieval import ImageIndex
from featx.retrieval.growth import Growth
from featx.retrieval.structures import SearchParameters, Structure
from featx.retrieval.tuning.trials import Trial, Tuning
from featx.retrieval.tuning.wishes import RecallWish

if TYPE_CHECKING:
    from collections.abc import Sequence

N_CELLS = 8
# What looks into every cell, walks the whole graph, and scores 100 proposals for 10 neighbours.
THOROUGH = SearchParameters(nprobe=N_CELLS, ef_search=800, n_candidates=100)


def unit(rows: Any) -> np.ndarray:
    """Return rows at length 1 as an index rounds them, float64; zero stays zero."""
    rows = np.asarray(rows, np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.where(lengths > 0, lengths, 1)).astype(np.float32).astype(np.float64)


def nearest_by_loop(
    vectors: np.ndarray, queries: np.ndarray, k: int, ids: Sequence[int] | np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return ids and cosines of the k nearest vectors, ties in the order of ids, computed with NumPy alone."""
    numbers = np.arange(len(vectors)) if ids is None else np.asarray(ids)
    scores = np.array([[np.dot(query, row) for row in unit(vectors)] for query in unit(queries)]).astype(np.float32)
    order = np.lexsort((np.broadcast_to(numbers, scores.shape), -scores), axis=1)[:, :k]
    return numbers[order], np.take_along_axis(scores, order, axis=1)


def tuning(parameters: SearchParameters = THOROUGH, *, factory: str = f"IVF{N_CELLS},SQ8", k: int = 10) -> Tuning:
    """Return what says that a structure is searched with these parameters."""
    trial = Trial(
        factory=factory,
        parameters=parameters,
        recall=1.0,
        interval=(0.9, 1.0),
        queries_per_second=1.0,
        queries_per_second_all=2.0,
        n_threads=2,
        bytes_per_vector=24.0,
        build_seconds=0.5,
        on_front=True,
        fits=True,
        meets=True,
    )
    return Tuning(RecallWish(0.95, k), None, 30, (trial,), trial, "made for a test", (("PQ4", "not wanted"),))


def structured(
    vectors: Any, factory: str = f"IVF{N_CELLS},SQ8", *, parameters: SearchParameters = THOROUGH, **columns: Any
) -> ImageIndex:
    """Return an index with a structure; ``paths``, ``labels`` and all else as for ``ImageIndex.build``."""
    return with_structure(ImageIndex.build(vectors, **columns), factory, parameters=parameters)


def with_structure(
    flat: ImageIndex, factory: str = f"IVF{N_CELLS},SQ8", *, parameters: SearchParameters = THOROUGH
) -> ImageIndex:
    """Return an index of the same images whose search asks a structure for proposals."""
    structure = Structure.build(factory, flat.vector_rows)
    return ImageIndex(
        flat.vector_rows,
        flat.images,
        flat.embedding,
        fingerprint=flat.fingerprint,
        metadata=flat.metadata,
        arrays=flat.arrays,
        structure=structure,
        tuning=tuning(parameters, factory=factory),
        growth=Growth(len(flat), structure.distortion(flat.vectors)),
    )
