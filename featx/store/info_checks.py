"""What features and maps may be called and look like, before anything of them is written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from featx.errors import UsageError
from featx.store.layout import CODE_DTYPE, CODECS, MAP_DTYPE, VALUE_DTYPES, FeatureInfo, MapInfo, RowInfo


def in_order(infos: Iterable[RowInfo]) -> list[RowInfo]:
    """Return features, shallowest layer first, then maps as they were given: the order of the datasets in a file."""
    infos = list(infos)
    features = [info for info in infos if isinstance(info, FeatureInfo)]
    return [*sorted(features, key=lambda info: info.depth), *(info for info in infos if isinstance(info, MapInfo))]


def check_infos(infos: Sequence[RowInfo], *, codes: bool = False) -> None:
    """Raise a UsageError if rows cannot be stored under what `infos` says; codes only where they are allowed."""
    keys = [info.key for info in infos]
    if len(set(keys)) != len(keys):
        raise UsageError(f"Features must have distinct keys, got {keys}. Leave out the repeated ones.")
    for info in infos:
        if isinstance(info, MapInfo):
            _check_map(info)
        else:
            _check_features(info, codes)


def _check_features(info: FeatureInfo, codes: bool) -> None:
    if info.key != f"{info.layer}@{info.pool}" or "/" in info.key or "\0" in info.key or "" in (info.layer, info.pool):
        raise UsageError(f"Features {info.key!r}: the key must be LAYER@POOL without '/'. Rename the layer.")
    allowed = [(dtype, "") for dtype in VALUE_DTYPES] + [(CODE_DTYPE, codec) for codec in CODECS if codes]
    if (info.dtype, info.codec) not in allowed:
        listed = " or ".join(f"{dtype!r}{codec and f' with codec {codec!r}'}" for dtype, codec in allowed)
        given = f"{info.dtype!r}{info.codec and f' with codec {info.codec!r}'}"
        raise UsageError(f"Features {info.key!r}: dtype must be {listed}, got {given}. Choose one of these.")
    if not 0 <= info.depth <= 1 or info.width < 1:
        message = f"Features {info.key!r}: depth must be 0 to 1 and width at least 1, got {info.depth}, {info.width}."
        raise UsageError(message)


def _check_map(info: MapInfo) -> None:
    if not info.layer or any(character in info.layer for character in "/@\0"):
        raise UsageError(f"Map of {info.layer!r}: the name must be a layer without '/' and '@'. Rename the layer.")
    if info.dtype != MAP_DTYPE or len(info.shape) != 3 or min(info.shape) < 1:
        message = (
            f"Map of {info.layer!r}: a map is {MAP_DTYPE} of at least one row, column and channel, got {info.dtype} of "
            f"shape {info.shape}. Give it as (rows, columns, channels)."
        )
        raise UsageError(message)
