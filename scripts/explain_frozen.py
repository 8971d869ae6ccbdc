"""What can make a frozen SqueezeNet name only 13 % of CIFAR-10 rightly, as a student's report found?

    python scripts/explain_frozen.py ../shared/data/cifar10_5k ../shared/weights/squeezenet1_1.torchvision.safetensors

The network is frozen; only a new last layer is trained, with Adam at 1e-4 for 10 epochs in batches of 32, on the train
split; the accuracy is that on the test split. Each line changes one thing. "conv, ReLU, mean" is torchvision's own
classifier with another number of classes: its ReLU lies behind the new layer, so that a logit below 0 cannot learn.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from featx.backbones import Backbone, open_backbone
from featx.images import TEST, TRAIN, list_images, resize_and_crop

N_EPOCHS, BATCH, RATE = 10, 32, 1e-4


@dataclass(frozen=True)
class Variant:
    """One way to do it."""

    name: str
    size: int = 96
    weights: str = ""
    is_normalised: bool = True
    has_relu: bool = True
    is_trained: bool = True


VARIANTS = (
    Variant("as it should be: linear on the pooled features", has_relu=False),
    Variant("conv, ReLU, mean"),
    Variant("pictures of 32 x 32, not enlarged; linear", size=32, has_relu=False),
    Variant("pictures of 32 x 32; conv, ReLU, mean", size=32),
    Variant("pixels 0 to 1, not normalised; linear", is_normalised=False, has_relu=False),
    Variant("pixels 0 to 1, 32 x 32; conv, ReLU, mean", size=32, is_normalised=False),
    Variant("random weights, frozen; linear", weights="random:0", has_relu=False),
    Variant("random weights, frozen; conv, ReLU, mean", weights="random:0"),
    Variant("random weights, 32 x 32; conv, ReLU, mean", size=32, weights="random:0"),
    Variant("the new layer frozen, too; linear", has_relu=False, is_trained=False),
    Variant("the new layer frozen, too; conv, ReLU, mean", is_trained=False),
)


def main() -> int:
    """Print a line a variant, for three seeds of the new layer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", help="cifar10_5k")
    parser.add_argument("weights", help="of torchvision's squeezenet1_1")
    arguments = parser.parse_args()
    print("| what | accuracy, three seeds | logits that are 0 for every image |")
    print("| --- | --- | --- |")
    for variant in VARIANTS:
        maps = {split: list(feature_maps(variant, arguments, split)) for split in (TRAIN, TEST)}
        learned, scored = (tuple(map(torch.cat, zip(*maps[split], strict=True))) for split in (TRAIN, TEST))
        found = [accuracy_of(variant, learned, scored, seed) for seed in range(3)]
        shares = ", ".join(f"{accuracy:.3f}" for accuracy, _ in found)
        print(f"| {variant.name} | {shares} | {', '.join(str(dead) for _, dead in found)} of 10 |", flush=True)
    return 0


def feature_maps(
    variant: Variant, arguments: argparse.Namespace, split: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield what the last layer receives, (batch, 512, rows, columns), and labels."""
    weights = variant.weights or str(Path(arguments.weights))
    backbone = open_backbone("torchvision:squeezenet1_1", weights=weights, size=variant.size)
    entries = [entry for entry in list_images(arguments.images).entries if entry.split == split]
    for start in range(0, len(entries), 100):
        batch = entries[start : start + 100]
        with torch.inference_mode():
            features = backbone.module.features(pixels_of(backbone, variant, batch))
        yield features, torch.tensor([entry.label for entry in batch])


def pixels_of(backbone: Backbone, variant: Variant, entries: list) -> torch.Tensor:
    """Return the network's input (batch, 3, size, size)."""
    transform = backbone.transform
    # Without the usual margin: at 32 x 32 it would cut pictures of 32 x 32.
    geometry = {**transform.geometry, "resize_size": transform.size}
    pictures = [resize_and_crop(entry.read().decode(), **geometry) for entry in entries]
    pixels = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2) / 255
    if not variant.is_normalised:
        return pixels
    return (pixels - torch.tensor(transform.mean).view(3, 1, 1)) / torch.tensor(transform.std).view(3, 1, 1)


def accuracy_of(variant: Variant, learned: tuple, scored: tuple, seed: int) -> tuple[float, int]:
    """Return the accuracy on the test split, and how many of the ten logits are 0 for all of its images."""
    torch.manual_seed(seed)
    layer = nn.Conv2d(512, 10, 1)
    nn.init.normal_(layer.weight, std=0.01)  # as torchvision does for this layer
    nn.init.zeros_(layer.bias)
    optimizer = torch.optim.Adam(layer.parameters(), RATE)

    def logits_of(maps: torch.Tensor) -> torch.Tensor:
        outputs = layer(maps)
        return (outputs.relu() if variant.has_relu else outputs).mean((2, 3))

    maps, labels = learned
    for _ in range(N_EPOCHS if variant.is_trained else 0):
        for rows in torch.randperm(len(labels)).split(BATCH):
            kept = functional.dropout(maps[rows], 0.5)
            loss = functional.cross_entropy(logits_of(kept), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.inference_mode():
        logits = logits_of(scored[0])
    return float((logits.argmax(1) == scored[1]).float().mean()), int((logits == 0).all(0).sum())


if __name__ == "__main__":
    raise SystemExit(main())
