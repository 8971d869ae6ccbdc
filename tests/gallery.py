"""A folder of pictures with a store, a classifier and an index made from it, for tests of what stands on them."""

from __future__ import annotations

import argparse
import io
import string
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from fake_backbone import write_pictures

from featx.commands.command_line import main, make_parser
from featx.store import FeatureInfo, ImageTable, RowBlock, merge, open_segments, write_segment

if TYPE_CHECKING:
    from collections.abc import Sequence

# Small, and without trained weights: what is fitted on it must be allowed to be.
NETWORK = ("--model", "test_efficientnet", "--weights", "random:0")
N_IMAGES = 24
# The fingerprint of features that might have been made by a trained network.
TRAINED = {
    "model": "test_efficientnet",
    "weights": "0" * 32,
    "weights_source": "file:w.pth",
    "precision": "f32",
    "transform": {"size": [160, 160]},
    "decoder": "pillow-1",
}


@dataclass(frozen=True)
class Gallery:
    """Where everything lies: 24 pictures, their features at two depths, a classifier and an index."""

    folder: Path
    photos: Path
    store: Path
    classifier: Path
    index: Path


def run(*arguments: object) -> int:
    """Run one command of featx in this process; return its exit code."""
    return main([str(argument) for argument in arguments])


def verb_parsers() -> dict[str, argparse.ArgumentParser]:
    """Return the parser of each verb."""
    (verbs,) = (action for action in make_parser()._actions if isinstance(action, argparse._SubParsersAction))
    return dict(verbs.choices)


def make_gallery(folder: Path) -> Gallery:
    """Write a gallery into a folder, through the command line itself."""
    gallery = Gallery(
        folder, write_pictures(folder / "photos"), folder / "g.h5", folder / "g.featx", folder / "g.index"
    )
    layers = ("--layers", "blocks.2,penultimate")
    commands = [
        ("extract", gallery.photos, "--out", gallery.store, *NETWORK, *layers),
        ("fit-svm", gallery.store, "--out", gallery.classifier, "--allow-random"),
        ("index", gallery.store, "--out", gallery.index, "--allow-random"),
    ]
    for command in commands:
        if run(*command) != 0:
            raise RuntimeError(f"the gallery cannot be made: {command} failed")
    return gallery


def write_store(path: Path, features: object, labels: Sequence[int], **columns: object) -> Path:
    """Write a store of one layer, ``penultimate@avg``, whose features are given instead of computed.

    Parameters
    ----------
    path : Path
        Of the store.
    features : array-like of shape (n, width)
        One row an image; images are called ``0.png``, ``1.png`` and so on.
    labels : sequence of int
        Index of a class, −1 for none; classes are called ``a``, ``b`` and so on.
    columns
        ``splits``, ``groups`` and ``fingerprint``, where others than none and `TRAINED` are wanted.
    """
    features = np.asarray(features, np.float32)
    n_rows, width = features.shape
    digests = np.random.default_rng(0).integers(0, 256, (n_rows, 16), np.uint8)
    info = FeatureInfo("penultimate@avg", "penultimate", "avg", 1.0, (width,), width, "float32")
    paths = [f"{row}.png" for row in range(n_rows)]
    fingerprint = columns.pop("fingerprint", TRAINED)
    phashes, sizes = np.zeros((n_rows, 8), np.uint8), np.ones((n_rows, 2), np.int32)
    segments = path.with_name(f"{path.name}.segments")
    write_segment(segments, RowBlock(paths, digests, phashes, sizes, {info.key: features}), [info], fingerprint)
    table = ImageTable(
        paths=paths,
        digests=digests,
        labels=np.asarray(labels, np.int32),
        label_names=string.ascii_lowercase[: max(labels) + 1],
        splits=np.asarray(columns.pop("splits", np.full(n_rows, -1)), np.int8),
        groups=columns.pop("groups", None),
    )
    merge(path, table, [info], open_segments(segments), fingerprint=fingerprint, source="made", aliases={}, failures=())
    return path


def separable(labels: Sequence[int], width: int = 6, *, seed: int = 0) -> np.ndarray:
    """Return features (n, width) of which the one at the index of a row's class stands out."""
    noise = np.random.default_rng(seed).normal(0, 0.3, (len(labels), width))
    return (noise + 3 * np.eye(width)[np.asarray(labels)]).astype(np.float32)


def type_in(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Let the next command find some text on its standard input."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
