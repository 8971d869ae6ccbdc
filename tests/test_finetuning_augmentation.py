"""Random changes of pictures: none is the network's own transform, each does what it says, and a seed repeats it."""

from __future__ import annotations

import contextlib
import random

import numpy as np
import pytest
import torch
from PIL import Image

from featx.backbones import TransformSpec
from featx.finetuning.augmentation import mix, picture_steps
from featx.finetuning.randomness import seed_of, seeded
from featx.images import resize_and_crop

TRANSFORM = TransformSpec(size=(24, 24), resize_size=(28, 28))
EACH = ("flip", "vflip", "crop", "rotation", "colour", "noise")


def picture(width: int = 60, height: int = 44) -> Image.Image:
    """Return a picture that looks different from every side."""
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(noise)


def changed(augment, seed: int, shown: Image.Image | None = None, transform: TransformSpec = TRANSFORM) -> np.ndarray:
    """Return the pixels of a picture after the steps named, with the random numbers of a seed."""
    steps = picture_steps(transform, augment)
    with seeded(seed):
        return steps(shown or picture()).numpy()


def plain(shown: Image.Image | None = None, transform: TransformSpec = TRANSFORM) -> np.ndarray:
    """Return the pixels that the network's own transform gives."""
    return resize_and_crop(
        shown or picture(),
        size=transform.size,
        resize_size=transform.resize_size,
        crop_mode=transform.crop_mode,
        interpolation=transform.interpolation,
    )


@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
@pytest.mark.parametrize("size", [(60, 44), (44, 60), (20, 10)])
def test_no_augmentation_is_the_networks_own_transform(size, crop_mode):
    """Without steps, pixels are those of extraction, in every crop mode and for pictures of every shape."""
    transform = TransformSpec(size=(24, 24), resize_size=(28, 28), crop_mode=crop_mode, interpolation="bilinear")
    expected = resize_and_crop(
        picture(*size),
        size=(24, 24),
        resize_size=(28, 28),
        crop_mode=crop_mode,
        interpolation="bilinear",
        fill=transform.fill,
    )
    pixels = changed((), 0, picture(*size), transform)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, expected)


@pytest.mark.parametrize("name", EACH)
def test_each_step_changes_pixels_and_a_seed_repeats_it(name):
    """Equal seeds give equal pixels; among some seeds there are different ones, and ones unlike the plain picture."""
    results = [changed((name,), seed) for seed in range(8)]
    for seed, pixels in enumerate(results):
        assert (pixels.shape, pixels.dtype) == ((24, 24, 3), np.uint8)
        np.testing.assert_array_equal(changed((name,), seed), pixels)
    assert any((pixels != plain()).any() for pixels in results)
    assert any((pixels != results[0]).any() for pixels in results)


@pytest.mark.parametrize(("name", "axis"), [("flip", 1), ("vflip", 0)])
def test_flips_mirror_about_half_of_the_pictures(name, axis):
    """A picture is its mirror image or itself, both about equally often."""
    is_mirrored = []
    for seed in range(40):
        pixels = changed((name,), seed)
        is_mirrored.append((pixels == np.flip(plain(), axis)).all())
        assert is_mirrored[-1] or (pixels == plain()).all()
    assert 10 <= sum(is_mirrored) <= 30


def test_a_crop_shows_a_part_of_at_least_half_of_the_picture():
    """A picture that gets brighter from left to right stays so, over a range of at least three eighths of it."""
    ramp = np.broadcast_to(np.linspace(0, 255, 96).astype(np.uint8)[None, :, None], (96, 96, 3))
    for seed in range(20):
        shown = changed(("crop",), seed, Image.fromarray(np.ascontiguousarray(ramp)))[:, :, 0].astype(int)
        assert (np.ptp(shown, axis=0) <= 1).all()
        assert shown[0, -1] - shown[0, 0] > 255 * 3 / 8


