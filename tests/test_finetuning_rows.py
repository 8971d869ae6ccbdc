"""Batches come from pictures or features, and what is random in them depends on seed, epoch and picture alone."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_backbone import write_pictures
from PIL import Image
from tiny_networks import TINY_TRANSFORM, pictures_of, watched_generators

from featx.errors import ImageError
from featx.finetuning import FeatureRows
from featx.finetuning import rows as rows_module
from featx.images import list_images, resize_and_crop

ALL = ("flip", "vflip", "crop", "rotation", "colour", "noise")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Three classes of four pictures; read only."""
    return write_pictures(tmp_path_factory.mktemp("rows") / "photos", n_each=4)


def batches(rows, groups, key=(0, 1)):
    """Return inputs and labels of groups of rows."""
    return list(rows.batches([np.array(group) for group in groups], key))


def test_features_come_as_they_are():
    """Each batch has the features and labels of its rows, in their order."""
    features = np.arange(12, dtype=np.float32).reshape(6, 2)
    rows = FeatureRows(features, np.array([0, 1, 2, 0, 1, 2]))
    (first, labels), (second, _) = batches(rows, [[4, 0], [5]])
    assert (first.tolist(), labels.tolist(), second.tolist()) == ([[8, 9], [0, 1]], [1, 0], [[10, 11]])


def test_pictures_without_augmentation_are_those_of_extraction(photos):
    """Pixels are what the network's own transform gives, labels are those of the folders, whatever the key."""
    rows = pictures_of(photos)
    entries = list_images(str(photos)).entries
    for key in ((0, 0), (5, 3)):
        (pixels, labels), (last, _) = batches(rows, [[11, 0, 5], [2]], key)
        assert (pixels.dtype, labels.tolist()) == (torch.uint8, [entries[row].label for row in (11, 0, 5)])
        for row, shown in zip((11, 0, 5, 2), [*pixels, *last], strict=True):
            geometry = {"size": TINY_TRANSFORM.size, "resize_size": TINY_TRANSFORM.resize_size}
            np.testing.assert_array_equal(shown, resize_and_crop(entries[row].read().decode(), **geometry))


def test_a_picture_is_changed_anew_in_every_epoch(photos):
    """Seed, epoch and picture decide what is random: not the batch it is in, nor what was drawn before."""
    rows = pictures_of(photos, ALL)
    untouched = watched_generators()
    (first, _), (second, _) = batches(rows, [[0, 1, 2], [3, 4, 5]], (0, 1))
    ((other, _),) = batches(pictures_of(photos, ALL), [[5, 1, 0]], (0, 1))
    assert untouched()
    np.testing.assert_array_equal(other[2], first[0])
    np.testing.assert_array_equal(other[1], first[1])
    np.testing.assert_array_equal(other[0], second[2])
    for key in ((0, 2), (1, 1)):
        ((later, _),) = batches(rows, [[0, 1, 2]], key)
        assert all((one != two).any() for one, two in zip(first, later, strict=True))


def test_pictures_that_do_not_fit_into_memory_are_read_again(photos, monkeypatch):
    """Kept pictures save time only: without them, pixels are the same."""
    expected = [pixels for pixels, _ in batches(pictures_of(photos, ALL), [[0, 1], [2, 0]])]
    monkeypatch.setattr(rows_module, "_BYTES_KEPT", 0)
    rows = pictures_of(photos, ALL)
    for wanted, (pixels, _) in zip(expected, batches(rows, [[0, 1], [2, 0]]), strict=True):
        np.testing.assert_array_equal(pixels, wanted)
    assert not rows._loaders[0]._kept


def test_no_more_than_the_budget_is_kept(photos, monkeypatch):
    """Pictures of 24 x 18 pixels are kept up to the bytes allowed."""
    monkeypatch.setattr(rows_module, "_BYTES_KEPT", 3 * (3 * 24 * 18))
    rows = pictures_of(photos)
    batches(rows, [range(12)])
    assert len(rows._loaders[0]._kept) == 3


def test_large_pictures_are_kept_small_where_they_are_cropped_anyway(tmp_path):
    """A crop of half of the area still has enough pixels; unaugmented pictures keep all of theirs."""
    (tmp_path / "a").mkdir()
    Image.new("RGB", (330, 200), (9, 9, 9)).save(tmp_path / "a" / "large.png")
    for augment, size in ((("crop",), (55, 34)), ((), (330, 200))):  # 200 is six times twice 16
        rows = pictures_of(tmp_path, augment)
        batches(rows, [[0]])
        assert rows._loaders[0]._kept[0].size == size


def test_a_picture_that_is_gone_is_named(photos, tmp_path):
    """The error says which image cannot be read any more, why, and what to do."""
    shutil.copytree(photos, tmp_path / "photos")
    rows = pictures_of(tmp_path / "photos")
    Path(rows.entries[1].location).unlink()
    with pytest.raises(ImageError, match=r"blue/001\.png: .*it could be read before the training began"):
        batches(rows, [[0, 1]])


def test_processes_that_decode_change_nothing(photos):
    """Two processes give the batches that none gives, in the same order, and leave the caller's numbers alone."""
    groups = [[0, 5, 7], [1, 2], [3], [11, 10]]
    expected = batches(pictures_of(photos, ALL), groups, (4, 2))
    untouched = watched_generators()
    found = batches(replace(pictures_of(photos, ALL), n_workers=2), groups, (4, 2))
    assert untouched()
    for (pixels, labels), (wanted, true) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(pixels, wanted)
        np.testing.assert_array_equal(labels, true)
