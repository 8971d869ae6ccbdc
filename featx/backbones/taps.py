"""`Taps`: a network that returns pooled activations of chosen layers and computes nothing after the deepest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from featx.backbones.layers import has_timm_head
from featx.backbones.names import LOGITS, PENULTIMATE
from featx.backbones.pooling import make_pool
from featx.errors import LayerError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from featx.backbones.selection import Tap
    from featx.backbones.transform import TransformSpec


class _DeepestReached(Exception):  # noqa: N818 - a signal that ends a pass, not an error
    """Raised inside a hook to leave the forward pass."""


def _copy_of(features: Any) -> Any:
    """Return features that an in-place step of the head may change."""
    return features.clone() if isinstance(features, torch.Tensor) else features


class Taps(nn.Module):
    """Network from pixels to the features of several layers, in one pass.

    Parameters
    ----------
    module : nn.Module
        The frozen network.
    transform : TransformSpec
        Its mean and standard deviation are the first thing computed.
    taps : sequence of Tap
        In execution order.

    Notes
    -----
    Outputs are pooled inside the hook: an in-place activation may overwrite a layer's output later. A hook on
    the deepest layer leaves the pass by an exception, so that eager torch too computes nothing after it.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, module: nn.Module, transform: TransformSpec, taps: Sequence[Tap]) -> None:
        super().__init__()
        self.module = module
        self.taps = tuple(taps)
        self.memory_format = torch.contiguous_format
        self.register_buffer("mean", 255 * torch.tensor(transform.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(transform.std).view(1, 3, 1, 1), persistent=False)
        self._pools = {tap.key: make_pool(tap.pool, tap.layer.layout) for tap in self.taps}
        self._pooled: dict[str, torch.Tensor] = {}
        self._listening = False  # other taps may share the network; each hears its own passes only
        by_layer: dict[str, list[Tap]] = {}
        for tap in self.taps:
            by_layer.setdefault(tap.layer.name, []).append(tap)
        deepest = self.taps[-1].layer.name
        self._handles = [self._hook(name, group, name == deepest) for name, group in by_layer.items()]

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return one float32 tensor (batch, width) for each tap, in their order.

        Parameters
        ----------
        pixels : torch.Tensor
            (batch, height, width, 3) uint8.
        """
        self._pooled, self._listening = {}, True
        images = (pixels.permute(0, 3, 1, 2).float() - self.mean) / self.std
        try:
            self._run(images.contiguous(memory_format=self.memory_format))
        except _DeepestReached as reached:
            if reached.args[0] is not self:
                raise
        finally:
            self._listening = False
        missing = [key for key in self._pools if key not in self._pooled]
        if missing:
            raise LayerError(f"layers never called in the forward pass: {', '.join(missing)}; choose others")
        pooled, self._pooled = self._pooled, {}
        return tuple(pooled[key] for key in self._pools)

    def close(self) -> None:
        """Remove the hooks from the network."""
        for handle in self._handles:
            if handle is not None:
                handle.remove()

    def _run(self, images: torch.Tensor) -> None:
        names = {tap.layer.name for tap in self.taps}
        if PENULTIMATE not in names or not has_timm_head(self.module):
            self._keep(LOGITS, self.module(images))
            return
        network: Any = self.module
        features = network.forward_features(images)
        if self.taps[-1].layer.name == PENULTIMATE:
            self._keep(PENULTIMATE, network.forward_head(features, pre_logits=True))
            return
        # The head runs twice, and its modules must be heard once, in the pass that goes to the end.
        self._listening = False
        self._keep(PENULTIMATE, network.forward_head(_copy_of(features), pre_logits=True))
        self._listening = True
        self._keep(LOGITS, network.forward_head(features))

    def _keep(self, name: str, output: torch.Tensor) -> None:
        for tap in self.taps:
            if tap.layer.name == name:
                self._pooled[tap.key] = self._pools[tap.key](output)

    def _hook(self, name: str, group: list[Tap], is_deepest: bool) -> Any:
        def note(output: Any) -> None:
            if not self._listening:
                return
            for tap in group:
                if tap.key in self._pooled:
                    raise LayerError(f"layer {name!r} is called more than once in one pass; choose another")
                self._pooled[tap.key] = self._pools[tap.key](output)
            if is_deepest:
                raise _DeepestReached(self)

        input_of = group[0].layer.input_of
        if input_of:
            return self._before(input_of, note)
        if name in (PENULTIMATE, LOGITS):
            return None
        return self.module.get_submodule(name).register_forward_hook(lambda _m, _i, output: note(output))

    def _before(self, name: str, note: Callable[[Any], None]) -> Any:
        return self.module.get_submodule(name).register_forward_pre_hook(lambda _m, inputs: note(inputs[0]))
