"""From features and classes to a fitted scikit-learn pipeline, with hyper-parameters from cross-validation."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from sklearn.base import BaseEstimator, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import ParameterGrid, StratifiedGroupKFold, StratifiedKFold
from sklearn.pipeline import Pipeline

from featx.errors import HeadError, UsageError
from featx.heads.splitting import own_groups
from featx.heads.table import HEADS, ClassWeight, HeadKind
from featx.reducers import make_reducer, make_scaler

Folds = list[tuple[np.ndarray, np.ndarray]]

_NOT_CONVERGED = "the solver stopped before it converged; the result is approximate (another scaler may help)"


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
    n_jobs: int = 1,
) -> FittedHead:
    """Return a classifier fitted on all rows, with hyper-parameters chosen by cross-validation on the same rows.

    Scaler and reducer are fitted inside each fold, once for all hyper-parameters. Probabilities of the support
    vector machines are Platt's sigmoids, fitted to scores of rows that the machine had not seen.

    Parameters
    ----------
    X : array-like of shape (n, d)
        Features; float32 stays float32.
    y : array-like of int, shape (n,)
        Class of each row, 0 or more.
    head, scale, reduce : str
        A key of ``HEADS``, a key of ``SCALERS``, and none, pca:N or pca:F.
    cv : int
        Folds, lowered to the rows (or groups) of the smallest class.
    seed : int
        Of folds, solvers and forests; the same seed gives the same result.
    class_weight : None, "balanced" or mapping of int to float
        As in scikit-learn. The majority head ignores it.
    groups : array-like of int, shape (n,), optional
        Rows of one group (0 or more) are never split between folds.
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
    kind = _head_kind(head)
    if cv < 2:
        raise UsageError(f"cv={cv} was given; at least 2 folds are needed. Give 2 or more.")
    X, y = _check_rows(X, y)
    notes: list[str] = []
    folds = _make_folds(y, groups, cv, seed, notes)
    reducer = _make_reducer(reduce, X.shape, folds, seed, notes)
    template = Pipeline(
        [("scale", make_scaler(scale)), ("reduce", reducer), ("head", kind.make(seed, _plain_weights(class_weight)))]
    )
    candidates = list(ParameterGrid(dict(kind.grid_for(scale))))
    params, accuracy = _choose(template, candidates, X, y, folds, n_jobs, notes)
    template.set_params(**{f"head__{name}": value for name, value in params.items()})
    return FittedHead(
        pipeline=_fit_whole(template, X, y, folds, kind.calibrate, notes),
        head=head,
        scale=scale,
        reduce=reduce,
        params=params,
        cv_accuracy=accuracy,
        cv_folds=len(folds),
        n_rows=len(y),
        notes=tuple(dict.fromkeys(notes)),
    )


def _head_kind(head: str) -> HeadKind:
    if head not in HEADS:
        raise UsageError(f"unknown head {head!r}; allowed are {', '.join(HEADS)}. Choose one of them.")
    return HEADS[head]


def _plain_weights(class_weight: ClassWeight) -> dict[int, float] | str | None:
    """Return weights without NumPy scalars, which a saved head could not hold as keys."""
    if class_weight is None or isinstance(class_weight, str):
        return class_weight
    return {int(key): float(value) for key, value in class_weight.items()}


