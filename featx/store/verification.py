"""Verifying a file: is every byte what was written?"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import h5py

from featx.errors import StoreError
from featx.store.digests import ATTRIBUTES, DIGESTS, attributes_digest, dataset_digest
from featx.store.header import check_columns, check_format, read_header
from featx.store.layout import SEGMENT_COLUMNS, SEGMENT_FORMAT, STORE_COLUMNS, STORE_FORMAT
from featx.store.safety import STRUCTURE_ERRORS, has_checksum, open_file, read_errors, size_problem, walk

_PER_IMAGE = ("/images/", "/features/", "/maps/")


def verify(path: Path) -> list[str]:
    """Return the problems of a store or segment, one line each; none when every byte is what was written.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    list of str
        Each names the dataset it is about.

    Raises
    ------
    StoreError
        There is no such file.
    UnsafeFileError
        The file reaches outside of itself (links, external storage).

    Notes
    -----
    Reads everything once, a few chunks in memory at a time.
    """
    path = Path(path)
    try:
        file = open_file(path)
    except StoreError as error:
        if not path.is_file():
            raise
        return [str(error)]
    with file:
        return [*_header_problems(file, path), *content_problems(file)]


def content_problems(file: h5py.File) -> list[str]:
    """Return what differs from the digests of an open file, and what is missing, one line each."""
    path = Path(file.filename)
    try:
        with read_errors(path, kinds=STRUCTURE_ERRORS):
            datasets = {name: item for name, item in walk(file) if isinstance(item, h5py.Dataset)}
            digests = dict(file[DIGESTS].attrs) if DIGESTS in file else {}
    except StoreError as error:
        return [str(error)]
    problems = [] if digests else [f"{DIGESTS} is missing: nothing to compare with"]
    problems += [f"{name} is missing" for name in digests if name != ATTRIBUTES and name not in datasets]
    for name, dataset in datasets.items():
        try:
            with read_errors(path, name):
                problems += [f"{name} {problem}" for problem in _dataset_problems(file, dataset, digests.get(name))]
        except StoreError as error:
            problems.append(f"{name} is damaged: {error.__cause__}")
    return problems + _attribute_problems(file, path, digests.get(ATTRIBUTES))


def _header_problems(file: h5py.File, path: Path) -> Iterator[str]:
    try:
        with read_errors(path, kinds=STRUCTURE_ERRORS):
            check_format(file, path, (STORE_FORMAT, SEGMENT_FORMAT))
            header = read_header(file, path)
            if not header.complete:
                yield "the file was not finished: its attribute 'complete' is missing or false"
            segment = file.attrs["format"] == SEGMENT_FORMAT
            check_columns(file, path, header.rows, SEGMENT_COLUMNS if segment else STORE_COLUMNS)
    except StoreError as error:
        yield str(error)


def _dataset_problems(file: h5py.File, dataset: h5py.Dataset, digest: object) -> Iterator[str]:
    too_large = size_problem(file, dataset)
    missing = _missing_chunks(dataset)
    if missing:
        yield f"lacks {missing} of its chunks, which would read as zeros"
    elif too_large:
        yield f"{too_large}"
    if not has_checksum(dataset):
        yield "has no fletcher32 checksum"
    if dataset.name.startswith(_PER_IMAGE) and dataset.shape[:1] != (file.attrs.get("rows"),):
        yield f"has the shape {dataset.shape}, not {file.attrs.get('rows')} rows"
    if digest is None:
        yield f"has no digest in {DIGESTS}"
    elif not too_large and not missing and dataset_digest(dataset) != digest:
        yield "is not what was written: its digest differs"


def _missing_chunks(dataset: h5py.Dataset) -> int:
    if not dataset.chunks:
        return 0
    expected = math.prod(-(-size // chunk) for size, chunk in zip(dataset.shape, dataset.chunks, strict=True))
    return expected - dataset.id.get_num_chunks()


def _attribute_problems(file: h5py.File, path: Path, digest: object) -> list[str]:
    try:
        with read_errors(path, "the attributes", STRUCTURE_ERRORS):
            if digest is None:
                return [f"the attributes have no digest in {DIGESTS}"]
            if attributes_digest(file) != digest:
                return ["the attributes are not what was written: their digest differs"]
    except StoreError as error:
        return [str(error)]
    return []
