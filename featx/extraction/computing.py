"""From images to features: a network with its taps and engines, and how it is run."""

from __future__ import annotations

import os
from contextlib import closing, suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np

from featx import backbones, images
from featx.errors import UsageError
from featx.extraction.loading import LoadedImage, load_images, n_images_ahead, stack_pixels

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from featx.backbones import Backbone, Engine, Tap
    from featx.extraction.loading import Readable
    from featx.images import View

_VERSIONED = ("torch", "timm", "openvino", "pillow", "numpy")


@dataclass(frozen=True)
class ComputeOptions:
    """How features are computed; none of it changes what they are, but for `precision`.

    Parameters
    ----------
    engine : {"auto", "openvino", "torch"}
        See `featx.backbones.open_engine`.
    device : str
        ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
    precision : {"f32", "bf16", "f16"}
        Of the computation.
    batch_size : int, optional
        Images a run; chosen from the network's largest activation when not given.
    workers : int, optional
        Threads that decode; by default as many as there are processors, at most 16.
    compiled : bool
        Use ``torch.compile``.

    Raises
    ------
    UsageError
        A number is below 1.
    """

    engine: str = "auto"
    device: str = "auto"
    precision: str = "f32"
    batch_size: int | None = None
    workers: int | None = None
    compiled: bool = False

    def __post_init__(self) -> None:
        for name, value in (("batch_size", self.batch_size), ("workers", self.workers)):
            if value is not None and value < 1:
                raise UsageError(f"{name} {value} is not at least 1; leave it out to have it chosen")

    @property
    def n_threads(self) -> int:
        """Threads that decode."""
        return self.workers or min(16, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 4)


