"""How similar images are to those that a network was trained on, without having those.

Where the network has batch norm, its running statistics stand for the source's images (`statistics_shift`); where it
has not, its classifier's confidence does (`classifier_evidence`). `calibration` makes a number from 0 to 1 of either.

References
----------
Y. Li et al.: Revisiting batch normalization for practical domain adaptation, ICLR workshop 2017 (the statistics of
batch norm as what tells domains apart).
D. Hendrycks, K. Gimpel: A baseline for detecting misclassified and out-of-distribution examples in neural networks,
ICLR 2017 (the largest probability).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from featx.advice import calibration
from featx.advice.classifier_evidence import (
    ClassifierEvidence,
    ClassifierOutputs,
    confidence_interval,
    has_classifier,
)
from featx.advice.normalisation_statistics import ChannelStatistics, LayerSample, normalisation_layers
from featx.advice.statistics_shift import LayerShift, shift_interval, shifts_by_depth, total_shift
from featx.errors import UsageError
from featx.extraction.loading import LoadedImage, load_images, stack_pixels

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from torch import nn

    from featx.extraction.loading import Readable

__all__ = ["ClassifierEvidence", "LayerShift", "Similarity", "measure_similarity"]

BATCH_NORM, CONFIDENCE = "batch-norm statistics", "classifier confidence"
_BATCH_SIZE = 16
_ENLARGED = 0.5  # the median picture's shorter edge, by that of the network's input, below which blur is spoken of


@dataclass(frozen=True)
class Similarity:
    """How similar images are to a network's source domain.

    Parameters
    ----------
    value : float or None
        0..1, higher is closer; None where it cannot be had, see `reason`.
    interval : (float, float) or None
        95 % interval of `value`, from resampling the images.
    verdict : {"similar", "between", "different", "unknown"}
        What the value means.
    method : {"batch-norm statistics", "classifier confidence", ""}
        How it was measured.
    reason : str
        Why it is None, or how it was measured, in one sentence.
    n_images : int
        Images that it was measured on.
    by_depth : tuple of LayerShift
        In execution order; empty without batch norm.
    classifier : ClassifierEvidence or None
        How sure the network's own classifier is, where it has one.
    """

    value: float | None
    interval: tuple[float, float] | None
    verdict: str
    method: str
    reason: str
    n_images: int
    by_depth: tuple[LayerShift, ...]
    classifier: ClassifierEvidence | None


@dataclass(frozen=True, eq=False)
class _Observed:
    """What one look at the images has shown."""

    n_images: int
    samples: tuple[LayerSample, ...]
    classifier: ClassifierEvidence | None
    confidences: np.ndarray
    shorter_edge: float  # of the median picture in pixels


def measure_similarity(backbone: Any, entries: Sequence[Readable], *, n_images: int = 96, seed: int = 0) -> Similarity:
    """Return how similar images are to those that a network was trained on.

    Parameters
    ----------
    backbone : featx.backbones.Backbone
        The network. It is run as it is, in eager torch on the CPU, and left as it was.
    entries : sequence of Readable
        Images, such as ``ImageListing.entries``; those that cannot be read are skipped.
    n_images : int
        How many of them to look at the most, at even steps over the sequence.
    seed : int
        Of the resampling that gives the interval.

    Raises
    ------
    UsageError
        `n_images` is too small to say anything.

    Notes
    -----
    Takes 7 s of one core for 96 images with the default network. Kept are two numbers an image and channel, beside the
    activations of 16 images at a time.
    """
    if n_images < calibration.MIN_IMAGES:
        raise UsageError(f"n_images is {n_images}; give at least {calibration.MIN_IMAGES}, such as 96")
    if backbone.weights.is_random:
        return _unknown("the network's weights are random: it was trained on no images that others could be similar to")
    layers = normalisation_layers(backbone.module)
    if not layers and not has_classifier(backbone):
        return _unknown("the network has neither trained batch norm nor a trained classifier to measure it with")
    observed = _observe(backbone, _evenly_spaced(entries, n_images), layers)
    if observed.n_images < calibration.MIN_IMAGES:
        return _unknown(
            f"{observed.n_images} of {len(entries)} images could be read; at least {calibration.MIN_IMAGES} are needed",
            observed,
        )
    if observed.samples:
        return _from_statistics(backbone, observed, seed)
    return _from_confidence(backbone, observed, seed)


def _evenly_spaced(entries: Sequence[Readable], limit: int) -> list[Readable]:
    n_taken = min(limit, len(entries))
    return [entries[step * len(entries) // n_taken] for step in range(n_taken)]


def _observe(backbone: Any, entries: Sequence[Readable], layers: dict[str, nn.Module]) -> _Observed:
    """Run the images through the network; keep a few numbers an image and channel."""
    statistics, outputs = ChannelStatistics(layers), ClassifierOutputs()
    mean, std = (
        255 * torch.tensor(values).view(1, 3, 1, 1) for values in (backbone.transform.mean, backbone.transform.std)
    )
    edges: list[int] = []
    with statistics.listening(), torch.no_grad():
        for batch in _batches(entries, backbone.transform):
            pixels = torch.from_numpy(stack_pixels(batch)).permute(0, 3, 1, 2).float()
            produced = backbone.module((pixels - mean) / std)
            statistics.end_batch(len(batch))
            if has_classifier(backbone):
                outputs.add(produced, len(batch))
            edges += [min(loaded.size) for loaded in batch]
    shorter_edge = float(np.median(edges)) if edges else 0.0
    return _Observed(len(edges), statistics.samples(), outputs.evidence(), outputs.confidences, shorter_edge)


def _batches(entries: Sequence[Readable], transform: Any) -> Generator[list[LoadedImage]]:
    batch: list[LoadedImage] = []
    for loaded in load_images(entries, transform, n_ahead=2 * _BATCH_SIZE):
        if loaded.pixels is None:
            continue
        batch.append(loaded)
        if len(batch) == _BATCH_SIZE:
            yield batch
            batch = []
    if batch:
        yield batch


def _from_statistics(backbone: Any, observed: _Observed, seed: int) -> Similarity:
    depths = {name: layer.depth for name, layer in backbone.layers.items()}
    by_depth = shifts_by_depth(observed.samples, depths)
    shift = total_shift(by_depth)
    if not math.isfinite(shift):
        return _unknown("activations of the network on these images are not finite", observed)
    low, high = shift_interval(observed.samples, shift, seed=seed)
    value = calibration.similarity_of_shift(shift)
    reason = (
        f"the inputs of {len(by_depth)} batch-norm layers over {observed.n_images} images are off the statistics of the"
        f" network's own training by {shift:.2f} (photographs of things: under {calibration.NEAR_SHIFT:.2f}; drawings,"
        f" characters, microscopy: over {calibration.FAR_SHIFT:.2f}){_on_size(backbone, observed)}"
    )
    return Similarity(
        value=value,
        interval=(calibration.similarity_of_shift(high), calibration.similarity_of_shift(low)),
        verdict=calibration.verdict_of(value),
        method=BATCH_NORM,
        reason=reason,
        n_images=observed.n_images,
        by_depth=by_depth,
        classifier=observed.classifier,
    )


def _from_confidence(backbone: Any, observed: _Observed, seed: int) -> Similarity:
    evidence = observed.classifier
    if evidence is None:
        return _unknown(
            "the network has no batch norm that can be measured, and its outputs are no classifier's", observed
        )
    if evidence.n_classes not in calibration.CALIBRATED_CLASSES:
        return _unknown(
            "the network has no batch norm that can be measured, and what a classifier's confidence means is known for"
            f" ImageNet's 1,000 classes only, not for {evidence.n_classes}",
            observed,
        )
    value = calibration.similarity_of_confidence(evidence.mean_confidence)
    reason = (
        f"without batch norm, measured by the mean confidence of the network's own classifier over {observed.n_images}"
        f" images, {evidence.mean_confidence:.2f} (photographs of things: over {calibration.NEAR_CONFIDENCE:.2f}),"
        f" a weaker measure than batch norm{_on_size(backbone, observed)}"
    )
    return Similarity(
        value=value,
        interval=confidence_interval(observed.confidences, seed=seed),
        verdict=calibration.verdict_of(value),
        method=CONFIDENCE,
        reason=reason,
        n_images=observed.n_images,
        by_depth=(),
        classifier=evidence,
    )


def _on_size(backbone: Any, observed: _Observed) -> str:
    """Return a remark where most pictures are so small that enlarging them is part of what was measured."""
    seen = min(backbone.transform.size)
    if observed.shorter_edge >= _ENLARGED * seen:
        return ""
    return f"; pictures of {observed.shorter_edge:.0f} pixels are enlarged to {seen}, and their blur is part of it"


def _unknown(reason: str, observed: _Observed | None = None) -> Similarity:
    return Similarity(
        value=None,
        interval=None,
        verdict=calibration.verdict_of(None),
        method="",
        reason=reason,
        n_images=observed.n_images if observed else 0,
        by_depth=(),
        classifier=observed.classifier if observed and observed.n_images else None,
    )
