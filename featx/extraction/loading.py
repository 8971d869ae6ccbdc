"""From images to the pixels that a network takes: threads read ahead, in bounded memory."""

from __future__ import annotations

import itertools
import logging
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from featx import images
from featx.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from featx.backbones import TransformSpec
    from featx.images import View

_BYTES_AHEAD = 256 * 2**20  # of pixels that wait for the network
_logger = logging.getLogger(__name__)


class Readable(Protocol):
    """What is asked of an image: a name, and its content, which has a digest and can be decoded."""

    @property
    def path(self) -> str:
        """Name for messages."""

    def read(self) -> Any:
        """Return something with a ``digest`` and a ``decode()``, or raise an `ImageError`."""


@dataclass(frozen=True, eq=False)
class LoadedImage:
    """One image on its way to the network.

    Parameters
    ----------
    index : int
        Its place among the entries.
    digest : bytes
        BLAKE2b-128 of the file; empty where it could not be read.
    pixels : ndarray of uint8 or None
        (height, width, 3), or (n_views, height, width, 3) where views were asked for; None where it is not to be
        computed, or failed.
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
    entries: Sequence[Readable],
    transform: TransformSpec,
    *,
    is_known: Callable[[bytes], bool] = lambda _digest: False,
    n_threads: int = 2,
    n_ahead: int = 64,
    views: Sequence[View] | None = None,
) -> Generator[LoadedImage]:
    """Yield every entry in order, read and decoded by threads a bounded number of images ahead.

    Parameters
    ----------
    entries : sequence of Readable
        What to read.
    transform : TransformSpec
        Geometry of the network.
    is_known : callable
        Digest to whether the image need not be decoded.
    n_threads, n_ahead : int
        Threads, and images in memory at the most.
    views : sequence of View, optional
        Views of each image; the network's own alone, without an axis for it, when not given.
    """
    geometry = transform.geometry

    def load(index: int) -> LoadedImage:
        digest = b""
        try:
            encoded = entries[index].read()
            digest = encoded.digest
            if is_known(digest):
                return LoadedImage(index, digest)
            picture = encoded.decode()
            if views is None:
                pixels = images.resize_and_crop(picture, **geometry)
            else:
                pixels = images.view_pixels(picture, views, **geometry)
            return LoadedImage(index, digest, pixels, images.perceptual_hash(picture), picture.size)
        except ImageError as error:
            return LoadedImage(index, digest, reason=str(error))
        except Exception:
            _logger.error("%s could not be prepared, and not because of what is in it", entries[index].path)
            raise

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


def n_images_ahead(batch_size: int, n_threads: int, transform: TransformSpec, n_views: int = 1) -> int:
    """Return how many images to read ahead: enough to keep network and threads busy, bounded in memory."""
    n_fitting = _BYTES_AHEAD // (3 * transform.size[0] * transform.size[1] * n_views)
    return max(batch_size, 2 * n_threads, min(3 * batch_size, n_fitting))


def stack_pixels(batch: Sequence[LoadedImage]) -> np.ndarray:
    """Return the pixels of loaded images as one (n, height, width, 3) uint8 array, all views of one after another."""
    stacked = np.stack([loaded.pixels for loaded in batch if loaded.pixels is not None])
    return stacked.reshape(-1, *stacked.shape[-3:])
