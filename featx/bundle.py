"""`Bundle`: one safe file with everything needed to name the class of a new image."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.archive import read_archive, write_archive
from featx.errors import StoreError
from featx.extraction import ComputeOptions, FeatureComputer, FeatureSpec
from featx.heads import dump_head, load_head

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from sklearn.pipeline import Pipeline

KIND = "featx-bundle"
_HEAD = "head.skops"
_WEIGHTS = "weights.safetensors"


@dataclass(frozen=True)
class Bundle:
    """A fitted classifier with the specification of the features that it takes.

    Parameters
    ----------
    spec : FeatureSpec
        Which features, of which network.
    pipeline : Pipeline
        Scaler, reducer and head; its classes are indices into `class_names`.
    class_names : tuple of str
        In code-point order.
    card : mapping
        How it was fitted and how it scored; JSON-able.
    weights : bytes, optional
        The network's weights as safetensors, for a bundle that carries them.
    """

    spec: FeatureSpec
    pipeline: Pipeline
    class_names: tuple[str, ...]
    card: Mapping[str, Any] = field(default_factory=dict)
    weights: bytes | None = field(default=None, repr=False)

    def predict_proba(self, features: np.ndarray) -> np.ndarray:
        """Return class probabilities, (n, len(class_names)) float64; classes never learned have probability 0."""
        probabilities = np.zeros((len(features), len(self.class_names)))
        if len(features):
            probabilities[:, self.pipeline.classes_] = self.pipeline.predict_proba(features)
        return probabilities

    def open_features(self, options: ComputeOptions | None = None, *, weights: str | None = None) -> FeatureComputer:
        """Return a computer of the features that the head takes; see `FeatureSpec.open` for the errors."""
        if weights is not None or self.weights is None:
            return self.spec.open(options, weights=weights)
        with tempfile.TemporaryDirectory(prefix="featx-") as folder:
            file = Path(folder, _WEIGHTS)
            file.write_bytes(self.weights)
            return self.spec.open(options, weights=str(file))

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the bundle in one step.

        Raises
        ------
        WouldOverwriteError
            There is such a file, and `overwrite` is not set.
        """
        parts: dict[str, bytes] = {_HEAD: dump_head(self.pipeline)}
        if self.weights is not None:
            parts[_WEIGHTS] = self.weights
        content = {"features": self.spec.to_json(), "classes": list(self.class_names), "card": dict(self.card)}
        write_archive(Path(path), KIND, content, parts, overwrite=overwrite)


def load_bundle(path: str | os.PathLike[str]) -> Bundle:
    """Return a bundle from a file; no code of the file is run.

    Raises
    ------
    StoreError
        The file is missing, damaged or of another kind.
    UnsafeFileError
        The file holds something else than a classifier.
    """
    archive = read_archive(Path(path), KIND)
    if _HEAD not in archive.parts:
        raise StoreError(f"{path} has no {_HEAD}; it is no complete classifier: fit it again")
    pipeline = load_head(archive.read(_HEAD))
    spec = read_spec(archive.content.get("features"), str(path))
    class_names, card = archive.content.get("classes"), archive.content.get("card")
    if not isinstance(class_names, list) or not all(isinstance(name, str) for name in class_names):
        raise StoreError(f"{path} has no list of class names; it is no complete classifier: fit it again")
    if not isinstance(card, dict):
        raise StoreError(f"{path} has no card; it is no complete classifier: fit it again")
    _check_head(pipeline, spec, len(class_names), str(path))
    weights = archive.read(_WEIGHTS) if _WEIGHTS in archive.parts else None
    return Bundle(spec, pipeline, tuple(class_names), card, weights)


def read_spec(values: Any, where: str) -> FeatureSpec:
    """Return the specification that a file carries, after checking that it is one.

    Parameters
    ----------
    values : object
        What `FeatureSpec.to_json` gave, read back from JSON.
    where : str
        What carries it, the subject of the message.

    Raises
    ------
    StoreError
        It is something else.
    """
    try:
        spec = FeatureSpec.from_json(values)
        complete = {"model", "precision", "weights"} <= spec.fingerprint.keys() and spec.width >= 1
    except (KeyError, TypeError, AttributeError):
        complete = False
    if not complete or not isinstance(spec.key, str):
        raise StoreError(f"{where} does not say which features it takes, so images cannot be compared; make it again")
    return spec


def _check_head(pipeline: Pipeline, spec: FeatureSpec, n_classes: int, where: str) -> None:
    """Refuse a head that does not go with the rest of its bundle: it would fail at the first image, or misname it."""
    try:
        classes, width = np.asarray(pipeline.classes_), int(pipeline.n_features_in_)
    except (AttributeError, TypeError, ValueError) as error:
        raise StoreError(f"{where} has a head that was never fitted; fit it again") from error
    if classes.dtype.kind not in "iu" or not np.isin(classes, np.arange(n_classes)).all():
        raise StoreError(f"{where} has a head with classes that have no name; fit it again")
    if width != spec.width:
        raise StoreError(
            f"{where} has a head for {width} features, and a network that gives {spec.width}; fit it again"
        )
