"""Which networks there are, and where their weights would come from."""

from __future__ import annotations

import difflib
import fnmatch
from dataclasses import asdict, dataclass, replace
from typing import Any

import timm
import torch
from timm.models import get_pretrained_cfg

from featx.backbones import weights as weights_of
from featx.errors import BackboneError

MAX_BUILT = 50  # building all of timm's networks takes minutes


@dataclass(frozen=True)
class ModelSummary:
    """One network of timm.

    Parameters
    ----------
    name : str
        timm's name of the architecture.
    weights : {"bundled", "cache", "hub", "url", "none"}
        Where its default weights would come from.
    n_parameters : int or None
        Parameters, classifier included; None where it was not built.
    size : (int, int) or None
        Height and width of its input in pixels.
    width : int or None
        Length of its penultimate features.
    """

    name: str
    weights: str
    n_parameters: int | None = None
    size: tuple[int, int] | None = None
    width: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the summary as JSON-able values."""
        return asdict(self)


def find_models(pattern: str = "*", *, local: bool = False) -> list[ModelSummary]:
    """Return the networks of timm whose name fits a pattern; at most 50 of them are built to see their size.

    Parameters
    ----------
    pattern : str
        With shell wildcards; without any it matches anywhere in the name.
    local : bool
        Only networks whose weights are on this machine.

    Raises
    ------
    BackboneError
        No name fits.
    """
    wanted = whole_pattern(pattern)
    names = [name for name in timm.list_models() if fnmatch.fnmatchcase(name, wanted)]
    found = [ModelSummary(name, weights_place(name)) for name in names]
    if local:
        found = [model for model in found if model.weights in ("bundled", "cache")]
    if not found:
        close = difflib.get_close_matches(pattern.strip("*"), timm.list_models(), n=4, cutoff=0.5)
        hint = f"close: {', '.join(close)}" if close else "try a shorter pattern"
        where = " with weights on this machine" if local else ""
        raise BackboneError(f"no network{where} fits {pattern!r}; {hint}")
    return [_measured(model) for model in found] if len(found) <= MAX_BUILT else found


def whole_pattern(pattern: str) -> str:
    """Return a pattern with shell wildcards as it is, and one without as one that matches anywhere in a name."""
    return pattern if any(sign in pattern for sign in "*?[") else f"*{pattern}*"


def summarise_model(name: str) -> ModelSummary:
    """Return what a network of timm is; it is built, but for its weights.

    Parameters
    ----------
    name : str
        timm's name, with a tag or without.

    Raises
    ------
    RuntimeError
        timm has no network of that name.
    """
    return _measured(ModelSummary(name, weights_place(name)))


def weights_place(name: str) -> str:
    """Return where the weights of a network of timm would come from: see `ModelSummary`."""
    if weights_of.bundled_weights(name) is not None:
        return "bundled"
    config: Any = get_pretrained_cfg(name)
    if config is None or not (config.hf_hub_id or config.url):
        return "none"
    if config.hf_hub_id and weights_of.cached_hub_file(config.hf_hub_id):
        return "cache"
    if config.url and weights_of.cached_url_file(config.url):
        return "cache"
    return "hub" if config.hf_hub_id else "url"


def _measured(model: ModelSummary) -> ModelSummary:
    try:
        with torch.device("meta"):
            module = timm.create_model(model.name)
    except (RuntimeError, NotImplementedError):  # some networks compute with values while they are built
        module = timm.create_model(model.name)
    config: dict[str, Any] = module.pretrained_cfg  # type: ignore[assignment]
    return replace(
        model,
        n_parameters=sum(parameter.numel() for parameter in module.parameters()),
        size=tuple(config["input_size"][1:]),
        width=getattr(module, "head_hidden_size", None) or getattr(module, "num_features", None),
    )
