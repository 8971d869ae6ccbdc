"""Features of a store in other formats: npy, csv, parquet, pt."""

from __future__ import annotations

import csv
import importlib.util
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.errors import StoreError, UsageError, WouldOverwriteError
from featx.workflows.stored_features import decoded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from featx.store import FeatureStore

FORMATS = (".npy", ".csv", ".parquet", ".pt")
_BLOCK = 4096  # rows in memory at a time


def export_features(store: FeatureStore, out: Path, layer: str | None = None, *, overwrite: bool = False) -> str:
    """Write features to a file whose extension says the format; return the key of the features.

    Parameters
    ----------
    store : FeatureStore
        Where the features are.
    out : Path
        ``.npy`` (the matrix; paths and labels in ``OUT.csv`` beside it), ``.csv`` or ``.parquet`` (path, label,
        split, and a column a feature), or ``.pt`` (a dictionary of tensors and lists, for
        ``torch.load(weights_only=True)``).
    layer : str, optional
        Key, layer or alias. Codes are decoded: what is written are the features that they stand for.
    overwrite : bool
        Replace files that are there.

    Raises
    ------
    UsageError
        The extension is none of these, or pyarrow is missing for parquet.
    WouldOverwriteError
        A file is there, and `overwrite` is not set.
    """
    writers: dict[str, Callable[[FeatureStore, str, Path], None]] = dict(
        zip(FORMATS, (_write_npy, _write_csv, _write_parquet, _write_pt), strict=True)
    )
    suffix = check_format(out)
    key = store.resolve(layer)
    for path in [out, _rows_file(out)] if suffix == ".npy" else [out]:
        if path.exists() and not overwrite:
            raise WouldOverwriteError(f"{path} is already there; choose another --out, or give --overwrite")
    _in_one_step(out, lambda draft: writers[suffix](store, key, draft))
    if suffix == ".npy":
        _in_one_step(_rows_file(out), lambda draft: _write_rows(draft, ["path", "label", "split"], _rows(store)))
    return key


def check_format(out: Path) -> str:
    """Return the extension of a file, in lower case, if it is one that features can be written as.

    Raises
    ------
    UsageError
        It is not, or pyarrow is missing for parquet.
    """
    suffix = out.suffix.lower()
    if suffix not in FORMATS:
        raise UsageError(f"{out} ends in {out.suffix or 'nothing'}; allowed: {', '.join(FORMATS)}")
    if suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise UsageError("parquet needs pyarrow, which is not installed; pip install pyarrow, or export .csv")
    return suffix


def _rows_file(out: Path) -> Path:
    return out.with_name(f"{out.name}.csv")


def _in_one_step(out: Path, write: Callable[[Path], None]) -> None:
    """Write under a temporary name, then rename: nobody sees half a file."""
    draft = out.with_name(f".{out.stem}.{secrets.token_hex(4)}{out.suffix}")
    try:
        write(draft)
        os.replace(draft, out)
    except OSError as error:
        raise StoreError(
            f"{out} cannot be written: {error.strerror or error}; check its folder and the space left"
        ) from error
    finally:
        draft.unlink(missing_ok=True)


def _rows(store: FeatureStore) -> Iterator[list[str]]:
    from featx.images import SPLIT_NAMES

    names = store.label_names
    for path, label, split in zip(store.paths.tolist(), store.labels, store.splits, strict=True):
        yield [path, names[label] if label >= 0 else "", SPLIT_NAMES[split] if split >= 0 else ""]


def _write_rows(out: Path, header: list[str], rows: Iterator[list[Any]]) -> None:
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def _columns(key: str, width: int) -> list[str]:
    return [f"{key}_{column}" for column in range(width)]


def _write_npy(store: FeatureStore, key: str, out: Path) -> None:
    features = decoded(store, key)
    matrix = np.lib.format.open_memmap(out, mode="w+", dtype=features.dtype, shape=features.shape)
    start = 0
    for block in features.blocks(_BLOCK):
        matrix[start : start + len(block)] = block
        start += len(block)
    matrix.flush()


def _write_csv(store: FeatureStore, key: str, out: Path) -> None:
    features = decoded(store, key)
    values = (row for block in features.blocks(_BLOCK) for row in block)
    rows = ([*described, *row.tolist()] for described, row in zip(_rows(store), values, strict=True))
    _write_rows(out, ["path", "label", "split", *_columns(key, features.shape[1])], rows)


def _write_parquet(store: FeatureStore, key: str, out: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    described, features = _rows(store), decoded(store, key)
    names = _columns(key, features.shape[1])
    writer = None
    try:
        for block in features.blocks(_BLOCK):
            texts = zip(*(next(described) for _ in block), strict=True)
            columns = dict(zip(["path", "label", "split"], map(list, texts), strict=True))
            columns |= dict(zip(names, block.T, strict=True))
            table = pyarrow.table(columns)
            writer = writer or pyarrow.parquet.ParquetWriter(out, table.schema)
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()


def _write_pt(store: FeatureStore, key: str, out: Path) -> None:
    import torch

    content = {
        "features": torch.from_numpy(np.array(decoded(store, key))),
        "paths": store.paths.tolist(),
        "labels": torch.from_numpy(np.array(store.labels)),
        "label_names": list(store.label_names),
        "splits": torch.from_numpy(np.array(store.splits)),
        "key": key,
    }
    torch.save(content, out)
