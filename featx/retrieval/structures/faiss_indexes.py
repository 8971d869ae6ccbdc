"""Looking into FAISS' index objects: what they are made of, and how each is searched."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.retrieval.faiss_library import import_faiss

if TYPE_CHECKING:
    from featx.retrieval.structures import SearchParameters


def transforms(index: Any) -> list[Any]:
    """Return what is done to vectors before they reach the index proper, in order."""
    faiss = import_faiss()
    if not isinstance(index, faiss.IndexPreTransform):
        return []
    return [faiss.downcast_VectorTransform(index.chain.at(i)) for i in range(index.chain.size())]


def innermost(index: Any) -> Any:
    """Return the index behind all transforms."""
    faiss = import_faiss()
    while isinstance(index, faiss.IndexPreTransform):
        index = faiss.downcast_index(index.index)
    return index


def inverted_file(index: Any) -> Any | None:
    """Return the inverted file behind all transforms; None where there is none."""
    inner = innermost(index)
    return inner if isinstance(inner, import_faiss().IndexIVF) else None


def is_graph(index: Any) -> bool:
    """Return whether the index behind all transforms is a graph."""
    return isinstance(innermost(index), import_faiss().IndexHNSW)


def can_filter(index: Any) -> bool:
    """Return whether a search can leave places out itself. Flat fast scan cannot, IVF with fast scan can."""
    faiss = import_faiss()
    kinds = (faiss.IndexFlat, faiss.IndexScalarQuantizer, faiss.IndexHNSW, faiss.IndexIVF)
    return isinstance(innermost(index), kinds)


def faiss_parameters(index: Any, parameters: SearchParameters, n: int, selector: Any | None) -> Any | None:
    """Return the parameters of one search for n places, in the class that the index wants."""
    faiss = import_faiss()
    given = {} if selector is None else {"sel": selector}
    if isinstance(index, faiss.IndexPreTransform):
        inner = faiss_parameters(faiss.downcast_index(index.index), parameters, n, selector)
        return None if inner is None else faiss.SearchParametersPreTransform(index_params=inner)
    if isinstance(index, faiss.IndexIVF) and parameters.nprobe is not None:
        return faiss.SearchParametersIVF(nprobe=min(parameters.nprobe, index.nlist), **given)
    if isinstance(index, faiss.IndexIVF):
        return faiss.SearchParametersIVF(nprobe=index.nprobe, **given)
    if isinstance(index, faiss.IndexHNSW):
        return faiss.SearchParametersHNSW(efSearch=max(parameters.ef_search or 0, n), **given)
    return faiss.SearchParameters(**given) if given else None


def kept_of(index: Any, vectors: np.ndarray) -> np.ndarray | None:
    """Return what an index keeps of vectors, or the centroid of their cell; None where nothing is trained.

    Parameters
    ----------
    index : faiss.Index
        Trained.
    vectors : ndarray of float32, shape (n, d), C order
        Those to compare with.

    Returns
    -------
    ndarray of float32, shape (n, d), or None
    """
    faiss = import_faiss()
    chain, inner = transforms(index), innermost(index)
    reduced = vectors
    for transform in chain:
        reduced = transform.apply(reduced)
    if isinstance(inner, faiss.IndexIVF):
        cells = faiss.downcast_index(inner.quantizer).search(reduced, 1)[1][:, 0]
        kept = inner.quantizer.reconstruct_batch(cells)
    elif is_graph(inner):
        kept = _decoded(faiss.downcast_index(inner.storage), reduced)
    else:
        kept = _decoded(inner, reduced)
    if kept is None and not chain:
        return None
    kept = reduced if kept is None else kept
    for transform in reversed(chain):
        kept = transform.reverse_transform(kept)
    return kept


def _decoded(index: Any, vectors: np.ndarray) -> np.ndarray | None:
    if isinstance(index, import_faiss().IndexFlat):
        return None
    return index.sa_decode(index.sa_encode(vectors))


def row_ranges(n_rows: int, width: int, n_bytes: int = 32 * 2**20) -> Iterator[tuple[int, int]]:
    """Yield start and stop of blocks of rows of float32 that have about so many bytes each."""
    step = max(1024, n_bytes // (4 * width))
    for start in range(0, n_rows, step):
        yield start, min(start + step, n_rows)
