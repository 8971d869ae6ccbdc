"""From features and classes to a fitted scikit-learn pipeline, with hyper-parameters from cross-validation."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from sklearn.base import BaseEstimator, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from sklearn.pipeline import Pipeline

from featx.errors import HeadError, UsageError
from featx.heads.fold_rows import FoldRows, Widths, lowered_note
from featx.heads.searching import (
    NOT_CONVERGED,
    FoldSearch,
    best_candidate,
    expect_classes,
    fit_quietly,
    mean_square_norm,
    search_fold,
    solver_params,
)
from featx.heads.splitting import own_groups
from featx.heads.table import HEADS, ClassWeight, HeadKind
from featx.heads.threads import few_threads
from featx.reducers import make_reducer, make_scaler

Folds = list[tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class FittedHead:
    """A fitted pipeline, and how it came about.

    Attributes
    ----------
    pipeline : Pipeline
        Steps "scale", "reduce" and "head"; has ``predict`` and ``predict_proba``, which agree.
    head, scale, reduce : str
        What was asked for.
    params : dict
        The chosen hyper-parameters of the head; plain JSON values.
    cv_accuracy : float or None
        Mean accuracy of these over the folds, before calibration; None where no fold could be made. It chose the
        parameters, so it is a little optimistic: score on held-out rows.
    cv_folds : int
        Folds used, 0 for none.
    n_rows : int
        Rows learned from.
    notes : tuple of str
        What was lowered, or did not converge; to be shown to the user.
    """

    pipeline: Pipeline
    head: str
    scale: str
    reduce: str
    params: dict[str, Any]
    cv_accuracy: float | None
    cv_folds: int
    n_rows: int
    notes: tuple[str, ...]


def fit_head(
    X: Any,
    y: Any,
    *,
    head: str = "svm",
    scale: str = "zscore",
    reduce: str = "none",
    cv: int = 5,
    seed: int = 0,
    class_weight: ClassWeight = None,
    groups: Any = None,
    widths: Widths = None,
    n_jobs: int = 1,
) -> FittedHead:
    """Return a classifier fitted on all rows, with hyper-parameters chosen by cross-validation on the same rows.

    Scaler and reducer are fitted inside each fold, once for all hyper-parameters. Where the table says so,
    probabilities are Platt's sigmoids, fitted to scores of rows that the head had not seen.

    Parameters
    ----------
    X : array-like of shape (n, d)
        Features; float32 stays float32.
    y : array-like of int, shape (n,)
        Class of each row, 0 or more.
    head, scale, reduce : str
        A key of ``HEADS``, a key of ``SCALERS``, and none, pca:N, pca:F or pq:M.
    cv : int
        Folds, lowered to the rows (or groups) of the smallest class.
    seed : int
        Of folds, solvers and forests; the same seed gives the same result.
    class_weight : None, "balanced" or mapping of int to float
        As in scikit-learn. The heads majority and knn ignore it.
    groups : array-like of int, shape (n,), optional
        Rows of one group (0 or more) are never split between folds.
    widths : sequence of int, optional
        Columns of each layer, where several stand side by side; see `featx.reducers.make_scaler`.
    n_jobs : int
        Processes that work on folds; the result does not depend on it.

    Raises
    ------
    HeadError
        For fewer than two classes, values that are not finite, or shapes that do not fit.
    UsageError
        For an unknown name.

    References
    ----------
    J. Platt: Probabilistic outputs for support vector machines, Advances in Large Margin Classifiers (1999).
    """
    kind = head_kind(head)
    if cv < 2:
        raise UsageError(f"cv={cv} was given; at least 2 folds are needed. Give 2 or more.")
    X, y = check_rows(X, y)
    class_weight = plain_weights(class_weight)
    folds, fold_notes = make_folds(y, groups, cv, seed)
    notes = list(fold_notes)
    reducer = _make_reducer(reduce, X.shape, folds, seed, notes)
    scaler = make_scaler(scale, widths)
    fewest = min((len(train) for train, _ in folds), default=len(y))
    norm = mean_square_norm(scaler.fit_transform(X))
    candidates = kind.candidates(norm, fewest)
    template = Pipeline([("scale", clone(scaler)), ("reduce", reducer), ("head", kind.make(seed, class_weight))])
    params, accuracy = kind.defaults(norm), None
    width = reducer.get_params().get("n_components")
    with few_threads(X.size):
        if folds:
            search = _Search(head, kind, tuple(candidates), scale, widths, reduce, seed, class_weight)
            params, accuracy = _choose(search, X, y, folds, n_jobs, notes)
        solver = solver_params(head, params, (len(y), width if isinstance(width, int) else X.shape[1]), norm)
        template.set_params(**{f"head__{name}": value for name, value in {**params, **solver}.items()})
        pipeline = _fit_whole(template, X, y, folds, kind.calibrate, notes)
    return FittedHead(
        pipeline=pipeline,
        head=head,
        scale=scale,
        reduce=reduce,
        params=params,
        cv_accuracy=accuracy,
        cv_folds=len(folds),
        n_rows=len(y),
        notes=tuple(dict.fromkeys(notes)),
    )


def head_kind(head: str) -> HeadKind:
    """Return a row of ``HEADS``, or say which there are."""
    if head not in HEADS:
        raise UsageError(f"unknown head {head!r}; allowed are {', '.join(HEADS)}. Choose one of them.")
    return HEADS[head]


def plain_weights(class_weight: ClassWeight) -> dict[int, float] | str | None:
    """Return weights without NumPy scalars, which a saved head could not hold as keys."""
    if class_weight is None or isinstance(class_weight, str):
        return class_weight
    return {int(key): float(value) for key, value in class_weight.items()}


def check_rows(X: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return features as a float matrix and classes as int64, or say what is wrong with them."""
    X, y = np.asarray(X), np.asarray(y)
    if X.ndim != 2 or y.ndim != 1 or len(X) != len(y) or 0 in X.shape:
        raise HeadError(f"features of shape {X.shape} and classes of shape {y.shape}; needed are (n, d) and (n,).")
    y = check_classes(y)
    if X.dtype not in (np.float32, np.float64):
        X = X.astype(np.float32)
    n_bad = int((~np.isfinite(X).all(axis=1)).sum())
    if n_bad:
        raise HeadError(f"{n_bad} of {len(X)} rows hold NaN or infinity. Leave them out or extract them again.")
    return X, y