@dataclass
class FeatureComputer:
    """A network with chosen taps, whose engines are opened when first needed and kept.

    Parameters
    ----------
    backbone : Backbone
        The network.
    taps : sequence of Tap
        Everything that it may be asked for; kept in the order in which the network computes it. The tap of a spatial
        map (see `featx.extraction.map_tap`) goes through the same pass as all others.
    options : ComputeOptions
        How to run it.
    """

    backbone: Backbone
    taps: Sequence[Tap]
    options: ComputeOptions = field(default_factory=ComputeOptions)
    _engines: dict[tuple[tuple[str, ...], int], Engine] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.taps = backbones.in_execution_order(self.taps)

    @property
    def batch_size(self) -> int:
        """Images a run."""
        return self.options.batch_size or backbones.choose_batch_size(
            self.backbone, self.taps, device=self.options.device
        )

    def engine_for(self, keys: Iterable[str], n_images: int) -> Engine:
        """Return an engine for some of the taps, sized for at most so many images."""
        wanted = set(keys)
        taps = tuple(tap for tap in self.taps if tap.key in wanted)
        # A power of two keeps the number of compiled graphs small.
        batch_size = min(self.batch_size, 1 << max(n_images - 1, 0).bit_length())
        identity = (tuple(tap.key for tap in taps), batch_size)
        if identity not in self._engines:
            self._engines[identity] = backbones.open_engine(
                self.backbone,
                taps,
                engine=self.options.engine,
                device=self.options.device,
                precision=self.options.precision,
                batch_size=batch_size,
                compiled=self.options.compiled,
            )
        return self._engines[identity]

    def run(self, keys: Iterable[str], pixels: np.ndarray, n_images: int) -> dict[str, np.ndarray]:
        """Return the features of pixels by key, for some of the taps; see `engine_for`."""
        wanted = set(keys)
        outputs = self.engine_for(wanted, n_images).run(pixels)
        return dict(zip([tap.key for tap in self.taps if tap.key in wanted], outputs, strict=True))

    def features_of(self, entries: Sequence[Readable]) -> tuple[dict[str, np.ndarray], dict[int, str]]:
        """Return the features of a few images, held in memory, and the reasons of those that failed.

        Parameters
        ----------
        entries : sequence of ImageEntry or MemoryEntry
            Images.

        Returns
        -------
        features : dict of str to ndarray
            Key to (n, width) float32; rows of images that failed are NaN.
        failures : dict of int to str
            Place of an image that could not be read, to the reason.
        """
        features, failures, _ = self._rows_of(entries, None)
        return features, failures

    def view_features_of(
        self, entries: Sequence[Readable], views: Sequence[View]
    ) -> tuple[dict[str, np.ndarray], dict[int, str]]:
        """Return the features of several views of a few images; each image is read and decoded once.

        Parameters
        ----------
        entries : sequence of ImageEntry or MemoryEntry
            Images.
        views : sequence of View
            At least one; see `featx.images.views_of`.

        Returns
        -------
        features : dict of str to ndarray
            Key to (n, n_views, width) float32; images that failed are NaN.
        failures : dict of int to str
            Place of an image that could not be read, to the reason.
        """
        features, failures, _ = self.sized_view_features_of(entries, views)
        return features, failures

    def sized_view_features_of(
        self, entries: Sequence[Readable], views: Sequence[View]
    ) -> tuple[dict[str, np.ndarray], dict[int, str], np.ndarray]:
        """Return what `view_features_of` does, and the sizes of the pictures.

        Returns
        -------
        features, failures
            See there.
        sizes : ndarray of shape (n, 2), int32
            Width and height; 0 of images that failed.
        """
        features, failures, sizes = self._rows_of(entries, views)
        shape = (len(entries), len(views))
        return {tap.key: features[tap.key].reshape(*shape, tap.width) for tap in self.taps}, failures, sizes

    def _rows_of(
        self, entries: Sequence[Readable], views: Sequence[View] | None
    ) -> tuple[dict[str, np.ndarray], dict[int, str], np.ndarray]:
        """Return features, a row for every view of every image, the views of one image after another; and sizes."""
        n_views = 1 if views is None else len(views)
        features = {tap.key: np.full((len(entries) * n_views, tap.width), np.nan, np.float32) for tap in self.taps}
        failures: dict[int, str] = {}
        sizes = np.zeros((len(entries), 2), np.int32)
        batch: list[LoadedImage] = []
        size = min(self.batch_size, max(len(entries) * n_views, 1))
        n_images = max(1, size // n_views)  # of a batch, which holds all views of an image

        def run() -> None:
            engine, pixels = self.engine_for(features, size), stack_pixels(batch)
            rows = np.array([loaded.index * n_views + view for loaded in batch for view in range(n_views)])
            for start in range(0, len(rows), size):  # more than once only where an image has more views than a batch
                part = slice(start, start + size)
                for tap, output in zip(self.taps, engine.run(pixels[part]), strict=True):
                    features[tap.key][rows[part]] = output
            batch.clear()

        n_threads, transform = self.options.n_threads, self.backbone.transform
        n_ahead = n_images_ahead(n_images, n_threads, transform, n_views)
        with closing(load_images(entries, transform, n_threads=n_threads, n_ahead=n_ahead, views=views)) as loading:
            for loaded in loading:
                if loaded.reason:
                    failures[loaded.index] = loaded.reason
                    continue
                sizes[loaded.index] = loaded.size
                batch.append(loaded)
                if len(batch) == n_images:
                    run()
        if batch:
            run()
        return features, failures, sizes

    def fingerprint(self) -> dict[str, Any]:
        """Return what the features depend on (compared), and what they were made with (recorded)."""
        options = self.options
        return {
            "model": self.backbone.name,
            "weights": self.backbone.weights.digest,
            "transform": self.backbone.transform.to_json(),
            "decoder": images.DECODER,
            "precision": options.precision,
            "engine": self._engine_name(),
            "weights_source": self.backbone.weights.source,
            "versions": _versions(),
        }

    def describe_engine(self) -> str:
        """Return what runs, such as ``openvino on cpu, f32``; empty before anything has run."""
        if not self._engines:
            return ""
        engine = next(iter(self._engines.values()))
        return f"{engine.name} on {engine.device}, {engine.precision}"

    def _engine_name(self) -> str:
        """Return the engine that runs or, in f32 before any does, the one that would be tried first."""
        if self.options.precision != "f32" and not self._engines:
            self.engine_for((tap.key for tap in self.taps), 1)
        if self._engines:
            return next(iter(self._engines.values())).name
        on_cpu = self.options.device == "cpu" or (self.options.device == "auto" and backbones.best_device() == "cpu")
        wants_torch = self.options.engine == "torch" or self.options.compiled
        return "openvino" if on_cpu and not wants_torch else "torch"


def _versions() -> dict[str, str]:
    """Return the versions of the libraries that features depend on; torch may have to do without openvino."""
    found = {}
    for name in _VERSIONED:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
