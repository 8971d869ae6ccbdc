"""Which engine runs, what it refuses, and converted networks that are kept on disk."""

from __future__ import annotations

import logging
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from fake_backbone import FAKE_TRANSFORM, FakeNetwork, fake_features, fake_pixels

from featx.backbones import choose_batch_size, open_backbone, open_engine, openvino_engine
from featx.backbones.torch_engine import TorchEngine
from featx.errors import EngineError

SMALL = "resnet10t"


@pytest.fixture(scope="module")
def small():
    """Return a small network that has a name, so that its converted form is kept."""
    return open_backbone(SMALL, weights="random:0")


@pytest.fixture
def conversions(tmp_path, monkeypatch):
    """Return a list that grows with each conversion, over a cache that is empty."""
    monkeypatch.setenv("FEATX_CACHE", str(tmp_path / "cache"))
    convert, seen = openvino_engine._convert, []
    monkeypatch.setattr(openvino_engine, "_convert", lambda *given: seen.append(given) or convert(*given))
    return seen


def kept(tmp_path):
    return sorted((tmp_path / "cache" / "converted").iterdir())


def outputs_of(backbone, layers, **options):
    engine = open_engine(backbone, backbone.select(layers).taps, engine="openvino", **options)
    assert engine.name == "openvino"
    side = backbone.transform.size[0]
    return engine.run(np.random.default_rng(0).integers(0, 256, (2, side, side, 3), np.uint8))


def test_a_network_is_converted_once(small, tmp_path, conversions):
    """A second opening, with another batch size, reads the converted network from disk and gives the same."""
    first = outputs_of(small, "layer1,penultimate", batch_size=2)
    second = outputs_of(small, "layer1,penultimate", batch_size=1)
    assert len(conversions) == 1
    assert len(kept(tmp_path)) == 1
    for one, two in zip(first, second, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)


def test_features_do_not_show_whether_the_network_was_converted_before(small, conversions):
    """The run that converts a network and the runs after it give the same bits: an interrupted run can be continued."""
    first, second = (outputs_of(small, "layer1,penultimate", batch_size=2) for _ in range(2))
    assert len(conversions) == 1
    assert all(np.array_equal(one, two) for one, two in zip(first, second, strict=True))


def test_other_taps_weights_and_transforms_are_converted_anew(small, tmp_path, conversions):
    """What shapes the graph is in the key of the cache; the weights' values too."""
    other_weights = open_backbone(SMALL, weights="random:1")
    outputs = [
        *outputs_of(small, "layer1"),
        *outputs_of(small, "layer1@max"),
        *outputs_of(small, "layer2"),
        *outputs_of(other_weights, "layer1"),
    ]
    assert len(conversions) == len(kept(tmp_path)) == 4
    assert not np.allclose(outputs[0], outputs[3])


