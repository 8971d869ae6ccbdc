"""How much each image counts, so that large classes do not drown small ones."""

from __future__ import annotations

import numpy as np
from sklearn.utils.class_weight import compute_class_weight


def class_weights(labels: np.ndarray, n_classes: int, class_weight: str | None) -> np.ndarray:
    """Return what an image of each class counts: 1, or the inverse of the size of its class.

    Parameters
    ----------
    labels : ndarray of int, shape (n,)
        Classes of the images that are weighed.
    n_classes : int
        Of the network's logits.
    class_weight : {None, "balanced"}
        ``balanced`` gives n / (n_classes · images of the class), as scikit-learn does.

    Returns
    -------
    ndarray of float32, shape (n_classes,)
        1 for a class without images.
    """
    weights = np.ones(n_classes, np.float32)
    present = np.unique(labels)
    weights[present] = compute_class_weight(class_weight, classes=present, y=labels)
    return weights
