"""From what a person calls features to the one key that is meant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches

from featx.errors import FeatureKeyError
from featx.store.layout import FeatureInfo, MapInfo

_PENULTIMATE = "penultimate"


def resolve_key(name: str | None, infos: Mapping[str, FeatureInfo], aliases: Mapping[str, str]) -> str:
    """Return the full key that `name` means.

    Parameters
    ----------
    name : str or None
        A full key, a layer with one pool, an alias of either, or ``ALIAS@POOL``. None is ``penultimate`` if it is
        there, else the deepest layer.
    infos : mapping of str to FeatureInfo
        By key, shallowest first.
    aliases : mapping of str to str
        Other name → key or layer.

    Raises
    ------
    FeatureKeyError
        Nothing is called so, or several are; the message lists them.
    """
    if name is None:
        return resolve_key(_default_name(infos, aliases), infos, aliases)
    if not isinstance(name, str):
        raise FeatureKeyError(f"Features are named by a text, got {name!r}. {_listed('Take one of', infos)}")
    for candidate in _meanings(name, aliases):
        if candidate in infos:
            return candidate
        keys = [key for key, info in infos.items() if info.layer == candidate]
        if len(keys) == 1:
            return keys[0]
        if keys:
            raise FeatureKeyError(f"{name!r} fits several features. {_listed('Take one of', keys)}")
    raise FeatureKeyError(_unknown(name, infos, aliases))


def resolve_map(name: str | None, maps: Mapping[str, MapInfo], aliases: Mapping[str, str]) -> str:
    """Return the layer whose map `name` means.

    Parameters
    ----------
    name : str or None
        A layer, or an alias of it. None is the only map.
    maps : mapping of str to MapInfo
        By layer.
    aliases : mapping of str to str
        Other name → key or layer.

    Raises
    ------
    FeatureKeyError
        There is no such map, or no name was given and there are several; the message lists them.
    """
    if not maps:
        asked = "" if name is None else f" {name!r}"
        raise FeatureKeyError(
            f"There is no map{asked}: the store holds none. Keep some with: featx extract SOURCE --out F.h5 --keep-map"
            " LAYER"
        )
    if name is None:
        if len(maps) > 1:
            raise FeatureKeyError(f"No layer was named, and there are several maps. {_listed('Take one of', maps)}")
        return next(iter(maps))
    layer = aliases.get(name, name).partition("@")[0] if isinstance(name, str) else name
    for candidate in (name, layer):
        if candidate in maps:
            return candidate
    raise FeatureKeyError(f"There is no map {name!r}. {_listed('The store holds maps of', maps)}")


def _default_name(infos: Mapping[str, FeatureInfo], aliases: Mapping[str, str]) -> str:
    if not infos:
        raise FeatureKeyError(
            "The store holds no features. Extract some with: featx extract SOURCE --layers … --out F.h5"
        )
    layers = [info.layer for info in infos.values()]
    if _PENULTIMATE in layers or _PENULTIMATE in aliases:
        return _PENULTIMATE
    return max(infos.values(), key=lambda info: info.depth).layer


def _meanings(name: str, aliases: Mapping[str, str]) -> list[str]:
    """Return what `name` may stand for, most literal first; aliases are followed once."""
    alias, at, pool = name.rpartition("@")
    meanings = [name]
    if name in aliases:
        meanings.append(aliases[name])
    if at and alias in aliases:
        meanings.append(f"{aliases[alias]}@{pool}")
    return meanings


def _unknown(name: str, infos: Mapping[str, FeatureInfo], aliases: Mapping[str, str]) -> str:
    if not infos:
        return f"There are no features {name!r}: the store holds none. Extract them first."
    names = [*infos, *dict.fromkeys(info.layer for info in infos.values()), *aliases]
    # An alias whose layer has a map only is no name of features.
    close = get_close_matches(name, [other for other in names if other != name], n=1)
    guess = f" Did you mean {close[0]!r}?" if close else ""
    also = f" {_listed('Aliases are', aliases)}" if aliases else ""
    return f"There are no features {name!r}.{guess} {_listed('The store holds', infos)}{also}"


def _listed(lead: str, names: Iterable[str]) -> str:
    return f"{lead}: {', '.join(names)}."
