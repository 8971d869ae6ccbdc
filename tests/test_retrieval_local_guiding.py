"""Matches are found again where an alignment says, and nothing is gained from what is alike everywhere."""

from __future__ import annotations

import numpy as np
import pytest

from featx.retrieval.local.guiding import GuidedMatching
from featx.retrieval.local.places import LocalPlaces, place_positions

HALF = np.array([[0.5, 0, 0.25], [0, 0.5, 0.25]], np.float32)  # small, in the middle


def unit(vectors):
    """Return float32 vectors of length 1."""
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def moved(across, down):
    """Return `HALF`, shifted."""
    return HALF + np.array([[0, 0, across], [0, 0, down]])


@pytest.fixture
def picture():
    """Vectors of a picture of 8×8 places that are all different."""
    return unit(np.random.default_rng(0).normal(size=(64, 32)))


@pytest.fixture
def photo(picture):
    """The places of a photo of 16×16 that shows the picture in its middle, and other things around."""
    vectors = unit(np.random.default_rng(1).normal(size=(16, 16, 32)))
    vectors[4:12, 4:12] = picture.reshape(8, 8, 32)
    return LocalPlaces(vectors.reshape(256, 32), place_positions((16, 16)))


def test_found_where_it_should_be(picture, photo):
    """At the right place the similarity is that of equal places less chance; at a wrong one next to nothing."""
    matching = GuidedMatching(photo, np.zeros(32, np.float32), 0.06)
    right = matching.similarity(picture, place_positions((8, 8)), HALF)
    wrong = matching.similarity(picture, place_positions((8, 8)), moved(-0.2, -0.2))
    assert right > 0.6
    assert wrong < 0.1


def test_a_little_off_is_mended(picture, photo):
    """An alignment that is off by half the tolerance is refined, and counts nearly as much as the right one."""
    matching = GuidedMatching(photo, np.zeros(32, np.float32), 0.08)
    right = matching.similarity(picture, place_positions((8, 8)), HALF)
    off = matching.similarity(picture, place_positions((8, 8)), moved(0.04, 0))
    assert off > 0.9 * right


def test_what_is_alike_everywhere_gains_nothing(picture):
    """A photo that shows one of the picture's places all over is as similar a little off: chance takes it off."""
    everywhere = LocalPlaces(np.repeat(picture[:1], 256, axis=0), place_positions((16, 16)))
    # 2.5 tolerances are two cells of the photo's map
    same = np.repeat(picture[:1], 64, axis=0)
    matching = GuidedMatching(everywhere, np.zeros(32, np.float32), 0.05)
    assert matching.similarity(same, place_positions((8, 8)), HALF) < 0.05


def test_expected_similarity_is_taken_off(picture, photo):
    """With the candidate's own direction as the average one, less is left."""
    plain = GuidedMatching(photo, np.zeros(32, np.float32), 0.06)
    average = GuidedMatching(photo, picture.mean(axis=0) * 3, 0.06)
    positions = place_positions((8, 8))
    assert average.similarity(picture, positions, HALF) < plain.similarity(picture, positions, HALF)


def test_off_the_photo_is_nothing(picture, photo):
    """Where there is no place of the photo nothing is found, without a warning; one place alone is enough."""
    matching = GuidedMatching(photo, np.zeros(32, np.float32), 0.06)
    assert matching.similarity(picture, place_positions((8, 8)), moved(5, 5)) == 0
    one = GuidedMatching(LocalPlaces(picture[:1], place_positions((1, 1))), np.zeros(32, np.float32), 0.06)
    assert one.similarity(picture, place_positions((8, 8)), HALF) >= 0
