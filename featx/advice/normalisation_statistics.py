"""What the batch-norm layers of a network see of some images, and the statistics that they keep of its source.

A batch-norm layer keeps the mean and the variance that each channel of its input had over the images that the network
was trained on. They are read here beside the same statistics of other images: the source's images are not needed.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from torch import nn


@dataclass(frozen=True, eq=False)
class LayerSample:
    """The input of one batch-norm layer over n images, by image and channel, and what the layer was trained on.

    Parameters
    ----------
    layer : str
        Dotted module name.
    means, variances : ndarray of float32
        (n, channels): of each image, over its pixels; variances are those about the image's own mean.
    running_mean, running_variance : ndarray of float32
        (channels,): those that the layer normalises with.
    epsilon : float
        What the layer adds to variances before it divides by them.
    """

    layer: str
    means: np.ndarray
    variances: np.ndarray
    running_mean: np.ndarray
    running_variance: np.ndarray
    epsilon: float


def normalisation_layers(module: nn.Module) -> dict[str, nn.Module]:
    """Return the layers of a network that keep a running mean and variance, by name: batch norm of any make.

    Layers whose statistics are those they were made with (mean 0, variance 1) have seen no images and are left out.
    """
    found = {}
    for name, layer in module.named_modules():
        mean, variance = getattr(layer, "running_mean", None), getattr(layer, "running_var", None)
        if mean is None or variance is None:
            continue
        if bool((mean != 0).any()) or bool((variance != 1).any()):
            found[name] = layer
    return found


class ChannelStatistics:
    """Collects mean and variance by image and channel of what enters batch-norm layers, while passes go on.

    Parameters
    ----------
    layers : dict of str to nn.Module
        See `normalisation_layers`.

    Notes
    -----
    A layer that a pass calls more than once, or with something else than one map an image, is left out: its running
    statistics are of a mixture that cannot be told apart.
    """

    def __init__(self, layers: dict[str, nn.Module]) -> None:
        self._layers = layers
        self._seen: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
        self._unfit: set[str] = set()
        self._n_images = 0  # of all passes that are over
        self._batch: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    @contextmanager
    def listening(self) -> Generator[ChannelStatistics]:
        """Hooks on the layers while it lasts."""
        handles = [layer.register_forward_pre_hook(self._hook(name)) for name, layer in self._layers.items()]
        try:
            yield self
        finally:
            for handle in handles:
                handle.remove()

    def end_batch(self, n_images: int) -> None:
        """Take in what one pass over `n_images` images has shown."""
        for name, (means, variances) in self._batch.items():
            if len(means) != n_images:
                self._unfit.add(name)
            self._seen.setdefault(name, []).append((means, variances))
        self._batch = {}

    def samples(self) -> tuple[LayerSample, ...]:
        """Return what was seen, in execution order."""
        return tuple(self._sample(name) for name in self._seen if name not in self._unfit)

    def _hook(self, name: str) -> Any:
        def note(_module: nn.Module, inputs: Sequence[Any]) -> None:
            if name in self._batch:
                self._unfit.add(name)
            elif name not in self._unfit:
                self._batch[name] = _moments(inputs[0])

        return note

    def _sample(self, name: str) -> LayerSample:
        layer: Any = self._layers[name]
        means, variances = (np.concatenate(parts) for parts in zip(*self._seen[name], strict=True))
        running_mean, running_variance = (
            value.detach().float().cpu().numpy().copy() for value in (layer.running_mean, layer.running_var)
        )
        return LayerSample(name, means, variances, running_mean, running_variance, float(getattr(layer, "eps", 0.0)))


def _moments(maps: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and variance of maps (n, channels, ...) over all axes but the first two, as (n, channels) each.

    Notes
    -----
    The variance is the mean square without the squared mean: ten times as fast as ``torch.var_mean``, and 1 %
    wrong where the mean is a hundred standard deviations from 0 (0.1 % at thirty).
    """
    values = maps.detach().float().reshape(*maps.shape[:2], -1)
    means = values.mean(2)
    squares = torch.linalg.vector_norm(values, dim=2) ** 2 / values.shape[2]
    return means.cpu().numpy(), (squares - means**2).clamp_min(0).cpu().numpy()
