"""From what a user names to what a training needs: a listing, a network, and its frozen features in a store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from featx import backbones, images
from featx.errors import FeatureKeyError, ImageError, SourceError, UsageError
from featx.extraction import ComputeOptions, Extraction, FeatureComputer, FeatureSpec
from featx.store import FeatureStore
from featx.workflows.file_kinds import STORE, kind_of
from featx.workflows.stored_features import reduction_of
from featx.workflows.tuning_job import FEATURES
from featx.workflows.tuning_rows import listed_entries

if TYPE_CHECKING:
    from featx.backbones import Backbone
    from featx.extraction import ExtractionProgress
    from featx.images import ImageEntry, ImageListing


@dataclass(frozen=True)
class TuningSource:
    """Images, the network to be tuned on them, and its features as it is.

    Attributes
    ----------
    store : Path
        Frozen features of the images.
    listing : ImageListing
        The images.
    backbone : Backbone
        The network.
    failures : tuple of (str, str)
        Path and reason of every image that could not be read.
    has_kept : bool
        Whether features of some images were there already, and took no time.
    """

    store: Path
    listing: ImageListing
    backbone: Backbone
    failures: tuple[tuple[str, str], ...]
    has_kept: bool = False


def open_tuning_source(
    source: str,
    frozen: Path,
    *,
    model: str | None = None,
    weights: str | None = None,
    size: int | None = None,
    layers: str = FEATURES,
    options: ComputeOptions | None = None,
    overwrite: bool = False,
    on_begin: Callable[[ImageListing, Backbone], None] = lambda _listing, _backbone: None,
    progress: Callable[[ExtractionProgress], None] | None = None,
) -> TuningSource:
    """Return images, network and features of a source, or of a store whose images are still there.

    Parameters
    ----------
    source : str
        As in `featx.images.list_images`, or a store.
    frozen : Path
        Where features go, if the source is no store; what is there already is kept.
    model, weights, size
        As in `featx.backbones.open_backbone`; not beside a store, which names its network.
    layers : str
        That features are computed of; ``penultimate`` must be among them.
    options : ComputeOptions, optional
        How.
    overwrite : bool
        Replace features made in another way.
    on_begin : callable
        Called before features are computed, with the images and the network.
    progress : callable, optional
        Called after every image.

    Raises
    ------
    SourceError
        The source, or that of the store, cannot be listed; or images of the store have changed.
    UsageError
        A network is named beside a store, or the store is reduced.
    """
    if kind_of(source) == STORE:
        if model is not None or size is not None:
            raise UsageError(
                f"{source} names its network itself, so --model and --size do not go with it; leave them out, or give"
                " the images in its place"
            )
        return _of_store(source, weights, options)
    listing = images.list_images(source)
    backbone = backbones.open_backbone(model or backbones.DEFAULT_MODEL, weights=weights, size=size)
    on_begin(listing, backbone)
    selection = backbone.select(layers)
    computer = FeatureComputer(backbone, selection.taps, options or ComputeOptions())
    extraction = Extraction(
        listing, computer, frozen, aliases=selection.aliases, overwrite=overwrite, progress=progress
    )
    report = extraction.run()
    return TuningSource(frozen, listing, backbone, report.failures, report.n_kept > 0)


def tunable_images(store: FeatureStore) -> ImageListing:
    """Return the images behind a store, if its network can be tuned on them.

    Parameters
    ----------
    store : FeatureStore
        Of the network as it is.

    Raises
    ------
    FeatureKeyError
        It lacks the features that a tuned network is compared with.
    SourceError
        Its source cannot be listed, or lacks an image.
    UsageError
        It is reduced, or its images were named on standard input.
    """
    if reduction_of(store.fingerprint):
        raise UsageError(f"{store.path} holds reduced features; give the store that it was made from, or the images")
    if FEATURES not in store.keys:
        raise FeatureKeyError(
            f"{store.path} holds {', '.join(store.keys)}, and not {FEATURES}, which a tuned network is compared with;"
            " add it with featx extract --layers penultimate"
        )
    if store.source == "-":
        raise UsageError(f"the images of {store.path} were named on standard input; give them in its place")
    listing = images.list_images(images.unescape_path(store.source))
    listed_entries(store, listing)
    return listing


def _refuse_changed(store: FeatureStore, listing: ImageListing) -> None:
    """Raise an error where an image is not what its features were computed of."""
    known = dict(zip(store.paths.tolist(), map(bytes, store.digests), strict=True))
    changed = [entry.path for entry in listing.entries if entry.path in known and _digest(entry) != known[entry.path]]
    if changed:
        raise SourceError(
            f"{len(changed)} of the {store.rows} images of {store.path} have changed since, or cannot be read (the"
            f" first is {changed[0]}); run featx extract again, or give the images in place of the store"
        )


def _digest(entry: ImageEntry) -> bytes | None:
    try:
        return entry.read().digest
    except ImageError:
        return None


def _of_store(path: str, weights: str | None, options: ComputeOptions | None) -> TuningSource:
    with FeatureStore(path) as store:
        listing = tunable_images(store)
        _refuse_changed(store, listing)
        backbone = FeatureSpec.of_store(store, FEATURES).open(options, weights=weights).backbone
        return TuningSource(Path(path), listing, backbone, (), has_kept=True)
