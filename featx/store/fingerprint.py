"""Fingerprints: how features were made, and whether two of them may meet."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from featx.errors import FingerprintMismatchError

# Features as a network gives them have no field "reduction"; two fingerprints without it agree in it.
COMPARED_FIELDS = ("model", "weights", "transform", "decoder", "precision", "reduction")
# In f32 every engine gives the same numbers to about 1e-6; in lower precision they differ visibly.
_COMPARED_BELOW_F32 = ("engine", "versions")
_ABSENT = object()
_LONGEST_SHOWN = 160
_ADVICE = "Use the same settings on both sides, or extract the features again with the expected ones."
_ADVICE_ON_REDUCTION = (
    "Reduced features meet only features that were reduced together with them: use the store they were made from."
)


def differences(a: Mapping, b: Mapping) -> list[str]:
    """Return one line for each compared field in which two fingerprints differ.

    Parameters
    ----------
    a, b : mapping
        Fingerprints. Compared are `COMPARED_FIELDS`, and engine and versions where a precision is not ``"f32"``;
        fields inside a field are named like ``transform.size``.

    Returns
    -------
    list of str
        Lines such as ``"transform.size: 224 against 288"``, empty where features of both may be mixed.
    """
    return [f"{name}: {_shown(left)} against {_shown(right)}" for name, left, right in _differing(a, b)]


def check_same(expected: Mapping, found: Mapping, *, what: str) -> None:
    """Raise an error if features made as `found` must not meet features made as `expected`.

    Parameters
    ----------
    expected, found : mapping
        Fingerprints.
    what : str
        What carries `found`, the subject of the message: ``"the store flowers.h5"``.

    Raises
    ------
    FingerprintMismatchError
        Names each differing field with both values.
    """
    differing = list(_differing(expected, found))
    if differing:
        lines = [f"  {name}: expected {_shown(left)}, found {_shown(right)}" for name, left, right in differing]
        only_reduction = all(name.partition(".")[0] == "reduction" for name, _, _ in differing)
        head = f"{what} was made in another way than what it is used with:"
        raise FingerprintMismatchError("\n".join([head, *lines, _ADVICE_ON_REDUCTION if only_reduction else _ADVICE]))


def _differing(a: Mapping, b: Mapping) -> Iterator[tuple[str, Any, Any]]:
    """Yield (field, value in a, value in b) for each compared field that differs."""
    a, b = _as_json(a), _as_json(b)
    fields: tuple[str, ...] = COMPARED_FIELDS
    if not a.get("precision") == b.get("precision") == "f32":
        fields += _COMPARED_BELOW_F32
    for field in fields:
        yield from _differing_values(field, a.get(field, _ABSENT), b.get(field, _ABSENT))


def _differing_values(name: str, left: Any, right: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(left, dict) and isinstance(right, dict):
        for field in sorted(left.keys() | right.keys()):
            yield from _differing_values(f"{name}.{field}", left.get(field, _ABSENT), right.get(field, _ABSENT))
    elif left is not right and left != right:
        yield name, left, right


def _as_json(fingerprint: Mapping) -> dict[str, Any]:
    """Return the fingerprint as it reads after a trip through a file: tuples are lists, keys are strings."""
    return json.loads(json.dumps(dict(fingerprint)))


def _shown(value: Any) -> str:
    if value is _ABSENT:
        return "nothing"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[: _LONGEST_SHOWN - 1]}…"
