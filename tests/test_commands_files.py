"""``featx info``, ``verify`` and ``export``: what is inside a file, whether it is whole, and in other formats."""

from __future__ import annotations

import csv
import importlib.util
import json
import shutil

import numpy as np
import pytest
import torch
from gallery import make_gallery, run

from featx.store import FeatureStore

FORMATS = [".npy", ".csv", ".pt", ".parquet"]


@pytest.fixture(scope="module")
def gallery(tmp_path_factory):
    """Pictures, store, classifier and index; read only."""
    return make_gallery(tmp_path_factory.mktemp("gallery"))


def test_info_describes_a_store(gallery, capsys):
    """The text names rows, classes, network, precision, layers and failures; the JSON holds the same."""
    assert run("info", gallery.store) == 0
    text = capsys.readouterr().out
    for said in (
        f"{gallery.store}: 24 rows from {gallery.photos}",
        "labels: blue 8, green 8, red 8",
        "splits: (none) 24",
        "network: test_efficientnet, weights ",
        "(random:0)",
        "precision: f32",
        "penultimate@avg    256  float32",
        "blocks.2@avg        32  float32",
        "32x20x20",
        "failures: 0",
    ):
        assert said in text
    assert run("info", gallery.store, "--json") == 0
    described = json.loads(capsys.readouterr().out)
    assert described["labels"] == {"blue": 8, "green": 8, "red": 8}
    assert [feature["key"] for feature in described["features"]] == ["blocks.2@avg", "penultimate@avg"]
    assert described["fingerprint"]["weights_source"] == "random:0"
    assert run("info", gallery.store, "--failures") == 0
    assert capsys.readouterr().out == "no failures\n"


def test_info_describes_a_classifier(gallery, capsys):
    """The text names classes, features, head and score; the JSON holds the whole card."""
    assert run("info", gallery.classifier) == 0
    text = capsys.readouterr().out
    for said in (
        "classifier of 3 classes: blue, green, red",
        "features: penultimate@avg (256 wide)",
        "network: test_efficientnet",
        "head: svm, scaled by zscore, reduced by none: C ",
        "weights of the network: not in this file",
        "on 6 rows never seen",
        "always answering 'blue' would give 0.333",
    ):
        assert said in text
    assert run("info", gallery.classifier, "--json") == 0
    described = json.loads(capsys.readouterr().out)
    assert described["classes"] == ["blue", "green", "red"]
    assert described["card"]["evaluation"]["rows"] == 6
    assert described["embedded_weights"] is False


def test_info_describes_an_index(gallery, capsys):
    """The text names images, width, features and whether there are thumbnails."""
    assert run("info", gallery.index) == 0
    text = capsys.readouterr().out
    for said in (
        f"24 images from {gallery.photos}",
        "vectors: 256 wide",
        "thumbnails: no",
        "features: penultimate@avg",
    ):
        assert said in text
    assert run("info", gallery.index, "--json") == 0
    described = json.loads(capsys.readouterr().out)
    assert (described["rows"], described["width"]) == (24, 256)


def test_a_file_is_known_by_its_content(gallery, tmp_path, capsys):
    """Another name does not change what a file is."""
    for file, said in (
        (gallery.classifier, "classifier of 3"),
        (gallery.index, "24 images"),
        (gallery.store, "24 rows"),
    ):
        shutil.copy(file, tmp_path / "renamed.bin")
        assert run("info", tmp_path / "renamed.bin") == 0
        assert said in capsys.readouterr().out
        assert run("verify", tmp_path / "renamed.bin") == 0
        capsys.readouterr()


@pytest.mark.parametrize(
    ("verb", "file", "said"),
    [
        ("info", "nothing.h5", "There is no store at"),
        ("info", "nothing.featx", "nothing.featx: no such file"),
        ("info", "photos", "is a folder, not a store of features (.h5)"),
        ("info", "photos/red/001.png", "is a picture, not a store of features (.h5)"),
        ("info", "notes.txt", "is not an HDF5 file"),
        ("verify", "nothing.h5", "no such file"),
        ("verify", "photos", "is a folder; give .h5, .featx, .index"),
        ("verify", "photos/red/001.png", "is a picture; give .h5, .featx, .index"),
        ("verify", "notes.txt", "is no file of featx"),
    ],
)
def test_other_files(verb, file, said, gallery, capsys):
    """What is no file of featx is exit 2, and is called what it is."""
    (gallery.folder / "notes.txt").write_text("no features")
    assert run(verb, gallery.folder / file) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err


def test_failures_belong_to_stores(gallery, capsys):
    """``info --failures`` of a classifier is an error, not silence."""
    assert run("info", gallery.classifier, "--failures") == 2
    assert "--failures goes with a store" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["store", "classifier", "index"])
