"""From distances to a number between 0 and 1, and to a verdict."""

from __future__ import annotations

import numpy as np
import pytest

from featx.advice import calibration


def test_the_scale_runs_from_one_to_nothing():
    """No shift is 1, a very large one nearly 0, and more shift is never more similar."""
    values = [calibration.similarity_of_shift(shift) for shift in np.linspace(0, 5, 50)]
    assert values[0] == 1.0
    assert values[-1] < 0.01
    assert values == sorted(values, reverse=True)


def test_the_scale_is_two_thirds_and_one_third_at_its_limits():
    """The two distances that were calibrated are where the verdict changes."""
    assert calibration.similarity_of_shift(calibration.NEAR_SHIFT) == pytest.approx(2 / 3)
    assert calibration.similarity_of_shift(calibration.FAR_SHIFT) == pytest.approx(1 / 3)
    assert calibration.similarity_of_confidence(calibration.NEAR_CONFIDENCE) == pytest.approx(2 / 3)
    assert calibration.similarity_of_confidence(calibration.FAR_CONFIDENCE) == pytest.approx(1 / 3)


def test_confidence_counts_the_other_way_round():
    """The surer a classifier is, the more similar are the images; one that is not sure at all gives 0."""
    values = [calibration.similarity_of_confidence(confidence) for confidence in (0, 0.001, 0.1, 0.3, 0.6, 1)]
    assert values == sorted(values)
    assert values[0] == pytest.approx(0, abs=1e-9)
    assert values[-1] > 0.9


@pytest.mark.parametrize(
    ("similarity", "verdict"),
    [
        (1.0, "similar"),
        (0.67, "similar"),
        (0.66, "between"),
        (0.34, "between"),
        (0.33, "different"),
        (0.0, "different"),
    ],
)
def test_verdicts_follow_the_number(similarity, verdict):
    """Two thirds and more is similar, a third and less is different."""
    assert calibration.verdict_of(similarity) == verdict


def test_nothing_measured_is_unknown():
    """Without a number there is no verdict."""
    assert calibration.verdict_of(None) == "unknown"
