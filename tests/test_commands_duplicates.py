"""``featx duplicates``: text, JSON, table and page, and what is refused."""

from __future__ import annotations

import json
import shutil

import pytest
from fake_backbone import write_pictures
from gallery import NETWORK, run, separable, write_store
from headless_browser import find_browser, look_at


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store of pictures of which one lies there three times, twice under another class."""
    folder = tmp_path_factory.mktemp("duplicates")
    photos = write_pictures(folder / "photos", n_each=3)
    for name in ("blue/copy.jpg", "red/<b>copy.jpg"):
        shutil.copy(photos / "green" / "000.jpg", photos / name)
    if run("extract", photos, "--out", folder / "s.h5", *NETWORK) != 0:
        pytest.fail("the store cannot be made")
    return folder / "s.h5"


def test_text_begins_with_a_summary(store, capsys):
    """How many there are and could be dropped, then the groups with what to look at."""
    assert run("duplicates", store, "--exact-only") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "2 exact copies and 0 near groups in 1 group among 11 images; 2 images could be dropped"
    assert "note: in 1 group the labels differ" in lines
    table = [line.split() for line in lines if line.strip().startswith("1 ")]
    assert [line[:5] for line in table] == [
        ["1", "exact", "1.0000", "blue/copy.jpg", "blue"],
        ["1", "exact", "1.0000", "green/000.jpg", "green"],
        ["1", "exact", "1.0000", "red/<b>copy.jpg", "red"],
    ]


def test_json_has_the_promised_shape(store, capsys):
    """``--json`` is one line a group and nothing else."""
    assert run("duplicates", store, "--exact-only", "--json") == 0
    (line,) = capsys.readouterr().out.splitlines()
    group = json.loads(line)
    assert {name: group[name] for name in ("group", "kind")} == {"group": 1, "kind": "exact"}
    assert group["images"] == [
        {"path": "blue/copy.jpg", "label": "blue", "split": None, "likeness": 1.0},
        {"path": "green/000.jpg", "label": "green", "split": None, "likeness": 1.0},
        {"path": "red/<b>copy.jpg", "label": "red", "split": None, "likeness": 1.0},
    ]


def test_no_duplicates_are_said(tmp_path, capsys):
    """A store without copies is done, with a sentence; JSON has no line."""
    labels = [0, 1] * 6
    store = write_store(tmp_path / "s.h5", separable(labels), labels)
    assert run("duplicates", store) == 0
    assert capsys.readouterr().out.startswith("no duplicates among 12 images\n")
    assert run("duplicates", store, "--json") == 0
    assert capsys.readouterr().out == ""


def test_table_and_page_are_saved(store, tmp_path, capsys):
    """Both files are written, folders and all; what is there is replaced only where that is allowed."""
    table, page = tmp_path / "new" / "d.csv", tmp_path / "new" / "d.html"
    files = ("--csv", table, "--html", page)
    assert run("duplicates", store, "--exact-only", *files) == 0
    assert f"saved {page}" in capsys.readouterr().out
    assert len(table.read_text().splitlines()) == 4
    assert page.read_text().count("<img ") == 3
    before = page.read_bytes()
    assert run("duplicates", store, *files) == 3
    assert page.read_bytes() == before
    assert run("duplicates", store, "--exact-only", *files, "--overwrite") == 0


def test_the_page_opens_in_a_browser(store, tmp_path):
    """Pictures are shown, the name with a tag in it is read as it is, and nothing is asked for."""
    find_browser()
    page = tmp_path / "d.html"
    assert run("duplicates", store, "--exact-only", "--html", page) == 0
    seen = look_at(page, width=1000)
    assert seen.natural == [24, 24, 24]
    assert min(seen.shown) > 90
    assert (seen.asked, seen.refused, seen.outside, seen.scripts) == ([], [], [], 0)
    assert "<b>copy.jpg" in seen.text
    assert "labels differ: blue, green, red" in seen.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--exact-only", "--min-likeness", "0.9"), "give one of them"),
        (("--min-likeness", "0"), "above 0"),
        (("--min-likeness", "nan"), "above 0"),
        (("--csv", "{0}", "--html", "{0}"), "different names"),
        (("--html", "{1}"), "is a folder"),
    ],
)
def test_bad_usage_is_refused(store, tmp_path, capsys, options, message):
    """What contradicts itself, or cannot be, ends with 2 and a reason."""
    options = [option.format(tmp_path / "x.html", tmp_path) for option in options]
    assert run("duplicates", store, *options) == 2
    assert message in capsys.readouterr().err


def test_the_store_itself_is_never_replaced(store, capsys):
    """Not even with --overwrite."""
    before = store.read_bytes()
    assert run("duplicates", store, "--csv", store, "--overwrite") == 3
    assert "made from" in capsys.readouterr().err
    assert store.read_bytes() == before
