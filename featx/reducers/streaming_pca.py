"""Exact principal components of rows that need not fit into memory."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_array, check_is_fitted

from featx.errors import UsageError
from featx.reducers.moments import KeptRows, Moments, check_size, extended, moments_for
from featx.reducers.row_blocks import RowBlocks

_LEARNED = (
    "components_",
    "explained_variance_",
    "explained_variance_ratio_",
    "singular_values_",
    "mean_",
    "n_components_",
)


class StreamingPCA(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Principal component analysis in one pass over blocks of rows, exact and without randomness.

    Equal to ``sklearn.decomposition.PCA(svd_solver="full")``, up to the rounding of squares. Anything with a shape that
    gives rows by slices (an h5py dataset, a ``numpy.memmap``, features in a store) is read a block at a time.

    Parameters
    ----------
    n_components : int, float or None, default=None
        None for all, min(n_samples, n_features); an int for so many; a float in (0, 1) for the fewest that explain more
        than that fraction of the variance.
    whiten : bool, default=False
        Whether ``transform`` divides every component by its standard deviation. A component along which the rows do not
        vary becomes 0.

    Attributes
    ----------
    components_ : ndarray of float64, shape (n_components_, n_features_in_)
        Orthonormal axes, the largest variance first. Of each, the entry of largest absolute value is positive.
    explained_variance_ : ndarray of float64, shape (n_components_,)
        Variance along each axis, with n_samples_seen_ - 1 degrees of freedom.
    explained_variance_ratio_ : ndarray of float64, shape (n_components_,)
        The same as a fraction of the variance of all features; 0 where there is no variance.
    singular_values_ : ndarray of float64, shape (n_components_,)
        Singular values of the centred rows.
    mean_ : ndarray of float64, shape (n_features_in_,)
        Mean of the rows.
    n_components_ : int
        Components kept.
    n_samples_seen_ : int
        Rows seen by ``fit``, or by all calls of ``partial_fit``.
    n_features_in_ : int
        Features seen.

    Notes
    -----
    With n rows of d features, ``fit`` takes n·d²/2 multiplications and 8·d² bytes; with n < d it is n²·d/2 and 8·n²
    bytes beside the rows, which are kept in their own precision. Above 16,384 features at most 16,384 rows are taken.

    The axes come from squares of the rows: axes whose standard deviation is under about 1e-7 of the largest are lost in
    rounding, their variance is given as 0. A singular value decomposition of the rows would keep them, but needs all
    rows in memory and several times as long; features in float32 do not hold such axes.

    ``partial_fit`` only accumulates. The axes are computed when one of the attributes is first asked for, or at
    ``transform``. A pickle in between holds the moments.

    Examples
    --------
    >>> import numpy as np
    >>> rows = np.array([[0.0, 0.0], [3.0, 4.0], [6.0, 8.0]])
    >>> pca = StreamingPCA(1).fit(rows)
    >>> pca.components_.round(6).tolist()
    [[0.6, 0.8]]
    >>> pca.transform(rows).round(6).ravel().tolist()
    [-5.0, 0.0, 5.0]
    """

    def __init__(self, n_components: int | float | None = None, *, whiten: bool = False) -> None:
        self.n_components = n_components
        self.whiten = whiten

    def fit(self, X: Any, y: Any = None) -> StreamingPCA:  # noqa: ARG002 (scikit-learn passes y to every step)
        """Learn mean and axes from all rows; what was learned before is forgotten.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            At least two rows.
        y : ignored
            Present because scikit-learn passes it.

        Raises
        ------
        ValueError
            scikit-learn's, for NaN, infinity and what is not a matrix of numbers.
        UsageError
            For more components than there can be, or more than 16,384 rows of more than 16,384 columns.
        """
        self._check_n_components()
        rows = RowBlocks(self, X, reset=True, min_rows=2)
        self._count_components(*rows.shape)
        moments = moments_for(*rows.shape)
        for block in rows:
            moments.add(block)
        self._forget()
        self.n_samples_seen_ = moments.n_rows
        self._learn(moments)
        return self

    def partial_fit(self, X: Any, y: Any = None) -> StreamingPCA:  # noqa: ARG002 (as in fit)
        """Take in some more rows; any division of rows into calls gives the same axes.

        Rows are kept as long as they are fewer than the features, then only their covariance. ``fit`` keeps neither, so
        that the first call after it starts anew. After an error in the middle of rows that are read by slices, those
        before it have been taken in.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            One row or more.
        y : ignored
            Present because scikit-learn passes it.

        Raises
        ------
        ValueError
            As in ``fit``.
        UsageError
            For more than 16,384 rows of more than 16,384 columns.
        """
        self._check_n_components()
        is_first = "_moments" not in vars(self)
        rows = RowBlocks(self, X, reset=is_first)
        moments: Moments = KeptRows(rows.shape[1], copy=True) if is_first else vars(self)["_moments"]
        check_size(moments.n_rows + rows.shape[0], rows.shape[1])
        for block in rows:
            moments = extended(moments, block)
        self._forget()
        self._moments = moments
        self.n_samples_seen_ = moments.n_rows
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Return the coordinates of rows along the axes.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Read a block at a time where it lies outside of memory.

        Returns
        -------
        ndarray of shape (n_samples, n_components_)
            float32 for float32 rows, else float64.
        """
        check_is_fitted(self)
        axes = self.components_
        if self.whiten:
            deviations = np.sqrt(self.explained_variance_)[:, None]
            axes = np.divide(axes, deviations, out=np.zeros_like(axes), where=deviations > 0)
        return np.concatenate([_project(block, self.mean_, axes) for block in RowBlocks(self, X, reset=False)])

    def inverse_transform(self, X: Any) -> np.ndarray:
        """Return the rows that have these coordinates along the kept axes, and the mean along all others.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_components_)
            What ``transform`` returned.

        Returns
        -------
        ndarray of shape (n_samples, n_features_in_)
            float32 for float32 coordinates, else float64.

        Raises
        ------
        UsageError
            When the width is not n_components_.
        """
        check_is_fitted(self)
        coordinates = check_array(X, dtype=[np.float64, np.float32])
        if coordinates.shape[1] != self.n_components_:
            raise UsageError(
                f"coordinates of width {coordinates.shape[1]}; this PCA has {self.n_components_} components. "
                "Give what its transform returned."
            )
        scale = np.sqrt(self.explained_variance_) if self.whiten else 1.0
        return (coordinates @ (self.components_.T * scale).T + self.mean_).astype(coordinates.dtype)

    def __getattr__(self, name: str) -> Any:
        # only called for what is not there: after partial_fit, what has to be computed from the moments
        if name in _LEARNED and "_moments" in vars(self):
            self._learn(self._moments)
            return vars(self)[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __sklearn_is_fitted__(self) -> bool:
        return "components_" in vars(self) or "_moments" in vars(self)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    @property
    def _n_features_out(self) -> int:
        return self.n_components_

    def _forget(self) -> None:
        for name in (*_LEARNED, "_moments"):
            self.__dict__.pop(name, None)

    def _learn(self, moments: Moments) -> None:
        """Set what is learned from moments that are complete."""
        n_rows = moments.n_rows
        if n_rows < 2:
            raise UsageError(f"{n_rows} row was seen; components need at least 2. Call partial_fit with more rows.")
        self.mean_ = moments.mean
        axes = moments.axes(self._count_components(n_rows, len(self.mean_)))
        self.components_ = axes.directions
        self.explained_variance_ = axes.scatter / (n_rows - 1)
        self.explained_variance_ratio_ = axes.scatter / (axes.total_scatter or 1.0)
        self.singular_values_ = np.sqrt(axes.scatter)
        self.n_components_ = len(axes.scatter)

    def _check_n_components(self) -> None:
        asked = self.n_components
        is_count = isinstance(asked, Integral) and not isinstance(asked, bool) and asked >= 1
        is_fraction = isinstance(asked, Real) and not isinstance(asked, Integral) and 0 < asked < 1
        if not (asked is None or is_count or is_fraction):
            raise UsageError(
                f"n_components={asked!r}; allowed are None (all), an int of 1 or more, and a float between 0 and 1 "
                "(a fraction of the variance). Choose one of them."
            )

    def _count_components(self, n_rows: int, n_columns: int) -> int | float:
        """Return how many components to compute, or the fraction to explain."""
        most = min(n_rows, n_columns)
        if self.n_components is None:
            return most
        if not isinstance(self.n_components, Integral):
            return float(self.n_components)
        if self.n_components > most:
            raise UsageError(
                f"n_components={self.n_components}; {n_rows} rows of {n_columns} columns have at most {most}. "
                "Ask for fewer, or give more rows."
            )
        return int(self.n_components)


def _project(block: np.ndarray, mean: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Return (block - mean) @ axes.T in the block's precision, to which a large mean costs no digits."""
    rounded_mean = mean.astype(block.dtype)
    rest = (mean - rounded_mean) @ axes.T
    return (block - rounded_mean) @ axes.T.astype(block.dtype) - rest.astype(block.dtype)
