"""The body of a network: the sequence of its top-level stages or blocks."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from featx.backbones.layers import LayerInfo


def stage_names(module: nn.Module, layers: Mapping[str, LayerInfo]) -> tuple[str, ...]:
    """Return the children of the body's top-level sequence, in execution order.

    ``blocks.0 … blocks.6``, ``layer1 … layer4``, ``stages.0 …``, each block of a ViT. The body is the sequence
    (numbered siblings such as ``layer1 … layer4``, or one container) that holds most of the network's work;
    where no sequence does, the most costly child is looked into; where that ends, all top-level children count.

    Parameters
    ----------
    module : nn.Module
        The network.
    layers : mapping
        Layer name to `LayerInfo`, from `observe_layers`.
    """
    prefix, place = "", module
    while True:
        names = {name: f"{prefix}{name}" for name, _ in place.named_children()}
        sequences = _sequences(place, prefix, layers)
        whole = sum(_cost(full, layers) for full in names.values())
        best = max(sequences, key=lambda sequence: sum(_cost(name, layers) for name in sequence), default=[])
        if len(best) > 1 and 2 * sum(_cost(name, layers) for name in best) >= whole:
            return _tappable(best, layers)
        costly = max(names, key=lambda name: _cost(names[name], layers), default=None)
        if costly is None or not list(place.get_submodule(costly).named_children()):
            return _tappable([name for name, _ in module.named_children()], layers)
        prefix, place = f"{names[costly]}.", place.get_submodule(costly)


def _cost(name: str, layers: Mapping[str, LayerInfo]) -> int:
    """Return the MACs inside a module; a list of modules, which never runs itself, costs what its members do."""
    if name in layers:
        return layers[name].own_macs
    depth = name.count(".") + 1
    return sum(
        info.own_macs for other, info in layers.items() if other.startswith(f"{name}.") and other.count(".") == depth
    )


def _sequences(place: nn.Module, prefix: str, layers: Mapping[str, LayerInfo]) -> list[list[str]]:
    """Return the sequences found directly in a module: numbered siblings, and containers of numbered children."""
    siblings: dict[str, list[str]] = {}
    containers = []
    for name, child in place.named_children():
        numbered = re.fullmatch(r"(\D+)\d+", name)
        if numbered:
            siblings.setdefault(numbered[1], []).append(prefix + name)
        members = [f"{prefix}{name}.{inner}" for inner, _ in child.named_children()]
        is_container = type(child).__name__ in ("Sequential", "ModuleList") or all(
            inner.isdigit() for inner, _ in child.named_children()
        )
        if is_container and len(members) > 1:
            containers.append(_unfold(place, prefix, members, layers))
    return list(siblings.values()) + containers


def _unfold(place: nn.Module, prefix: str, members: list[str], layers: Mapping[str, LayerInfo]) -> list[str]:
    """Return the members, with lists of modules (which never run themselves) replaced by what they hold."""
    unfolded = []
    for member in members:
        child = place.get_submodule(member[len(prefix) :])
        inner = [f"{member}.{name}" for name, _ in child.named_children()]
        unfolded += inner if member not in layers and inner else [member]
    return unfolded


def _tappable(names: list[str], layers: Mapping[str, LayerInfo]) -> tuple[str, ...]:
    usable = [name for name in names if name in layers and not layers[name].problem]
    return tuple(sorted(usable, key=lambda name: layers[name].order))
