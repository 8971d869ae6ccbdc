"""What happens to features before a classifier sees them: scalers and reducers, by name.

Both are ordinary scikit-learn transformers: they are fitted inside a fold, never on all rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.decomposition import PCA
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, Normalizer, StandardScaler
from sklearn.utils.validation import check_is_fitted, validate_data

from featx.errors import UsageError


class SignedSquareRoot(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """The signed square root of every feature, sign(x)·sqrt(abs(x)).

    It tempers the few large values that pooled activations have, and keeps zero and signs. Also known as power
    normalisation with exponent 1/2.

    Attributes
    ----------
    n_features_in_ : int
        Features seen in ``fit``.

    References
    ----------
    F. Perronnin, J. Sánchez, T. Mensink: Improving the Fisher kernel for large-scale image classification, ECCV 2010.
    """

    def fit(self, X: Any, y: Any = None) -> SignedSquareRoot:  # noqa: ARG002 (scikit-learn passes y to every step)
        """Learn the number of features; there is nothing else to learn.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Features.
        y : ignored
            Present because scikit-learn passes it.
        """
        validate_data(self, X, dtype=[np.float64, np.float32])
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Return sign(x)·sqrt(abs(x)) in a new array.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Features; float32 stays float32, everything else becomes float64.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        return np.copysign(np.sqrt(np.abs(X)), X)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "n_features_in_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _identity() -> FunctionTransformer:
    """Return a transformer that hands its input through unchanged."""
    return FunctionTransformer(feature_names_out="one-to-one")


SCALERS: dict[str, Callable[[], BaseEstimator]] = {
    "none": _identity,  # features as they are
    "zscore": StandardScaler,  # every feature to mean 0 and standard deviation 1
    "minmax": MinMaxScaler,  # every feature to the range 0 to 1
    "l2": Normalizer,  # every row to length 1
    "sqrt": SignedSquareRoot,  # sign(x)·sqrt(abs(x))
}


def make_scaler(name: str) -> BaseEstimator:
    """Return a new, unfitted scaler.

    Parameters
    ----------
    name : str
        A key of ``SCALERS``: none, zscore, minmax, l2 or sqrt.

    Raises
    ------
    UsageError
        For any other name.
    """
    if name not in SCALERS:
        raise UsageError(f"unknown scaler {name!r}; allowed are {', '.join(SCALERS)}. Choose one of them.")
    return SCALERS[name]()


def make_reducer(text: str, *, max_components: int | None = None, random_state: int | None = 0) -> BaseEstimator:
    """Return a new, unfitted reducer.

    Parameters
    ----------
    text : str
        ``none``; ``pca:N`` for N principal components; ``pca:F`` with 0 < F < 1 for as many components as explain
        that fraction of the variance.
    max_components : int, optional
        The most components that the rows to come allow, min(rows, features). A larger N is lowered to it; compare
        ``get_params()["n_components"]`` with what was asked for in order to say so.
    random_state : int, optional
        Seed of the randomized solver, which scikit-learn takes for few components of large matrices.

    Raises
    ------
    UsageError
        For any other text.
    """
    if text == "none":
        return _identity()
    size = _parse_pca(text)
    if isinstance(size, float):
        return PCA(n_components=size, svd_solver="full")
    return PCA(n_components=size if max_components is None else min(size, max_components), random_state=random_state)


def _parse_pca(text: str) -> int | float:
    """Return the number of components, or the fraction of variance, that "pca:…" asks for."""
    name, _, value = text.partition(":")
    try:
        size = float(value) if "." in value else int(value)
    except ValueError:
        size = 0
    is_fraction = isinstance(size, float)
    if name != "pca" or (is_fraction and not 0 < size < 1) or (not is_fraction and size < 1):
        raise UsageError(
            f"unknown reducer {text!r}; allowed are none, pca:N (N components, 1 or more) and pca:F (0 < F < 1, "
            "a fraction of the variance). Write for example pca:128 or pca:0.95."
        )
    return size
