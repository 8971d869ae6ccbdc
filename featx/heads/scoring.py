"""How good a fitted head is on rows that it has never seen, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist
from typing import Any

import numpy as np

from featx.errors import HeadError


@dataclass(frozen=True)
class ClassScore:
    """Precision, recall and F1 of one class (0 where they are not defined), and its number of rows."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class Evaluation:
    """The score of a head on rows that it has never seen.

    Attributes
    ----------
    accuracy : float
        Fraction of rows that were named correctly.
    interval : tuple of float
        Wilson's 95 % interval of the accuracy.
    balanced_accuracy : float
        Mean recall of the classes that occur in the rows.
    macro_f1 : float
        Mean F1 of the classes that occur in the rows or in the predictions.
    rows : int
        Rows scored.
    on : str
        Which rows they are.
    majority_accuracy : float or None
        The accuracy, on the same rows, of always naming the largest class of the training rows.
    majority_class : str or None
        That class. Both are None where the training rows are not known.
    per_class : tuple of ClassScore
        In the order of the class names.
    confusion : ndarray of int64, shape (k, k)
        Rows are true classes, columns predicted ones.
    """

    accuracy: float
    interval: tuple[float, float]
    balanced_accuracy: float
    macro_f1: float
    rows: int
    on: str
    majority_accuracy: float | None
    majority_class: str | None
    per_class: tuple[ClassScore, ...]
    confusion: np.ndarray

    def to_json(self) -> dict[str, Any]:
        """Return plain numbers, texts and lists; the first six keys are a stable format."""
        return {
            "accuracy": self.accuracy,
            "interval": list(self.interval),
            "balanced_accuracy": self.balanced_accuracy,
            "macro_f1": self.macro_f1,
            "rows": self.rows,
            "on": self.on,
            "majority_accuracy": self.majority_accuracy,
            "majority_class": self.majority_class,
            "per_class": [vars(score).copy() for score in self.per_class],
            "confusion": self.confusion.tolist(),
        }


def evaluate_head(
    fitted_pipeline: Any, X: Any, y: Any, *, class_names: Sequence[str], y_train: Any, on: str
) -> Evaluation:
    """Return the score of a fitted pipeline.

    Parameters
    ----------
    fitted_pipeline : Pipeline
        With ``predict``; its classes are indices into ``class_names``.
    X : array-like of shape (n, d)
        Features of the held-out rows.
    y : array-like of int, shape (n,)
        Their classes, as indices into ``class_names``. A class that training never saw counts as an error.
    class_names : sequence of str
        Names of all classes.
    y_train : array-like of int
        Classes of the training rows, for the baseline.
    on : str
        What the rows are, for the report (``RowSplit.on``).

    Raises
    ------
    HeadError
        When there is no row, or a class index has no name.
    """
    y_true, y_train = np.asarray(y), np.asarray(y_train)
    n_classes = len(class_names)
    _check_classes(y_true, n_classes)
    if len(y_train):
        _check_classes(y_train, n_classes)
    majority = int(np.bincount(y_train, minlength=n_classes).argmax())
    return evaluate_predictions(y_true, fitted_pipeline.predict(X), class_names=class_names, on=on, majority=majority)


def evaluate_predictions(
    y_true: Any, y_pred: Any, *, class_names: Sequence[str], on: str, majority: int | None = None
) -> Evaluation:
    """Return the score of predictions that have been made already.

    Parameters
    ----------
    y_true, y_pred : array-like of int, shape (n,)
        True and predicted classes, as indices into ``class_names``.
    class_names : sequence of str
        Names of all classes.
    on : str
        What the rows are, for the report.
    majority : int, optional
        The largest class of the training rows, for the baseline.

    Raises
    ------
    HeadError
        When there is no row, or a class index has no name.
    """
    y_true, y_pred = np.asarray(y_true), np.asarray(y_pred)
    n_classes = len(class_names)
    for values in (y_true, y_pred):
        _check_classes(values, n_classes)
    confusion = np.zeros((n_classes, n_classes), dtype=np.int64)
    np.add.at(confusion, (y_true, y_pred), 1)
    n_correct, n_rows = int(np.trace(confusion)), len(y_true)
    per_class = _per_class(confusion, class_names)
    # confusion.sum(axis=0): how often each class was predicted
    occurs = confusion.sum(axis=0) + confusion.sum(axis=1) > 0
    return Evaluation(
        accuracy=n_correct / n_rows,
        interval=wilson_interval(n_correct, n_rows),
        balanced_accuracy=float(np.mean([score.recall for score in per_class if score.support])),
        macro_f1=float(np.mean([score.f1 for score, seen in zip(per_class, occurs, strict=True) if seen])),
        rows=n_rows,
        on=on,
        majority_accuracy=None if majority is None else float(np.mean(y_true == majority)),
        majority_class=None if majority is None else class_names[majority],
        per_class=per_class,
        confusion=confusion,
    )


def _check_classes(values: np.ndarray, n_classes: int) -> None:
    if not len(values):
        raise HeadError("no row to score on. Hold out at least one labelled row.")
    if not 0 <= values.min() <= values.max() < n_classes:
        raise HeadError(f"classes {values.min()} to {values.max()} were given for {n_classes} class names.")


def _per_class(confusion: np.ndarray, class_names: Sequence[str]) -> tuple[ClassScore, ...]:
    scores = []
    for index, name in enumerate(class_names):
        hits, support, predicted = confusion[index, index], confusion[index].sum(), confusion[:, index].sum()
        scores.append(
            ClassScore(
                name=name,
                precision=float(hits / predicted) if predicted else 0.0,
                recall=float(hits / support) if support else 0.0,
                f1=float(2 * hits / (support + predicted)) if support + predicted else 0.0,
                support=int(support),
            )
        )
    return tuple(scores)


def wilson_interval(n_correct: int, n_rows: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval of a proportion.

    Unlike the normal approximation it stays within 0 and 1 and has a width at 0 % and 100 %.

    Parameters
    ----------
    n_correct, n_rows : int
        Successes and trials, 0 ≤ ``n_correct`` ≤ ``n_rows`` and ``n_rows`` ≥ 1.
    confidence : float
        Between 0 and 1.

    References
    ----------
    E. B. Wilson: Probable inference, the law of succession, and statistical inference, JASA 22 (1927), 209-212.
    """
    if not 0 <= n_correct <= n_rows or n_rows < 1:
        raise HeadError(f"{n_correct} of {n_rows} is not a proportion; give 0 ≤ n_correct ≤ n_rows, n_rows at least 1.")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    p = n_correct / n_rows
    centre = (p + z**2 / (2 * n_rows)) / (1 + z**2 / n_rows)
    half_width = z / (1 + z**2 / n_rows) * sqrt(p * (1 - p) / n_rows + z**2 / (4 * n_rows**2))
    # At 0 and n successes one end is exactly 0 or 1; rounding must not carry it across.
    return (0.0 if n_correct == 0 else centre - half_width, 1.0 if n_correct == n_rows else centre + half_width)
