"""A pretrained network with a new head, of which chosen parts are trained."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from featx.backbones import PENULTIMATE, Taps
from featx.finetuning.randomness import seeded
from featx.finetuning.settings import DENSE_WIDTH
from featx.finetuning.trained_parts import classifier_modules, trained_modules

if TYPE_CHECKING:
    from collections.abc import Sequence

    from featx.backbones import Backbone, Tap
    from featx.finetuning.settings import TuningSettings

_LEAST_DEVIATION = 0.1  # of a feature, by the mean of all


class SoftmaxHead(nn.Module):
    """Standardised features, dropout and a linear layer; of kind ``dense`` another one with ReLU in front of them.

    Parameters
    ----------
    width : int
        Of the features.
    n_classes : int
        Of the logits.
    kind : {"linear", "dense"}
        See `featx.finetuning.settings.HEADS`.
    dropout : float
        Share of the inputs of the last layer that are left out in training.

    Notes
    -----
    Features are shifted and scaled by numbers that do not change: those of `standardise`. Without that, a few hundred
    steps leave a head on small features far behind a linear SVM on the same ones.
    """

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, width: int, n_classes: int, kind: str = "linear", dropout: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("deviation", torch.ones(width))
        is_dense = kind == "dense"
        self.hidden = nn.Linear(width, DENSE_WIDTH) if is_dense else None
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(DENSE_WIDTH if is_dense else width, n_classes)

    def standardise(self, features: np.ndarray) -> None:
        """Shift and scale what comes in so that these features (n, width) would have mean 0 and deviation 1."""
        deviation = features.std(axis=0, dtype=np.float64)
        # What hardly varies now may vary once the network is tuned, and would then drown all else.
        deviation = np.maximum(deviation, _LEAST_DEVIATION * deviation.mean())
        deviation[deviation == 0] = 1.0
        self.mean.copy_(torch.from_numpy(features.mean(axis=0, dtype=np.float64)))
        self.deviation.copy_(torch.from_numpy(deviation))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return logits (batch, n_classes) of features (batch, width)."""
        standardised = (features - self.mean) / self.deviation
        inner = standardised if self.hidden is None else functional.relu(self.hidden(standardised))
        return self.linear(self.dropout(inner))

    def arrays(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return weight (out, in) and bias (out,) of each linear layer, the standardisation folded into the first."""
        layers = [self.linear] if self.hidden is None else [self.hidden, self.linear]
        arrays = [(layer.weight.detach().cpu().numpy(), layer.bias.detach().cpu().numpy()) for layer in layers]
        weight, bias = arrays[0][0] / self.deviation.cpu().numpy(), arrays[0][1]
        return [(weight, bias - weight @ self.mean.cpu().numpy()), *arrays[1:]]


def make_head(width: int, n_classes: int, settings: TuningSettings, features: np.ndarray | None = None) -> SoftmaxHead:
    """Return a new head whose first weights are those of the seed.

    Parameters
    ----------
    width, n_classes : int
        Of the features, and of the logits.
    settings : TuningSettings
        Kind, dropout and seed.
    features : ndarray of shape (n, width), optional
        For `SoftmaxHead.standardise`: of the training images by the pretrained network.
    """
    with seeded(settings.seed, 0):
        head = SoftmaxHead(width, n_classes, settings.head, settings.dropout)
    if features is not None:
        head.standardise(features)
    return head


class TunableNetwork(nn.Module):
    """Network from pixels to logits, of which some modules and the head are trained.

    Parameters
    ----------
    body : nn.Module
        The pretrained network; it is changed by training.
    backbone : Backbone
        What it was opened as.
    head : SoftmaxHead
        On ``penultimate`` features.
    trained : sequence of str
        Modules of the body whose own parameters are trained.
    trains_statistics : bool
        Whether their batch normalisations take means and variances of each batch, and follow them.

    Notes
    -----
    What is not trained stays in evaluation mode: its normalisations keep the statistics that they were trained with.
    Stochastic steps inside the body (dropout, stochastic depth) are off.
    """

    def __init__(
        self,
        body: nn.Module,
        backbone: Backbone,
        head: SoftmaxHead,
        trained: Sequence[str],
        *,
        trains_statistics: bool = False,
    ) -> None:
        super().__init__()
        self.trained = tuple(trained)
        self.trains_statistics = trains_statistics
        self._backbone = backbone
        self._taps = Taps(body, backbone.transform, [penultimate_tap(backbone)])
        self.head = head
        body.requires_grad_(False)
        for name in self.trained:
            for parameter in body.get_submodule(name).parameters(recurse=False):
                parameter.requires_grad_(True)
        self.train(False)

    @classmethod
    def of_backbone(
        cls, backbone: Backbone, n_classes: int, settings: TuningSettings, features: np.ndarray | None = None
    ) -> TunableNetwork:
        """Return a copy of a network with a new head, ready to be trained as the settings say; see `make_head`."""
        head = make_head(penultimate_tap(backbone).width, n_classes, settings, features)
        return cls(
            copy.deepcopy(backbone.module),
            backbone,
            head,
            trained_modules(backbone, settings),
            trains_statistics=settings.norm_statistics == "trained",
        )

    @property
    def n_parameters(self) -> int:
        """Parameters of body and head, without those of the former classifier."""
        former = sum(
            parameter.numel()
            for name in classifier_modules(self._backbone)
            for parameter in self.body.get_submodule(name).parameters(recurse=False)
        )
        return sum(parameter.numel() for parameter in self.parameters()) - former

    @property
    def body(self) -> nn.Module:
        """The pretrained network, without the new head."""
        return self._taps.module

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return logits (batch, n_classes) of pixels (batch, height, width, 3), 0 to 255."""
        return self.head(self._taps(pixels)[0])

    def features(self, pixels: torch.Tensor) -> np.ndarray:
        """Return what the head receives, (batch, width) float32, of pixels (batch, height, width, 3)."""
        with torch.inference_mode():
            return self._taps(pixels)[0].float().cpu().numpy()

    def train(self, mode: bool = True) -> TunableNetwork:
        """Set the head and the trained modules to training or evaluation; all else stays in evaluation."""
        super().train(False)
        self.training = mode
        self.head.train(mode)
        for name in self.trained:
            module = self.body.get_submodule(name)
            has_statistics = getattr(module, "running_mean", None) is not None
            if name and (self.trains_statistics or not has_statistics):
                module.training = mode  # not its children: they are trained themselves, or have no parameters
        return self

    def body_state(self) -> dict[str, torch.Tensor]:
        """Return the tensors of the body under their own names, on the CPU, without its former classifier's."""
        former = classifier_modules(self._backbone)
        return {
            name: value.detach().cpu().contiguous().clone()
            for name, value in self.body.state_dict().items()
            if name.rpartition(".")[0] not in former
        }

    def arrange(self, device: str) -> None:
        """Move to a device, with channels last where the network can take that: training is up to twice as fast."""
        self.to(device)
        is_unsafe = torch.device(device).type == "cpu" and any(map(_is_narrow_step, self.body.modules()))
        self._taps.memory_format = torch.contiguous_format if is_unsafe else torch.channels_last
        height, width = self._backbone.transform.size
        probe = torch.zeros(2, height, width, 3, dtype=torch.uint8, device=device)
        try:
            self.eval()(probe).sum().backward()
        except RuntimeError as error:
            if "view size is not compatible" not in str(error):
                raise
            self._taps.memory_format = torch.contiguous_format
        self.zero_grad(set_to_none=True)

    def __deepcopy__(self, memo: dict[int, Any]) -> TunableNetwork:
        """Return a copy with hooks of its own: those of the original would report to the original."""
        self._taps.close()
        body = copy.deepcopy(self.body, memo)
        head = copy.deepcopy(self.head, memo)
        copied = TunableNetwork(body, self._backbone, head, self.trained, trains_statistics=self.trains_statistics)
        memory_format = self._taps.memory_format
        self._taps = Taps(self.body, self._backbone.transform, self._taps.taps).to(next(self.head.parameters()).device)
        copied.to(next(self.head.parameters()).device)
        self._taps.memory_format = copied._taps.memory_format = memory_format
        return copied.train(self.training)


def _is_narrow_step(module: nn.Module) -> bool:
    """Return whether a layer is a strided 1x1 convolution of few channels.

    With channels last, oneDNN writes its gradients past the end of its memory: a crash, or wrong numbers
    (https://github.com/uxlfoundation/oneDNN/issues/6035). It takes 16 channels at once, 8 without AVX-512.
    """
    if not isinstance(module, nn.Conv2d) or module.kernel_size != (1, 1) or module.stride == (1, 1):
        return False
    return module.in_channels // module.groups < 16


def penultimate_tap(backbone: Backbone) -> Tap:
    """Return the tap of what a network's classifier receives.

    Raises
    ------
    LayerError
        The network has no classifier.
    """
    return backbone.select(PENULTIMATE).taps[0]
