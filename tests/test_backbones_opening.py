"""A network opens by name, frozen, with the transform its weights were trained for, or says what is close."""

from __future__ import annotations

import json

import pytest
import timm
import timm.data
import torch
from fake_backbone import FAKE_TRANSFORM, FakeNetwork
from safetensors.torch import save_file

from featx.backbones import DEFAULT_MODEL, TransformSpec, open_backbone
from featx.backbones.opening import _torchvision_options
from featx.errors import BackboneError, WeightsNotFoundError


def test_the_default_network_is_frozen(default_backbone):
    """It is in evaluation mode, wants no gradients and expects mean and deviation one half."""
    assert default_backbone.name == DEFAULT_MODEL == "tf_efficientnet_lite0"
    assert not any(child.training for child in default_backbone.module.modules())
    assert not any(parameter.requires_grad for parameter in default_backbone.module.parameters())
    assert default_backbone.transform.mean == default_backbone.transform.std == (0.5, 0.5, 0.5)
    assert default_backbone.transform.size == (224, 224)


@pytest.mark.parametrize("name", ["resnet18", "resnet18.fb_swsl_ig1b_ft_in1k", "vit_tiny_patch16_224", "mobilevit_xxs"])
def test_the_transform_is_timms_own(name):
    """Size, crop, interpolation and normalisation are those of timm's evaluation transform, tag by tag."""
    backbone = open_backbone(name, weights="random:0")
    config = timm.data.resolve_model_data_config(timm.create_model(name))
    spec = backbone.transform
    assert spec.size == config["input_size"][1:]
    assert spec.resize_size == tuple(int(side / config["crop_pct"]) for side in spec.size)
    assert (spec.crop_mode, spec.interpolation) == (config["crop_mode"], config["interpolation"])
    assert (spec.mean, spec.std) == (config["mean"], config["std"])
    assert TransformSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("resnet18", "resnet18"),
        ("resnet18.a1_in1k", "resnet18"),  # the default tag
        ("resnet18.fb_swsl_ig1b_ft_in1k", "resnet18.fb_swsl_ig1b_ft_in1k"),
        ("torchvision:resnet18", "torchvision:resnet18"),
    ],
)
def test_a_network_keeps_a_name_that_opens_it_again(given, name):
    """A tag that is the default one is dropped, any other stays: it decides on weights and transform."""
    assert open_backbone(given, weights="random:0").name == name
    assert open_backbone(name, weights="random:0").name == name


def test_a_folder_opens_with_its_own_configuration(tmp_path):
    """``local-dir:FOLDER`` reads architecture, classes and weights from the folder, and keeps its name."""
    module = timm.create_model("resnet10t", num_classes=7)
    config = {
        "architecture": "resnet10t",
        "num_classes": 7,
        "pretrained_cfg": {"input_size": [3, 96, 96], "crop_pct": 1},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsNotFoundError, match="folder:"):
        open_backbone(f"local-dir:{tmp_path}")
    save_file(module.state_dict(), tmp_path / "model.safetensors")
    backbone = open_backbone(f"local-dir:{tmp_path}")
    assert backbone.name == f"local-dir:{tmp_path.resolve()}"
    assert backbone.transform.size == (96, 96)
    assert backbone.layers["logits"].shape == (7,)
    assert torch.equal(backbone.module.fc.weight, module.fc.weight)
    assert not backbone.weights.without_classifier


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet180", "no model 'resnet180'; close: .*resnet18"),
        ("zzzzzz", "no model 'zzzzzz'; see: featx models PATTERN"),
        ("resnet18.nonsense", "'resnet18.nonsense' cannot be opened: .*nonsense"),
        ("torchvision:resnet19", "torchvision has no model 'resnet19'; close: .*resnet18"),
        ("local-dir:/nowhere/at/all", "'local-dir:/nowhere/at/all' cannot be opened: "),
        ("nosuch:thing", "'nosuch:thing' cannot be opened: "),
    ],
)
def test_an_unknown_name_is_an_error_with_a_hint(name, message):
    """The message repeats the name and says what is close, or why it cannot be opened."""
    with pytest.raises(BackboneError, match=message):
        open_backbone(name, weights="random:0")


