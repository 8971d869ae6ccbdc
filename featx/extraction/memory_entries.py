"""Pictures in memory, in the place of images that are listed from a source."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.errors import ImageError, UsageError
from featx.images import NO_SPLIT
from featx.images.colour import to_rgb

if TYPE_CHECKING:
    from PIL.Image import Image

_ORIENTATION = 0x0112


@dataclass(frozen=True)
class DecodedPicture:
    """A picture that needs no decoding; the digest is that of its pixels.

    Parameters
    ----------
    digest : bytes
        BLAKE2b-128 of size and pixels.
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
    """A picture in memory, in the place of an `ImageEntry`.

    Parameters
    ----------
    path : str
        A name for messages.
    image : PIL.Image.Image or None
        In any mode; None where it cannot be loaded.
    reason : str
        Why it cannot.
    """

    path: str
    image: Image | None = field(repr=False)
    reason: str = ""
    label: int = -1
    split: int = NO_SPLIT
    group: int = -1

    def read(self) -> DecodedPicture:
        """Return the picture in RGB; it is kept nowhere, so that one copy an image at work is all the memory taken.

        Raises
        ------
        ImageError
            It cannot be loaded, or has no colours.
        """
        if self.image is None:
            raise ImageError(self.reason)
        picture = to_rgb(self.image)
        content = f"{picture.size}".encode() + picture.tobytes()
        return DecodedPicture(hashlib.blake2b(content, digest_size=16).digest(), picture)

    def named_by_content(self) -> MemoryEntry:
        """Return the entry under a path that is the same for the same picture."""
        try:
            return replace(self, path=f"memory/{self.read().digest.hex()}")
        except ImageError:
            return self  # has no row to be found by


def memory_entry(value: Any, place: int) -> MemoryEntry:
    """Return the entry of a ``PIL.Image`` or of an (height, width, 3) uint8 array.

    Parameters
    ----------
    value : PIL.Image.Image or ndarray
        What `PIL.Image.open` gave is loaded, and turned as its file says.
    place : int
        Where it stands among the images, for messages.

    Raises
    ------
    UsageError
        The value is neither.
    """
    from PIL import Image

    name = f"memory/{place}"
    if isinstance(value, np.ndarray):
        if value.dtype != np.uint8 or value.ndim != 3 or value.shape[2] != 3:
            raise UsageError(
                f"an image array has dtype {value.dtype} and shape {value.shape}; give RGB as uint8 (height, width, 3)"
            )
        value = Image.fromarray(value) if value.size else None
    elif not isinstance(value, Image.Image):
        raise UsageError(f"{type(value).__name__} is no image; give a path, a PIL image or a uint8 array")
    if value is None or 0 in value.size:
        return MemoryEntry(name, None, "no pixels")
    try:
        return MemoryEntry(name, _loaded(value))
    except Exception as error:  # Pillow's plugins raise almost anything on damaged files
        return MemoryEntry(name, None, " ".join(str(error).split()) or type(error).__name__)


def _loaded(image: Image) -> Image:
    """Return an image with its pixels in memory: an open file must not be read by two threads at once."""
    from PIL import ImageFile, ImageOps

    image.load()
    # What was made from a file by the user is taken as it is; Pillow itself turns TIFF.
    is_file = isinstance(image, ImageFile.ImageFile) and image.format != "TIFF"
    if is_file and image.getexif().get(_ORIENTATION, 1) != 1:
        return ImageOps.exif_transpose(image)
    return image
