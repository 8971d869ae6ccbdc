"""The perceptual hash is near for copies, far for different pictures."""

import io

import numpy as np
import pytest
import scipy.fft
from PIL import Image

from featx.images import perceptual_hash


def make_picture(seed, width=500, height=375):
    """A smooth random picture with some noise on it, as photos have."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    return Image.fromarray(np.clip(smooth + random.integers(-15, 16, smooth.shape), 0, 255).astype(np.uint8))


def distance(first, second):
    """Number of differing bits."""
    return (int.from_bytes(first, "big") ^ int.from_bytes(second, "big")).bit_count()


def jpeg(picture, quality):
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return Image.open(io.BytesIO(buffer.getvalue())).convert("RGB")


def test_bits_are_those_of_the_definition():
    """On a picture that needs no resizing, the bits are those of SciPy's two-dimensional DCT above the median."""
    picture = make_picture(0, 32, 32)
    block = scipy.fft.dctn(np.asarray(picture.convert("L"), dtype=float))[1:9, 1:9]
    expected = "".join("1" if value > np.median(block) else "0" for value in block.ravel())
    assert perceptual_hash(picture) == int(expected, 2).to_bytes(8, "big")


@pytest.mark.parametrize("seed", range(8))
def test_copies_stay_near(seed):
    """Compressing, shrinking and enlarging a picture change few bits."""
    picture = make_picture(seed)
    original = perceptual_hash(picture)
    assert len(original) == 8
    assert distance(original, perceptual_hash(jpeg(picture, 40))) <= 4
    assert distance(original, perceptual_hash(picture.resize((200, 150)))) <= 6
    assert distance(original, perceptual_hash(picture.resize((900, 675)))) <= 6


def test_different_pictures_are_far():
    """Unrelated pictures differ in about half of the bits."""
    hashes = [perceptual_hash(make_picture(seed)) for seed in range(12)]
    distances = [distance(first, second) for i, first in enumerate(hashes) for second in hashes[:i]]
    assert min(distances) >= 12
    assert 28 <= np.mean(distances) <= 36


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (17, 99, 200)])
def test_plain_pictures_hash_to_zero(colour):
    """A picture without structure has the hash 0, not bits made of rounding errors."""
    assert perceptual_hash(Image.new("RGB", (123, 45), colour)) == bytes(8)
