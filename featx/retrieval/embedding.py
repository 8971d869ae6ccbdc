"""From features of one or several layers to the unit vectors that are searched."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from numbers import Integral, Real
from typing import Any

import numpy as np

from featx.errors import StoreError, UsageError
from featx.reducers import StreamingPCA
from featx.retrieval.vectors import unit_vectors

_ROWS_PER_BLOCK = 1024
_MEAN, _AXES = "mean", "axes"


class Embedding:
    """From features of one or several layers, side by side, to the unit vectors that are searched.

    Every layer's part is brought to length 1 and multiplied with the square root of its weight; the parts side by side
    are brought to length 1 again, so that a cosine is the weighted mean of the layers' cosines. With ``whiten``, the
    result is centred, turned to its principal axes, divided by a power of the standard deviation along each, and
    brought to length 1 once more (Jégou and Chum 2012, where the power is 1): directions in which all images differ,
    such as brightness or the style of a drawing, then drown the others less.

    Parameters
    ----------
    widths : sequence of int
        Columns of each layer, in the order in which they stand side by side.
    weights : sequence of float, optional
        One positive number a layer, of which only the ratios matter; default: all alike.
    whiten : int, optional
        How many whitened components to keep; None for no whitening.
    whiten_power : float
        The power, 0 to 1: 0 only turns, 1 whitens wholly, so that all kept components vary alike. The last components
        carry more noise than content, and a power of 1 blows them up: it needs a ``whiten`` well below the numbers of
        rows and columns. At one half (the default) more components did no harm where one object was searched.

    Attributes
    ----------
    widths : tuple of int
    weights : tuple of float
        As given, or 1 for each layer.
    whiten : int or None
    whiten_power : float

    Notes
    -----
    Whitening helps to find the same object among many. It spreads classes that are few and large, whose differences are
    just the strong directions, and then more is lost than gained.

    A row that is all zeros stays so, and has cosine 0 with everything. The axes are kept as float32 and applied in
    float64, so that the vector of an image does not depend on the images beside it, nor on whether the embedding has
    been saved in between.

    References
    ----------
    H. Jégou, O. Chum: Negative evidences and co-occurrences in image retrieval: the benefit of PCA and whitening,
    ECCV 2012.

    Examples
    --------
    >>> import numpy as np
    >>> Embedding([2, 1], weights=[3, 1]).transform(np.array([[3.0, 4.0, -9.0]])).round(3)
    array([[ 0.52 ,  0.693, -0.5  ]], dtype=float32)
    """

    def __init__(
        self,
        widths: Sequence[int],
        *,
        weights: Sequence[float] | None = None,
        whiten: int | None = None,
        whiten_power: float = 0.5,
    ) -> None:
        self.widths = _checked_widths(widths)
        self.weights = _checked_weights(weights, len(self.widths))
        self.whiten = _checked_whiten(whiten, sum(self.widths))
        self.whiten_power = _checked_power(whiten_power)
        self._mean: np.ndarray | None = None  # (n_columns_in,) float32
        self._axes: np.ndarray | None = None  # (whiten, n_columns_in) float32, scaled

    @property
    def n_columns_in(self) -> int:
        """Columns that ``transform`` takes."""
        return sum(self.widths)

    @property
    def n_columns_out(self) -> int:
        """Columns that ``transform`` gives."""
        return self.whiten or self.n_columns_in

    @property
    def is_plain(self) -> bool:
        """Whether nothing is done but bringing the features of one layer to length 1."""
        return len(self.widths) == 1 and self.whiten is None

    @property
    def is_fitted(self) -> bool:
        """Whether ``transform`` can be called: ``fit`` was, or there is nothing to learn."""
        return self.whiten is None or self._axes is not None

    def fit(self, blocks: Any) -> Embedding:
        """Learn mean and axes of the whitening; without whitening nothing is read.

        Parameters
        ----------
        blocks : array-like of shape (n, n_columns_in), or iterable of such blocks
            Features of the images that will be searched, or of a sample of them; never of the queries alone. What has a
            shape is read a block of rows at a time.

        Raises
        ------
        UsageError
            For another width, NaN or infinity, and when ``whiten`` is more than the rows or columns allow.

        Notes
        -----
        One pass. With n rows of d columns it takes n·d²/2 multiplications and 8·d² bytes: some 20,000 rows drawn at
        random are as good as a million.
        """
        if self.whiten is None:
            return self
        pca = StreamingPCA()
        n_rows = 0
        for block in _row_blocks(blocks):
            if len(block):
                pca.partial_fit(self._joined(block))
                n_rows += len(block)
        allowed = min(n_rows, self.n_columns_in)
        if n_rows < 2 or self.whiten > allowed:
            raise UsageError(
                f"whitening to {self.whiten} components meets {n_rows} rows of {self.n_columns_in} columns, which have "
                f"at most {allowed if n_rows > 1 else 0}. Ask for fewer components, or give more rows."
            )
        pca.n_components = self.whiten
        scales = np.sqrt(pca.explained_variance_)[:, None] ** self.whiten_power
        # along axes without variance there is nothing but rounding
        axes = np.divide(
            pca.components_, scales, out=np.zeros_like(pca.components_), where=pca.explained_variance_[:, None] > 0
        )
        self._mean, self._axes = pca.mean_.astype(np.float32), axes.astype(np.float32)
        return self

    def transform(self, features: Any) -> np.ndarray:
        """Return the vectors of images.

        Parameters
        ----------
        features : array-like of shape (n, n_columns_in)
            What has a shape is read a block of rows at a time.

        Returns
        -------
        ndarray of float32, shape (n, n_columns_out)
            Of length 1; zero where all features are 0, or where they are the mean of those that ``fit`` saw.

        Raises
        ------
        UsageError
            For another width, no rows, NaN or infinity (the message names rows), and when ``fit`` was needed.
        """
        if not self.is_fitted:
            raise UsageError(f"whitening to {self.whiten} components has not been learned. Call fit first.")
        given = features if hasattr(features, "shape") else np.asarray(features)
        if len(given.shape) != 2 or not given.shape[0]:
            return self._joined(np.asarray(given))  # which says what is wrong
        return np.concatenate([self._embedded(block) for block in _row_blocks(given)])

    def to_parts(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Return JSON values and arrays from which `from_parts` makes the same embedding.

        Raises
        ------
        UsageError
            When ``fit`` was needed and not called.
        """
        described = {
            "widths": list(self.widths),
            "weights": list(self.weights),
            "whiten": self.whiten,
            "whiten_power": self.whiten_power,
        }
        if self.whiten is None:
            return described, {}
        if self._mean is None or self._axes is None:
            raise UsageError(f"whitening to {self.whiten} components has not been learned. Call fit before saving.")
        return described, {_MEAN: self._mean, _AXES: self._axes}

    @classmethod
    def from_parts(cls, described: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Embedding:
        """Return the embedding that `to_parts` took apart; other arrays are ignored.

        Parameters
        ----------
        described : mapping
            From a file that anybody may have made.
        arrays : mapping of str to ndarray
            From the same file.

        Raises
        ------
        StoreError
            When they do not fit.
        """
        try:
            embedding = cls(
                described["widths"],
                weights=described["weights"],
                whiten=described["whiten"],
                whiten_power=described["whiten_power"],
            )
        except (UsageError, KeyError, TypeError) as error:
            raise _unreadable(str(error)) from error
        if embedding.whiten is not None:
            columns = embedding.n_columns_in
            embedding._mean = _checked_array(arrays, _MEAN, (columns,))
            embedding._axes = _checked_array(arrays, _AXES, (embedding.whiten, columns))
        return embedding

    def _joined(self, block: np.ndarray) -> np.ndarray:
        """Return the layers' parts side by side, float32 of length 1."""
        if block.ndim != 2 or block.shape[1] != self.n_columns_in:
            raise UsageError(
                f"features of shape {block.shape} meet an embedding of {self.n_columns_in} columns ("
                f"{' + '.join(map(str, self.widths))}). Give features of the same layers, as (n, {self.n_columns_in})."
            )
        whole = unit_vectors(block, what="features")  # refuses what is not finite, by the numbers of whole rows
        if len(self.widths) == 1:
            return whole
        bounds = pairwise(accumulate(self.widths, initial=0))
        parts = [
            np.sqrt(np.float32(weight)) * unit_vectors(block[:, start:end], what="features")
            for (start, end), weight in zip(bounds, self.weights, strict=True)
        ]
        return unit_vectors(np.concatenate(parts, axis=1))

    def _embedded(self, block: np.ndarray) -> np.ndarray:
        joined = self._joined(block)
        if self._mean is None or self._axes is None:
            return joined
        whitened = (joined - self._mean.astype(np.float64)) @ self._axes.T.astype(np.float64)
        whitened[~joined.any(axis=1)] = 0
        return unit_vectors(whitened)


def _row_blocks(blocks: Any) -> Iterator[np.ndarray]:
    if not hasattr(blocks, "shape"):
        yield from map(np.asarray, blocks)
        return
    for start in range(0, blocks.shape[0], _ROWS_PER_BLOCK):
        yield np.asarray(blocks[start : start + _ROWS_PER_BLOCK])


def _is_count(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 1


def _checked_widths(widths: Iterable[int]) -> tuple[int, ...]:
    given = tuple(widths)
    if not given or not all(map(_is_count, given)):
        raise UsageError(f"widths {given} were given; needed is one whole number of 1 or more for each layer.")
    return tuple(map(int, given))


def _checked_weights(weights: Sequence[float] | None, n_layers: int) -> tuple[float, ...]:
    given = (1.0,) * n_layers if weights is None else tuple(weights)
    # between these bounds neither a weight nor a sum of them leaves what float32 holds
    allowed = all(isinstance(w, Real) and not isinstance(w, bool) and 1e-6 <= w <= 1e6 for w in given)
    if len(given) != n_layers or not allowed:
        raise UsageError(
            f"weights {given} were given for {n_layers} layers; needed is one number from 1e-6 to 1e6 for each. Leave "
            "out the layers that are not to count."
        )
    return tuple(map(float, given))


def _checked_whiten(whiten: int | None, n_columns: int) -> int | None:
    if whiten is None:
        return None
    if not _is_count(whiten) or whiten > n_columns:
        raise UsageError(
            f"whitening to {whiten!r} components was asked for; allowed are 1 to {n_columns}, the columns there are."
        )
    return int(whiten)


def _checked_power(power: float) -> float:
    if not isinstance(power, Real) or isinstance(power, bool) or not 0 <= power <= 1:
        raise UsageError(
            f"a whitening power of {power!r} was given; allowed are 0 (no scaling) to 1 (full whitening), such as 0.5."
        )
    return float(power)


def _checked_array(arrays: Mapping[str, np.ndarray], name: str, shape: tuple[int, ...]) -> np.ndarray:
    array = arrays.get(name)
    if not isinstance(array, np.ndarray) or array.dtype != np.float32 or array.shape != shape:
        found = "is missing" if array is None else f"is {array.dtype} of shape {array.shape}"
        raise _unreadable(f"its {name} {found}, needed is float32 of shape {shape}")
    if not np.isfinite(array).all():
        raise _unreadable(f"its {name} has NaN or infinity")
    return array


def _unreadable(what: str) -> StoreError:
    return StoreError(f"this embedding cannot be one that featx wrote: {what}. Build the index again.")
