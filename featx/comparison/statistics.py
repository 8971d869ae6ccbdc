"""What fold scores allow to say: intervals and paired tests that know that folds share their training rows.

The folds of a cross-validation are not independent: any two share most of what they learn from. The ordinary t-test
takes them for independent and finds differences where there are none; the corrected one adds the ratio of test to
training rows to 1/J in the variance of the mean of J scores.

References
----------
C. Nadeau, Y. Bengio: Inference for the generalization error, Machine Learning 52 (2003), 239-281.
R. R. Bouckaert, E. Frank: Evaluating the replicability of significance tests for comparing learning algorithms,
PAKDD 2004 (the same, for repeated cross-validation).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, fsum, inf, sqrt

import numpy as np
from scipy.special import bdtrc, stdtr, stdtrit

from featx.errors import HeadError, UsageError
from featx.heads.scoring import wilson_interval

# Differences of accuracies come as 0.1 − 4e-17; only digits that mean something count.
_DIGITS = 12


@dataclass(frozen=True)
class PairedTest:
    """Whether two candidates differ, on the same folds.

    Attributes
    ----------
    mean : float
        Mean difference over the folds.
    interval : tuple of float
        The interval of that mean.
    p_value : float
        Two-sided: how likely a mean at least so far from 0 is if there is no difference.
    """

    mean: float
    interval: tuple[float, float]
    p_value: float


def corrected_interval(
    scores: Sequence[float], test_to_train_ratio: float, confidence: float = 0.95
) -> tuple[float, float]:
    """Return the corrected interval of the mean of fold scores: mean ± t · sqrt((1/J + ratio) · variance).

    Parameters
    ----------
    scores : sequence of float
        One score a fold; t is Student's, with J − 1 degrees of freedom.
    test_to_train_ratio : float
        Test rows divided by training rows of a fold; 0 takes the correction out.
    confidence : float
        Between 0 and 1.

    Returns
    -------
    tuple of float
        Lower and upper end, not clipped to what a score can be; infinite for one fold, which says nothing about
        the spread.

    Raises
    ------
    HeadError
        For no score, or one that is not finite.
    UsageError
        For a negative ratio, or a confidence outside of 0 to 1.
    """
    values = _checked(scores, test_to_train_ratio, confidence)
    mean = _mean(values)
    if len(values) == 1:
        return (-inf, inf)
    half_width = _standard_error(values, test_to_train_ratio) * _t_quantile(len(values), confidence)
    return (mean - half_width, mean + half_width)


def corrected_test(
    differences: Sequence[float], test_to_train_ratio: float, confidence: float = 0.95, least_variance: float = 0.0
) -> PairedTest:
    """Return the corrected resampled t-test of differences between two candidates on the same folds.

    Parameters
    ----------
    differences : sequence of float
        Score of the one less score of the other, one a fold.
    test_to_train_ratio : float
        As in `corrected_interval`.
    confidence : float
        Of the interval, between 0 and 1.
    least_variance : float
        The variance of the differences is not taken to be smaller, see `least_difference_variance`.

    Returns
    -------
    PairedTest
        Where all differences are 0, p is 1. Where all are equal but not 0, and `least_variance` is 0, p is 0. One
        fold allows no test: p is 1, the interval −1 to 1, which is all that accuracies can differ by.

    Raises
    ------
    HeadError, UsageError
        As in `corrected_interval`.
    """
    values = np.round(_checked(differences, test_to_train_ratio, confidence), _DIGITS)
    mean = _mean(values)
    if len(values) == 1:
        return PairedTest(mean, (-1.0, 1.0), 1.0)
    error = _standard_error(values, test_to_train_ratio, least_variance)
    half_width = error * _t_quantile(len(values), confidence)
    if error > 0:
        p_value = min(1.0, 2 * float(stdtr(len(values) - 1, -abs(mean) / error)))
    else:
        p_value = 1.0 if mean == 0 else 0.0
    return PairedTest(mean, (mean - half_width, mean + half_width), p_value)


def least_difference_variance(mean_difference: float, n_rows: int, n_test: float) -> float:
    """Return the least variance, over folds, that the difference of two accuracies can have in truth.

    On a row two candidates differ by −1, 0 or 1. If the mean is d, the variance on a row is at least abs(d)·(1 −
    abs(d)), and on a fold that divided by its rows. Folds of few rows often agree more closely by chance: two folds
    with one and the same difference would otherwise prove anything. One row in favour and one against are added to
    those seen, so that not even d = 0 and d = 1 are taken for certain.

    Parameters
    ----------
    mean_difference : float
        From −1 to 1.
    n_rows : int
        Different rows that were tested.
    n_test : float
        Rows of one fold.
    """
    rate = (abs(mean_difference) * n_rows + 1) / (n_rows + 2)
    return rate * (1 - rate) / n_test


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Return p-values adjusted for being many, in the order given.

    Rejecting those of at most α keeps the chance of any false rejection at most α, whatever their dependence.

    Raises
    ------
    UsageError
        For a value outside of 0 to 1.

    References
    ----------
    S. Holm: A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6 (1979).
    """
    values = np.asarray(p_values, dtype=np.float64)
    if not np.all((values >= 0) & (values <= 1)):
        raise UsageError(f"p-values {values.tolist()} were given; they lie between 0 and 1. Correct the test.")
    order = np.argsort(values, kind="stable")
    # The smallest is multiplied by their number, the next by one less; none may become smaller than one before it.
    stepped = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(stepped, 1.0)
    return tuple(adjusted.tolist())


