"""Layers are observed: their order, shapes, cost, and how their axes are to be read."""

from __future__ import annotations

import pytest
import torch
from fake_backbone import FAKE_MACS, FAKE_TRANSFORM, FAKE_WIDTHS, FakeNetwork
from torch import nn

from featx.backbones import LOGITS, PENULTIMATE, TransformSpec, make_tap, open_backbone
from featx.backbones.layers import observe_layers
from featx.backbones.pooling import Layout
from featx.errors import LayerError


def layers_of(module, size=(8, 8)):
    return {layer.name: layer for layer in observe_layers(module.eval(), size)}


@pytest.fixture(scope="module")
def opened():
    """Return a function that opens a timm network of random weights, once."""
    cache = {}

    def open_once(name):
        if name not in cache:
            cache[name] = open_backbone(name, weights="random:0")
        return cache[name]

    return open_once


def test_layers_come_in_execution_order_with_their_cost(fake_backbone):
    """Order, cumulative MACs, depth and width of the fake network are those computed by hand."""
    layers = fake_backbone.layers
    assert list(layers) == [*(f"stages.{stage}" for stage in range(5)), "stages", PENULTIMATE, "classifier", LOGITS]
    assert {name: layer.macs for name, layer in layers.items()} == FAKE_MACS
    assert {name: make_tap(layers[name]).width for name in FAKE_WIDTHS} == FAKE_WIDTHS
    assert [layer.order for layer in layers.values()] == list(range(9))
    for layer in layers.values():
        assert layer.depth == pytest.approx(layer.macs / 3352)


def test_layers_have_the_shape_of_one_image(fake_backbone):
    """Shapes come without the batch axis; maps, and what is already a vector, are told apart."""
    assert fake_backbone.layers["stages.0"].shape == (4, 8, 8)
    assert fake_backbone.layers["stages.1"].shape == (4, 4, 4)
    assert fake_backbone.layers["stages.1"].layout.kind == "nchw"  # all three axes alike: channels first
    assert fake_backbone.layers["classifier"].shape == (3,)
    assert fake_backbone.layers["classifier"].layout.kind == "vector"


@pytest.mark.parametrize(("name", "gmacs"), [("resnet18", 1.814), ("vit_tiny_patch16_224", 1.254)])
def test_cost_of_known_networks(opened, name, gmacs):
    """The cost is the published one, and depth never falls from layer to layer."""
    layers = list(opened(name).layers.values())
    assert layers[-1].macs / 1e9 == pytest.approx(gmacs, rel=0.002)
    depths = [layer.depth for layer in layers]
    assert depths == sorted(depths)
    assert depths[0] > 0
    assert depths[-1] == 1


class InAnotherOrder(nn.Module):
    """Its modules run in another order than they are defined in; one runs twice, one never, one gives a pair."""

    def __init__(self):
        super().__init__()
        self.late = nn.Conv2d(4, 5, 1)
        self.early = nn.Conv2d(3, 4, 1)
        self.twice = nn.ReLU()
        self.never = nn.Linear(2, 2)
        self.pair = Pair()
        self.other = MovesBatch()

    def forward(self, images):
        first, _ = self.pair(self.twice(self.early(images)))
        return self.other(self.twice(self.late(first))).sum()


class Pair(nn.Module):
    def forward(self, images):
        return images, images


class MovesBatch(nn.Module):
    def forward(self, images):
        return images.flatten(0, 1)


def test_execution_order_counts_not_the_order_of_definition():
    """A layer defined first but run last comes last."""
    names = list(layers_of(InAnotherOrder()))
    assert names.index("early") < names.index("late")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("twice", "called 2 times"),
        ("pair", "gives a tuple, not a tensor"),
        ("other", "does not have one row an image"),
        ("never", "never called"),
        (LOGITS, "does not have one row an image"),
    ],
)
def test_a_layer_that_cannot_be_tapped_says_why(name, problem):
    """Selecting it is an error that names layer and reason."""
    backbone = open_backbone(InAnotherOrder(), transform=FAKE_TRANSFORM)
    with pytest.raises(LayerError, match=f"{name}.*{problem}"):
        backbone.select(name)