def _check_rows(X: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return features as a float matrix and classes as int64, or say what is wrong with them."""
    X, y = np.asarray(X), np.asarray(y)
    if X.ndim != 2 or y.ndim != 1 or len(X) != len(y) or 0 in X.shape:
        raise HeadError(f"features of shape {X.shape} and classes of shape {y.shape}; needed are (n, d) and (n,).")
    if not np.issubdtype(y.dtype, np.integer) or y.min() < 0:
        raise HeadError(
            f"classes of type {y.dtype}, the smallest {y.min()}; needed are whole numbers from 0. Leave out rows "
            "without a label and give class indices."
        )
    if X.dtype not in (np.float32, np.float64):
        X = X.astype(np.float32)
    n_bad = int((~np.isfinite(X).all(axis=1)).sum())
    if n_bad:
        raise HeadError(f"{n_bad} of {len(X)} rows hold NaN or infinity. Leave them out or extract them again.")
    if y.min() == y.max():
        raise HeadError(f"all {len(y)} rows are of one class ({y[0]}); at least two are needed. Add images of another.")
    return X, y.astype(np.int64)


def _make_folds(y: np.ndarray, groups: Any, cv: int, seed: int, notes: list[str]) -> Folds:
    """Return stratified folds that all have every class in training; none where there is too little."""
    if groups is None:
        smallest = int(np.bincount(y)[np.unique(y)].min())
        n_folds = min(cv, smallest)
        folds = list(StratifiedKFold(n_folds, shuffle=True, random_state=seed).split(y, y)) if n_folds > 1 else []
    else:
        own = own_groups(groups)
        if own.shape != y.shape:
            raise HeadError(f"groups of shape {own.shape} for classes of shape {y.shape}. Give one group a row.")
        smallest = min(len(np.unique(own[y == label])) for label in np.unique(y))
        folds = _group_folds(y, own, min(cv, smallest), seed)
    unit = "rows" if groups is None else "groups"
    if not folds:
        notes.append(
            f"no cross-validation: the smallest class has {smallest} {unit}; default hyper-parameters are used"
        )
    elif len(folds) < cv:
        notes.append(f"{len(folds)} folds instead of {cv}: the smallest class has {smallest} {unit}")
    return folds


def _group_folds(y: np.ndarray, groups: np.ndarray, n_folds: int, seed: int) -> Folds:
    for n in range(n_folds, 1, -1):
        folds = list(StratifiedGroupKFold(n, shuffle=True, random_state=seed).split(y, y, groups))
        n_classes = len(np.unique(y))
        if all(len(test) and len(np.unique(y[train])) == n_classes for train, test in folds):
            return folds
    return []


def _make_reducer(text: str, shape: tuple[int, ...], folds: Folds, seed: int, notes: list[str]) -> BaseEstimator:
    """Return the reducer, with a size that every fold and the whole can have."""
    fewest_rows = min((len(train) for train, _ in folds), default=shape[0])
    reducer = make_reducer(text, max_components=min(fewest_rows, shape[1]), random_state=seed)
    size = reducer.get_params().get("n_components")
    if isinstance(size, int) and text != f"pca:{size}":
        notes.append(f"{text} lowered to pca:{size}: {fewest_rows} training rows of {shape[1]} features allow no more")
    return reducer


def _choose(
    template: Pipeline,
    candidates: list[dict[str, Any]],
    X: np.ndarray,
    y: np.ndarray,
    folds: Folds,
    n_jobs: int,
    notes: list[str],
) -> tuple[dict[str, Any], float | None]:
    """Return the candidate of the best mean accuracy, the first of equals, and that accuracy."""
    if not folds:
        defaults = template.named_steps["head"].get_params()
        return {name: defaults[name] for name in candidates[0]}, None
    results = Parallel(n_jobs=n_jobs)(
        delayed(_score_fold)(template, candidates, X, y, train, test) for train, test in folds
    )
    # accuracy[f, c]: of candidate c on the test rows of fold f
    accuracy = np.array([scores for scores, _ in results])
    means = np.average(accuracy, axis=0)
    best = int(means.argmax())
    if not all(converged[best] for _, converged in results):
        notes.append(_NOT_CONVERGED)
    return candidates[best], float(means[best])


def _score_fold(
    template: Pipeline,
    candidates: list[dict[str, Any]],
    X: np.ndarray,
    y: np.ndarray,
    train: np.ndarray,
    test: np.ndarray,
) -> tuple[list[float], list[bool]]:
    """Return accuracy and convergence of each candidate on one fold, scaled and reduced only once."""
    features = clone(template[:-1])
    train_features, test_features = features.fit_transform(X[train]), features.transform(X[test])
    scores, converged = [], []
    for params in candidates:
        model = clone(template.named_steps["head"]).set_params(**params)
        converged.append(_fit_quietly(model, train_features, y[train]))
        scores.append(float(np.mean(model.predict(test_features) == y[test])))
    return scores, converged


def _fit_quietly(model: Any, X: np.ndarray, y: np.ndarray) -> bool:
    """Fit, and return whether it converged instead of warning about it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        model.fit(X, y)
    for warning in caught:
        if not issubclass(warning.category, ConvergenceWarning):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return not any(issubclass(warning.category, ConvergenceWarning) for warning in caught)


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
        model = CalibratedClassifierCV(template, method="sigmoid", cv=folds, ensemble=False)
    if not _fit_quietly(model, X, y):
        notes.append(_NOT_CONVERGED)
    return _calibrated_last(model, n_folds=len(folds)) if calibrate else template


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
