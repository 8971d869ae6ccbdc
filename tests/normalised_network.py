"""A network of two batch-norm layers whose running statistics can be those of given pictures, and such pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from fake_backbone import FAKE_TRANSFORM, SIDE, convolution
from torch import nn

from featx.backbones import Backbone, open_backbone
from featx.extraction.memory_entries import memory_entry


class NormalisedNetwork(nn.Module):
    """The colours as they are, batch norm, their sums of two, batch norm, mean over the map."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.BatchNorm2d(3, eps=0.0)
        self.mix = convolution([[1, 1, 0], [0, 1, 1], [1, 0, 1]])
        self.second = nn.BatchNorm2d(3, eps=0.0)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.second(self.mix(self.first(images))).mean((2, 3))


def trained_on(pictures: np.ndarray) -> Backbone:
    """Return a backbone whose running statistics are exactly those of pictures (n, 8, 8, 3)."""
    network = NormalisedNetwork().eval()
    pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).double()
    with torch.no_grad():
        _fill(network.first, pixels)
        _fill(network.second, network.double().mix(network.first(pixels)))
    return open_backbone(network.float(), transform=FAKE_TRANSFORM)


def _fill(layer: nn.BatchNorm2d, maps: torch.Tensor) -> None:
    """Give a layer the statistics of its input; between images as the unbiased variance."""
    means = maps.mean((2, 3))
    variances = maps.var((2, 3), correction=0).mean(0)
    layer.running_mean = means.mean(0)
    layer.running_var = variances + means.var(0, correction=1)


def shuffled_pictures(n_images: int, *, seed: int = 0) -> np.ndarray:
    """Return pictures (n_images, 8, 8, 3) of uint8 of the same pixels, shuffled: none differs in mean."""
    random = np.random.default_rng(seed)
    pixels = random.integers(60, 190, (SIDE * SIDE, 3), np.uint8)
    return np.stack([random.permutation(pixels).reshape(SIDE, SIDE, 3) for _ in range(n_images)])


def varied_pictures(n_images: int, *, contrast: float = 1.0, seed: int = 0) -> np.ndarray:
    """Return pictures (n_images, 8, 8, 3) of uint8 around 128 that differ in brightness, more so with contrast."""
    random = np.random.default_rng(seed)
    colours = 20 * random.standard_normal((n_images, 1, 1, 3)) + 25 * random.standard_normal((n_images, SIDE, SIDE, 3))
    return np.clip(np.rint(128 + contrast * colours), 0, 255).astype(np.uint8)


def entries_of(pictures: np.ndarray) -> list[Any]:
    """Return pictures as entries in memory."""
    return [memory_entry(picture, number) for number, picture in enumerate(pictures)]
