"""Listing a data set of torchvision that is already on the disk: ``torchvision-data:NAME:ROOT``.

Nothing is ever downloaded, and the loader's own check of its files must pass. Splits are taken from the loader's
signature: ``train: bool`` gives train and test, ``split: str`` those of train, val and test that it accepts; a loader
with neither gives images without a split. Pictures are taken as the loader gives them: their digest covers the
pixels, and no EXIF orientation is applied.
"""

from __future__ import annotations

import difflib
import hashlib
import inspect
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from featx.errors import ImageError, SourceError
from featx.images.colour import to_rgb
from featx.images.decoding import DIGEST_BYTES, EncodedImage
from featx.images.entries import NO_SPLIT, TEST, TRAIN, VAL, ImageEntry, ImageListing, index_names
from featx.images.stored_paths import escape_path

PREFIX = "torchvision-data:"

# ImageFolder and the like take any folder, which is a source by itself; LSUN unpickles a file of the current folder.
_NOT_OFFERED = ("DatasetFolder", "ImageFolder", "LSUN", "LSUNClass", "VisionDataset")
_SPLIT_CANDIDATES = (
    ("train", TRAIN, ("train", "trainval")),
    ("val", VAL, ("val", "valid", "validation")),
    ("test", TEST, ("test",)),
)


@dataclass(frozen=True)
class _Part:
    """One split of a data set."""

    name: str
    split: int
    dataset: Any


@dataclass(frozen=True)
class PixelImage(EncodedImage):
    """A picture that was never a file of its own; `digest` covers its mode, size, palette and pixels."""

    picture: Image.Image = field(default_factory=lambda: Image.new("RGB", (1, 1)), repr=False)

    def decode(self) -> Image.Image:
        """Picture in mode RGB.

        Raises
        ------
        ImageError
            For a mode that cannot be converted.
        """
        return to_rgb(self.picture)


@dataclass(frozen=True)
class DatasetEntry(ImageEntry):
    """One image of a torchvision data set."""

    dataset: Any = field(default=None, repr=False)
    index: int = 0

    def read(self) -> PixelImage:
        """Pixels of the image and their digest.

        Raises
        ------
        ImageError
            With the loader's reason.
        """
        try:
            picture = self.dataset[self.index][0]
            picture.load()
        except Exception as error:  # loaders are foreign code, and one bad image must not end a long run
            raise ImageError(" ".join(str(error).split())[:120] or type(error).__name__) from error
        return PixelImage(_digest_pixels(picture), b"", picture)


def list_torchvision_data(specification: str) -> ImageListing:
    """Images of a torchvision data set, split by split, each in the loader's order, as ``train/000123``.

    Parameters
    ----------
    specification : str
        ``torchvision-data:NAME:ROOT``; the name as in ``torchvision.datasets``, the root as its loader wants it.

    Raises
    ------
    SourceError
        For an unknown name, files that are missing or damaged, or a data set that does not give pictures.

    Notes
    -----
    Labels come from the loader's list of targets. Where it has none, every picture is loaded once to ask for them.
    """
    name, separator, root = specification.removeprefix(PREFIX).partition(":")
    if not (name and separator and root):
        raise SourceError(f"{specification!r} is not complete; write {PREFIX}NAME:ROOT, such as {PREFIX}CIFAR10:data")
    root = os.path.abspath(os.path.expanduser(root))
    parts = [part for part in _open_parts(_loader(name), name, root) if len(part.dataset)]
    if not parts:
        raise SourceError(f"{name} in {root} holds no images; check the folder")
    names: list[str | None] = []
    for part in parts:
        _check_gives_pictures(part, name)
        names.extend(_class_names_of(part.dataset))
    class_names, labels = index_names(names)
    positions = [(part, index) for part in parts for index in range(len(part.dataset))]
    entries = tuple(
        DatasetEntry(_path(part, index), label, part.split, dataset=part.dataset, index=index)
        for (part, index), label in zip(positions, labels, strict=True)
    )
    return ImageListing(escape_path(f"{PREFIX}{name}:{root}"), entries, class_names)


def _loader(name: str) -> Any:
    """The class of that name in ``torchvision.datasets``."""
    import torchvision.datasets

    offered = {
        item: getattr(torchvision.datasets, item)
        for item in torchvision.datasets.__all__
        if item not in _NOT_OFFERED and inspect.isclass(getattr(torchvision.datasets, item))
    }
    offered = {item: loader for item, loader in offered.items() if "root" in inspect.signature(loader).parameters}
    if name in offered:
        return offered[name]
    lower = {item.lower(): item for item in offered}
    close = [lower[match] for match in difflib.get_close_matches(name.lower(), lower, n=3)]
    hint = f"did you mean {' or '.join(close)}?" if close else f"use one of {', '.join(sorted(offered))}"
    raise SourceError(f"torchvision data set {name!r} is not known; {hint}")


