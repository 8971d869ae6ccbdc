"""An index as one file, whose vectors anybody can read with NumPy.

``vectors.f32`` holds plain little-endian float32 rather than FAISS' own format: no C++ parser meets bytes from
elsewhere, and a flat index is nothing but its vectors. Only a structure that proposes candidates, where there is one,
is FAISS' own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.archive import Archive, Part, StreamedPart, read_archive, write_archive
from featx.errors import StoreError, UsageError
from featx.retrieval.attached_arrays import array_parts, read_arrays
from featx.retrieval.attached_structure import PART as STRUCTURE
from featx.retrieval.embedding import Embedding
from featx.retrieval.growth import Growth
from featx.retrieval.indexed_images import IndexedImages
from featx.retrieval.vector_rows import VectorRows

if TYPE_CHECKING:
    from featx.retrieval.index import ImageIndex
    from featx.retrieval.tuning import Tuning

KIND = "featx-index"
_VECTORS, _ROWS = "vectors.f32", "rows.json"
_IDS, _PLACES, _DIGESTS = "ids.i64", "places.i64", "digests.u8"
_THUMBNAILS, _THUMBNAIL_ENDS = "thumbnails.bin", "thumbnails.ends.i64"
EMBEDDING = "embedding/"  # what names its arrays begin with, among those of the caller


def write_index(index: ImageIndex, path: str | Path, *, overwrite: bool = False) -> None:
    """Write an index, whole or not at all.

    Raises
    ------
    WouldOverwriteError
        The file exists and `overwrite` is false.
    StoreError
        The file cannot be written.
    """
    vectors, images = index.vector_rows, index.images
    described, learned = index.embedding.to_parts()
    arrays = {**index.arrays, **{EMBEDDING + name: array for name, array in learned.items()}}
    table, array_content = array_parts(arrays)
    content = {
        "rows": len(images),
        "width": vectors.width,
        "places": len(vectors),
        "metric": "cosine",
        "fingerprint": index.fingerprint,
        "metadata": index.metadata,
        "embedding": described,
        "tuning": None if index.tuning is None else index.tuning.to_json(),
        "growth": asdict(index.growth),
        "next_id": index.next_id,
        **({"arrays": table} if table else {}),
    }
    parts: dict[str, Part] = {
        _VECTORS: StreamedPart(4 * len(vectors) * vectors.width, lambda: _bytes_of(vectors)),
        _ROWS: json.dumps({"paths": images.paths, "labels": images.labels, "splits": images.splits}).encode(),
        _IDS: images.ids.astype("<i8").tobytes(),
        _PLACES: images.places.astype("<i8").tobytes(),
    }
    if images.digests is not None:
        parts[_DIGESTS] = images.digests.tobytes()
    if images.thumbnails is not None:
        # ends[i]: where the thumbnail of row i ends in the blob
        ends = np.cumsum([len(thumbnail) for thumbnail in images.thumbnails])
        parts[_THUMBNAIL_ENDS] = ends.astype("<i8").tobytes()
        parts[_THUMBNAILS] = b"".join(images.thumbnails)
    if index.structure is not None:
        parts[STRUCTURE] = index.structure.to_bytes()
    write_archive(path, KIND, content, parts | array_content, overwrite=overwrite)


def read_index(path: str | Path) -> ImageIndex:
    """Return the index of a file; see `ImageIndex.load`.

    Large parts are mapped rather than read: vectors where a structure is searched in their stead, arrays, thumbnails.
    """
    from featx.retrieval.index import ImageIndex

    archive = read_archive(path, KIND)
    content = archive.content
    found, metadata = content.get("fingerprint"), content.get("metadata")
    if not isinstance(found, dict | None) or not isinstance(metadata, dict):
        raise _inconsistent(archive, "fingerprint or metadata are not mappings")
    _require(archive, _VECTORS, _ROWS)
    has_structure = STRUCTURE in archive.parts
    if has_structure:
        archive.check(STRUCTURE)
    vectors = _read_vectors(archive, mapped=has_structure)
    images = _read_images(archive, len(vectors))
    arrays = read_arrays(archive)
    embedding = _read_embedding(archive, arrays, vectors.width)
    try:
        growth = Growth.from_json(content.get("growth") or {"n_built": len(images)})
        tuning = _read_tuning(content.get("tuning"))
        next_id = int(content.get("next_id", len(images)))
    except (KeyError, TypeError, ValueError) as error:
        raise _inconsistent(archive, f"how it was tuned and has grown cannot be read ({error})") from error
    if has_structure and tuning is None:
        raise _inconsistent(archive, "it has a structure and no search parameters")
    if next_id <= images.ids[-1]:
        raise _inconsistent(archive, f"its next id is {next_id}, its last {images.ids[-1]}")
    return ImageIndex(
        vectors,
        images,
        embedding,
        fingerprint=found,
        metadata=metadata,
        arrays={name: array for name, array in arrays.items() if not name.startswith(EMBEDDING)},
        structure=archive if has_structure else None,
        tuning=tuning,
        growth=growth,
        next_id=next_id,
    )


class _Pictures(Sequence[bytes]):
    """Thumbnails as they lie in the file."""

    def __init__(self, blob: np.ndarray, bounds: np.ndarray) -> None:
        self._blob, self._bounds = blob, bounds

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def __getitem__(self, row: Any) -> Any:
        if isinstance(row, slice):
            return [self[number] for number in range(*row.indices(len(self)))]
        number = range(len(self))[row]
        return self._blob[self._bounds[number] : self._bounds[number + 1]].tobytes()


def _inconsistent(archive: Archive, what: str) -> StoreError:
    return StoreError(f"{archive.path} cannot be an index that featx wrote: {what}. Build it again.")


def _require(archive: Archive, *names: str) -> None:
    missing = [name for name in names if name not in archive.parts]
    if missing:
        raise _inconsistent(archive, f"it has no {' and no '.join(missing)}")


def _bytes_of(vectors: VectorRows) -> Iterator[bytes]:
    for block in vectors.blocks():
        yield block.astype("<f4", copy=False).tobytes()


def _read_vectors(archive: Archive, *, mapped: bool) -> VectorRows:
    width = archive.content.get("width")
    places = archive.content.get("places", archive.content.get("rows"))
    if not isinstance(places, int) or not isinstance(width, int) or places < 1 or width < 1:
        raise _inconsistent(archive, f"it claims {places!r} rows of width {width!r}")
    if archive.parts[_VECTORS] != 4 * places * width:
        raise _inconsistent(archive, f"{archive.parts[_VECTORS]} bytes are not {places} rows of width {width}")
    content = archive.map(_VECTORS) if mapped else np.frombuffer(archive.read(_VECTORS), np.uint8)
    vectors = VectorRows([content.view("<f4").reshape(places, width)])
    for block in vectors.blocks():
        lengths = np.sqrt(np.einsum("nd,nd->n", block, block))
        if not ((np.abs(lengths - 1) < 1e-3) | (lengths == 0)).all():
            raise _inconsistent(archive, "its vectors are not of length 1")
    return vectors


def _read_images(archive: Archive, n_places: int) -> IndexedImages:
    try:
        rows = json.loads(archive.read(_ROWS))
        paths, labels = rows["paths"], rows["labels"]
        splits = rows.get("splits", [None] * len(paths))
        if not all(isinstance(column, list) for column in (paths, labels, splits)):
            raise ValueError("paths, labels and splits are not all lists")
        ids, places = (_read_numbers(archive, name, len(paths)) for name in (_IDS, _PLACES))
        if not (np.diff(ids) > 0).all() or not (np.diff(places) > 0).all() or places[-1] >= n_places or places[0] < 0:
            raise ValueError("ids and places do not ascend within the vectors")
        digests = None
        if _DIGESTS in archive.parts:
            digests = np.frombuffer(archive.read(_DIGESTS), np.uint8).reshape(-1, 16)
        texts = all(isinstance(path, str) for path in paths) and all(
            isinstance(text, str | None) for column in (labels, splits) for text in column
        )
        if not texts or len(paths) != archive.content.get("rows"):
            raise ValueError(f"{len(paths)} paths for {archive.content.get('rows')} rows")
        thumbnails = _read_thumbnails(archive, len(paths))
        return IndexedImages.of(
            ids, places, paths=paths, labels=labels, splits=splits, digests=digests, thumbnails=thumbnails
        )
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, RecursionError, UsageError) as error:
        raise _inconsistent(archive, f"its images cannot be read ({error})") from error


def _read_numbers(archive: Archive, name: str, n_rows: int) -> np.ndarray:
    """Return the int64 of a part; row numbers in files of before there were such parts."""
    if name not in archive.parts:
        return np.arange(n_rows)
    numbers = np.frombuffer(archive.read(name), "<i8").astype(np.int64)
    if len(numbers) != n_rows:
        raise ValueError(f"{len(numbers)} numbers in {name} for {n_rows} rows")
    return numbers


def _read_thumbnails(archive: Archive, n_rows: int) -> Sequence[bytes] | None:
    if _THUMBNAILS not in archive.parts:
        return None
    _require(archive, _THUMBNAIL_ENDS)
    bounds = np.concatenate([[0], _read_numbers(archive, _THUMBNAIL_ENDS, n_rows)])
    if (np.diff(bounds) < 0).any() or bounds[-1] != archive.parts[_THUMBNAILS]:
        raise ValueError("its thumbnails lie outside of their part")
    blob = archive.map(_THUMBNAILS) if bounds[-1] else np.empty(0, np.uint8)
    return _Pictures(blob, bounds)


def _read_embedding(archive: Archive, arrays: Mapping[str, np.ndarray], width: int) -> Embedding:
    described = archive.content.get("embedding")
    if described is None:
        return Embedding([width])
    learned = {name.removeprefix(EMBEDDING): array for name, array in arrays.items() if name.startswith(EMBEDDING)}
    embedding = Embedding.from_parts(described, learned)
    if embedding.n_columns_out != width:
        raise _inconsistent(archive, f"its embedding gives {embedding.n_columns_out} numbers, its vectors have {width}")
    return embedding


def _read_tuning(values: Any) -> Tuning | None:
    if values is None:
        return None

    from featx.retrieval.tuning import Tuning

    return Tuning.from_json(values)
