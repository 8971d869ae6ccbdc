"""Images named on a command line keep the order given, under paths that can be opened from where the user is."""

from __future__ import annotations

import os

import pytest
from fake_backbone import write_pictures
from gallery import type_in

from featx.errors import ImageError, SourceError, UsageError
from featx.images import unescape_path
from featx.workflows.image_arguments import named_images


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder with pictures, and lists of them in folders of their own."""
    write_pictures(tmp_path / "photos", n_each=2)
    write_pictures(tmp_path / "work" / "inner photos", n_each=1)
    (tmp_path / "work" / "lists").mkdir()
    (tmp_path / "work" / "lists" / "list.txt").write_text("inner photos/red/000.jpg\n../photos/red/001.png\n")
    (tmp_path / "work" / "lists" / "inside.csv").write_text("path,label\n../inner photos/blue/000.jpg,cold\n")
    (tmp_path / "work" / "lists" / "local.jpg").write_bytes((tmp_path / "photos/red/000.jpg").read_bytes())
    (tmp_path / "work" / "lists" / "local.csv").write_text("path\nlocal.jpg\n")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


ARGUMENTS = {
    "a file": (["lists/local.jpg"], ["lists/local.jpg"]),
    "a file here": (["./lists/../lists/local.jpg"], ["./lists/../lists/local.jpg"]),
    "a folder": (["inner photos"], [f"inner photos/{colour}/000.jpg" for colour in ("blue", "green", "red")]),
    "a folder with a slash": (["inner photos/red/"], ["inner photos/red/000.jpg"]),
    "a folder above": (["../photos/red"], ["../photos/red/000.jpg", "../photos/red/001.png"]),
    "a folder by a detour": (["lists/../lists"], ["lists/../lists/local.jpg"]),
    "a CSV": (["lists/local.csv"], ["lists/local.jpg"]),
    "several": (["lists/local.jpg", "inner photos/red"], ["lists/local.jpg", "inner photos/red/000.jpg"]),
    "the same twice": (["lists/local.jpg", "lists/local.jpg"], ["lists/local.jpg"] * 2),
}  # fmt: skip


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("arguments", ARGUMENTS)
def test_shown_paths_are_those_that_were_given(arguments):
    """Images come in the order given, under paths relative to where the user is."""
    given, expected = ARGUMENTS[arguments]
    assert [entry.path for entry in named_images(given)] == expected


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("argument", ["lists/list.txt", "lists/inside.csv", "lists/local.csv", "-", "."])
def test_shown_paths_can_be_opened(argument, monkeypatch):
    """Whatever names an image, its shown path opens from here the picture that is read."""
    type_in(monkeypatch, "inner photos/red/000.jpg\n../photos/blue/001.png\n")
    entries = named_images([argument])
    assert entries
    for entry in entries:
        assert os.path.samefile(unescape_path(entry.path), entry.location)
        assert entry.read().decode().size == (24, 18)


def test_absolute_paths_stay_absolute(here):
    """An absolute folder or file is shown as it was given."""
    folder = here / "inner photos" / "red"
    assert [entry.path for entry in named_images([str(folder), str(folder / "000.jpg")])] == [
        f"{folder}/000.jpg",
        f"{folder}/000.jpg",
    ]


@pytest.mark.usefixtures("here")
def test_a_missing_file_waits_for_its_turn():
    """One missing file does not stop the others: it fails when it is read, under its own name."""
    first, missing, last = named_images(["lists/local.jpg", "lists/missing.jpg", "inner photos/red/000.jpg"])
    assert missing.path == "lists/missing.jpg"
    with pytest.raises(ImageError, match="No such file"):
        missing.read()
    assert first.read().decode().size == last.read().decode().size == (24, 18)


def test_names_that_are_not_text(here):
    """A name whose bytes are not UTF-8 is shown escaped, and still read."""
    name = os.fsdecode(b"caf\xe9.jpg")
    try:
        (here / name).write_bytes((here / "lists" / "local.jpg").read_bytes())
    except OSError:
        pytest.skip("this file system allows no such names")
    for argument in (name, "."):
        entry = next(entry for entry in named_images([argument]) if "caf" in entry.path)
        assert "%E9" in entry.path
        assert os.path.samefile(unescape_path(entry.path), here / name)
        assert entry.read().decode().size == (24, 18)


def test_nothing_to_look_at(here):
    """No argument, an empty folder and an empty list are errors."""
    (here / "empty").mkdir()
    (here / "empty.txt").write_text("\n")
    with pytest.raises(UsageError, match="no image given"):
        named_images([])
    with pytest.raises(SourceError, match="no images in"):
        named_images(["empty"])
    with pytest.raises(SourceError, match="names no images"):
        named_images(["empty.txt"])
