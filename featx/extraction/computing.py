"""From images to features, batch by batch: threads read ahead, one engine runs."""

from __future__ import annotations

import itertools
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from featx import backbones, images
from featx.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from featx.backbones import Backbone, Engine, Tap
    from featx.images import ImageEntry


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
    """

    engine: str = "auto"
    device: str = "auto"
    precision: str = "f32"
    batch_size: int | None = None
    workers: int | None = None
    compiled: bool = False

    @property
    def n_threads(self) -> int:
        """Threads that decode."""
        return self.workers or min(16, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 4)


@dataclass(frozen=True)
class LoadedImage:
    """One image on its way to the network.

    Parameters
    ----------
    index : int
        Its place among the entries.
    digest : bytes
        BLAKE2b-128 of the file; empty where it could not be read.
    pixels : ndarray of uint8 or None
        (height, width, 3); None where it is not to be computed, or failed.
    phash : bytes
        Perceptual hash, 8 bytes.
    size : (int, int)
        Width and height of the picture.
    reason : str
        Why it failed; empty where it did not.
    """

    index: int
    digest: bytes = b""
    pixels: np.ndarray | None = None
    phash: bytes = b""
    size: tuple[int, int] = (0, 0)
    reason: str = ""


def load_images(
    entries: Sequence[ImageEntry],
    transform: backbones.TransformSpec,
    *,
    is_known: Callable[[bytes], bool] = lambda _digest: False,
    n_threads: int = 2,
    n_ahead: int = 64,
) -> Iterator[LoadedImage]:
    """Yield every entry in order, read and decoded by threads a bounded number of images ahead.

    Parameters
    ----------
    entries : sequence of ImageEntry
        What to read.
    transform : TransformSpec
        Geometry of the network.
    is_known : callable
        Digest to whether the image need not be decoded.
    n_threads, n_ahead : int
        Threads, and images in memory at the most.
    """

    def load(index: int) -> LoadedImage:
        digest = b""
        try:
            encoded = entries[index].read()
            digest = encoded.digest
            if is_known(digest):
                return LoadedImage(index, digest)
            picture = encoded.decode()
            pixels = images.resize_and_crop(
                picture,
                size=transform.size,
                resize_size=transform.resize_size,
                crop_mode=transform.crop_mode,
                interpolation=transform.interpolation,
                fill=transform.fill,
            )
            return LoadedImage(index, digest, pixels, images.perceptual_hash(picture), picture.size)
        except ImageError as error:
            return LoadedImage(index, digest, reason=str(error))

    pool = ThreadPoolExecutor(n_threads, thread_name_prefix="featx-decode")
    waiting: deque[Future[LoadedImage]] = deque()
    try:
        indices = iter(range(len(entries)))
        waiting.extend(pool.submit(load, index) for index in itertools.islice(indices, n_ahead))
        while waiting:
            loaded = waiting.popleft().result()
            waiting.extend(pool.submit(load, index) for index in itertools.islice(indices, 1))
            yield loaded
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def stack_pixels(batch: Sequence[LoadedImage]) -> np.ndarray:
    """Return the pixels of loaded images as one (n, height, width, 3) uint8 array."""
    return np.stack([loaded.pixels for loaded in batch if loaded.pixels is not None])


@dataclass
class FeatureComputer:
    """A network with chosen taps, whose engines are opened when first needed and kept.

    Parameters
    ----------
    backbone : Backbone
        The network.
    taps : sequence of Tap
        Everything that it may be asked for.
    options : ComputeOptions
        How to run it.
    """

    backbone: Backbone
    taps: Sequence[Tap]
    options: ComputeOptions = field(default_factory=ComputeOptions)
    _engines: dict[tuple[tuple[str, ...], int], Engine] = field(default_factory=dict, repr=False)

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

    def features_of(self, entries: Sequence[ImageEntry]) -> tuple[dict[str, np.ndarray], dict[int, str]]:
        """Return the features of a few images, held in memory, and the reasons of those that failed.

        Parameters
        ----------
        entries : sequence of ImageEntry
            Images.

        Returns
        -------
        features : dict of str to ndarray
            Key to (n, width) float32; rows of images that failed are NaN.
        failures : dict of int to str
            Place of an image that could not be read, to the reason.
        """
        features = {tap.key: np.full((len(entries), tap.width), np.nan, np.float32) for tap in self.taps}
        failures: dict[int, str] = {}
        batch: list[LoadedImage] = []
        size = min(self.batch_size, max(len(entries), 1))

        def run() -> None:
            engine = self.engine_for(features, size)
            outputs = engine.run(stack_pixels(batch))
            rows = [loaded.index for loaded in batch]
            for tap, output in zip(self.taps, outputs, strict=True):
                features[tap.key][rows] = output
            batch.clear()

        for loaded in load_images(entries, self.backbone.transform, n_threads=self.options.n_threads):
            if loaded.reason:
                failures[loaded.index] = loaded.reason
                continue
            batch.append(loaded)
            if len(batch) == size:
                run()
        if batch:
            run()
        return features, failures

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
            "versions": {name: version(name) for name in ("torch", "timm", "openvino", "pillow", "numpy")},
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
