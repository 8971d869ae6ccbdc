"""Training of FAISS indexes, in bounded memory and with the settings that are fast."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

from featx.errors import UsageError
from featx.retrieval.faiss_library import import_faiss
from featx.retrieval.structures.faiss_indexes import innermost, inverted_file, is_graph, transforms
from featx.retrieval.structures.principal_components import PrincipalComponents, fit_components

if TYPE_CHECKING:
    from featx.retrieval.vector_rows import VectorRows

_POINTS_PER_CENTROID = 40
_FEWEST_ROWS = 20_000
_SAMPLE_BYTES = 256 * 2**20  # where memory is not bounded
_SHARE_OF_MEMORY = 8
_LEADING_PCA = re.compile(r"PCA(\d+),(?=.)")


def trained_index(
    factory: str,
    vectors: VectorRows,
    rows: np.ndarray,
    *,
    memory: int | None = None,
    seed: int = 0,
    components: PrincipalComponents | None = None,
) -> Any:
    """Return an empty FAISS index that has been trained on a sample of rows.

    Parameters
    ----------
    factory : str
        As for ``faiss.index_factory``.
    vectors : VectorRows
        Of shape (n, d).
    rows : ndarray of int64
        Those that may be learned from.
    memory : int, optional
        Bytes; an eighth bounds the sample.
    seed : int
        Of the sample and of k-means.
    components : PrincipalComponents, optional
        For a leading PCA.

    Raises
    ------
    UsageError
        For a factory that FAISS does not know, or that needs more vectors.
    """
    faiss = import_faiss()
    shuffled = np.random.default_rng(seed).permutation(rows)
    n_components, index = _made(faiss, vectors.width, factory)
    width = n_components or vectors.width
    n_sample = _sample_size(index, factory, len(rows), width, memory)
    if n_components:
        components = components or fit_components(vectors, shuffled)
    _train(faiss, index, _sample(vectors, np.sort(shuffled[:n_sample]), components, n_components), factory, seed)
    if not n_components or components is None:
        return index
    chain = index if isinstance(index, faiss.IndexPreTransform) else faiss.IndexPreTransform(index)
    for transform in reversed(components.faiss_transforms(faiss, n_components)):
        chain.prepend_transform(transform)
        if chain.own_fields:
            transform.this.disown()  # what the factory made frees its chain itself
    return chain


def check_factory(factory: str, width: int) -> None:
    """Raise what `trained_index` would for a factory that FAISS does not know.

    Parameters
    ----------
    factory : str
        As for ``faiss.index_factory``.
    width : int
        Numbers in a vector.

    Raises
    ------
    UsageError
        With examples of what FAISS knows.
    """
    _made(import_faiss(), width, factory)


def _made(faiss: Any, width: int, factory: str) -> tuple[int, Any]:
    """Return how many components a leading PCA keeps, 0 where there is none, and the untrained rest of the index."""
    if "IDMap" in factory:
        raise UsageError(f"{factory!r}: which vector is which image is kept beside the structure; leave IDMap out.")
    leading = _LEADING_PCA.match(factory)
    n_components = int(leading[1]) if leading else 0
    if leading and not 0 < n_components <= width:
        raise UsageError(
            f"{factory!r} asks for {n_components} components of vectors of width {width}: give 1 to {width}."
        )
    try:
        rest = factory[leading.end() :] if leading else factory
        return n_components, faiss.index_factory(n_components or width, rest, faiss.METRIC_L2)
    except RuntimeError as error:
        reason = str(error).rpartition(": ")[2].strip() or str(error)
        raise UsageError(
            f"FAISS makes no index of {factory!r} for vectors of width {width}: {reason}. Examples are SQ8, "
            "IVF1024,SQ8, PCA128,IVF1024,PQ64x4fs and PCA128,HNSW32_SQ8."
        ) from error


def _sample_size(index: Any, factory: str, n_rows: int, width: int, memory: int | None) -> int:
    """Return how many rows to train on."""
    inverted = inverted_file(index)
    n_cells = 0 if inverted is None else int(inverted.nlist)
    limit = (_SAMPLE_BYTES if memory is None else memory // _SHARE_OF_MEMORY) // (4 * width)
    n_sample = min(n_rows, max(min(limit, max(_FEWEST_ROWS, _POINTS_PER_CENTROID * n_cells)), 1000))
    # OPQMatrix.train writes out of bounds when there are fewer rows than columns.
    least = max(
        n_cells, 2 * width if any(hasattr(each, "niter_pq") for each in transforms(index)) else 1, _codewords(index)
    )
    if n_sample < least:
        raise UsageError(
            f"{factory!r} must be trained on {least} vectors or more, and may be on {n_sample}. Take fewer cells or "
            "subspaces, or let it use more memory."
        )
    return n_sample


def _quantizers(index: Any) -> list[Any]:
    """Return the product quantizers in an index."""
    inner = innermost(index)
    holders = [inner, import_faiss().downcast_index(inner.storage)] if is_graph(inner) else [inner]
    return [holder.pq for holder in holders if hasattr(holder, "pq")]


def _codewords(index: Any) -> int:
    return max((int(quantizer.ksub) for quantizer in _quantizers(index)), default=1)


def _sample(
    vectors: VectorRows, rows: np.ndarray, components: PrincipalComponents | None, n_components: int
) -> np.ndarray:
    """Return these rows, reduced where a PCA comes first."""
    if components is None or not n_components:
        return vectors.take(rows)
    sample = np.empty((len(rows), n_components), np.float32)
    for start in range(0, len(rows), 4096):
        block = vectors.take(rows[start : start + 4096])
        sample[start : start + 4096] = components.transform(block, n_components)
    return sample


def _train(faiss: Any, index: Any, sample: np.ndarray, factory: str, seed: int) -> None:
    inverted = inverted_file(index)
    clusterings = [] if inverted is None else [inverted.cp]
    for clustering in [*clusterings, *(quantizer.cp for quantizer in _quantizers(index))]:
        clustering.seed = seed
        clustering.min_points_per_centroid = 1  # FAISS would print a warning
    rotations = [each for each in transforms(index) if isinstance(each, faiss.OPQMatrix)]
    bits = max((int(quantizer.nbits) for quantizer in _quantizers(index)), default=8)
    quantizers = [faiss.ProductQuantizer(each.d_out, each.M, bits) for each in rotations]
    for rotation, quantizer in zip(rotations, quantizers, strict=True):
        # With FAISS' own settings a rotation of 128 columns took ten minutes, and with these three seconds.
        rotation.pq, rotation.niter, rotation.niter_pq_0, rotation.niter_pq = quantizer, 10, 10, 4
        rotation.max_train_points = _FEWEST_ROWS
    try:
        with threadpool_limits(limits=1):
            index.train(sample)
    except RuntimeError as error:
        raise UsageError(f"FAISS cannot train {factory!r} on {len(sample)} vectors: {error}") from error
    finally:
        for rotation in rotations:
            rotation.pq = None
