"""Views of a picture: torchvision's crops, exact mirror images, and places that can be computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from featx.errors import UsageError
from featx.images import (
    CROP_MODES,
    INTERPOLATIONS,
    VIEWS,
    VIEWS_IN_WORDS,
    View,
    resize_and_crop,
    view_box,
    view_pixels,
    views_of,
)

SIZES = [(500, 375), (375, 500), (256, 256), (1024, 683), (300, 900), (60, 45), (97, 301)]
GEOMETRY = {"size": (224, 224), "resize_size": (256, 256)}
FILL = (124, 116, 104)


def noisy(width, height):
    """Return noise on gradients: the noise shows wrong filter weights, the gradients shifts."""
    random = np.random.default_rng(width * 1009 + height)
    y, x = np.mgrid[:height, :width]
    gradients = np.stack([x / width, y / height, (x + y) / (width + height)], axis=-1) * 255
    return Image.fromarray((0.6 * gradients + 0.4 * random.integers(0, 256, (height, width, 3))).astype(np.uint8))


def ramp(width=256, height=256):
    """Return a picture whose red is the column and whose green is the row, in 256ths of a side."""
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([x * 256 // width, y * 256 // height, 0 * x], axis=-1).astype(np.uint8))


def shown(pixels):
    """Return the first and last column, and the first and last row, that a view of the ramp shows in its middle."""
    height, width, _ = pixels.shape
    return [
        int(value)
        for value in (
            pixels[height // 2, 3, 0],
            pixels[height // 2, -4, 0],
            pixels[3, width // 2, 1],
            pixels[-4, width // 2, 1],
        )
    ]


def expected(left, right, top, bottom, n=224):
    """Return what `shown` finds in a view of n x n pixels over these edges, the fourth pixel from each."""

    def at(low, high, place):
        return low + (place + 0.5) * (high - low) / n - 0.5

    return [at(left, right, 3), at(left, right, n - 4), at(top, bottom, 3), at(top, bottom, n - 4)]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_crops_are_those_of_torchvision(size):
    """Ten crops, on pictures of all shapes, are torchvision's ten_crop of the resized picture, its centre exactly."""
    from torchvision.transforms import InterpolationMode, functional

    picture = noisy(*size)
    resized = functional.resize(picture, 256, InterpolationMode.BICUBIC)
    # torchvision's order: top left, top right, bottom left, bottom right, centre; then the mirrored picture's.
    corners = [np.asarray(crop).astype(int) for crop in functional.five_crop(resized, [224, 224])[:4]]
    mirrored = [np.asarray(crop)[:, ::-1] for crop in functional.ten_crop(resized, [224, 224])[:4]]
    pixels = view_pixels(picture, views_of(10), **GEOMETRY)
    for found, wanted, flipped, wanted_flipped in zip(pixels[1:5], corners, pixels[6:10], mirrored, strict=True):
        difference = np.abs(found - wanted)
        assert (difference <= 2).mean() >= 0.999
        assert difference.mean() <= 0.05
        np.testing.assert_array_equal(wanted_flipped[:, ::-1], wanted)
        np.testing.assert_array_equal(flipped, found[:, ::-1])


@pytest.mark.parametrize("crop_mode", CROP_MODES)
@pytest.mark.parametrize("resize_size", [(256, 256), (224, 224)])
def test_the_first_view_is_the_networks_own(crop_mode, resize_size):
    """In every set and crop mode the first view has the pixels of `resize_and_crop`, and its mirror image is exact."""
    geometry = {"size": (224, 224), "resize_size": resize_size, "crop_mode": crop_mode, "fill": FILL}
    for size in SIZES[:3]:
        picture = noisy(*size)
        own = resize_and_crop(picture, **geometry)
        for number, views in VIEWS.items():
            pixels = view_pixels(picture, views, **geometry)
            assert pixels.shape == (number, 224, 224, 3)
            np.testing.assert_array_equal(pixels[0], own)
            for mirrored, view in enumerate(views):
                if view.mirrored:
                    upright = views.index(View(view.span, view.place))
                    np.testing.assert_array_equal(pixels[mirrored], pixels[upright][:, ::-1])


