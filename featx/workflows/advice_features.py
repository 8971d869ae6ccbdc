"""The features that an advice needs: extracted from images where there is no store of them yet."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from featx.backbones import DEFAULT_MODEL, open_backbone
from featx.extraction import ComputeOptions, Extraction, FeatureComputer, FeatureSpec
from featx.images import unescape_path
from featx.images.torchvision_data import PREFIX

if TYPE_CHECKING:
    from featx.images import ImageListing
    from featx.store import FeatureStore

LAYERS = "all-stages,penultimate"


def prepare_extraction(
    listing: ImageListing,
    store: str | Path,
    *,
    model: str | None = None,
    weights: str | None = None,
    size: int | None = None,
    options: ComputeOptions | None = None,
    allow_random: bool = False,
) -> Extraction:
    """Return the extraction of all stages and the last layer into a store, new or to be continued; it is not run.

    Parameters
    ----------
    listing : ImageListing
        The images.
    store : str or Path
        Where features go.
    model, weights, size
        As in `featx.backbones.open_backbone`; the default network where `model` is None.
    options : ComputeOptions, optional
        How it is run.
    allow_random : bool
        Accept untrained weights.

    Raises
    ------
    RefusedError
        The weights are untrained; or the store there was made in another way, or of other images.
    BackboneError
        The network cannot be opened.
    """
    backbone = open_backbone(model or DEFAULT_MODEL, weights=weights, size=size)
    origin = FeatureSpec("", 0, {"weights_source": backbone.weights.source})
    origin.refuse_random(allowed=allow_random, what="advice from them")
    selection = backbone.select(LAYERS)
    return Extraction(
        listing, FeatureComputer(backbone, selection.taps, options or ComputeOptions()), Path(store), selection.aliases
    )


def default_store(source: str) -> str:
    """Return the name of the store of a source: its base name and ``.h5``, in the current folder."""
    if source.startswith(PREFIX):
        name = source.removeprefix(PREFIX).partition(":")[0].lower()
    elif os.path.isdir(source):
        name = os.path.basename(os.path.abspath(source))
    else:
        name = os.path.splitext(os.path.basename(source))[0]
    return f"{name.lstrip('-') or 'features'}.h5"  # a leading dash would be an option


def extract_command(store: FeatureStore) -> str:
    """Return the command that adds layers to a store."""
    fingerprint = store.fingerprint
    model, weights = str(fingerprint.get("model", "")), str(fingerprint.get("weights_source", ""))
    options = [] if model == DEFAULT_MODEL else [f"--model {shlex.quote(model)}"]
    if weights.startswith(("file:", "random:")):
        options.append(f"--weights {shlex.quote(weights.removeprefix('file:'))}")
    height, width = dict(fingerprint.get("transform") or {}).get("size") or (0, 1)
    if height == width:
        options.append(f"--size {height}")
    if fingerprint.get("precision", "f32") != "f32":
        options.append(f"--precision {fingerprint['precision']}")
    source = shlex.quote(unescape_path(store.source))
    return " ".join(["featx extract", source, "--out", shlex.quote(str(store.path)), f"--layers {LAYERS}", *options])
