"""What a network expects of its pictures: geometry and normalisation, as plain numbers."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from featx.errors import BackboneError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True)
class TransformSpec:
    """Evaluation transform of a network.

    Parameters
    ----------
    size : (int, int)
        Height and width in pixels of what the network sees.
    resize_size : (int, int)
        Height and width in pixels that the picture is resized to before the crop: timm's
        ``floor(size / crop_pct)``. With ``crop_mode="center"`` the shorter edge is fitted to it.
    crop_mode : {"center", "squash", "border"}
        timm's crop modes.
    interpolation : str
        Name of Pillow's filter, such as ``"bicubic"``.
    mean, std : (float, float, float)
        Normalisation of RGB values in 0..1.
    """

    size: tuple[int, int]
    resize_size: tuple[int, int]
    crop_mode: str = "center"
    interpolation: str = "bicubic"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    @classmethod
    def from_timm(cls, config: Mapping[str, Any]) -> TransformSpec:
        """Return the transform of a configuration resolved by ``timm.data.resolve_model_data_config``."""
        channels, height, width = config["input_size"]
        if channels != 3:
            raise BackboneError(
                f"the network takes {channels} channels; featx reads RGB pictures of 3 channels: choose another network"
            )
        crop_pct = config["crop_pct"]
        return cls(
            size=(height, width),
            resize_size=(math.floor(height / crop_pct), math.floor(width / crop_pct)),
            crop_mode=config["crop_mode"] or "center",
            interpolation=config["interpolation"],
            mean=_three(config["mean"]),
            std=_three(config["std"]),
        )

    @property
    def side(self) -> int | None:
        """Height and width in pixels of what the network sees, where they are the same; else None."""
        height, width = self.size
        return height if height == width else None

    def at_size(self, size: int) -> TransformSpec:
        """Return the same transform for square pictures of another size, with the same share cropped off.

        Parameters
        ----------
        size : int
            Height and width in pixels.
        """
        resized = tuple(
            math.floor(size * whole / seen + 0.5) for whole, seen in zip(self.resize_size, self.size, strict=True)
        )
        return replace(self, size=(size, size), resize_size=(resized[0], resized[1]))

    @property
    def fill(self) -> tuple[int, int, int]:
        """Colour of the border added by ``crop_mode="border"``: the mean colour, as in timm."""
        red, green, blue = (round(255 * value) for value in self.mean)
        return red, green, blue

    @property
    def geometry(self) -> dict[str, Any]:
        """The arguments of `featx.images.resize_and_crop` and its like."""
        return {
            "size": self.size,
            "resize_size": self.resize_size,
            "crop_mode": self.crop_mode,
            "interpolation": self.interpolation,
            "fill": self.fill,
        }

    def to_json(self) -> dict[str, Any]:
        """Return the transform as JSON-able values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> TransformSpec:
        """Return the transform that `to_json` described."""
        fields: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        return cls(**fields)


def _three(values: Iterable[float]) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue
