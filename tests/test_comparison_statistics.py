"""Corrected intervals and tests: the formulas, their edges, and how often they are wrong where nothing differs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from featx.comparison import accuracy_interval, corrected_interval, corrected_test, holm
from featx.comparison.statistics import clearly_above, least_difference_variance
from featx.errors import HeadError, UsageError
from featx.heads import wilson_interval

DIFFERENCES = [0.02, -0.01, 0.05, 0.03, 0.0, 0.04]


def test_interval_is_the_textbook_formula():
    """Three scores by hand: mean 0.8, variance 0.01, t of 2 degrees 4.302653."""
    half_width = 4.302652730 * math.sqrt((1 / 3 + 0.25) * 0.01)
    assert corrected_interval([0.7, 0.8, 0.9], 0.25) == pytest.approx((0.8 - half_width, 0.8 + half_width), abs=1e-9)


def test_test_is_the_textbook_formula():
    """Three differences by hand: t = 0.03 / sqrt((1/3 + 1/2) · 0.0001), whose p of 2 degrees has a closed form."""
    t = 0.03 / math.sqrt((1 / 3 + 1 / 2) * 0.0001)
    found = corrected_test([0.02, 0.03, 0.04], 0.5)
    assert found.mean == pytest.approx(0.03)
    assert found.p_value == pytest.approx(1 - t / math.sqrt(2 + t**2))


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
def test_without_correction_both_are_the_ordinary_ones(confidence):
    """At ratio 0 the test and the interval are SciPy's one-sample t-test."""
    expected = stats.ttest_1samp(DIFFERENCES, 0.0)
    found = corrected_test(DIFFERENCES, 0.0, confidence)
    assert found.p_value == pytest.approx(expected.pvalue)
    assert found.interval == pytest.approx(tuple(expected.confidence_interval(confidence)))
    assert corrected_interval(DIFFERENCES, 0.0, confidence) == pytest.approx(found.interval)


def test_correction_widens_and_doubts():
    """More test rows for each training row: a wider interval and a larger p."""
    tests = [corrected_test(DIFFERENCES, ratio) for ratio in (0.0, 0.1, 0.25, 1.0)]
    widths = [high - low for low, high in (test.interval for test in tests)]
    assert widths == sorted(set(widths))
    assert [test.p_value for test in tests] == sorted({test.p_value for test in tests})


@pytest.mark.parametrize(
    ("differences", "p_value", "interval"),
    [
        ([0.0] * 5, 1.0, (0.0, 0.0)),
        ([1e-17, 0.0, -1e-17], 1.0, (0.0, 0.0)),
        ([0.9 - 0.8, 0.1, 0.1, 0.1], 0.0, (0.1, 0.1)),
        ([0.25], 1.0, (-1.0, 1.0)),
    ],
)
def test_differences_without_spread(differences, p_value, interval):
    """No difference: p = 1. The same difference everywhere: p = 0. One fold: no test. Never a warning or NaN."""
    found = corrected_test(differences, 0.25)
    assert found.p_value == p_value
    assert found.interval == pytest.approx(interval)


def test_few_rows_prove_little():
    """Two folds of two rows with one and the same difference are no proof once rows are counted; many folds are."""
    floor = least_difference_variance(0.5, n_rows=4, n_test=2)
    assert corrected_test([0.5, 0.5], 1.0).p_value == 0
    assert corrected_test([0.5, 0.5], 1.0, least_variance=floor).p_value > 0.3
    floor = least_difference_variance(0.5, n_rows=400, n_test=40)
    assert corrected_test([0.5] * 10, 1 / 9, least_variance=floor).p_value < 1e-4


def test_least_variance_by_hand_and_below_the_spread_of_real_rows():
    """By formula at 0.2 of 8 rows, and at most what differences of single rows have, for any mixture of them."""
    assert least_difference_variance(0.2, 8, 2) == pytest.approx(0.26 * 0.74 / 2)
    rng = np.random.default_rng(0)
    for _ in range(20):
        rows = rng.choice([-1, 0, 1], p=rng.dirichlet([1, 1, 1]), size=10_000)
        assert least_difference_variance(rows.mean(), 10_000, 100) <= rows.var() / 100 * 1.01


def test_one_fold_has_no_corrected_interval():
    """The spread of one score is unknown: the interval is everything."""
    assert corrected_interval([0.8], 0.25) == (-math.inf, math.inf)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: corrected_interval([], 0.1), HeadError),
        (lambda: corrected_test([0.1, math.nan], 0.1), HeadError),
        (lambda: corrected_test([[0.1]], 0.1), HeadError),
        (lambda: corrected_interval([0.1, 0.2], -0.1), UsageError),
        (lambda: corrected_interval([0.1, 0.2], math.nan), UsageError),
        (lambda: corrected_interval([0.1, 0.2], 0.1, confidence=1.0), UsageError),
        (lambda: holm([0.5, 1.5]), UsageError),
        (lambda: holm([math.nan]), UsageError),
        (lambda: accuracy_interval([1.5, 1.5], 0.1, 10), HeadError),
        (lambda: accuracy_interval([0.5, 0.5], 0.1, 0), HeadError),
    ],
)
def test_what_makes_no_sense_is_named(call, error):
    """Scores that are missing or not finite, ratios and p-values out of range are errors of featx."""
    with pytest.raises(error, match=r"given|give"):
        call()


