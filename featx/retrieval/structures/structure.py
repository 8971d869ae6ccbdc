"""What FAISS keeps of vectors to propose candidates, which are then scored exactly."""

from __future__ import annotations

import io
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

from featx.errors import UsageError
from featx.retrieval.faiss_library import import_faiss
from featx.retrieval.structures.faiss_indexes import (
    can_filter,
    faiss_parameters,
    inverted_file,
    is_graph,
    kept_of,
    row_ranges,
)
from featx.retrieval.structures.format import ByteCounter, read_parts, write_parts
from featx.retrieval.structures.training import trained_index

if TYPE_CHECKING:
    from featx.retrieval.structures.principal_components import PrincipalComponents
    from featx.retrieval.vector_rows import VectorRows

_FEW_ROWS = 20_000
_GRAPHS_SLOW_DOWN = 1.5  # as they grow: the first rows are added faster


@dataclass(frozen=True)
class SearchParameters:
    """How thoroughly a structure is searched.

    Attributes
    ----------
    nprobe : int or None
        Cells that are looked into, of an inverted file; None where there is none.
    ef_search : int or None
        Length of the list of candidates while a graph is walked; None where there is none.
    n_candidates : int
        Proposals that are scored exactly for the k of the wish; for a larger k, more in proportion.
    """

    nprobe: int | None
    ef_search: int | None
    n_candidates: int

    def __str__(self) -> str:
        named = {"nprobe": self.nprobe, "efSearch": self.ef_search, "candidates": self.n_candidates}
        return ", ".join(f"{name} {value}" for name, value in named.items() if value is not None)


class TooSlowError(Exception):
    """A structure that would not be built in time; never leaves the room."""