@pytest.mark.parametrize("harm", ["change", "truncate", "remove"])
def test_a_damaged_cache_is_noticed_and_replaced(small, tmp_path, conversions, harm):
    """A byte that changed, a file cut short or lost: the network is converted again, with the same features."""
    expected = outputs_of(small, "layer1")
    weights = kept(tmp_path)[0] / "network.bin"
    content = bytearray(weights.read_bytes())
    if harm == "remove":
        weights.unlink()
    else:
        content[len(content) // 2] ^= 0x40
        weights.write_bytes(content if harm == "change" else content[:-100])
    assert np.array_equal(outputs_of(small, "layer1"), expected)
    assert len(conversions) == 2
    assert np.array_equal(outputs_of(small, "layer1"), expected)
    assert len(conversions) == 2  # what was damaged has been replaced


def test_a_cache_that_cannot_be_written_costs_time_but_not_the_work(small, tmp_path, conversions, caplog):
    """A file where the folder should be is one warning, and features as ever."""
    (tmp_path / "cache").touch()
    assert outputs_of(small, "layer1")[0].shape == (2, 64)
    assert "is not kept" in caplog.text
    assert len(conversions) == 1


def test_old_converted_networks_make_room(small, tmp_path, conversions, monkeypatch):
    """The least recently used go first."""
    monkeypatch.setattr(openvino_engine, "_MAX_CACHED", 2)
    for layers in ("layer1", "layer2", "layer1", "layer3"):
        outputs_of(small, layers)
    assert len(kept(tmp_path)) == 2
    assert len(conversions) == 3
    outputs_of(small, "layer1")
    assert len(conversions) == 3


def test_a_module_without_a_name_is_not_kept(fake_backbone, tmp_path, conversions):
    """Nothing says that the same class name is the same code tomorrow."""
    outputs_of(fake_backbone, "stages.0")
    assert len(conversions) == 1
    assert not (tmp_path / "cache").exists()


class Untraceable(FakeNetwork):
    """Uses an operation that OpenVINO does not have."""

    def forward(self, images):
        return super().forward(torch.linalg.matrix_exp(torch.zeros_like(images)).sum() * 0 + images)


class Viewing(FakeNetwork):
    """Calls `view` on a map, which works only with the channels first in memory."""

    def forward(self, images):
        return self.classifier(self.stages(images).view(len(images), 8, 16).mean(2))


class Branching(FakeNetwork):
    """Takes a path that hangs on the values, which a trace freezes."""

    def forward(self, images):
        logits = super().forward(images)
        return logits + 1000 if float(images.max()) > 100 else logits


class FixedBatch(FakeNetwork):
    """Has the number of images of the trace in its code."""

    def forward(self, images):
        return super().forward(images.reshape(int(images.shape[0]), 3, 8, 8))


@pytest.mark.parametrize("network", [Untraceable, Branching])
def test_a_network_that_cannot_be_converted_runs_with_torch_and_says_so_once(network, caplog):
    """``auto`` falls back with one logged line, and right values; an explicit ``openvino`` is an error."""
    backbone = open_backbone(network(), transform=FAKE_TRANSFORM)
    taps = backbone.select("stages.2,logits").taps
    with caplog.at_level(logging.WARNING):
        engine = open_engine(backbone, taps, engine="auto", device="cpu", batch_size=2)
    assert engine.name == "torch"
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert f"openvino cannot run {network.__name__}" in caplog.text
    pixels = fake_pixels()
    expected = fake_features(pixels)
    expected["logits"] = expected["logits"] + (1000 if network is Branching else 0)
    for tap, output in zip(taps, engine.run(pixels), strict=True):
        np.testing.assert_allclose(output, expected[tap.layer.name], rtol=1e-5)
    with pytest.raises(EngineError, match=f"openvino cannot run {network.__name__}.*--engine torch"):
        open_engine(backbone, taps, engine="openvino")


def test_a_network_with_the_batch_size_in_its_code_is_right_or_refused():
    """Whatever a trace made of it, features of another batch size are never wrong."""
    backbone = open_backbone(FixedBatch(), transform=FAKE_TRANSFORM)
    taps = backbone.select("logits").taps
    pixels = fake_pixels(5)
    engine = open_engine(backbone, taps, engine="auto", device="cpu", batch_size=4)
    np.testing.assert_allclose(engine.run(pixels)[0], fake_features(pixels)["logits"], rtol=1e-5)


@pytest.mark.parametrize("engine_name", ["openvino", "torch"])
def test_code_that_calls_view_runs_in_every_engine(engine_name):
    """The order of axes in memory, which is chosen for speed, breaks no network."""
    backbone = open_backbone(Viewing(), transform=FAKE_TRANSFORM)
    pixels = fake_pixels()
    engine = open_engine(backbone, backbone.select("stages.0,logits").taps, engine=engine_name, batch_size=2)
    for _ in range(2):
        np.testing.assert_allclose(engine.run(pixels)[1], fake_features(pixels)["logits"], rtol=1e-5)


def test_on_the_cpu_auto_is_openvino(fake_backbone, caplog):
    """Without a word, for a network that can be converted."""
    engine = open_engine(fake_backbone, fake_backbone.select("logits").taps, device="cpu")
    assert (engine.name, engine.device, engine.precision) == ("openvino", "cpu", "f32")
    assert not caplog.records


def test_where_openvino_is_missing_auto_is_torch(fake_backbone, monkeypatch, caplog):
    """An installation without it works, with a warning; asking for it explicitly is an error."""
    taps = fake_backbone.select("logits").taps

    def missing():
        raise ModuleNotFoundError("No module named 'openvino'")

    monkeypatch.setattr(openvino_engine, "import_openvino", missing)
    assert open_engine(fake_backbone, taps, device="cpu").name == "torch"
    assert "No module named 'openvino'" in caplog.text
    with pytest.raises(EngineError, match="No module named 'openvino'"):
        open_engine(fake_backbone, taps, engine="openvino")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "tensorrt"}, "engine 'tensorrt' is unknown; allowed: auto, openvino, torch"),
        ({"precision": "int8"}, "precision 'int8' is unknown; allowed: f32, bf16, f16"),
        ({"device": "cuda:99"}, "device 'cuda:99' is not on this machine; found: cpu"),
        ({"engine": "torch", "device": "tpu"}, "device 'tpu' is not on this machine; found: cpu"),
        ({"engine": "openvino", "device": "cuda"}, "'cuda' does not go with engine openvino"),
        ({"engine": "openvino", "compiled": True}, "--compile does not go with engine openvino"),
        (
            {"engine": "torch", "device": "cpu", "precision": "f16"},
            "f16 is not for torch on the CPU; allowed there: f32",
        ),
        ({"batch_size": 0}, "batch size 0 is not at least 1"),
    ],
)
def test_what_cannot_be_had_is_an_error_not_something_else(fake_backbone, options, message):
    """Unknown and impossible choices are refused with what is allowed, and leave no hook behind."""
    with pytest.raises(EngineError, match=message):
        open_engine(fake_backbone, fake_backbone.select("logits").taps, **options)
    assert not any(child._forward_hooks or child._forward_pre_hooks for child in fake_backbone.module.modules())


