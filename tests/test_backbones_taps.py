"""Several layers in one pass: the right values, nothing after the deepest, nothing overwritten."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fake_backbone import FAKE_WIDTHS, count_calls, fake_features, fake_pixels
from torch import nn
from torchvision.models.vgg import VGG, cfgs, make_layers

from featx.backbones import PENULTIMATE, Taps, TransformSpec, open_backbone, open_engine
from featx.backbones.openvino_engine import _convert, import_openvino

ENGINES = ["openvino", "torch"]


def images_of(pixels, transform):
    """Return what a network receives: normalised (n, 3, height, width)."""
    scaled = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (transform.mean, transform.std))
    return (scaled - mean) / std


def noise(n_images, size):
    return np.random.default_rng(7).integers(0, 256, (n_images, *size, 3), np.uint8)


def assert_close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * float(np.abs(expected).max()))


@pytest.mark.parametrize("engine_name", ENGINES)
def test_every_layer_of_the_fake_network_has_the_values_computed_by_hand(fake_backbone, engine_name):
    """All layers at once, in a batch that needs padding, equal numpy's values."""
    pixels = fake_pixels(5)
    taps = fake_backbone.select(list(FAKE_WIDTHS)).taps
    engine = open_engine(fake_backbone, taps, engine=engine_name, batch_size=2)
    assert (engine.name, engine.device, engine.precision) == (engine_name, "cpu", "f32")
    outputs = engine.run(pixels)
    expected = fake_features(pixels)
    assert len(outputs) == len(FAKE_WIDTHS)
    for tap, output in zip(taps, outputs, strict=True):
        assert output.dtype == np.float32
        assert output.shape == (5, tap.width)
        np.testing.assert_allclose(output, expected[tap.layer.name], rtol=1e-5, err_msg=tap.key)


def test_each_tap_alone_has_the_same_values(fake_backbone):
    """Whether a layer is the deepest of a pass or one among many changes nothing."""
    pixels = fake_pixels()
    for name, expected in fake_features(pixels).items():
        taps = Taps(fake_backbone.module, fake_backbone.transform, fake_backbone.select(name).taps)
        (found,) = taps(torch.from_numpy(pixels))
        np.testing.assert_allclose(found, expected, rtol=1e-5, err_msg=name)
        taps.close()


@pytest.mark.parametrize(
    ("layers", "last"),
    [("stages.0", 0), ("stages.1,stages.0", 1), ("stages.3@max,stages.3", 3), ("stages.4", 4)],
)
def test_eager_computes_nothing_after_the_deepest_tap(fake_backbone, layers, last):
    """Modules up to the deepest tap run once, later ones never."""
    engine = open_engine(fake_backbone, fake_backbone.select(layers).taps, engine="torch")
    calls = count_calls(fake_backbone.module)
    engine.run(fake_pixels())
    assert calls == {"stages": 1, **{f"stages.{stage}": 1 for stage in range(last + 1)}}


def test_the_classifier_is_not_computed_for_what_it_receives(fake_backbone):
    """``penultimate`` of a network without timm's head stops before the classifier's own work."""
    engine = open_engine(fake_backbone, fake_backbone.select(PENULTIMATE).taps, engine="torch")
    worked = []
    fake_backbone.module.classifier.register_forward_hook(lambda *_: worked.append(1))
    engine.run(fake_pixels())
    assert worked == []


@pytest.mark.parametrize(
    ("layers", "n_convolutions", "n_products"),
    [("stages.0", 1, 0), ("stages.1", 1, 0), ("stages.2,stages.0", 2, 0), (PENULTIMATE, 4, 0), ("logits", 4, 1)],
)
def test_the_converted_graph_ends_at_the_deepest_tap(fake_backbone, layers, n_convolutions, n_products):
    """The converted network holds the convolutions and products up to the deepest tap, and no more."""
    taps = Taps(fake_backbone.module, fake_backbone.transform, fake_backbone.select(layers).taps)
    types = [operation.get_type_name() for operation in _convert(import_openvino(), taps, (8, 8)).get_ops()]
    assert types.count("Convolution") == n_convolutions
    assert types.count("MatMul") == n_products


def small_vgg():
    """Return torchvision's VGG-11 with a small classifier: in-place activations after every weight."""
    torch.manual_seed(0)
    network = VGG(make_layers(cfgs["A"]), num_classes=5, init_weights=True)
    network.classifier = nn.Sequential(nn.Linear(512 * 49, 16), nn.ReLU(True), nn.Linear(16, 5))
    return network


@pytest.fixture(scope="module")
def vgg():
    """Return that network as a backbone for pictures of 64 x 64 pixels."""
    with torch.random.fork_rng(devices=[]):
        return open_backbone(small_vgg(), transform=TransformSpec(size=(64, 64), resize_size=(64, 64)))


