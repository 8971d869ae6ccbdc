"""Names of layers as short as they can be in a table, and as exact as they must be in a command."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def shown_name(layer: str) -> str:
    """Return ``A+B`` without the usual pooling; of more than two layers side by side, the first and the last."""
    names = [name.removesuffix("@avg") for name in layer.split("+")]
    return "+".join(names) if len(names) <= 2 else f"{names[0]}+…+{names[-1]} ({len(names)} layers)"


def typed_name(layer: str, all_keys: Iterable[str]) -> str:
    """Return ``A+B`` for a command; the pooling is left out where a layer has one only.

    Parameters
    ----------
    layer : str
        Keys, joined by ``+``.
    all_keys : iterable of str
        All keys of the store.
    """
    layers = [key.partition("@")[0] for key in all_keys]
    names = (key.partition("@")[0] if layers.count(key.partition("@")[0]) == 1 else key for key in layer.split("+"))
    return "+".join(names)
