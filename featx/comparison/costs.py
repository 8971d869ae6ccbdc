"""What candidates cost: bytes an image in a store, and the network's work up to their deepest layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from featx.comparison.candidates import Candidate
from featx.comparison.results import BASELINE, Cost
from featx.reducers import ProductQuantizer, StreamingPCA, make_reducer, make_scaler

_BYTES = np.dtype(np.float32).itemsize


@dataclass(frozen=True)
class LayerCost:
    """What the network costs up to a layer.

    Parameters
    ----------
    gmacs : float or None
        Multiply-accumulate operations, in thousand millions; None: not known.
    depth : float or None
        How far down the network the layer lies, from 0 to 1; None: not known.
    bytes_per_image : int or None
        Of codes, where the features are stored as codes; None: four a number.
    """

    gmacs: float | None = None
    depth: float | None = None
    bytes_per_image: int | None = None


def candidate_costs(
    candidates: Sequence[Candidate], features: Mapping[str, Any], layer_costs: Mapping[str, LayerCost]
) -> dict[Candidate, Cost]:
    """Return the cost of each candidate.

    Parameters
    ----------
    candidates : sequence of Candidate
        What is compared.
    features : mapping of str to array-like of shape (n, d)
        Features of each layer.
    layer_costs : mapping of str to LayerCost
        Of each layer; several side by side cost what the deepest costs.
    """
    costs = {}
    n_bytes_of: dict[Candidate, int] = {}  # the head does not matter
    for candidate in candidates:
        parts = [layer_costs.get(layer, LayerCost()) for layer in candidate.layers]
        rows = replace(candidate, head="")
        if candidate.head == BASELINE:
            costs[candidate] = Cost(0, 0.0, 0.0)
            continue
        if rows not in n_bytes_of:
            stored = parts[0].bytes_per_image if candidate.reduce == "none" and len(parts) == 1 else None
            n_bytes_of[rows] = _bytes_per_image(candidate, features) if stored is None else stored
        n_bytes = n_bytes_of[rows]
        costs[candidate] = Cost(n_bytes, _largest(part.gmacs for part in parts), _largest(p.depth for p in parts))
    return costs


def _largest(values: Any) -> float | None:
    known = list(values)
    return None if None in known else max(known)


def _bytes_per_image(candidate: Candidate, features: Mapping[str, Any]) -> int:
    """Return the bytes of a reduced row, with all rows learned from: four a number, one a code."""
    widths = [int(features[layer].shape[1]) for layer in candidate.layers]
    width, n_rows = sum(widths), int(features[candidate.layers[0]].shape[0])
    reducer = make_reducer(candidate.reduce)
    size = getattr(reducer, "n_components", None)
    if isinstance(size, float):  # a share of the variance: the number of components is in the data
        rows = np.concatenate([np.asarray(features[layer], np.float32) for layer in candidate.layers], axis=1)
        size = StreamingPCA(size).fit(make_scaler(candidate.scale, widths).fit_transform(rows)).n_components_
    if isinstance(size, int):
        return _BYTES * min(size, width, n_rows)
    if isinstance(reducer, ProductQuantizer):
        return min(reducer.n_subspaces, reducer.max_components, width, n_rows - 1)
    return _BYTES * width
