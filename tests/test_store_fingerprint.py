"""Fingerprints that may not meet are told apart, field by field."""

from __future__ import annotations

import json
from typing import Any

import pytest

from featx.errors import FingerprintMismatchError
from featx.store import COMPARED_FIELDS, check_same, differences

PRINT: dict[str, Any] = {
    "model": "resnet50",
    "weights": "abc",
    "transform": {"size": (224, 224), "crop": 0.875, "mean": (0.485, 0.456, 0.406)},
    "decoder": "pillow",
    "precision": "f32",
    "engine": "openvino",
    "versions": {"openvino": "2026.4"},
    "reduction": {"by": "pca:8", "of": {"a@avg": "00"}},
    "layers": ["a"],
}


def test_a_trip_through_json_changes_nothing() -> None:
    """A fingerprint equals itself after being stored, tuples or lists."""
    assert differences(PRINT, json.loads(json.dumps(PRINT))) == []
    check_same(PRINT, json.loads(json.dumps(PRINT)), what="the store")


@pytest.mark.parametrize("field", COMPARED_FIELDS)
def test_each_compared_field_counts(field: str) -> None:
    """A change in any compared field, or its absence, is a difference."""
    assert len(differences(PRINT, {**PRINT, field: "other"})) >= 1
    without = {name: value for name, value in PRINT.items() if name != field}
    assert any(
        line.startswith(f"{field}: ") and line.endswith("against nothing") for line in differences(PRINT, without)
    )


def test_nested_fields_are_named() -> None:
    """A difference inside the transform names the field and both values, one line each."""
    other = {**PRINT, "model": "vit", "transform": {"size": [288, 288], "crop": 0.875, "std": None}}
    assert differences(PRINT, other) == [
        'model: "resnet50" against "vit"',
        "transform.mean: [0.485, 0.456, 0.406] against nothing",
        "transform.size: [224, 224] against [288, 288]",
        "transform.std: nothing against null",
    ]


def test_engine_and_versions_count_below_f32() -> None:
    """Engine and versions are compared only where a precision is not f32; other fields never."""
    other = {**PRINT, "engine": "torch", "versions": {"openvino": "2025.1"}, "layers": ["b"]}
    assert differences(PRINT, other) == []
    half = {"precision": "bf16"}
    assert differences({**PRINT, **half}, {**other, **half}) == [
        'engine: "openvino" against "torch"',
        'versions.openvino: "2026.4" against "2025.1"',
    ]
    assert differences(PRINT, {**PRINT, **half}) == ['precision: "f32" against "bf16"']


def test_a_mismatch_says_what_differs() -> None:
    """The error names who, each field, both values and what to do; its exit code is 3."""
    with pytest.raises(FingerprintMismatchError) as caught:
        check_same(PRINT, {**PRINT, "weights": "def", "decoder": "x"}, what="the index a.index")
    assert str(caught.value) == (
        "the index a.index was made in another way than what it is used with:\n"
        '  weights: expected "abc", found "def"\n'
        '  decoder: expected "pillow", found "x"\n'
        "Use the same settings on both sides, or extract the features again with the expected ones."
    )
    assert caught.value.exit_code == 3


def test_features_as_the_network_gave_them_meet_no_reduced_ones() -> None:
    """Two without a reduction agree; on one side only it is named, cut short where it is long."""
    plain = {name: value for name, value in PRINT.items() if name != "reduction"}
    check_same(plain, dict(plain), what="the store")
    long = {"by": "pca:8", "of": {f"blocks.{number}@avg": "0" * 32 for number in range(9)}}
    with pytest.raises(FingerprintMismatchError) as caught:
        check_same(plain, {**plain, "reduction": long}, what="the store g.h5")
    first, second, advice = str(caught.value).split("\n")
    assert first == "the store g.h5 was made in another way than what it is used with:"
    assert second.startswith('  reduction: expected nothing, found {"by": "pca:8", "of": {"blocks.0@avg": ')
    assert second.endswith("…")
    assert len(second) < 220
    assert advice.startswith("Reduced features meet only features that were reduced together with them")
    assert differences(PRINT, {**PRINT, "reduction": {"by": "pq:8", "of": {"a@avg": "00"}}}) == [
        'reduction.by: "pca:8" against "pq:8"'
    ]
