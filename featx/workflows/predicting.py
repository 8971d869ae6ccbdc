"""Naming the class of images, by a fitted bundle or by the pretrained network's own classifier.

With test-time augmentation, a classifier is asked about several views of each image (`featx.images.VIEWS`), and its
answers are combined: by the mean of their probabilities, or by vote.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from featx import backbones
from featx.errors import BackboneError, UsageError
from featx.extraction import ComputeOptions, FeatureComputer
from featx.images import View, views_of
from featx.workflows.moved_weights import moved_weights_explained

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from featx.backbones import Backbone
    from featx.bundle import Bundle
    from featx.images import ImageEntry

COMBINATIONS = ("mean", "vote")
_BLOCK = 256  # features of so many images, or views of images, are in memory at a time


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


@dataclass(frozen=True, eq=False)
class ViewScores:
    """What a classifier says to each view of one image.

    Parameters
    ----------
    path : str
        The image.
    probabilities : ndarray of float64 or None
        (n_views, n_classes); the first row is for the network's own view. None where the image could not be read.
    reason : str
        Why it could not be read.
    """

    path: str
    probabilities: np.ndarray | None = None
    reason: str = ""


def predict_images(
    bundle: Bundle,
    entries: Sequence[ImageEntry],
    options: ComputeOptions | None = None,
    *,
    weights: str | None = None,
    n_best: int = 1,
    tta: int = 1,
    combine: str = "mean",
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
    tta : int
        Views an image, a key of `featx.images.VIEWS`; 1 is the network's own view alone.
    combine : {"mean", "vote"}
        See `rank_classes`.

    Raises
    ------
    UsageError
        There are no such views, or they cannot be combined so.
    WeightsNotFoundError
        The network's weights are in none of the places where they could be.
    FingerprintMismatchError
        The network that can be opened here is not the one that the classifier was fitted on.
    """
    check_combination(tta, combine)
    for scores in score_views(bundle, entries, options, weights=weights, tta=tta):
        yield _prediction(scores, bundle.class_names, n_best, combine)


def score_views(
    bundle: Bundle,
    entries: Sequence[ImageEntry],
    options: ComputeOptions | None = None,
    *,
    weights: str | None = None,
    tta: int = 1,
) -> Iterator[ViewScores]:
    """Yield what a bundle says to each view of each image, in order.

    Parameters
    ----------
    bundle, entries, options, weights, tta
        As in `predict_images`, whose errors are raised.
    """
    views = views_of(tta)
    with moved_weights_explained(bundle.spec, weights, ", or fit again with --embed-weights"):
        computer = bundle.open_features(options, weights=weights)

    def score(features: Mapping[str, np.ndarray], rows: np.ndarray) -> np.ndarray:
        return bundle.predict_proba(bundle.spec.join(features, rows))

    yield from _scored(computer, entries, score, views)


def name_images(
    model: str,
    entries: Sequence[ImageEntry],
    options: ComputeOptions | None = None,
    *,
    weights: str | None = None,
    n_best: int = 1,
    tta: int = 1,
    combine: str = "mean",
) -> Iterator[Prediction]:
    """Yield what a pretrained network, as it is, takes each image for.

    Parameters
    ----------
    model : str
        As in `featx.backbones.open_backbone`.
    entries, options, weights, n_best, tta, combine
        As in `predict_images`.

    Raises
    ------
    UsageError
        There are no such views, or they cannot be combined so.
    BackboneError
        The network has no classifier, or its weights are random.
    """
    check_combination(tta, combine)
    backbone = backbones.open_backbone(model, weights=weights)
    names = _class_names(backbone)
    taps = backbone.select([backbones.LOGITS]).taps
    (tap,) = taps

    def score(features: Mapping[str, np.ndarray], rows: np.ndarray) -> np.ndarray:
        return _softmax(features[tap.key][rows])

    computer = FeatureComputer(backbone, taps, options or ComputeOptions())
    for scores in _scored(computer, entries, score, views_of(tta)):
        yield _prediction(scores, names, n_best, combine)


def check_combination(tta: int, combine: str) -> None:
    """Raise `UsageError` where there are no such views, or they cannot be combined so.

    Parameters
    ----------
    tta : int
        Views an image.
    combine : str
        See `rank_classes`.
    """
    views_of(tta)
    if combine not in COMBINATIONS:
        raise UsageError(f"views are combined by {' or '.join(COMBINATIONS)}, not by {combine!r}")
    if combine == "vote" and tta == 1:
        raise UsageError("one view has nobody to vote with; take more views (--tta 5), or combine by mean")


def rank_classes(probabilities: np.ndarray, combine: str = "mean") -> tuple[np.ndarray, np.ndarray]:
    """Return the classes of one image, the best first, and the value of each class.

    Parameters
    ----------
    probabilities : ndarray of shape (n_views, n_classes)
        What each view says.
    combine : {"mean", "vote"}
        ``mean``: the mean of the probabilities. ``vote``: the share of the views whose most probable class it is;
        ties go to the higher mean.

    Returns
    -------
    order : ndarray of int, shape (n_classes,)
        Class indices; what is still tied stays in the order of the classes.
    values : ndarray of float64, shape (n_classes,)
        By class index; they sum to 1.
    """
    mean = probabilities.mean(axis=0)
    if combine == "mean":
        return np.argsort(-mean, kind="stable"), mean
    n_views, n_classes = probabilities.shape
    shares = np.bincount(probabilities.argmax(axis=1), minlength=n_classes) / n_views
    return np.lexsort((-mean, -shares)), shares


def _scored(
    computer: FeatureComputer,
    entries: Sequence[ImageEntry],
    score: Callable[[Mapping[str, np.ndarray], np.ndarray], np.ndarray],
    views: Sequence[View],
) -> Iterator[ViewScores]:
    """Yield scores an image; `score` turns features by key, and rows of them, into (n, classes) probabilities."""
    n_views = len(views)
    n_images = max(1, _BLOCK // n_views)
    for start in range(0, len(entries), n_images):
        block = entries[start : start + n_images]
        features, failures = _features_by_row(computer, block, views)
        readable = [index for index in range(len(block)) if index not in failures]
        # rows[i, v]: row of view v of the i-th readable image
        rows = np.array(readable, np.intp)[:, None] * n_views + np.arange(n_views)
        probabilities = score(features, rows.ravel())
        by_image = dict(zip(readable, probabilities.reshape(*rows.shape, probabilities.shape[-1]), strict=True))
        for index, entry in enumerate(block):
            yield ViewScores(entry.path, by_image.get(index), failures.get(index, ""))


def _features_by_row(
    computer: FeatureComputer, entries: Sequence[ImageEntry], views: Sequence[View]
) -> tuple[dict[str, np.ndarray], dict[int, str]]:
    """Return features with a row for every view of every image, the views of one image after another, and failures."""
    if tuple(views) == (View(),):  # the network's own view alone
        return computer.features_of(entries)
    features, failures = computer.view_features_of(entries, views)
    return {key: values.reshape(-1, values.shape[-1]) for key, values in features.items()}, failures


def _prediction(scores: ViewScores, names: Sequence[str], n_best: int, combine: str) -> Prediction:
    if scores.probabilities is None:
        return Prediction(scores.path, reason=scores.reason)
    order, values = rank_classes(scores.probabilities, combine)
    return Prediction(scores.path, tuple((names[label], float(values[label])) for label in order[:n_best]))


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
