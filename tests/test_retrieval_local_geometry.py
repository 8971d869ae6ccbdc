"""Matches that lie as one picture seen on another are found among many that do not."""

from __future__ import annotations

import numpy as np
import pytest

from featx.errors import UsageError
from featx.retrieval.local.geometry import GeometryOptions, _agreements, align
from featx.retrieval.local.places import LocalPlaces, place_positions


def seen(positions, scale, degrees, shift, skew=0.0):
    """Return positions after a similarity transform with a little skew, and its matrix (2, 3)."""
    angle = np.radians(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = np.column_stack([scale * turn @ np.array([[1, skew], [0, 1]]), shift])
    return positions @ matrix[:, :2].T + matrix[:, 2], matrix


@pytest.fixture
def grid():
    """Positions of a 14×14 map of a square picture."""
    return place_positions((14, 14)).astype(np.float64)


@pytest.mark.parametrize(("scale", "degrees", "skew"), [(0.5, 0, 0), (0.3, 25, 0), (1.2, -40, 0), (0.6, 10, 0.15)])
def test_finds_the_transform(grid, scale, degrees, skew):
    """With four of ten matches right the transform is found, and no others agree with one at random."""
    random = np.random.default_rng(1)
    target, matrix = seen(grid, scale, degrees, (0.2, 0.1), skew)
    right = random.random(len(grid)) < 0.4
    matched = np.where(right[:, None], target, random.random(grid.shape))
    wrong = random.random(grid.shape)
    found = align(np.stack([grid, grid]), np.stack([matched, wrong]), np.ones((2, len(grid))))
    np.testing.assert_allclose(found.transforms[0] @ [0.5, 0.5, 1], matrix @ [0.5, 0.5, 1], atol=0.02)
    np.testing.assert_allclose(found.transforms[0], matrix, atol=0.06)
    assert found.n_inliers[0] >= right.sum() * 0.95
    assert found.weights[1] < found.weights[0] / 2


def test_exact_matches_count_in_full(grid):
    """Where all matches lie exactly right, the weight is the sum of the weights and all are inliers."""
    weights = np.random.default_rng(0).random((1, len(grid)))
    found = align(grid[None], seen(grid, 0.5, 10, (0.1, 0.3))[0][None], weights)
    np.testing.assert_allclose(found.weights, weights.sum(), rtol=1e-4)
    assert found.n_inliers[0] == len(grid)


@pytest.mark.parametrize(("scale", "degrees"), [(0.1, 0), (3.0, 0), (0.5, 90), (0.5, 180)])
def test_what_is_not_allowed_is_not_found(grid, scale, degrees):
    """A transform outside the range of scales and turns counts nothing, however many matches agree with it."""
    matched, _ = seen(grid, scale, degrees, (0.5, 0.5))
    found = align(grid[None], matched[None], np.ones((1, len(grid))))
    assert found.weights[0] == 0
    assert found.n_inliers[0] == 0
    assert not found.transforms.any()


def test_candidates_do_not_influence_each_other(grid, monkeypatch):
    """One candidate alone, many together in any order, and in blocks of one give the same."""
    random = np.random.default_rng(3)
    positions, weights = np.stack([grid] * 5), random.random((5, len(grid)))
    matched = np.stack([seen(grid, 0.5, 5 * turn, (0.2, 0.2))[0] for turn in range(5)])
    matched += random.normal(0, 0.03, matched.shape)
    together = align(positions, matched, weights)
    backwards = align(positions, matched[::-1], weights[::-1])
    np.testing.assert_allclose(backwards.weights[::-1], together.weights, rtol=1e-5)
    monkeypatch.setattr("featx.retrieval.local.geometry._NUMBERS_A_BLOCK", 1)
    np.testing.assert_allclose(align(positions, matched, weights).weights, together.weights, rtol=1e-5)


def test_distances_are_those_of_the_plain_loop():
    """The agreement counted by a matrix product is that of distances computed one by one."""
    random = np.random.default_rng(4)
    turn, shift = (random.normal(size=(2, 3)) + 1j * random.normal(size=(2, 3)) for _ in range(2))
    source, target = (random.random((2, 50)) + 1j * random.random((2, 50)) for _ in range(2))
    weights = random.random((2, 50))
    table = _agreements(turn, shift, source, target, weights, 0.8)
    for candidate in range(2):
        for number in range(3):
            off = turn[candidate, number] * source[candidate] + shift[candidate, number] - target[candidate]
            expected = (np.maximum(1 - np.abs(off) ** 2 / 0.64, 0) * weights[candidate]).sum()
            assert table[candidate, number] == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_degenerate_matches_count_nothing(grid):
    """No weights, or all places matched to one point, are no alignment, and no warning."""
    point = np.full((2, *grid.shape), 0.5)
    weights = np.zeros((2, len(grid)))
    weights[1] = 1
    found = align(np.stack([grid] * 2), point, weights)
    np.testing.assert_array_equal(found.weights, 0)
    one = align(grid[:1][None], grid[:1][None], np.ones((1, 1)))
    assert one.weights[0] == 0


def test_none_is_fine(grid):
    """No candidates give no alignments."""
    nothing = np.zeros((0, len(grid), 2))
    assert align(nothing, nothing, np.zeros((0, len(grid)))).weights.shape == (0,)


@pytest.mark.parametrize("options", [{"n_hypotheses": 0}, {"tolerance": 0}, {"scales": (1, 0.5)}])
def test_options_out_of_range(options):
    """Numbers that no search can use are refused."""
    with pytest.raises(UsageError, match="cannot be met"):
        GeometryOptions(**options)


def test_positions_by_hand():
    """Middles of cells, views one after another, in units of the longer side."""
    found = place_positions((1, 2), np.array([[0, 0, 1, 1], [0.5, 0, 1, 0.5]]), size=(200, 100))
    np.testing.assert_allclose(found, [[0.25, 0.25], [0.75, 0.25], [0.625, 0.125], [0.875, 0.125]])
    np.testing.assert_allclose(place_positions((2, 1), size=(1, 4)), [[0.125, 0.25], [0.125, 0.75]])


def test_positions_need_a_picture():
    """A size or a map of nothing is refused; so are places without positions."""
    with pytest.raises(UsageError, match="positive"):
        place_positions((0, 2))
    with pytest.raises(UsageError, match="needed are"):
        LocalPlaces(np.zeros((3, 4)), np.zeros((2, 2)))
