"""A picture that is seen on the query, among other things, ranks before those that are not."""

from __future__ import annotations

import numpy as np
import pytest

from featx.errors import UsageError
from featx.retrieval.local.matching import MatchOptions, score_candidates
from featx.retrieval.local.places import LocalPlaces, place_positions


def unit(vectors):
    """Return float32 vectors of length 1."""
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


@pytest.fixture
def gallery():
    """Vectors of 9 pictures of 10×10 places that are all different."""
    return unit(np.random.default_rng(0).normal(size=(9, 100, 16)))


def photo_of(picture, *, seed=1):
    """Return the places of a photo that shows a picture small and in the middle of other things."""
    random = np.random.default_rng(seed)
    vectors = random.normal(size=(20, 20, 16))
    vectors[5:15, 5:15] = picture.reshape(10, 10, 16) * 4 + random.normal(size=(10, 10, 16)) * 0.8
    return LocalPlaces(unit(vectors.reshape(400, 16)), place_positions((20, 20)))


def test_finds_what_is_shown(gallery):
    """Each photo ranks its picture first, with nearly all places as inliers and the right place on the photo."""
    positions = place_positions((10, 10))
    for number, picture in enumerate(gallery):
        found = score_candidates(photo_of(picture), gallery, positions)
        assert found.scores.argmax() == number
        assert found.n_inliers[number] > 80
        np.testing.assert_allclose(found.transforms[number], [[0.5, 0, 0.25], [0, 0.5, 0.25]], atol=0.02)
        assert np.delete(found.aligned, number).max() < found.aligned[number] / 2


def test_geometry_decides(gallery):
    """Of two candidates with the same places, the one where they lie in order ranks first; late cannot tell them."""
    shuffled = gallery[2][np.random.default_rng(5).permutation(100)]
    found = score_candidates(photo_of(gallery[2]), np.stack([shuffled, gallery[2]]), place_positions((10, 10)))
    assert found.late[0] == pytest.approx(found.late[1])
    assert found.aligned[1] > 3 * found.aligned[0]


def test_late_interaction_by_hand(gallery):
    """The late score is the mean over the candidate's places of the best similarity above the average one."""
    photo = photo_of(gallery[3])
    table = np.einsum("qd,cnd->cnq", photo.vectors, gallery, dtype=np.float64)
    table -= table.mean(axis=(0, 1))
    found = score_candidates(photo, gallery, place_positions((10, 10)), MatchOptions(late_share=0.5, n_guided=0))
    np.testing.assert_allclose(found.late, table.max(axis=2).mean(axis=1), rtol=1e-4)
    np.testing.assert_allclose(found.scores, found.aligned + 0.5 * found.late, rtol=1e-6)
    assert not found.guided.any()


def test_best_turn_counts(gallery):
    """Of a query in several turns each candidate is scored on the one that fits it, as on that turn alone."""
    turns = [photo_of(gallery[0]), photo_of(gallery[4], seed=2)]
    positions = place_positions((10, 10))
    both = score_candidates(turns, gallery, positions)
    alone = [score_candidates(turn, gallery, positions) for turn in turns]
    assert both.turns[[0, 4]].tolist() == [0, 1]
    np.testing.assert_allclose(both.aligned[[0, 4]], [alone[0].aligned[0], alone[1].aligned[4]])
    np.testing.assert_allclose(both.scores[[0, 4]], [alone[0].scores[0], alone[1].scores[4]])


def test_the_best_are_looked_at_again(gallery):
    """Guided matching adds to the best candidates only, most to the one that is there, and reorders no others."""
    photo, positions = photo_of(gallery[5]), place_positions((10, 10))
    plain = score_candidates(photo, gallery, positions, MatchOptions(n_guided=0))
    found = score_candidates(photo, gallery, positions, MatchOptions(n_guided=3, guided_share=2.0))
    best = np.argsort(-plain.scores)[:3]
    assert set(np.flatnonzero(found.guided)) <= set(best.tolist())
    assert found.guided.argmax() == 5
    assert found.guided[5] > 0.3
    np.testing.assert_allclose(found.scores, plain.scores + 2 * found.guided, rtol=1e-5)
    assert set(np.argsort(-found.scores)[:3].tolist()) == set(best.tolist())


def test_same_again_and_in_blocks(gallery, monkeypatch):
    """The same question has the same answer, whatever the size of the blocks."""
    photo, positions = photo_of(gallery[1]), np.stack([place_positions((10, 10))] * 9)
    first, second = (score_candidates(photo, gallery, positions) for _ in range(2))
    np.testing.assert_array_equal(first.scores, second.scores)
    monkeypatch.setattr("featx.retrieval.local.matching._NUMBERS_A_BLOCK", 1)
    np.testing.assert_allclose(score_candidates(photo, gallery, positions).scores, first.scores, rtol=1e-4)


def test_no_candidates(gallery):
    """No candidates give no scores."""
    found = score_candidates(photo_of(gallery[0]), gallery[:0], place_positions((10, 10)))
    assert found.scores.shape == (0,)
    assert found.transforms.shape == (0, 2, 3)


@pytest.mark.parametrize("case", ["width", "positions", "shape", "turns"])
def test_shapes_must_fit(gallery, case):
    """Another encoder's width, positions of other places, and no query at all are refused."""
    query = [] if case == "turns" else photo_of(gallery[0])
    vectors = {"width": gallery[..., :8], "shape": gallery[0]}.get(case, gallery)
    positions = place_positions((3, 3)) if case == "positions" else place_positions((10, 10))
    with pytest.raises(UsageError, match=r"needed|no turn"):
        score_candidates(query, vectors, positions)
