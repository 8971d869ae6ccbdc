"""The classifiers that featx offers, as one literal table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sklearn.base import BaseEstimator
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier

ClassWeight = Mapping[int, float] | str | None


@dataclass(frozen=True)
class HeadKind:
    """One row of the table.

    Attributes
    ----------
    make : callable
        ``make(seed, class_weight)`` returns an unfitted classifier. What it sets is used where cross-validation is
        impossible.
    grid : mapping
        Parameter name → values to try, the simplest model first: equal scores are resolved in favour of the earlier.
    calibrate : bool
        Whether probabilities have to be made from decision scores.
    description : str
        One line.
    unit_grid : mapping
        Replaces ``grid`` where rows have length 1 (scale l2); empty: the same.
    """

    make: Callable[[int, ClassWeight], BaseEstimator]
    grid: Mapping[str, tuple[Any, ...]]
    calibrate: bool
    description: str
    unit_grid: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    def grid_for(self, scale: str) -> Mapping[str, tuple[Any, ...]]:
        """Return the grid to use with a scaler."""
        return self.unit_grid if scale == "l2" and self.unit_grid else self.grid


def _svm(seed: int, class_weight: ClassWeight) -> BaseEstimator:
    # The dual solver, also where there are more rows than features: on 1500 and 4000 rows of 1280 z-scored features it
    # was 1.3 to 4 times faster than the primal one for C up to 0.01 and 70 times at C = 1, with equal accuracy.
    return LinearSVC(C=1e-3, dual=True, class_weight=class_weight, random_state=seed)


def _svm_rbf(seed: int, class_weight: ClassWeight) -> BaseEstimator:
    return SVC(C=1.0, kernel="rbf", gamma="scale", class_weight=class_weight, random_state=seed)


def _logistic(seed: int, class_weight: ClassWeight) -> BaseEstimator:
    return LogisticRegression(C=1e-2, max_iter=1000, class_weight=class_weight, random_state=seed)


def _tree(seed: int, class_weight: ClassWeight) -> BaseEstimator:
    return DecisionTreeClassifier(class_weight=class_weight, random_state=seed)


def _forest(seed: int, class_weight: ClassWeight) -> BaseEstimator:
    return RandomForestClassifier(n_estimators=200, class_weight=class_weight, random_state=seed)


def _boosting(seed: int, class_weight: ClassWeight) -> BaseEstimator:
    # Early stopping would hold out rows by itself; 50 rounds are few enough to do without. Leaves of 20 rows, the
    # default, would not split small sets at all.
    return HistGradientBoostingClassifier(
        max_iter=50,
        max_leaf_nodes=8,
        min_samples_leaf=5,
        early_stopping=False,
        class_weight=class_weight,
        random_state=seed,
    )


def _majority(seed: int, class_weight: ClassWeight) -> BaseEstimator:  # noqa: ARG001 (one signature for all)
    return DummyClassifier(strategy="prior")


# C at the upper ends was chosen so that 4000 rows of 1280 z-scored features with overlapping classes still converge:
# LinearSVC does at C = 0.1 (at C = 1 not within 1000 iterations, and with less accuracy than at any smaller C).
HEADS: dict[str, HeadKind] = {
    "svm": HeadKind(
        _svm,
        {"C": (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)},
        True,
        "linear support vector machine",
        unit_grid={"C": (1e-2, 1e-1, 1.0, 10.0, 100.0)},
    ),
    "svm-rbf": HeadKind(
        _svm_rbf, {"C": (0.1, 1.0, 10.0)}, True, "support vector machine with a Gaussian kernel; time grows as rows²"
    ),
    "logistic": HeadKind(
        _logistic,
        {"C": (1e-4, 1e-3, 1e-2, 1e-1, 1.0)},
        False,
        "multinomial logistic regression",
        unit_grid={"C": (1e-1, 1.0, 10.0, 100.0, 1000.0)},
    ),
    "tree": HeadKind(
        _tree, {"max_depth": (4, 8, None), "min_samples_leaf": (5, 1)}, False, "one decision tree; readable, weak"
    ),
    "forest": HeadKind(_forest, {"min_samples_leaf": (3, 1)}, False, "random forest of 200 trees"),
    "boosting": HeadKind(
        _boosting, {"max_leaf_nodes": (4, 16)}, False, "gradient boosted trees on histograms; slow on wide features"
    ),
    "majority": HeadKind(_majority, {}, False, "always the largest class; the baseline"),
}
