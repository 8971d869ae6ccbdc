"""Groups of duplicates name every copy once, with what links it to the first and where it does harm."""

from __future__ import annotations

import csv
import io
import shutil

import numpy as np
import pytest
from fake_backbone import write_pictures
from gallery import TRAINED
from PIL import Image

from featx.errors import UsageError, WouldOverwriteError
from featx.store import FeatureInfo, FeatureStore, ImageTable, RowBlock, merge, open_segments, write_segment
from featx.workflows.duplicates import find_duplicates, page_rows, write_table

# Rows 0 and 3 are one file, 1 and 4 near each other, 5 near 4 only; 2, 6 and 7 are alone.
LABELS = [0, 0, 1, 0, 1, 0, 1, -1]
SPLITS = [0, 0, 0, 2, 0, 0, 1, -1]
COSINES = {(1, 4): 0.9, (4, 5): 0.9}


def features():
    """Return rows of which 1, 4 and 5 lie on an arc, 4 at a cosine of 0.9 to either, and the others apart."""
    rows = np.eye(8, dtype=np.float32)
    angle = np.arccos(0.9)
    for place, row in enumerate((1, 4, 5)):
        rows[row] = 0
        rows[row, :2] = np.cos(place * angle), np.sin(place * angle)
    rows[0], rows[3] = np.eye(8)[3], np.eye(8)[3]
    return rows


def write(path, *, layer="penultimate@avg", fingerprint=TRAINED, source="made", copies=True, **changed):
    """Write a store of the eight rows."""
    random = np.random.default_rng(0)
    digests, phashes = random.integers(0, 256, (8, 16), np.uint8), random.integers(0, 256, (8, 8), np.uint8)
    if copies:
        digests[3], phashes[3] = digests[0], phashes[0]
        phashes[4] = phashes[5] = phashes[1]
    paths = changed.get("paths", [f"{row}.png" for row in range(8)])
    info = FeatureInfo(layer, layer.partition("@")[0], "avg", 1.0, (8,), 8, "float32")
    segments = path.with_name(f"{path.name}.segments")
    block = RowBlock(paths, digests, phashes, np.ones((8, 2), np.int32), {layer: features()})
    write_segment(segments, block, [info], fingerprint)
    table = ImageTable(
        paths=paths,
        digests=digests,
        labels=np.array(LABELS, np.int32),
        label_names=["cat", "dog"],
        splits=np.array(SPLITS, np.int8),
        groups=None,
    )
    merge(
        path, table, [info], open_segments(segments), fingerprint=fingerprint, source=str(source), aliases={},
        failures=(),
    )  # fmt: skip
    return path


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """The eight rows, as a store that is open."""
    with FeatureStore(write(tmp_path_factory.mktemp("store") / "s.h5")) as opened:
        yield opened


def as_rows(found):
    """Return kind and rows of each group."""
    return [(group.kind, [image.row for image in group.images]) for group in found.groups]


def test_groups_are_those_that_were_planted(store):
    """Exact and near groups in the order of their first images, with counts that add up."""
    found = find_duplicates(store)
    assert as_rows(found) == [("exact", [0, 3]), ("near", [1, 4, 5])]
    assert [group.number for group in found.groups] == [1, 2]
    assert (found.n_rows, found.n_identical, found.n_near, found.n_droppable) == (8, 1, 2, 3)
    assert "penultimate" in found.compared_by


def test_likeness_is_that_to_the_first(store):
    """Exactly 1 for the same file; the cosine where hashes are equal, also below what was asked for, along a chain."""
    exact, near = find_duplicates(store).groups
    assert [image.likeness for image in exact.images] == [1.0, 1.0]
    assert near.images[0].likeness == 1.0
    assert near.images[1].likeness == pytest.approx(0.9, abs=1e-6)
    assert near.images[2].likeness == pytest.approx(np.cos(2 * np.arccos(0.9)), abs=1e-6)