def test_the_sets_are_what_their_words_say():
    """Each number has that many different views, an even one with mirror images, and a text for messages."""
    assert list(VIEWS) == list(VIEWS_IN_WORDS) == [1, 2, 3, 5, 6, 10]
    for number, views in VIEWS.items():
        assert len(set(views)) == len(views) == number
        assert views[0] == View()
        assert sum(view.mirrored for view in views) == (number // 2 if number % 2 == 0 else 0)
        assert views_of(number) is views


@pytest.mark.parametrize("number", [0, 4, -1, 100])
def test_other_numbers_list_what_there_is(number):
    """A number without a set is an error that lists the sets in words."""
    with pytest.raises(UsageError, match=rf"{number} views .* use 1 \(the network's own view\); 2 \(flip.*10 \(crops"):
        views_of(number)


@pytest.mark.parametrize("crop_mode", ["center", "squash"])
def test_scales_show_what_can_be_computed_by_hand(crop_mode):
    """The network sees 16 to 240 of 256; closer is 0.875 of that around the same middle, wider goes to the edges."""
    pixels = view_pixels(ramp(), views_of(3), **GEOMETRY, crop_mode=crop_mode)
    edges = [(16, 240, 16, 240), (30, 226, 30, 226), (0, 256, 0, 256)]
    for view, found in zip(edges, pixels, strict=True):
        assert shown(found) == pytest.approx(expected(*view), abs=1)


def test_wider_goes_as_far_as_the_picture():
    """On a picture twice as wide as high, wider is wider than the network's view by 1/0.875 along both sides."""
    own, _, wider = view_pixels(ramp(512, 256), views_of(3), **GEOMETRY)
    # 512 columns are 256 steps of red: the network sees columns 144 to 368, wider is 128 to 384.
    assert shown(own) == pytest.approx(expected(72, 184, 16, 240), abs=1)
    assert shown(wider) == pytest.approx(expected(64, 192, 0, 256), abs=1)


def test_corners_of_a_network_that_crops_nothing_off():
    """Where the corners would be the centre, they are crops of 0.875 of its side, at the corners."""
    pixels = view_pixels(ramp(), views_of(5), size=(224, 224), resize_size=(224, 224))
    edges = [(0, 256, 0, 256), (0, 224, 0, 224), (32, 256, 0, 224), (0, 224, 32, 256), (32, 256, 32, 256)]
    for view, found in zip(edges, pixels, strict=True):
        assert shown(found) == pytest.approx(expected(*view), abs=1)


def test_views_with_a_border_keep_it():
    """In mode border the canvas is the padded picture: views move over it, and the border has its colour."""
    picture = Image.new("RGB", (200, 100), (10, 200, 30))
    geometry = {"size": (64, 64), "resize_size": (64, 64), "crop_mode": "border", "fill": FILL}
    own, closer, wider = view_pixels(picture, views_of(3), **geometry)
    # Closer, of the 56 rows 4 to 60, the picture's 16 to 48 become 13.7 to 50.3.
    for pixels, n_rows in ((own, 32), (closer, 50 - 14), (wider, 32)):
        inside = (pixels == (10, 200, 30)).all(axis=-1)
        assert inside.sum() == n_rows * 64
        assert (pixels[~inside] == FILL).all()
    _, top_left, _, bottom_left, _ = view_pixels(picture, views_of(5), **geometry)
    # Of 64 rows, 16 to 48 are picture; a corner shows 56 of them as 64.
    for pixels, first in ((top_left, 16), (bottom_left, 8)):
        rows = np.flatnonzero((pixels[:, 0] == (10, 200, 30)).all(axis=-1))
        assert [rows[0], rows[-1] + 1] == pytest.approx([first * 64 / 56, (first + 32) * 64 / 56], abs=0.51)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("crop_mode", CROP_MODES)
def test_any_picture_gives_views_of_its_own_colour(crop_mode, interpolation):
    """From one pixel to thousands in a line, every view of a plain picture is of its colour, and border."""
    for size in ((1, 1), (1, 300), (2000, 3), (7, 5), (224, 224), (225, 223)):
        picture = Image.new("RGB", size, (90, 91, 92))
        for resize_size in ((24, 40), (28, 46)):
            pixels = view_pixels(
                picture,
                (*views_of(6), *views_of(10)),
                size=(24, 40),
                resize_size=resize_size,
                crop_mode=crop_mode,
                interpolation=interpolation,
                fill=(90, 91, 92),
            )
            assert pixels.shape == (16, 24, 40, 3)
            assert (pixels == (90, 91, 92)).all()


def test_views_need_what_the_network_needs():
    """Another mode or an unknown crop mode is the error of `resize_and_crop`, also for views other than its own."""
    closer = (View(span=0.5),)
    with pytest.raises(UsageError, match="only RGB"):
        view_pixels(Image.new("L", (9, 9)), closer, **GEOMETRY)
    with pytest.raises(UsageError, match="crop_mode 'round' is unknown"):
        view_pixels(Image.new("RGB", (9, 9)), closer, **GEOMETRY, crop_mode="round")


PLACES = [(down, across) for down in (0.0, 0.5, 1.0) for across in (0.0, 0.5, 1.0)]
SHOWN = {
    "own": View(),
    "wider": View(span=1 / 0.875),
    "whole": View(span=8.0),
    "a corner": View(place=(0, 1)),
    **{f"closer at {place}": View(span=0.6, place=place) for place in PLACES},
}
N_CELLS = 8


def coordinates(width, height):
    """Return a picture whose red is the column and whose green is the row of each pixel, and whose blue is full."""
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([x, y, 0 * x + 255], axis=-1).astype(np.uint8))


