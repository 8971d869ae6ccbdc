"""R-MAC: the strongest values of many square regions of a map, so that a part of a picture is found as well.

Tolias, Sicre and Jégou, "Particular object retrieval with integral max-pooling of CNN activations", ICLR 2016,
arXiv 1511.05879, section 3.2.
"""

from __future__ import annotations

import torch
from torch.nn import functional

DEFAULT_LEVELS = 3
_OVERLAP = 0.4  # of neighbouring regions, as near to it as a whole number of regions comes
_MOST_ON_LONG_SIDE = 7  # regions of the first level, as in the authors' own code


def regions(n_rows: int, n_columns: int, n_levels: int = DEFAULT_LEVELS) -> list[tuple[int, int, int]]:
    """Return the square regions of a map as (first row, first column, side), the largest first.

    Parameters
    ----------
    n_rows, n_columns : int
        Of the map (H and W in the paper).
    n_levels : int
        Scales (L). Regions of level l have the side ⌊2 min(H, W) / (l + 1)⌋; there are l of them along the short side
        of the map and l + m − 1 along the long one, evenly spread. m is chosen so that at the first level neighbours
        overlap by about 40 %. Levels whose regions would be smaller than one place are left out.
    """
    extra = n_on_long_side(n_rows, n_columns) - 1
    found = []
    for level in range(1, n_levels + 1):
        side = 2 * min(n_rows, n_columns) // (level + 1)
        if side:
            rows = _starts(n_rows, side, level + (extra if n_rows > n_columns else 0))
            columns = _starts(n_columns, side, level + (extra if n_columns > n_rows else 0))
            found += [(row, column, side) for row in rows for column in columns]
    return found


def n_on_long_side(n_rows: int, n_columns: int) -> int:
    """Return how many regions of the first level lie along the long side of a map (m); 1 on a square one."""
    short, long = sorted((n_rows, n_columns))
    if short == long:
        return 1
    overlaps = {n: 1 - (long - short) / (n - 1) / short for n in range(2, _MOST_ON_LONG_SIDE + 1)}
    return min(overlaps, key=lambda n: abs(overlaps[n] - _OVERLAP))


def _starts(length: int, side: int, n_regions: int) -> list[int]:
    """Return where regions begin that are spread over a side of the map from end to end."""
    return [place * (length - side) // max(n_regions - 1, 1) for place in range(n_regions)]


def pool_regions(maps: torch.Tensor, n_levels: int = DEFAULT_LEVELS) -> torch.Tensor:
    """Return the sum of the L2-normalised maxima of all regions, (batch, channels).

    Parameters
    ----------
    maps : torch.Tensor
        (batch, channels, rows, columns).
    n_levels : int
        See `regions`.

    Notes
    -----
    The paper whitens the vector of each region before it is summed, and normalises the sum. Neither is done here:
    whitening is learned on a store, which has only the sum, and whoever compares by cosine normalises anyway.
    The sides are read as plain numbers, so that a traced graph holds the regions of its own map.
    """
    n_rows, n_columns = int(maps.shape[2]), int(maps.shape[3])
    maxima = [
        functional.normalize(maps[:, :, row : row + side, column : column + side].amax((2, 3)), dim=1)
        for row, column, side in regions(n_rows, n_columns, n_levels)
    ]
    return torch.stack(maxima).sum(0)
