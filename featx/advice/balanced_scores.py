"""Layers by balanced accuracy, the mean over classes of what is named rightly, for sets whose classes are uneven.

The statistics are those of `featx.comparison`, on the balanced accuracies of the same folds. They count rows; a mean
over classes is only as sure as its small classes let it be, so that fewer rows than there are stand for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import fsum

import numpy as np

from featx.comparison import Candidate, Cost, FoldScore, Journal, rank_candidates
from featx.comparison.statistics import clearly_above


@dataclass(frozen=True)
class LayerScore:
    """How a layer did, alone and against the best.

    Attributes
    ----------
    accuracy, behind : float
        Mean over the folds, and that of the best less this one.
    interval, behind_interval : tuple of float
        Their 95 % intervals.
    """

    accuracy: float
    interval: tuple[float, float]
    behind: float
    behind_interval: tuple[float, float]


class KeptScores(Journal):
    """The scores of a comparison, fold by fold.

    Attributes
    ----------
    folds : dict of Candidate to dict of int to FoldScore
        Candidate, then number of the fold.
    """

    def __init__(self) -> None:
        super().__init__()
        self.folds: dict[Candidate, dict[int, FoldScore]] = {}

    def add(self, key: str, scores: Iterable[tuple[Candidate, int, FoldScore]]) -> None:
        """Keep scores."""
        scores = list(scores)
        super().add(key, scores)
        for candidate, fold, score in scores:
            self.folds.setdefault(candidate, {})[fold] = score

    def of(self, candidate: Candidate) -> list[FoldScore]:
        """Return the scores of a candidate in the order of the folds."""
        return [score for _, score in sorted(self.folds[candidate].items())]


def balanced_scores(folds: Mapping[str, Sequence[FoldScore]], n_rows: int, weight: float) -> dict[str, LayerScore]:
    """Return how layers did by balanced accuracy.

    Parameters
    ----------
    folds : mapping of str to sequence of FoldScore
        Of each layer, the same folds in the same order.
    n_rows : int
        Different rows that the folds tested.
    weight : float
        Part of them that counts, see `weight_of_rows`.
    """
    scores = {
        Candidate(layer, "zscore", "none", "ridge"): [
            replace(fold, accuracy=fold.balanced_accuracy) for fold in of_layer
        ]
        for layer, of_layer in folds.items()
    }
    ranked = rank_candidates(scores, dict.fromkeys(scores, Cost(0)), n_rows=n_rows, weight=weight)
    return {
        entry.candidate.layer: LayerScore(entry.accuracy, entry.interval, entry.difference, entry.difference_interval)
        for entry in ranked
    }


def weight_of_rows(labels: np.ndarray) -> float:
    """Return which part of the rows would, in even classes, make a mean over classes as sure as these do; 1 for even.

    With k classes of n_c rows, of which the same share is named rightly, the variance of the mean over classes is that
    of k² / Σ 1/n_c rows.
    """
    counts = np.unique(labels, return_counts=True)[1]
    counts = counts[counts > 1]  # a single row is never tested
    return float(len(counts) ** 2 / (1 / counts).sum() / counts.sum())


def is_learned(scores: Mapping[str, LayerScore], baseline: Sequence[FoldScore], n_rows: int, weight: float) -> bool:
    """Return whether the best is above a head that always names one class, by more than luck at 5 %."""
    level = fsum(fold.balanced_accuracy for fold in baseline) / len(baseline)
    best = max(score.accuracy for score in scores.values())
    return clearly_above(best, level, _counted(n_rows, weight), len(scores))


def _counted(n_rows: int, weight: float) -> int:
    return max(1, round(n_rows * weight))
