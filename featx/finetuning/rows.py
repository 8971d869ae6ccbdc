"""What training takes its batches from: pictures, changed anew in every epoch, or features computed once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from featx.errors import ImageError
from featx.finetuning.augmentation import picture_steps
from featx.finetuning.randomness import seeded

if TYPE_CHECKING:
    from PIL import Image

    from featx.backbones import TransformSpec
    from featx.images import ImageEntry

Batch = tuple[torch.Tensor, torch.Tensor]  # inputs; labels, int64
_BYTES_KEPT = 512 * 2**20  # of decoded pictures


class TrainingRows(Protocol):
    """Images to learn from, or to be validated on."""

    @property
    def labels(self) -> np.ndarray:
        """Class of each row, int64 of shape (n,)."""

    def batches(self, rows: Sequence[np.ndarray], key: Sequence[int]) -> Iterator[Batch]:
        """Yield inputs and labels of groups of rows; `key` (seed, epoch) decides what is random."""


@dataclass(frozen=True)
class FeatureRows:
    """Features of images, which nothing changes.

    Parameters
    ----------
    features : ndarray of shape (n, d), float32
        One row an image.
    labels : ndarray of shape (n,), int64
        Classes from 0.
    """

    features: np.ndarray
    labels: np.ndarray

    def batches(self, rows: Sequence[np.ndarray], key: Sequence[int]) -> Iterator[Batch]:  # noqa: ARG002 - nothing is random
        """Yield features and labels of groups of rows."""
        for batch in rows:
            yield torch.from_numpy(self.features[batch]), torch.from_numpy(self.labels[batch])


@dataclass(frozen=True)
class PictureRows:
    """Pictures, decoded when they are needed.

    Parameters
    ----------
    entries : sequence of ImageEntry
        The images.
    labels : ndarray of shape (n,), int64
        Classes from 0.
    transform : TransformSpec
        Of the network.
    augment : sequence of str
        See `featx.finetuning.augmentation.picture_steps`; none for pictures as the network's own transform gives them.
    n_workers : int
        Processes that decode; with 0 the training itself does, and keeps 512 MB of decoded pictures.
    """

    entries: Sequence[ImageEntry]
    labels: np.ndarray
    transform: TransformSpec
    augment: Sequence[str] = ()
    n_workers: int = 0
    _loaders: list[_Pictures] = field(default_factory=list, repr=False)

    def batches(self, rows: Sequence[np.ndarray], key: Sequence[int]) -> Iterator[Batch]:
        """Yield pixels (batch, height, width, 3), uint8, and labels of groups of rows.

        Raises
        ------
        ImageError
            An image cannot be read; the message names it.
        """
        if not self._loaders:
            self._loaders.append(_Pictures(self.entries, self.labels, self.transform, tuple(self.augment)))
        loader = DataLoader(
            self._loaders[0],
            batch_sampler=[[(int(row), *key) for row in batch] for batch in rows],
            num_workers=self.n_workers,
            # Forked processes do not go together with threads of OpenMP, HDF5 and FAISS.
            multiprocessing_context="spawn" if self.n_workers else None,
            generator=torch.Generator(),  # its draws are not used, and the caller's stay as they were
        )
        yield from loader


class _Pictures(Dataset[Any]):
    """Pictures by row and key, in a form that other processes can take over."""

    def __init__(
        self, entries: Sequence[ImageEntry], labels: np.ndarray, transform: TransformSpec, augment: tuple[str, ...]
    ) -> None:
        self._entries, self._labels, self._transform, self._augment = entries, labels, transform, augment
        self._steps: Any = None
        self._kept: dict[int, Image.Image] = {}
        self._n_bytes = 0

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_steps": None, "_kept": {}, "_n_bytes": 0}

    def __getitem__(self, place: tuple[int, ...]) -> tuple[torch.Tensor, int]:
        row, *key = place
        if self._steps is None:
            self._steps = picture_steps(self._transform, self._augment)
        picture = self._decoded(row)
        if not self._augment:
            return self._steps(picture), int(self._labels[row])
        with seeded(*key, row):
            return self._steps(picture), int(self._labels[row])

    def _decoded(self, row: int) -> Image.Image:
        if row in self._kept:
            return self._kept[row]
        entry = self._entries[row]
        try:
            picture = entry.read().decode()
        except ImageError as error:
            raise ImageError(
                f"{entry.path}: {error}; it could be read before the training began. Put it back, or run the same"
                " command again without it"
            ) from error
        # A crop of half of the area still has more pixels than the network takes.
        factor = min(picture.size) // (2 * max(self._transform.size)) if self._augment else 1
        picture = picture.reduce(factor) if factor > 1 else picture
        self._n_bytes += 3 * picture.width * picture.height
        if self._n_bytes <= _BYTES_KEPT:
            self._kept[row] = picture
        return picture
