"""A network with a new head: what moves in training, what stays bit for bit, and what is saved of it."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from fake_backbone import write_pictures
from safetensors.torch import save_file
from tiny_networks import (
    LIVELY,
    TINY_TRANSFORM,
    WIDTH,
    TinyNetwork,
    copied,
    differing,
    pictures_of,
    tiny_backbone,
    tiny_network,
    watched_generators,
)
from torch import nn

from featx.backbones import PENULTIMATE, Taps, open_backbone
from featx.errors import LayerError
from featx.finetuning import SoftmaxHead, Training, TunableNetwork, TuningSettings, make_head

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
NETWORKS = [
    ("test_resnet", 32),
    ("test_nfnet", 32),
    ("test_vit", 32),
    ("mobilenetv3_small_050", 32),
    ("deit_tiny_distilled_patch16_224", 32),
    ("torchvision:squeezenet1_1", 32),
    ("torchvision:resnet18", 32),
]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Three classes of four pictures; read only."""
    return write_pictures(tmp_path_factory.mktemp("network") / "photos", n_each=4)


def pixels(size: int = 16, n_images: int = 3) -> torch.Tensor:
    """Return random pictures."""
    drawn = np.random.default_rng(0).integers(0, 256, (n_images, size, size, 3), np.uint8)
    return torch.from_numpy(drawn)


@pytest.mark.parametrize("is_standardised", [False, True])
@pytest.mark.parametrize("kind", ["linear", "dense"])
def test_a_head_is_what_its_arrays_say(kind, is_standardised):
    """Logits are those of the arrays by hand, first layer first, shift and scale included; dropout is off."""
    head = SoftmaxHead(6, 3, kind, dropout=0.5).eval()
    features = np.random.default_rng(0).normal(2, 3, size=(5, 6)).astype(np.float32)
    if is_standardised:
        head.standardise(features * 0.5 + 1)
    layers = head.arrays()
    assert [weight.shape for weight, _ in layers] == {"linear": [(3, 6)], "dense": [(1024, 6), (3, 1024)]}[kind]
    expected = features
    for place, (weight, bias) in enumerate(layers):
        expected = (np.maximum(expected, 0) if place else expected) @ weight.T + bias
    with torch.inference_mode():
        np.testing.assert_allclose(head(torch.from_numpy(features)), expected, rtol=1e-4, atol=1e-5)


def test_features_are_standardised_by_those_given():
    """They come to mean 0 and deviation 1; what hardly varies is shrunk, and what never does only shifted."""
    features = np.random.default_rng(0).normal(5, [1, 10, 0.01, 0], size=(50, 4)).astype(np.float32)
    deviation = features.std(0)
    head = make_head(4, 2, TuningSettings(), features)
    standardised = (features - head.mean.numpy()) / head.deviation.numpy()
    np.testing.assert_allclose(standardised.mean(0), 0, atol=1e-3)
    least = 0.1 * deviation.mean()
    np.testing.assert_allclose(standardised.std(0), [1, 1, deviation[2] / least, 0], atol=1e-3)
    assert differing(make_head(4, 2, TuningSettings()).state_dict(), head.state_dict()) == {"mean", "deviation"}


def test_a_new_head_is_that_of_its_seed():
    """Equal seeds give equal weights, others do not, and the caller's random numbers stay as they were."""
    untouched = watched_generators()
    first, again, other = (make_head(6, 3, TuningSettings(seed=seed)).state_dict() for seed in (1, 1, 2))
    assert differing(first, again) == set()
    assert differing(first, other) == {"linear.weight", "linear.bias"}
    assert untouched()