class Structure:
    """A FAISS index over places, which proposes those that may be near to a query.

    Make one with ``Structure.build`` or ``Structure.from_bytes``.

    Notes
    -----
    Distances are Euclidean: between vectors of length 1 they have the order of cosines, and unlike inner products they
    survive the centring in front of principal components (of 60,000 real vectors of width 1280 reduced to 128, the
    first 20 proposals hold 95 % of the 10 nearest this way, and 89 % by inner products). A zero vector, whose cosine
    is 0 with everything, is so proposed like one of cosine 0.5, and sinks when candidates are scored.
    """

    def __init__(self, factory: str, index: Any, places: np.ndarray | None = None) -> None:
        self.factory = factory
        self._index = index
        # places[i]: place of what FAISS calls i; None where they are equal. Rows that were held out are added last.
        self._places = places

    @classmethod
    def build(
        cls,
        factory: str,
        vectors: VectorRows,
        rows: np.ndarray | None = None,
        *,
        memory: int | None = None,
        seed: int = 0,
        components: PrincipalComponents | None = None,
        deadline: float | None = None,
    ) -> Structure:
        """Return a structure of some rows, trained on a sample of them.

        Parameters
        ----------
        factory : str
            As for ``faiss.index_factory``, such as ``PCA128,IVF1024,SQ8``.
        vectors : VectorRows
            Of length 1, or 0; shape (n, d).
        rows : ndarray of int64, optional
            Which of them, ascending; all by default. A place is a row.
        memory : int, optional
            Bytes; an eighth of it bounds the training sample.
        seed : int
            Of the sample and of k-means.
        components : PrincipalComponents, optional
            For a leading ``PCA``, where they are known.
        deadline : float, optional
            Time on ``time.monotonic``'s clock.

        Raises
        ------
        UsageError
            For a factory that FAISS does not know or that needs more vectors.

        Notes
        -----
        A leading PCA is computed here, block by block, so that only reduced vectors need be in memory. Training runs
        on one thread, where it is fastest by far: threads of BLAS wait for each other by spinning (PQ of 30,000×128
        took 1.6 s on one thread, 18 s on two beside other work). From 20,000 rows on, a graph is built on all threads,
        and which links it gets depends on chance; everything else is determined by the seed.
        """
        rows = np.arange(len(vectors)) if rows is None else np.asarray(rows, dtype=np.int64)
        index = trained_index(factory, vectors, rows, memory=memory, seed=seed, components=components)
        structure = cls(factory, index, np.empty(0, np.int64))
        started = time.monotonic()
        for start, stop in row_ranges(len(rows), vectors.width):
            with threadpool_limits(limits=1 if len(rows) < _FEW_ROWS else None):
                structure.add(vectors.take(rows[start:stop]), rows[start:stop])
            passed = time.monotonic() - started
            needed = passed / stop * len(rows) * (_GRAPHS_SLOW_DOWN if structure.is_graph else 1.0)
            if deadline is not None and stop < len(rows) and started + needed > deadline:
                raise TooSlowError(f"adding {len(rows)} vectors would take {needed:.0f} s")
        structure._forget_identity()
        return structure

    @property
    def n_places(self) -> int:
        """Vectors in it, those that were removed included."""
        return int(self._index.ntotal)

    @property
    def has_every_place(self) -> bool:
        """Whether its places are 0 to ``n_places`` − 1, each once."""
        return self._places is None or np.array_equal(np.sort(self._places), np.arange(self.n_places))

    @property
    def width(self) -> int:
        """Numbers in a vector."""
        return int(self._index.d)

    @property
    def n_bytes(self) -> int:
        """Bytes that it keeps, as they are written to a file."""
        counter = ByteCounter()
        write_parts(counter, self.factory, self._index, self._places)
        return counter.n_bytes

    @property
    def n_cells(self) -> int | None:
        """Cells of its inverted file; None where there is none."""
        inverted = inverted_file(self._index)
        return None if inverted is None else int(inverted.nlist)

    @property
    def is_graph(self) -> bool:
        """Whether it is searched by walking a graph."""
        return is_graph(self._index)

    def add(self, vectors: np.ndarray, places: np.ndarray | None = None) -> None:
        """Add vectors; their places continue those that are there, unless they are given.

        Raises
        ------
        UsageError
            For vectors of another width.
        """
        if vectors.ndim != 2 or vectors.shape[1] != self.width:
            raise UsageError(f"vectors of shape {vectors.shape} meet a structure of width {self.width}.")
        if self._places is not None or places is not None:
            first = self.n_places
            before = np.arange(first) if self._places is None else self._places
            after = np.arange(first, first + len(vectors)) if places is None else places
            self._places = np.concatenate([before, after])
        self._index.add(np.ascontiguousarray(vectors, dtype=np.float32))

    def _forget_identity(self) -> None:
        if self._places is not None and np.array_equal(self._places, np.arange(len(self._places))):
            self._places = None

    def propose(
        self, queries: np.ndarray, n: int, parameters: SearchParameters, removed: np.ndarray | None = None
    ) -> np.ndarray:
        """Return places that may be near to each query, most promising first.

        Parameters
        ----------
        queries : ndarray of float32, shape (n_queries, d)
            Of length 1, or 0.
        n : int
            Places for each query.
        parameters : SearchParameters
            Their number of candidates is not used.
        removed : ndarray of bool, shape (n_places,), optional
            Places that are never proposed.

        Returns
        -------
        ndarray of int64, shape (n_queries, n)
            −1 behind the last where fewer were found.
        """
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        removed = None if removed is None or not removed.any() else np.asarray(removed, dtype=bool)
        if removed is not None and len(removed) != self.n_places:
            raise UsageError(f"a mask of {len(removed)} places meets a structure of {self.n_places}.")
        if removed is not None and self._places is not None:
            removed = removed[self._places]
        if removed is not None and not can_filter(self._index):
            found = self._propose_and_filter(queries, n, parameters, removed)
        else:
            found = self._search(queries, n, parameters, removed)
        return found if self._places is None else np.where(found < 0, -1, self._places[found])

    def _search(
        self, queries: np.ndarray, n: int, parameters: SearchParameters, removed: np.ndarray | None
    ) -> np.ndarray:
        faiss = import_faiss()
        selector = None
        if removed is not None:
            selector = faiss.IDSelectorBitmap(np.packbits(~removed, bitorder="little"))
        return self._index.search(queries, n, params=faiss_parameters(self._index, parameters, n, selector))[1]

    def _propose_and_filter(
        self, queries: np.ndarray, n: int, parameters: SearchParameters, removed: np.ndarray
    ) -> np.ndarray:
        """Ask for as many more as were removed: not every index of FAISS can leave places out itself."""
        found = self._search(queries, min(n + int(removed.sum()), self.n_places), parameters, None)
        found[removed[found] | (found < 0)] = -1
        order = np.argsort(found < 0, axis=1, kind="stable")[:, :n]
        kept = np.full((len(queries), n), -1, np.int64)
        kept[:, : order.shape[1]] = np.take_along_axis(found, order, axis=1)
        return kept

    def distortion(self, vectors: np.ndarray) -> float | None:
        """Return the mean squared distance of vectors from what the structure keeps of such vectors.

        It grows where vectors are unlike those that it was trained on. None where nothing is trained.

        Parameters
        ----------
        vectors : ndarray of float32, shape (n, d)
            Of length 1, or 0.
        """
        squares = 0.0
        for start, stop in row_ranges(len(vectors), vectors.shape[1]):
            block = np.ascontiguousarray(vectors[start:stop], dtype=np.float32)
            kept = kept_of(self._index, block)
            if kept is None:
                return None
            squares += float(((kept - block) ** 2).sum(dtype=np.float64))
        return squares / len(vectors)

    def to_bytes(self) -> bytes:
        """Return it as bytes: FAISS' own serialisation behind a header of ours."""
        buffer = io.BytesIO()
        write_parts(buffer, self.factory, self._index, self._places)
        return buffer.getvalue()

    def write(self, path: str | Path) -> None:
        """Write the same bytes to a file, without having them all in memory."""
        with open(path, "wb") as file:
            write_parts(file, self.factory, self._index, self._places)

    @classmethod
    def from_bytes(cls, content: bytes | bytearray | memoryview) -> Structure:
        """Return the structure that `to_bytes` wrote. FAISS parses it in C++: check a digest first.

        Raises
        ------
        StoreError
            When it is none.
        """
        return cls(*read_parts(io.BytesIO(content)))

    @classmethod
    def read(cls, path: str | Path) -> Structure:
        """Return the structure that `write` wrote.

        Raises
        ------
        StoreError
            When it is none.
        """
        with open(path, "rb") as file:
            return cls(*read_parts(file))
