"""Poolings give the values that a hand computes, and refuse what they do not fit."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from fake_backbone import FAKE_TRANSFORM, fake_maps, fake_pixels
from torch import nn

from featx.backbones import make_tap, open_backbone, open_engine
from featx.backbones.pooling import Layout, make_pool
from featx.backbones.rmac import regions
from featx.errors import LayerError

# One image, two channels of 2 x 4 places.
MAP = torch.tensor([[[[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]], [[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 16.0]]]])
# One image, a class token, a register and four patches of two channels.
TOKENS = torch.tensor([[[100.0, -100.0], [50.0, -50.0], [1.0, 10.0], [2.0, 20.0], [3.0, 30.0], [6.0, 60.0]]])
ON_TOKENS = Layout("tokens", n_prefix=2, has_class_token=True, grid=(2, 2))

ON_MAP_BY_HAND = {
    "avg": [4.5, 2.0],
    "max": [8.0, 16.0],
    "avgmax": [6.25, 9.0],
    "gem": [(1296 / 8) ** (1 / 3), (4096 / 8) ** (1 / 3)],
    "gem:3": [(1296 / 8) ** (1 / 3), (4096 / 8) ** (1 / 3)],
    "gem:1": [4.5, 2.0],
    "gem:2": [math.sqrt(204 / 8), math.sqrt(256 / 8)],
    "grid:1": [4.5, 2.0],
    "grid:2": [1.5, 3.5, 5.5, 7.5, 0.0, 0.0, 0.0, 8.0],
    # Three squares of 2 x 2, two places wide and one apart: (6, 0), (7, 0) and (8, 16) before they are normalised.
    "rmac:1": [2 + 1 / math.sqrt(5), 2 / math.sqrt(5)],
    "flatten": [1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0, 16],
}
ON_TOKENS_BY_HAND = {
    "avg": [3.0, 30.0],
    "max": [6.0, 60.0],
    "avgmax": [4.5, 45.0],
    "gem:2": [math.sqrt(50 / 4), math.sqrt(5000 / 4)],
    "grid:1": [3.0, 30.0],
    "grid:2": [1, 2, 3, 6, 10, 20, 30, 60],
    # The whole grid, then each of its four places; all have the same direction.
    "rmac:2": [5 / math.sqrt(101), 50 / math.sqrt(101)],
    "flatten": [1, 2, 3, 6, 10, 20, 30, 60],
    "cls": [100.0, -100.0],
    "prefix": [100.0, -100.0, 50.0, -50.0],
}


def regions_naively(n_rows, n_columns, n_levels):
    """The grid of regions as the authors' own MATLAB code lays it, in fractions."""
    width = min(n_rows, n_columns)
    strides = {n: Fraction(max(n_rows, n_columns) - width, n - 1) for n in range(2, 8)}
    nearest = min(strides, key=lambda n: abs(1 - strides[n] / width - Fraction(4, 10)))
    more_rows = nearest - 1 if n_rows > n_columns else 0
    more_columns = nearest - 1 if n_columns > n_rows else 0
    found = []
    for level in range(1, n_levels + 1):
        side = math.floor(Fraction(2 * width, level + 1))
        down = Fraction(n_rows - side, max(level + more_rows - 1, 1))
        right = Fraction(n_columns - side, max(level + more_columns - 1, 1))
        for i in range(level + more_rows):
            for j in range(level + more_columns):
                if side > 0:
                    found.append((math.floor(i * down), math.floor(j * right), side))
    return found


def rmac_naively(maps, n_levels):
    """R-MAC of (n, channels, rows, columns), one image and one region after the other."""
    pooled = np.zeros(maps.shape[:2])
    for number, image in enumerate(maps):
        for row, column, side in regions_naively(*image.shape[1:], n_levels):
            vector = np.array([channel[row : row + side, column : column + side].max() for channel in image])
            pooled[number] += vector / max(np.linalg.norm(vector), 1e-12)
    return pooled


