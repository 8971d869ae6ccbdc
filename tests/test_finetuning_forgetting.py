"""Likeness of features is linear CKA: it sees what differs and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ortho_group

from featx.finetuning import linear_cka


@pytest.fixture
def pair():
    """Two sets of features of 30 images that have something in common."""
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(30, 4))
    return shared @ rng.normal(size=(4, 7)) + 3, shared @ rng.normal(size=(4, 5)) + rng.normal(size=(30, 5))


def test_it_is_the_published_formula(pair):
    """Covariances between features (Kornblith et al., eq. 5) give what kernels between images give."""
    x, y = (features - features.mean(0) for features in pair)
    expected = np.linalg.norm(y.T @ x) ** 2 / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))
    assert 0.1 < expected < 0.99
    assert linear_cka(*pair) == pytest.approx(expected, rel=1e-12)


def test_rotations_factors_and_shifts_do_not_count(pair):
    """Either set may be turned, stretched as a whole and moved; the order of the two does not matter."""
    x, y = pair
    turned = 7.5 * y @ ortho_group.rvs(5, random_state=1) - 100
    assert linear_cka(x, turned) == pytest.approx(linear_cka(x, y), rel=1e-9)
    assert linear_cka(y, x) == pytest.approx(linear_cka(x, y), rel=1e-12)
    assert linear_cka(y, turned) == pytest.approx(1.0, rel=1e-12)


def test_rows_belong_together(pair):
    """The same features of other images are not alike."""
    x, _ = pair
    assert linear_cka(x, x[np.random.default_rng(2).permutation(30)]) < 0.5


def test_features_with_nothing_in_common_and_features_that_say_nothing():
    """Directions that are independent give 0, and so do features that are the same for every image."""
    square = np.array([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
    assert linear_cka(square[:, :1], square[:, 1:]) == pytest.approx(0.0, abs=1e-15)
    assert linear_cka(square, np.full((4, 3), 2.5)) == 0.0


def test_half_precision_features_do_not_overflow():
    """Sums are in float64, whatever comes in."""
    features = np.full((4, 3), 6e4, np.float16)
    features[0] = 0
    assert linear_cka(features, features) == pytest.approx(1.0)
