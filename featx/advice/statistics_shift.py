"""How far the statistics of some images are from those of a network's source, layer by layer.

Two numbers a layer: the mean over its channels of the absolute log ratio of the variances, and of the squared
difference of the means in units of the source's standard deviation. A shift is their sum, averaged over the layers.
They are the two parts in which the divergence of two Gaussians is written, the first without its curvature: so a
channel that hardly varies does not outweigh all others. The sum needs no scale of its own for each network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from featx.advice.normalisation_statistics import LayerSample

_TINY = 1e-30
N_RESAMPLES = 200


@dataclass(frozen=True)
class LayerShift:
    """How far one batch-norm layer's input is from what the layer was trained on.

    Parameters
    ----------
    layer : str
        Dotted module name.
    depth : float
        Work of the network up to this layer as a fraction of the whole, 0..1.
    variance_shift : float
        Mean over channels of ``|log(target variance / running variance)|``, corrected for the number of images.
    mean_shift : float
        Mean over channels of the squared difference of the means by the running variance, corrected likewise.
    """

    layer: str
    depth: float
    variance_shift: float
    mean_shift: float


def layer_shift(sample: LayerSample, depth: float = 0.0) -> LayerShift:
    """Return the shift of one layer, without the part of it that comes from there being few images.

    Parameters
    ----------
    sample : LayerSample
        Of at least two images.
    depth : float
        Handed on.

    Notes
    -----
    Few images make both numbers too large: noise moves a channel away from its running statistics as often in one
    direction as in the other, and either counts. The noise of each channel is estimated from the differences between
    images. That of the means is subtracted from their squares, which is exact. The mean absolute log ratio is shrunk
    by what remains of the mean squared log ratio, which is exact where both signal and noise are normal over the
    channels. With the default network, caltech_10 gives 0.27 with 8 images without this and 0.20 with it, against
    0.17 with 192; below 16 images what remains of the bias is up to 0.03.
    """
    n_images = len(sample.means)
    scale = sample.running_variance.astype(np.float64) + sample.epsilon + _TINY
    offsets = sample.means.astype(np.float64) - sample.running_mean
    offset = offsets.mean(0)
    spread = (offsets - offset) ** 2 * (n_images / (n_images - 1))
    # parts[i, c]: what image i adds to the variance of channel c, within the image and between images
    parts = sample.variances + spread
    variances = parts.mean(0) + sample.epsilon + _TINY
    log_ratios = np.log(variances / scale)
    noise = parts.var(0, ddof=1) / n_images / variances**2  # of each log ratio, to first order
    squared = float((log_ratios**2).mean())
    kept = max(0.0, 1 - float(noise.mean()) / squared) if squared > 0 else 0.0
    mean_shift = float(((offset**2 - spread.mean(0) / n_images) / scale).mean())
    return LayerShift(
        sample.layer, depth, float(np.abs(log_ratios).mean()) * float(np.sqrt(kept)), max(0.0, mean_shift)
    )


def total_shift(shifts: Sequence[LayerShift]) -> float:
    """Return the mean over layers of variance shift and mean shift together."""
    return float(np.mean([shift.variance_shift + shift.mean_shift for shift in shifts]))


def shifts_by_depth(samples: Sequence[LayerSample], depths: Mapping[str, float]) -> tuple[LayerShift, ...]:
    """Return the shift of every layer; a layer without a known depth gets its rank in execution order."""
    last = max(1, len(samples) - 1)
    return tuple(
        layer_shift(sample, float(depths.get(sample.layer, rank / last))) for rank, sample in enumerate(samples)
    )


def shift_interval(
    samples: Sequence[LayerSample], shift: float, *, seed: int = 0, confidence: float = 0.95
) -> tuple[float, float]:
    """Return the interval of a total shift, from resampling the images; never below 0.

    Parameters
    ----------
    samples : sequence of LayerSample
        Of the same images, in the same order.
    shift : float
        Their `total_shift`.
    seed : int
        Of the resampling.
    confidence : float
        How often such an interval should hold the shift of all images.

    Notes
    -----
    Resampled images are noisier than the images themselves, so that only how the resampled shifts differ from their
    own mean is taken. Measured on five sets with 8 to 64 of 192 images: 225 of 240 intervals held the shift of all.
    """
    n_images = len(samples[0].means)
    counts = np.random.default_rng(seed).multinomial(n_images, np.full(n_images, 1 / n_images), size=N_RESAMPLES)
    weights = (counts / n_images).astype(np.float32)
    resampled = np.mean([_resampled_shifts(sample, weights) for sample in samples], axis=0)
    deviations = (resampled - resampled.mean()) * np.sqrt(n_images / (n_images - 1))
    low, high = np.quantile(deviations, [(1 - confidence) / 2, (1 + confidence) / 2])
    return max(0.0, shift + min(0.0, float(low))), shift + max(0.0, float(high))


def _resampled_shifts(sample: LayerSample, weights: np.ndarray) -> np.ndarray:
    """Return one layer's uncorrected shift for each row of weights (resamples, images)."""
    n_images = weights.shape[1]
    scale = sample.running_variance + np.float32(sample.epsilon + _TINY)
    center = sample.means.mean(0)
    offsets = sample.means - center
    moved = weights @ offsets  # (resamples, channels)
    between = np.maximum(weights @ offsets**2 - moved**2, 0) * np.float32(n_images / (n_images - 1))
    variances = weights @ sample.variances + between + np.float32(sample.epsilon + _TINY)
    mean_shifts = (moved + (center - sample.running_mean)) ** 2 / scale
    return np.abs(np.log(variances / scale)).mean(1) + mean_shifts.mean(1)
