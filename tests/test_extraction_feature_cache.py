"""A cache gives what was computed before, by content, and never harms a store that is none."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
from extraction_runs import by_hand, count_images, extract
from fake_backbone import FAKE_TRANSFORM, FakeNetwork, fake_features, fake_pixels
from PIL import Image

from featx.errors import WouldOverwriteError
from featx.extraction import FeatureExtractor
from featx.images import list_images
from featx.store import FeatureStore


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache.h5"


@pytest.fixture
def entries(image_folder):
    return list(list_images(image_folder).entries)


def transform(cache, images, **parameters) -> np.ndarray:
    """Return features from a new extractor of the fake network."""
    settings = {"transform_spec": FAKE_TRANSFORM, "engine": "torch", "batch_size": 4, **parameters}
    return FeatureExtractor(FakeNetwork(), cache=cache, **settings).transform(images)


def test_each_image_is_computed_once(cache, entries, monkeypatch):
    """Other instances, parts, repeats and orders are answered from the cache, in the order asked for."""
    counted = count_images(monkeypatch)
    paths = [entry.location for entry in entries]
    transform(cache, paths[:10])
    features = transform(cache, paths[::-1])
    assert counted == {"penultimate@avg": 24}
    np.testing.assert_allclose(features, by_hand(entries[::-1])["penultimate"], rtol=1e-5)
    some = [entries[place] for place in (7, 3, 7, 20)]
    features = transform(cache, [entry.location for entry in some])
    np.testing.assert_allclose(features, by_hand(some)["penultimate"], rtol=1e-5)
    assert counted.total() == 24


def test_asking_for_parts_does_not_write(cache, entries):
    """A cache that knows everything asked for is not written, whichever part of it that is."""
    paths = [entry.location for entry in entries]
    transform(cache, paths)
    before = cache.stat().st_mtime_ns, cache.stat().st_ino
    transform(cache, paths[5:8])
    transform(cache, paths[::-2])
    assert (cache.stat().st_mtime_ns, cache.stat().st_ino) == before


def test_content_counts_not_the_name(cache, entries, monkeypatch):
    """A copy costs nothing; a file that changed under its name is computed again."""
    path = entries[0].location
    transform(cache, [path])
    counted = count_images(monkeypatch)
    copy = f"{path}-copy.jpg"
    shutil.copy(path, copy)
    first = transform(cache, [path, copy])
    assert not counted
    np.testing.assert_array_equal(first[0], first[1])
    Image.new("RGB", (20, 20), (4, 5, 6)).save(path)
    after = transform(cache, [path, copy])
    assert counted == {"penultimate@avg": 1}
    np.testing.assert_array_equal(after[1], first[1])
    np.testing.assert_allclose(after[0], by_hand([entries[0]])["penultimate"][0], rtol=1e-5)


def test_a_path_means_the_same_from_everywhere(cache, entries, monkeypatch):
    """A relative path from another folder is another image, not the cached one of that name."""
    folder, name = os.path.split(entries[0].location)
    monkeypatch.chdir(folder)
    first = transform(cache, [name])
    monkeypatch.chdir(os.path.dirname(entries[-1].location))
    Image.new("RGB", (20, 20), (4, 5, 6)).save(name)
    second = transform(cache, [name])
    assert np.abs(first - second).max() > 1


def test_pictures_in_memory_are_cached_by_their_pixels(cache, entries, monkeypatch):
    """Arrays and PIL images are known again by what they show, beside files."""
    counted = count_images(monkeypatch)
    pixels = fake_pixels(4)
    expected = fake_features(pixels)["penultimate"]
    np.testing.assert_allclose(transform(cache, pixels), expected, rtol=1e-5)
    again = [Image.fromarray(pixels[2]), entries[0].location, pixels[0]]
    features = transform(cache, again)
    np.testing.assert_allclose(features[[0, 2]], expected[[2, 0]], rtol=1e-5)
    assert counted == {"penultimate@avg": 5}


def test_another_layer_is_added_for_all_rows(cache, entries, monkeypatch):
    """A new layer is computed for what is asked for and for the other rows, and the old one stays."""
    paths = [entry.location for entry in entries]
    transform(cache, paths[:12])
    counted = count_images(monkeypatch)
    features = transform(cache, paths[:4], layer="early")
    np.testing.assert_allclose(features, by_hand(entries[:4])["stages.1"], rtol=1e-5)
    assert counted == {"stages.1@avg": 12}
    transform(cache, paths[:12], layer="early,penultimate")
    assert counted.total() == 12


def test_rows_whose_file_is_gone_do_not_hinder(cache, entries):
    """A cached image that is no longer there leaves when a layer is added, and fails nobody who does not ask."""
    paths = [entry.location for entry in entries]
    transform(cache, paths)
    os.unlink(paths[0])
    features = transform(cache, paths[1:], layer="early")
    np.testing.assert_allclose(features, by_hand(entries[1:])["stages.1"], rtol=1e-5)
    with FeatureStore(cache) as store:
        assert store.rows == 23


def test_names_that_are_not_utf8(cache, entries):
    """A file whose name is not UTF-8 is found again in the cache, also where only its row asks for it."""
    odd = os.fsencode(os.path.dirname(entries[0].location)) + b"/caf\xe9.jpg"
    try:
        os.rename(entries[0].location, odd)
    except OSError:
        pytest.skip("this file system takes only names in UTF-8")
    first = transform(cache, [os.fsdecode(odd), entries[1].location])
    assert transform(cache, [entries[1].location], layer="early").shape == (1, 4)
    np.testing.assert_array_equal(transform(cache, [os.fsdecode(odd)]), first[:1])


def test_a_store_that_is_no_cache_is_left_alone(cache, image_folder, fake_backbone):
    """A store with labels, made by an extraction, is not turned into a cache."""
    extract(fake_backbone, image_folder, cache)
    before = cache.read_bytes()
    with pytest.raises(WouldOverwriteError, match="is no cache; give another file as the cache"):
        transform(cache, [str(next(image_folder.rglob("*.jpg")))])
    assert cache.read_bytes() == before


def test_a_cache_of_other_features_is_refused(cache, entries):
    """Features of another transform are not mixed into a cache."""
    transform(cache, [entries[0].location])
    from dataclasses import replace

    other = replace(FAKE_TRANSFORM, interpolation="bilinear")
    with pytest.raises(WouldOverwriteError, match=r"transform\.interpolation"):
        transform(cache, [entries[0].location], transform_spec=other)
