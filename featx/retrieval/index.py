"""`ImageIndex`: find the images whose vectors are nearest, exactly or by proposals that are then scored exactly."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.archive import Archive
from featx.errors import UsageError
from featx.retrieval.attached_structure import read_structure
from featx.retrieval.building import build_structure, build_vectors, parse_memory
from featx.retrieval.embedding import Embedding
from featx.retrieval.growth import Growth
from featx.retrieval.index_file import EMBEDDING, read_index, write_index
from featx.retrieval.indexed_images import IndexedImages
from featx.retrieval.scanning import nearest_places, proposed_places
from featx.retrieval.search import SearchResult
from featx.retrieval.vector_rows import VectorRows
from featx.retrieval.vectors import checked_blocks

if TYPE_CHECKING:
    from featx.retrieval.structures import Structure
    from featx.retrieval.tuning import Tuning


class ImageIndex:
    """Search for the nearest images by cosine similarity.

    Made by ``build`` or ``load``. An image keeps its id for ever; its row, the position in ``paths``, ``labels``,
    ``vectors`` and all of ``images``, moves up when images before it are removed.

    Without a structure every search is exact. With one (see ``build``), FAISS proposes candidates from what it keeps
    of the vectors in memory, and these are scored with the vectors themselves, which stay in the file.

    Notes
    -----
    FAISS is loaded at the first search and searches on all cores; a process that has searched must not be forked
    (FAISS' OpenMP threads do not survive it): start workers with "spawn".
    """

    def __init__(
        self,
        vectors: VectorRows,
        images: IndexedImages,
        embedding: Embedding,
        *,
        fingerprint: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
        arrays: Mapping[str, np.ndarray] | None = None,
        structure: Structure | Archive | None = None,
        tuning: Tuning | None = None,
        growth: Growth | None = None,
        next_id: int | None = None,
    ) -> None:
        self.vector_rows = vectors
        self.images = images
        self.embedding = embedding
        self.fingerprint = fingerprint
        self.metadata = metadata or {}
        self.tuning = tuning
        self.growth = growth or Growth(len(images))
        self.next_id = len(images) if next_id is None else next_id
        self.arrays = dict(arrays or {})
        if any(name.startswith(EMBEDDING) for name in self.arrays):
            raise UsageError(f"array names that begin with {EMBEDDING!r} are the index's own; choose others")
        self._structure_source = structure

    @classmethod
    def build(
        cls,
        vectors: Any,
        *,
        paths: Sequence[str] | None = None,
        labels: Sequence[str | None] | None = None,
        splits: Sequence[str | None] | None = None,
        digests: np.ndarray | None = None,
        thumbnails: Sequence[bytes] | None = None,
        fingerprint: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        arrays: Mapping[str, np.ndarray] | None = None,
        embedding: Embedding | None = None,
        whiten: int | None = None,
        augment: int = 0,
        recall: str | None = None,
        memory: int | str | None = None,
        factory: str | None = None,
        seed: int = 0,
        folder: Path | None = None,
        on_step: Callable[[str, int, int], None] | None = None,
    ) -> ImageIndex:
        """Return an index of L2-normalised copies of the vectors.

        Parameters
        ----------
        vectors : array-like of shape (n, d), or iterable of such blocks
            Features. A zero vector has score 0 with everything.
        paths, labels, splits : sequence of str or None, optional
            One a row; without paths, the ids as text.
        digests : ndarray of uint8, shape (n, 16), optional
            BLAKE2b-128 of the files, by which images are recognised.
        thumbnails : sequence of bytes, optional
            One small picture file a row; empty bytes where there is none.
        fingerprint, metadata : mapping, optional
            How the features were made, and anything else; JSON values.
        arrays : mapping of str to ndarray, optional
            Anything else of numbers that is to travel with the index.
        embedding : Embedding, optional
            From features to unit vectors, fitted or not; queries go through it too. L2 alone by default.
        whiten : int, optional
            Short for an embedding of PCA-whitening to so many components.
        augment : int
            Nearest vectors of its own that each vector is averaged with (see `featx.retrieval.expansion`); 0 for none.
        recall : str, optional
            The recall wished for, such as ``"0.95@10"``: structures are tried, and the fastest that meets it is kept
            (see `featx.retrieval.tuning.tune`). Without recall, memory and factory, search is exact.
        memory : int or str, optional
            Bytes that the index may take in memory while it is built and searched, such as ``"2GB"``.
        factory : str, optional
            FAISS' own description of a structure, such as ``"OPQ32_128,IVF1024,PQ32x4fs"``; only its search
            parameters are tuned.
        seed : int
            Of the queries that are held out, and of what is trained.
        folder : Path, optional
            Where vectors lie while they do not fit into memory; the system's temporary folder by default.
        on_step : callable, optional
            Called with what is tried, its number, and of how many.

        Raises
        ------
        UsageError
            For no vectors, NaN or infinity (the message names rows), lists of another length than the vectors, or a
            wish that cannot be met.
        """
        limit = parse_memory(memory)
        embedding, rows = build_vectors(vectors, embedding, whiten=whiten, augment=augment, memory=limit, folder=folder)
        images = IndexedImages.of(
            np.arange(len(rows)),
            np.arange(len(rows)),
            paths=paths,
            labels=labels,
            splits=splits,
            digests=digests,
            thumbnails=thumbnails,
        )
        structure, tuning, growth = build_structure(
            rows, recall, memory=limit, factory=factory, seed=seed, on_step=on_step
        )
        return cls(
            rows,
            images,
            embedding,
            fingerprint=None if fingerprint is None else dict(fingerprint),
            metadata=dict(metadata or {}),
            arrays=arrays,
            structure=structure,
            tuning=tuning,
            growth=growth,
        )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def width(self) -> int:
        """Numbers that a query has."""
        return self.embedding.n_columns_in

    @property
    def ids(self) -> np.ndarray:
        """The id of each row, int64 of shape (n,), ascending."""
        return self.images.ids

    @property
    def paths(self) -> tuple[str, ...]:
        """The path of each row."""
        return self.images.paths

    @property
    def labels(self) -> tuple[str | None, ...]:
        """The label of each row."""
        return self.images.labels

    @property
    def vectors(self) -> np.ndarray:
        """The unit vectors, float32 of shape (n, d), read into memory; read-only."""
        vectors = self.vector_rows.as_array() if self._is_compact else self.take(np.arange(len(self)))
        view = vectors.view()
        view.flags.writeable = False
        return view

    @cached_property
    def structure(self) -> Structure | None:
        """What proposes candidates; None where search is exact. FAISS reads it when it is first asked for."""
        source = self._structure_source
        return read_structure(source) if isinstance(source, Archive) else source

    @property
    def _is_compact(self) -> bool:
        """Whether no removed image has left its place behind, so that places are rows."""
        return len(self.images) == len(self.vector_rows)

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Return the unit vectors of some rows, float32 of shape (m, d)."""
        return self.vector_rows.take(self.images.places[rows])

    def thumbnail(self, row: int) -> bytes | None:
        """Return the small picture file of one row; None where there is none."""
        if not 0 <= row < len(self):
            raise UsageError(f"row {row} of {len(self)} was asked for. Give 0 to {len(self) - 1}.")
        thumbnails = self.images.thumbnails
        return thumbnails[row] or None if thumbnails is not None else None

    def embed(self, queries: Any) -> np.ndarray:
        """Return features of queries as the unit vectors that are searched with, float32 of shape (n_queries, d).

        Parameters
        ----------
        queries : array-like of shape (n_queries, width)
            Features made in the same way as those of the index; their length does not matter.

        Raises
        ------
        UsageError
            When a query has another width, or holds NaN or infinity.
        """
        rows = np.concatenate(
            list(checked_blocks(queries if hasattr(queries, "shape") else np.asarray(queries), what="queries"))
        )
        if rows.shape[1] != self.width:
            raise UsageError(
                f"queries of width {rows.shape[1]} meet an index of width {self.width}. Extract the queries with the "
                "network and layer that the index was made with."
            )
        return self.embedding.transform(rows)

    def search(self, queries: Any, k: int = 10, *, where: np.ndarray | None = None) -> SearchResult:
        """Return the k nearest images of each query by cosine, equal scores in the order of their ids.

        Parameters
        ----------
        queries : array-like of shape (n_queries, width)
            Features made in the same way as those of the index; their length does not matter.
        k : int
            At least 1; lowered to the number of rows.
        where : ndarray of bool, shape (n,), optional
            Rows that may be found. Such a search is exact, and takes time in proportion to the rows that take part.

        Raises
        ------
        UsageError
            When a query has another width, or holds NaN or infinity; when no row may be found.
        """
        return self.search_vectors(self.embed(queries), k, where=where)

    def search_vectors(
        self, vectors: np.ndarray, k: int = 10, *, where: np.ndarray | None = None, exact: bool = False
    ) -> SearchResult:
        """Return the k nearest images of unit vectors that went through `embed` already, as `search` does.

        With `exact`, without the structure.
        """
        if k < 1:
            raise UsageError(f"k={k} neighbours were asked for. Ask for at least 1.")
        allowed = None if self._is_compact else self.images.places
        if where is not None:
            allowed = self.images.places_where(where)
        k = min(k, len(self) if allowed is None else len(allowed))
        if not exact and where is None and self.structure is not None and self.tuning is not None:
            places, scores = proposed_places(self.structure, self.tuning, vectors, self.vector_rows, k, allowed)
        else:
            places, scores = nearest_places(vectors, self.vector_rows, k, allowed)
        rows = self.images.rows_of_places(places.ravel()).reshape(places.shape)
        return SearchResult(
            ids=self.images.ids[rows],
            rows=rows,
            scores=scores,
            paths=[[self.paths[row] for row in found] for found in rows],
            labels=[[self.labels[row] for row in found] for found in rows],
        )

    def kneighbors(
        self, X: Any, n_neighbors: int = 10, return_distance: bool = True
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Return distances and ids of the nearest images, with the habits of scikit-learn's ``kneighbors``.

        Returns
        -------
        distances : ndarray of float32, shape (n_queries, n_neighbors)
            Cosine distances, 0 to 2; left out without `return_distance`.
        ids : ndarray of int64, shape (n_queries, n_neighbors)
        """
        found = self.search(X, n_neighbors)
        return (found.distances, found.ids) if return_distance else found.ids

    def add(
        self,
        vectors: Any,
        *,
        paths: Sequence[str] | None = None,
        labels: Sequence[str | None] | None = None,
        splits: Sequence[str | None] | None = None,
        digests: np.ndarray | None = None,
        thumbnails: Sequence[bytes] | None = None,
    ) -> np.ndarray:
        """Add images, and return their ids. What was learned from the images so far (whitening, cells, codes) stays.

        Parameters
        ----------
        vectors, paths, labels, splits, digests, thumbnails
            As for ``build``.

        Raises
        ------
        UsageError
            As ``build`` does; the index is then unchanged.

        Notes
        -----
        Vectors averaged with their neighbours (``augment``) are those of ``build``; what is added stays as it is.
        """
        new = self.embed(vectors)
        first = len(self.vector_rows)
        images = IndexedImages.of(
            np.arange(self.next_id, self.next_id + len(new)),
            np.arange(first, first + len(new)),
            paths=paths,
            labels=labels,
            splits=splits,
            digests=digests,
            thumbnails=thumbnails,
        )
        distortion = None
        if self.structure is not None:
            distortion = self.structure.distortion(new)
            self.structure.add(new)
        self.vector_rows.append(new)
        self.images = self.images.extended(images)
        self.next_id += len(new)
        self.growth = self.growth.with_added(len(new), distortion)
        return images.ids

    def remove(self, ids: Any) -> None:
        """Remove images by their ids; other images keep theirs.

        Where vectors lie in a file, their places stay taken until the index is built again, and are passed over.

        Raises
        ------
        UsageError
            There is no such id, or no image would be left; the index is then unchanged.
        """
        rows = np.unique(self.images.rows_of_ids(np.atleast_1d(ids)))
        if len(rows) == len(self):
            raise UsageError(f"all {len(self)} images would be removed. Keep at least one, or delete the index.")
        mask = np.ones(len(self), bool)
        mask[rows] = False
        if self.structure is None and self.vector_rows.in_memory:
            self.vector_rows = VectorRows([self.vector_rows.take(self.images.places[mask])])
            self.images = self.images.kept(mask, places=np.arange(mask.sum()))
        else:
            self.images = self.images.kept(mask)
        self.growth = self.growth.with_removed(len(rows))

    def rebuild_advice(self) -> str:
        """Return why the index should be built again; empty where it need not be."""
        learns = self.structure is not None or self.embedding.whiten is not None
        return self.growth.advice(
            learns=learns, keeps_places=not self.vector_rows.in_memory or self.structure is not None
        )

    def save(self, path: str | Path, overwrite: bool = False) -> None:
        """Write the index as one file.

        Raises
        ------
        WouldOverwriteError
            The file exists and ``overwrite`` is false.
        """
        write_index(self, path, overwrite=overwrite)

    @classmethod
    def load(cls, path: str | Path) -> ImageIndex:
        """Return a saved index, after comparing every byte that it has with its digest.

        Raises
        ------
        StoreError
            When the file is missing, damaged, or not an index.
        UnsafeFileError
            When it was not written by featx.
        """
        return read_index(path)
