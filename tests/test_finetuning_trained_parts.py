"""What is trained by regime, stage and name, how fast, and what belongs to the network's former classifier."""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision
from fake_backbone import FAKE_TRANSFORM
from tiny_networks import BODY, STAGES, tiny_backbone

from featx.backbones import Backbone, TransformSpec, open_backbone
from featx.backbones.weights import WeightsInfo
from featx.errors import LayerError
from featx.finetuning import TuningSettings, classifier_modules
from featx.finetuning.trained_parts import rate_factors, trained_modules

SQUARE = TransformSpec(size=(64, 64), resize_size=(64, 64))


def unweighted(make, size: int = 64) -> Backbone:
    """Return a network whose tensors have shapes but no values: enough to know its modules, and made in no time."""
    with torch.device("meta"):
        module = make().eval()
    transform = TransformSpec(size=(size, size), resize_size=(size, size))
    return Backbone("unweighted", module, transform, WeightsInfo("none", ""))


@pytest.fixture(scope="module")
def tiny():
    """The tiny network; read only."""
    return tiny_backbone()


def trained(backbone, **settings):
    """Return the names of what is trained."""
    return list(trained_modules(backbone, TuningSettings(**settings)))


def test_regimes(tiny):
    """The minimum trains nothing of the body, total all of it in execution order; never the former classifier."""
    assert trained(tiny, regime="minimum") == []
    assert trained(tiny, regime="total") == BODY
    assert trained(tiny) == [*STAGES[2:], "last"]  # the last two stages


@pytest.mark.parametrize(
    ("last", "expected"), [(1, STAGES[4:]), (2, STAGES[2:]), (3, STAGES)], ids=["one", "two", "all"]
)
def test_the_last_stages_come_with_what_follows_them(tiny, last, expected):
    """K stages from the end and the convolution behind them; all stages leave only the stem out."""
    assert trained(tiny, last=last) == [*expected, "last"]


def test_more_stages_than_there_are(tiny):
    """The error says how many there are, and what they are called."""
    with pytest.raises(LayerError) as caught:
        trained(tiny, last=4)
    message = str(caught.value)
    assert "TinyNetwork has 3 stages (stages.0, stages.1, stages.2), so its last 4 cannot be trained" in message
    assert "give --last 1 to 3" in message


def test_stages_may_be_single_layers():
    """Where layers follow each other without blocks, each is a stage; all of them are all of the network."""
    layers = torch.nn.Sequential(torch.nn.AvgPool2d(2), torch.nn.Conv2d(3, 4, 1), torch.nn.Conv2d(4, 6, 1))
    network = torch.nn.Sequential(layers, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(6, 2))
    backbone = open_backbone(network, transform=FAKE_TRANSFORM)
    assert trained(backbone, last=1) == ["0.2"]
    assert trained(backbone, last=2) == ["0.1", "0.2"]
    assert trained(backbone, last=3) == ["0.1", "0.2"]  # the first has nothing to be trained


@pytest.mark.parametrize(
    ("unfreeze", "expected"),
    [
        (("stages.2",), ["stages.2.0", "stages.2.1"]),
        (("stages.2", "stem"), ["stem", "stages.2.0", "stages.2.1"]),
        (("stages.*.1",), ["stages.0.1", "stages.1.1", "stages.2.1"]),
        (("stages",), STAGES),
        (("stages.0.0", "stages.0.0"), ["stages.0.0"]),
    ],
)
def test_modules_by_name(tiny, unfreeze, expected):
    """A name stands for all inside it, a glob for all that match; they come in execution order, each once."""
    assert trained(tiny, unfreeze=unfreeze) == expected


@pytest.mark.parametrize(
    ("unfreeze", "hint"),
    [
        (("stages.2", "stage.1"), "'stage.1' in TinyNetwork; close: .*stages.1"),
        (("zzz",), r"'zzz' in TinyNetwork; stages: stages.0, stages.1, stages.2$"),
        (("stages.0.2",), "'stages.0.2' in TinyNetwork; close: "),  # a ReLU has nothing to train
        (("classifier",), "'classifier' in TinyNetwork"),  # it is replaced
        (("stages.0.",), "'stages.0.' in TinyNetwork; close: stages.0"),
    ],
)
def test_names_that_stand_for_nothing(tiny, unfreeze, hint):
    """A name without anything to be trained is an error that says what is close, or which stages there are."""
    with pytest.raises(LayerError, match=f"nothing that could be trained is called {hint}"):
        trained(tiny, unfreeze=unfreeze)


def test_what_owns_position_embeddings_is_trained_by_total_alone():
    """A transformer's own parameters belong to no stage; its last block comes with the norm behind it."""
    vit = unweighted(lambda: timm.create_model("vit_tiny_patch16_224", img_size=64))
    everything = trained(vit, regime="total")
    assert everything[0] == ""
    assert everything[1] == "patch_embed.proj"
    assert "head" not in everything
    last = trained(vit, last=1)
    assert last[-1] == "norm"
    assert all(name.startswith("blocks.11.") for name in last[:-1])
    assert set(last) < set(everything)


@pytest.mark.parametrize(
    ("make", "classifier"),
    [
        (lambda: timm.create_model("vgg11"), ("head.fc",)),
        (lambda: timm.create_model("resnet18"), ("fc",)),
        (lambda: timm.create_model("mobilenetv3_small_050"), ("classifier",)),
        (lambda: timm.create_model("regnetx_002"), ("head.fc",)),  # its head ends with a step that runs in any case
        (lambda: timm.create_model("test_nfnet"), ("head.fc",)),
        (lambda: timm.create_model("convnext_atto"), ("head.fc",)),
        (lambda: timm.create_model("vit_tiny_patch16_224", img_size=64), ("head",)),
        (lambda: timm.create_model("deit_tiny_distilled_patch16_224", img_size=64), ("head", "head_dist")),
        (lambda: timm.create_model("resnet18", num_classes=0), ()),
        (lambda: torchvision.models.vgg11(), ("classifier.6",)),
        (lambda: torchvision.models.resnet18(), ("fc",)),
        (lambda: torchvision.models.squeezenet1_1(), ("classifier.1",)),
        (lambda: torchvision.models.mobilenet_v3_small(), ("classifier.3",)),
    ],
)
def test_the_former_classifier(make, classifier):
    """It is what comes after the penultimate features, in networks of either library."""
    backbone = unweighted(make)
    assert classifier_modules(backbone) == classifier
    assert not set(classifier) & set(trained(backbone, regime="total"))


def test_a_network_without_a_classifier():
    """Where no layer has weights, nothing was a classifier."""
    pool = open_backbone(torch.nn.Sequential(torch.nn.AvgPool2d(2)), transform=FAKE_TRANSFORM)
    assert classifier_modules(pool) == ()


def test_rates_fall_from_the_last_modules_to_the_first():
    """Each factor is for an equal part of the modules, the first for the last of them."""
    assert rate_factors(["a", "b", "c", "d"], (0.1, 0.01)) == {"d": 0.1, "c": 0.1, "b": 0.01, "a": 0.01}
    assert rate_factors(["a", "b", "c", "d", "e"], (1.0, 0.5, 0.2)) == {"e": 1, "d": 1, "c": 0.5, "b": 0.5, "a": 0.2}
    assert rate_factors(["a"], (1.0, 0.5)) == {"a": 1.0}
    assert rate_factors([], (1.0,)) == {}
