"""The classifiers that featx offers, as one literal table."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sklearn.base import BaseEstimator
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.model_selection import ParameterGrid
from sklearn.neighbors import KNeighborsClassifier
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
        Whether probabilities are made from scores of rows that the head had not seen.
    description : str
        One line.
    is_linear : bool
        Whether it is a linear classifier with an L2 penalty, whose solution lies in the space of the training rows.
    norm_power : mapping
        Parameter name → power of the mean squared length of a row that its values are multiplied with, for parameters
        that mean nothing without it. The grid is then written for rows of length 1.
    """

    make: Callable[[int, ClassWeight], BaseEstimator]
    grid: Mapping[str, tuple[Any, ...]]
    calibrate: bool
    description: str
    is_linear: bool = False
    norm_power: Mapping[str, int] = field(default_factory=dict)

    def candidates(self, mean_square_norm: float, n_rows: int) -> list[dict[str, Any]]:
        """Return the hyper-parameters to try.

        Parameters
        ----------
        mean_square_norm : float
            Of the scaled rows; z-scored features of width d have d.
        n_rows : int
            Rows of the smallest fit; it bounds the number of neighbours.
        """
        decade = 10.0 ** round(math.log10(mean_square_norm)) if mean_square_norm > 0 else 1.0
        grid = {
            name: [_rounded(value * decade ** self.norm_power[name]) for value in values]
            if name in self.norm_power
            else [value for value in values if name != "n_neighbors" or value <= max(n_rows, 1)]
            for name, values in self.grid.items()
        }
        return list(ParameterGrid(grid))

    def defaults(self, mean_square_norm: float) -> dict[str, Any]:
        """Return the hyper-parameters to take where none can be chosen: the middle of a grid that follows the rows."""
        candidates = self.candidates(mean_square_norm, 1)
        if self.norm_power:
            return candidates[len(candidates) // 2]
        made = self.make(0, None).get_params()
        return {name: made[name] for name in candidates[0]}


def _rounded(value: float) -> float:
    """Return the number that a person would write: 0.001, not 0.0010000000000000002."""
    return float(f"{value:.4g}")


def _svm(seed: int, class_weight: ClassWeight) -> BaseEstimator:
    return LinearSVC(C=1e-3, dual=True, class_weight=class_weight, random_state=seed)


def _svm_rbf(seed: int, class_weight: ClassWeight) -> BaseEstimator:
    return SVC(C=1.0, kernel="rbf", gamma="scale", class_weight=class_weight, random_state=seed)


def _logistic(seed: int, class_weight: ClassWeight) -> BaseEstimator:
    return LogisticRegression(C=1e-2, max_iter=1000, class_weight=class_weight, random_state=seed)


def _ridge(seed: int, class_weight: ClassWeight) -> BaseEstimator:
    return RidgeClassifier(alpha=1e3, class_weight=class_weight, random_state=seed)


def _neighbours(seed: int, class_weight: ClassWeight) -> BaseEstimator:  # noqa: ARG001 (one signature for all)
    # Brute force: trees do not help in hundreds of dimensions, and plain arrays are what a bundle may hold.
    return KNeighborsClassifier(n_neighbors=1, weights="distance", algorithm="brute")


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


# Calibrated are those whose own probabilities were worse on unseen rows: on 300 satellite scenes the logarithmic loss
# went from 2.63 to 0.89 for knn, 5.39 to 1.51 for the tree, 0.87 to 0.46 for the forest; but from 0.27 to 0.42 for the
# logistic and from 0.68 to 0.83 for boosting, which are left as they are.
#
# The upper ends of C were chosen so that 4000 rows of 1280 z-scored features with overlapping classes still converge:
# LinearSVC does at C·1280 = 100 (at 1000 not within 1000 iterations, and with less accuracy than at any smaller C).
HEADS: dict[str, HeadKind] = {
    "svm": HeadKind(
        _svm,
        {"C": (1e-2, 1e-1, 1.0, 10.0, 100.0)},
        True,
        "linear support vector machine",
        is_linear=True,
        norm_power={"C": -1},
    ),
    "svm-rbf": HeadKind(
        _svm_rbf, {"C": (0.1, 1.0, 10.0)}, True, "support vector machine with a Gaussian kernel; time grows as rows²"
    ),
    "logistic": HeadKind(
        _logistic,
        {"C": (1e-1, 1.0, 10.0, 100.0, 1000.0)},
        False,
        "multinomial logistic regression",
        is_linear=True,
        norm_power={"C": -1},
    ),
    "ridge": HeadKind(
        _ridge,
        {"alpha": tuple(10.0**power for power in (3, 2.5, 2, 1.5, 1, 0.5, 0, -0.5, -1, -1.5, -2, -2.5, -3))},
        True,
        "least squares to the classes with an L2 penalty; the fastest",
        is_linear=True,
        norm_power={"alpha": 1},
    ),
    "knn": HeadKind(_neighbours, {"n_neighbors": (20, 10, 5, 3, 1)}, True, "nearest neighbours, weighted by distance"),
    "tree": HeadKind(
        _tree, {"max_depth": (4, 8, None), "min_samples_leaf": (5, 1)}, True, "one decision tree; readable, weak"
    ),
    "forest": HeadKind(_forest, {"min_samples_leaf": (3, 1)}, True, "random forest of 200 trees"),
    "boosting": HeadKind(
        _boosting, {"max_leaf_nodes": (4, 16)}, False, "gradient boosted trees on histograms; slow on wide features"
    ),
    "majority": HeadKind(_majority, {}, False, "always the largest class; the baseline"),
}
