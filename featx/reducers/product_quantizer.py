"""Rows as short codes: a product quantizer whose fitted state is plain arrays."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from featx.errors import UsageError
from featx.reducers.codebook_training import train_codebooks, train_turned_codebooks
from featx.reducers.codes import checked_codes, joined_codewords, nearest_codewords
from featx.reducers.moments import check_size, moments_for
from featx.reducers.row_blocks import RowBlocks

_MAX_TRAINING_ROWS = 65_536  # 256 a codeword, more than which k-means in faiss would not look at either
_ROWS_AT_ONCE = 4096  # decoded


class ProductQuantizer(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Codes of one byte a subspace, and the rows that they stand for.

    A row is rotated and cut into parts; of each part, the number of the nearest of at most 256 learned codewords is
    kept. ``transform`` returns the rows that the codes stand for, in the original space, so that anything can be
    trained on them; linear heads can also score the codes directly (``score_codes``).

    Parameters
    ----------
    n_subspaces : int, default=32
        Parts of a row, and bytes of a code (M in the papers).
    n_bits : int, default=8
        1 to 8; each part has 2**n_bits codewords (K).
    rotation : {"opq", None}, default="opq"
        "opq" takes principal components and rotates them so that the codes lose less; None cuts rows as they are.
    max_components : int, default=256
        The most principal components that "opq" keeps.
    n_iter : int, default=10
        Rounds of "opq".
    random_state : int, RandomState instance or None, default=0
        Seed of k-means, and of the draw of 65,536 rows to train on where there are more.

    Attributes
    ----------
    n_subspaces_ : int
        Parts used: at most as many as there are components. With ``rotation=None``, the largest number up to
        n_subspaces that divides the width of the rows.
    n_bits_ : int
        Bits used: lowered until there are at least 2**n_bits_ training rows.
    codebooks_ : ndarray of float32, shape (n_subspaces_, 2**n_bits_, width of a part)
        Codewords.
    rotation_ : ndarray of float32, shape (n_subspaces_ * width of a part, n_features_in_), or None
        From centred rows to the space that is cut, and transposed the way back.
    mean_ : ndarray of float64, shape (n_features_in_,)
        Mean of the training rows.
    n_features_in_ : int
        Features seen in ``fit``.

    Notes
    -----
    faiss does the training and nothing else, in one thread, on one copy of the rotated rows in float32. Components that
    do not fill all parts evenly are filled up with zeros, so that none has to be left out.

    With few rows a codeword (fewer than about 40), the training rows are nearer to their codewords than new rows will
    be. Whoever trains on the reconstruction should score on other rows.

    References
    ----------
    H. Jégou, M. Douze, C. Schmid: Product quantization for nearest neighbor search, IEEE TPAMI 33(1), 2011.

    T. Ge, K. He, Q. Ke, J. Sun: Optimized product quantization for approximate nearest neighbor search, CVPR 2013.
    """

    def __init__(
        self,
        n_subspaces: int = 32,
        n_bits: int = 8,
        *,
        rotation: str | None = "opq",
        max_components: int = 256,
        n_iter: int = 10,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.n_subspaces = n_subspaces
        self.n_bits = n_bits
        self.rotation = rotation
        self.max_components = max_components
        self.n_iter = n_iter
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> ProductQuantizer:  # noqa: ARG002 (scikit-learn passes y to every step)
        """Learn rotation and codebooks.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            At least two rows. What lies outside of memory is read twice, a block at a time.
        y : ignored
            Present because scikit-learn passes it.

        Raises
        ------
        ValueError
            scikit-learn's, for NaN, infinity and what is not a matrix of numbers.
        UsageError
            For parameters out of range, values too large for float32, or, with "opq", more than 16,384 rows of more
            than 16,384 columns.
        """
        self._check_parameters()
        rows = RowBlocks(self, X, reset=True, min_rows=2)
        random = check_random_state(self.random_state)
        n_rows = rows.shape[0]
        self.n_bits_ = min(self.n_bits, n_rows.bit_length() - 1)
        self._fit_axes(rows)
        chosen = np.arange(n_rows)
        if n_rows > _MAX_TRAINING_ROWS:
            chosen = np.sort(random.choice(n_rows, _MAX_TRAINING_ROWS, replace=False))
        self._fit_codebooks(self._rotated_sample(rows, chosen), seed=int(random.randint(2**31 - 1)))
        return self

    def encode(self, X: Any) -> np.ndarray:
        """Return the codes of rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Read a block at a time where it lies outside of memory.

        Returns
        -------
        ndarray of uint8, shape (n_samples, n_subspaces_)
            Of each part, the number of its nearest codeword, the lowest of equally near ones.
        """
        check_is_fitted(self)
        blocks = RowBlocks(self, X, reset=False)
        return np.concatenate([nearest_codewords(self._rotate(block), self.codebooks_) for block in blocks])

    def decode(self, codes: Any) -> np.ndarray:
        """Return the rows that codes stand for, in the space of the original rows.

        Parameters
        ----------
        codes : array-like of int, shape (n_samples, n_subspaces_)
            What ``encode`` returned.

        Returns
        -------
        ndarray of float32, shape (n_samples, n_features_in_)

        Raises
        ------
        UsageError
            When they are not codes of this quantizer.
        """
        codes = self._checked_codes(codes)
        rows = np.empty((len(codes), len(self.mean_)), dtype=np.float32)
        for start in range(0, len(codes), _ROWS_AT_ONCE):
            some = slice(start, start + _ROWS_AT_ONCE)
            rotated = joined_codewords(codes[some], self.codebooks_).astype(np.float64)
            rows[some] = self.mean_ + (rotated if self.rotation_ is None else rotated @ self.rotation_)
        return rows

    def transform(self, X: Any) -> np.ndarray:
        """Return the rows that the codes of rows stand for: ``decode(encode(X))``.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Read a block at a time where it lies outside of memory.

        Returns
        -------
        ndarray of float32, shape (n_samples, n_features_in_)
        """
        return self.decode(self.encode(X))

    def lookup_tables(self, coef: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return what each codeword adds to the scores of a linear head.

        Parameters
        ----------
        coef : array-like of shape (n_classes, n_features_in_)
            Weights of a head that was trained on what ``transform`` returns.

        Returns
        -------
        tables : ndarray of float64, shape (n_subspaces_, 2**n_bits_, n_classes)
        offset : ndarray of float64, shape (n_classes,)
            ``offset + sum(tables[m, codes[:, m]] for m)`` is ``decode(codes) @ coef.T``, up to rounding.

        Raises
        ------
        UsageError
            When the weights are not of that width.
        """
        check_is_fitted(self)
        weights = np.asarray(coef, dtype=np.float64)
        if weights.ndim != 2 or weights.shape[1] != len(self.mean_):
            raise UsageError(
                f"weights of shape {weights.shape}; needed is (n_classes, {len(self.mean_)}). Give the coef_ of a "
                "linear head that was fitted on what transform returns."
            )
        rotated = weights if self.rotation_ is None else weights @ self.rotation_.T.astype(np.float64)
        # parts[c, m]: weights of class c for subspace m
        parts = rotated.reshape(len(weights), self.n_subspaces_, -1)
        return np.einsum("mkd,cmd->mkc", self.codebooks_, parts), weights @ self.mean_

    def score_codes(self, codes: Any, coef: Any, intercept: Any = 0.0) -> np.ndarray:
        """Return the scores that a linear head gives to codes, without decoding them.

        Parameters
        ----------
        codes : array-like of int, shape (n_samples, n_subspaces_)
            What ``encode`` returned.
        coef : array-like of shape (n_classes, n_features_in_)
            Weights of the head.
        intercept : array-like of shape (n_classes,), or float
            Added to the scores.

        Returns
        -------
        ndarray of float64, shape (n_samples, n_classes)
            ``decode(codes) @ coef.T + intercept``, up to rounding.

        Raises
        ------
        UsageError
            When they are not codes of this quantizer, or the weights are not as wide as its rows.
        """
        codes = self._checked_codes(codes)
        tables, offset = self.lookup_tables(coef)
        scores = np.tile(offset + np.asarray(intercept, dtype=np.float64), (len(codes), 1))
        for subspace, table in enumerate(tables):
            scores += table[codes[:, subspace]]
        return scores

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    def _check_parameters(self) -> None:
        limits = {"n_subspaces": None, "n_bits": 8, "max_components": None, "n_iter": None}
        for name, most in limits.items():
            value = getattr(self, name)
            is_whole = isinstance(value, Integral) and not isinstance(value, bool)
            if not is_whole or value < 1 or (most is not None and value > most):
                allowed = "an int of 1 or more" if most is None else f"an int from 1 to {most}"
                raise UsageError(f"{name}={value!r}; allowed is {allowed}. Choose such a number.")
        if self.rotation not in ("opq", None):
            raise UsageError(f"rotation={self.rotation!r}; allowed are 'opq' and None. Choose one of them.")

    def _fit_axes(self, rows: RowBlocks) -> None:
        """Learn the mean, and for "opq" the principal axes, filled up with zeros to a multiple of the parts."""
        n_rows, width = rows.shape
        if self.rotation is None:
            self.n_subspaces_ = max(n for n in range(1, min(self.n_subspaces, width) + 1) if width % n == 0)
            self.rotation_: np.ndarray | None = None
            self.mean_ = sum(block.sum(axis=0, dtype=np.float64) for block in rows) / n_rows
            return
        check_size(n_rows, width)
        moments = moments_for(n_rows, width)
        for block in rows:
            moments.add(block)
        n_components = int(min(self.max_components, width, n_rows - 1))
        self.n_subspaces_ = int(min(self.n_subspaces, n_components))
        self.mean_ = moments.mean
        axes = moments.axes(n_components).directions
        self.rotation_ = np.pad(axes, ((0, -n_components % self.n_subspaces_), (0, 0))).astype(np.float32)

    def _fit_codebooks(self, rows: np.ndarray, seed: int) -> None:
        """Learn codebooks from rows along the principal axes, and for "opq" turn the axes."""
        if self.rotation_ is None:
            self.codebooks_ = train_codebooks(rows, self.n_subspaces_, self.n_bits_, seed=seed)
            return
        self.codebooks_, turn = train_turned_codebooks(
            rows, self.n_subspaces_, self.n_bits_, n_rounds=self.n_iter, seed=seed
        )
        self.rotation_ = (turn.astype(np.float64) @ self.rotation_).astype(np.float32)

    def _rotated_sample(self, rows: RowBlocks, chosen: np.ndarray) -> np.ndarray:
        """Return the chosen rows, given by their numbers in ascending order, as the codebooks will see them."""
        parts = []
        start = 0
        for block in rows:
            inside = chosen[np.searchsorted(chosen, start) : np.searchsorted(chosen, start + len(block))] - start
            parts.append(self._rotate(block[inside]).astype(np.float32))
            start += len(block)
        return np.concatenate(parts)

    def _rotate(self, block: np.ndarray) -> np.ndarray:
        """Return centred and rotated rows, float64."""
        centred = block - self.mean_
        return centred if self.rotation_ is None else centred @ self.rotation_.T.astype(np.float64)

    def _checked_codes(self, codes: Any) -> np.ndarray:
        check_is_fitted(self)
        return checked_codes(codes, self.n_subspaces_, self.codebooks_.shape[1])
