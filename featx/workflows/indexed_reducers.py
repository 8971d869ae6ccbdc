"""Reducers that an index keeps, so that a query's features can be reduced without the store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from featx.errors import StoreError
from featx.store import StoredReducer
from featx.workflows.stored_features import REDUCTION, read_reducer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from featx.retrieval import ImageIndex
    from featx.store import FeatureStore
    from featx.workflows.fitted_reducers import Reducer

_REDUCERS = "reducers"


def reducers_for_index(store: FeatureStore, keys: Sequence[str]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return what an index says about the reducers of a store, and their arrays.

    Parameters
    ----------
    store : FeatureStore
        Reduced or not.
    keys : sequence of str
        The features that go into the index.

    Returns
    -------
    metadata : dict
        JSON values; empty where nothing is reduced.
    arrays : dict of str to ndarray
        Empty where queries are compared as the network gives them: with features that are not reduced, and with
        decoded codes, which lie in the same space (a query that is not rounded to codewords finds more; Jégou,
        Douze and Schmid 2011 call it asymmetric distance).

    Raises
    ------
    StoreError
        A reducer is damaged.
    """
    if REDUCTION not in store.fingerprint:
        return {}, {}
    described: dict[str, Any] = {}
    arrays: dict[str, np.ndarray] = {}
    for key in keys:
        read_reducer(store, key)  # checks it
        if store.infos[key].codec:
            continue
        stored = store.read_reducer(key)
        described[key] = {"kind": stored.kind, "parameters": dict(stored.parameters)}
        arrays |= {f"{key}/{name}": array for name, array in stored.arrays.items()}
    return {REDUCTION: store.fingerprint[REDUCTION], _REDUCERS: described}, arrays


def reducers_of_index(index: ImageIndex, widths: Mapping[str, int]) -> dict[str, Reducer]:
    """Return the fitted reducers that queries have to go through, by key; none for most indexes.

    Parameters
    ----------
    index : ImageIndex
        From a file that anybody may have made.
    widths : mapping of str to int
        Key → width of the network's features.

    Raises
    ------
    StoreError
        The reducers cannot be read, or do not go with the index.
    """
    described = index.metadata.get(_REDUCERS) or {}
    if not described:
        return {}

    from featx.workflows.fitted_reducers import n_columns_out, restore_reducer

    reducers = {}
    try:
        for key, row in described.items():
            arrays = {
                name.removeprefix(f"{key}/"): array
                for name, array in index.arrays.items()
                if name.startswith(f"{key}/")
            }
            stored = StoredReducer(row["kind"], row["parameters"], arrays)
            reducers[key] = restore_reducer(stored, where=f"the index's reducer of {key}")
    except (AttributeError, KeyError, TypeError) as error:
        raise StoreError(f"the index does not say how its features were reduced ({error}); build it again") from error
    taken = {key: int(reducer.n_features_in_) for key, reducer in reducers.items()}
    given = sum(n_columns_out(reducers[key]) if key in reducers else width for key, width in widths.items())
    if given != index.width or any(widths.get(key) != width for key, width in taken.items()):
        raise StoreError(f"the reducers of the index take {taken} columns, the network gives {widths}; build it again")
    return reducers