def test_regions_are_laid_by_hand():
    """A square map has the whole, then 2 x 2 and 3 x 3 regions; a long one has more of them along its long side."""
    assert regions(7, 7, 2) == [(0, 0, 7), (0, 0, 4), (0, 3, 4), (3, 0, 4), (3, 3, 4)]
    assert [side for _, _, side in regions(7, 7)] == [7] + 4 * [4] + 9 * [3]
    # 8 x 12: two squares of 8 that begin 4 apart overlap by half, the nearest to 40 %.
    assert regions(8, 12, 1) == [(0, 0, 8), (0, 4, 8)]
    assert regions(12, 8, 1) == [(0, 0, 8), (4, 0, 8)]
    assert regions(1, 1) == [(0, 0, 1)]


@pytest.mark.parametrize("shape", [(7, 7), (14, 14), (9, 14), (14, 9), (5, 17), (1, 6), (2, 2), (3, 30)])
@pytest.mark.parametrize("n_levels", [1, 3, 5])
def test_rmac_equals_the_plain_loop_in_every_layout(shape, n_levels):
    """Channels first, channels last, and tokens that form a grid: R-MAC equals the authors' grid, looped over."""
    assert regions(*shape, n_levels) == regions_naively(*shape, n_levels)
    maps = np.random.default_rng(0).normal(size=(2, 5, *shape)).astype(np.float32)
    maps[1, :, 0, 0] = 0  # not every region is positive, and none is skipped
    expected = rmac_naively(maps, n_levels)
    channels_last = np.moveaxis(maps, 1, -1)
    patches = channels_last.reshape(2, -1, 5)
    tokens = np.concatenate([np.full((2, 2, 5), 99, np.float32), patches], axis=1)
    for output, layout in (
        (maps, Layout("nchw")),
        (channels_last, Layout("nhwc")),
        (tokens, Layout("tokens", n_prefix=2, grid=shape)),
    ):
        pooled = make_pool(f"rmac:{n_levels}", layout)(torch.from_numpy(np.ascontiguousarray(output)))
        np.testing.assert_allclose(pooled.numpy(), expected, rtol=1e-5, atol=1e-6)


def test_a_dead_map_has_no_direction():
    """A map of zeros is pooled to zeros, not to NaN."""
    assert torch.equal(make_pool("rmac", Layout("nchw"))(torch.zeros(1, 3, 4, 4)), torch.zeros(1, 3))


def test_openvino_pools_regions_of_a_map_that_is_not_square():
    """The regions of a converted network are those of its own map, here 4 x 6, and its batch may grow."""
    network = nn.Sequential(OrderedDict(stages=nn.Sequential(nn.AvgPool2d(2), nn.AvgPool2d(1))))
    transform = replace(FAKE_TRANSFORM, size=(8, 12), resize_size=(8, 12))
    backbone = open_backbone(network, transform=transform)
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 12, 3), np.uint8)
    maps = pixels.astype(np.float64).transpose(0, 3, 1, 2).reshape(5, 3, 4, 2, 6, 2).mean((3, 5))
    engine = open_engine(backbone, backbone.select("stages.0@rmac").taps, engine="openvino", batch_size=4)
    (found,) = engine.run(pixels)
    np.testing.assert_allclose(found, rmac_naively(maps, 3), rtol=1e-5)