def check_classes(y: Any) -> np.ndarray:
    """Return classes as int64, or say why nothing can be learned from them."""
    y = np.asarray(y)
    if y.ndim != 1 or not len(y):
        raise HeadError(f"classes of shape {y.shape}; needed is (n,), one class a row.")
    is_whole = np.issubdtype(y.dtype, np.integer)
    if not is_whole or y.min() < 0:
        smallest = f", the smallest {y.min()}" if is_whole else ""
        raise HeadError(
            f"classes of type {y.dtype}{smallest}; needed are whole numbers from 0. Leave out rows without a label "
            "and give class indices."
        )
    if y.min() == y.max():
        raise HeadError(f"all {len(y)} rows are of one class ({y[0]}); at least two are needed. Add images of another.")
    return y.astype(np.int64)


def make_folds(y: np.ndarray, groups: Any, n_folds: int, seed: int) -> tuple[Folds, tuple[str, ...]]:
    """Return stratified folds that all have every class in training, and notes where they are not what was asked for.

    Parameters
    ----------
    y : ndarray of int, shape (n,)
        Classes.
    groups : array-like of int, shape (n,), optional
        Rows of one group (0 or more) are never split between folds.
    n_folds : int
        Lowered to the rows (or groups) of the smallest class that has two. A class of one row (or group) is in the
        training part of every fold and in no test part, with all other rows of that group. No folds where fewer than
        two classes have two.
    seed : int
        Of the shuffle.

    Raises
    ------
    HeadError
        `groups` has another shape than `y`.
    """
    own = np.arange(len(y)) if groups is None else own_groups(groups)
    if own.shape != y.shape:
        raise HeadError(f"groups of shape {own.shape} for classes of shape {y.shape}. Give one group a row.")
    unit = "rows" if groups is None else "groups"
    is_alone = _only_learned_from(y, own)
    alone, divided = np.flatnonzero(is_alone), np.flatnonzero(~is_alone)
    smallest = min((_n_groups(label, y[divided], own[divided]) for label in np.unique(y[divided])), default=n_folds)
    parts = _divide(y[divided], None if groups is None else own[divided], min(n_folds, smallest), seed)
    if not parts:
        is_few = len(np.unique(y[divided])) < 2
        reason = f"fewer than two classes have two {unit} or more" if is_few else "the groups cannot be divided"
        return [], (f"no cross-validation: {reason}; default hyper-parameters are used",)
    folds = [(np.sort(np.concatenate([divided[train], alone])), divided[test]) for train, test in parts]
    notes = []
    if len(folds) < n_folds:
        is_small = len(folds) == smallest
        reason = f"the smallest class has {smallest} {unit}" if is_small else "the groups cannot be divided further"
        notes.append(f"{len(folds)} folds instead of {n_folds}: {reason}")
    n_alone = len(np.unique(y)) - len(np.unique(y[divided]))
    if n_alone:
        classes = f"{n_alone} class has" if n_alone == 1 else f"{n_alone} classes have"
        notes.append(f"{classes} one of the {unit} only: always learned from, never scored on in cross-validation")
    return folds, tuple(notes)


