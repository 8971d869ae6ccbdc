"""Fitted reducers as plain arrays, for files that hold no code, and back."""

from __future__ import annotations

from typing import Any

import numpy as np

from featx.errors import StoreError
from featx.reducers import ProductQuantizer, StreamingPCA
from featx.store import StoredReducer

PCA, PQ = "pca", "pq"
Reducer = StreamingPCA | ProductQuantizer

_KINDS: dict[str, type[Reducer]] = {PCA: StreamingPCA, PQ: ProductQuantizer}
# Attribute → its axes, one letter each; axes of one letter have one length. d: columns that the reducer takes.
_AXES = {
    # k: components
    PCA: {
        "components_": "kd",
        "explained_variance_": "k",
        "explained_variance_ratio_": "k",
        "singular_values_": "k",
        "mean_": "d",
    },
    # m: subspaces, c: codewords, w: width of a subspace, r: rotated columns
    PQ: {"codebooks_": "mcw", "rotation_": "rd", "mean_": "d"},
}
_ROWS_SEEN = "n_samples_seen_"
_N_BITS = {2**n_bits: n_bits for n_bits in range(1, 9)}


def as_stored(reducer: Reducer) -> StoredReducer:
    """Return a fitted reducer as its arguments and arrays.

    Parameters
    ----------
    reducer : StreamingPCA or ProductQuantizer
        Fitted.
    """
    kind = next(kind for kind, known in _KINDS.items() if isinstance(reducer, known))
    parameters = {name: value for name, value in reducer.get_params(deep=False).items() if value is not None}
    if kind == PCA:
        parameters[_ROWS_SEEN] = int(reducer.n_samples_seen_)
    arrays = {name: getattr(reducer, name) for name in _AXES[kind]}
    return StoredReducer(
        kind, parameters, {name: np.ascontiguousarray(array) for name, array in arrays.items() if array is not None}
    )


def restore_reducer(stored: StoredReducer, *, where: str) -> Reducer:
    """Return the fitted reducer that `as_stored` took apart.

    Parameters
    ----------
    stored : StoredReducer
        From a file that anybody may have made.
    where : str
        What holds it, the subject of messages.

    Raises
    ------
    StoreError
        It is of an unknown kind, or its parts are missing or do not fit each other.
    """
    if stored.kind not in _KINDS:
        raise StoreError(
            f"{where} is a reducer of kind {stored.kind!r}; this featx knows {', '.join(_KINDS)}. Update featx."
        )
    sizes = _sizes(stored, where)
    reducer = _KINDS[stored.kind]()
    known = reducer.get_params(deep=False)
    reducer.set_params(**{name: value for name, value in stored.parameters.items() if name in known})
    learned = {name: stored.arrays.get(name) for name in _AXES[stored.kind]}
    for name, value in {**learned, **_counts(stored, sizes, where), "n_features_in_": sizes["d"]}.items():
        setattr(reducer, name, value)
    if stored.kind == PQ and learned["rotation_"] is None:
        reducer.set_params(rotation=None)  # a file has no None
    return reducer


def n_columns_out(reducer: Reducer) -> int:
    """Return how many columns, or codes a row, a fitted reducer gives."""
    return int(reducer.n_subspaces_ if isinstance(reducer, ProductQuantizer) else reducer.n_components_)


def _sizes(stored: StoredReducer, where: str) -> dict[str, int]:
    """Return the length of each axis, after looking that all arrays are there, agree, and are of finite floats."""
    sizes: dict[str, int] = {}
    for name, letters in _AXES[stored.kind].items():
        array = stored.arrays.get(name)
        if array is None and name == "rotation_":
            continue
        if array is None or array.dtype.name not in ("float32", "float64") or array.ndim != len(letters):
            raise _misfit(where, f"{name} is {'missing' if array is None else f'{array.dtype}, shape {array.shape}'}")
        for letter, length in zip(letters, array.shape, strict=True):
            if sizes.setdefault(letter, length) != length:
                raise _misfit(where, f"{name} has the shape {array.shape}, which does not go with the others")
        if not np.isfinite(array).all():
            raise _misfit(where, f"{name} is not finite")
    return sizes


def _counts(stored: StoredReducer, sizes: dict[str, int], where: str) -> dict[str, Any]:
    """Return the learned numbers, which follow from the shapes."""
    if stored.kind == PCA:
        n_rows = stored.parameters.get(_ROWS_SEEN)
        if type(n_rows) is not int or sizes["k"] > sizes["d"]:
            raise _misfit(where, f"{sizes['k']} components of {sizes['d']} columns from {n_rows} rows")
        return {"n_components_": sizes["k"], _ROWS_SEEN: n_rows}
    if sizes["c"] not in _N_BITS or sizes["m"] * sizes["w"] != sizes.get("r", sizes["d"]):
        raise _misfit(where, f"{sizes['m']} codebooks of {sizes['c']} codewords of width {sizes['w']}")
    return {"n_subspaces_": sizes["m"], "n_bits_": _N_BITS[sizes["c"]]}


def _misfit(where: str, what: str) -> StoreError:
    return StoreError(f"{where} is no reducer that featx fitted: {what}. Reduce the original store again.")
