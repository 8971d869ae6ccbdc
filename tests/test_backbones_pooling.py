"""Poolings give the values that a hand computes, and refuse what they do not fit."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from fake_backbone import fake_maps, fake_pixels

from featx.backbones import make_tap, open_engine
from featx.backbones.pooling import Layout, make_pool
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
    "flatten": [1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0, 16],
}
ON_TOKENS_BY_HAND = {
    "avg": [3.0, 30.0],
    "max": [6.0, 60.0],
    "avgmax": [4.5, 45.0],
    "gem:2": [math.sqrt(50 / 4), math.sqrt(5000 / 4)],
    "grid:1": [3.0, 30.0],
    "grid:2": [1, 2, 3, 6, 10, 20, 30, 60],
    "flatten": [1, 2, 3, 6, 10, 20, 30, 60],
    "cls": [100.0, -100.0],
    "prefix": [100.0, -100.0, 50.0, -50.0],
}


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
    with pytest.raises(LayerError, match="grid:2"):
        make_pool("grid:2", layout)


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


@pytest.mark.parametrize("name", ["max", "avgmax", "gem:3", "grid:2", "flatten", "cls", "prefix", "avg:2", "nonsense"])
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