def _only_learned_from(y: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return a mask of the rows that may be in no test part: classes in one group, and what shares that group."""
    found = np.zeros(len(y), dtype=bool)
    while True:
        rest = ~found
        few = [label for label in np.unique(y[rest]) if _n_groups(label, y[rest], groups[rest]) < 2]
        if not few:
            return found
        # a group taken whole may leave another class with only one
        found |= np.isin(groups, groups[rest & np.isin(y, few)])


def _n_groups(label: int, y: np.ndarray, groups: np.ndarray) -> int:
    return len(np.unique(groups[y == label]))


def _divide(y: np.ndarray, groups: np.ndarray | None, n_folds: int, seed: int) -> Folds:
    """Return folds of rows of which every class has `n_folds` rows or groups; none where groups make it impossible."""
    n_classes = len(np.unique(y))
    if n_classes < 2:
        return []
    with warnings.catch_warnings():
        expect_classes()
        if groups is None:
            return list(StratifiedKFold(n_folds, shuffle=True, random_state=seed).split(y, y))
        for n in range(n_folds, 1, -1):
            folds = list(StratifiedGroupKFold(n, shuffle=True, random_state=seed).split(y, y, groups))
            if all(len(test) and len(np.unique(y[train])) == n_classes for train, test in folds):
                return folds
    return []


def _make_reducer(text: str, shape: tuple[int, ...], folds: Folds, seed: int, notes: list[str]) -> BaseEstimator:
    """Return the reducer, with a size that every fold and the whole can have."""
    fewest_rows = min((len(train) for train, _ in folds), default=shape[0])
    reducer = make_reducer(text, max_components=min(fewest_rows, shape[1]), random_state=seed)
    size = reducer.get_params().get("n_components")
    if isinstance(size, int) and text != f"pca:{size}":
        notes.append(lowered_note(text, size, fewest_rows, shape[1]))
    return reducer


@dataclass(frozen=True)
class _Search:
    """What is tried on every fold."""

    head: str
    kind: HeadKind
    candidates: tuple[dict[str, Any], ...]
    scale: str
    widths: Widths
    reduce: str
    seed: int
    class_weight: ClassWeight

    def on_fold(self, X: np.ndarray, y: np.ndarray, train: np.ndarray, test: np.ndarray) -> FoldSearch:
        rows = FoldRows(X[train], X[test], scale=self.scale, widths=self.widths, seed=self.seed, reduces=[self.reduce])
        return search_fold(
            self.head,
            self.kind,
            self.candidates,
            rows,
            y[train],
            y[test],
            reduce=self.reduce,
            seed=self.seed,
            class_weight=self.class_weight,
        )


def _choose(
    search: _Search, X: np.ndarray, y: np.ndarray, folds: Folds, n_jobs: int, notes: list[str]
) -> tuple[dict[str, Any], float]:
    """Return the candidate of the best mean accuracy, the first of equals, and that accuracy."""
    results = Parallel(n_jobs=n_jobs)(delayed(search.on_fold)(X, y, train, test) for train, test in folds)
    best, accuracy = best_candidate(results)
    if not all(result.converged[best] for result in results):
        notes.append(NOT_CONVERGED)
    return search.candidates[best], accuracy


def _fit_whole(
    template: Pipeline, X: np.ndarray, y: np.ndarray, folds: Folds, calibrate: bool, notes: list[str]
) -> Pipeline:
    """Return the pipeline fitted on all rows, its last step calibrated if it has no probabilities of its own."""
    model = template
    if calibrate:
        if not folds:
            notes.append("probabilities are calibrated on the training rows themselves, and therefore too sure")
            everything = np.arange(len(y))
            folds = [(everything, everything)]
        model = CalibratedClassifierCV(template, method="sigmoid", cv=_covering(folds, len(y)), ensemble=False)
    if not fit_quietly(model, X, y):
        notes.append(NOT_CONVERGED)
    return _calibrated_last(model, n_folds=len(folds)) if calibrate else template


def _covering(folds: Folds, n_rows: int) -> Folds:
    """Return folds that test every row once, as the calibration needs: rows of no test part join the first.

    These rows, of classes with one row, were learned from there too, so they look a little too sure.
    """
    untested = np.setdiff1d(np.arange(n_rows), np.concatenate([test for _, test in folds]))
    train, test = folds[0]
    return [(train, np.sort(np.concatenate([test, untested]))), *folds[1:]]


def _calibrated_last(calibrated: CalibratedClassifierCV, n_folds: int) -> Pipeline:
    """Return a pipeline that ends in the calibration, made from a calibration around a pipeline.

    Calibrating the whole pipeline keeps scaler and reducer inside the folds. The other order is what the rest of featx
    reads: scale, reduce, head. Both compute the same.
    """
    (pair,) = calibrated.calibrated_classifiers_
    fitted = pair.estimator
    model = fitted.named_steps["head"]
    pair.estimator = model
    calibrated.set_params(estimator=clone(model), cv=n_folds if n_folds > 1 else None)
    calibrated.n_features_in_ = model.n_features_in_
    return Pipeline([*fitted.steps[:-1], ("head", calibrated)])
