"""Features of a store as a classifier or a search takes them, whether reduced or not, and the reducer behind them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.errors import StoreError, UsageError
from featx.store import reducer_digest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from featx.reducers import ProductQuantizer
    from featx.store import FeatureArray, FeatureStore
    from featx.workflows.fitted_reducers import Reducer

REDUCTION = "reduction"
ALL_ROWS = "all rows"  # what a reduction was fitted on where a store has neither a val nor a test split


@dataclass(frozen=True)
class StoredFeatures:
    """Features of a store in memory, and what made them of the network's own.

    Attributes
    ----------
    key : str
        ``LAYER@POOL``.
    matrix : ndarray of shape (n, d), float32
        The features; codes are decoded to the width of the network's own.
    reducer : StreamingPCA, ProductQuantizer or None
        Fitted: turns features of the network into columns of `matrix`. None where they are the network's own.
    source_width : int
        Width of the network's own features, which the reducer takes.
    """

    key: str
    matrix: np.ndarray
    reducer: Reducer | None
    source_width: int


class DecodedFeatures:
    """What the codes of a store stand for, shape (n, d) float32, decoded where and when it is indexed.

    Parameters
    ----------
    codes : FeatureArray
        Of shape (n, number of subspaces).
    quantizer : ProductQuantizer
        That made them.
    """

    ndim = 2
    dtype = np.dtype(np.float32)

    def __init__(self, codes: FeatureArray, quantizer: ProductQuantizer) -> None:
        self._codes = codes
        self._quantizer = quantizer
        self.shape = (len(codes), int(quantizer.n_features_in_))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Return the features of several rows: a slice, a mask or row numbers.

        Raises
        ------
        StoreError
            The codes are not those of the quantizer, or cannot be read.
        """
        codes = self._codes[rows]
        try:
            return self._quantizer.decode(codes)
        except UsageError as error:
            raise StoreError(f"codes of {self._codes.key} cannot be decoded: {error}") from error

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        """Return all features in memory.

        Raises
        ------
        ValueError
            `copy` is False: what is on disk must be copied into memory.
        """
        if copy is False:
            raise UsageError("Features on disk cannot become an array without a copy, got copy=False. Leave it out.")
        return self[:] if dtype is None else self[:].astype(dtype, copy=False)

    def blocks(self, n_rows: int) -> Iterator[np.ndarray]:
        """Yield the features in order as arrays of `n_rows` rows, the last one maybe shorter."""
        for start in range(0, len(self), n_rows):
            yield self[start : start + n_rows]


def read_features(store: FeatureStore, name: str | None = None) -> StoredFeatures:
    """Return features of a store in memory, decoded where they are codes.

    Parameters
    ----------
    store : FeatureStore
        Where they are.
    name : str, optional
        Key, layer or alias; ``penultimate`` where it is there, else the deepest.

    Raises
    ------
    FeatureKeyError
        Nothing is called so, or several are.
    StoreError
        The store, or its reducer, is damaged.
    """
    key = store.resolve(name)
    reducer = read_reducer(store, key)
    features = decoded(store, key, reducer)
    width = features.shape[1] if reducer is None else int(reducer.n_features_in_)
    return StoredFeatures(key, np.asarray(features[:], np.float32), reducer, width)


def decoded(store: FeatureStore, key: str, reducer: Reducer | None = None) -> FeatureArray | DecodedFeatures:
    """Return features of a store, still on disk; codes become the features that they stand for.

    Parameters
    ----------
    store : FeatureStore
        Where they are.
    key : str
        ``LAYER@POOL``.
    reducer : estimator, optional
        The store's own, where it has been read already.

    Raises
    ------
    StoreError
        The reducer is damaged; or, when rows are read, the store is.
    """
    features = store[key]
    if not features.info.codec:
        return features
    quantizer: Any = reducer if reducer is not None else read_reducer(store, key)
    return DecodedFeatures(features, quantizer)


def read_reducer(store: FeatureStore, key: str) -> Reducer | None:
    """Return the fitted reducer that made the features `key` of a store; None where they are the network's own.

    Raises
    ------
    StoreError
        Its arrays do not fit each other, the features, or the fingerprint.
    """
    reduction = store.fingerprint.get(REDUCTION)
    if key not in store.reducers:
        if reduction is not None:
            raise StoreError(
                f"{store.path} says that its features were reduced, but has no reducer of {key}: reduce the original "
                "store again"
            )
        return None
    stored = store.read_reducer(key)
    digests = reduction.get("of") if isinstance(reduction, dict) else None
    if not isinstance(digests, dict) or digests.get(key) != reducer_digest(stored):
        raise StoreError(f"{store.path}: the reducer of {key} is not the one of its fingerprint; reduce it again")

    from featx.workflows.fitted_reducers import n_columns_out, restore_reducer  # loads scikit-learn

    reducer = restore_reducer(stored, where=f"{store.path}: /reducers/{key}")
    if n_columns_out(reducer) != store.infos[key].width:
        raise StoreError(
            f"{store.path}: the reducer of {key} gives {n_columns_out(reducer)} columns, and the store has"
            f" {store.infos[key].width}; reduce the original store again"
        )
    return reducer


def source_width(store: FeatureStore, key: str) -> int:
    """Return the width of the network's own features, of which the features `key` of a store were made."""
    reducer = read_reducer(store, key)
    return store.infos[key].width if reducer is None else int(reducer.n_features_in_)


def reduction_of(fingerprint: Mapping[str, Any]) -> str:
    """Return by what features were reduced, such as ``pca:128``; empty where they were not."""
    reduction = fingerprint.get(REDUCTION)
    return str(reduction.get("by", "?")) if isinstance(reduction, dict) else ""


def base_fingerprint(fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    """Return how the features were made before they were reduced: what a network that is opened again must have."""
    return {name: value for name, value in fingerprint.items() if name != REDUCTION}
