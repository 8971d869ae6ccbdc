"""Writing a store anew with other features of the same images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from featx.errors import UsageError
from featx.store.feature_store import FeatureStore
from featx.store.info_checks import check_infos
from featx.store.layout import STORE_COLUMNS, STORE_FORMAT, FeatureInfo, StoredReducer
from featx.store.replacing import publish, temporary_file, write_errors
from featx.store.writing import StoreWriter, canonical_json

_TABLE = (*(f"/images/{name}" for name in STORE_COLUMNS), "/labels/names", "/failures/path", "/failures/reason")


@dataclass(frozen=True)
class NewFeatures:
    """Features for every row of a store, in its order.

    Attributes
    ----------
    info : FeatureInfo
        What they are called and how they are stored; codes are allowed.
    blocks : iterable of ndarray of shape (m, d)
        All rows, in order; read when they are written.
    reducer : StoredReducer or None
        What made them.
    """

    info: FeatureInfo
    blocks: Iterable[np.ndarray]
    reducer: StoredReducer | None = None


def rewrite(
    store: FeatureStore, out: Path, features: Iterable[NewFeatures], *, fingerprint: Mapping, aliases: Mapping[str, str]
) -> None:
    """Write a store `out` with the images of another and other features, whole or not at all.

    Parameters
    ----------
    store : FeatureStore
        Its images, labels, splits, groups and failures are copied byte by byte.
    out : Path
        Is replaced at the very end; its folder must exist.
    features : iterable of NewFeatures
        What the new store holds.
    fingerprint : mapping
        How they were made.
    aliases : mapping of str to str
        Other name → key or layer.

    Raises
    ------
    UsageError
        Features or a reducer cannot be stored, or the blocks have more or fewer rows than the store.
    StoreError
        The store is damaged, or the disk is full; what was at `out` is unchanged.

    Notes
    -----
    A few MiB of the old store are in memory at a time, and one block of the new features. Spatial maps are left out:
    they would outweigh the features that are made smaller here many times, and the old store still has them.
    """
    out = Path(out)
    features = sorted(features, key=lambda new: new.info.depth)
    check_infos([new.info for new in features], codes=True)
    names = [*_TABLE, *(["/images/group"] if store.groups is not None else [])]
    kept = "A store that was there before is unchanged."
    with write_errors(out, kept=kept), temporary_file(out) as temporary:
        with StoreWriter(temporary) as writer:
            for name in names:
                shape, dtype, blocks = store.stored_blocks(name)
                writer.put_blocks(name, shape, dtype, blocks)
            for new in features:
                writer.put_rows(new.info, store.rows, _counted(new, store.rows))
                if new.reducer is not None:
                    writer.put_reducer(new.info.key, new.reducer)
            writer.finish(
                format_name=STORE_FORMAT,
                rows=store.rows,
                fingerprint=fingerprint,
                attributes={"source": store.source, "aliases": canonical_json(aliases)},
            )
        publish(temporary, out)


def _counted(new: NewFeatures, n_rows: int) -> Iterator[np.ndarray]:
    """Yield the blocks; another width, and too few or too many rows, are an error, not zeros in the file."""
    n_seen = 0
    for block in new.blocks:
        n_seen += len(block)
        _check_fit(new.info, block.shape[1:] == (new.info.width,) and n_seen <= n_rows, n_rows)
        yield block
    _check_fit(new.info, n_seen == n_rows, n_rows)


def _check_fit(info: FeatureInfo, fits: bool, n_rows: int) -> None:
    if not fits:
        raise UsageError(f"Features {info.key!r} must have the shape {(n_rows, info.width)}. Give one row per image.")
