"""Hyper-parameters of a head by cross-validation, on folds whose scaling and decomposition are shared."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning

from featx.heads.fold_rows import FoldRows, RowPair
from featx.heads.table import ClassWeight, HeadKind

NOT_CONVERGED = "the solver stopped before it converged; the result is approximate (another scaler may help)"
# While hyper-parameters are compared, a fit ends here: liblinear's own defaults for its dual and primal solvers, and
# for the logistic ten times scikit-learn's. The fit that is kept has scikit-learn's 1e-4. On 3200 rows of 128 columns
# this is 2 to 3 times faster and moves no fold's accuracy by more than 0.3 points.
_DUAL_TOLERANCE, _PRIMAL_TOLERANCE, _LOGISTIC_TOLERANCE = 1e-1, 1e-2, 1e-3
# LinearSVC: with this many rows a column, and this much C·|x|², the primal problem is solved faster than the dual.
_PRIMAL_ROWS_PER_COLUMN = 10
_PRIMAL_SQUARED_LENGTH = 3.0


@dataclass(frozen=True)
class FoldSearch:
    """How every candidate of a grid did on one fold.

    Attributes
    ----------
    accuracy : tuple of float
        On the test rows, one a candidate.
    converged : tuple of bool
        Whether the solver came to its end, one a candidate.
    """

    accuracy: tuple[float, ...]
    converged: tuple[bool, ...]


def search_fold(
    head: str,
    kind: HeadKind,
    candidates: Sequence[Mapping[str, Any]],
    rows: FoldRows,
    y_train: np.ndarray,
    y_test: np.ndarray,
    *,
    reduce: str = "none",
    seed: int = 0,
    class_weight: ClassWeight = None,
) -> FoldSearch:
    """Return the accuracy of each candidate on one fold.

    Parameters
    ----------
    head, kind : str, HeadKind
        A key of ``HEADS``, and what it stands for.
    candidates : sequence of mapping
        Hyper-parameters to try.
    rows : FoldRows
        Features of the fold.
    y_train, y_test : ndarray of int
        Classes of its rows.
    reduce : str
        As in `featx.reducers.make_reducer`.
    seed, class_weight
        Of the head.
    """
    space, model = _prepare(head, kind, rows, y_train, reduce, seed, class_weight)
    if isinstance(model, RidgePath):
        named = [model.predict(space.test, params["alpha"]) for params in candidates]
        return FoldSearch(tuple(float(np.mean(classes == y_test)) for classes in named), (True,) * len(named))
    if head == "logistic":
        # From one C to the next the solution moves little.
        model.set_params(tol=_LOGISTIC_TOLERANCE, warm_start=True)
    norm = mean_square_norm(space.train)
    scores, converged = [], []
    for params in candidates:
        solver = solver_params(head, params, space.train.shape, norm)
        if "dual" in solver:
            solver["tol"] = _DUAL_TOLERANCE if solver["dual"] else _PRIMAL_TOLERANCE
        model.set_params(**params, **solver)
        converged.append(fit_quietly(model, space.train, y_train))
        scores.append(float(np.mean(model.predict(space.test) == y_test)))
    return FoldSearch(tuple(scores), tuple(converged))


@dataclass(frozen=True)
class FoldFit:
    """What a head, fitted on the training rows of a fold, names for its test rows.

    Attributes
    ----------
    classes : ndarray of int, shape (n_test,)
        Named classes.
    fit_seconds, predict_seconds : float
        From the features to the fitted head, and from the features of the test rows to their classes.
    notes : tuple of str
        What was lowered, or did not converge.
    """

    classes: np.ndarray
    fit_seconds: float
    predict_seconds: float
    notes: tuple[str, ...]


def fit_fold(
    head: str,
    kind: HeadKind,
    params: Mapping[str, Any],
    rows: FoldRows,
    y_train: np.ndarray,
    *,
    reduce: str = "none",
    seed: int = 0,
    class_weight: ClassWeight = None,
) -> FoldFit:
    """Return what a head with given hyper-parameters, fitted on the training rows, names for the test rows.

    Parameters
    ----------
    head, kind, rows, y_train, reduce, seed, class_weight
        As in `search_fold`.
    params : mapping
        Hyper-parameters.
    """
    space, model = _prepare(head, kind, rows, y_train, reduce, seed, class_weight)
    notes = [space.note] if space.note else []
    started = time.perf_counter()
    if isinstance(model, RidgePath):
        # Its fit is one product, far less than the decomposition that came before.
        classes = model.predict(space.test, params["alpha"])
        return FoldFit(classes, space.fit_seconds, space.test_seconds + time.perf_counter() - started, tuple(notes))
    model.set_params(**params, **solver_params(head, params, space.train.shape, mean_square_norm(space.train)))
    if not fit_quietly(model, space.train, y_train):
        notes.append(NOT_CONVERGED)
    fitted = time.perf_counter()
    classes = model.predict(space.test)
    ended = time.perf_counter()
    return FoldFit(classes, space.fit_seconds + fitted - started, space.test_seconds + ended - fitted, tuple(notes))


def _prepare(
    head: str,
    kind: HeadKind,
    rows: FoldRows,
    y_train: np.ndarray,
    reduce: str,
    seed: int,
    class_weight: ClassWeight,
) -> tuple[RowPair, Any]:
    """Return the cheapest rows that give a head its solution, and the head: fitted if it is a `RidgePath`."""
    if head == "ridge" and class_weight is None:
        space = rows.orthogonal(reduce)
        return space, RidgePath(space.train, y_train)
    space = rows.for_linear(reduce) if kind.is_linear else rows.reduced(reduce)
    return space, kind.make(seed, class_weight)


def best_candidate(results: Sequence[FoldSearch]) -> tuple[int, float]:
    """Return the number of the candidate of the best mean accuracy over folds, the first of equals, and that mean."""
    means = np.mean([result.accuracy for result in results], axis=0)
    best = int(means.argmax())
    return best, float(means[best])


def solver_params(head: str, params: Mapping[str, Any], shape: tuple[int, ...], norm: float) -> dict[str, Any]:
    """Return settings of a head that change its speed and nothing else.

    Parameters
    ----------
    head : str
        A key of ``HEADS``.
    params : mapping
        Its hyper-parameters.
    shape : (int, int)
        Of the training rows.
    norm : float
        The mean of their squared lengths.

    Notes
    -----
    On 1500 and 4000 rows of 1280 z-scored features the dual solver of LinearSVC was 1.3 to 4 times faster than the
    primal one for C up to 0.01 and 70 times at C = 1; on 3200 rows of 128 columns the primal one was 3 times faster
    at C = 0.1.
    """
    if head != "svm":
        return {}
    n_rows, width = shape
    many_rows = n_rows >= _PRIMAL_ROWS_PER_COLUMN * width
    return {"dual": not (many_rows and params["C"] * norm >= _PRIMAL_SQUARED_LENGTH)}


def mean_square_norm(rows: np.ndarray) -> float:
    """Return the mean of the squared lengths of rows."""
    return float(np.einsum("ij,ij->", rows, rows, dtype=np.float64) / len(rows))


class RidgePath:
    """Ridge classifiers of many alphas on the same rows.

    Parameters
    ----------
    train : ndarray of shape (n, k)
        Centred rows with orthogonal columns (`FoldRows.orthogonal`).
    y : ndarray of int, shape (n,)
        Classes.

    Notes
    -----
    Least squares to targets of −1 and 1, one column a class (one column alone for two classes), as scikit-learn's
    RidgeClassifier. With orthogonal columns Z the coefficients are Zᵀy / (z² + alpha), so every further alpha costs
    a division.
    """

    def __init__(self, train: np.ndarray, y: np.ndarray) -> None:
        self._classes, numbers = np.unique(y, return_inverse=True)
        targets = np.where(numbers[:, None] == np.arange(len(self._classes)), 1.0, -1.0)
        if len(self._classes) == 2:
            targets = targets[:, 1:]
        self._intercept = targets.mean(axis=0)
        self._projected = train.T.astype(np.float64) @ (targets - self._intercept)
        self._squares = np.einsum("ij,ij->j", train, train, dtype=np.float64)

    def predict(self, test: np.ndarray, alpha: float) -> np.ndarray:
        """Return the classes of rows, turned as the training rows were, for one alpha."""
        coefficients = self._projected / (self._squares + alpha)[:, None]
        scores = test @ coefficients.astype(test.dtype) + self._intercept
        return self._classes[scores.argmax(axis=1) if scores.shape[1] > 1 else (scores[:, 0] > 0).astype(int)]


def expect_classes() -> None:
    """Tell scikit-learn, within ``warnings.catch_warnings``, that few rows a class are no sign of a regression."""
    warnings.filterwarnings("ignore", message="The number of unique classes is greater than 50%")


def fit_quietly(model: BaseEstimator, X: np.ndarray, y: np.ndarray) -> bool:
    """Fit, and return whether it converged instead of warning about it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        expect_classes()
        model.fit(X, y)
    for warning in caught:
        if not issubclass(warning.category, ConvergenceWarning):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return not any(issubclass(warning.category, ConvergenceWarning) for warning in caught)