@pytest.mark.parametrize("statistics", ["frozen", "trained"])
@pytest.mark.parametrize(
    ("regime", "options", "trained"),
    [
        ("minimum", {}, ()),
        ("partial", {"last": 1}, ("stages.2", "last")),
        ("partial", {"unfreeze": ("stages.*.1", "stem")}, ("stem", "stages.0.1", "stages.1.1", "stages.2.1")),
        ("total", {}, ("stem", "stages", "last")),
    ],
)
def test_only_what_is_to_be_trained_moves(photos, regime, options, trained, statistics):
    """Every tensor of these modules moves; every other one of the body stays as it was, bit for bit."""
    settings = replace(LIVELY, regime=regime, epochs=1, ema=None, norm_statistics=statistics, **options)
    network = tiny_network(settings)
    body, head = copied(network.body.state_dict()), copied(network.head.state_dict())
    rows = pictures_of(photos, settings.augment)
    Training(network, rows, pictures_of(photos), 3, settings).run()
    moves = {
        name
        for name in body
        if any(name.startswith(f"{module}.") for module in trained)
        and (statistics == "trained" or not name.endswith(STATISTICS))
    }
    assert differing(body, network.body.state_dict()) == moves
    assert differing(head, network.head.state_dict()) == {"linear.weight", "linear.bias"}
    assert differing(TinyNetwork().state_dict(), body) == set()  # the backbone itself was never touched


def test_what_is_frozen_wants_no_gradient():
    """Parameters of the trained modules and the head ask for gradients, and no others."""
    network = tiny_network(TuningSettings(last=1))
    wanting = {name for name, parameter in network.body.named_parameters() if parameter.requires_grad}
    norm = {"stages.2.1.weight", "stages.2.1.bias"}
    assert wanting == {"stages.2.0.weight", *norm, "last.weight", "last.bias"}
    assert all(parameter.requires_grad for parameter in network.head.parameters())


def test_training_mode_is_for_the_head_and_trained_modules_alone():
    """With trained statistics the norms of trained modules follow their batches; with frozen ones none does."""
    for statistics, expected in (("trained", {"stages.2.0", "stages.2.1", "last"}), ("frozen", {"stages.2.0", "last"})):
        network = tiny_network(TuningSettings(last=1, norm_statistics=statistics)).train()
        assert {name for name, child in network.body.named_modules() if child.training} == expected
        assert network.head.dropout.training
        network.eval()
        assert not any(child.training for child in network.modules())