@pytest.mark.parametrize(("precision", "capability"), [("bf16", "BF16"), ("f16", "FP16")])
def test_a_precision_that_the_processor_lacks_is_an_error(fake_backbone, monkeypatch, precision, capability):
    """It is never silently another one; the message lists what there is."""
    openvino = openvino_engine.import_openvino()
    found = [name for name in ("FP32", "BF16", "FP16", "INT8") if name != capability]
    monkeypatch.setattr(openvino.Core, "get_property", lambda *_: found)
    with pytest.raises(EngineError, match=f"does not run {precision} with openvino; allowed: f32"):
        open_engine(fake_backbone, fake_backbone.select("logits").taps, device="cpu", precision=precision)


def test_a_precision_that_was_compiled_otherwise_is_an_error(fake_backbone, monkeypatch):
    """What the compiled network says of itself is read back."""
    openvino = openvino_engine.import_openvino()
    compile_model = openvino.Core.compile_model

    def stubborn(self, model, device, hints):
        return compile_model(self, model, device, {**hints, "INFERENCE_PRECISION_HINT": "f32"})

    monkeypatch.setattr(openvino.Core, "get_property", lambda *_: ["FP32", "BF16"])
    monkeypatch.setattr(openvino.Core, "compile_model", stubborn)
    with pytest.raises(EngineError, match="asked openvino for bf16, but it compiled to"):
        open_engine(fake_backbone, fake_backbone.select("logits").taps, engine="openvino", precision="bf16")


@pytest.mark.parametrize("engine_name", ["openvino", "torch"])
def test_bf16_is_another_number_close_by(default_backbone, engine_name):
    """Where the processor has it, bf16 differs from f32, with a cosine above 0.99."""
    core = openvino_engine.shared_core()
    if engine_name == "openvino" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this processor has no bf16")
    taps = default_backbone.select("penultimate").taps
    pixels = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), np.uint8)
    full, brief = (
        open_engine(default_backbone, taps, engine=engine_name, precision=precision, batch_size=2)
        for precision in ("f32", "bf16")
    )
    assert (full.name, full.precision, brief.name, brief.precision) == (engine_name, "f32", engine_name, "bf16")
    one, two = full.run(pixels)[0], brief.run(pixels)[0]
    assert two.dtype == np.float32
    assert not np.array_equal(one, two)
    cosine = (one * two).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(two, axis=1)
    assert cosine.min() > 0.99


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA")
def test_an_accelerator_gives_the_features_of_the_cpu(fake_backbone):
    """On CUDA the values computed by hand come out, and the backbone itself stays on the CPU."""
    pixels = fake_pixels()
    engine = open_engine(fake_backbone, fake_backbone.select("stages.2,logits").taps, device="cuda")
    assert (engine.name, engine.device) == ("torch", "cuda")
    np.testing.assert_allclose(engine.run(pixels)[1], fake_features(pixels)["logits"], rtol=1e-5)
    assert {value.device.type for value in fake_backbone.module.state_dict().values()} == {"cpu"}


def test_too_little_memory_is_an_error_that_names_the_batch_size(fake_backbone, monkeypatch):
    """An accelerator that is full is not a traceback."""
    engine = open_engine(fake_backbone, fake_backbone.select("logits").taps, engine="torch", device="cpu")
    assert isinstance(engine, TorchEngine)

    def full(_pixels):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(engine, "_run", full)
    with pytest.raises(EngineError, match="batches of 3; give a smaller --batch-size"):
        engine.run(fake_pixels())


def test_the_batch_size_chosen_keeps_the_largest_activation_bounded(fake_backbone):
    """Small networks get 32 on the CPU and 256 on an accelerator, larger ones fewer."""
    assert choose_batch_size(fake_backbone, fake_backbone.select("logits").taps, device="cpu") == 32
    assert choose_batch_size(fake_backbone, fake_backbone.select("logits").taps, device="cuda") == 256
    transform = replace(fake_backbone.transform, size=(2048, 2048), resize_size=(2048, 2048))
    large = replace(fake_backbone, transform=transform)
    largest = max(math.prod(layer.shape) for layer in large.layers.values())
    chosen = choose_batch_size(large, large.select("logits").taps, device="cpu")
    assert chosen == int(256e6 / (4 * max(largest, 3 * 2048 * 2048)))
    assert 1 <= chosen < 32
