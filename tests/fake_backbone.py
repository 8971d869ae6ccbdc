"""A network whose every feature can be computed by hand, and pictures that it tells apart.

``FakeNetwork`` sees 8 x 8 pixels as values 0..255::

    stages.0   1x1 convolution     R + G + B, R, G, B                  8 x 8 x 4    768 MACs
    stages.1   2x2 average pool    the same four, averaged             4 x 4 x 4      0
    stages.2   1x1 convolution     the four, then twice the four       4 x 4 x 8    512
    stages.3   1x1 convolution     the eight in reverse order          4 x 4 x 8   1024
    stages.4   1x1 convolution     one more than each                  4 x 4 x 8   1024
    (mean over the map)                                                        8      0
    classifier Linear              R + 1, G + 1, B + 1                         3     24

so that 25, 50 and 75 % of its work end at ``stages.1``, ``stages.2`` and ``stages.3``, and ``penultimate`` is the
mean over the map.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from featx.backbones import TransformSpec

SIDE = 8
# Pixels come in as 0..255: what is computed stays in whole numbers.
FAKE_TRANSFORM = TransformSpec(
    size=(SIDE, SIDE), resize_size=(SIDE, SIDE), mean=(0.0, 0.0, 0.0), std=(1 / 255, 1 / 255, 1 / 255)
)
FAKE_MACS = {
    "stages.0": 768,
    "stages.1": 768,
    "stages.2": 1280,
    "stages.3": 2304,
    "stages.4": 3328,
    "stages": 3328,
    "penultimate": 3328,
    "classifier": 3352,
    "logits": 3352,
}
FAKE_WIDTHS = {"stages.0": 4, "stages.1": 4, "stages.2": 8, "stages.3": 8, "stages.4": 8, "penultimate": 8, "logits": 3}
COLOURS = {"blue": (30, 60, 220), "green": (40, 200, 50), "red": (210, 40, 30)}


class FakeNetwork(nn.Module):
    """See the docstring of this file."""

    def __init__(self) -> None:
        super().__init__()
        identity = np.eye(4)
        self.stages = nn.Sequential(
            convolution([[1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]]),
            nn.AvgPool2d(2),
            convolution(np.concatenate([identity, 2 * identity])),
            convolution(np.eye(8)[::-1]),
            convolution(np.eye(8), bias=1.0),
        )
        self.classifier = nn.Linear(8, 3)
        with torch.no_grad():
            self.classifier.bias.zero_()
            # After stages.3 the channels are 2B 2G 2R 2(R+G+B) B G R (R+G+B).
            self.classifier.weight.copy_(torch.eye(8)[[6, 5, 4]])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.stages(images).mean((2, 3)))


def convolution(weight: object, bias: float = 0.0) -> nn.Conv2d:
    """Return a 1x1 convolution of the weights given, as rows of output channels."""
    matrix = torch.tensor(np.array(weight, np.float32))
    layer = nn.Conv2d(matrix.shape[1], matrix.shape[0], 1)
    with torch.no_grad():
        layer.weight.copy_(matrix[:, :, None, None])
        layer.bias.fill_(bias)
    return layer


def fake_maps(pixels: np.ndarray) -> dict[str, np.ndarray]:
    """Return the maps (n, rows, columns, channels) of `FakeNetwork`, computed with numpy alone.

    Parameters
    ----------
    pixels : ndarray of uint8
        (n, 8, 8, 3).
    """
    colours = pixels.astype(np.float64)
    summed = np.concatenate([colours.sum(3, keepdims=True), colours], axis=3)
    halved = summed.reshape(len(pixels), 4, 2, 4, 2, 4).mean((2, 4))
    doubled = np.concatenate([halved, 2 * halved], axis=3)
    reversed_ = doubled[..., ::-1]
    return {
        "stages.0": summed,
        "stages.1": halved,
        "stages.2": doubled,
        "stages.3": reversed_,
        "stages.4": reversed_ + 1,
    }


def fake_features(pixels: np.ndarray) -> dict[str, np.ndarray]:
    """Return the averaged features (n, width) of every layer of `FakeNetwork`, computed with numpy alone."""
    features = {name: maps.mean((1, 2)) for name, maps in fake_maps(pixels).items()}
    features["penultimate"] = features["stages.4"]
    features["logits"] = pixels.mean((1, 2)) + 1
    return features


def fake_pixels(n_images: int = 3, seed: int = 0) -> np.ndarray:
    """Return random pictures (n_images, 8, 8, 3) of uint8."""
    return np.random.default_rng(seed).integers(0, 256, (n_images, SIDE, SIDE, 3), np.uint8)


def count_calls(module: nn.Module) -> Counter[str]:
    """Return a counter that grows by one whenever a module of the network runs."""
    calls: Counter[str] = Counter()
    for name, child in module.named_modules():
        if name:
            child.register_forward_pre_hook(lambda _module, _inputs, name=name: calls.update([name]))
    return calls


def write_pictures(folder: Path, *, n_each: int = 8, size: tuple[int, int] = (24, 18), seed: int = 0) -> Path:
    """Write a folder of class folders ``blue``, ``green``, ``red``, with noisy pictures of that colour.

    Parameters
    ----------
    folder : Path
        Made where it is not there.
    n_each : int
        Pictures a class; JPEG and PNG take turns.
    size : (int, int)
        Width and height in pixels.
    seed : int
        Of the noise.
    """
    random = np.random.default_rng(seed)
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(n_each):
            noise = random.integers(-25, 26, (size[1], size[0], 3))
            picture = Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8))
            picture.save(folder / name / f"{number:03d}.{('jpg', 'png')[number % 2]}")
    return folder