@pytest.mark.parametrize(
    ("name", "size", "own", "resize"),
    [
        ("test_resnet", 48, 160, 50),  # 160 of 168, at any size
        ("torchvision:resnet18", 64, 224, 73),  # 224 of 256
        ("test_vit", 64, 160, 67),
    ],
)
def test_a_network_takes_pictures_of_another_size(name, size, own, resize):
    """With `size` the same share is cropped off, all else of the transform stays, and the layers fit the size."""
    usual, small = open_backbone(name, weights="random:0"), open_backbone(name, weights="random:0", size=size)
    assert usual.transform.size == (own, own)
    assert small.transform.size == (size, size)
    assert small.transform.resize_size == (resize, resize)
    share = size / small.transform.resize_size[0]
    assert share == pytest.approx(own / usual.transform.resize_size[0], abs=1 / size)
    assert small.transform.mean == usual.transform.mean
    assert small.transform.interpolation == usual.transform.interpolation
    assert small.layers["penultimate"].shape == usual.layers["penultimate"].shape
    assert small.layers["penultimate"].macs < usual.layers["penultimate"].macs
    with torch.inference_mode():
        small.module(torch.zeros(1, 3, size, size))


def test_its_own_size_changes_nothing():
    """Giving the size that a network has anyway is as good as giving none."""
    usual, same = (open_backbone("test_resnet", weights="random:0", size=size) for size in (None, 160))
    assert same.transform == usual.transform
    assert same.weights == usual.weights


def test_weights_are_those_of_the_size_or_of_any():
    """Convolutions have the same weights at every size; a transformer's position embeddings fit the size."""
    one, other = (open_backbone("test_resnet", weights="random:0", size=size) for size in (48, 96))
    assert one.weights.digest == other.weights.digest
    vit = open_backbone("test_vit", weights="random:0", size=64)
    patches = (64 // 16) ** 2
    assert vit.module.pos_embed.shape[1] in (patches, patches + 1)


@pytest.mark.parametrize(
    ("make", "size", "message"),
    [
        (lambda size: open_backbone("test_resnet", weights="random:0", size=size), 0, "size 0 is not at least 1 pixel"),
        (
            lambda size: open_backbone("torchvision:squeezenet1_1", weights="random:0", size=size),
            8,
            "torchvision:squeezenet1_1 cannot take pictures of 8 x 8 .*its own size is 224 x 224: leave the",
        ),
        (
            lambda size: open_backbone(FakeNetwork(), transform=FAKE_TRANSFORM, size=size),
            1,
            "FakeNetwork cannot take pictures of 1 x 1 .*its own size is 8 x 8",
        ),
    ],
)
def test_sizes_that_a_network_cannot_take(make, size, message):
    """The error says why, in the network's own words, and what its own size is."""
    with pytest.raises(BackboneError, match=message):
        make(size)


def test_a_module_of_ones_own_takes_another_size():
    """Its transform is scaled as that of a named network is."""
    backbone = open_backbone(FakeNetwork(), transform=FAKE_TRANSFORM, size=16)
    assert (backbone.transform.size, backbone.transform.resize_size) == ((16, 16), (16, 16))
    assert backbone.layers["stages.1"].shape == (4, 8, 8)


def test_a_transform_at_another_size():
    """Both sides become those of the size, and the resized edges keep their ratio to them, rounded to whole pixels."""
    wide = TransformSpec(size=(224, 256), resize_size=(256, 288), crop_mode="squash", interpolation="bilinear")
    assert wide.at_size(112) == TransformSpec((112, 112), (128, 126), "squash", "bilinear")
    assert TransformSpec((224, 224), (256, 256)).at_size(96).resize_size == (110, 110)  # 109.7


def test_a_module_of_ones_own_needs_its_transform():
    """A network given as an object says by itself how its pictures are prepared, and is frozen."""
    with pytest.raises(BackboneError, match="needs its TransformSpec"):
        open_backbone(FakeNetwork())
    backbone = open_backbone(FakeNetwork().train(), transform=FAKE_TRANSFORM)
    assert (backbone.name, backbone.is_named, backbone.weights.source) == ("FakeNetwork", False, "module")
    assert not backbone.module.training


def test_torchvision_transforms_are_those_of_the_weights():
    """Sizes and normalisation come from the weights' own preset."""
    transform = open_backbone("torchvision:swin_v2_t", weights="random:0").transform
    assert (transform.size, transform.resize_size, transform.interpolation) == ((256, 256), (260, 260), "bicubic")


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_torchvision_networks_are_built_as_for_their_pretrained_weights(name):
    """GoogLeNet and Inception change the normalisation inside the network when they are pretrained; so here."""
    assert _torchvision_options(name, 224)["transform_input"] is True
    assert open_backbone(f"torchvision:{name}", weights="random:0").module.transform_input


def test_networks_that_do_not_take_three_channels_are_refused():
    """featx reads RGB; the error says how many channels the network wants."""
    with pytest.raises(BackboneError, match="takes 1 channels"):
        TransformSpec.from_timm({"input_size": (1, 28, 28), "crop_pct": 1.0})
