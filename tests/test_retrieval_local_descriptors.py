"""Places of maps become whitened vectors, bytes and back."""

from __future__ import annotations

import json

import numpy as np
import pytest

from featx.errors import StoreError, UsageError
from featx.retrieval.local.descriptors import LocalEncoder, fit_local_encoder


@pytest.fixture
def maps():
    """Forty maps of 4×5 places with 6 channels that vary together and unequally, far from zero."""
    random = np.random.default_rng(0)
    mixing = random.normal(size=(6, 6)) * [10, 5, 2, 1, 0.5, 0.1]
    return (random.normal(size=(40, 4, 5, 6)) @ mixing + 100).astype(np.float32)


def test_places_are_white(maps):
    """Before they get length 1, the gallery's places have mean 0 and the unit covariance."""
    encoder = fit_local_encoder([maps[:7], maps[7:]], n_components=6)
    white = (maps.reshape(-1, 6).astype(np.float64) - encoder.mean) @ encoder.projection
    np.testing.assert_allclose(white.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(np.cov(white.T), np.eye(6), atol=1e-3)


def test_same_as_by_hand(maps):
    """Vectors are those of the covariance's eigenvectors, up to sign, after part of the own mean is taken off."""
    vectors = fit_local_encoder([maps], n_components=3, own_mean=0.25).describe(maps)
    places = maps.reshape(40, 20, 6).astype(np.float64)
    places -= places.mean(axis=(0, 1))
    variances, axes = np.linalg.eigh(np.cov(places.reshape(-1, 6).T))
    places -= 0.25 * places.mean(axis=1, keepdims=True)
    expected = places @ (axes[:, :2:-1] / np.sqrt(variances[:2:-1]))
    expected /= np.linalg.norm(expected, axis=2, keepdims=True)
    np.testing.assert_allclose(np.abs(vectors), np.abs(expected), atol=1e-3)


def test_own_mean_undoes_a_cast(maps):
    """With the whole own mean taken off, what is added to all places of a picture changes nothing."""
    encoder = fit_local_encoder([maps], n_components=6, own_mean=1.0)
    cast = np.array([3, -2, 8, 1, 0, 5], np.float32)
    np.testing.assert_allclose(encoder.describe(maps[:3] + cast), encoder.describe(maps[:3]), atol=1e-3)


def test_blocks_do_not_matter(maps):
    """An iterator of blocks of any size, and float16, give the same encoder as one array."""
    halves = maps.astype(np.float16)
    whole = fit_local_encoder([halves.astype(np.float32)], n_components=4)
    split = fit_local_encoder((halves[start : start + 3] for start in range(0, 40, 3)), n_components=4)
    np.testing.assert_allclose(split.mean, whole.mean, rtol=1e-6)
    np.testing.assert_allclose(split.projection, whole.projection, rtol=1e-4, atol=1e-6)


def test_reads_no_more_than_needed(maps):
    """Once there are enough places no further block is asked for."""
    asked = []

    def blocks():
        for start in range(0, 40, 10):
            asked.append(start)
            yield maps[start : start + 10]

    fit_local_encoder(blocks(), most_places=300)
    assert asked == [0, 10]


def test_bytes_are_close(maps):
    """Bytes come back within half a step in each number, and dot products within a hundredth."""
    encoder = fit_local_encoder([maps], n_components=5)
    vectors, codes = encoder.describe(maps), encoder.encode(maps)
    assert codes.dtype == np.uint8
    assert codes.shape == (40, 20, 5)
    decoded = encoder.decode(codes)
    assert np.abs(decoded - vectors).max() <= 1 / 254 + 1e-6
    np.testing.assert_allclose(decoded[0] @ decoded[1].T, vectors[0] @ vectors[1].T, atol=0.012)


@pytest.mark.parametrize("n_components", [5, 6])
def test_half_bytes_are_near(maps, n_components):
    """With 4 bits two numbers share a byte; each comes back within half a step, or at the end of what 7 steps reach."""
    encoder = fit_local_encoder([maps], n_components=n_components, bits=4)
    codes = encoder.encode(maps)
    assert codes.shape == (40, 20, 3) == (40, 20, encoder.n_bytes)
    reached = np.clip(encoder.describe(maps), -7 * encoder.step, 7 * encoder.step)
    assert np.abs(encoder.decode(codes) - reached).max() <= encoder.step / 2 + 1e-6
    np.testing.assert_array_equal(encoder.decode(codes[3, 4]), encoder.decode(codes)[3, 4])


@pytest.mark.parametrize("bits", [4, 8])
def test_nothing_special_is_zero(maps, bits):
    """A place that is exactly the mean has no direction: zero, and zero again from its bytes."""
    encoder = fit_local_encoder([maps], n_components=5, own_mean=0.0, bits=bits)
    nothing = np.broadcast_to(encoder.mean, (1, 2, 6))
    assert not encoder.describe(nothing).any()
    assert not encoder.decode(encoder.encode(nothing)).any()


def test_directions_without_variation_are_left_out(maps):
    """A channel that is the sum of two others adds no direction, however many are wanted."""
    maps[..., 5] = maps[..., 0] + maps[..., 1]
    assert fit_local_encoder([maps], n_components=99).n_components == 5


def test_parts_come_back(maps):
    """JSON and arrays give an encoder with the same codes."""
    encoder = fit_local_encoder([maps], n_components=5, own_mean=0.3, bits=4)
    values, arrays = encoder.to_parts()
    again = LocalEncoder.from_parts(json.loads(json.dumps(values)), arrays)
    np.testing.assert_array_equal(again.encode(maps), encoder.encode(maps))


@pytest.mark.parametrize(
    ("values", "change"),
    [
        ({}, {}),
        ({"own_mean": "much", "bits": 8}, {}),
        ({"own_mean": 2, "bits": 8}, {}),
        ({"own_mean": 0.5, "bits": 5}, {}),
        ({"own_mean": 0.5, "bits": 8}, {"mean": np.zeros(3)}),
        ({"own_mean": 0.5, "bits": 8}, {"mean": np.full(6, np.nan)}),
        ({"own_mean": 0.5, "bits": 8}, {"projection": np.zeros(6)}),
        ({"own_mean": 0.5, "bits": 8}, {"projection": np.zeros((6, 0))}),
    ],
)
def test_damaged_parts_are_refused(maps, values, change):
    """What does not fit together is no encoder."""
    _, arrays = fit_local_encoder([maps]).to_parts()
    with pytest.raises(StoreError, match="Build the index again"):
        LocalEncoder.from_parts(values, {**arrays, **change})


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        ([], {}, "no maps were given"),
        ([np.zeros((2, 3))], {}, "Channels come last"),
        ([np.zeros((2, 3, 4)), np.zeros((2, 3, 5))], {}, "needed is .n, places, 4."),
        ([np.full((1, 2, 3), np.nan)], {}, "NaN"),
        ([np.ones((2, 3, 4))], {}, "all places of the maps are the same"),
        ([np.ones((2, 3, 4))], {"n_components": 0}, "at least 1"),
        ([np.ones((2, 3, 4))], {"own_mean": 1.5}, "a share"),
        ([np.ones((2, 3, 4))], {"bits": 1}, "8 or 4"),
    ],
)
def test_nonsense_is_refused(given, options, message):
    """Nothing to learn from, shapes that do not fit, and numbers out of range are errors that say so."""
    with pytest.raises(UsageError, match=message):
        fit_local_encoder(given, **options)


def test_maps_that_do_not_fit_are_refused(maps):
    """Other channels, and values that are not finite, are not described."""
    encoder = fit_local_encoder([maps])
    with pytest.raises(UsageError, match="needed is"):
        encoder.describe(maps[..., :3])
    maps[0, 0, 0, 0] = np.inf
    with np.errstate(invalid="ignore"), pytest.raises(UsageError, match="infinity"):
        encoder.encode(maps)
