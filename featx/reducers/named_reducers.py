"""Reducers by name, as the command line and the comparison write them: none, pca:128, pca:0.95, pq:32."""

from __future__ import annotations

from sklearn.base import BaseEstimator
from sklearn.preprocessing import FunctionTransformer

from featx.errors import UsageError
from featx.reducers.product_quantizer import ProductQuantizer
from featx.reducers.streaming_pca import StreamingPCA


def make_reducer(text: str, *, max_components: int | None = None, random_state: int | None = 0) -> BaseEstimator:
    """Return a new, unfitted reducer.

    Parameters
    ----------
    text : str
        ``none``; ``pca:N`` for N principal components; ``pca:F`` with 0 < F < 1 for as many components as explain
        that fraction of the variance; ``pq:M`` for a product quantizer of M subspaces, which is M bytes a row.
    max_components : int, optional
        The most components that the rows to come allow, min(rows, features). A larger N of ``pca:N`` is lowered to
        it; compare ``get_params()["n_components"]`` with what was asked for in order to say so. ``pq:M`` lowers
        itself when it is fitted and says so in ``n_subspaces_`` and ``n_bits_``.
    random_state : int, optional
        Seed of ``pq:M``; the others have no randomness.

    Raises
    ------
    UsageError
        For any other text.
    """
    if text == "none":
        return FunctionTransformer(feature_names_out="one-to-one")
    name, _, value = text.partition(":")
    size = _parse_size(value)
    if name == "pq" and isinstance(size, int):
        return ProductQuantizer(size, random_state=random_state)
    if name == "pca" and isinstance(size, float):
        return StreamingPCA(size)
    if name == "pca" and isinstance(size, int):
        return StreamingPCA(size if max_components is None else min(size, max_components))
    raise UsageError(
        f"unknown reducer {text!r}; allowed are none, pca:N (N components, 1 or more), pca:F (0 < F < 1, a fraction "
        "of the variance) and pq:M (M subspaces, 1 or more). Write for example pca:128, pca:0.95 or pq:32."
    )


def _parse_size(value: str) -> int | float | None:
    """Return a count of at least 1 as int, a fraction between 0 and 1 as float, and None for anything else."""
    try:
        size = float(value) if "." in value else int(value)
    except ValueError:
        return None
    allowed = 0 < size < 1 if isinstance(size, float) else size >= 1
    return size if allowed else None
