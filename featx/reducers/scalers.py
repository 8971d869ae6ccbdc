"""Scalers by name: what is done to single features or rows before they are reduced and classified."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, Normalizer, StandardScaler
from sklearn.utils.validation import check_is_fitted, validate_data

from featx.errors import UsageError
from featx.reducers.layerwise import LayerwiseScaler


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


def make_scaler(name: str, widths: Sequence[int] | None = None) -> BaseEstimator:
    """Return a new, unfitted scaler.

    Parameters
    ----------
    name : str
        A key of ``SCALERS``: none, zscore, minmax, l2 or sqrt.
    widths : sequence of int, optional
        Columns of each layer, where several stand side by side: they are scaled one by one and weigh the same (see
        `LayerwiseScaler`), but for ``none``, which leaves them as they are.

    Raises
    ------
    UsageError
        For any other name.
    """
    if name not in SCALERS:
        raise UsageError(f"unknown scaler {name!r}; allowed are {', '.join(SCALERS)}. Choose one of them.")
    scaler = SCALERS[name]()
    return scaler if name == "none" or widths is None or len(widths) < 2 else LayerwiseScaler(scaler, tuple(widths))
