"""The optimizer and the course of its learning rate: timm's own, given which parts are trained how fast."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from torch import nn

from featx.finetuning.network import TunableNetwork
from featx.finetuning.settings import OPTIMIZERS
from featx.finetuning.trained_parts import rate_factors

if TYPE_CHECKING:
    import torch

    from featx.finetuning.settings import TuningSettings

_START = 0.01  # of the learning rate, where the warm-up begins


def make_optimizer(network: nn.Module, settings: TuningSettings) -> torch.optim.Optimizer:
    """Return an optimizer over what is trained, a group for each learning rate, without weight decay for vectors.

    Parameters
    ----------
    network : nn.Module
        A `TunableNetwork`, or a head alone.
    settings : TuningSettings
        How.
    """
    name, _ = OPTIMIZERS[settings.optimizer]
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for factor, parameter in _with_factors(network, settings):
        decays = parameter.ndim > 1
        groups.setdefault((factor, decays), []).append(parameter)
    described: list[dict[str, Any]] = [
        {
            "params": parameters,
            "lr": settings.head_learning_rate * factor,
            # timm's scheduler multiplies what it makes of the initial rate by the factor itself.
            "initial_lr": settings.head_learning_rate,
            "lr_scale": factor,
            "weight_decay": settings.weight_decay if decays else 0.0,
        }
        for (factor, decays), parameters in groups.items()
    ]
    return create_optimizer_v2(
        described, opt=name, lr=settings.head_learning_rate, weight_decay=settings.weight_decay, momentum=0.9
    )


def _with_factors(network: nn.Module, settings: TuningSettings) -> list[tuple[float, nn.Parameter]]:
    """Return every trained parameter with the factor of its learning rate, those of the head first."""
    if not isinstance(network, TunableNetwork):
        return [(1.0, parameter) for parameter in network.parameters()]
    pairs = [(1.0, parameter) for parameter in network.head.parameters()]
    for name, factor in rate_factors(network.trained, settings.lr_scale).items():
        pairs += [(factor, parameter) for parameter in network.body.get_submodule(name).parameters(recurse=False)]
    return pairs


def make_scheduler(optimizer: torch.optim.Optimizer, settings: TuningSettings, n_steps: int) -> Any:
    """Return timm's scheduler, whose ``step_update(n)`` sets the learning rates after n steps; it keeps no state.

    Parameters
    ----------
    optimizer : Optimizer
        From `make_optimizer`.
    settings : TuningSettings
        How.
    n_steps : int
        Of an epoch.
    """
    scheduler, _ = create_scheduler_v2(
        optimizer,
        sched="cosine" if settings.schedule == "cosine" else "step",
        num_epochs=settings.epochs,
        decay_epochs=max(1.0, settings.epochs / 3),
        decay_rate=0.1 if settings.schedule == "step" else 1.0,
        # timm multiplies it by the steps of an epoch, and takes parts of one.
        warmup_epochs=settings.warmup_epochs,  # type: ignore[arg-type]
        warmup_lr=_START * settings.head_learning_rate,
        step_on_epochs=False,
        updates_per_epoch=n_steps,
    )
    scheduler.step_update(0)
    return scheduler
