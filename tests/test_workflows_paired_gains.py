"""The gain of a change on the same images: numbers by hand, scipy's test, and an interval that keeps its level."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binomtest

from featx.workflows.paired_gains import paired_gain


def pairs(n_both, n_better, n_worse, n_neither):
    """Return correctness before and after, with so many images of each kind."""
    before = [True] * n_both + [False] * n_better + [True] * n_worse + [False] * n_neither
    after = [True] * n_both + [True] * n_better + [False] * n_worse + [False] * n_neither
    return before, after


def test_the_difference_is_that_of_the_accuracies():
    """Difference and counts are plain arithmetic, and exchanging before and after turns everything round."""
    before, after = pairs(30, 7, 2, 11)
    gain, back = paired_gain(before, after), paired_gain(after, before)
    assert (gain.difference, gain.n_better, gain.n_worse) == (pytest.approx(0.1), 7, 2)
    assert gain.difference == pytest.approx(np.mean(after) - np.mean(before))
    assert (back.difference, back.n_better, back.n_worse) == (pytest.approx(-0.1), 2, 7)
    assert back.interval == pytest.approx((-gain.interval[1], -gain.interval[0]))
    assert back.p_value == gain.p_value


@pytest.mark.parametrize(("n_better", "n_worse"), [(0, 0), (1, 0), (7, 2), (5, 5), (30, 12), (0, 9), (900, 1000)])
def test_the_p_value_is_the_exact_binomial_test(n_better, n_worse):
    """McNemar's exact test is scipy's binomial test of the images that differ."""
    expected = binomtest(n_better, n_better + n_worse, 0.5).pvalue if n_better + n_worse else 1.0
    assert paired_gain(*pairs(20, n_better, n_worse, 4)).p_value == pytest.approx(expected)


@pytest.mark.parametrize(
    ("counts", "phi"),
    [
        ((36, 2, 12, 0), -24 / math.sqrt(38 * 12 * 48 * 2)),  # 36 x 0 - 2 x 12: negative, so not corrected
        ((60, 9, 6, 25), (1500 - 54 - 50) / math.sqrt(69 * 31 * 66 * 34)),  # positive, so less by half of 100 images
        ((10, 4, 4, 2), 0.0),  # 20 - 16 is positive, but half of 20 images takes away more
        ((20, 0, 0, 0), 0.0),  # nobody wrong: a correlation cannot be told
    ],
)
def test_the_interval_is_newcombes_by_hand(counts, phi):
    """Method 10, with Wilson's formula as the paper writes it, and the correlation by hand."""
    n, (n_both, n_better, n_worse, _) = sum(counts), counts
    z = 1.959963984540054

    def wilson(share):
        middle, root = 2 * n * share + z**2, z * math.sqrt(z**2 + 4 * n * share * (1 - share))
        return (middle - root) / (2 * (n + z**2)), (middle + root) / (2 * (n + z**2))

    after, before = (n_both + n_better) / n, (n_both + n_worse) / n
    (low_after, high_after), (low_before, high_before) = wilson(after), wilson(before)
    down = (after - low_after) ** 2 - 2 * phi * (after - low_after) * (high_before - before)
    down = math.sqrt(down + (high_before - before) ** 2)
    up = (high_after - after) ** 2 - 2 * phi * (high_after - after) * (before - low_before)
    up = math.sqrt(up + (before - low_before) ** 2)
    assert paired_gain(*pairs(*counts)).interval == pytest.approx((after - before - down, after - before + up))


@pytest.mark.parametrize(
    "counts", [(1, 0, 0, 0), (0, 0, 0, 1), (0, 1, 0, 0), (50, 0, 0, 0), (0, 30, 30, 0), (49, 0, 0, 1)]
)
def test_extremes_have_an_interval(counts):
    """With all right, all wrong, one image or no overlap, the interval is finite and holds the difference."""
    gain = paired_gain(*pairs(*counts))
    assert -1 <= gain.interval[0] <= gain.difference <= gain.interval[1] <= 1
    assert gain.interval[0] < gain.interval[1]
    assert 0 < gain.p_value <= 1


def test_the_interval_keeps_its_level():
    """Of 2000 draws of 60 images with a known gain, at least 94 % of the intervals hold it."""
    random = np.random.default_rng(0)
    shares = (0.80, 0.09, 0.04, 0.07)
    held = []
    for counts in random.multinomial(60, shares, size=2000):
        low, high = paired_gain(*pairs(*counts)).interval
        held.append(low <= 0.05 <= high)
    assert np.mean(held) >= 0.94
