"""Which modules of a network are trained, and how fast: by regime, by stage, by name."""

from __future__ import annotations

import difflib
import fnmatch
from typing import TYPE_CHECKING

from featx.backbones import PENULTIMATE, stage_names
from featx.errors import LayerError
from featx.finetuning.settings import DEFAULT_LAST

if TYPE_CHECKING:
    from collections.abc import Sequence

    from featx.backbones import Backbone
    from featx.finetuning.settings import TuningSettings

_N_NAMED = 8


def trained_modules(backbone: Backbone, settings: TuningSettings) -> tuple[str, ...]:
    """Return the modules whose own parameters are trained, in execution order; the head is not among them.

    Parameters
    ----------
    backbone : Backbone
        The network.
    settings : TuningSettings
        Its `regime`, `last` and `unfreeze` decide.

    Raises
    ------
    LayerError
        Nothing is called as `unfreeze` says, or the network has fewer stages than `last`, or none.

    Notes
    -----
    The last K stages are trained with all that comes after them, such as a last convolution. Modules that never run
    (and the network itself, which owns position embeddings) are trained by ``total`` alone.
    """
    if settings.regime == "minimum":
        return ()
    owners = _owners(backbone)
    if settings.regime == "total":
        return tuple(owners)
    if settings.unfreeze:
        return _named(owners, settings.unfreeze, backbone)
    return _last_stages(owners, DEFAULT_LAST if settings.last is None else settings.last, backbone)


def classifier_modules(backbone: Backbone) -> tuple[str, ...]:
    """Return the modules with parameters that come after ``penultimate``: the network's own classifier."""
    if PENULTIMATE not in backbone.layers:
        return ()
    last = backbone.layers[PENULTIMATE].order
    return tuple(name for name in _with_parameters(backbone) if _order(name, backbone) > last)


def _with_parameters(backbone: Backbone) -> list[str]:
    return [name for name, child in backbone.module.named_modules() if list(child.parameters(recurse=False))]


def _order(name: str, backbone: Backbone) -> int:
    """Return the rank of a module in execution order; −1 where it never runs by itself."""
    return backbone.layers[name].order if name in backbone.layers else -1


def _owners(backbone: Backbone) -> list[str]:
    """Return the modules with parameters of their own up to ``penultimate``, in execution order."""
    classifier = classifier_modules(backbone)
    names = [name for name in _with_parameters(backbone) if name not in classifier]
    return sorted(names, key=lambda name: _order(name, backbone))


def _named(owners: Sequence[str], wanted: Sequence[str], backbone: Backbone) -> tuple[str, ...]:
    chosen: set[str] = set()
    for pattern in wanted:
        found = [
            owner
            for owner in owners
            if fnmatch.fnmatchcase(owner, pattern) or fnmatch.fnmatchcase(owner, f"{pattern}.*")
        ]
        if not found:
            names = [name for name, _ in backbone.module.named_modules() if name]
            close = difflib.get_close_matches(pattern, names, n=5, cutoff=0.5)
            hint = f"close: {', '.join(close)}" if close else f"stages: {_listed(_stages(backbone))}"
            raise LayerError(f"nothing that could be trained is called {pattern!r} in {backbone.name}; {hint}")
        chosen.update(found)
    return tuple(owner for owner in owners if owner in chosen)


def _last_stages(owners: Sequence[str], n_last: int, backbone: Backbone) -> tuple[str, ...]:
    stages = _stages(backbone)
    if n_last > len(stages):
        raise LayerError(
            f"{backbone.name} has {len(stages)} stages ({_listed(stages)}), so its last {n_last} cannot be trained;"
            f" give --last 1 to {len(stages)}, --unfreeze with names, or --regime total"
        )
    if n_last < len(stages):
        frozen_until = backbone.layers[stages[-n_last - 1]].order
    else:
        inside = [owner for owner in owners if any(f"{owner}.".startswith(f"{stage}.") for stage in stages)]
        frozen_until = min((_order(owner, backbone) for owner in inside), default=0) - 1
    return tuple(owner for owner in owners if _order(owner, backbone) > frozen_until)


def _stages(backbone: Backbone) -> tuple[str, ...]:
    return stage_names(backbone.module, backbone.layers)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_N_NAMED])
    return shown + (", …" if len(names) > _N_NAMED else "") if names else "none"


def rate_factors(modules: Sequence[str], lr_scale: Sequence[float]) -> dict[str, float]:
    """Return the factor of the learning rate for each module.

    Parameters
    ----------
    modules : sequence of str
        Trained, in execution order.
    lr_scale : sequence of float
        For equal parts of the modules, from the last to the first.
    """
    n_modules, n_parts = len(modules), len(lr_scale)
    return {name: lr_scale[place * n_parts // n_modules] for place, name in enumerate(reversed(modules))}
