"""A folder is listed in a fixed order, with the classes and splits that its subfolders name."""

import os

import numpy as np
import pytest

from featx.errors import SourceError, UsageError
from featx.images import NO_SPLIT, TEST, TRAIN, VAL, list_images


def make_files(folder, *names):
    """Empty files: listing opens none of them."""
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return folder


def summary(listing):
    """Path, class name and split of each image."""
    return [
        (entry.path, listing.class_names[entry.label] if entry.label >= 0 else None, entry.split)
        for entry in listing.entries
    ]


def test_classes_are_the_first_level(tmp_path):
    """Class folders give classes at any depth below; files beside them have none."""
    make_files(tmp_path, "b/2.JPG", "b/deep/er/1.png", "a/x.webp", "top.gif")
    listing = list_images(tmp_path)
    assert summary(listing) == [
        ("a/x.webp", "a", NO_SPLIT),
        ("b/2.JPG", "b", NO_SPLIT),
        ("b/deep/er/1.png", "b", NO_SPLIT),
        ("top.gif", None, NO_SPLIT),
    ]
    assert listing.class_names == ("a", "b")
    assert listing.source == str(tmp_path)
    assert len(listing) == 4
    assert listing.has_labels
    assert not listing.has_splits
    assert listing.groups is None
    assert listing.labels.tolist() == [0, 1, 1, -1]


def test_splits_on_top(tmp_path):
    """Split folders in any case give splits, with the class one level down."""
    make_files(tmp_path, "Train/a/1.jpg", "VALID/b/1.jpg", "test/a/1.jpg", "test/loose.jpg", "top.jpg")
    listing = list_images(str(tmp_path))
    assert summary(listing) == [
        ("Train/a/1.jpg", "a", TRAIN),
        ("VALID/b/1.jpg", "b", VAL),
        ("test/a/1.jpg", "a", TEST),
        ("test/loose.jpg", None, TEST),
        ("top.jpg", None, NO_SPLIT),
    ]
    assert listing.splits.dtype == np.int8
    assert listing.has_splits


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (("bus/1.jpg", "train/1.jpg"), [("bus", NO_SPLIT), ("train", NO_SPLIT)]),
        (("train/cat/1.jpg", "notes/readme.txt"), [("cat", TRAIN)]),
        (("train/1.jpg",), [(None, TRAIN)]),
        (("val/a/1.jpg", "validation/a/1.jpg"), [("a", VAL), ("a", VAL)]),
        (("extra/1.jpg", "test/a/1.jpg", "train/a/1.jpg"), [(None, NO_SPLIT), ("a", TEST), ("a", TRAIN)]),
        (("val/1.jpg", "valid/1.jpg", "x/1.jpg"), [("val", NO_SPLIT), ("valid", NO_SPLIT), ("x", NO_SPLIT)]),
    ],
)
def test_when_names_are_splits(tmp_path, files, expected):
    """Names are splits where all folders with images are such, or two different splits occur; else classes."""
    listing = list_images(make_files(tmp_path, *files))
    assert [(name, split) for _, name, split in summary(listing)] == expected


def test_flat_folder_has_no_labels(tmp_path):
    """A folder without subfolders gives neither classes nor splits."""
    listing = list_images(make_files(tmp_path, "2.png", "1.png"))
    assert summary(listing) == [("1.png", None, NO_SPLIT), ("2.png", None, NO_SPLIT)]
    assert listing.class_names == ()
    assert not listing.has_labels


def test_order_is_by_code_points_of_components(tmp_path):
    """Folders sort before what only continues their name, capitals before small letters, whatever the locale."""
    names = ["a/z.jpg", "a-b/a.jpg", "a.b/a.jpg", "B/a.jpg", "ä/a.jpg", "a/10.jpg", "a/9.jpg"]
    listing = list_images(make_files(tmp_path, *names))
    assert [entry.path for entry in listing.entries] == [
        "B/a.jpg", "a/10.jpg", "a/9.jpg", "a/z.jpg", "a-b/a.jpg", "a.b/a.jpg", "ä/a.jpg",
    ]  # fmt: skip
    assert listing.class_names == ("B", "a", "a-b", "a.b", "ä")


def test_others_and_hidden_are_counted(tmp_path):
    """Text, hidden files and whole hidden folders are passed over and counted; so is a stored HDF5 file."""
    make_files(tmp_path, "1.jpg", "a.txt", ".hidden.jpg", ".git/x.jpg", ".git/y.jpg", "features.h5", "noextension")
    listing = list_images(tmp_path)
    assert [entry.path for entry in listing.entries] == ["1.jpg"]
    assert listing.n_ignored == 5


def test_links_are_followed_and_loops_end(tmp_path):
    """Linked files and folders are listed under the link's name; a loop of links ends; a broken link is listed."""
    outside = make_files(tmp_path / "outside", "1.jpg")
    folder = make_files(tmp_path / "set", "a/1.jpg")
    (folder / "b").symlink_to(outside, target_is_directory=True)
    (folder / "a" / "2.jpg").symlink_to(outside / "1.jpg")
    (folder / "a" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (folder / "a" / "up").symlink_to(folder, target_is_directory=True)
    (outside / "itself").symlink_to(outside, target_is_directory=True)
    listing = list_images(folder)
    assert [entry.path for entry in listing.entries] == ["a/1.jpg", "a/2.jpg", "a/gone.jpg", "b/1.jpg"]
    assert listing.n_ignored == 2


def test_names_that_are_not_utf8(tmp_path):
    """Stray bytes in file and folder names are escaped in what is stored, and the file is still found."""
    folder = os.path.join(os.fsencode(tmp_path), b"caf\xe9")
    os.mkdir(folder)
    with open(os.path.join(folder, b"\xff.jpg"), "wb") as file:
        file.write(b"content")
    listing = list_images(tmp_path)
    assert summary(listing) == [("caf%E9/%FF.jpg", "caf%E9", NO_SPLIT)]
    assert listing.entries[0].read().data == b"content"


def test_limit_is_spread_over_the_classes(tmp_path):
    """A limit takes images at even steps, so that every class is still there."""
    make_files(tmp_path, *(f"{name}/{number}.jpg" for name in "abcde" for number in range(4)))
    listing = list_images(tmp_path, limit=5)
    assert [entry.path for entry in listing.entries] == [f"{name}/0.jpg" for name in "abcde"]
    assert len(list_images(tmp_path, limit=100)) == 20
    assert len(list_images(tmp_path, limit=7)) == 7
    with pytest.raises(UsageError, match="limit is 0"):
        list_images(tmp_path, limit=0)


def test_empty_folder_says_what_was_ignored(tmp_path):
    """A folder without images is refused with the number of ignored files and the extensions that count."""
    make_files(tmp_path, "a.txt", ".b.jpg")
    with pytest.raises(SourceError, match=r"2 other or hidden files.*\.jpeg.*\.png"):
        list_images(tmp_path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_unreadable_folder_is_named(tmp_path):
    """A subfolder that cannot be read is an error that names it, not a silent gap."""
    make_files(tmp_path, "a/1.jpg", "b/1.jpg")
    (tmp_path / "b").chmod(0)
    try:
        with pytest.raises(SourceError, match="b cannot be read"):
            list_images(tmp_path)
    finally:
        (tmp_path / "b").chmod(0o700)
