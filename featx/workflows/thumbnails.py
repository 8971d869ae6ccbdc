"""Small pictures of images, as they are shown on pages and kept in indexes."""

from __future__ import annotations

import io

from featx.errors import ImageError, UsageError
from featx.images import ImageEntry

THUMBNAIL_SIZE = 256

_QUALITY = 80


def thumbnail_of(image: ImageEntry | str, size: int = THUMBNAIL_SIZE) -> bytes | None:
    """Return a small RGB JPEG of an image, or None where it cannot be read.

    Parameters
    ----------
    image : ImageEntry or str
        An entry, or where the file lies, as ``os`` functions take it.
    size : int
        Longest side in pixels, at least 1; smaller pictures keep their size.

    Returns
    -------
    bytes or None
        Upright: the EXIF orientation has been applied, and no metadata are kept.

    Raises
    ------
    UsageError
        `size` is not at least 1.
    """
    if size < 1:
        raise UsageError(f"a thumbnail of {size} pixels was asked for; needed is at least 1, such as {THUMBNAIL_SIZE}.")
    entry = image if isinstance(image, ImageEntry) else ImageEntry(image, location=image)
    try:
        picture = entry.read().decode()
    except ImageError:
        return None
    picture.thumbnail((size, size))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()
