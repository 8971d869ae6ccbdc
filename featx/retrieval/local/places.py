"""Where the places of a map lie on the picture, in units in which a turned picture keeps its shape."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from featx.errors import UsageError


@dataclass(frozen=True)
class LocalPlaces:
    """What is seen where on one picture.

    Attributes
    ----------
    vectors : ndarray of float32, shape (n, d)
        From `LocalEncoder.describe`.
    positions : ndarray of float32, shape (n, 2)
        From `place_positions`.
    """

    vectors: np.ndarray
    positions: np.ndarray

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2 or self.positions.shape != (len(self.vectors), 2) or not len(self.vectors):
            raise UsageError(
                f"places with vectors of shape {self.vectors.shape} and positions of shape {self.positions.shape};"
                " needed are (n, d) and (n, 2) with at least one place"
            )


def place_positions(
    map_shape: tuple[int, int], boxes: np.ndarray | None = None, size: tuple[float, float] = (1.0, 1.0)
) -> np.ndarray:
    """Return the middles of a map's cells, float32 of shape (n_views·h·w, 2): x, y in units of the longer side.

    Parameters
    ----------
    map_shape : (int, int)
        Height and width of the map.
    boxes : ndarray of shape (n_views, 4) or (4,), optional
        Left, top, right, bottom of what each view shows, as shares of the picture's width and height; by default one
        view of the whole picture. The views' places follow one another.
    size : (float, float)
        Width and height of the picture, in any unit: both coordinates must be measured with the same stick.
    """
    height, width = map_shape
    if min(height, width) < 1 or min(size) <= 0:
        raise UsageError(f"a map of shape {map_shape} of a picture of size {size}; all four must be positive")
    whole = np.array([[0.0, 0.0, 1.0, 1.0]])
    left, top, right, bottom = np.reshape(whole if boxes is None else boxes, (-1, 4)).astype(np.float64).T
    across = left[:, None] + (right - left)[:, None] * (np.arange(width) + 0.5) / width
    down = top[:, None] + (bottom - top)[:, None] * (np.arange(height) + 0.5) / height
    positions = np.empty((len(left), height, width, 2), np.float32)
    positions[..., 0] = across[:, None, :] * (size[0] / max(size))
    positions[..., 1] = down[:, :, None] * (size[1] / max(size))
    return positions.reshape(-1, 2)