@pytest.mark.parametrize("name", ON_MAP_BY_HAND)
def test_a_map_is_pooled_by_hand(name):
    """Whether the channels come first or last, a map is pooled to the values computed by hand."""
    expected = torch.tensor([ON_MAP_BY_HAND[name]], dtype=torch.float32)
    torch.testing.assert_close(make_pool(name, Layout("nchw"))(MAP), expected, rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(make_pool(name, Layout("nhwc"))(MAP.permute(0, 2, 3, 1)), expected, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("name", ON_TOKENS_BY_HAND)
def test_tokens_are_pooled_by_hand(name):
    """Tokens are pooled without class token and registers, but by ``cls`` and ``prefix``, which are those."""
    pooled = make_pool(name, ON_TOKENS)(TOKENS)
    torch.testing.assert_close(pooled, torch.tensor([ON_TOKENS_BY_HAND[name]], dtype=torch.float32))


def test_tokens_without_a_grid_are_pooled_too():
    """Patches that form no known grid are averaged and flattened, but have no ``grid:K``."""
    layout = Layout("tokens", n_prefix=1)
    torch.testing.assert_close(make_pool("avg", layout)(TOKENS), torch.tensor([[12.4, 14.0]]))
    assert make_pool("flatten", layout)(TOKENS).shape == (1, 10)
    for name in ("grid:2", "rmac"):
        with pytest.raises(LayerError, match=f"{name}.*allowed: avg, max, avgmax, gem.:p., flatten, prefix"):
            make_pool(name, layout)


def test_the_engines_pool_the_fake_map_as_numpy_does(fake_backbone):
    """Every pooling of a map, through both engines, equals numpy's value."""
    pixels = fake_pixels()
    maps = fake_maps(pixels)["stages.1"]  # (3, 4, 4, 4), channels last
    channels_first = maps.transpose(0, 3, 1, 2)
    expected = {
        "avg": maps.mean((1, 2)),
        "max": maps.max((1, 2)),
        "avgmax": (maps.mean((1, 2)) + maps.max((1, 2))) / 2,
        "gem:3": np.cbrt((maps**3).mean((1, 2))),
        "grid:2": channels_first.reshape(3, 4, 2, 2, 2, 2).mean((3, 5)).reshape(3, 16),
        "rmac": rmac_naively(channels_first, 3),
        "rmac:2": rmac_naively(channels_first, 2),
        "flatten": channels_first.reshape(3, 64),
    }
    taps = [make_tap(fake_backbone.layers["stages.1"], pool) for pool in expected]
    for name in ("openvino", "torch"):
        engine = open_engine(fake_backbone, taps, engine=name, batch_size=2)
        assert engine.name == name
        for tap, found in zip(taps, engine.run(pixels), strict=True):
            assert found.shape == (3, tap.width)
            np.testing.assert_allclose(found, expected[tap.pool], rtol=1e-5, err_msg=tap.key)


@pytest.mark.parametrize(
    ("output", "layout", "name"),
    [(MAP, Layout("nchw"), name) for name in ON_MAP_BY_HAND]
    + [(TOKENS, ON_TOKENS, name) for name in ON_TOKENS_BY_HAND]
    + [(MAP.flatten(1), Layout("vector"), "avg")],
)
def test_what_is_pooled_does_not_share_memory_with_the_layer(output, layout, name):
    """Changing the layer's output afterwards, as an in-place activation does, leaves the pooled values alone."""
    output = output.clone()
    pooled = make_pool(name, layout)(output)
    before = pooled.clone()
    output.fill_(-7.0)
    assert torch.equal(pooled, before)


@pytest.mark.parametrize(
    "name", ["max", "avgmax", "gem:3", "grid:2", "rmac", "flatten", "cls", "prefix", "avg:2", "nonsense"]
)
def test_a_vector_takes_only_avg(name):
    """Any other pooling of what is already a vector is refused."""
    with pytest.raises(LayerError, match="avg"):
        make_pool(name, Layout("vector"))


@pytest.mark.parametrize(
    ("name", "layout", "named"),
    [
        ("cls", Layout("nchw"), "spatial map; allowed: avg, max"),
        ("prefix", Layout("tokens", grid=(2, 2)), "0 prefix tokens; allowed: avg"),
        ("cls", Layout("tokens", n_prefix=4, grid=(2, 2)), "allowed: .*prefix"),  # registers alone are no class token
        ("median", Layout("nchw"), "median.*allowed: avg, max"),
        ("grid:0", Layout("nchw"), "whole number from 1 to 99"),
        ("grid", Layout("nchw"), "whole number from 1 to 99"),
        ("grid:2.5", Layout("nchw"), "whole number from 1 to 99"),
        ("rmac:0", Layout("nchw"), "whole number from 1 to 9"),
        ("rmac:10", Layout("nchw"), "whole number from 1 to 9"),
        ("rmac:x", Layout("nchw"), "whole number from 1 to 9"),
        ("gem:-1", Layout("nchw"), "positive number"),
        ("gem:nan", Layout("nchw"), "positive number"),
        ("gem:x", Layout("nchw"), "positive number"),
        ("max:3", Layout("nchw"), "max takes no argument"),
        ("cls:3", ON_TOKENS, "cls takes no argument"),
    ],
)
def test_a_wrong_pooling_is_refused_with_what_is_allowed(name, layout, named):
    """The message says what was given and what there is instead."""
    with pytest.raises(LayerError, match=named):
        make_pool(name, layout)
