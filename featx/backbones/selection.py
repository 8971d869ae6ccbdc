"""From what a user writes after ``--layers`` to the exact taps."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from featx.backbones.layers import LayerInfo
from featx.backbones.names import LOGITS, PENULTIMATE
from featx.backbones.pooling import check_pool_name, make_pool
from featx.backbones.stages import stage_names
from featx.errors import LayerError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from torch import nn

NAMED_PERCENTAGES = {"early": 25.0, "middle": 50.0, "late": 75.0}
MAX_MATCHES = 32


@dataclass(frozen=True)
class Tap:
    """One layer with one pooling: what becomes one feature vector an image.

    Parameters
    ----------
    layer : LayerInfo
        The layer.
    pool : str
        The pooling, see `make_pool`.
    width : int
        Length of the feature vector.
    """

    layer: LayerInfo
    pool: str
    width: int

    @property
    def key(self) -> str:
        """``LAYER@POOL``."""
        return f"{self.layer.name}@{self.pool}"


@dataclass(frozen=True)
class Selection:
    """Taps in execution order, and the names that the user had for their layers.

    Parameters
    ----------
    taps : tuple of Tap
        Without repetitions.
    aliases : dict of str to str
        Such as ``{"early": "blocks.2"}``.
    """

    taps: tuple[Tap, ...]
    aliases: dict[str, str]


def make_tap(layer: LayerInfo, pool: str = "avg") -> Tap:
    """Return the tap of a layer with a pooling.

    Raises
    ------
    LayerError
        The layer cannot be tapped, or the pooling does not fit it.
    """
    if layer.problem:
        raise LayerError(f"layer {layer.name!r} cannot be tapped: {layer.problem}; choose another (see: featx layers)")
    try:
        pooled = make_pool(pool, layer.layout)(torch.zeros(1, *layer.shape))
    except LayerError as error:
        raise LayerError(f"layer {layer.name!r}: {error}") from error
    return Tap(layer, pool, pooled.shape[1])


def in_execution_order(taps: Iterable[Tap]) -> tuple[Tap, ...]:
    """Return taps in the order in which a network computes them, each once."""
    distinct = {tap.key: tap for tap in taps}
    return tuple(sorted(distinct.values(), key=lambda tap: (tap.layer.order, tap.pool)))


def select_taps(
    module: nn.Module, layers: Mapping[str, LayerInfo], wanted: str | Sequence[str], pool: str = "avg"
) -> Selection:
    """Return the taps that a list of layer names stands for.

    Parameters
    ----------
    module : nn.Module
        The network.
    layers : mapping
        Layer name to `LayerInfo`, in execution order.
    wanted : str or sequence of str
        Comma-separated or a list of: a dotted name, a glob (``*`` stays within one level, ``**`` crosses),
        ``all-stages``, ``P%``, ``early``, ``middle``, ``late``, ``penultimate``; each may end in ``@POOL``.
    pool : str
        Comma-separated poolings of the layers that name none. A layer that is already a vector takes ``avg``.

    Raises
    ------
    LayerError
        Nothing fits a name, a glob fits more than 32 layers, or a layer or pooling cannot be used.
    """
    items = [item.strip() for item in (wanted.split(",") if isinstance(wanted, str) else wanted)]
    pools = [name.strip() for name in pool.split(",")]
    for name in pools:
        check_pool_name(name)
    aliases: dict[str, str] = {}
    taps: dict[str, Tap] = {}
    for item in filter(None, items):
        name, _, own_pool = item.partition("@")
        for layer in _expand(name, module, layers, aliases):
            default = ["avg"] if layer.layout.kind == "vector" else pools
            for chosen in [own_pool] if own_pool else default:
                tap = make_tap(layer, chosen)
                taps[tap.key] = tap
    if not taps:
        raise LayerError("no layer given; name at least one, such as penultimate (see: featx layers)")
    return Selection(in_execution_order(taps.values()), aliases)


def _expand(name: str, module: nn.Module, layers: Mapping[str, LayerInfo], aliases: dict[str, str]) -> list[LayerInfo]:
    """Return the layers that one name stands for; notes an alias where the name is not a layer's own."""
    if name in layers:
        return [layers[name]]
    if name == "all-stages":
        return [layers[stage] for stage in stage_names(module, layers)]
    percentage = NAMED_PERCENTAGES.get(name, _percentage(name))
    if percentage is not None:
        layer = _at_percentage(percentage, module, layers)
        aliases[name] = layer.name
        return [layer]
    if "*" in name:
        return _matching(name, layers)
    if name in dict(module.named_modules()):
        raise LayerError(f"layer {name!r} is never called in a forward pass; choose another (see: featx layers)")
    raise _unknown(name, layers)


def _percentage(name: str) -> float | None:
    number = re.fullmatch(r"(\d+(?:\.\d+)?)%", name)
    if number is None:
        return None
    value = float(number[1])
    if not 0 < value <= 100:
        raise LayerError(f"layer {name!r}: a percentage of the network's work lies above 0 and at most at 100")
    return value


def _at_percentage(percentage: float, module: nn.Module, layers: Mapping[str, LayerInfo]) -> LayerInfo:
    """Return the last stage within that share of the network's work; the first stage where none is."""
    stages = [layers[name] for name in stage_names(module, layers)]
    if not stages:
        raise LayerError("this network has no sequence of stages to take a percentage of; name a layer instead")
    within = [stage for stage in stages if 100 * stage.depth <= percentage]
    return within[-1] if within else stages[0]


def _matching(glob: str, layers: Mapping[str, LayerInfo]) -> list[LayerInfo]:
    pattern = "".join({"**": ".*", "*": r"[^.]*"}.get(part, re.escape(part)) for part in re.split(r"(\*\*|\*)", glob))
    found = [
        layer
        for name, layer in layers.items()
        if re.fullmatch(pattern, name) and not layer.problem and name not in (PENULTIMATE, LOGITS)
    ]
    if len(found) > MAX_MATCHES:
        raise LayerError(f"{glob!r} fits {len(found)} layers; at most {MAX_MATCHES} can be taken: narrow it")
    if not found:
        raise _unknown(glob, layers)
    return found


def _unknown(name: str, layers: Mapping[str, LayerInfo]) -> LayerError:
    usable = [other for other, layer in layers.items() if not layer.problem]
    close = difflib.get_close_matches(name, usable, n=5, cutoff=0.5)
    if name == PENULTIMATE:
        hint = f"the network has no classifier; the deepest layer is {[u for u in usable if u != LOGITS][-1]!r}"
    else:
        hint = f"close: {', '.join(close)}" if close else "see: featx layers MODEL"
    return LayerError(f"the network has no layer {name!r}; {hint}")