def accuracy_interval(
    fold_accuracies: Sequence[float], test_to_train_ratio: float, n_rows: int, confidence: float = 0.95
) -> tuple[float, float]:
    """Return an interval of an accuracy that was measured on folds, at each end the wider of two.

    One is the corrected interval. Where every fold is 1.000 that has no width, which would be a lie; the other is
    Wilson's interval of the rows named correctly, which knows how few they are. One fold has only the latter.

    Parameters
    ----------
    fold_accuracies : sequence of float
        From 0 to 1.
    test_to_train_ratio : float
        As in `corrected_interval`.
    n_rows : int
        Different rows that were tested; repeating the folds does not add any.
    confidence : float
        Between 0 and 1.

    Raises
    ------
    HeadError, UsageError
        As in `corrected_interval`, and for accuracies outside of 0 to 1 or no rows.
    """
    values = _checked(fold_accuracies, test_to_train_ratio, confidence)
    low, high = _proportion_interval(_mean(values), n_rows, confidence)
    if len(values) > 1:
        corrected_low, corrected_high = corrected_interval(fold_accuracies, test_to_train_ratio, confidence)
        low, high = min(low, corrected_low), max(high, corrected_high)
    return (max(0.0, low), min(1.0, high))


def clearly_above(accuracy: float, other: float, n_rows: int, n_candidates: int, level: float = 0.05) -> bool:
    """Return whether the best of many accuracies is more than a lucky draw from rows of another, known accuracy.

    An exact binomial test, one-sided. The best of many is high by luck alone: the level is divided by their number
    (Bonferroni), and Wilson's interval would be too narrow so far out.

    Parameters
    ----------
    accuracy, other : float
        Of the best candidate, and of the largest class.
    n_rows : int
        Different rows that were tested.
    n_candidates : int
        How many the best one was picked from.
    level : float
        Chance of a wrong "yes".
    """
    n_correct = floor(round(accuracy * n_rows, 6))
    if n_correct == 0:
        return False
    # bdtrc(k, n, p): the chance of more than k
    return bool(bdtrc(n_correct - 1, n_rows, other) * max(n_candidates, 1) <= level)


def _proportion_interval(mean: float, n_rows: int, confidence: float) -> tuple[float, float]:
    """Return Wilson's interval of mean · n_rows successes, a broken number of them counted down and up."""
    successes = round(mean * n_rows, 6)
    low, _ = wilson_interval(floor(successes), n_rows, confidence)
    _, high = wilson_interval(ceil(successes), n_rows, confidence)
    return (low, high)


def _checked(scores: Sequence[float], ratio: float, confidence: float) -> np.ndarray:
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise HeadError(f"fold scores {values.tolist()} were given; needed is one finite number for each fold.")
    if not (0 <= ratio < inf and 0 < confidence < 1):
        raise UsageError(
            f"a test-to-train ratio of {ratio} and a confidence of {confidence} were given; allowed are 0 or more, "
            "and between 0 and 1."
        )
    return values


def _mean(values: np.ndarray) -> float:
    # fsum: the same for any order of the folds
    return fsum(values.tolist()) / len(values)


def _standard_error(values: np.ndarray, ratio: float, least_variance: float = 0.0) -> float:
    # Equal values have no variance; computed, it would be about 1e-34.
    variance = float(np.var(values, ddof=1)) if np.ptp(values) > 0 else 0.0
    return sqrt((1 / len(values) + ratio) * max(variance, least_variance))


def _t_quantile(n_scores: int, confidence: float) -> float:
    return float(stdtrit(n_scores - 1, (1 + confidence) / 2))
