"""How sure a network's own classifier is of some images: the evidence where there is no batch norm.

A classifier is surer of images like those that it was trained on. It is weaker evidence than batch-norm statistics: how
sure it is depends on how it was trained, and of pictures unlike any photograph it may be very sure, and wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from featx.advice.calibration import similarity_of_confidence

N_RESAMPLES = 1000


@dataclass(frozen=True)
class ClassifierEvidence:
    """How sure the classifier is.

    Parameters
    ----------
    mean_confidence : float
        Mean over images of the largest probability, 0..1.
    mean_entropy : float
        Mean over images of the entropy of the probabilities, by the logarithm of the number of classes: 0 (sure)..1.
    n_classes : int
        Classes that it tells apart.
    """

    mean_confidence: float
    mean_entropy: float
    n_classes: int


class ClassifierOutputs:
    """Collects confidence and entropy of each image from the outputs of a network, while passes go on."""

    def __init__(self) -> None:
        self._confidences: list[np.ndarray] = []
        self._entropies: list[np.ndarray] = []
        self._n_classes = 0

    def add(self, outputs: Any, n_images: int) -> None:
        """Take in the outputs of one pass; what is not one vector of at least two numbers an image is passed over."""
        if not isinstance(outputs, torch.Tensor) or outputs.ndim != 2 or len(outputs) != n_images:
            return
        if outputs.shape[1] < 2:
            return
        log_probabilities = outputs.detach().double().log_softmax(1)
        probabilities = log_probabilities.exp()
        self._confidences.append(probabilities.amax(1).cpu().numpy())
        self._entropies.append(-(probabilities * log_probabilities).sum(1).cpu().numpy())
        self._n_classes = outputs.shape[1]

    @property
    def confidences(self) -> np.ndarray:
        """Largest probability of each image so far: (n,), empty where the outputs are no logits."""
        return np.concatenate(self._confidences) if self._confidences else np.zeros(0)

    def evidence(self) -> ClassifierEvidence | None:
        """Return means over all images so far, or None where there were no logits."""
        if not self._confidences:
            return None
        entropy = float(np.concatenate(self._entropies).mean() / np.log(self._n_classes))
        return ClassifierEvidence(float(self.confidences.mean()), entropy, self._n_classes)


def has_classifier(backbone: Any) -> bool:
    """Return whether the outputs of a backbone are those of a classifier with trained weights."""
    if backbone.weights.is_random or backbone.weights.without_classifier:
        return False
    return getattr(backbone.module, "num_classes", 1) != 0  # timm's mark of a network that returns features


def confidence_interval(confidences: np.ndarray, *, seed: int = 0) -> tuple[float, float]:
    """Return the similarities between which that of all images lies, 95 %, from resampling confidences (n,)."""
    n_images = len(confidences)
    chosen = np.random.default_rng(seed).integers(0, n_images, (N_RESAMPLES, n_images))
    middle = float(confidences.mean())
    low, high = np.quantile(confidences[chosen].mean(1), [0.025, 0.975])
    return similarity_of_confidence(min(middle, float(low))), similarity_of_confidence(max(middle, float(high)))