def test_verify_finds_a_flipped_byte(kind, gallery, tmp_path, capsys):
    """A whole file is exit 0 and one line; the same with one byte of its numbers flipped is exit 2."""
    file = shutil.copy(getattr(gallery, kind), tmp_path / "copy.bin")
    assert run("verify", file) == 0
    assert capsys.readouterr() == (f"{file}: every byte is what was written\n", "")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert run("verify", file) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert str(file) in err
    assert "restore a copy, or make it again" in err


def test_verify_finds_a_missing_end(gallery, tmp_path, capsys):
    """A file that was cut off is exit 2."""
    for name in ("store", "classifier", "index"):
        whole = getattr(gallery, name)
        cut = tmp_path / whole.name
        cut.write_bytes(whole.read_bytes()[:-200])
        assert run("verify", cut) == 2
        assert str(cut) in capsys.readouterr().err


def read_export(path):
    """Features, paths, labels and splits of an exported file."""
    if path.suffix == ".pt":
        content = torch.load(path, weights_only=True)
        labels = [content["label_names"][label] for label in content["labels"]]
        return content["features"].numpy(), content["paths"], labels, [""] * len(labels)
    if path.suffix == ".parquet":
        from pyarrow import parquet

        columns = parquet.read_table(path).to_pydict()
        features = np.array([columns[name] for name in columns if "@" in name], np.float32).T
        return features, columns["path"], columns["label"], columns["split"]
    rows_file = path.with_name(f"{path.name}.csv") if path.suffix == ".npy" else path
    with rows_file.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    described = [[row[name] for row in rows] for name in ("path", "label", "split")]
    if path.suffix == ".npy":
        return np.load(path), *described
    return np.array([[value for name, value in row.items() if "@" in name] for row in rows], np.float32), *described


@pytest.mark.parametrize("suffix", FORMATS)
def test_an_export_reads_back_equal(suffix, gallery, tmp_path, capsys):
    """Features, paths, labels and splits come back from every format exactly as the store has them."""
    out = tmp_path / f"new folder/features{suffix}"
    if suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        assert run("export", gallery.store, "--out", out) == 2
        assert "pip install pyarrow" in capsys.readouterr().err
        assert list(tmp_path.iterdir()) == []
        return
    assert run("export", gallery.store, "--out", out, "--layer", "blocks.2") == 0
    assert capsys.readouterr().out == f"{out}: 24 rows of blocks.2@avg, 32 wide\n"
    features, paths, labels, splits = read_export(out)
    with FeatureStore(gallery.store) as store:
        np.testing.assert_array_equal(features, np.asarray(store["blocks.2"]))
        assert paths == store.paths.tolist()
        assert labels == [store.label_names[label] for label in store.labels]
    assert splits == [""] * 24
    expected = {out, out.with_name(f"{out.name}.csv")} if suffix == ".npy" else {out}
    assert set(out.parent.iterdir()) == expected


def test_an_export_takes_the_default_layer_and_capital_extensions(gallery, tmp_path, capsys):
    """Without ``--layer`` it is the penultimate one, and ``.NPY`` is ``.npy``."""
    assert run("export", gallery.store, "--out", tmp_path / "F.NPY") == 0
    assert "24 rows of penultimate@avg, 256 wide" in capsys.readouterr().out
    assert np.load(tmp_path / "F.NPY").shape == (24, 256)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("{store}", "--out", "{folder}/x/f.zip"), 2, "ends in .zip; allowed: .npy, .csv, .parquet, .pt"),
        (("{store}", "--out", "{folder}/x/f"), 2, "ends in nothing; allowed"),
        (("{store}", "--out", "{folder}/x/f.npy", "--layer", "blocks.9"), 2, "The store holds: blocks.2@avg"),
        (("{classifier}", "--out", "{folder}/x/f.npy"), 2, "is a classifier (.featx), not a store"),
        (("nothing.h5", "--out", "{folder}/x/f.npy"), 2, "There is no store"),
    ],
)
def test_what_cannot_be_exported(arguments, code, said, gallery, capsys):
    """Wrong arguments say what is allowed and leave nothing behind."""
    places = {name: str(value) for name, value in vars(gallery).items()}
    assert run("export", *(argument.format(**places) for argument in arguments)) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert not (gallery.folder / "x").exists()


def test_an_export_replaces_only_when_told(gallery, tmp_path, capsys):
    """Neither the matrix nor the CSV beside it is replaced without ``--overwrite``."""
    (tmp_path / "f.npy.csv").write_text("precious")
    assert run("export", gallery.store, "--out", tmp_path / "f.npy") == 3
    assert "f.npy.csv is already there" in capsys.readouterr().err
    assert not (tmp_path / "f.npy").exists()
    assert run("export", gallery.store, "--out", tmp_path / "f.npy", "--overwrite") == 0
    assert read_export(tmp_path / "f.npy")[0].shape == (24, 256)
