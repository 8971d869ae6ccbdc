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
    pipeline = load_head(archive.read(_HEAD))
    try:
        spec = FeatureSpec.from_json(archive.content["features"])
        class_names = tuple(map(str, archive.content["classes"]))
        card = archive.content["card"]
    except (KeyError, TypeError) as error:
        raise StoreError(f"{path} lacks {error}; it is no complete classifier: fit it again") from error
    if not np.isin(pipeline.classes_, np.arange(len(class_names))).all():
        raise StoreError(f"{path} has a head with classes that have no name; fit it again")
    weights = archive.read(_WEIGHTS) if _WEIGHTS in archive.parts else None
    return Bundle(spec, pipeline, class_names, card, weights)
