"""Classes of images, by a bundle or by the pretrained network's own classifier."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fake_backbone import fake_pixels
from gallery import make_gallery
from PIL import Image

from featx import backbones
from featx.backbones import WeightsInfo
from featx.bundle import load_bundle
from featx.errors import BackboneError
from featx.images import list_images
from featx.workflows.predicting import name_images, predict_images


@pytest.fixture(scope="module")
def gallery(tmp_path_factory):
    """Pictures, store, classifier and index; read only."""
    return make_gallery(tmp_path_factory.mktemp("gallery"))


def test_predictions_are_those_of_the_head(gallery):
    """Ranking and probabilities are what the bundle gives for the features of the image."""
    bundle = load_bundle(gallery.classifier)
    entries = list_images(gallery.photos).entries[::5]
    features, _ = bundle.open_features().features_of(entries)
    expected = bundle.predict_proba(features[bundle.spec.key])
    predictions = list(predict_images(bundle, entries, n_best=3))
    assert [prediction.path for prediction in predictions] == [entry.path for entry in entries]
    for prediction, row in zip(predictions, expected, strict=True):
        assert dict(prediction.ranking) == pytest.approx(dict(zip(bundle.class_names, row, strict=True)), abs=1e-5)
        values = [value for _, value in prediction.ranking]
        assert values == sorted(values, reverse=True)
        assert prediction.reason == ""


def test_no_images_give_no_predictions(gallery):
    """Nothing asked, nothing answered."""
    assert list(predict_images(load_bundle(gallery.classifier), [])) == []


def test_a_classifier_of_other_classes_has_numbers(fake_backbone, tmp_path, monkeypatch):
    """Probabilities are the softmax of the network's own outputs; classes other than ImageNet's are numbered."""
    pixels = fake_pixels(1)[0] // 64  # small values, or the softmax is all or nothing
    Image.fromarray(pixels).save(tmp_path / "p.png")
    trained = replace(fake_backbone, weights=WeightsInfo("file:w.pth", "0"))
    monkeypatch.setattr(backbones, "open_backbone", lambda _model, **_: trained)
    (prediction,) = name_images("fake", list_images(tmp_path).entries, n_best=5)
    values = np.exp(pixels.mean((0, 1)))
    expected = dict(zip(("class 0", "class 1", "class 2"), values / values.sum(), strict=True))
    assert dict(prediction.ranking) == pytest.approx(expected, abs=1e-4)
    assert prediction.ranking[0][0] == max(expected, key=expected.get)


def test_a_network_without_a_trained_classifier_names_nothing(gallery):
    """Random weights name no classes."""
    with pytest.raises(BackboneError, match="has no trained classifier to name classes with"):
        list(name_images("test_efficientnet", list_images(gallery.photos).entries, weights="random:0"))
