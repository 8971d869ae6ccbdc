"""One layer of a store through a reducer: fitted on some of its rows, then all rows reduced block by block."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from featx.errors import StoreError, UsageError
from featx.reducers import ProductQuantizer, StreamingPCA, make_reducer
from featx.workflows.fitted_reducers import PQ, Reducer, as_stored, n_columns_out

if TYPE_CHECKING:
    from collections.abc import Iterator

    from featx.store import FeatureArray

_BLOCK_BYTES = 2**25  # of features in memory at a time, as float32


@dataclass(frozen=True)
class ReducedFeatures:
    """What became of one layer.

    Attributes
    ----------
    key : str
        ``LAYER@POOL``.
    width_before, width : int
        Columns; of codes, bytes an image.
    bytes_before, n_bytes : int
        Of the features of all rows.
    reducer_bytes : int
        Of the fitted reducer, which is stored once.
    explained_variance : float or None
        Of ``pca``: the share of the variance of the fitted rows that the components keep.
    reconstruction_error : float or None
        Of ``pq``: squared error of decoded rows, as a share of their variance: of the rows that the fit did not see,
        where there are such rows.
    n_subspaces, n_bits : int or None
        Of ``pq``, as fitted.
    notes : tuple of str
        Where less came out than was asked for, and why.
    """

    key: str
    width_before: int
    width: int
    bytes_before: int
    n_bytes: int
    reducer_bytes: int
    explained_variance: float | None
    reconstruction_error: float | None
    n_subspaces: int | None
    n_bits: int | None
    notes: tuple[str, ...]


class LayerReduction:
    """A fitted reducer, the features that it reduces, and what is seen of them on the way.

    Parameters
    ----------
    features : FeatureArray
        On disk, shape (n, d).
    reducer : StreamingPCA or ProductQuantizer
        Fitted.
    asked : str
        What was asked for, such as ``pca:128``.
    rows : ndarray of shape (m,), int64
        That the reducer was fitted on, ascending.

    Attributes
    ----------
    stored : StoredReducer
        The reducer as a store keeps it.
    info : FeatureInfo
        Of the reduced features.
    """

    def __init__(self, features: FeatureArray, reducer: Reducer, asked: str, rows: np.ndarray) -> None:
        self.stored = as_stored(reducer)
        self._features, self._reducer, self._asked = features, reducer, asked
        self._n_fitted = len(rows)
        unseen = np.ones(len(features), dtype=bool)
        unseen[rows] = False
        # of rows that were learned from, the loss would be flattered
        self._is_measured = unseen if unseen.any() else ~unseen
        dtype, codec = ("uint8", PQ) if self.stored.kind == PQ else ("float32", "")
        self.info = replace(features.info, width=n_columns_out(reducer), dtype=dtype, codec=codec)
        self._loss = _Loss(features.shape[1])

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield all rows reduced, in order: float32 columns, or uint8 codes."""
        n_rows, width = self._features.shape
        self._loss = _Loss(width)
        step = max(1, _BLOCK_BYTES // (4 * width))
        for start in range(0, n_rows, step):
            block = self._features[start : start + step].astype(np.float32, copy=False)
            with _named(self._features.key):
                reduced = self._reduced(block, self._is_measured[start : start + step])
            yield reduced

    def _reduced(self, rows: np.ndarray, is_measured: np.ndarray) -> np.ndarray:
        if not isinstance(self._reducer, ProductQuantizer):
            return self._reducer.transform(rows)
        codes = self._reducer.encode(rows)
        self._loss.add(rows[is_measured], self._reducer.decode(codes[is_measured]))
        return codes

    def report(self) -> ReducedFeatures:
        """Return what became of the layer, once all blocks are written."""
        n_rows, width = self._features.shape
        reducer = self._reducer
        quantizer = reducer if isinstance(reducer, ProductQuantizer) else None
        return ReducedFeatures(
            key=self.info.key,
            width_before=width,
            width=self.info.width,
            bytes_before=n_rows * width * self._features.dtype.itemsize,
            n_bytes=n_rows * self.info.width * np.dtype(self.info.dtype).itemsize,
            reducer_bytes=sum(array.nbytes for array in self.stored.arrays.values()),
            explained_variance=None if quantizer else min(float(reducer.explained_variance_ratio_.sum()), 1.0),
            reconstruction_error=self._loss.share() if quantizer else None,
            n_subspaces=quantizer.n_subspaces_ if quantizer else None,
            n_bits=quantizer.n_bits_ if quantizer else None,
            notes=self._notes(),
        )

    def _notes(self) -> tuple[str, ...]:
        """Return where less came out than was asked for."""
        reducer, rows_and_columns = self._reducer, f"{self._n_fitted} rows of {self._features.shape[1]} columns"
        asked = self._asked.partition(":")[2]
        notes = []
        if asked != str(self.info.width) and "." not in asked:
            what = "subspaces" if self.info.codec else "components"
            notes.append(f"{self.info.width} of {asked} {what}: {rows_and_columns} allow no more")
        if isinstance(reducer, ProductQuantizer) and reducer.n_bits_ < reducer.n_bits:
            notes.append(f"codes of {reducer.n_bits_} instead of {reducer.n_bits} bits: {rows_and_columns}")
        return tuple(notes)


def fit_layer(features: FeatureArray, reduce: str, rows: np.ndarray, seed: int) -> LayerReduction:
    """Return a layer with a reducer that was fitted on some of its rows.

    Parameters
    ----------
    features : FeatureArray
        On disk, shape (n, d).
    reduce : str
        See `featx.reducers.make_reducer`; ``pca:N`` is lowered to what rows and columns allow.
    rows : ndarray of shape (m,), int64
        Rows that the reducer may see, ascending.
    seed : int
        Of a quantizer.

    Raises
    ------
    UsageError
        The reducer is unknown, or cannot be fitted on these features; the message names them.
    """
    reducer = check_reducer_name(reduce, max_components=min(len(rows), features.shape[1]), random_state=seed)
    with _named(features.key):
        reducer.fit(_RowsOf(features, rows))
    return LayerReduction(features, reducer, reduce, rows)


def check_reducer_name(reduce: str, **options: int) -> Reducer:
    """Return a reducer, not yet fitted, if the name is one that makes something smaller.

    Parameters
    ----------
    reduce : str
        ``pca:N``, ``pca:F`` or ``pq:M``.
    options
        Of `featx.reducers.make_reducer`.

    Raises
    ------
    UsageError
        It is unknown, or ``none``.
    """
    reducer = make_reducer(reduce, **options)
    if not isinstance(reducer, (StreamingPCA, ProductQuantizer)):
        raise UsageError(f"the reducer {reduce!r} would change nothing; give one such as pca:128 or pq:32")
    return reducer


class _RowsOf:
    """Some rows of features on disk as float32, for an estimator that reads them by slices."""

    def __init__(self, features: FeatureArray, rows: np.ndarray) -> None:
        self._features, self._rows = features, rows
        self.shape = (len(rows), features.shape[1])

    def __getitem__(self, index: slice) -> np.ndarray:
        return self._features[self._rows[index]].astype(np.float32, copy=False)


class _Loss:
    """Squared error of decoded rows against the variance of the rows, both summed over blocks."""

    def __init__(self, width: int) -> None:
        self._n_rows = 0
        self._sum = np.zeros(width)
        self._square = self._error = 0.0

    def add(self, rows: np.ndarray, decoded: np.ndarray) -> None:
        wide = rows.astype(np.float64)
        self._n_rows += len(rows)
        self._sum += wide.sum(axis=0)
        self._square += float(np.square(wide).sum())
        self._error += float(np.square(wide - decoded).sum())

    def share(self) -> float:
        """Return the error as a share of the variance; 0 where rows do not vary."""
        variance = self._square - float(np.square(self._sum).sum()) / max(self._n_rows, 1)
        return self._error / variance if variance > 0 else 0.0


@contextmanager
def _named(key: str) -> Iterator[None]:
    """Turn what an estimator says of its rows into a UsageError that says which features they are."""
    try:
        yield
    except StoreError:
        raise
    except ValueError as error:
        raise UsageError(f"{key} cannot be reduced: {error}") from error
