"""Search by image: originals are found again, thumbnails show the right picture, queries keep their order."""

from __future__ import annotations

import io
import os
import shutil

import numpy as np
import pytest
from gallery import make_gallery, run, write_store
from PIL import Image

from featx.errors import RefusedError, StoreError
from featx.images import list_images
from featx.retrieval import ImageIndex
from featx.store import FeatureStore
from featx.workflows import searching
from featx.workflows.image_arguments import named_images
from featx.workflows.indexing import build_index, index_spec
from featx.workflows.originals import original_location
from featx.workflows.searching import query_images


@pytest.fixture(scope="module")
def gallery(tmp_path_factory):
    """Pictures, store, classifier and index; read only."""
    return make_gallery(tmp_path_factory.mktemp("gallery"))


def test_originals_are_found_again(gallery, tmp_path, monkeypatch):
    """From source and stored path, the original of every kind of source is found."""
    monkeypatch.chdir(gallery.photos)
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "list.txt").write_text(f"red/001.png\n{gallery.photos}/blue/000.jpg\n")
    shutil.copy(gallery.photos / "red" / "001.png", tmp_path / "lists" / "here.png")
    (tmp_path / "lists" / "list.CSV").write_text(f"path\nhere.png\n{gallery.photos}/blue/000.jpg\n")
    sources = (
        gallery.photos,
        tmp_path / "lists" / "list.txt",
        tmp_path / "lists" / "list.CSV",
        tmp_path / "lists" / "here.png",
        ["red/001.png", str(tmp_path / "lists" / "here.png")],
    )
    for source in sources:
        listing = list_images(source)
        assert listing.entries
        for entry in listing.entries:
            assert os.path.samefile(original_location(listing.source, entry.path), entry.location)


def test_escaped_names_are_unescaped():
    """A path that had to be escaped in the store is unescaped on disk."""
    assert original_location("/nowhere/list.csv", "100%25.png") == "/nowhere/100%.png"
    assert original_location("-", "caf%E9.png") == os.fsdecode(b"caf\xe9.png")


def test_an_index_has_what_the_store_has(gallery):
    """Vectors are the features at length 1, with their paths and labels, and no thumbnails unless asked for."""
    with FeatureStore(gallery.store) as store:
        index = build_index(store, "blocks.2", allow_random=True)
        features = store["blocks.2"][:]
        assert list(index.paths) == store.paths.tolist()
        assert list(index.labels) == [store.label_names[label] for label in store.labels]
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    np.testing.assert_allclose(index.vectors, unit, rtol=1e-5, atol=1e-6)
    assert index_spec(index).key == "blocks.2@avg"
    assert index.thumbnail(0) is None


def test_untrained_weights_are_refused(gallery):
    """A search over features of untrained weights needs permission."""
    with FeatureStore(gallery.store) as store, pytest.raises(RefusedError, match="a search over them"):
        build_index(store)


def test_thumbnails_are_small_and_of_the_right_picture(gallery, tmp_path):
    """Each row's thumbnail is a JPEG of at most the size asked for, in the colour of its picture."""
    with FeatureStore(gallery.store) as store:
        build_index(store, thumbnail_size=16, allow_random=True).save(tmp_path / "g.index")
    index = ImageIndex.load(tmp_path / "g.index")
    for row, path in enumerate(index.paths):
        picture = Image.open(io.BytesIO(index.thumbnail(row)))
        assert picture.format == "JPEG"
        assert picture.size == (16, 12)
        strongest = np.asarray(picture).mean(axis=(0, 1)).argmax()
        assert ("red", "green", "blue")[strongest] == path.split("/")[0]


def test_an_original_that_is_gone_has_no_thumbnail(gallery, tmp_path):
    """Rows whose picture is gone go without; where all are gone, that is an error."""
    photos = shutil.copytree(gallery.photos, tmp_path / "photos")
    network = ("--model", "test_efficientnet", "--weights", "random:0")
    assert run("extract", photos, "--out", tmp_path / "f.h5", *network) == 0
    (photos / "red" / "001.png").unlink()
    (photos / "blue" / "000.jpg").write_text("no picture")
    with FeatureStore(tmp_path / "f.h5") as store:
        index = build_index(store, thumbnail_size=16, allow_random=True)
        without = {path for row, path in enumerate(index.paths) if index.thumbnail(row) is None}
        assert without == {"red/001.png", "blue/000.jpg"}
        shutil.rmtree(photos)
        with pytest.raises(StoreError, match="build the index without thumbnails"):
            build_index(store, thumbnail_size=16, allow_random=True)


def test_queries_keep_their_order_over_blocks(gallery, monkeypatch):
    """More queries than a block holds come out in order, the unreadable ones in their places."""
    monkeypatch.setattr(searching, "_BLOCK", 4)
    index = ImageIndex.load(gallery.index)
    names = ["red/001.png", "nowhere.png", "blue/000.jpg", "green/003.png", "nothing.png"]
    entries = named_images([str(gallery.photos / name) for name in names])
    results = list(query_images(index, entries, 2))
    assert [result.query for result in results] == [str(gallery.photos / name) for name in names]
    assert [bool(result.reason) for result in results] == [False, True, False, False, True]
    for name, result in zip(names, results, strict=True):
        assert [(hit.rank, hit.path) for hit in result.hits[:1]] == ([] if result.reason else [(1, name)])


def test_no_queries_are_no_error(gallery):
    """Nothing asked, nothing answered."""
    assert list(query_images(ImageIndex.load(gallery.index), [])) == []


def test_an_index_that_does_not_say_how_it_was_made(tmp_path):
    """An index of plain vectors, or with another thing in the place of the specification, takes no images."""
    vectors = np.eye(3, dtype=np.float32)
    with pytest.raises(StoreError, match="build it with featx index"):
        index_spec(ImageIndex.build(vectors))
    for odd in ("penultimate", {"key": "x"}, {"key": "x", "width": 3, "fingerprint": []}):
        with pytest.raises(StoreError, match="the index does not say which features"):
            index_spec(ImageIndex.build(vectors, metadata={"features": odd}))
    with FeatureStore(write_store(tmp_path / "s.h5", vectors, [0, 0, 1])) as store:
        assert index_spec(build_index(store)).width == 3