def test_a_rotation_fills_its_corners_with_the_mean_colour():
    """What comes from outside of the picture is what normalisation makes 0, and the middle stays where it is."""
    white = Image.new("RGB", (60, 60), (255, 255, 255))
    corners = [changed(("rotation",), seed, white)[[0, 0, -1, -1], [0, -1, 0, -1]] for seed in range(8)]
    assert any(np.abs(corner.astype(int) - TRANSFORM.fill).max() <= 1 for four in corners for corner in four)
    assert (changed(("rotation",), 3, white)[8:16, 8:16] == 255).all()


def test_noise_is_small():
    """Deviations are those of noise with 5 % of the range, about 13 of 255 levels."""
    grey = Image.new("RGB", (60, 60), (128, 128, 128))
    deviations = changed(("noise",), 0, grey).astype(int) - 128
    assert 11 < deviations.std() < 15
    assert abs(deviations.mean()) < 2


def test_steps_come_in_one_order():
    """The order in which steps are named does not matter."""
    np.testing.assert_array_equal(changed(EACH, 5), changed(EACH[::-1], 5))


def test_blends_have_the_targets_of_what_they_show():
    """The target of each row is the share of each of the two images in it; with distinct classes both can be read."""
    inputs = torch.rand(6, 4, 4, 3, generator=torch.Generator().manual_seed(0)) * 255
    shares = []
    for seed in range(30):
        with seeded(seed):
            mixed, targets = mix(inputs, torch.arange(6), 6, 0.0)
        np.testing.assert_allclose(targets.sum(1), 1, rtol=1e-6)
        expected = torch.einsum("ij,jhwc->ihwc", targets, inputs)
        np.testing.assert_allclose(mixed, expected, atol=1e-3)
        shares.append(float(targets.max()))
    assert min(shares) < 0.9  # some blends are real ones
    assert max(shares) > 0.99


def test_label_smoothing_spreads_a_share_over_all_classes():
    """With smoothing every class has at least an equal part of that share, and targets still sum to 1."""
    with seeded(0):
        _, targets = mix(torch.rand(4, 5), torch.tensor([0, 1, 0, 1]), 8, 0.4)
    np.testing.assert_allclose(targets.sum(1), 1, rtol=1e-6)
    np.testing.assert_allclose(targets[:, 2:], 0.4 / 8, rtol=1e-6)


@pytest.mark.parametrize("n_images", [1, 3, 5])
def test_the_last_of_an_odd_number_stays_as_it_is(n_images):
    """It keeps its pixels and a target of its own class alone, smoothed as the others are."""
    pixels = torch.randint(0, 256, (n_images, 4, 4, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with seeded(1):
        mixed, targets = mix(pixels, torch.arange(n_images) % 4, 4, 0.2)
    assert mixed.shape == pixels.shape
    np.testing.assert_array_equal(mixed[-1], pixels[-1])
    expected = np.full(4, 0.05)
    expected[(n_images - 1) % 4] += 0.8
    np.testing.assert_allclose(targets[-1], expected, rtol=1e-6)
    np.testing.assert_allclose(targets.sum(1), 1, rtol=1e-6)


def test_seeds_depend_on_every_number_and_their_order():
    """No two pictures or steps of a training have the same seed."""
    keys = [(a, b, c) for a in range(4) for b in range(1, 5) for c in range(6)]  # of pictures
    keys += [(*key, 1) for key in keys]  # of steps
    assert len({seed_of(*key) for key in keys}) == len(keys)
    assert seed_of(1, 2, 3) == seed_of(1, 2, 3) < 2**32


def test_the_generators_of_the_process_are_given_back_after_an_error():
    """Whatever happens inside, Python's, NumPy's and torch's generators go on where they were."""

    def drawn() -> tuple[float, float, float]:
        return random.random(), np.random.random(), float(torch.rand(1))  # noqa: NPY002 - the one that is given back

    random.seed(1)
    np.random.seed(1)  # noqa: NPY002 - as above
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        expected = [drawn(), drawn()]
        random.seed(1)
        np.random.seed(1)  # noqa: NPY002 - as above
        torch.manual_seed(1)
        first = drawn()
        with contextlib.suppress(ZeroDivisionError), seeded(7, 8):
            inside = drawn()
            raise ZeroDivisionError
        assert [first, drawn()] == expected
    with seeded(7, 8):
        assert drawn() == inside