def test_holm_by_hand():
    """Four p-values: times 4, 3, 2, 1 from the smallest, never falling, never above 1."""
    assert holm([0.04, 0.01, 0.03, 0.5]) == pytest.approx((0.09, 0.04, 0.09, 0.5))
    assert holm([0.6, 0.9]) == (1.0, 1.0)
    assert holm([]) == ()
    assert holm([0.2]) == (0.2,)


def test_holm_does_not_depend_on_the_order():
    """Values go with their place; adjusted ones are never smaller, and rise with the raw ones."""
    rng = np.random.default_rng(0)
    raw = rng.random(30) ** 3
    adjusted, order = np.array(holm(raw)), rng.permutation(30)
    np.testing.assert_array_equal(np.array(holm(raw[order])), adjusted[order])
    assert (adjusted >= raw).all()
    assert (np.diff(adjusted[np.argsort(raw)]) >= 0).all()


def test_perfect_folds_keep_an_interval():
    """Every fold 1.000: the interval is Wilson's of all rows, not a point."""
    low, high = accuracy_interval([1.0] * 5, 0.25, 50)
    assert (low, high) == wilson_interval(50, 50)
    assert low < 0.95


def test_accuracy_interval_is_the_wider_at_each_end():
    """Folds far apart widen it beyond Wilson's, and it stays within 0 and 1."""
    folds = [0.6, 1.0, 0.8, 1.0, 0.7]
    low, high = accuracy_interval(folds, 0.25, 1000)
    assert (low, high) == (max(0.0, corrected_interval(folds, 0.25)[0]), 1.0)
    assert low < wilson_interval(820, 1000)[0]


def test_one_fold_has_wilsons_interval():
    """A single split is a sample of its rows; half a success is counted down and up."""
    assert accuracy_interval([0.75], 0.25, 40) == wilson_interval(30, 40)
    assert accuracy_interval([0.75], 0.25, 2) == (wilson_interval(1, 2)[0], wilson_interval(2, 2)[1])


def cross_validated_differences(rng, n_runs, n_rows=100, n_folds=10, n_repeats=10):
    """Return differences of two equal candidates on repeated folds, as correlated as those of real folds.

    What a row says for one or the other candidate is the row's own, whatever was trained on; repeats only deal the
    rows into other folds. A draw of the training rows adds noise of its own to each fold.
    """
    found = []
    for _ in range(n_runs):
        row_differences = rng.choice([-1, 0, 1], p=[0.1, 0.8, 0.1], size=n_rows)
        deals = np.stack([rng.permutation(n_rows) for _ in range(n_repeats)]).reshape(-1, n_rows // n_folds)
        found.append(row_differences[deals].mean(axis=1))
    return found


def test_equal_candidates_are_seldom_told_apart():
    """On 10 × 10 folds of 500 made-up data sets the corrected test errs in about 5 %, the ordinary one in most."""
    runs = cross_validated_differences(np.random.default_rng(0), 500)
    corrected = np.mean([corrected_test(run, 1 / 9).p_value < 0.05 for run in runs])
    ordinary = np.mean([corrected_test(run, 0.0).p_value < 0.05 for run in runs])
    assert corrected <= 0.075
    assert ordinary > 0.4


def test_a_real_difference_is_found():
    """The corrected test is no excuse: 10 points on 10 × 10 folds of 100 rows are mostly seen."""
    rng = np.random.default_rng(0)
    runs = [run + 0.15 for run in cross_validated_differences(rng, 100)]
    assert np.mean([corrected_test(run, 1 / 9).p_value < 0.05 for run in runs]) > 0.8


def test_the_best_of_many_guesses_is_not_called_learned():
    """The luckiest of 50 candidates that guess among 10 classes beats chance clearly in at most 5 % of 400 trials."""
    rng = np.random.default_rng(0)
    best = rng.binomial(120, 0.1, size=(400, 50)).max(axis=1) / 120
    called = np.array([clearly_above(accuracy, 0.1, 120, 50) for accuracy in best])
    assert called.mean() <= 0.05
    assert np.mean([clearly_above(accuracy, 0.1, 120, 1) for accuracy in best]) > 0.5
    assert clearly_above(0.7, 0.1, 50, 100)
    assert not clearly_above(0.0, 0.0, 50, 1)


def test_clearly_above_is_the_exact_binomial_test():
    """Its answer flips where SciPy's one-sided binomial test, times the number of candidates, crosses the level."""
    for n_correct in range(10, 30):
        expected = 20 * stats.binomtest(n_correct, 60, 0.2, alternative="greater").pvalue <= 0.05
        assert clearly_above(n_correct / 60, 0.2, 60, 20) == expected
