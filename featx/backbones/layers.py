"""Which layers a network has: observed, in execution order, with shapes and cumulative cost."""

from __future__ import annotations

import copy
import inspect
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from featx.backbones.names import LOGITS, PENULTIMATE
from featx.backbones.pooling import Layout

if TYPE_CHECKING:
    from collections.abc import Callable

# Two images: enough to see which axis is the batch, cheap enough to do at every start.
_N_PROBES = 2


@dataclass(frozen=True)
class LayerInfo:
    """One layer, as seen in a forward pass.

    Parameters
    ----------
    name : str
        Dotted module name, or ``penultimate`` or ``logits``.
    shape : tuple of int
        Shape of its output for one image, without the batch axis; empty where `problem` is set.
    layout : Layout
        How that shape is to be read.
    macs : int
        Multiply-accumulates of one image from the input up to and including this layer.
    own_macs : int
        Multiply-accumulates of one image inside this layer.
    depth : float
        `macs` as a fraction of those of the whole network, 0..1.
    order : int
        Rank in execution order.
    problem : str
        Why it cannot be tapped; empty where it can.
    input_of : str
        For ``penultimate`` of a network without timm's ``forward_head``: the module whose input it is.
    """

    name: str
    shape: tuple[int, ...]
    layout: Layout
    macs: int
    own_macs: int
    depth: float
    order: int
    problem: str = ""
    input_of: str = ""


@dataclass
class _Event:
    """What a forward pass showed of one module."""

    input: Any
    macs_before: int
    order: int = -1
    output: Any = None
    macs: int = 0
    n_calls: int = 0


def observe_layers(module: nn.Module, size: tuple[int, int]) -> tuple[LayerInfo, ...]:
    """Return every layer of a network in execution order; ``penultimate`` and ``logits`` take their place in it.

    Parameters
    ----------
    module : nn.Module
        A network in evaluation mode, on the CPU.
    size : (int, int)
        Height and width in pixels of its input.

    Notes
    -----
    The passes run on torch's meta device, which follows shapes without computing (0.2 s for a network of 80
    convolutions); a module that cannot run there runs for real, with two random images. Multiply-accumulates come
    from torch's own counter, which knows convolutions, matrix products and attention; element-wise work counts as
    nothing.
    """
    try:
        return _describe_all(_on_meta(module), torch.empty(_N_PROBES, 3, *size, device="meta"))
    except (RuntimeError, NotImplementedError, TypeError, ValueError):  # the module reads values, not only shapes
        return _describe_all(module, torch.rand(_N_PROBES, 3, *size, generator=torch.Generator().manual_seed(0)))


def _on_meta(module: nn.Module) -> nn.Module:
    """Return a copy of a network whose tensors have shapes but no values."""
    placeholders: dict[int, Any] = {
        id(parameter): nn.Parameter(parameter.detach().to("meta"), requires_grad=False)
        for parameter in module.parameters()
    }
    placeholders |= {id(buffer): buffer.to("meta") for buffer in module.buffers()}
    return copy.deepcopy(module, placeholders)


def _describe_all(module: nn.Module, probe: torch.Tensor) -> tuple[LayerInfo, ...]:
    events, output, total = _observe(module, module, probe)
    size = (probe.shape[2], probe.shape[3])
    nhwc = getattr(module, "output_fmt", "") == "NHWC"
    describe = _Describer(size=size, tokens=_token_layout(module), nhwc=nhwc, total=total)
    found = [
        describe(name, event.output, event.macs, event.macs - event.macs_before, event.order, event.n_calls)
        for name, event in events.items()
        if event.n_calls
    ]
    found += _penultimate(module, probe, events, describe)
    found.append(describe(LOGITS, _shape_of(output), total, 0, math.inf, 1))
    found.sort(key=lambda layer: layer.order)
    return tuple(replace(layer, order=rank) for rank, layer in enumerate(found))


def has_timm_head(module: nn.Module) -> bool:
    """Return whether a network has timm's pair ``forward_features`` and ``forward_head(x, pre_logits=True)``."""
    forward_head: Any = getattr(module, "forward_head", None)
    if forward_head is None or not hasattr(module, "forward_features"):
        return False
    return "pre_logits" in inspect.signature(forward_head).parameters


