"""From any of Pillow's modes to RGB, the way a viewer would show the picture.

- Transparency (alpha, transparent palette entries, a transparent colour) lies on white.
- CMYK, YCbCr and 1-bit as Pillow converts them (it already turns Adobe's inverted CMYK).
- 16-bit gray is divided by 257, so that 65535 becomes 255; Pillow's own conversion would clip at 255.
- 32-bit integers beyond 16 bits, negative numbers, and floating point have no agreed range: the picture's own smallest
  finite value becomes 0 and its largest 255, anything not finite becomes 0, a constant picture is black.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from featx.errors import ImageError

_MODES_THAT_CONVERT = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV")


def to_rgb(picture: Image.Image) -> Image.Image:
    """Picture in mode RGB; the same object if it is RGB already.

    Parameters
    ----------
    picture : PIL.Image.Image
        Any mode but LAB.

    Raises
    ------
    ImageError
        For a mode that cannot be shown without a colour profile.
    """
    if picture.mode == "RGB" and "transparency" not in picture.info:
        return picture
    if picture.mode == "F" or picture.mode.startswith("I"):
        return Image.fromarray(_eight_bits(np.asarray(picture))).convert("RGB")
    if picture.has_transparency_data:
        return _on_white(picture)
    if picture.mode in _MODES_THAT_CONVERT:
        return picture.convert("RGB")
    raise ImageError(f"colour mode {picture.mode} cannot be converted to RGB")


def _on_white(picture: Image.Image) -> Image.Image:
    plain = {"La": "LA", "RGBa": "RGBA"}  # colours multiplied by alpha: Pillow converts them in two steps
    if picture.mode in plain:
        picture = picture.convert(plain[picture.mode])
    with_alpha = picture.convert("RGBA")
    background = Image.new("RGB", picture.size, (255, 255, 255))
    background.paste(with_alpha.convert("RGB"), mask=with_alpha.getchannel("A"))
    return background


def _eight_bits(values: np.ndarray) -> np.ndarray:
    """Gray values as uint8, the same shape: rules on top of this module."""
    if values.dtype.kind != "f" and values.size and values.min() >= 0 and values.max() <= 65535:
        return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)  # rounded: 257 is odd, so no ties
    values = values.astype(np.float64)
    finite = np.isfinite(values)
    if not finite.any():
        return np.zeros(values.shape, dtype=np.uint8)
    low, high = values[finite].min(), values[finite].max()
    if high == low:
        return np.zeros(values.shape, dtype=np.uint8)
    return np.rint(255 * (np.where(finite, values, low) - low) / (high - low)).astype(np.uint8)
