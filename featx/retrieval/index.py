"""An index of images: unit vectors, with path, label and thumbnail of each row, in one file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from featx.archive import Archive, read_archive, write_archive
from featx.errors import StoreError, UsageError
from featx.retrieval.attached_arrays import array_parts, read_arrays
from featx.retrieval.search import SearchResult, nearest
from featx.retrieval.vectors import unit_vectors

_KIND = "featx-index"


class ImageIndex:
    """Exact search for the nearest images by cosine similarity.

    Make one with ``ImageIndex.build`` or ``ImageIndex.load``; ids are row numbers.

    Notes
    -----
    Memory is 4 bytes for every number. The file holds the vectors as plain little-endian float32 rather than in FAISS'
    own format: anybody can read them with NumPy, no C++ parser meets bytes from elsewhere, and a flat index is nothing
    but its vectors. FAISS is loaded at the first search and searches on all cores; a process that has searched must
    not be forked (FAISS' OpenMP threads do not survive it): start workers with "spawn".
    """

    def __init__(
        self,
        vectors: np.ndarray,
        paths: tuple[str, ...],
        labels: tuple[str | None, ...],
        thumbnails: tuple[bytes, ...] | Archive | None,
        fingerprint: dict[str, Any] | None,
        metadata: dict[str, Any],
        arrays: dict[str, np.ndarray] | Archive | None = None,
    ) -> None:
        self._vectors = vectors
        self._thumbnail_source = thumbnails
        self._array_source = arrays
        self.paths = paths
        self.labels = labels
        self.fingerprint = fingerprint
        self.metadata = metadata

    @classmethod
    def build(
        cls,
        vectors: Any,
        *,
        paths: Sequence[str] | None = None,
        labels: Sequence[str | None] | None = None,
        thumbnails: Sequence[bytes] | None = None,
        fingerprint: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        arrays: Mapping[str, np.ndarray] | None = None,
    ) -> ImageIndex:
        """Return an index of L2-normalised copies of the vectors.

        Parameters
        ----------
        vectors : array-like of shape (n, d), or iterable of such blocks
            Features. A zero vector has score 0 with everything.
        paths : sequence of str, optional
            One a row; without them, the row numbers as text.
        labels : sequence of str or None, optional
            One a row.
        thumbnails : sequence of bytes, optional
            One small picture file a row; empty bytes where there is none.
        fingerprint : mapping, optional
            How the features were made; JSON values.
        metadata : mapping, optional
            Anything else; JSON values.
        arrays : mapping of str to ndarray, optional
            Anything else of numbers that is to travel with the index.

        Raises
        ------
        UsageError
            For no vectors, NaN or infinity (the message names rows), or lists of another length than the vectors.
        """
        unit = unit_vectors(vectors)
        for name, given in (("paths", paths), ("labels", labels), ("thumbnails", thumbnails)):
            if given is not None and len(given) != len(unit):
                raise UsageError(f"{len(given)} {name} were given for {len(unit)} vectors. Give one a vector.")
        kept = None if thumbnails is None else tuple(bytes(thumbnail) for thumbnail in thumbnails)
        return cls(
            vectors=unit,
            paths=tuple(str(row) for row in range(len(unit))) if paths is None else tuple(map(str, paths)),
            labels=(None,) * len(unit) if labels is None else tuple(labels),
            thumbnails=kept,
            fingerprint=None if fingerprint is None else dict(fingerprint),
            metadata=dict(metadata or {}),
            arrays=dict(arrays or {}),
        )

    def __len__(self) -> int:
        return len(self._vectors)

    @property
    def width(self) -> int:
        """Numbers in a vector."""
        return int(self._vectors.shape[1])

    @property
    def vectors(self) -> np.ndarray:
        """The unit vectors, float32 of shape (n, width); read-only."""
        view = self._vectors.view()
        view.flags.writeable = False
        return view

    def thumbnail(self, row: int) -> bytes | None:
        """Return the small picture file of one row; None where there is none."""
        if not 0 <= row < len(self):
            raise UsageError(f"row {row} of {len(self)} was asked for. Give 0 to {len(self) - 1}.")
        return self._thumbnails[row] or None if self._thumbnails is not None else None

    @cached_property
    def _thumbnails(self) -> Sequence[bytes] | None:
        source = self._thumbnail_source
        return _read_thumbnails(source, len(self)) if isinstance(source, Archive) else source

    @cached_property
    def arrays(self) -> Mapping[str, np.ndarray]:
        """Arrays that were given to ``build``, by name; read from the file when they are first asked for.

        Raises
        ------
        StoreError
            When they are damaged.
        """
        source = self._array_source
        return read_arrays(source) if isinstance(source, Archive) else source or {}

    def search(self, queries: Any, k: int = 10) -> SearchResult:
        """Return the k nearest rows of each query, by cosine, equal scores in the order of their ids.

        The result is exact: what a NumPy loop over all rows would give, ties included.

        Parameters
        ----------
        queries : array-like of shape (n_queries, width)
            Features made in the same way as those of the index; their length does not matter.
        k : int
            At least 1; lowered to the number of rows.

        Raises
        ------
        UsageError
            When a query has another width, or holds NaN or infinity.
        """
        if k < 1:
            raise UsageError(f"k={k} neighbours were asked for. Ask for at least 1.")
        unit = unit_vectors(queries if hasattr(queries, "shape") else np.asarray(queries), what="queries")
        if unit.shape[1] != self.width:
            raise UsageError(
                f"queries of width {unit.shape[1]} meet an index of width {self.width}. Extract the queries with the "
                "network and layer that the index was made with."
            )
        ids, scores = nearest(unit, self._vectors, min(k, len(self)))
        return SearchResult(
            ids=ids,
            scores=scores,
            paths=[[self.paths[row] for row in rows] for rows in ids],
            labels=[[self.labels[row] for row in rows] for rows in ids],
        )

    def save(self, path: str | Path, overwrite: bool = False) -> None:
        """Write the index as one file.

        Raises
        ------
        WouldOverwriteError
            When the file exists and ``overwrite`` is false.
        """
        table, array_content = array_parts(self.arrays)
        content = {
            "rows": len(self),
            "width": self.width,
            "metric": "cosine",
            "fingerprint": self.fingerprint,
            "metadata": self.metadata,
            **({"arrays": table} if table else {}),
        }
        rows = json.dumps({"paths": self.paths, "labels": self.labels}).encode()
        parts: dict[str, bytes | bytearray | memoryview | Path] = {
            "vectors.f32": self._vectors.astype("<f4", copy=False).data,
            "rows.json": rows,
        }
        if self._thumbnails is not None:
            # ends[i]: where the thumbnail of row i ends in the blob
            ends = np.cumsum([len(thumbnail) for thumbnail in self._thumbnails])
            parts["thumbnails.ends.i64"] = ends.astype("<i8").tobytes()
            parts["thumbnails.bin"] = b"".join(self._thumbnails)
        parts |= array_content
        write_archive(path, _KIND, content, parts, overwrite=overwrite)

    @classmethod
    def load(cls, path: str | Path) -> ImageIndex:
        """Return a saved index. Thumbnails are read when the first one is asked for.

        Raises
        ------
        StoreError
            When the file is missing, damaged, or not an index.
        UnsafeFileError
            When it was not written by featx.
        """
        archive = read_archive(path, _KIND)
        vectors = _read_vectors(archive)
        paths, labels = _read_rows(archive, len(vectors))
        fingerprint, metadata = archive.content.get("fingerprint"), archive.content.get("metadata")
        if not isinstance(fingerprint, dict | None) or not isinstance(metadata, dict):
            raise _inconsistent(archive, "fingerprint or metadata are not mappings")
        return cls(
            vectors=vectors,
            paths=paths,
            labels=labels,
            thumbnails=archive,
            fingerprint=fingerprint,
            metadata=metadata,
            arrays=archive,
        )


def _inconsistent(archive: Archive, what: str) -> StoreError:
    return StoreError(f"{archive.path} cannot be an index that featx wrote: {what}. Build it again.")


def _require(archive: Archive, *names: str) -> None:
    missing = [name for name in names if name not in archive.parts]
    if missing:
        raise _inconsistent(archive, f"it has no {' and no '.join(missing)}")


def _read_vectors(archive: Archive) -> np.ndarray:
    _require(archive, "vectors.f32", "rows.json")
    rows, width = archive.content.get("rows"), archive.content.get("width")
    if not isinstance(rows, int) or not isinstance(width, int) or rows < 1 or width < 1:
        raise _inconsistent(archive, f"it claims {rows!r} rows of width {width!r}")
    if archive.parts["vectors.f32"] != 4 * rows * width:
        raise _inconsistent(archive, f"{archive.parts['vectors.f32']} bytes are not {rows} rows of width {width}")
    vectors = np.frombuffer(archive.read("vectors.f32"), dtype="<f4").astype(np.float32, copy=False)
    vectors = vectors.reshape(rows, width)
    lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
    if not ((np.abs(lengths - 1) < 1e-3) | (lengths == 0)).all():
        raise _inconsistent(archive, "its vectors are not of length 1")
    return vectors


def _read_rows(archive: Archive, n_rows: int) -> tuple[tuple[str, ...], tuple[str | None, ...]]:
    try:
        rows = json.loads(archive.read("rows.json"))
        paths, labels = tuple(rows["paths"]), tuple(rows["labels"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _inconsistent(archive, f"its paths and labels cannot be read ({error})") from error
    texts = all(isinstance(path, str) for path in paths) and all(isinstance(label, str | None) for label in labels)
    if not len(paths) == len(labels) == n_rows or not texts:
        raise _inconsistent(archive, f"{len(paths)} paths and {len(labels)} labels for {n_rows} rows")
    return paths, labels


def _read_thumbnails(archive: Archive, n_rows: int) -> list[bytes] | None:
    if "thumbnails.bin" not in archive.parts:
        return None
    _require(archive, "thumbnails.ends.i64")
    blob, ends = archive.read("thumbnails.bin"), archive.read("thumbnails.ends.i64")
    bounds = np.concatenate([[0], np.frombuffer(ends, dtype="<i8")]) if len(ends) == 8 * n_rows else np.array([1])
    if bounds[0] != 0 or (np.diff(bounds) < 0).any() or bounds[-1] != len(blob):
        raise _inconsistent(archive, "its thumbnails lie outside of their part")
    return [blob[start:end] for start, end in pairwise(bounds)]