def pre_logits(module: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Return what the classifier of a timm network receives."""
    return module.forward_head(module.forward_features(images), pre_logits=True)  # type: ignore[operator]


def _observe(
    module: nn.Module, function: Callable[[torch.Tensor], Any], probe: torch.Tensor
) -> tuple[dict[str, _Event], Any, int]:
    """Return an event for each module that a call runs, the call's output and its MACs an image."""
    events: dict[str, _Event] = {}
    counter = FlopCounterMode(display=False)
    n_finished = 0

    def macs() -> int:
        return counter.get_total_flops() // (2 * _N_PROBES)

    def before(name: str, inputs: tuple[Any, ...]) -> None:
        events.setdefault(name, _Event(_shape_of(inputs[0]) if inputs else "nothing", macs()))

    def after(name: str, output: Any) -> None:
        nonlocal n_finished
        event = events[name]
        event.n_calls += 1
        if event.n_calls == 1:
            event.output, event.macs, event.order = _shape_of(output), macs(), n_finished
        n_finished += 1

    handles = []
    for name, child in module.named_modules():
        if name:
            handles.append(child.register_forward_pre_hook(lambda _, inputs, name=name: before(name, inputs)))
            handles.append(child.register_forward_hook(lambda _m, _i, output, name=name: after(name, output)))
    try:
        with torch.inference_mode(), counter:
            output = function(probe)
        return events, output, macs()
    finally:
        for handle in handles:
            handle.remove()


def _shape_of(value: Any) -> Any:
    return tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__


def _penultimate(
    module: nn.Module, probe: torch.Tensor, events: dict[str, _Event], describe: _Describer
) -> list[LayerInfo]:
    """Return the layer that the classifier receives, or nothing where there is no classifier."""
    if has_timm_head(module):
        ran, output, macs = _observe(module, lambda images: pre_logits(module, images), probe)
        # A head that holds the classifier runs here too, but cut short: its full output comes after this layer.
        skipped = [name for name, event in events.items() if event.n_calls and name not in ran]
        whole = [name for name in ran if name in events and not any(s.startswith(f"{name}.") for s in skipped)]
        order = max((events[name].order for name in whole), default=-1) + 0.5
        # A step without weights, such as flattening, may end the head with and without the classifier in front of it.
        order = min([order, *(events[name].order - 0.5 for name in skipped)])
        return [describe(PENULTIMATE, _shape_of(output), macs, 0, order, 1)]
    weighted = [
        name
        for name, event in events.items()
        if event.n_calls and isinstance(module.get_submodule(name), (nn.Linear, nn.Conv2d))
    ]
    if not weighted:
        return []
    classifier = max(weighted, key=lambda name: events[name].order)
    event = events[classifier]
    layer = describe(PENULTIMATE, event.input, event.macs_before, 0, event.order - 0.5, event.n_calls)
    return [replace(layer, input_of=classifier)]


def _token_layout(module: nn.Module) -> Layout:
    """Return how a network's full sequence of tokens is built, from its own attributes."""
    grid = getattr(getattr(module, "patch_embed", None), "grid_size", None)
    if getattr(module, "class_token", None) is not None and hasattr(module, "image_size"):  # torchvision
        vit: Any = module
        side = vit.image_size // vit.patch_size
        return Layout("tokens", 1, True, (side, side))
    n_prefix = int(getattr(module, "num_prefix_tokens", 0) or 0)
    has_class_token = n_prefix > 0 and getattr(module, "cls_token", None) is not None
    return Layout("tokens", n_prefix, has_class_token, tuple(grid) if grid else None)


@dataclass(frozen=True)
class _Describer:
    """Makes a `LayerInfo` of what was observed, in the light of the whole network."""

    size: tuple[int, int]
    tokens: Layout
    nhwc: bool
    total: int

    def __call__(self, name: str, shape: Any, macs: int, own_macs: int, order: float, n_calls: int) -> LayerInfo:
        problem = _problem(shape, n_calls)
        inner = () if problem else shape[1:]
        layout = Layout("vector") if problem else self._layout(inner)
        depth = macs / self.total if self.total else 0.0
        return LayerInfo(name, inner, layout, macs, own_macs, depth, order, problem)  # type: ignore[arg-type]

    def _layout(self, shape: tuple[int, ...]) -> Layout:
        if len(shape) == 1:
            return Layout("vector")
        if len(shape) == 2:
            return self._token_layout(shape[0])
        first, middle, last = shape
        # A map has the proportions of the picture: the odd axis out is the channels. Ties go to the network's own word.
        may_be_nhwc, may_be_nchw = self._is_map(first, middle), self._is_map(middle, last)
        if may_be_nhwc != may_be_nchw:
            return Layout("nhwc" if may_be_nhwc else "nchw")
        return Layout("nhwc" if self.nhwc else "nchw")

    def _is_map(self, rows: int, columns: int) -> bool:
        """Return whether these could be the sides of the picture, divided by one stride and rounded."""
        height, width = self.size
        return abs(rows * width - columns * height) < max(height, width)

    def _token_layout(self, n_tokens: int) -> Layout:
        full, n_prefix = self.tokens, self.tokens.n_prefix
        if full.grid and n_tokens == math.prod(full.grid) + n_prefix:
            return full
        if full.grid and n_tokens == math.prod(full.grid):
            return Layout("tokens", grid=full.grid)
        for prefix in (n_prefix, 0):
            side = math.isqrt(max(n_tokens - prefix, 0))
            if side and side * side == n_tokens - prefix:
                return Layout("tokens", prefix, full.has_class_token and prefix > 0, (side, side))
        return Layout("tokens", n_prefix, full.has_class_token) if n_tokens > n_prefix else Layout("tokens")


def _problem(shape: Any, n_calls: int) -> str:
    if isinstance(shape, str):
        return f"it gives a {shape}, not a tensor"
    if n_calls > 1:
        return f"it is called {n_calls} times in one pass"
    if not shape or shape[0] != _N_PROBES:
        return f"its output {shape} does not have one row an image"
    if len(shape) not in (2, 3, 4):
        return f"its output has {len(shape)} axes; at most 4 can be pooled"
    return ""
