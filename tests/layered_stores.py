"""Stores of several layers whose features are given instead of computed, some good for telling classes, some not."""

from __future__ import annotations

import string
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from gallery import TRAINED

from featx.store import FeatureInfo, ImageTable, RowBlock, merge, open_segments, write_segment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# A network that is never built, so that nothing waits for it.
NOT_BUILT = {**TRAINED, "model": "hf-hub:nobody/nothing"}
# How far the classes lie apart in each layer, shallowest first: the middle one is the best.
DISTANCES = {"blocks.0@avg": 0.2, "blocks.2@avg": 3.0, "blocks.4@avg": 1.0, "penultimate@avg": 0.6}
WIDTHS = {"blocks.0@avg": 4, "blocks.2@avg": 6, "blocks.4@avg": 8, "penultimate@avg": 10}
LABELS = np.repeat([0, 1, 2], [24, 18, 12])


def layered(labels: Sequence[int], *, seed: int = 0) -> dict[str, np.ndarray]:
    """Return features (n, width) of each layer of `DISTANCES`; a row without a label is like one of class 0."""
    random = np.random.default_rng(seed)
    classes = np.maximum(np.asarray(labels), 0)
    return {
        key: (random.normal(size=(len(classes), width)) + DISTANCES[key] * np.eye(width)[classes]).astype(np.float32)
        for key, width in WIDTHS.items()
    }


def random_bytes(n_rows: int, width: int, *, seed: int = 0) -> np.ndarray:
    """Return digests or hashes (n_rows, width) that have nothing in common."""
    return np.random.default_rng(seed).integers(0, 256, (n_rows, width), np.uint8)


def write_layers(
    path: Path,
    labels: Sequence[int] = LABELS,
    features: Mapping[str, np.ndarray] | None = None,
    *,
    paths: Sequence[str] | None = None,
    digests: np.ndarray | None = None,
    splits: object = None,
    groups: object = None,
    source: object = "made",
    fingerprint: Mapping[str, object] = NOT_BUILT,
) -> Path:
    """Write a store of `layered` features, or of those given from the shallowest to the deepest.

    Images are called ``0.png``, ``1.png`` and so on where `paths` does not say otherwise, classes ``a``, ``b`` and so
    on. Unless `digests` has equal rows, no image looks like another.
    """
    features = layered(labels) if features is None else features
    n_rows = len(labels)
    infos = [_info(key, matrix, (place + 1) / len(features)) for place, (key, matrix) in enumerate(features.items())]
    paths = [f"{row}.png" for row in range(n_rows)] if paths is None else list(paths)
    digests = random_bytes(n_rows, 16) if digests is None else digests
    rows = RowBlock(paths, digests, random_bytes(n_rows, 8), np.ones((n_rows, 2), np.int32), dict(features))
    segments = path.with_name(f"{path.name}.segments")
    write_segment(segments, rows, infos, dict(fingerprint))
    table = ImageTable(
        paths=paths,
        digests=digests,
        labels=np.asarray(labels, np.int32),
        label_names=string.ascii_lowercase[: max(labels) + 1],
        splits=np.full(n_rows, -1, np.int8) if splits is None else np.asarray(splits, np.int8),
        groups=None if groups is None else np.asarray(groups, np.int32),
    )
    merge(
        path,
        table,
        infos,
        open_segments(segments),
        fingerprint=dict(fingerprint),
        source=str(source),
        aliases={},
        failures=(),
    )
    return path


def _info(key: str, matrix: np.ndarray, depth: float) -> FeatureInfo:
    layer, _, pool = key.partition("@")
    return FeatureInfo(key, layer, pool, depth, (matrix.shape[1],), matrix.shape[1], "float32")


def with_copies(digests: np.ndarray, pairs: Sequence[tuple[int, int]]) -> np.ndarray:
    """Return digests in which the second row of each pair is that of the first."""
    digests = digests.copy()
    for first, second in pairs:
        digests[second] = digests[first]
    return digests


def spoiled(features: Mapping[str, np.ndarray], rows: np.ndarray, *, seed: int = 9) -> dict[str, np.ndarray]:
    """Return features that are noise in some rows, a thousand times as large as the others."""
    random = np.random.default_rng(seed)
    changed = {key: matrix.copy() for key, matrix in features.items()}
    for matrix in changed.values():
        matrix[rows] = 1000 * random.normal(size=(len(rows), matrix.shape[1]))
    return changed


def write_patients(folder: Path, labels: Sequence[int] = LABELS, *, images_each: int = 3) -> tuple[Path, Path]:
    """Write a store that was made from a CSV ``images.csv`` with the columns path, label and Patient; return both.

    Following images of a class are of one patient, called ``p0``, ``p1`` and so on; the CSV has no group column.
    """
    table, store = folder / "images.csv", folder / "patients.h5"
    table.write_text(
        "path,label,Patient\n" + "".join(f"{row}.png,x,{patient}\n" for row, patient in _patients(labels, images_each))
    )
    return table, write_layers(store, labels, source=table)


def _patients(labels: Sequence[int], images_each: int) -> list[tuple[int, str]]:
    return [(row, f"p{label}{row // images_each}") for row, label in enumerate(labels)]
