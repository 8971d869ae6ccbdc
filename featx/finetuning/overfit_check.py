"""Can the network learn a handful of images by heart? If not, something is wrong that no long training will mend."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import nn
from torch.nn import functional

from featx.finetuning.optimising import make_optimizer
from featx.finetuning.randomness import seeded

if TYPE_CHECKING:
    from featx.finetuning.rows import TrainingRows
    from featx.finetuning.settings import TuningSettings

_N_IMAGES = 16
_LEAST_STEPS, _MAX_STEPS = 5, 60  # a head that knows them already shows only by steps that the rate is too high
_MAX_SECONDS = 60.0


@dataclass(frozen=True)
class OverfitCheck:
    """How a copy of the network did on a handful of images that it saw again and again.

    Attributes
    ----------
    n_images, n_steps : int
        Images, and steps until all were named rightly, five at least (or the check was given up).
    accuracy : float
        On these images at the end.
    """

    n_images: int
    n_steps: int
    accuracy: float

    @property
    def passed(self) -> bool:
        """Whether every image was named rightly."""
        return self.accuracy == 1.0


def learns_by_heart(
    network: nn.Module, rows: TrainingRows, settings: TuningSettings, *, device: str = "cpu"
) -> OverfitCheck:
    """Return how a copy of a network learns at most 16 images by heart: in 60 steps or a minute, whichever ends first.

    Parameters
    ----------
    network : nn.Module
        From inputs of the rows to logits, on the device; stays as it is.
    rows : TrainingRows
        Without augmentation.
    settings : TuningSettings
        Optimizer and learning rates are theirs.
    device : str
        A torch device.
    """
    chosen = _handful(rows.labels)
    copied = copy.deepcopy(network).train()
    optimizer = make_optimizer(copied, settings)
    inputs, labels = next(iter(rows.batches([chosen], (settings.seed, 0))))
    inputs, labels = inputs.to(device), labels.to(device)
    started, n_steps, accuracy = time.perf_counter(), 0, 0.0
    with seeded(settings.seed, 1, device=device):
        while n_steps < _MAX_STEPS and time.perf_counter() - started < _MAX_SECONDS:
            logits = copied(inputs)
            accuracy = float((logits.argmax(1) == labels).float().mean())
            if accuracy == 1.0 and n_steps >= _LEAST_STEPS:
                break
            optimizer.zero_grad(set_to_none=True)
            functional.cross_entropy(logits, labels).backward()
            optimizer.step()
            n_steps += 1
    return OverfitCheck(len(chosen), n_steps, accuracy)


def _handful(labels: np.ndarray) -> np.ndarray:
    """Return the first rows of each class in turn, so that as many classes as possible take part."""
    place_in_class = np.zeros(len(labels), np.int64)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        place_in_class[rows] = np.arange(len(rows))
    return np.argsort(place_in_class, kind="stable")[: min(_N_IMAGES, len(labels))]
