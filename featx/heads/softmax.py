"""The head of a tuned network as a scikit-learn pipeline, for whoever takes features and wants classes.

Nothing is fitted: the weights are those that the network was trained with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import LabelBinarizer

from featx.errors import HeadError
from featx.reducers import make_reducer, make_scaler

Layer = tuple[np.ndarray, np.ndarray]


def softmax_pipeline(layers: Sequence[Layer], classes: Any) -> Pipeline:
    """Return a pipeline whose probabilities are softmax(W x + b), or softmax(W₂ relu(W₁ x + b₁) + b₂).

    Parameters
    ----------
    layers : sequence of (weight, bias)
        One or two layers from the features to the classes, as torch keeps them: weight (out, in), bias (out,). float32
        and float64 are kept, everything else becomes float32.
    classes : array-like of int, shape (k,)
        Class of each output of the last layer, rising.

    Returns
    -------
    Pipeline
        Steps "scale" and "reduce", which do nothing, and "head": a ``LogisticRegression`` for one layer, an
        ``MLPClassifier`` for two.

    Raises
    ------
    HeadError
        Another number of layers, shapes that do not fit each other, numbers that are not finite, fewer than two
        classes, or classes that do not rise from 0 or more.

    Notes
    -----
    scikit-learn has one output for two classes, a logistic function; it gets the difference of the two rows, which is
    the same probability.
    """
    arrays, classes = _check_layers(layers), _check_classes(classes)
    if len(arrays[-1][0]) != len(classes):
        raise HeadError(f"{len(classes)} classes for a layer of {len(arrays[-1][0])} outputs; give one for each.")
    if len(classes) == 2:
        weight, bias = arrays[-1]
        arrays[-1] = (weight[1:] - weight[:1], bias[1:] - bias[:1])
    head = _logistic(arrays[0]) if len(arrays) == 1 else _dense(arrays, classes)
    head.n_features_in_ = arrays[0][0].shape[1]
    head.classes_ = classes
    nothing = np.zeros((1, head.n_features_in_), arrays[0][0].dtype)  # tells the first two steps the width
    scale, reduce = make_scaler("none").fit(nothing), make_reducer("none").fit(nothing)
    return Pipeline([("scale", scale), ("reduce", reduce), ("head", head)])


def _logistic(layer: Layer) -> BaseEstimator:
    head = LogisticRegression()
    head.coef_, head.intercept_ = layer  # (k, d), or (1, d) for two classes
    head.n_iter_ = np.zeros(1, np.int32)
    return head


def _dense(layers: Sequence[Layer], classes: np.ndarray) -> BaseEstimator:
    head = MLPClassifier(hidden_layer_sizes=(len(layers[0][0]),), activation="relu")
    head.coefs_ = [np.ascontiguousarray(weight.T) for weight, _ in layers]  # scikit-learn's are (in, out)
    head.intercepts_ = [bias for _, bias in layers]
    head.n_layers_ = len(layers) + 1  # the features count
    head.n_outputs_ = len(layers[-1][0])
    head.out_activation_ = "logistic" if head.n_outputs_ == 1 else "softmax"
    head.n_iter_ = 0
    head._label_binarizer = LabelBinarizer().fit(classes)
    return head


def _check_layers(layers: Sequence[Layer]) -> list[Layer]:
    if len(layers) not in (1, 2):
        raise HeadError(f"a head of {len(layers)} layers was given; needed are one or two.")
    arrays = [(_floats(weight), _floats(bias)) for weight, bias in layers]
    width = None
    for weight, bias in arrays:
        if (
            weight.ndim != 2
            or 0 in weight.shape
            or bias.shape != weight.shape[:1]
            or width not in (None, weight.shape[1])
        ):
            shapes = ", ".join(f"{weight.shape} and {bias.shape}" for weight, bias in arrays)
            raise HeadError(
                f"layers of shapes {shapes}; needed are weights (out, in) with biases (out,), each as wide as the "
                "layer before it has outputs."
            )
        if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
            raise HeadError("the layers hold NaN or infinity: the training diverged. Train with a lower learning rate.")
        width = len(weight)
    return arrays


def _floats(values: Any) -> np.ndarray:
    """Return a copy, for what torch gives is the memory of a network that may go on learning."""
    values = np.array(values)
    return values if values.dtype in (np.float32, np.float64) else values.astype(np.float32)


def _check_classes(classes: Any) -> np.ndarray:
    classes = np.asarray(classes)
    is_whole = classes.ndim == 1 and np.issubdtype(classes.dtype, np.integer)
    if not is_whole or len(classes) < 2 or classes[0] < 0 or (np.diff(classes) <= 0).any():
        raise HeadError(
            f"classes {classes.tolist()!r:.60}; needed are two or more whole numbers from 0, each larger than the last."
        )
    return classes.astype(np.int64)
