"""Opening a file that anybody may have made: refuse what asks for more than data, before any data is touched."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

from featx.errors import FeatxError, StoreError, UnsafeFileError

_MOST_LEVELS = 8
# Other filters would load plug-ins of their own.
_ALLOWED_FILTERS = {h5py.h5z.FILTER_FLETCHER32, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE}
_MOST_DEFLATED = 1032  # deflate cannot shrink by more than this factor
# What h5py raises where the bytes of a dataset are damaged, and where names, types and attributes are.
_DATA_ERRORS = (OSError, RuntimeError, KeyError)
STRUCTURE_ERRORS = (*_DATA_ERRORS, ValueError, TypeError, OverflowError, MemoryError)
_UNSAFE_ADVICE = "Do not trust this file; featx never writes such a one. Extract the features again."


def open_file(path: Path) -> h5py.File:
    """Return `path` opened for reading, after looking for links, storage and filters that reach outside of it.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    h5py.File
        Whose sizes are not checked yet: see `check_sizes`.

    Raises
    ------
    StoreError
        There is no such file, it is not HDF5, or too damaged to be opened.
    UnsafeFileError
        It holds links that are not plain, external storage, virtual datasets or unknown filters.
    """
    file = _open(path)
    try:
        with read_errors(path, kinds=STRUCTURE_ERRORS):
            for name, item in walk(file):
                if isinstance(item, h5py.Dataset):
                    _check_storage(path, name, item)
    except BaseException:
        file.close()
        raise
    return file


def _open(path: Path) -> h5py.File:
    if not path.exists() and path.with_name(f"{path.name}.parts").is_dir():
        raise StoreError(f"{path} is not finished; repeat the featx extract that began it, which continues it.")
    if not path.exists():
        message = (
            f"There is no store at {path}. Check the path, or make the store with: featx extract SOURCE --out F.h5"
        )
        raise StoreError(message)
    if not path.is_file():
        raise StoreError(f"{path} is not a file; a store is one HDF5 file. Give the path of the .h5 file.")
    try:
        return h5py.File(path, "r")
    except (OSError, RuntimeError, ValueError) as error:
        raise StoreError(_why_unopenable(path, error)) from error


def _why_unopenable(path: Path, error: Exception) -> str:
    if isinstance(error, PermissionError):
        return f"{path} may not be read by this user. Change its permissions."
    if path.stat().st_size == 0:
        return f"{path} is empty, not a store. Extract the features again."
    if not h5py.is_hdf5(path):
        return f"{path} is not an HDF5 file, so not a store. Give the path of a file made by featx extract."
    if "truncated file" in str(error):
        return f"{path} is truncated: its end is missing. Copy it again, or extract the features again."
    return f"{path} is damaged and cannot be opened ({error}). Copy it again, or extract the features again."


@contextmanager
def read_errors(path: Path, name: str = "", kinds: tuple[type[Exception], ...] = _DATA_ERRORS) -> Iterator[None]:
    """Turn what h5py raises on damaged files into a StoreError that names the file and the dataset."""
    try:
        yield
    except FeatxError:
        raise
    except kinds as error:
        what = f"{path}: {name}" if name else str(path)
        reason = str(error.args[0] if error.args else error).splitlines()[0]
        message = (
            f"{what} cannot be read ({reason}). The file is damaged: copy it again, or extract the features again."
        )
        raise StoreError(message) from error


def walk(file: h5py.File) -> Iterator[tuple[str, h5py.Group | h5py.Dataset]]:
    """Yield (absolute path, object) of every group and dataset, the root first, names in code-point order.

    Raises
    ------
    UnsafeFileError
        A link is not a plain one within the file, or groups contain each other or nest too deep.
    """
    yield from _walk(file, file["/"], "/", set(), 0)


def _walk(
    file: h5py.File, group: h5py.Group, path: str, seen: set[int], level: int
) -> Iterator[tuple[str, h5py.Group | h5py.Dataset]]:
    address = h5py.h5o.get_info(group.id).addr
    if address in seen or level > _MOST_LEVELS:
        raise UnsafeFileError(f"{file.filename}: group {path} nests without end. {_UNSAFE_ADVICE}")
    seen.add(address)
    yield path, group
    for name in sorted(group):
        inner = f"{path.rstrip('/')}/{name}"
        _check_link(file, group, name, inner)
        item = group[name]
        if isinstance(item, h5py.Dataset):
            yield inner, item
        elif isinstance(item, h5py.Group):
            yield from _walk(file, item, inner, seen, level + 1)


def _check_link(file: h5py.File, group: h5py.Group, name: str, path: str) -> None:
    kind = group.id.links.get_info(name.encode("utf-8", "surrogateescape")).type
    if kind != h5py.h5l.TYPE_HARD:
        kinds = {h5py.h5l.TYPE_SOFT: "a soft link", h5py.h5l.TYPE_EXTERNAL: "a link to another file"}
        message = f"{file.filename}: {path} is {kinds.get(kind, 'a link of unknown kind')}. {_UNSAFE_ADVICE}"
        raise UnsafeFileError(message)


def _check_storage(path: Path, name: str, dataset: h5py.Dataset) -> None:
    creation = dataset.id.get_create_plist()
    if creation.get_layout() == h5py.h5d.VIRTUAL:
        raise UnsafeFileError(f"{path}: {name} is a virtual dataset, made of other files. {_UNSAFE_ADVICE}")
    if creation.get_external_count():
        raise UnsafeFileError(f"{path}: {name} keeps its data in another file. {_UNSAFE_ADVICE}")
    others = _filters(dataset) - _ALLOWED_FILTERS
    if others:
        message = (
            f"{path}: {name} needs HDF5 filter {sorted(others)}; allowed are fletcher32, shuffle and deflate. "
            f"{_UNSAFE_ADVICE}"
        )
        raise UnsafeFileError(message)


def _filters(dataset: h5py.Dataset) -> set[int]:
    creation = dataset.id.get_create_plist()
    return {creation.get_filter(i)[0] for i in range(creation.get_nfilters())}


def has_checksum(dataset: h5py.Dataset) -> bool:
    """Return whether each chunk of the dataset carries a fletcher32 checksum."""
    return h5py.h5z.FILTER_FLETCHER32 in _filters(dataset)


def check_sizes(file: h5py.File) -> None:
    """Raise an error if a dataset promises more bytes than are stored for it.

    Raises
    ------
    UnsafeFileError
        Chunks are missing, or the shape was made to exhaust memory.
    """
    for name, item in walk(file):
        if isinstance(item, h5py.Dataset):
            problem = size_problem(file, item)
            if problem:
                message = f"{file.filename}: {name} {problem}: damaged, or made to exhaust memory. {_UNSAFE_ADVICE}"
                raise UnsafeFileError(message)


def size_problem(file: h5py.File, dataset: h5py.Dataset) -> str | None:
    """Return why the dataset's shape cannot be true, or None where the stored bytes can hold it."""
    shape = dataset.shape
    if shape is None:
        return "has no shape"
    stored = dataset.id.get_storage_size()
    in_file = file.id.get_filesize()
    if stored > in_file:
        return f"claims {stored} stored bytes in a file of {in_file}"
    most = stored * (_MOST_DEFLATED if h5py.h5z.FILTER_DEFLATE in _filters(dataset) else 1)
    n_items = math.prod(shape)
    if n_items and dataset.chunks:
        n_items = max(n_items, math.prod(dataset.chunks))
    promised = n_items * dataset.id.get_type().get_size()
    if promised > most:
        return f"of shape {shape} promises {promised} bytes, but {stored} are stored"
    return None
