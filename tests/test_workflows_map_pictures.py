"""Activation maps as a picture: which maps, in which order, in which colours, at which places."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from fake_backbone import fake_maps, fake_pixels
from matplotlib import colormaps
from PIL import Image

from featx.errors import ImageError, UsageError, WouldOverwriteError
from featx.extraction import ComputeOptions, FeatureComputer, select_maps
from featx.images import ImageEntry
from featx.workflows.map_pictures import (
    ShownMaps,
    channels_by_spread,
    check_picture_name,
    scaled_map,
    write_map_picture,
)

TILE = 112
ALL = ("stages.0", "stages.1", "stages.2", "stages.3", "stages.4")


@pytest.fixture
def pixels():
    """The picture as the fake network sees it: eight by eight pixels, the green ones all the same."""
    drawn = fake_pixels(1)[0]
    drawn[:, :, 1] = 77
    return drawn


@pytest.fixture
def image(pixels, tmp_path):
    """That picture as a file."""
    path = tmp_path / "one.png"
    Image.fromarray(pixels).save(path)
    return ImageEntry("somewhere/one.png", location=str(path))


@pytest.fixture
def computer_of(fake_backbone):
    """Return a computer of the maps of some layers of the fake network."""

    def make(*layers):
        options = ComputeOptions(engine="torch", device="cpu", batch_size=1)
        return FeatureComputer(fake_backbone, select_maps(fake_backbone, list(layers)).taps, options)

    return make


def tile_of(values):
    """The tile of one channel, drawn without the code under test: places as squares, in the colours of viridis."""
    low, high = np.percentile(values, (0.5, 99.5))
    scaled = np.clip((values - low) / (high - low), 0, 1)
    colours = np.round(255 * colormaps["viridis"](np.round(255 * scaled).astype(int))[..., :3]).astype(np.uint8)
    side = TILE // len(values)
    return np.repeat(np.repeat(colours, side, 0), side, 1)


def places_of(tile, canvas):
    """Top and left of each copy of a tile in a picture."""
    height, width = tile.shape[:2]
    starts = np.argwhere((canvas[: -height + 1, : -width + 1] == tile[0, 0]).all(-1))
    return [(top, left) for top, left in starts if (canvas[top : top + height, left : left + width] == tile).all()]


def test_each_map_is_where_it_belongs(computer_of, image, pixels, tmp_path):
    """The input leads each block; maps follow by their spread, in their own range; blocks follow the network."""
    out = tmp_path / "maps.png"
    shown = write_map_picture(out, image, computer_of("stages.1", "stages.0"))
    assert [maps.layer for maps in shown] == ["stages.0", "stages.1"]
    canvas = np.asarray(Image.open(out))
    enlarged = np.asarray(Image.fromarray(pixels).resize((TILE, TILE), Image.Resampling.LANCZOS))
    inputs = places_of(enlarged, canvas)
    assert len(inputs) == 2
    for maps, values, (top, left) in zip(shown, fake_maps(pixels[None]).values(), inputs, strict=False):
        spread = values[0].std((0, 1))
        assert list(maps.channels) == sorted(range(4), key=lambda channel: -spread[channel])
        assert maps.channels[-1] == 2  # green is the same everywhere
        for place, channel in enumerate(maps.channels[:-1], start=1):
            assert places_of(tile_of(values[0, :, :, channel]), canvas) == [(top, left + place * (TILE + 6))]
        flat = canvas[top : top + TILE, left + 4 * (TILE + 6) :][:, :TILE]
        assert (flat == flat[0, 0]).all()
        assert 150 < flat[0, 0].min() <= flat[0, 0].max() < 240  # a grey that is not the paper's


def test_only_so_many_maps_are_shown(computer_of, image, pixels, tmp_path):
    """``n_channels`` keeps those that vary most of each layer; fewer than a layer has are said."""
    shown = write_map_picture(tmp_path / "m.png", image, computer_of("stages.0", "stages.2"), n_channels=3)
    for maps in shown:
        values = fake_maps(pixels[None])[maps.layer][0]
        assert list(maps.channels) == list(channels_by_spread(values)[:3])
    assert str(shown[1]) == "4 x 4 places, 8 channels (the 3 that vary most), after 38% of the work"
    whole = write_map_picture(tmp_path / "w.png", image, computer_of("stages.0"))
    assert str(whole[0]) == "8 x 8 places, 4 channels (all), after 23% of the work"
    assert whole[0].shape == (8, 8, 4)
    with Image.open(tmp_path / "m.png") as fewer, Image.open(tmp_path / "w.png") as one:
        assert fewer.height > one.height


def test_maps_that_have_no_room_in_a_line_begin_another(computer_of, image, pixels, tmp_path, monkeypatch):
    """After as many tiles as a line holds, the next one stands under the input."""
    monkeypatch.setattr("featx.workflows.map_pictures._COLUMNS", 4)
    monkeypatch.setattr("featx.workflows.map_pictures._LEAST_COLUMNS", 2)
    (shown,) = write_map_picture(tmp_path / "m.png", image, computer_of("stages.2"), n_channels=5)
    canvas = np.asarray(Image.open(tmp_path / "m.png"))
    values = fake_maps(pixels[None])["stages.2"][0]
    assert canvas.shape[1] == 2 * 20 + 4 * TILE + 3 * 6
    # Channels 4 to 7 are twice the channels 0 to 3: scaled by themselves they look the same.
    places = [places_of(tile_of(values[:, :, channel]), canvas) for channel in shown.channels]
    (top, left) = min(itertools.chain.from_iterable(places))
    lines = {place for found in places for place in found}
    below = top + TILE + 11 + 12
    assert lines == {(top, left), (top, left + 118), (top, left + 236), (below, left - 118), (below, left)}


def test_spread_orders_channels():
    """The channel with the largest standard deviation is the first; equal ones keep their order; large values count."""
    maps = np.zeros((2, 2, 5), np.float32)
    maps[0, 0] = [1, 5, 0, 5, 3]
    maps[..., 2] = 1e6  # far from zero, but the same everywhere
    assert channels_by_spread(maps).tolist() == [1, 3, 4, 0, 2]


@pytest.mark.parametrize("shift", [-4.0, 0.0, 1e4])
def test_a_map_is_scaled_to_its_own_range(shift):
    """Lowest is 0 and highest 1 whatever the range; the outermost half percents do not stretch it."""
    values = np.linspace(-1, 1, 49).reshape(7, 7)
    np.testing.assert_allclose(scaled_map(3 * values + shift), np.clip((values / 0.99 + 1) / 2, 0, 1), atol=1e-9)
    extreme = np.linspace(0, 1, 10_000).reshape(100, 100)
    extreme[0, 0] = 1e9
    scaled = scaled_map(extreme)
    assert scaled[0, 0] == 1
    assert np.median(scaled) == pytest.approx(0.5, abs=0.01)


def test_a_map_of_one_other_place_still_shows_it():
    """Where all but a few places are the same, the few are seen."""
    values = np.zeros((50, 50))
    values[3, 4] = 2
    scaled = scaled_map(values)
    assert scaled[3, 4] == 1
    assert scaled.sum() == 1


@pytest.mark.parametrize("value", [0.0, 7.5, np.nan, np.inf])
def test_a_map_in_which_nothing_varies_has_no_scale(value):
    """One value everywhere, or none that is a number, gives no colours, and is shown last."""
    assert scaled_map(np.full((4, 4), value)) is None
    maps = np.stack([np.full((4, 4), value), np.eye(4)], axis=2)
    assert channels_by_spread(maps).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("name", "start"), [("a.png", b"\x89PNG"), ("a.JPG", b"\xff\xd8"), ("a.webp", b"RIFF"), ("a.pdf", b"%PDF")]
)
def test_the_ending_says_the_format(name, start, computer_of, image, tmp_path):
    """Each ending that is allowed gives a file of its kind."""
    write_map_picture(tmp_path / name, image, computer_of("stages.1"))
    assert (tmp_path / name).read_bytes().startswith(start)


def test_untrained_weights_change_the_title(computer_of, image, tmp_path, fake_backbone):
    """The picture says when weights are drawn: its heading is another one, its maps are the same."""
    write_map_picture(tmp_path / "trained.png", image, computer_of("stages.1"))
    weights = replace(fake_backbone.weights, source="random:0")
    computer = computer_of("stages.1")
    computer.backbone = replace(fake_backbone, weights=weights)
    write_map_picture(tmp_path / "drawn.png", image, computer)
    trained, drawn = (np.asarray(Image.open(tmp_path / name)) for name in ("trained.png", "drawn.png"))
    differ = np.flatnonzero((trained != drawn).any((1, 2)))
    assert 0 < differ.max() < 50


def test_what_cannot_be_drawn(computer_of, image, tmp_path):
    """Another ending, no channel, too many maps and a broken image are errors that leave nothing behind."""
    (tmp_path / "text.png").write_text("no picture")
    broken = ImageEntry("text.png", location=str(tmp_path / "text.png"))
    before = set(tmp_path.iterdir())
    with pytest.raises(UsageError, match=r"allowed endings are \.png, \.jpg, \.jpeg, \.webp, \.pdf"):
        check_picture_name("maps.gif")
    with pytest.raises(UsageError, match=r"'maps\.gif' was asked for"):
        write_map_picture(tmp_path / "maps.gif", image, computer_of("stages.1"))
    with pytest.raises(UsageError, match="at least 1"):
        write_map_picture(tmp_path / "maps.png", image, computer_of("stages.1"), n_channels=0)
    with pytest.raises(ImageError, match=r"text\.png: "):
        write_map_picture(tmp_path / "maps.png", broken, computer_of("stages.1"))
    assert set(tmp_path.iterdir()) == before


def test_more_maps_than_a_picture_holds(computer_of, image, tmp_path, monkeypatch):
    """The message says how large the picture would be, before anything is computed."""
    monkeypatch.setattr("featx.workflows.map_pictures._MAX_SIDE", 700)
    monkeypatch.setattr(FeatureComputer, "features_of", lambda *_: pytest.fail("computed before the error"))
    with pytest.raises(UsageError, match=r"32 maps of 5 layers do not fit .* pixels\); name fewer layers"):
        write_map_picture(tmp_path / "maps.png", image, computer_of(*ALL))
    assert not (tmp_path / "maps.png").exists()


def test_a_picture_is_replaced_only_when_told(computer_of, image, tmp_path):
    """What is there stays, unless ``overwrite`` is set."""
    out = tmp_path / "maps.png"
    out.write_text("precious")
    with pytest.raises(WouldOverwriteError):
        write_map_picture(out, image, computer_of("stages.1"))
    assert out.read_text() == "precious"
    assert isinstance(write_map_picture(out, image, computer_of("stages.1"), overwrite=True)[0], ShownMaps)
    assert out.read_bytes().startswith(b"\x89PNG")
