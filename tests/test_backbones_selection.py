"""What is written after ``--layers`` becomes exactly the layers it stands for."""

from __future__ import annotations

import pytest
from fake_backbone import FAKE_TRANSFORM, FakeNetwork
from torch import nn

from featx.backbones import open_backbone, stage_names
from featx.errors import LayerError


def keys(selection):
    return [tap.key for tap in selection.taps]


@pytest.fixture(scope="module")
def fake():
    """Return the fake network as a backbone; nothing in this file changes it."""
    return open_backbone(FakeNetwork(), transform=FAKE_TRANSFORM)


@pytest.fixture(scope="module")
def many():
    """Return a network of 33 layers in one sequence, under two levels of names."""
    module = nn.Sequential(nn.Sequential(*(nn.Conv2d(3, 3, 1) for _ in range(33))), nn.Flatten(), nn.Linear(192, 2))
    return open_backbone(module, transform=FAKE_TRANSFORM)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("penultimate", ["penultimate@avg"]),
        ("logits", ["logits@avg"]),
        ("stages.3,stages.0", ["stages.0@avg", "stages.3@avg"]),  # in execution order, whatever was written first
        (["stages.3", "stages.0"], ["stages.0@avg", "stages.3@avg"]),
        (" stages.0 , stages.0,,", ["stages.0@avg"]),  # once
        ("stages.*", [f"stages.{stage}@avg" for stage in range(5)]),
        ("*", ["stages@avg", "classifier@avg"]),  # stays within one level; leaves out what is no module
        ("**.2", ["stages.2@avg"]),
        ("**", [*(f"stages.{stage}@avg" for stage in range(5)), "stages@avg", "classifier@avg"]),
        ("st*s.1", ["stages.1@avg"]),
        ("all-stages", [f"stages.{stage}@avg" for stage in range(5)]),
        ("stages.1@max", ["stages.1@max"]),
        ("stages.1@max,stages.1", ["stages.1@avg", "stages.1@max"]),
        ("stages.*@gem:3", [f"stages.{stage}@gem:3" for stage in range(5)]),
    ],
)
def test_names_stand_for_layers(fake, wanted, expected):
    """Names, globs, lists and ``LAYER@POOL`` give the taps written beside them, in execution order, once."""
    assert keys(fake.select(wanted)) == expected


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("25%", "stages.1"),
        ("early", "stages.1"),
        ("50%", "stages.2"),
        ("middle", "stages.2"),
        ("75%", "stages.3"),
        ("late", "stages.3"),
        ("68.7%", "stages.2"),
        ("68.8%", "stages.3"),  # 2304 of 3352 MACs are 68.74 %
        ("100%", "stages.4"),
        ("1%", "stages.0"),  # the first, where even that is deeper
    ],
)
def test_percentages_are_of_cumulative_cost(fake, name, layer):
    """``P%`` and its names are the last stage that ends within that share of the MACs, remembered as an alias."""
    selection = fake.select(name)
    assert keys(selection) == [f"{layer}@avg"]
    assert selection.aliases == {name: layer}


def test_two_names_of_one_layer_are_one_tap_with_two_aliases(fake):
    """``early`` and ``25%`` are computed once."""
    selection = fake.select("early,25%,penultimate")
    assert keys(selection) == ["stages.1@avg", "penultimate@avg"]
    assert selection.aliases == {"early": "stages.1", "25%": "stages.1"}


def test_the_pool_option_is_for_layers_that_name_none(fake):
    """Each pooling given makes a tap of each map; a vector stays as it is, a layer's own pooling wins."""
    selection = fake.select("stages.1,stages.2@max,penultimate", pool="avg, gem")
    assert keys(selection) == ["stages.1@avg", "stages.1@gem", "stages.2@max", "penultimate@avg"]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("stage.1", "no layer 'stage.1'; close: .*stages.1"),
        ("penultimat", "close: penultimate"),
        ("zzz", "see: featx layers"),
        ("features.*", "no layer 'features.*'"),
        ("0%", "above 0 and at most at 100"),
        ("101%", "above 0 and at most at 100"),
        ("", "no layer given"),
        ([], "no layer given"),
        ("penultimate@max", "'penultimate'.*'max'.*allowed: avg"),
        ("stages.1@cls", "'stages.1'.*'cls' does not fit a spatial map; allowed: avg"),
    ],
)
def test_what_stands_for_nothing_is_an_error_with_a_hint(fake, wanted, message):
    """The message repeats what was given and says what is close or allowed."""
    with pytest.raises(LayerError, match=message):
        fake.select(wanted)


@pytest.mark.parametrize("pool", ["mean", "avg,mean", "gem:0", "grid"])
def test_an_unknown_pool_option_is_refused_even_where_no_layer_takes_it(fake, pool):
    """A slip in ``--pool`` does not pass unnoticed because all layers are vectors."""
    with pytest.raises(LayerError, match="pooling"):
        fake.select("penultimate", pool=pool)


def test_a_glob_that_fits_more_than_32_layers_is_refused(many):
    """It is an error that says how many; narrower ones are taken."""
    assert len(many.select("0.1*,0.2*").taps) == 22
    with pytest.raises(LayerError, match="fits 33 layers; at most 32"):
        many.select("0.*")


def test_a_module_list_as_stages_is_found_below_its_network():
    """Where the body lies inside another module, its stages are still found."""
    module = nn.Sequential()
    module.add_module("body", nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)))
    module.add_module("pool", nn.Flatten())
    module.add_module("head", nn.Linear(128, 2))
    assert keys(open_backbone(module, transform=FAKE_TRANSFORM).select("all-stages")) == ["body.0@avg", "body.1@avg"]


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("tf_efficientnet_lite0", [f"blocks.{stage}" for stage in range(7)]),
        ("resnet18", [f"layer{stage}" for stage in (1, 2, 3, 4)]),
        ("vit_tiny_patch16_224", [f"blocks.{block}" for block in range(12)]),
        ("swin_tiny_patch4_window7_224", [f"layers.{stage}" for stage in range(4)]),
        ("convnext_atto", [f"stages.{stage}" for stage in range(4)]),
        ("torchvision:vit_b_32", [f"encoder.layers.encoder_layer_{block}" for block in range(12)]),
    ],
)
def test_all_stages_of_known_networks(name, stages):
    """The stages are the children of the body's top-level sequence."""
    backbone = open_backbone(name, weights="random:0")
    assert list(stage_names(backbone.module, backbone.layers)) == stages
    assert keys(backbone.select("all-stages")) == [f"{stage}@avg" for stage in stages]


def test_stages_of_a_densenet_are_its_blocks_and_transitions():
    """DenseNet's body is one sequence of named children; all of its blocks and transitions are stages."""
    backbone = open_backbone("densenet121", weights="random:0")
    stages = stage_names(backbone.module, backbone.layers)
    blocks = [stage for stage in stages if "block" in stage or "transition" in stage]
    expected = ["denseblock1", "transition1", "denseblock2", "transition2", "denseblock3", "transition3", "denseblock4"]
    assert blocks == [f"features.{name}" for name in expected]
    assert all(stage.startswith("features.") for stage in stages)
