"""A network small enough to be trained in a moment, and rows for it.

``TinyNetwork`` sees 16 x 16 pixels::

    stem       1x1 convolution                              16 x 16 x 4
    stages.0   3x3 convolution, batch norm, ReLU              8 x 8 x 6
    stages.1   the same                                       4 x 4 x 8
    stages.2   the same                                       2 x 2 x 10
    last       1x1 convolution                                2 x 2 x 12
    (mean over the map)                                               12: `penultimate`
    classifier Linear                                                  5
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from featx.backbones import Backbone, TransformSpec, open_backbone
from featx.finetuning import PictureRows, TunableNetwork, TuningSettings
from featx.images import list_images

TINY_TRANSFORM = TransformSpec(size=(16, 16), resize_size=(18, 18), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
STAGES = [f"stages.{stage}.{part}" for stage in range(3) for part in (0, 1)]  # with parameters
BODY = ["stem", *STAGES, "last"]
WIDTH = 12
# Everything random at once, and steps large enough to show.
LIVELY = TuningSettings(
    regime="total",
    epochs=2,
    batch_size=8,
    optimizer="sgd",
    learning_rate=0.05,
    lr_scale=(1.0, 0.5),
    dropout=0.3,
    augment=("flip", "vflip", "crop", "rotation", "colour", "noise", "mixup"),
    ema=0.9,
    norm_statistics="trained",
    seed=3,
)


class TinyNetwork(nn.Module):
    """See the docstring of this file."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.stem = nn.Conv2d(3, 4, 1)
            self.stages = nn.Sequential(_stage(4, 6), _stage(6, 8), _stage(8, 10))
            self.last = nn.Conv2d(10, WIDTH, 1)
            self.classifier = nn.Linear(WIDTH, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.last(self.stages(self.stem(images))).mean((2, 3)))


def _stage(width_in: int, width: int) -> nn.Sequential:
    convolution = nn.Conv2d(width_in, width, 3, stride=2, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True))


def tiny_backbone() -> Backbone:
    """Return a `TinyNetwork`, opened."""
    return open_backbone(TinyNetwork(), transform=TINY_TRANSFORM)


def tiny_network(settings: TuningSettings) -> TunableNetwork:
    """Return a `TinyNetwork` with a new head for three classes."""
    return TunableNetwork.of_backbone(tiny_backbone(), 3, settings)


def pictures_of(folder: object, augment: Sequence[str] = (), n_workers: int = 0) -> PictureRows:
    """Return the pictures of a folder as rows for a `TinyNetwork`."""
    listing = list_images(str(folder))
    return PictureRows(listing.entries, listing.labels.astype(np.int64), TINY_TRANSFORM, augment, n_workers)


def copied(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors of a network, safe from what happens to it later."""
    return {name: value.clone() for name, value in state.items()}


def differing(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> set[str]:
    """Return the names of tensors that are not equal bit for bit; both must have the same names."""
    if one.keys() != other.keys():
        raise KeyError(f"not the same names: {one.keys() ^ other.keys()}")
    return {name for name in one if not torch.equal(one[name], other[name])}


def watched_generators() -> Callable[[], bool]:
    """Return a function that says whether the generators of the whole process are as they were now."""
    torch_state, legacy = torch.get_rng_state(), np.random.get_state()  # noqa: NPY002 - the one being watched
    python = random.getstate()

    def are_untouched() -> bool:
        now: Any = np.random.get_state()  # noqa: NPY002 - as above
        same = all(np.array_equal(one, other) for one, other in zip(legacy, now, strict=True))
        return same and random.getstate() == python and torch.equal(torch.get_rng_state(), torch_state)

    return are_untouched


class Recorded:
    """Rows that remember which of them were asked for.

    Parameters
    ----------
    rows : TrainingRows
        What is handed on.
    """

    def __init__(self, rows: Any) -> None:
        self.rows, self.labels = rows, rows.labels
        self.asked: list[list[int]] = []

    def batches(self, rows: Sequence[np.ndarray], key: Sequence[int]) -> Iterator[Any]:
        self.asked += [batch.tolist() for batch in rows]
        return self.rows.batches(rows, key)
