"""The geometry is timm's evaluation transform, on anything from noise to photos."""

import math
import os
from pathlib import Path

import numpy as np
import PIL
import pytest
from PIL import Image

from featx.errors import UsageError
from featx.images import CROP_MODES, INTERPOLATIONS, resize_and_crop

SHARED_DATA = Path(os.environ.get("FEATX_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
MEAN = (0.485, 0.456, 0.406)
FILL = tuple(round(255 * value) for value in MEAN)
PILLOW_CHOOSES_ORDER = int(PIL.__version__.split(".")[0]) >= 13

SIZES = [  # width, height
    (500, 375), (375, 500), (333, 500), (640, 427), (1024, 683), (683, 1024), (224, 224), (256, 256), (225, 223),
    (1200, 1201), (32, 32), (60, 45), (45, 60), (7, 5), (1, 1), (255, 256), (300, 168), (97, 101), (448, 448),
    (901, 450), (2000, 300), (1500, 40), (30, 9), (256, 341),
]  # fmt: skip
TALL_SIZES = [(300, 900), (40, 1500), (9, 30), (224, 2000)]  # Pillow before 13 orders its passes otherwise here


def make_picture(width, height, seed=0):
    """Noise on gradients: the noise shows every wrong filter weight, the gradients every shift."""
    random = np.random.default_rng(seed * 1_000_003 + width * 1009 + height)
    y, x = np.mgrid[:height, :width]
    gradients = np.stack([x / width, y / height, (x + y) / (width + height)], axis=-1) * 255
    noise = random.integers(0, 256, (height, width, 3))
    strength = random.uniform(0.1, 0.7)
    return Image.fromarray((gradients * (1 - strength) + noise * strength).astype(np.uint8))


def timm_pixels(picture, size, crop_pct, crop_mode, interpolation):
    from timm.data.transforms_factory import transforms_imagenet_eval

    transform = transforms_imagenet_eval(
        img_size=size, crop_pct=crop_pct, crop_mode=crop_mode, interpolation=interpolation, mean=MEAN, normalize=False
    )
    return transform(picture).permute(1, 2, 0).numpy()


def our_pixels(picture, size, crop_pct, crop_mode, interpolation):
    resize_size = tuple(math.floor(side / crop_pct) for side in size)
    return resize_and_crop(
        picture, size=size, resize_size=resize_size, crop_mode=crop_mode, interpolation=interpolation, fill=FILL
    )


def compare(pictures, size, crop_pct, crop_mode, interpolation):
    """Largest difference, identical fraction of all pixels, smallest identical fraction of one picture."""
    largest, fractions = 0, []
    for picture in pictures:
        expected = timm_pixels(picture, size, crop_pct, crop_mode, interpolation).astype(int)
        found = our_pixels(picture, size, crop_pct, crop_mode, interpolation)
        assert found.shape == expected.shape
        difference = np.abs(found - expected).max(axis=-1)
        largest = max(largest, int(difference.max()))
        fractions.append(float((difference == 0).mean()))
    return largest, float(np.mean(fractions)), min(fractions)


def assert_equal_to_timm(pictures, size, crop_pct, crop_mode, interpolation):
    largest, identical, worst = compare(pictures, size, crop_pct, crop_mode, interpolation)
    assert largest <= 1
    assert identical >= 0.9999
    assert worst >= 0.999


@pytest.mark.parametrize("crop_mode", CROP_MODES)
@pytest.mark.parametrize(("size", "crop_pct"), [((224, 224), 0.875), ((224, 224), 1.0), ((192, 256), 0.9)])
def test_generated_pictures_equal_timm(size, crop_pct, crop_mode):
    """In every crop mode, square or not, the bicubic pixels are timm's on noisy pictures of all shapes."""
    sizes = SIZES + (TALL_SIZES if PILLOW_CHOOSES_ORDER else [])
    if crop_mode == "border":  # timm itself fails where a side is rounded to 0
        sizes = [(width, height) for width, height in sizes if max(width, height) / min(width, height) < 100]
    assert_equal_to_timm([make_picture(*shape) for shape in sizes], size, crop_pct, crop_mode, "bicubic")


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_every_interpolation_equals_timm(interpolation):
    """All six interpolations follow timm."""
    pictures = [make_picture(width, height, seed=1) for width, height in SIZES[:20]]
    assert_equal_to_timm(pictures, (224, 224), 0.875, "center", interpolation)


@pytest.mark.parametrize("interpolation", ["nearest", "box"])
def test_filters_with_hard_edges_are_identical(interpolation):
    """Filters where the least rounding would take another pixel give timm's pixels without exception."""
    pictures = [make_picture(width, height, seed=2) for width, height in SIZES[:20]]
    assert compare(pictures, (160, 160), 0.9, "center", interpolation) == (0, 1.0, 1.0)


@pytest.mark.skipif(not PILLOW_CHOOSES_ORDER, reason="Pillow before 13 always resizes horizontally first")
def test_order_of_passes_on_both_sides_of_the_border():
    """The picture where Pillow changes the order of its passes, and the one before it, are both timm's."""
    for height in (200, 201):  # 200 - 100 is twice 150 - 100, 201 - 100 is more
        picture = make_picture(150, height)
        assert compare([picture], (100, 100), 1.0, "squash", "bicubic") == (0, 1.0, 1.0)


@pytest.mark.parametrize("crop_mode", CROP_MODES)
def test_photos_equal_timm(crop_mode):
    """On 120 and more photos of several sets the pixels are timm's."""
    folders = [SHARED_DATA / name for name in ("pets3_180", "caltech_10", "bccd_cells_600", "ucmerced_10")]
    if not all(folder.is_dir() for folder in folders):
        pytest.skip(f"no shared data in {SHARED_DATA}")
    files = [
        file
        for folder, n in zip(folders, (40, 40, 30, 20), strict=True)
        for file in sorted(folder.glob("*/*/*"))[:: max(1, len(list(folder.glob("*/*/*"))) // n)][:n]
    ]
    assert len(files) >= 120
    pictures = [Image.open(file).convert("RGB") for file in files]
    assert_equal_to_timm(pictures, (224, 224), 0.875, crop_mode, "bicubic")


def test_result_is_written_into_out():
    """`out` receives the pixels, is what comes back, and nothing of what it held before is left."""
    batch = np.full((2, 64, 48, 3), 77, dtype=np.uint8)
    options = {"size": (64, 48), "resize_size": (20, 20), "crop_mode": "center", "interpolation": "bicubic"}
    picture = make_picture(90, 50)
    returned = resize_and_crop(picture, out=batch[1], **options)
    assert np.shares_memory(returned, batch)
    assert np.array_equal(batch[1], resize_and_crop(picture, **options))
    assert (batch[0] == 77).all()
    assert (batch[1][:22] == 0).all()  # (64 - 20) // 2 rows of padding


def test_border_has_the_fill_colour_and_the_picture_is_whole():
    """In mode border a plain wide picture lies in the middle, above and below it the fill colour."""
    picture = Image.new("RGB", (200, 100), (10, 200, 30))
    pixels = resize_and_crop(picture, size=(64, 64), resize_size=(64, 64), crop_mode="border", fill=(1, 2, 3))
    assert (pixels[:16] == (1, 2, 3)).all()
    assert (pixels[16:48] == (10, 200, 30)).all()
    assert (pixels[48:] == (1, 2, 3)).all()


@pytest.mark.parametrize("crop_mode", CROP_MODES)
@pytest.mark.parametrize("shape", [(10_000, 1), (1, 10_000), (1, 1)])
def test_extreme_shapes_work(shape, crop_mode):
    """A picture one pixel thin and ten thousand long keeps its plain colour, without the memory a full resize takes."""
    pixels = resize_and_crop(
        Image.new("RGB", shape, (9, 8, 7)), size=(224, 224), resize_size=(256, 256), crop_mode=crop_mode, fill=(9, 8, 7)
    )
    assert (pixels == (9, 8, 7)).all()


def test_bad_arguments_say_what_is_allowed():
    """Unknown modes, interpolations, sizes and image modes are refused with the allowed ones."""
    picture = Image.new("RGB", (4, 4))
    sizes = {"size": (2, 2), "resize_size": (2, 2)}
    with pytest.raises(UsageError, match="center, squash, border"):
        resize_and_crop(picture, crop_mode="top", **sizes)
    with pytest.raises(UsageError, match="bicubic, bilinear"):
        resize_and_crop(picture, interpolation="cubic", **sizes)
    with pytest.raises(UsageError, match="at least 1"):
        resize_and_crop(picture, size=(0, 2), resize_size=(2, 2))
    with pytest.raises(UsageError, match="mode L; only RGB"):
        resize_and_crop(picture.convert("L"), **sizes)
