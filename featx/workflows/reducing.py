"""A store with fewer numbers an image: every layer through a reducer that is fitted on it and kept beside it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from featx.errors import RefusedError, UsageError, WouldOverwriteError
from featx.store import NewFeatures, reducer_digest, rewrite
from featx.workflows.layer_reduction import LayerReduction, ReducedFeatures, check_reducer_name, fit_layer
from featx.workflows.stored_features import ALL_ROWS, REDUCTION, reduction_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from featx.store import FeatureStore

_VAL, _TEST = 1, 2
_TRAINING_ROWS = "rows outside of val and test"
_MIN_ROWS = 2


@dataclass(frozen=True)
class ReduceReport:
    """What `reduce_store` did.

    Attributes
    ----------
    path : Path
        The new store.
    by : str
        The reducer, as it was asked for.
    rows : int
        Images.
    fitted_rows : int
        Rows that each reducer was fitted on.
    fitted_on : str
        Which rows these are; a quantizer learns its codewords from a sample of 65,536 where they are more.
    bytes_before, n_bytes : int
        Of the two files.
    layers : tuple of ReducedFeatures
        Shallowest first.
    """

    path: Path
    by: str
    rows: int
    fitted_rows: int
    fitted_on: str
    bytes_before: int
    n_bytes: int
    layers: tuple[ReducedFeatures, ...]


@dataclass(frozen=True)
class ReduceProgress:
    """Which step begins, of two a layer."""

    step: int
    n_steps: int
    what: str


def reduce_store(
    store: FeatureStore,
    reduce: str,
    out: str | os.PathLike[str],
    *,
    layers: Sequence[str] | None = None,
    seed: int = 0,
    overwrite: bool = False,
    progress: Callable[[ReduceProgress], None] | None = None,
) -> ReduceReport:
    """Write a store with the same images and reduced features, whole or not at all.

    Parameters
    ----------
    store : FeatureStore
        The features of a network; may be larger than memory.
    reduce : str
        ``pca:N``, ``pca:F`` or ``pq:M``, see `featx.reducers.make_reducer`. Each layer gets a reducer of its own.
    out : path
        The new store, float32 or uint8 codes; its folder must exist.
    layers : sequence of str, optional
        Keys, layers or aliases; all of the store by default.
    seed : int
        Of quantizers.
    overwrite : bool
        Replace a file that is there.
    progress : callable, optional
        Called with a `ReduceProgress` before each step.

    Returns
    -------
    ReduceReport
        Reducers are fitted without the rows of val and test splits; where there are no such rows, on all of them.

    Raises
    ------
    UsageError
        The reducer is unknown or does not fit the features, or there are too few rows.
    RefusedError
        The store is a reduced one already.
    WouldOverwriteError
        There is such a file, and `overwrite` is not set, or it is the store itself.

    Notes
    -----
    The features are read twice (by a quantizer three times), about 32 MiB of a layer in memory at a time, beside what
    the reducer itself needs.
    """
    out = Path(out)
    _refuse_existing(out, store, overwrite)
    keys = check_request(store, reduce, layers)
    rows, fitted_on = _rows_to_fit(store)
    steps = _Steps(2 * len(keys), progress)
    reductions = []
    for key in keys:
        steps.begin(f"fitting {reduce} on {key}")
        reductions.append(fit_layer(store[key], reduce, rows, seed))
    described = {
        "by": reduce,
        "of": {reduction.info.key: reducer_digest(reduction.stored) for reduction in reductions},
        "on": fitted_on,
        "rows": len(rows),
        **({"seed": seed} if reductions[0].info.codec else {}),  # the others have no randomness
    }
    rewrite(
        store,
        out,
        [NewFeatures(each.info, steps.announced(each), each.stored) for each in reductions],
        fingerprint={**store.fingerprint, REDUCTION: described},
        aliases=_kept_aliases(store, keys),
    )
    return ReduceReport(
        path=out,
        by=reduce,
        rows=store.rows,
        fitted_rows=len(rows),
        fitted_on=fitted_on,
        bytes_before=os.path.getsize(store.path),
        n_bytes=os.path.getsize(out),
        layers=tuple(reduction.report() for reduction in reductions),
    )


def check_request(store: FeatureStore, reduce: str, layers: Sequence[str] | None = None) -> list[str]:
    """Return the keys that are to be reduced, each once, shallowest first, if that can be done.

    Parameters
    ----------
    store, reduce, layers
        As in `reduce_store`, which raises the same errors.
    """
    check_reducer_name(reduce)
    if REDUCTION in store.fingerprint:
        raise RefusedError(
            f"{store.path} is reduced already ({reduction_of(store.fingerprint)}), and what was lost does not come"
            " back; reduce the store that it was made from"
        )
    _rows_to_fit(store)
    if layers is not None and not layers:
        raise UsageError(f"no layer was named; name some, or leave it out for all: {', '.join(store.keys)}")
    if not store.keys:
        store.resolve()  # says that the store holds no features
    chosen = {store.resolve(name) for name in layers or store.keys}
    return [key for key in store.keys if key in chosen]


class _Steps:
    """Counts the steps for the one who watches."""

    def __init__(self, n_steps: int, watch: Callable[[ReduceProgress], None] | None) -> None:
        self._n_steps, self._watch = n_steps, watch
        self._step = 0

    def begin(self, what: str) -> None:
        self._step += 1
        if self._watch:
            self._watch(ReduceProgress(self._step, self._n_steps, what))

    def announced(self, reduction: LayerReduction) -> Iterator[np.ndarray]:
        """Yield the rows of a layer, which begins a step once they are asked for."""
        self.begin(f"writing {reduction.info.key}")
        yield from reduction.blocks()


def _refuse_existing(out: Path, store: FeatureStore, overwrite: bool) -> None:
    if not out.exists():
        return
    if not overwrite:
        raise WouldOverwriteError(f"{out} is already there; choose another --out, or give --overwrite")
    if store.path.exists() and os.path.samefile(out, store.path):
        raise WouldOverwriteError(f"{out} is the store that is to be reduced; choose another --out")


def _rows_to_fit(store: FeatureStore) -> tuple[np.ndarray, str]:
    """Return the rows that reducers may see, and what they are: nothing of a val or test split."""
    held_out = np.isin(store.splits, (_VAL, _TEST))
    rows = np.flatnonzero(~held_out)
    if len(rows) < _MIN_ROWS:
        raise UsageError(
            f"{store.path} has {len(rows)} rows outside of its val and test splits; a reducer is fitted on"
            f" {_MIN_ROWS} or more: extract more images, or mark some as train"
        )
    return rows, _TRAINING_ROWS if held_out.any() else ALL_ROWS


def _kept_aliases(store: FeatureStore, keys: Sequence[str]) -> dict[str, str]:
    names = {*keys, *(store.infos[key].layer for key in keys)}
    return {alias: meant for alias, meant in store.aliases.items() if meant in names}