def cells_of(pixels):
    """Return the mean colour of each of 8 x 8 cells of a view, and which cells are picture throughout."""
    height, width, _ = pixels.shape
    cells = pixels.astype(float).reshape(N_CELLS, height // N_CELLS, N_CELLS, width // N_CELLS, 3)
    return cells.mean((1, 3)), cells[..., 2].min((1, 3)) > 250


@pytest.mark.parametrize("crop_mode", CROP_MODES)
@pytest.mark.parametrize("resize_size", [(72, 72), (64, 64)], ids=str)
@pytest.mark.parametrize("size", [(250, 170), (170, 250), (240, 240), (255, 60)], ids=str)
def test_a_box_is_what_the_view_shows(size, resize_size, crop_mode):
    """On a picture of its own coordinates, each cell of a view shows what its place in the box says, to a pixel."""
    picture, geometry = coordinates(*size), {"size": (64, 64), "resize_size": resize_size, "crop_mode": crop_mode}
    middles = (np.arange(N_CELLS) + 0.5) / N_CELLS
    for name, view in SHOWN.items():
        (pixels,) = view_pixels(picture, [view], **geometry)
        left, top, right, bottom = view_box(view, size, **geometry)
        found, inside = cells_of(pixels)
        across, down = (left + (right - left) * middles) * size[0], (top + (bottom - top) * middles) * size[1]
        # A view's pixel is wider than the picture's where it is shrunk; the middle of column 0 is at 0.5.
        for colour, wanted in ((0, across[None, :]), (1, down[:, None])):
            apart = np.abs(found[..., colour] + 0.5 - wanted)[inside]
            assert apart.max(initial=0) < 1, (name, apart.max())
        # What the box says is outside is border, and nothing else is.
        outside = ((across < 0) | (across > size[0]))[None, :] | ((down < 0) | (down > size[1]))[:, None]
        assert not (outside & inside).any(), name
        if crop_mode != "border":
            assert inside.all(), name
            assert min(left, top) >= -1e-6
            assert max(right, bottom) <= 1 + 1e-6


@pytest.mark.parametrize("size", [(250, 170), (170, 250), (240, 240), (1, 300)], ids=str)
def test_a_view_wider_than_the_picture_is_all_of_it(size):
    """The box of a very wide view is the whole picture, whatever its shape, in every crop mode."""
    for crop_mode in ("center", "squash"):
        box = view_box(View(span=400.0), size, size=(64, 64), resize_size=(72, 72), crop_mode=crop_mode)
        assert box == pytest.approx((0, 0, 1, 1), abs=1e-9)


def test_a_box_by_hand():
    """Of 256 x 256 the network takes 16 to 240; closer views lie at the edges; turning and mirroring keep the box."""
    geometry = {"size": (224, 224), "resize_size": (256, 256)}
    assert view_box(View(), (256, 256), **geometry) == pytest.approx((1 / 16, 1 / 16, 15 / 16, 15 / 16))
    assert view_box(View(span=0.5, place=(0, 1)), (256, 256), **geometry) == pytest.approx((9 / 16, 0, 1, 7 / 16))
    # 512 x 256: the middle 224 of 512 columns.
    own = view_box(View(), (512, 256), **geometry)
    assert own == pytest.approx((144 / 512, 1 / 16, 368 / 512, 15 / 16))
    assert view_box(View(mirrored=True, quarter_turns=1), (512, 256), **geometry) == own


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_turned_views_are_turned_pixels(turns, mirrored):
    """A view with quarter turns has the pixels of the view without, turned counter-clockwise, after any mirroring."""
    picture = noisy(200, 150)
    for view in SHOWN.values():
        upright = View(view.span, view.place, mirrored)
        turned = View(view.span, view.place, mirrored, turns)
        found, wanted = view_pixels(picture, [turned, upright], size=(64, 64), resize_size=(72, 72))
        np.testing.assert_array_equal(found, np.rot90(wanted, turns))


@pytest.mark.parametrize("size", [(200, 150), (144, 288), (160, 160)], ids=str)
def test_turned_views_are_views_of_the_turned_picture(size):
    """A turned view is the view of the turned picture: in the middle the same one, at an edge that which went there."""
    picture, geometry = noisy(*size), {"size": (64, 64), "resize_size": (72, 72)}
    place_after = {0: lambda d, a: (d, a), 1: lambda d, a: (1 - a, d), 2: lambda d, a: (1 - d, 1 - a)}
    place_after[3] = lambda d, a: (a, 1 - d)
    for turns, moved in place_after.items():
        turned_picture = picture.rotate(90 * turns, expand=True)
        for span in (1.0, 0.6, 8.0):
            views = [View(span, place, quarter_turns=turns) for place in PLACES]
            after = [View(span, moved(*place)) for place in PLACES]
            found = view_pixels(picture, views, **geometry).astype(int)
            wanted = view_pixels(turned_picture, after, **geometry).astype(int)
            difference = np.abs(found - wanted)
            assert difference.max() <= 5  # rows before columns, or after: roundings differ
            assert difference.mean() < 0.3
