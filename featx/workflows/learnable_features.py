"""Features of a store as a classifier learns from them: one layer or several, reduced or not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.comparison import joined_layers
from featx.errors import FeatureKeyError, UsageError
from featx.extraction import FeatureSpec
from featx.workflows.stored_features import ALL_ROWS, REDUCTION, base_fingerprint, decoded, read_features, reduction_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sklearn.base import BaseEstimator

    from featx.store import FeatureStore


@dataclass(frozen=True)
class LearnableFeatures:
    """Features in memory, and the way from images to them.

    Attributes
    ----------
    spec : FeatureSpec
        What a network has to compute of an image.
    matrix : ndarray of shape (n, d), float32
        The features to learn from.
    widths : tuple of int
        Columns of each layer.
    reducer : transformer or None
        Fitted: turns what `spec` gives into what `matrix` has. None where they are the same.
    """

    spec: FeatureSpec
    matrix: np.ndarray
    widths: tuple[int, ...]
    reducer: BaseEstimator | None


def learnable_features(store: FeatureStore, name: str | None = None) -> LearnableFeatures:
    """Return features of a store to learn from.

    Parameters
    ----------
    store : FeatureStore
        Where they are.
    name : str, optional
        As in `FeatureSpec.of_store`.

    Raises
    ------
    FeatureKeyError
        Nothing is called so, or several are.
    UsageError
        Several layers of a reduced store are to stand side by side.
    """
    spec = learnable_spec(store, name)
    if not reduction_of(store.fingerprint):
        return LearnableFeatures(spec, spec.join(store), tuple(store.infos[key].width for key in spec.keys), None)
    stored = read_features(store, name)
    source = FeatureSpec(stored.key, stored.source_width, base_fingerprint(store.fingerprint))
    return LearnableFeatures(source, stored.matrix, (stored.matrix.shape[1],), stored.reducer)


def learnable_spec(store: FeatureStore, name: str | None = None) -> FeatureSpec:
    """Return the specification of features to learn from; the arguments and errors are those of `learnable_features`.

    Of a reduced store it is that of the reduced features.
    """
    spec = FeatureSpec.of_store(store, name)
    if len(spec.keys) > 1 and reduction_of(store.fingerprint):
        raise UsageError(
            f"{store.path} holds reduced features, each layer by itself; several cannot stand side by side. Use the"
            " store that it was made from, with --reduce."
        )
    return spec


def late_layer(store: FeatureStore) -> str:
    """Return the key of ``penultimate`` where it is there, else the deepest; of several pools of it the first.

    Raises
    ------
    FeatureKeyError
        The store holds no features.
    """
    try:
        return store.resolve()
    except FeatureKeyError:  # several pools, or nothing at all
        if not store.keys:
            raise
    return max(store.keys, key=lambda key: store.infos[key].depth)


def reduction_notes(store: FeatureStore) -> tuple[str, ...]:
    """Return what to know of scores on features whose reducer has seen the rows that they are measured on."""
    reduction = store.fingerprint.get(REDUCTION)
    if not isinstance(reduction, dict):
        return ()
    seen = "the rows that are scored on too" if reduction.get("on") == ALL_ROWS else "all folds of these rows"
    return (
        f"the reducer of this store has seen {seen} (not their labels), which flatters; --reduce on the store that it"
        " was made from is fitted inside the folds",
    )


def layers_to_try(store: FeatureStore) -> list[str]:
    """Return the layers of a store, then several of them side by side; see `featx.comparison.joined_layers`.

    Of a layer with several pools, the first stands side by side with others. Reduced layers stand alone.
    """
    if reduction_of(store.fingerprint):
        return store.keys
    first_pools: dict[str, str] = {}
    for key, info in store.infos.items():
        first_pools.setdefault(info.layer, key)
    return [*store.keys, *joined_layers(list(first_pools.values()))]


def features_by_layer(store: FeatureStore, names: list[str] | None = None) -> Mapping[str, Any]:
    """Return features of several layers, still on disk, by their full keys from the shallowest to the deepest.

    Parameters
    ----------
    store : FeatureStore
        Where they are.
    names : list of str, optional
        Which; joined names stand for each of their layers. All by default.
    """
    asked = store.keys if names is None else [store.resolve(part) for name in names for part in name.split("+")]
    return {key: decoded(store, key) for key in store.keys if key in asked}