class _Scaled(nn.Module):
    """A block with a parameter of its own around a norm and a dropout, as in ConvNeXt or XCiT."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(1))
        self.inner = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.5))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.gamma * self.inner(images)


class _Wrapped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block, self.fc = _Scaled(), nn.Linear(4, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(self.block(images).mean((2, 3)))


def test_a_block_with_parameters_of_its_own_does_not_wake_what_is_inside():
    """Dropout inside the body stays off, and norms keep their statistics, whatever holds them."""
    backbone = open_backbone(_Wrapped(), transform=TINY_TRANSFORM)
    settings = TuningSettings(regime="total")
    network = TunableNetwork.of_backbone(backbone, 2, settings).train()
    assert "block" in network.trained
    assert not network.body.block.inner[1].training
    assert not network.body.block.inner[2].training
    network.head.dropout.p = 0.0
    assert torch.equal(network(pixels()), network(pixels()))
    assert torch.equal(network.body.block.inner[1].running_mean, torch.zeros(4))


def test_an_untrained_network_gives_the_frozen_features():
    """Before training, what the head receives is what the frozen network gives for `penultimate`."""
    backbone = tiny_backbone()
    network = TunableNetwork.of_backbone(backbone, 3, TuningSettings(regime="total"))
    with torch.inference_mode():
        expected = Taps(backbone.module, TINY_TRANSFORM, backbone.select(PENULTIMATE).taps)(pixels())[0]
    features = network.features(pixels())
    assert (features.shape, features.dtype) == ((3, WIDTH), np.float32)
    np.testing.assert_array_equal(features, expected.numpy())
    weight, bias = network.head.arrays()[0]
    logits = network(pixels()).detach().numpy()
    np.testing.assert_allclose(logits, features @ weight.T + bias, rtol=1e-4, atol=1e-6)


def test_parameters_are_counted_without_the_former_classifier():
    """Body and head count, the classifier that is replaced does not."""
    network = tiny_network(TuningSettings())
    classifier = WIDTH * 5 + 5
    own = sum(parameter.numel() for parameter in TinyNetwork().parameters())
    assert network.n_parameters == own - classifier + WIDTH * 3 + 3


def test_a_network_without_a_classifier_cannot_get_another():
    """Something must come before a classifier: a network of pooling alone is refused."""
    backbone = open_backbone(nn.Sequential(nn.AvgPool2d(2)), transform=TINY_TRANSFORM)
    with pytest.raises(LayerError, match="penultimate"):
        TunableNetwork.of_backbone(backbone, 3, TuningSettings())


@pytest.mark.parametrize(("name", "size"), NETWORKS)
def test_the_saved_body_opens_as_the_same_network(name, size, tmp_path):
    """Tensors of a changed body, saved without its classifier, open strictly and give the same features."""
    backbone = open_backbone(name, weights="random:0", size=size)
    network = TunableNetwork.of_backbone(backbone, 3, TuningSettings(regime="total"))
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        for parameter in network.body.parameters():
            parameter.add_(0.01 * torch.randn(parameter.shape))
    save_file(network.body_state(), tmp_path / "tuned.safetensors")
    opened = open_backbone(name, weights=str(tmp_path / "tuned.safetensors"), size=size)
    assert opened.weights.without_classifier
    with torch.inference_mode():
        features = Taps(opened.module, opened.transform, opened.select(PENULTIMATE).taps)(pixels(size))[0]
    np.testing.assert_array_equal(features.numpy(), network.features(pixels(size)))
    assert np.abs(features.numpy()).max() > 0


def test_a_copy_lives_by_itself():
    """Copy and original both run on, each with its own weights, mode and gradients; the backbone is shared."""
    network = tiny_network(TuningSettings(last=1, dropout=0.0, norm_statistics="trained")).train()
    before = network(pixels()).detach()
    copied_network = copy.deepcopy(network)
    assert copied_network.training
    assert copied_network.trains_statistics
    assert {n for n, p in copied_network.named_parameters() if p.requires_grad} == {
        n for n, p in network.named_parameters() if p.requires_grad
    }
    assert torch.equal(copied_network(pixels()), before)
    state = copied(network.state_dict())
    with torch.no_grad():
        for parameter in copied_network.parameters():
            parameter.zero_()
    assert differing(state, network.state_dict()) == set()
    assert torch.equal(network(pixels()).detach(), before)
    assert not copied_network(pixels()).any()


def test_channels_last_changes_nothing_but_speed():
    """After `arrange` weights are the same, features nearly, and no gradients are left over."""
    network = tiny_network(TuningSettings(regime="total"))
    features, state = network.features(pixels()), copied(network.state_dict())
    network.arrange("cpu")
    np.testing.assert_allclose(network.features(pixels()), features, rtol=1e-4, atol=1e-6)
    assert differing(state, network.state_dict()) == set()
    assert all(parameter.grad is None for parameter in network.parameters())


def test_a_step_that_onednn_gets_wrong_is_never_given_channels_last():
    """Gradients of strided 1x1 convolutions of few channels would be written past their memory; these are right."""
    stem = nn.Conv2d(3, 4, 1, stride=2, bias=False)
    backbone = open_backbone(nn.Sequential(stem, nn.Flatten(), nn.Linear(256, 2)), transform=TINY_TRANSFORM)
    network = TunableNetwork.of_backbone(backbone, 2, TuningSettings(regime="total"))
    network.arrange("cpu")
    for _ in range(5):
        network.zero_grad()
        network(pixels()).sum().backward()
    # The head's weights of a place and channel, times the sum of the pixels there, normalised.
    images = (pixels()[:, ::2, ::2].double() / 255 - 0.5) / 0.25
    weight = network.head.linear.weight.detach().double().sum(0).view(4, 8, 8)
    expected = torch.einsum("nyxc,oyx->oc", images, weight)
    np.testing.assert_allclose(network.body[0].weight.grad[:, :, 0, 0], expected, rtol=1e-4, atol=1e-4)


class _Viewing(nn.Module):
    """A network that cannot take channels last."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.fc = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4 * 256, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(self.convolution(images).view(len(images), -1))


def test_networks_that_cannot_take_channels_last_keep_their_order():
    """A network that views its maps as vectors is trained as it is."""
    network = TunableNetwork.of_backbone(open_backbone(_Viewing(), transform=TINY_TRANSFORM), 2, TuningSettings())
    features = network.features(pixels())
    network.arrange("cpu")
    np.testing.assert_array_equal(network.features(pixels()), features)
