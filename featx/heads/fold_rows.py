"""`FoldRows`: the rows of one fold, scaled once and decomposed once for all reducers, heads and hyper-parameters."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from featx.reducers import StreamingPCA, make_reducer, make_scaler

Widths = Sequence[int] | None

_NEGLIGIBLE = 1e-6  # relative to the length of the rows: what is shorter is rounding


@dataclass(frozen=True)
class RowPair:
    """Training and test rows of a fold in one space; (n_train, k) and (n_test, k), of one dtype.

    Attributes
    ----------
    train, test : ndarray
        The rows.
    fit_seconds : float
        Time from the features to `train`, with all that is learned on the way.
    test_seconds : float
        Time from the features to `test`.
    note : str
        What had to be lowered to get there; empty where nothing was.
    """

    train: np.ndarray
    test: np.ndarray
    fit_seconds: float = 0.0
    test_seconds: float = 0.0
    note: str = ""

    def then(self, on_train: Callable, on_test: Callable, fit_seconds: float = 0.0) -> RowPair:
        """Return what two functions make of the training and of the test rows, their time added."""
        started = time.perf_counter()
        train = on_train(self.train)
        half = time.perf_counter()
        test = on_test(self.test)
        ended = time.perf_counter()
        return RowPair(
            train, test, self.fit_seconds + fit_seconds + half - started, self.test_seconds + ended - half, self.note
        )


class FoldRows:
    """Training and test rows of one fold, with everything fitted on the training rows and shared by who asks for it.

    Parameters
    ----------
    train, test : ndarray of shape (n_train, d), (n_test, d)
        Features; float32 stays float32.
    scale : str
        A key of `featx.reducers.SCALERS`.
    widths : sequence of int, optional
        Columns of each layer, where several stand side by side.
    seed : int
        Of reducers that draw.
    reduces : sequence of str, optional
        The reducers that will be asked for, if that is known: where all are ``pca:N``, only the leading axes are found.
        Others can be asked for nevertheless, which costs another decomposition.

    Notes
    -----
    One eigendecomposition serves every ``pca:N`` (its first N columns), every ``pca:F``, every alpha of the ridge
    and, where there are fewer rows than columns, the linear heads on all features: their solution lies in the space
    of the training rows, so they are solved there, in n_train instead of d dimensions, with the same result.
    """

    def __init__(
        self,
        train: np.ndarray,
        test: np.ndarray,
        *,
        scale: str,
        widths: Widths = None,
        seed: int = 0,
        reduces: Sequence[str] = (),
    ) -> None:
        scaler = make_scaler(scale, widths)
        self._scaled = RowPair(train, test).then(scaler.fit_transform, scaler.transform)
        self._seed = seed
        self._n_components = _leading(reduces, self._scaled.train.shape)
        self._reduced: dict[str, RowPair] = {"none": self._scaled}
        self._orthogonal: dict[str, RowPair] = {}

    def reduced(self, reduce: str) -> RowPair:
        """Return the rows behind a reducer; see `featx.reducers.make_reducer` for its names."""
        if reduce not in self._reduced:
            self._reduced[reduce] = self._principal(reduce) if reduce.startswith("pca:") else self._fitted(reduce)
        return self._reduced[reduce]

    def for_linear(self, reduce: str) -> RowPair:
        """Return rows on which a linear head with an L2 penalty has the solution that it has on `reduced`."""
        if reduce != "none":
            return self.reduced(reduce)
        self._need(None)
        return self._in_row_space

    def orthogonal(self, reduce: str) -> RowPair:
        """Return `reduced` rows, centred and turned so that the columns of the training rows are orthogonal."""
        if reduce == "none":
            self._need(None)
            return self._turned
        if reduce.startswith("pca:"):
            return self.reduced(reduce)
        if reduce not in self._orthogonal:
            self._orthogonal[reduce] = _turn(self.reduced(reduce))
        return self._orthogonal[reduce]

    def _need(self, n_axes: int | None) -> None:
        """Forget a decomposition that has fewer axes than are asked for, against what was announced; None: all."""
        if self._n_components is not None and (n_axes is None or n_axes > self._n_components):
            self._n_components = None
            vars(self).pop("_decomposition", None)
            vars(self).pop("_turned", None)

    @cached_property
    def _decomposition(self) -> tuple[StreamingPCA, float]:
        """Principal axes of the training rows, and the seconds that they took: whoever needs them is charged."""
        started = time.perf_counter()
        return StreamingPCA(self._n_components).fit(self._scaled.train), time.perf_counter() - started

    @cached_property
    def _turned(self) -> RowPair:
        axes, seconds = self._decomposition
        return self._scaled.then(axes.transform, axes.transform, seconds)

    @cached_property
    def _in_row_space(self) -> RowPair:
        """Rows in a basis of the span of the training rows; as they are where that saves nothing."""
        n_train, width = self._scaled.train.shape
        if n_train + 1 >= width:
            return self._scaled
        axes, seconds = self._decomposition
        started = time.perf_counter()
        spread = axes.singular_values_
        basis = axes.components_[spread > _NEGLIGIBLE * spread.max(initial=0)]
        mean = axes.mean_
        # The principal axes span the differences between rows; the mean may lie beside them.
        beside = mean - (mean @ basis.T) @ basis
        length = np.linalg.norm(beside)
        if length > _NEGLIGIBLE * np.sqrt(np.mean(self._scaled.train**2) * width):
            basis = np.vstack([basis, beside / length])
        if not len(basis):  # all rows are 0; heads need a column nevertheless
            basis = axes.components_[:1]
        turned = basis.astype(self._scaled.train.dtype).T
        return self._scaled.then(turned.__rmatmul__, turned.__rmatmul__, seconds + time.perf_counter() - started)

    def _principal(self, reduce: str) -> RowPair:
        """Return the first columns of the decomposition, as many as asked for and possible."""
        size = make_reducer(reduce).n_components
        n_train, width = self._scaled.train.shape
        note = ""
        self._need(min(size, n_train, width) if isinstance(size, int) else None)
        if isinstance(size, float):
            # more than the fraction, as StreamingPCA has it
            reached = np.cumsum(self._decomposition[0].explained_variance_ratio_) > size
            n_columns = int(reached.argmax()) + 1 if reached.any() else len(reached)
        else:
            n_columns = min(size, n_train, width)
            note = "" if n_columns == size else lowered_note(reduce, n_columns, n_train, width)
        turned = self._turned
        return replace(turned, train=turned.train[:, :n_columns], test=turned.test[:, :n_columns], note=note)

    def _fitted(self, reduce: str) -> RowPair:
        started = time.perf_counter()
        transform = make_reducer(reduce, random_state=self._seed).fit(self._scaled.train).transform
        return self._scaled.then(transform, transform, time.perf_counter() - started)


def lowered_note(reduce: str, n_columns: int, n_rows: int, width: int) -> str:
    """Return the sentence that says why fewer components were taken than asked for."""
    return f"{reduce} lowered to pca:{n_columns}: {n_rows} training rows of {width} features allow no more"


def _leading(reduces: Sequence[str], shape: tuple[int, ...]) -> int | None:
    """Return the most axes that some reducers need; None for all."""
    sizes = [getattr(make_reducer(reduce), "n_components", None) for reduce in reduces]
    counts = [size for size in sizes if isinstance(size, int)]
    return min(max(counts), *shape) if counts and len(counts) == len(sizes) else None


def _turn(rows: RowPair) -> RowPair:
    started = time.perf_counter()
    turn = StreamingPCA().fit(rows.train).transform
    return rows.then(turn, turn, time.perf_counter() - started)
