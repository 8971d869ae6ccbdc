"""Images that are not listed from a source: pictures in memory, and rows of a feature cache."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.errors import ImageError, UsageError
from featx.images import NO_SPLIT, ImageEntry, unescape_path

if TYPE_CHECKING:
    from PIL.Image import Image

    from featx.images import EncodedImage


@dataclass(frozen=True)
class DecodedPicture:
    """A picture that needs no decoding; the digest is that of its pixels.

    Parameters
    ----------
    digest : bytes
        BLAKE2b-128 of mode, size and pixels.
    picture : PIL.Image.Image
        RGB.
    """

    digest: bytes
    picture: Image

    def decode(self) -> Image:
        """Return the picture."""
        return self.picture


@dataclass(frozen=True)
class MemoryEntry:
    """A picture in memory, in the place of an `ImageEntry`."""

    path: str
    picture: DecodedPicture
    label: int = -1
    split: int = NO_SPLIT
    group: int = -1

    def read(self) -> DecodedPicture:
        """Return the picture."""
        return self.picture


@dataclass(frozen=True)
class CachedEntry:
    """A row of a feature cache: its digest is known, and its file is opened only where features are missing."""

    path: str
    digest: bytes
    label: int = -1
    split: int = NO_SPLIT
    group: int = -1

    def read(self) -> _CachedImage:
        """Return the row's digest, with the file behind it."""
        return _CachedImage(self.path, self.digest)


@dataclass(frozen=True)
class _CachedImage:
    path: str
    digest: bytes

    def decode(self) -> Image:
        """Return the picture, if the file still holds what the row was computed from."""
        encoded: EncodedImage = ImageEntry(self.path, location=unescape_path(self.path)).read()
        if encoded.digest != self.digest:
            raise ImageError("the file has changed since it was cached")
        return encoded.decode()


def memory_entry(value: Any) -> MemoryEntry:
    """Return the entry of a ``PIL.Image`` or of an (height, width, 3) uint8 array.

    Raises
    ------
    UsageError
        The value is neither.
    """
    from PIL import Image

    if isinstance(value, np.ndarray):
        if value.dtype != np.uint8 or value.ndim != 3 or value.shape[2] != 3:
            raise UsageError(
                f"an image array has dtype {value.dtype} and shape {value.shape}; give RGB as uint8 (height, width, 3)"
            )
        value = Image.fromarray(value)
    if not isinstance(value, Image.Image):
        raise UsageError(f"{type(value).__name__} is no image; give a path, a PIL image or a uint8 array")
    picture = value.convert("RGB")
    digest = hashlib.blake2b(f"{picture.size}".encode() + picture.tobytes(), digest_size=16).digest()
    return MemoryEntry(f"memory/{digest.hex()}", DecodedPicture(digest, picture))
