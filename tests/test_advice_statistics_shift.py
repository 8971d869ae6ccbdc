"""Distance of channel statistics: hand computations, and what few images do to it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from featx.advice.normalisation_statistics import LayerSample
from featx.advice.statistics_shift import layer_shift, shift_interval, shifts_by_depth, total_shift


def sample_of(means, variances, running_mean, running_variance, epsilon=0.0):
    """Return a sample of a layer from plain lists."""
    arrays = (np.array(values, np.float32) for values in (means, variances, running_mean, running_variance))
    return LayerSample("norm", *arrays, epsilon)


def random_sample(n_images, *, n_channels=400, ratio=1.0, offset=0.0, seed=0):
    """Return images whose statistics are drawn; between images lies a half of the variance, `ratio` in all."""
    random = np.random.default_rng(seed)
    means = offset + np.sqrt(ratio / 2) * random.standard_normal((n_images, n_channels))
    variances = ratio / 2 * random.gamma(4, 1 / 4, (n_images, n_channels))
    return sample_of(means, variances, np.zeros(n_channels), np.ones(n_channels))


def test_equal_images_shift_by_the_log_ratio_and_the_squared_distance():
    """Images that do not differ have no noise: variances 4 and 1/4 of 1, means 3 and 1 deviations away."""
    sample = sample_of([[3, 1]] * 5, [[4, 0.25]] * 5, [0, 0], [1, 1])
    shift = layer_shift(sample, depth=0.5)
    assert shift.variance_shift == pytest.approx(np.log(4))
    assert shift.mean_shift == pytest.approx((9 + 1) / 2)
    assert (shift.layer, shift.depth) == ("norm", 0.5)


def test_variance_counts_within_and_between_images():
    """Means −1 and 1 have the unbiased variance 2; with 2 within images that is 4 in all, and e = 1 makes ln(5/3)."""
    sample = sample_of([[-1], [1], [-1], [1], [-1], [1]], [[2.0]] * 6, [0], [2.0], epsilon=1.0)
    expected = np.log((2 + 6 / 5 + 1) / 3)
    assert layer_shift(sample).variance_shift == pytest.approx(expected)
    # The mean is 0, and its noise is more than that: nothing is left, and never less than nothing.
    assert layer_shift(sample).mean_shift == 0.0


@pytest.mark.parametrize("n_images", [8, 16, 48])
def test_images_of_the_source_itself_hardly_shift(n_images):
    """Of images drawn from the running statistics there remains less than half of what the plain formula gives."""
    sample = random_sample(n_images)
    variances = sample.variances.mean(0) + sample.means.var(0, ddof=1)
    plain = np.abs(np.log(variances)).mean() + (sample.means.mean(0) ** 2).mean()
    assert total_shift([layer_shift(sample)]) < plain / 2


def test_few_images_give_the_shift_of_many():
    """At half the variance and half a deviation away: ln 2 + 1/4 with 8 images as with 500."""
    expected = np.log(2) + 0.25
    for n_images, tolerance in ((8, 0.1), (16, 0.05), (500, 0.01)):
        shifts = [
            total_shift([layer_shift(random_sample(n_images, ratio=0.5, offset=0.5, seed=seed))]) for seed in range(5)
        ]
        assert np.mean(shifts) == pytest.approx(expected, abs=tolerance)


def test_order_of_images_and_units_of_a_channel_change_nothing():
    """Shifts are the same for images in another order, and for a channel measured in other units."""
    sample = random_sample(12, ratio=2.0, offset=0.3)
    turned = replace(sample, means=sample.means[::-1], variances=sample.variances[::-1])
    scaled = sample_of(5 * sample.means, 25 * sample.variances, 5 * sample.running_mean, 25 * sample.running_variance)
    for other in (turned, scaled):
        assert layer_shift(other).variance_shift == pytest.approx(layer_shift(sample).variance_shift, rel=1e-4)
        assert layer_shift(other).mean_shift == pytest.approx(layer_shift(sample).mean_shift, rel=1e-4)


def test_the_interval_holds_the_shift_and_narrows():
    """Around its own value, near the true one, and narrower the more images there are."""
    widths = []
    for n_images in (8, 32, 128):
        samples = [random_sample(n_images, n_channels=20, ratio=0.5, offset=0.5, seed=3)]
        shift = total_shift([layer_shift(samples[0])])
        low, high = shift_interval(samples, shift, seed=1)
        assert low <= shift <= high
        widths.append(high - low)
    assert widths == sorted(widths, reverse=True)
    assert widths[2] < widths[0] / 2


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    """Of forty intervals at 95 %, at least 34 hold the true shift."""
    truth, held = np.log(2) + 0.25, 0
    for seed in range(40):
        samples = [random_sample(24, n_channels=30, ratio=0.5, offset=0.5, seed=seed)]
        low, high = shift_interval(samples, total_shift([layer_shift(samples[0])]), seed=seed)
        held += low <= truth <= high
    assert held >= 34


def test_the_interval_depends_on_its_seed_alone():
    """The same seed gives the same interval, and no global random state is touched."""
    samples = [random_sample(10)]
    before = np.random.get_state()[1].copy()  # noqa: NPY002 - that this state stays is what is tested
    assert shift_interval(samples, 0.3, seed=4) == shift_interval(samples, 0.3, seed=4)
    assert shift_interval(samples, 0.3, seed=4) != shift_interval(samples, 0.3, seed=5)
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def test_channels_that_never_vary_are_counted_without_a_warning():
    """A channel of constant zeros, here and in the source, has no shift, even without an epsilon."""
    sample = sample_of([[0.0, 1.0]] * 4, [[0.0, 1.0]] * 4, [0, 1], [0, 1])
    assert total_shift([layer_shift(sample)]) == 0.0
    assert shift_interval([sample], 0.0) == (0.0, 0.0)


def test_layers_come_with_their_depth_or_their_rank():
    """A depth that is known is taken; else the layer's rank in execution order."""
    samples = [replace(random_sample(4), layer=name) for name in ("a", "b", "c")]
    shifts = shifts_by_depth(samples, {"a": 0.1, "c": 0.9})
    assert [(shift.layer, shift.depth) for shift in shifts] == [("a", 0.1), ("b", 0.5), ("c", 0.9)]
