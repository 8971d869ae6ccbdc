"""What a file of the layout says about itself: read and checked once, before its rows are touched."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from featx.errors import StoreError
from featx.store.layout import (
    CODE_DTYPE,
    CODECS,
    FORMAT_VERSION,
    MAP_DTYPE,
    ROW_COLUMNS,
    SEGMENT_COLUMNS,
    SEGMENT_FORMAT,
    STORE_COLUMNS,
    STORE_FORMAT,
    VALUE_DTYPES,
    FeatureInfo,
    MapInfo,
    RowInfo,
)
from featx.store.reducer_arrays import reducer_kinds
from featx.store.safety import STRUCTURE_ERRORS, check_sizes, open_file, read_errors

_REPAIR = "The file is damaged or of another kind: copy it again, or extract the features again."
_LONGEST_SHAPE = 32


@dataclass(frozen=True)
class Header:
    """The attributes of a file, its features, shallowest layer first, its maps, and which reducers it has."""

    rows: int
    fingerprint: dict[str, Any]
    source: str
    aliases: dict[str, str]
    complete: bool
    infos: dict[str, FeatureInfo]
    maps: dict[str, MapInfo]
    reducers: dict[str, str]  # key → kind

    @property
    def row_infos(self) -> dict[str, RowInfo]:
        """Features and maps by key."""
        return {**self.infos, **self.maps}


def open_checked(path: Path, formats: Sequence[str] = (STORE_FORMAT,)) -> tuple[h5py.File, Header]:
    """Return a file opened for reading and its header, after all checks that need no data.

    Parameters
    ----------
    path : Path
        The file.
    formats : sequence of str
        What the attribute ``format`` may say.

    Returns
    -------
    h5py.File, Header

    Raises
    ------
    StoreError
        Missing, damaged, not HDF5, another kind of HDF5 file, or of a newer format.
    UnsafeFileError
        It asks for more than data.
    """
    file = open_file(path)
    try:
        with read_errors(path, kinds=STRUCTURE_ERRORS):
            check_format(file, path, formats)
            check_sizes(file)
            header = read_header(file, path)
            columns = SEGMENT_COLUMNS if _attribute(file, "format") == SEGMENT_FORMAT else STORE_COLUMNS
            check_columns(file, path, header.rows, columns)
    except BaseException:
        file.close()
        raise
    return file, header


def check_format(file: h5py.File, path: Path, formats: Sequence[str]) -> None:
    """Raise a StoreError unless the file says to be of a format and version that can be read."""
    given, version = _attribute(file, "format"), _attribute(file, "format_version")
    if given not in formats:
        message = (
            f"{path} is an HDF5 file, but not a store: its attribute 'format' is {given!r}, not "
            f"{' or '.join(formats)}. "
            "Give the path of a file made by featx extract."
        )
        raise StoreError(message)
    if not isinstance(version, int) or version < 1:
        raise StoreError(f"{path}: format_version is {version!r}, not a number from 1 to {FORMAT_VERSION}. {_REPAIR}")
    if version > FORMAT_VERSION:
        message = f"{path} has format {version}; this featx reads up to {FORMAT_VERSION}. Update featx to read it."
        raise StoreError(message)


def read_header(file: h5py.File, path: Path) -> Header:
    """Return the header of a file of a known format.

    Raises
    ------
    StoreError
        An attribute is missing or not of its type, or rows do not match.
    """
    rows = _attribute(file, "rows")
    if not isinstance(rows, int) or isinstance(rows, bool) or rows < 0:
        raise StoreError(f"{path}: the attribute 'rows' is {rows!r}, not a number of images. {_REPAIR}")
    aliases = _json_attribute(file, path, "aliases", default="{}")
    if not all(isinstance(target, str) for target in aliases.values()):
        raise StoreError(f"{path}: the attribute 'aliases' maps to something that is not a name. {_REPAIR}")
    infos, reducers = _read_infos(file, path, rows), reducer_kinds(file)
    _check_codebooks(path, infos, reducers)
    return Header(
        rows=rows,
        fingerprint=_json_attribute(file, path, "fingerprint"),
        source=str(_attribute(file, "source") or ""),
        aliases=aliases,
        complete=_attribute(file, "complete") is True,
        infos=infos,
        maps=_read_maps(file, path, rows),
        reducers=reducers,
    )


def check_columns(file: h5py.File, path: Path, rows: int, names: Sequence[str]) -> None:
    """Raise a StoreError unless ``/images`` has the named columns, each of its type and `rows` rows."""
    present = "group" in file.get("images", {})
    for name in (*names, "group") if present else names:
        dataset = file.get(f"images/{name}")
        if not isinstance(dataset, h5py.Dataset):
            raise StoreError(f"{path} has no dataset /images/{name}. {_REPAIR}")
        dtype, row_shape = ROW_COLUMNS.get(name, ("S", ()))
        expected = (rows, *row_shape)
        same_type = dataset.dtype.kind == "S" if dtype == "S" else dataset.dtype == np.dtype(dtype)
        if dataset.shape != expected or not same_type:
            message = (
                f"{path}: /images/{name} is {dataset.dtype} of shape {dataset.shape}, not "
                f"{'fixed-length strings' if dtype == 'S' else np.dtype(dtype)} of shape {expected}. {_REPAIR}"
            )
            raise StoreError(message)


def _read_infos(file: h5py.File, path: Path, rows: int) -> dict[str, FeatureInfo]:
    group = file.get("features")
    if not isinstance(group, h5py.Group):
        raise StoreError(f"{path} has no group /features. {_REPAIR}")
    infos = [_read_info(dataset, key, path, rows) for key, dataset in group.items() if _is_features(key, dataset)]
    return {info.key: info for info in sorted(infos, key=lambda info: info.depth)}


def _is_features(key: str, item: object) -> bool:
    return "@" in key and isinstance(item, h5py.Dataset)


def _read_info(dataset: h5py.Dataset, key: str, path: Path, rows: int) -> FeatureInfo:
    layer, pool, depth = (_attribute(dataset, name) for name in ("layer", "pool", "depth"))
    map_shape = _attribute(dataset, "map_shape", longest=_LONGEST_SHAPE)
    well_formed = f"{layer}@{pool}" == key and isinstance(depth, float) and isinstance(map_shape, list)
    known_dtype = dataset.dtype.name in (*VALUE_DTYPES, CODE_DTYPE)
    if not well_formed or dataset.ndim != 2 or dataset.shape[0] != rows or not known_dtype:
        message = (
            f"{path}: /features/{key} ({dataset.dtype}, shape {dataset.shape}, layer {layer!r}, pool {pool!r}, depth "
            f"{depth!r}, map_shape {map_shape!r}) does not fit format {FORMAT_VERSION} with {rows} rows. {_REPAIR}"
        )
        raise StoreError(message)
    return FeatureInfo(
        key=key,
        layer=layer,
        pool=pool,
        depth=depth,
        map_shape=tuple(int(size) for size in map_shape),
        width=dataset.shape[1],
        dtype=dataset.dtype.name,
        codec=_read_codec(dataset, key, path),
    )


def _read_maps(file: h5py.File, path: Path, rows: int) -> dict[str, MapInfo]:
    group = file.get("maps")
    if not isinstance(group, h5py.Group):
        return {}
    layers = {layer: item for layer, item in group.items() if isinstance(item, h5py.Dataset)}
    return {layer: _read_map(dataset, layer, path, rows) for layer, dataset in layers.items()}


def _read_map(dataset: h5py.Dataset, layer: str, path: Path, rows: int) -> MapInfo:
    n_rows, *sides = dataset.shape or (-1,)
    well_formed = n_rows == rows and len(sides) == 3 and min(sides) >= 1 and "@" not in layer
    if not well_formed or dataset.dtype.name != MAP_DTYPE:
        raise StoreError(
            f"{path}: /maps/{layer} ({dataset.dtype}, shape {dataset.shape}) is not {MAP_DTYPE} of shape ({rows}, "
            f"rows, columns, channels). {_REPAIR}"
        )
    return MapInfo(layer, (sides[0], sides[1], sides[2]))


def _read_codec(dataset: h5py.Dataset, key: str, path: Path) -> str:
    """Return what codes mean, empty for values."""
    codec = _attribute(dataset, "codec")
    if dataset.dtype.name != CODE_DTYPE:
        if "codec" in dataset.attrs:
            raise StoreError(
                f"{path}: /features/{key} has a codec ({codec!r}), but holds {dataset.dtype}, not {CODE_DTYPE} codes."
                f" {_REPAIR}"
            )
        return ""
    if not isinstance(codec, str):
        raise StoreError(f"{path}: /features/{key} holds codes without an attribute 'codec' that says which. {_REPAIR}")
    if codec not in CODECS:
        raise StoreError(
            f"{path}: /features/{key} holds codes of {codec!r}; this featx knows {', '.join(CODECS)}. Update featx to "
            "read them."
        )
    return codec


def _check_codebooks(path: Path, infos: dict[str, FeatureInfo], reducers: dict[str, str]) -> None:
    for key, info in infos.items():
        if info.codec and reducers.get(key) != info.codec:
            raise StoreError(
                f"{path}: /features/{key} holds codes of {info.codec!r}, but /reducers/{key}, which says what they "
                f"stand for, is {reducers.get(key) or 'missing'}. {_REPAIR}"
            )


def _attribute(item: h5py.Group | h5py.Dataset, name: str, longest: int = 0) -> Any:
    """Return an attribute as a Python value, None where it is missing or of another shape than expected."""
    if name not in item.attrs:
        return None
    shape = item.attrs.get_id(name).shape
    if shape is None or len(shape) != min(longest, 1) or any(size > longest for size in shape):
        return None
    value = item.attrs[name]
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value


def _json_attribute(file: h5py.File, path: Path, name: str, default: str | None = None) -> dict[str, Any]:
    text = _attribute(file, name)
    try:
        value = json.loads(default if text is None and default is not None else text)
    except (TypeError, ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise StoreError(f"{path}: the attribute {name!r} is missing or not a JSON object. {_REPAIR}")
    return value
