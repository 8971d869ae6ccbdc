"""Compares pixels with timm's evaluation transform, and features with eager torch on timm's pixels, at full size.

    python scripts/check_exactness.py ../shared/data/pets3_180

Nothing of featx is used on the other side: pictures are opened by Pillow, transformed by timm, and the network is
timm's own with a plain forward hook. Weights are random but for the default network; both sides have the same.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config

from featx.backbones import open_backbone
from featx.extraction import ComputeOptions, FeatureComputer
from featx.extraction.loading import load_images
from featx.images import list_images

# network, middle layer, how its output is averaged: axes, and prefix tokens left out
NETWORKS = {
    "tf_efficientnet_lite0": ("blocks.3", (2, 3), 0),
    "resnet18": ("layer2", (2, 3), 0),
    "mobilenetv3_small_100": ("blocks.2", (2, 3), 0),
    "vit_tiny_patch16_224": ("blocks.5", (1,), 1),
    "vit_wee_patch16_reg1_gap_256": ("blocks.6", (1,), 1),
    "vit_small_patch16_dinov3": ("blocks.5", (1,), 5),
    "convnext_atto": ("stages.1", (2, 3), 0),
    "swin_tiny_patch4_window7_224": ("layers.1", (1, 2), 0),
}
BUNDLED = "tf_efficientnet_lite0"


@dataclass
class Sample:
    """Images of a folder, for featx and for everybody else."""

    entries: tuple
    pictures: list


def main() -> int:
    """Print every figure; the exit code is 1 where one is out of bounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--features-on", type=int, default=16, metavar="N", help="images for the networks")
    arguments = parser.parse_args()
    entries = list_images(arguments.photos).entries
    pixels_are_right = compare_pixels(read(entries))
    step = max(1, len(entries) // arguments.features_on)
    sample = read(entries[::step][: arguments.features_on])
    features_are_right = [compare_features(name, sample) for name in NETWORKS]
    return 0 if pixels_are_right and all(features_are_right) else 1


def read(entries: tuple) -> Sample:
    """Return images with their pictures as Pillow opens them."""
    return Sample(entries, [Image.open(entry.location).convert("RGB") for entry in entries])


def compare_pixels(sample: Sample) -> bool:
    """Print how many pixels are those of timm's transform with the default network."""
    backbone = open_backbone()
    config = resolve_model_data_config(timm.create_model(BUNDLED))
    transform = create_transform(**config, is_training=False, normalize=False)
    shares, largest = [], 0
    for loaded, picture in zip(load_images(sample.entries, backbone.transform), sample.pictures, strict=True):
        wanted = np.moveaxis(np.asarray(transform(picture)), 0, -1).astype(int)
        difference = np.abs(wanted - loaded.pixels.astype(int))
        shares.append((difference == 0).mean())
        largest = max(largest, int(difference.max()))
    n_portraits = sum(picture.height > picture.width for picture in sample.pictures)
    print(
        f"pixels: {len(shares)} images, {n_portraits} portraits; {np.mean(shares):.4%} identical, worst image"
        f" {min(shares):.4%}, at most {largest} levels off"
    )
    return np.mean(shares) >= 0.999 and min(shares) >= 0.995 and largest <= 2


def compare_features(name: str, sample: Sample) -> bool:
    """Print the smallest cosine between featx and eager torch for a middle and the last layer, on both engines."""
    backbone = open_backbone(name, weights=None if name == BUNDLED else "random:0")
    layer, axes, n_prefix = NETWORKS[name]
    model = timm.create_model(name).eval()
    model.load_state_dict(backbone.module.state_dict())
    wanted = eager_features(model, layer, axes, n_prefix, sample.pictures)
    smallest = []
    for engine in ("openvino", "torch"):
        computer = FeatureComputer(backbone, backbone.select([layer, "penultimate"]).taps, ComputeOptions(engine))
        features, _ = computer.features_of(sample.entries)
        ran = computer.describe_engine()
        cosines = [cosine(features[f"{key}@avg"], wanted[key]) for key in (layer, "penultimate")]
        smallest += cosines
        print(f"{name:30} {ran:24} {layer} {cosines[0]:.8f}, penultimate {cosines[1]:.8f}")
        if not ran.startswith(engine):
            return False
    return min(smallest) >= 0.99999


def eager_features(
    model: torch.nn.Module, layer: str, axes: tuple[int, ...], n_prefix: int, pictures: list
) -> dict[str, np.ndarray]:
    """Return the pooled middle layer and what the classifier receives, by timm and torch alone."""
    kept = {}
    handle = model.get_submodule(layer).register_forward_hook(lambda _m, _i, output: kept.update(output=output.clone()))
    transform = create_transform(**resolve_model_data_config(model), is_training=False)
    with torch.inference_mode():
        images = torch.stack([transform(picture) for picture in pictures])
        penultimate = model.forward_head(model.forward_features(images), pre_logits=True)
    handle.remove()
    middle = kept["output"]
    middle = (middle[:, n_prefix:] if middle.ndim == 3 else middle).mean(axes)
    return {layer: middle.numpy(), "penultimate": penultimate.numpy()}


def cosine(found: np.ndarray, wanted: np.ndarray) -> float:
    """Return the smallest cosine of two rows."""
    found, wanted = found.astype(np.float64), wanted.astype(np.float64)
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(wanted, axis=1)
    return float(((found * wanted).sum(1) / norms).min())


if __name__ == "__main__":
    sys.exit(main())
