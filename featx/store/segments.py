"""Segments: small files of computed rows, each complete from the moment it has its name."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from featx.errors import StoreError, UnsafeFileError, UsageError
from featx.store.header import open_checked
from featx.store.info_checks import check_infos, in_order
from featx.store.layout import SEGMENT_FORMAT, RowBlock, RowInfo
from featx.store.replacing import publish, remove_leftovers, temporary_file, write_errors
from featx.store.row_source import RowSource
from featx.store.verification import content_problems
from featx.store.writing import StoreWriter

_NAME = re.compile(r"(\d{6,})\.h5")
_TEMPORARY_NAME = "segment.h5"
_log = logging.getLogger(__name__)


def write_segment(folder: Path, block: RowBlock, infos: Sequence[RowInfo], fingerprint: Mapping) -> Path:
    """Write computed rows as the next segment and return its path, ``folder/NNNNNN.h5``.

    Parameters
    ----------
    folder : Path
        Is made where it is missing. Leftovers of killed writers in it are removed.
    block : RowBlock
        n rows.
    infos : sequence of FeatureInfo or MapInfo
        Which features and maps of `block` to write, and the dtype to store them in.
    fingerprint : mapping
        How they were made, as JSON-able values.

    Returns
    -------
    Path
        Of a file that is whole and on the disk. Several processes may write into one folder.

    Raises
    ------
    UsageError
        The parts of `block` do not have the same number of rows, or do not fit `infos`.
    StoreError
        The disk is full or cannot be written, or a value does not fit float16. Segments written before are kept.
    """
    folder = Path(folder)
    check_infos(infos)
    _check_block(block, infos)
    with write_errors(folder, kept="What was written before is kept."):
        folder.mkdir(parents=True, exist_ok=True)
        with temporary_file(folder / _TEMPORARY_NAME) as temporary:
            with StoreWriter(temporary) as writer:
                _put_block(writer, block, infos)
                writer.finish(format_name=SEGMENT_FORMAT, rows=len(block.paths), fingerprint=fingerprint)
            path = _reserve_number(folder)
            try:
                publish(temporary, path)
            except BaseException:
                path.unlink(missing_ok=True)
                raise
    return path


def open_segments(folder: Path) -> list[RowSource]:
    """Return the readable segments of a folder in the order of their numbers.

    Parameters
    ----------
    folder : Path
        May be missing.

    Returns
    -------
    list of RowSource
        Damaged segments are left out with a warning in the log: their rows are simply not known.

    Notes
    -----
    Each segment is read whole and compared with its digests, so that damage shows here, where the rows can still be
    computed again, and not when they are merged. That costs about a second a gigabyte.
    """
    folder = Path(folder)
    if not folder.is_dir():
        return []
    remove_leftovers(folder, _TEMPORARY_NAME)
    numbers = _numbers(folder)
    sources = (_open_segment(numbers[number]) for number in sorted(numbers))
    return [source for source in sources if source is not None]


def _open_segment(path: Path) -> RowSource | None:
    if path.stat().st_size == 0:
        return None  # a number that was reserved by a writer that did not come to use it
    try:
        file, header = open_checked(path, (SEGMENT_FORMAT,))
        with file:
            problems = content_problems(file)
            if problems or not header.complete:
                raise StoreError("; ".join(problems) or "it was not finished")
            digests = file["images/digest"][...]
    except (StoreError, UnsafeFileError) as error:
        _log.warning("segment %s is left out, its images will be computed again: %s", path, error)
        return None
    return RowSource(path.absolute(), header.fingerprint, header.row_infos, digests)


def _numbers(folder: Path) -> dict[int, Path]:
    matches = ((_NAME.fullmatch(path.name), path) for path in folder.iterdir())
    return {int(match[1]): path for match, path in matches if match}


def _reserve_number(folder: Path) -> Path:
    """Make an empty file of the next free number, so that no other writer takes it, and return its path."""
    number = max(_numbers(folder), default=0) + 1
    while True:
        path = folder / f"{number:06d}.h5"
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        except FileExistsError:
            number += 1
        else:
            return path


def _put_block(writer: StoreWriter, block: RowBlock, infos: Sequence[RowInfo]) -> None:
    writer.put_strings("/images/path", block.paths)
    writer.put_column("digest", block.digests)
    writer.put_column("phash", block.phashes)
    writer.put_column("size", block.sizes)
    for info in in_order(infos):
        writer.put_rows(info, len(block.paths), [block.features[info.key]])


def _check_block(block: RowBlock, infos: Sequence[RowInfo]) -> None:
    n = len(block.paths)
    shapes = {
        "digests": (np.shape(block.digests), (n, 16)),
        "phashes": (np.shape(block.phashes), (n, 8)),
        "sizes": (np.shape(block.sizes), (n, 2)),
        **{info.key: (np.shape(block.features.get(info.key, ())), (n, *info.row_shape)) for info in infos},
    }
    for name, (given, expected) in shapes.items():
        if given != expected:
            raise UsageError(f"{name} of {n} rows must have the shape {expected}, got {given}. Give one row per path.")
