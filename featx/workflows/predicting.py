"""Naming the class of images, by a fitted bundle or by the pretrained network's own classifier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from featx import backbones
from featx.errors import BackboneError
from featx.extraction import ComputeOptions, FeatureComputer
from featx.workflows.moved_weights import moved_weights_explained

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from featx.backbones import Backbone
    from featx.bundle import Bundle
    from featx.images import ImageEntry

_BLOCK = 256  # images in memory at a time


@dataclass(frozen=True)
class Prediction:
    """What one image was taken for.

    Parameters
    ----------
    path : str
        The image.
    ranking : tuple of (str, float)
        Classes and probabilities, the most probable first; empty where the image could not be read.
    reason : str
        Why it could not be read.
    """

    path: str
    ranking: tuple[tuple[str, float], ...] = ()
    reason: str = ""


def predict_images(
    bundle: Bundle,
    entries: Sequence[ImageEntry],
    options: ComputeOptions | None = None,
    *,
    weights: str | None = None,
    n_best: int = 1,
) -> Iterator[Prediction]:
    """Yield the prediction of a bundle for each image, in order.

    Parameters
    ----------
    bundle : Bundle
        The classifier.
    entries : sequence of ImageEntry
        Images.
    options : ComputeOptions, optional
        How to run the network.
    weights : str, optional
        A file of weights, where the one used for fitting has moved.
    n_best : int
        Classes an image.

    Raises
    ------
    WeightsNotFoundError
        The network's weights are in none of the places where they could be.
    FingerprintMismatchError
        The network that can be opened here is not the one that the classifier was fitted on.
    """
    with moved_weights_explained(bundle.spec, weights, ", or fit again with --embed-weights"):
        computer = bundle.open_features(options, weights=weights)
    yield from _ranked(computer, entries, bundle.predict_proba, bundle.class_names, n_best)


def name_images(
    model: str,
    entries: Sequence[ImageEntry],
    options: ComputeOptions | None = None,
    *,
    weights: str | None = None,
    n_best: int = 1,
) -> Iterator[Prediction]:
    """Yield what a pretrained network, as it is, takes each image for.

    Parameters
    ----------
    model : str
        As in `featx.backbones.open_backbone`.
    entries, options, weights, n_best
        As in `predict_images`.

    Raises
    ------
    BackboneError
        The network has no classifier, or its weights are random.
    """
    backbone = backbones.open_backbone(model, weights=weights)
    names = _class_names(backbone)
    taps = backbone.select([backbones.LOGITS]).taps
    yield from _ranked(FeatureComputer(backbone, taps, options or ComputeOptions()), entries, _softmax, names, n_best)


def _ranked(
    computer: FeatureComputer,
    entries: Sequence[ImageEntry],
    score: Callable[[np.ndarray], np.ndarray],
    names: Sequence[str],
    n_best: int,
) -> Iterator[Prediction]:
    """Yield a prediction an image; `score` turns (n, width) features into (n, classes) probabilities."""
    (tap,) = computer.taps
    for start in range(0, len(entries), _BLOCK):
        block = entries[start : start + _BLOCK]
        features, failures = computer.features_of(block)
        readable = [index for index in range(len(block)) if index not in failures]
        probabilities = dict(zip(readable, score(features[tap.key][readable]), strict=True))
        for index, entry in enumerate(block):
            if index in failures:
                yield Prediction(entry.path, reason=failures[index])
                continue
            best = np.argsort(-probabilities[index], kind="stable")[:n_best]
            ranking = tuple((names[label], float(probabilities[index][label])) for label in best)
            yield Prediction(entry.path, ranking)


def _softmax(logits: np.ndarray) -> np.ndarray:
    from scipy.special import softmax

    return softmax(logits.astype(np.float64), axis=1)


def _class_names(backbone: Backbone) -> list[str]:
    """Return the class names of an ImageNet classifier, numbers where they are not known."""
    logits = backbone.layers[backbones.LOGITS]
    if backbone.weights.is_random or backbone.weights.without_classifier:
        raise BackboneError(
            f"{backbone.name} with weights {backbone.weights.source} has no trained classifier to name classes with;"
            " choose other weights, or fit one of your own (featx fit-svm)"
        )
    width = logits.shape[0]
    if width == 1000:
        from timm.data import ImageNetInfo

        info = ImageNetInfo()
        return [info.index_to_description(index) for index in range(width)]
    return [f"class {index}" for index in range(width)]