def test_what_matters_is_said(store):
    """Labels and splits are those of the store, and a group that has several of either says so."""
    exact, near = find_duplicates(store).groups
    assert [(image.path, image.label, image.split) for image in exact.images] == [
        ("0.png", "cat", "train"),
        ("3.png", "cat", "test"),
    ]
    assert exact.concerns == ("crosses splits: train, test",)
    assert near.concerns == ("labels differ: cat, dog",)


def test_less_may_be_asked_for(store):
    """Identical files only, or near ones from another likeness on."""
    assert as_rows(find_duplicates(store, exact_only=True)) == [("exact", [0, 3])]
    assert as_rows(find_duplicates(store, min_likeness=0.95)) == [("exact", [0, 3])]
    assert find_duplicates(store, exact_only=True).n_droppable == 1
    with pytest.raises(UsageError, match="min_likeness"):
        find_duplicates(store, min_likeness=1.5)


@pytest.mark.parametrize(
    "made",
    [
        {"layer": "blocks.2@avg"},
        {"fingerprint": {**TRAINED, "weights_source": "random:0"}},
        {"fingerprint": {**TRAINED, "reduction": {"by": "pca:4"}}},
    ],
)
def test_without_fitting_features_equal_hashes_count(tmp_path, made):
    """Earlier layers, random weights and reduced features don't say how like pictures are: no number is given."""
    with FeatureStore(write(tmp_path / "s.h5", **made)) as opened:
        found = find_duplicates(opened)
    assert as_rows(found) == [("exact", [0, 3]), ("near", [1, 4, 5])]
    assert [image.likeness for image in found.groups[1].images] == [1.0, None, None]
    assert "equal perceptual hashes" in found.compared_by


def test_a_store_without_duplicates_has_no_groups(tmp_path):
    """Nothing is found where nothing is alike."""
    with FeatureStore(write(tmp_path / "s.h5", copies=False)) as opened:
        found = find_duplicates(opened)
    assert (found.groups, found.n_droppable) == ((), 0)


def test_the_table_can_be_read_back(store, tmp_path):
    """A row an image, in the order of the groups; an existing file stays unless overwriting is allowed."""
    out = tmp_path / "d.csv"
    found = find_duplicates(store)
    write_table(found, out)
    with out.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["group"], row["kind"], row["path"], row["label"], row["split"]) for row in rows] == [
        ("1", "exact", "0.png", "cat", "train"),
        ("1", "exact", "3.png", "cat", "test"),
        ("2", "near", "1.png", "cat", "train"),
        ("2", "near", "4.png", "dog", "train"),
        ("2", "near", "5.png", "cat", "train"),
    ]
    assert [float(row["likeness"]) for row in rows[:4]] == pytest.approx([1, 1, 1, 0.9], abs=1e-5)
    with pytest.raises(WouldOverwriteError):
        write_table(found, out)
    write_table(found, out, overwrite=True)


def test_a_page_has_a_row_a_group_with_the_originals(tmp_path):
    """The first image stands in front, thumbnails are those of the originals, and none where one is gone."""
    photos = write_pictures(tmp_path / "photos")
    colours = ("blue", "green", "red")
    paths = [f"{colours[row % 3]}/{row // 3:03d}.{('jpg', 'png')[row // 3 % 2]}" for row in range(8)]
    shutil.copy(photos / paths[0], photos / "other.jpg")
    with FeatureStore(write(tmp_path / "s.h5", source=photos, paths=paths)) as opened:
        (photos / paths[5]).unlink()
        exact, near = page_rows(opened, find_duplicates(opened))
    assert (exact.heading, exact.notes) == ("Group 1, exact", ("crosses splits: train, test",))
    assert [picture.path for picture in (*near.query, *near.hits)] == [paths[1], paths[4], paths[5]]
    assert near.hits[0].score == pytest.approx(0.9, abs=1e-6)
    assert near.hits[1].thumbnail is None
    mean = np.asarray(Image.open(io.BytesIO(near.hits[0].thumbnail))).mean(axis=(0, 1))
    original = np.asarray(Image.open(photos / paths[4]).convert("RGB")).mean(axis=(0, 1))
    assert mean == pytest.approx(original, abs=6)
