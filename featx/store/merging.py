"""Merging computed rows into one store, in the order of a listing, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from featx.errors import StoreError, UsageError
from featx.store.fingerprint import check_same
from featx.store.info_checks import check_infos, in_order
from featx.store.layout import ROW_COLUMNS, STORE_FORMAT, ImageTable, MapInfo, RowInfo
from featx.store.replacing import publish, temporary_file, write_errors
from featx.store.row_selection import BYTES_PER_CHUNK, rows_per_block, rows_per_chunk
from featx.store.row_source import RowSource
from featx.store.writing import StoreWriter, canonical_json

_CHUNKS_PER_BLOCK = 32  # of 1 MiB each
_SPLITS = range(-1, 3)


@dataclass(frozen=True)
class _Origin:
    """Where each row of the new store comes from: ``rows[i]`` of ``sources[numbers[i]]``."""

    sources: Sequence[RowSource]
    numbers: np.ndarray
    rows: np.ndarray


def merge(
    out: Path,
    table: ImageTable,
    infos: Sequence[RowInfo],
    sources: Sequence[RowSource],
    *,
    fingerprint: Mapping,
    source: str,
    aliases: Mapping[str, str],
    failures: Sequence[tuple[str, str]],
) -> None:
    """Write the store `out`, whole or not at all.

    Parameters
    ----------
    out : Path
        Is replaced at the very end; its folder must exist. It may itself be one of the sources.
    table : ImageTable
        The rows, in order.
    infos : sequence of FeatureInfo or MapInfo
        Features and maps to write, and the dtype to store them in.
    sources : sequence of RowSource
        Row i of each dataset comes from the first source that knows its digest and has the features or the map.
    fingerprint : mapping
        How the features were made; each source must have been made in the same way.
    source : str
        Where the images came from, for people.
    aliases : mapping of str to str
        Other name → key or layer.
    failures : sequence of (path, reason)
        Images that have no row.

    Raises
    ------
    UsageError
        Parts of `table` do not fit each other, or `infos` cannot be stored.
    FingerprintMismatchError
        A source was made in another way.
    StoreError
        No source knows a row (the message names the first), a source is damaged, or the disk is full.

    Notes
    -----
    About 32 MiB of features or maps are in memory at a time. Rows are read in the order of the new store: cheap where
    the sources have about the same order, which extraction's have; a random order reads each source many times.
    """
    out = Path(out)
    _check_table(table)
    check_infos(infos)
    for origin in sources:
        check_same(fingerprint, origin.fingerprint, what=str(origin.path))
    attributes = {"source": source, "aliases": canonical_json(aliases)}
    images = _origin_of(table, sources, "perceptual hash and size")
    origins = [(info, _origin_of(table, _holding(sources, info), info.title)) for info in in_order(infos)]
    kept = "A store that was there before is unchanged, and so is everything that was computed."
    with write_errors(out, kept=kept), temporary_file(out) as temporary:
        with StoreWriter(temporary) as writer:
            _put_images(writer, table, images)
            for info, origin_of_rows in origins:
                _put_rows(writer, info, origin_of_rows)
            writer.put_strings("/failures/path", [path for path, _ in failures])
            writer.put_strings("/failures/reason", [reason for _, reason in failures])
            writer.finish(
                format_name=STORE_FORMAT, rows=len(table.paths), fingerprint=fingerprint, attributes=attributes
            )
        publish(temporary, out)


def _holding(sources: Sequence[RowSource], info: RowInfo) -> list[RowSource]:
    """Return the sources that have the features as values, not as codes, or the map; all of the expected shape."""
    holding = [source for source in sources if info.key in source.infos and source.infos[info.key].dtype != "uint8"]
    for source in holding:
        found = source.infos[info.key].row_shape
        if found != info.row_shape:
            sizes = [" x ".join(map(str, shape)) for shape in (found, info.row_shape)]
            message = (
                f"{source.path} has {info.title} of {sizes[0]} values an image, not {sizes[1]}. "
                "They come from another network: remove the file, or write to another store."
            )
            raise StoreError(message)
    return holding


def _origin_of(table: ImageTable, sources: Sequence[RowSource], what: str) -> _Origin:
    numbers = np.full(len(table.paths), -1, dtype=np.int32)
    rows = np.zeros(len(table.paths), dtype=np.int64)
    for number, source in enumerate(sources):
        missing = np.flatnonzero(numbers < 0)
        found = source.find(table.digests[missing])
        known = missing[found >= 0]
        numbers[known], rows[known] = number, found[found >= 0]
    unknown = np.flatnonzero(numbers < 0)
    if len(unknown):
        first = int(unknown[0])
        message = (
            f"Row {first} ({table.paths[first]}, digest {table.digests[first].tobytes().hex()}): none of "
            f"{len(sources)} sources has its {what}; {len(unknown)} of {len(rows)} rows are missing. "
            "Repeat the extraction to compute them."
        )
        raise StoreError(message)
    return _Origin(sources, numbers, rows)


def _put_images(writer: StoreWriter, table: ImageTable, origin: _Origin) -> None:
    writer.put_strings("/images/path", table.paths)
    writer.put_column("digest", table.digests)
    for name, read in (("phash", RowSource.read_phashes), ("size", RowSource.read_sizes)):
        dtype, row_shape = ROW_COLUMNS[name]
        blocks = _blocks(origin, row_shape, np.dtype(dtype), read)
        writer.put_blocks(f"/images/{name}", (len(table.paths), *row_shape), np.dtype(dtype), blocks)
    writer.put_column("label", table.labels)
    writer.put_column("split", table.splits)
    if table.groups is not None:
        writer.put_column("group", table.groups)
    writer.put_strings("/labels/names", table.label_names)


def _put_rows(writer: StoreWriter, info: RowInfo, origin: _Origin) -> None:
    # Features are read as float32 and cast by the writer, which notices what float16 cannot hold; maps are float16 in
    # every source.
    dtype = np.dtype(info.dtype if isinstance(info, MapInfo) else "f4")
    blocks = _blocks(origin, info.row_shape, dtype, lambda source, rows: source.read(info.key, rows))
    writer.put_rows(info, len(origin.rows), blocks)


def _blocks(
    origin: _Origin,
    row_shape: tuple[int, ...],
    dtype: np.dtype,
    read: Callable[[RowSource, np.ndarray], np.ndarray],
) -> Iterator[np.ndarray]:
    """Yield the rows of the new store in order, in blocks of whole chunks."""
    n_rows = rows_per_chunk(row_shape, dtype.itemsize)
    step = rows_per_block(row_shape, dtype.itemsize, n_rows, _CHUNKS_PER_BLOCK * BYTES_PER_CHUNK)
    for start in range(0, len(origin.rows), step):
        numbers, rows = origin.numbers[start : start + step], origin.rows[start : start + step]
        block = np.empty((len(rows), *row_shape), dtype)
        for number in np.unique(numbers):
            chosen = numbers == number
            block[chosen] = read(origin.sources[number], rows[chosen])
        yield block


def _check_table(table: ImageTable) -> None:
    n = len(table.paths)
    shapes = {"digests": (n, 16), "labels": (n,), "splits": (n,)}
    if table.groups is not None:
        shapes["groups"] = (n,)
    for name, expected in shapes.items():
        given = np.shape(getattr(table, name))
        if given != expected:
            raise UsageError(f"{name} of {n} rows must have the shape {expected}, got {given}. Give one row per path.")
    limits = {"labels": range(-1, len(table.label_names)), "splits": _SPLITS}
    for name, allowed in limits.items():
        values = np.asarray(getattr(table, name))
        outside = values[(values < allowed.start) | (values >= allowed.stop)]
        if len(outside):
            message = f"{name} must be from -1 to {allowed.stop - 1}, got {int(outside[0])}. Correct the listing."
            raise UsageError(message)