@pytest.mark.parametrize("engine_name", ENGINES)
def test_an_in_place_activation_does_not_change_the_tapped_layer_before_it(vgg, engine_name):
    """Features equal what the layer gives when it is called by itself on the input it had."""
    names = ["features.0@avg", "features.0@flatten", "features.3@max", "classifier.0", PENULTIMATE]
    taps = vgg.select(names).taps
    pixels = noise(2, (64, 64))
    inputs = {}
    handles = [
        vgg.module.get_submodule(name).register_forward_pre_hook(
            lambda _module, given, name=name: inputs.update({name: given[0].clone()})
        )
        for name in ("features.0", "features.3", "classifier.0", "classifier.2")
    ]
    with torch.no_grad():
        vgg.module(images_of(pixels, vgg.transform))
        alone = {name: vgg.module.get_submodule(name)(given) for name, given in inputs.items()}
    for handle in handles:
        handle.remove()
    expected = [
        alone["features.0"].mean((2, 3)),
        alone["features.0"].flatten(1),
        alone["features.3"].amax((2, 3)),
        alone["classifier.0"],
        inputs["classifier.2"],
    ]
    assert min(float(values.min()) for values in expected[:4]) < 0  # what a ReLU would have removed
    engine = open_engine(vgg, taps, engine=engine_name, batch_size=2)
    assert engine.name == engine_name
    for tap, found, wanted in zip(taps, engine.run(pixels), expected, strict=True):
        assert found.shape == wanted.shape, tap.key
        assert_close(found, wanted.numpy())


@pytest.mark.parametrize(
    ("name", "width"),
    [
        ("resnet18", 512),
        ("mobilenetv3_small_100", 1024),
        ("convnext_atto", 320),
        ("vit_tiny_patch16_224", 192),
        ("deit_tiny_distilled_patch16_224", 192),
    ],
)
def test_penultimate_is_what_timm_gives_to_the_classifier(name, width):
    """It equals ``forward_head(forward_features(x), pre_logits=True)``."""
    backbone = open_backbone(name, weights="random:0")
    pixels = noise(2, backbone.transform.size)
    (found,) = open_engine(backbone, backbone.select(PENULTIMATE).taps, engine="torch").run(pixels)
    images = images_of(pixels, backbone.transform)
    with torch.no_grad():
        expected = backbone.module.forward_head(backbone.module.forward_features(images), pre_logits=True)
    assert found.shape == (2, width)
    assert_close(found, expected.numpy())


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("resnet18", ["layer4", PENULTIMATE, "fc"]),
        ("convnext_atto", ["stages.3", "head.norm", PENULTIMATE, "head.fc", "head", "logits"]),
    ],
)
@pytest.mark.parametrize("engine_name", ENGINES)
def test_penultimate_goes_together_with_layers_after_it(name, layers, engine_name):
    """The classifier, and a head that holds it, can be tapped in the same pass with their full values."""
    backbone = open_backbone(name, weights="random:0")
    taps = backbone.select(layers).taps
    assert [tap.layer.name for tap in taps] == layers
    pixels = noise(2, backbone.transform.size)
    found = dict(zip(layers, open_engine(backbone, taps, engine=engine_name, batch_size=2).run(pixels), strict=True))
    network, images = backbone.module, images_of(pixels, backbone.transform)
    with torch.no_grad():
        features = network.forward_features(images)
        expected = {PENULTIMATE: network.forward_head(features, pre_logits=True)}
        expected |= dict.fromkeys(layers[layers.index(PENULTIMATE) + 1 :], network(images))
        expected |= {layers[0]: features.mean((2, 3))}
    for layer, wanted in expected.items():
        assert_close(found[layer], wanted.numpy())


@pytest.mark.parametrize(("name", "width"), [("squeezenet1_1", 512), ("mobilenet_v3_small", 1024)])
def test_penultimate_of_torchvision_is_the_input_of_the_classifier(name, width):
    """It is the input of the last Linear, or the pooled input of a convolutional classifier."""
    backbone = open_backbone(f"torchvision:{name}", weights="random:0")
    layer = backbone.layers[PENULTIMATE]
    assert layer.input_of == {"squeezenet1_1": "classifier.1", "mobilenet_v3_small": "classifier.3"}[name]
    pixels = noise(2, (224, 224))
    (found,) = open_engine(backbone, backbone.select(PENULTIMATE).taps, engine="torch").run(pixels)
    network = backbone.module
    with torch.no_grad():
        maps = network.features(images_of(pixels, backbone.transform))
        if name == "squeezenet1_1":
            expected = maps.mean((2, 3))
        else:
            expected = network.classifier[:3](network.avgpool(maps).flatten(1))
    assert found.shape == (2, width)
    assert_close(found, expected.numpy())


def test_two_taps_of_one_network_do_not_hear_each_other(fake_backbone):
    """A shallow and a deep one, run in turns, each give their own values; closed, they leave no hook."""
    pixels = fake_pixels()
    shallow, deep = (
        Taps(fake_backbone.module, fake_backbone.transform, fake_backbone.select(name).taps)
        for name in ("stages.0", "stages.0,logits")
    )
    expected = fake_features(pixels)
    for _ in range(2):
        np.testing.assert_allclose(shallow(torch.from_numpy(pixels))[0], expected["stages.0"], rtol=1e-5)
        np.testing.assert_allclose(deep(torch.from_numpy(pixels))[1], expected["logits"], rtol=1e-5)
    shallow.close()
    deep.close()
    modules = list(fake_backbone.module.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in modules)


def test_the_pixels_given_are_left_alone(fake_backbone):
    """Running changes no pixel, and takes views and read-only arrays as they are."""
    pixels = fake_pixels()
    before = pixels.copy()
    reversed_view = pixels[::-1]
    reversed_view.flags.writeable = False
    for name in ENGINES:
        engine = open_engine(fake_backbone, fake_backbone.select("logits").taps, engine=name, batch_size=4)
        np.testing.assert_allclose(engine.run(reversed_view)[0], fake_features(before)["logits"][::-1], rtol=1e-5)
    assert np.array_equal(pixels, before)
