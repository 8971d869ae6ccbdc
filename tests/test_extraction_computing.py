"""Features of several views of each image: each computed as if alone, in batches that are never larger than said."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from fake_backbone import FAKE_TRANSFORM, FakeNetwork, fake_features

from featx import backbones
from featx.extraction import ComputeOptions, FeatureComputer
from featx.images import list_images, view_pixels, views_of

ROOMY = replace(FAKE_TRANSFORM, resize_size=(10, 10))


def make_computer(layers="penultimate", **options) -> FeatureComputer:
    """Return a computer of the fake network, which sees 8 of 10 pixels."""
    backbone = backbones.open_backbone(FakeNetwork(), transform=ROOMY)
    return FeatureComputer(backbone, backbone.select(layers).taps, ComputeOptions("torch", workers=2, **options))


def views_by_hand(entry, number) -> dict[str, np.ndarray]:
    """Return the features (number, width) of the views of one image by layer, with numpy alone."""
    geometry = {"size": ROOMY.size, "resize_size": ROOMY.resize_size, "interpolation": ROOMY.interpolation}
    return fake_features(view_pixels(entry.read().decode(), views_of(number), **geometry))


@dataclass(frozen=True)
class CountedEntry:
    """An image that notes when it is read."""

    entry: object
    reads: list

    @property
    def path(self):
        return self.entry.path

    def read(self):
        self.reads.append(self.path)
        return self.entry.read()


@pytest.mark.parametrize("batch_size", [1, 3, 10, 25, 1000])
@pytest.mark.parametrize("number", [2, 3, 10])
def test_view_features_are_those_by_hand(number, batch_size, image_folder):
    """Whatever the batch, every view of every image has its own features, at two layers."""
    entries = list_images(image_folder).entries[::3]
    computer = make_computer("stages.1,penultimate", batch_size=batch_size)
    features, failures = computer.view_features_of(entries, views_of(number))
    assert failures == {}
    assert features["penultimate@avg"].shape == (8, number, 8)
    assert features["stages.1@avg"].dtype == np.float32
    for index, entry in enumerate(entries):
        expected = views_by_hand(entry, number)
        for layer in ("stages.1", "penultimate"):
            np.testing.assert_allclose(features[f"{layer}@avg"][index], expected[layer], rtol=1e-5)


def test_the_first_view_is_what_is_computed_without_views(image_folder):
    """Row 0 of the views is, to the last bit, what `features_of` gives."""
    entries = list_images(image_folder).entries
    computer = make_computer(batch_size=4)
    plain, _ = computer.features_of(entries)
    views, _ = computer.view_features_of(entries, views_of(5))
    np.testing.assert_array_equal(views["penultimate@avg"][:, 0], plain["penultimate@avg"])
    assert np.abs(views["penultimate@avg"][:, 1] - plain["penultimate@avg"]).max() > 0.1


def test_images_are_read_once_and_batches_keep_their_size(image_folder, monkeypatch):
    """Ten views of an image cost one reading, and no run of the network gets more pictures than a batch has."""
    runs, reads = [], []
    open_engine = backbones.open_engine

    def open_counting(*arguments, **options):
        engine = open_engine(*arguments, **options)
        run = engine.run
        engine.run = lambda pixels: runs.append(len(pixels)) or run(pixels)
        return engine

    monkeypatch.setattr(backbones, "open_engine", open_counting)
    entries = [CountedEntry(entry, reads) for entry in list_images(image_folder).entries[:7]]
    for batch_size, expected in ((32, [30, 30, 10]), (4, [4, 4, 2] * 7)):
        runs.clear()
        reads.clear()
        make_computer(batch_size=batch_size).view_features_of(entries, views_of(10))
        assert runs == expected
        assert sorted(reads) == sorted(entry.path for entry in entries)


def test_an_image_that_fails_has_no_view(image_folder):
    """All views of an unreadable image are NaN, its reason is told, and its neighbours keep their features."""
    (image_folder / "blue" / "000.jpg").write_text("no picture")
    entries = list_images(image_folder).entries[:4]
    features, failures = make_computer(batch_size=5).view_features_of(entries, views_of(3))
    assert list(failures) == [0]
    assert failures[0].startswith("not an image")
    values = features["penultimate@avg"]
    assert np.isnan(values[0]).all()
    for index in (1, 2, 3):
        np.testing.assert_allclose(values[index], views_by_hand(entries[index], 3)["penultimate"], rtol=1e-5)


def test_no_images_have_no_views():
    """Nothing asked gives arrays without rows."""
    features, failures = make_computer().view_features_of([], views_of(2))
    assert (features["penultimate@avg"].shape, failures) == ((0, 2, 8), {})
