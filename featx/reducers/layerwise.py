"""`LayerwiseScaler`: features of several layers side by side, none of them drowned by a wider one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin, clone
from sklearn.utils.validation import check_is_fitted, validate_data

from featx.errors import UsageError


class LayerwiseScaler(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Scales the columns of each layer by themselves, then gives every layer the same weight.

    After scaling, a layer's columns are divided by a number that makes the mean squared length of its training rows 1.
    Without it, of 112 and 1280 z-scored columns side by side, the wider layer decides alone.

    Parameters
    ----------
    scaler : transformer, optional
        Cloned and fitted for each layer; without it columns stay as they are.
    widths : sequence of int, optional
        Columns of each layer, in order; without it, all columns are one layer.

    Attributes
    ----------
    scalers_ : list of transformer
        The fitted scaler of each layer, None where there is none.
    weights_ : ndarray of shape (n_layers,), float64
        What each layer's columns are multiplied with.
    n_features_in_ : int
        Features seen in ``fit``.

    Notes
    -----
    Measured with a ridge on 5 images a class (3 draws): the last layer alone, the last four side by side, and these
    with equal weight: blood cells 0.918, 0.939, 0.953; handwritten signs 0.570, 0.628, 0.693; pets 0.813, 0.841, 0.898.
    """

    def __init__(self, scaler: BaseEstimator | None = None, widths: Sequence[int] | None = None) -> None:
        self.scaler = scaler
        self.widths = widths

    def fit(self, X: Any, y: Any = None) -> LayerwiseScaler:  # noqa: ARG002 (scikit-learn passes y to every step)
        """Fit a scaler and a weight for each layer.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Features, the layers side by side.
        y : ignored
            Present because scikit-learn passes it.

        Raises
        ------
        UsageError
            When the widths do not add up to the features.
        """
        X = validate_data(self, X, dtype=[np.float64, np.float32])
        self.scalers_ = []
        weights = []
        for part in self._parts(X):
            scaler = None if self.scaler is None else clone(self.scaler)
            scaled = part if scaler is None else scaler.fit_transform(part)
            length = float(np.sqrt(np.mean(np.einsum("ij,ij->i", scaled, scaled, dtype=np.float64))))
            self.scalers_.append(scaler)
            weights.append(1 / length if length > 0 else 1.0)
        self.weights_ = np.array(weights)
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Return the scaled and weighed features in a new array.

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
        out = np.empty_like(X)
        for part, place, scaler, weight in zip(
            self._parts(X), self._parts(out), self.scalers_, self.weights_, strict=True
        ):
            np.multiply(part if scaler is None else scaler.transform(part), X.dtype.type(weight), out=place)
        return out

    def _parts(self, X: np.ndarray) -> list[np.ndarray]:
        """Return views of the columns of each layer."""
        widths = (X.shape[1],) if self.widths is None else tuple(self.widths)
        if sum(widths) != X.shape[1] or min(widths) < 1:
            raise UsageError(f"widths {widths} do not add up to the {X.shape[1]} features. Give one for each layer.")
        return np.split(X, np.cumsum(widths)[:-1], axis=1)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