def _open_parts(loader: Any, name: str, root: str) -> list[_Part]:
    """The splits of a data set, in the order train, val, test."""
    parameters = inspect.signature(loader).parameters
    options = {"download": False} if "download" in parameters else {}
    if "train" in parameters:
        choices = (("train", TRAIN, True), ("test", TEST, False))
        return [_Part(part, split, _open(loader, name, root, train=value, **options)) for part, split, value in choices]
    if "split" not in parameters:
        return [_Part("", NO_SPLIT, _open(loader, name, root, **options))]
    parts = list(_open_named_splits(loader, name, root, options))
    if not parts:
        raise SourceError(f"{name} in {root} has no split called train, val or test; use another data set or a folder")
    return parts


def _open_named_splits(loader: Any, name: str, root: str, options: dict[str, bool]) -> Iterator[_Part]:
    for part, split, candidates in _SPLIT_CANDIDATES:
        for value in candidates:
            try:
                dataset = _open(loader, name, root, split=value, **options)
            except ValueError as error:
                if isinstance(error, SourceError):
                    raise
                continue  # a split that this loader does not know
            yield _Part(part, split, dataset)
            break


def _open(loader: Any, name: str, root: str, **options: Any) -> Any:
    """The data set; the ValueError of a loader that does not know a split passes."""
    try:
        return loader(root, **options)
    except ImportError as error:
        raise SourceError(f"torchvision's {name} needs a package that is not installed: {error}; install it") from error
    except Exception as error:
        if isinstance(error, ValueError) and "split" in options and "Unknown value" in str(error):
            raise
        raise SourceError(f"{_refusal(name, root)} ({' '.join(str(error).split())})") from error


def _refusal(name: str, root: str) -> str:
    return (
        f"torchvision's {name} does not accept the files in {root}: they are missing or damaged. featx never "
        "downloads; put the complete, unchanged files where the loader expects them"
    )


def _check_gives_pictures(part: _Part, name: str) -> None:
    try:
        picture = part.dataset[0][0]
    except Exception as error:
        raise SourceError(f"the first image of {name} cannot be loaded: {error}; check its files") from error
    if not isinstance(picture, Image.Image):
        raise SourceError(f"{name} gives {type(picture).__name__}, not pictures; use a data set of single images")


def _class_names_of(dataset: Any) -> list[str | None]:
    """Name of the class of each image, None where there is no single one."""
    targets = _targets(dataset)
    names = [", ".join(item) if isinstance(item, (tuple, list)) else str(item) for item in _classes(dataset)]
    if len(set(names)) < len(names):
        names = [f"{name} ({number})" for number, name in enumerate(names)]
    return [_class_name(target, names) for target in targets]


def _classes(dataset: Any) -> list[Any]:
    classes = getattr(dataset, "classes", None)
    return list(classes) if isinstance(classes, (list, tuple)) else []


def _class_name(target: Any, names: list[str]) -> str | None:
    if isinstance(target, str):
        return target
    try:
        number = int(target)
    except (TypeError, ValueError, RuntimeError):
        return None  # boxes, several attributes, …
    return names[number] if 0 <= number < len(names) else str(number)


def _targets(dataset: Any) -> list[Any]:
    """Target of each image; the loader's own list is believed only if its ends agree with its items."""
    n = len(dataset)
    for attribute in ("targets", "labels", "_labels"):
        values = getattr(dataset, attribute, None)
        if values is not None and np.shape(values) == (n,):
            targets = np.asarray(values).tolist()
            if all(_class_name(dataset[i][1], []) == _class_name(targets[i], []) for i in (0, n - 1)):
                return targets
    return [dataset[index][1] for index in range(n)]


def _path(part: _Part, index: int) -> str:
    return f"{part.name}/{index:06d}" if part.name else f"{index:06d}"


def _digest_pixels(picture: Image.Image) -> bytes:
    digest = hashlib.blake2b(f"{picture.mode} {picture.width}x{picture.height}\n".encode(), digest_size=DIGEST_BYTES)
    if picture.mode == "P":
        digest.update(bytes(picture.getpalette() or ()))
    digest.update(picture.tobytes())
    return digest.digest()
