"""A specification asks for exactly the features of a store again, and says where others differ."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from extraction_runs import extract

from featx.backbones import open_backbone
from featx.backbones import weights as weights_of
from featx.errors import FeatureKeyError, FingerprintMismatchError, RefusedError, UsageError, WeightsNotFoundError
from featx.extraction import ComputeOptions, FeatureSpec
from featx.images import list_images
from featx.store import FeatureStore


def changed(spec: FeatureSpec, **fields) -> FeatureSpec:
    return replace(spec, fingerprint={**spec.fingerprint, **fields})


@pytest.fixture
def spec(fake_backbone, image_folder, tmp_path):
    extract(fake_backbone, image_folder, tmp_path / "features.h5", "early,penultimate")
    with FeatureStore(tmp_path / "features.h5") as store:
        return FeatureSpec.of_store(store)


def test_names_mean_what_they_mean_in_the_store(spec, tmp_path):
    """Without a name the penultimate layer is taken; aliases work; key and width are the store's."""
    assert (spec.key, spec.width) == ("penultimate@avg", 8)
    with FeatureStore(tmp_path / "features.h5") as store:
        early = FeatureSpec.of_store(store, "early")
        assert (early.key, early.width) == ("stages.1@avg", 4)
        assert early.fingerprint == store.fingerprint


@pytest.mark.usefixtures("spec")
def test_layers_can_stand_side_by_side(tmp_path):
    """Names joined by + are the columns of their layers in that order, from a store and from a network alike."""
    with FeatureStore(tmp_path / "features.h5") as store:
        both = FeatureSpec.of_store(store, "penultimate+early")
        assert (both.key, both.keys) == ("penultimate@avg+stages.1@avg", ("penultimate@avg", "stages.1@avg"))
        expected = np.concatenate([store["penultimate"][:], store["early"][:]], axis=1)
        np.testing.assert_array_equal(both.join(store), expected)
        np.testing.assert_array_equal(both.join(store, [3, 0]), expected[[3, 0]])
        assert both.width == expected.shape[1]


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("early+stages.1", UsageError, "names the same features twice"),
        ("penultimate+", FeatureKeyError, "''"),
        ("penultimate+nothing", FeatureKeyError, "'nothing'"),
    ],
)
def test_layers_side_by_side_must_be_there_and_differ(spec, tmp_path, name, error, message):  # noqa: ARG001
    """A layer that is named twice, not at all or wrongly is refused."""
    with FeatureStore(tmp_path / "features.h5") as store, pytest.raises(error, match=message):
        FeatureSpec.of_store(store, name)


def test_random_weights_are_refused_unless_allowed(spec):
    """Features of untrained weights are for those who ask for them."""
    drawn = changed(spec, weights_source="random:3")
    with pytest.raises(RefusedError, match=r"untrained weights \(random:3\), so an index would mean nothing"):
        drawn.refuse_random(allowed=False, what="an index")
    drawn.refuse_random(allowed=True, what="an index")
    spec.refuse_random(allowed=False, what="an index")


def test_json_brings_it_back(spec):
    """A specification survives a trip through JSON."""
    assert FeatureSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_opening_gives_the_features_of_the_store(default_backbone, image_folder, tmp_path):
    """A network opened from a specification computes what the store holds, alone or in a batch."""
    extract(default_backbone, image_folder, tmp_path / "features.h5", options=ComputeOptions())
    with FeatureStore(tmp_path / "features.h5") as store:
        computer = FeatureSpec.of_store(store).open()
        features, failures = computer.features_of(list_images(image_folder).entries[4:7])
        expected = store["penultimate"][4:7]
    assert not failures
    assert list(features) == ["penultimate@avg"]
    np.testing.assert_allclose(features["penultimate@avg"], expected, atol=1e-5 * np.abs(expected).max())


def test_random_weights_open_again(image_folder, tmp_path):
    """Weights of a seed are drawn again from the seed, and another seed is noticed."""
    backbone = open_backbone("test_efficientnet", weights="random:4")
    extract(backbone, image_folder, tmp_path / "features.h5")
    with FeatureStore(tmp_path / "features.h5") as store:
        spec = FeatureSpec.of_store(store)
    assert spec.open(ComputeOptions(engine="torch")).backbone.weights.digest == backbone.weights.digest
    with pytest.raises(FingerprintMismatchError, match="weights: expected"):
        spec.open(ComputeOptions(engine="torch"), weights="random:5")


def test_another_size_is_part_of_the_features(image_folder, tmp_path):
    """A network opened from a specification takes pictures of the size of the store, not of its own."""
    backbone = open_backbone("test_resnet", weights="random:0", size=48)
    extract(backbone, image_folder, tmp_path / "small.h5")
    extract(open_backbone("test_resnet", weights="random:0"), image_folder, tmp_path / "usual.h5")
    with FeatureStore(tmp_path / "small.h5") as store, FeatureStore(tmp_path / "usual.h5") as usual:
        spec = FeatureSpec.of_store(store)
        assert spec.fingerprint["transform"]["size"] == [48, 48]
        assert not np.allclose(store["penultimate"][:], usual["penultimate"][:])
        computer = spec.open(ComputeOptions(engine="torch"))
        assert computer.backbone.transform == backbone.transform
        features, _ = computer.features_of(list_images(image_folder).entries[:3])
        np.testing.assert_allclose(features["penultimate@avg"], store["penultimate"][:3], rtol=1e-4, atol=1e-5)
    resized = {**spec.fingerprint["transform"], "resize_size": [48, 48]}
    with pytest.raises(FingerprintMismatchError, match="transform"):
        changed(spec, transform=resized).open(ComputeOptions(engine="torch"))


def test_a_network_named_by_a_file_is_not_requested(spec, monkeypatch):
    """Opening what a bundle or index names asks no hub: the user named the file, not the network."""
    monkeypatch.setattr(weights_of, "download_hub_file", lambda *_: pytest.fail("asked the hub"))
    monkeypatch.setattr(weights_of, "cached_hub_file", lambda *_: None)
    with pytest.raises(WeightsNotFoundError, match="not asked, because a file named this network"):
        changed(spec, model="resnet18", weights_source="hub:timm/resnet18.a1_in1k").open()