def test_windows_of_swin_are_not_taken_for_images(opened):
    """Attention inside windows has one row a window, not an image, and cannot be tapped; the block around it can."""
    backbone = opened("swin_tiny_patch4_window7_224")
    with pytest.raises(LayerError, match="does not have one row an image"):
        backbone.select("layers.0.blocks.0.attn")
    block = backbone.layers["layers.0.blocks.0"]
    assert (block.shape, block.layout.kind) == ((56, 56, 96), "nhwc")


@pytest.mark.parametrize(
    ("name", "layer", "layout"),
    [
        ("vit_tiny_patch16_224", "blocks.0", Layout("tokens", 1, True, (14, 14))),
        ("vit_tiny_patch16_224", "patch_embed", Layout("tokens", 0, False, (14, 14))),  # no prefix token yet
        ("deit_tiny_distilled_patch16_224", "blocks.3", Layout("tokens", 2, True, (14, 14))),
        ("vit_small_patch16_dinov3", "blocks.3", Layout("tokens", 5, True, (16, 16))),  # a class token, four registers
        ("vit_pwee_patch16_reg1_gap_256", "blocks.3", Layout("tokens", 1, False, (16, 16))),  # a register only
        ("torchvision:vit_b_32", "encoder.layers.encoder_layer_0", Layout("tokens", 1, True, (7, 7))),
        ("swin_tiny_patch4_window7_224", "layers.1", Layout("nhwc")),
        ("convnext_atto", "stages.1", Layout("nchw")),
    ],
)
def test_axes_and_prefix_tokens_are_read_rightly(opened, name, layer, layout):
    """Class, distillation and register tokens are counted where they are, and channels found where they are."""
    assert opened(name).layers[layer].layout == layout


def test_pictures_that_are_not_square_have_maps_of_their_proportions():
    """A map whose height equals its channels is still read as a map, by the proportions of the picture."""
    network = nn.Sequential(nn.Conv2d(3, 4, 1, stride=2), Last(), nn.Flatten(), nn.Linear(32, 2))
    layers = layers_of(network, size=(8, 4))
    assert (layers["0"].shape, layers["0"].layout.kind) == ((4, 4, 2), "nchw")
    assert (layers["1"].shape, layers["1"].layout.kind) == ((4, 2, 4), "nhwc")


class Last(nn.Module):
    """Moves the channels to the end."""

    def forward(self, images):
        return images.permute(0, 2, 3, 1)


class ReadsValues(FakeNetwork):
    """Cannot run on shapes alone."""

    def forward(self, images):
        return super().forward(images) * (2 if float(images.sum()) > 1e9 else 1)


def test_a_network_that_reads_values_is_observed_by_running_it(fake_backbone):
    """Where shapes alone do not do, a pass of real images finds the same layers."""
    assert layers_of(ReadsValues()) == fake_backbone.layers


@pytest.mark.parametrize("name", ["resnet10t", "torchvision:squeezenet1_1"])
def test_observing_leaves_the_network_as_it_was(name):
    """No hook stays, and no weight moves to the device without values."""
    backbone = open_backbone(name, weights="random:0")
    assert backbone.layers
    assert not any(child._forward_hooks or child._forward_pre_hooks for child in backbone.module.modules())
    assert {value.device.type for value in backbone.module.state_dict().values()} == {"cpu"}


def test_a_network_without_a_classifier_has_no_penultimate_layer():
    """The error names the deepest layer instead."""
    module = nn.Sequential(nn.AvgPool2d(2), nn.ReLU())
    backbone = open_backbone(module, transform=TransformSpec(size=(8, 8), resize_size=(8, 8)))
    with pytest.raises(LayerError, match="no classifier; the deepest layer is '1'"):
        backbone.select(PENULTIMATE)


def test_the_global_seed_is_left_alone():
    """Observing a network that needs real images draws them without touching torch's global generator."""
    module = ReadsValues()
    state = torch.random.get_rng_state()
    assert layers_of(module)
    assert torch.equal(torch.random.get_rng_state(), state)
