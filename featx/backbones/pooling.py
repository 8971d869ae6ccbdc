"""Poolings: from the output of a layer to one vector an image."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from featx.backbones.rmac import DEFAULT_LEVELS, pool_regions
from featx.errors import LayerError

if TYPE_CHECKING:
    from collections.abc import Callable

MAP_POOLS = ("avg", "max", "avgmax", "gem[:p]", "grid:K", "rmac[:L]", "flatten")
_NEED_A_GRID = ("grid:K", "rmac[:L]")
TOKEN_POOLS = ("cls", "prefix")


@dataclass(frozen=True)
class Layout:
    """How the axes of a layer's output are to be read.

    Parameters
    ----------
    kind : {"vector", "nchw", "nhwc", "tokens"}
        ``tokens`` is (batch, tokens, channels).
    n_prefix : int
        Tokens before the patches: class, distillation and register tokens.
    has_class_token : bool
        Whether the first prefix token is a class token.
    grid : (int, int) or None
        Rows and columns of the patch tokens; None where they form no known grid.
    """

    kind: str
    n_prefix: int = 0
    has_class_token: bool = False
    grid: tuple[int, int] | None = None


def allowed_pools(layout: Layout) -> tuple[str, ...]:
    """Return the poolings that a layer of this layout can have."""
    if layout.kind == "vector":
        return ("avg",)
    if layout.kind == "tokens":
        pools = MAP_POOLS if layout.grid else tuple(pool for pool in MAP_POOLS if pool not in _NEED_A_GRID)
        extra = TOKEN_POOLS if layout.has_class_token else TOKEN_POOLS[1:] if layout.n_prefix else ()
        return pools + extra
    return MAP_POOLS


def make_pool(name: str, layout: Layout) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the function that pools a layer's output to (batch, width) float32.

    Parameters
    ----------
    name : str
        ``avg``, ``max``, ``avgmax`` (timm's: the mean of both), ``gem[:p]`` (generalised mean, p = 3 by
        default; Radenović et al. 2018), ``grid:K`` (average over a K x K grid, flattened channel first),
        ``rmac[:L]`` (regional maxima on L scales, 3 by default; Tolias et al. 2016, see `pool_regions`), ``flatten``
        (channel first), and on token models ``cls`` and ``prefix`` (all prefix tokens side by side).
    layout : Layout
        How the output is to be read.

    Raises
    ------
    LayerError
        The pooling is unknown or does not fit the layout.
    """
    kind, _, argument = name.partition(":")
    allowed = allowed_pools(layout)
    if kind not in {pool.partition(":")[0].partition("[")[0] for pool in allowed}:
        raise LayerError(f"pooling {name!r} does not fit a {_describe(layout)}; allowed: {', '.join(allowed)}")
    if argument and kind not in ("gem", "grid", "rmac"):
        raise LayerError(f"pooling {name!r}: {kind} takes no argument; write {kind!r}")
    if layout.kind == "vector":
        return _copied
    if kind in TOKEN_POOLS:
        n_taken = 1 if kind == "cls" else layout.n_prefix
        return lambda output: _copied(output[:, :n_taken].flatten(1))
    pool = _map_pool(name, kind, argument)
    return lambda output: pool(_as_nchw(output, layout).float()).flatten(1)


def check_pool_name(name: str) -> None:
    """Raise `LayerError` where no layout at all takes this pooling."""
    for layout in (Layout("nchw"), Layout("tokens", 1, has_class_token=True)):
        kind = name.partition(":")[0]
        if kind in {pool.partition(":")[0].partition("[")[0] for pool in allowed_pools(layout)}:
            make_pool(name, layout)
            return
    raise LayerError(f"pooling {name!r} is unknown; allowed: {', '.join(MAP_POOLS + TOKEN_POOLS)}")


def _copied(output: torch.Tensor) -> torch.Tensor:
    """Return float32 values of their own: an in-place activation after the layer would change a mere view."""
    return output.to(torch.float32, copy=True)


def _describe(layout: Layout) -> str:
    if layout.kind == "tokens":
        return f"layer of tokens with {layout.n_prefix} prefix tokens"
    return "layer that is already a vector" if layout.kind == "vector" else "spatial map"


def _as_nchw(output: torch.Tensor, layout: Layout) -> torch.Tensor:
    """Return the output as (batch, channels, rows, columns); tokens without a grid become one row."""
    if layout.kind == "nhwc":
        return output.permute(0, 3, 1, 2)
    if layout.kind == "tokens":
        patches = output[:, layout.n_prefix :].transpose(1, 2)  # (batch, channels, patches)
        return patches.unflatten(2, layout.grid) if layout.grid else patches.unsqueeze(2)
    return output


def _map_pool(name: str, kind: str, argument: str) -> Callable[[torch.Tensor], torch.Tensor]:
    if kind == "avg":
        return lambda maps: maps.mean((2, 3))
    if kind == "max":
        return lambda maps: maps.amax((2, 3))
    if kind == "avgmax":
        return lambda maps: 0.5 * (maps.mean((2, 3)) + maps.amax((2, 3)))
    if kind == "gem":
        power = _power(name, argument)
        return lambda maps: maps.clamp(min=1e-6).pow(power).mean((2, 3)).pow(1.0 / power)
    if kind == "grid":
        if not re.fullmatch(r"[1-9]\d?", argument):
            raise LayerError(f"pooling {name!r}: K of grid:K is a whole number from 1 to 99, such as grid:4")
        return lambda maps: functional.adaptive_avg_pool2d(maps, int(argument))
    if kind == "rmac":
        n_levels = _levels(name, argument)
        return lambda maps: pool_regions(maps, n_levels)
    return _copied


def _levels(name: str, argument: str) -> int:
    if not re.fullmatch(r"[1-9]?", argument):
        raise LayerError(f"pooling {name!r}: L of rmac:L is a whole number from 1 to 9, such as rmac:3")
    return int(argument or DEFAULT_LEVELS)


def _power(name: str, argument: str) -> float:
    try:
        power = float(argument or 3)
    except ValueError:
        power = math.nan
    if not 0 < power < math.inf:
        raise LayerError(f"pooling {name!r}: p of gem:p is a positive number, such as gem:3")
    return power
