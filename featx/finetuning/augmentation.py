"""Random changes of training pictures: timm's and torchvision's own steps in a fixed order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from timm.data.mixup import Mixup, mixup_target
from timm.data.transforms import RandomResizedCropAndInterpolation
from torchvision.transforms import v2

from featx.images import resize_and_crop

if TYPE_CHECKING:
    from PIL import Image

    from featx.backbones import TransformSpec

_LEAST_CROP = 0.5  # of the picture's area
_DEGREES = 15.0
_JITTER = 0.3  # of brightness, contrast and saturation
_SIGMA = 0.05  # of noise, where pixels are 0 to 1
_MIXUP_ALPHA = 0.2


def picture_steps(transform: TransformSpec, augment: Sequence[str]) -> Callable[[Image.Image], torch.Tensor]:
    """Return what turns a picture into pixels (height, width, 3), uint8, drawing from torch's and Python's generators.

    Parameters
    ----------
    transform : TransformSpec
        Of the network; without ``crop``, its own resizing and crop is what is changed further.
    augment : sequence of str
        Of `featx.finetuning.settings.AUGMENTATIONS`; ``mixup`` is a matter of batches, see `mix`.
    """
    crop = RandomResizedCropAndInterpolation(
        transform.size, scale=(_LEAST_CROP, 1.0), interpolation=transform.interpolation
    )
    steps: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "flip": v2.RandomHorizontalFlip(),
        "vflip": v2.RandomVerticalFlip(),
        "rotation": v2.RandomRotation(
            _DEGREES, interpolation=v2.InterpolationMode.BILINEAR, fill=list(map(float, transform.fill))
        ),
        "colour": v2.ColorJitter(_JITTER, _JITTER, _JITTER),
        "noise": v2.GaussianNoise(sigma=_SIGMA),
    }
    chosen = [step for name, step in steps.items() if name in augment]

    def prepared(picture: Image.Image) -> torch.Tensor:
        if "crop" in augment:
            pixels = np.array(crop(picture))
        else:
            pixels = np.array(resize_and_crop(picture, **transform.geometry))
        channels = torch.from_numpy(pixels).permute(2, 0, 1)
        for step in chosen:
            channels = step(channels)
        return channels.permute(1, 2, 0).contiguous()

    return prepared


def mix(
    inputs: torch.Tensor, labels: torch.Tensor, n_classes: int, label_smoothing: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return inputs blended with one another, and their targets (batch, n_classes): timm's mixup (Zhang et al. 2018).

    Parameters
    ----------
    inputs : torch.Tensor
        A batch of pixels or features; the last of an odd number stays as it is.
    labels : torch.Tensor
        Class of each, int64.
    n_classes : int
        Of all classes.
    label_smoothing : float
        Share of each target given to all classes alike.
    """
    n_even = len(inputs) - len(inputs) % 2
    mixup = Mixup(mixup_alpha=_MIXUP_ALPHA, label_smoothing=label_smoothing, num_classes=n_classes)
    # A copy, for timm blends in place.
    mixed, targets = mixup(inputs[:n_even].to(torch.float32, copy=True), labels[:n_even])
    if n_even == len(inputs):
        return mixed, targets
    rest = mixup_target(labels[n_even:], n_classes, 1.0, label_smoothing)
    return torch.cat([mixed, inputs[n_even:].float()]), torch.cat([targets, rest])
