"""Classes of images, by a bundle or by the pretrained network's own classifier."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from colour_bundle import NAMES, colour_bundle, colours_by_hand, write_halves
from fake_backbone import fake_pixels
from gallery import make_gallery
from PIL import Image

from featx import backbones
from featx.backbones import WeightsInfo
from featx.bundle import load_bundle
from featx.errors import BackboneError, UsageError
from featx.images import list_images
from featx.workflows.predicting import name_images, predict_images, rank_classes


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


@pytest.fixture
def halves(tmp_path):
    """Pictures whose halves have different colours, so that their corners say different things."""
    write_halves(tmp_path / "halves" / "a.png", (200, 40, 30), (30, 40, 220), share=0.3)
    write_halves(tmp_path / "halves" / "b.png", (30, 200, 60), (210, 60, 50), share=0.6)
    (tmp_path / "halves" / "c.png").write_text("no picture")
    write_halves(tmp_path / "halves" / "d.png", (60, 70, 80), (80, 70, 60))
    return tmp_path / "halves"


@pytest.mark.parametrize("combine", ["mean", "vote"])
@pytest.mark.parametrize("tta", [2, 3, 5, 6, 10])
def test_views_are_combined_as_by_hand(tta, combine, halves):
    """Mean of the views' probabilities, or share of the views that prefer a class, both computed with numpy alone."""
    entries = list_images(halves).entries
    predictions = list(predict_images(colour_bundle(), entries, n_best=3, tta=tta, combine=combine))
    assert [prediction.path for prediction in predictions] == ["a.png", "b.png", "c.png", "d.png"]
    assert predictions[2].ranking == ()
    assert predictions[2].reason.startswith("not an image")
    for prediction in (predictions[0], predictions[1], predictions[3]):
        shares = colours_by_hand(halves / prediction.path, tta)
        expected = shares.mean(axis=0)
        if combine == "vote":
            expected = np.array([(shares.argmax(axis=1) == label).mean() for label in range(3)])
        assert dict(prediction.ranking) == pytest.approx(dict(zip(NAMES, expected, strict=True)), abs=1e-5)
        values = [value for _, value in prediction.ranking]
        assert values == sorted(values, reverse=True)


def test_one_view_is_no_augmentation(halves):
    """``tta=1`` gives what is given without it, and never asks for views."""
    bundle, entries = colour_bundle(), list_images(halves).entries
    plain = list(predict_images(bundle, entries, n_best=3))
    assert list(predict_images(bundle, entries, n_best=3, tta=1)) == plain
    np.testing.assert_allclose(
        [value for _, value in plain[0].ranking], -np.sort(-colours_by_hand(halves / "a.png", 1)[0]), atol=1e-6
    )
    assert plain != list(predict_images(bundle, entries, n_best=3, tta=5))


def test_blocks_do_not_mix_images(halves, monkeypatch):
    """Where a block holds fewer images than there are, every image still gets its own views."""
    entries = list_images(halves).entries * 3
    whole = list(predict_images(colour_bundle(), entries, n_best=3, tta=5))
    monkeypatch.setattr("featx.workflows.predicting._BLOCK", 12)
    bundle = colour_bundle()
    in_blocks = list(predict_images(bundle, entries, n_best=3, tta=5))
    for one, other in zip(whole, in_blocks, strict=True):
        assert (one.path, one.reason) == (other.path, other.reason)
        assert dict(one.ranking) == pytest.approx(dict(other.ranking), abs=1e-6)


def test_ties_of_votes_go_to_the_higher_mean():
    """Two votes each: the class with more probability comes first; without that, the order of the classes."""
    views = np.array([[0.6, 0.4, 0.0], [0.55, 0.45, 0.0], [0.1, 0.9, 0.0], [0.0, 0.8, 0.2]])
    order, values = rank_classes(views, "vote")
    assert order.tolist() == [1, 0, 2]
    assert values.tolist() == [0.5, 0.5, 0.0]
    order, values = rank_classes(views, "mean")
    assert order.tolist() == [1, 0, 2]
    assert values.tolist() == pytest.approx([0.3125, 0.6375, 0.05])
    # One sure view outweighs two that are nearly undecided in the mean, but not in the vote.
    views = np.array([[0.52, 0.48], [0.52, 0.48], [0.0, 1.0]])
    assert rank_classes(views, "mean")[0].tolist() == [1, 0]
    assert rank_classes(views, "vote")[0].tolist() == [0, 1]
    assert rank_classes(np.array([[0.5, 0.5], [0.5, 0.5]]), "vote")[0].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"tta": 4}, r"4 views .* use 1 \(the network's own view\); 2 \(flip"),
        ({"tta": 5, "combine": "median"}, "by mean or vote, not by 'median'"),
        ({"combine": "vote"}, "one view has nobody to vote with"),
    ],
)
def test_views_that_are_not_offered(arguments, said, halves):
    """Unknown views and combinations are errors before any network is opened, for both kinds of classifier."""
    bundle, entries = colour_bundle(), list_images(halves).entries
    with pytest.raises(UsageError, match=said):
        list(predict_images(bundle, entries, **arguments))
    assert bundle.computed == []
    with pytest.raises(UsageError, match=said):
        list(name_images("no-such-network", entries, **arguments))


def test_the_networks_own_classes_take_views_too(fake_backbone, tmp_path, monkeypatch):
    """``name_images`` averages the softmax of a picture and of its mirror image, which for mean colours is the same."""
    write_halves(tmp_path / "p.png", (2, 1, 0), (0, 1, 3))
    trained = replace(fake_backbone, weights=WeightsInfo("file:w.pth", "0"))
    monkeypatch.setattr(backbones, "open_backbone", lambda _model, **_: trained)
    entries = list_images(tmp_path).entries
    (plain,), (mirrored,), (votes,) = (
        list(name_images("fake", entries, n_best=3, **arguments))
        for arguments in ({}, {"tta": 2}, {"tta": 2, "combine": "vote"})
    )
    assert dict(mirrored.ranking) == pytest.approx(dict(plain.ranking), abs=1e-6)
    assert votes.ranking[0] == (plain.ranking[0][0], 1.0)
