"""From the bytes of an image file to RGB pixels, safely: from many threads, with a short reason when it cannot be done.

The rules, whose version is ``DECODER``:

- The content decides about the format, not the file's name. Only ``FORMATS`` are tried.
- Pictures of more than ``PIL.Image.MAX_IMAGE_PIXELS`` pixels are refused before any pixel is decoded, also where Pillow
  would only warn. Truncated files are refused.
- Of an animation or a file with several pages, the first is taken. The EXIF orientation is applied.
- The conversion to RGB is that of :mod:`featx.images.colour`.
"""

from __future__ import annotations

import functools
import hashlib
import io
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from PIL import Image, ImageFile, features

from featx.errors import ImageError
from featx.images.colour import to_rgb

DECODER = "pillow-1"
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")
DIGEST_BYTES = 16
MAX_FILE_BYTES = 2**30

_FEATURE_OF_FORMAT = {"JPEG": "jpg", "PNG": "zlib", "WEBP": "webp", "JPEG2000": "jpg_2000", "AVIF": "avif"}
_DEFAULT_MAX_PIXELS = 89_478_485  # Pillow's own, where somebody has lifted it
_ORIENTATION_TAG = 0x0112
_INFO_WITH_ORIENTATION = ("exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif")
_TRANSPOSE_BY_ORIENTATION = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class EncodedImage:
    """An image as it lies in its file.

    Attributes
    ----------
    digest : bytes
        16 bytes: BLAKE2b-128 of the file's bytes.
    data : bytes
        The file's bytes.
    """

    digest: bytes
    data: bytes = field(repr=False)

    def decode(self) -> Image.Image:
        """Picture in mode RGB, EXIF orientation applied.

        Raises
        ------
        ImageError
            With a short reason, if the bytes are not an image of an allowed format, damaged, truncated or too large.
        """
        return decode_image(self.data)


def read_image_file(location: str) -> EncodedImage:
    """Bytes of a file and their digest.

    Parameters
    ----------
    location : str
        Path of the file.

    Raises
    ------
    ImageError
        With the system's reason; also for what is not a regular file (reading a pipe could wait for ever) and for
        files of more than 1 GiB.
    """
    try:
        status = os.stat(location)
        if stat.S_ISDIR(status.st_mode):
            raise ImageError("a folder, not a file")
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("not a regular file")
        if status.st_size > MAX_FILE_BYTES:
            raise ImageError(f"too large: {status.st_size / 2**30:.1f} GiB, at most {MAX_FILE_BYTES / 2**30:.0f}")
        with open(location, "rb") as file:
            data = file.read()
    except ImageError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise ImageError(getattr(error, "strerror", None) or str(error)) from error
    return EncodedImage(hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest(), data)


def decode_image(data: bytes) -> Image.Image:
    """Picture in mode RGB from the bytes of an image file: see the rules on top of this module.

    Parameters
    ----------
    data : bytes
        The whole file.

    Raises
    ------
    ImageError
        With a short reason.
    """
    if not data:
        raise ImageError("empty file")
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        # A switch of the whole process: a picture that is gray from the middle on could not be told from a good one.
        raise ImageError("PIL.ImageFile.LOAD_TRUNCATED_IMAGES is on, which hides truncated images: set it to False")
    # Pillow's plugins raise almost any exception on damaged data, and one bad image must not end a long run.
    image_format = "image"
    try:
        image_format, picture = _open(data)
        _check_size(*picture.size)
        picture.load()
        return _upright(picture, to_rgb(picture))
    except ImageError:
        raise
    except Exception as error:
        raise ImageError(_reason(error, image_format)) from error


def image_extensions() -> frozenset[str]:
    """Extensions of files that are listed as images: lower case, with the dot."""
    return _decoders_and_extensions()[1]


@functools.cache
def _decoders_and_extensions() -> tuple[tuple[tuple[str, Any, Callable[[bytes], Any]], ...], frozenset[str]]:
    """Pillow's plugins for the allowed formats that this Pillow was built with, and the extensions they read."""
    Image.init()
    names = [
        name
        for name in FORMATS
        if name in Image.OPEN and (name not in _FEATURE_OF_FORMAT or features.check(_FEATURE_OF_FORMAT[name]))
    ]
    decoders = []
    for name in names:
        factory, accept = Image.OPEN[name]
        if accept is not None:
            decoders.append((name, factory, accept))
    extensions = {extension for extension, name in Image.registered_extensions().items() if name in names}
    if "JPEG" in names:
        extensions.add(".mpo")  # several JPEGs in a row, opened by the JPEG plugin
    return tuple(decoders), frozenset(extensions)


def _open(data: bytes) -> tuple[str, ImageFile.ImageFile]:
    """Format and header of a picture, no pixel decoded.

    ``PIL.Image.open`` would do, but it warns about large pictures, and warnings can only be turned into errors for the
    whole process, not for a thread: so the plugins are asked directly.
    """
    prefix = data[:16]
    for name, factory, accept in _decoders_and_extensions()[0]:
        if accept(prefix):
            try:
                return name, factory(io.BytesIO(data), "")
            except (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError):
                raise
            except Exception as error:
                raise ImageError(f"damaged or truncated {name} image") from error
    names = ", ".join(name for name, _, _ in _decoders_and_extensions()[0])
    raise ImageError(f"not an image that can be decoded ({names})")


def _check_size(width: int, height: int) -> None:
    limit = Image.MAX_IMAGE_PIXELS or _DEFAULT_MAX_PIXELS
    if width * height > limit:
        raise ImageError(f"too large: {width * height / 1e6:.0f} megapixels, at most {limit / 1e6:.0f}")
    if width < 1 or height < 1:
        raise ImageError(f"no pixels: {width}×{height}")


def _upright(opened: Image.Image, picture: Image.Image) -> Image.Image:
    """`picture` turned as the metadata of the file say; `opened` is the file's image, after loading."""
    # TIFF images are turned by Pillow's plugin while they load.
    if opened.format == "TIFF" or not any(key in opened.info for key in _INFO_WITH_ORIENTATION):
        return picture
    try:
        orientation = opened.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:
        return picture  # damaged metadata beside a good picture
    method = _TRANSPOSE_BY_ORIENTATION.get(orientation)
    return picture if method is None else picture.transpose(method)


def _reason(error: Exception, image_format: str) -> str:
    """A short sentence for the ledger of failures, without path or address."""
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return "too large: more pixels than PIL.Image.MAX_IMAGE_PIXELS"
    if isinstance(error, MemoryError):
        return "not enough memory to decode it"
    text = " ".join(str(error).split())
    if isinstance(error, EOFError) or "truncated" in text.lower() or "broken data stream" in text.lower():
        return "truncated image"
    return f"damaged {image_format} image ({text[:80] or type(error).__name__})"
