"""``featx evaluate-index``: own queries, other stores, folders, ground truth, steps, and what is refused."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from gallery import make_gallery, run, write_store
from sklearn.metrics import average_precision_score
from structured_indexes import unit

from featx.retrieval import ImageIndex


@pytest.fixture(scope="module")
def gallery(tmp_path_factory):
    """Pictures, store, classifier and index; read only."""
    return make_gallery(tmp_path_factory.mktemp("gallery"))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """An index of 60 images of three classes that overlap, every fifth of the test split."""
    folder = tmp_path_factory.mktemp("mixed")
    labels = [number % 3 for number in range(60)]
    features = np.random.default_rng(0).normal(size=(60, 8)) + 1.2 * np.eye(8)[labels]
    splits = [2 if number % 5 == 0 else 0 for number in range(60)]  # test, train
    store = write_store(folder / "m.h5", features, labels, splits=splits)
    assert run("index", store, "--out", folder / "m.index") == 0
    return folder / "m.index"


def evaluate(capsys, *arguments, code=0):
    """Run an evaluation with ``--json``; return what it says."""
    capsys.readouterr()
    assert run("evaluate-index", *arguments, "--json") == code
    return json.loads(capsys.readouterr().out)


def mean_average_precision(path, queries=None, allowed=None):
    """Return scikit-learn's mean average precision of rows of an index, each left out of its own answers."""
    index = ImageIndex.load(path)
    labels, vectors = np.array(index.labels), unit(index.vectors)
    allowed = np.ones(len(index), bool) if allowed is None else allowed
    found = []
    for row in np.arange(len(index)) if queries is None else np.flatnonzero(queries):
        others = allowed & (np.arange(len(index)) != row)
        found.append(average_precision_score(labels[others] == labels[row], vectors[others] @ vectors[row]))
    return np.mean(found)


def test_own_labels(mixed, capsys):
    """Without anything else, each image asks for its label; JSON has each stage with its numbers."""
    said = evaluate(capsys, mixed)
    assert set(said) == {"queries", "truth", "k", "depth", "stages"}
    (stage,) = said["stages"]
    assert (said["truth"], said["k"], said["depth"], stage["name"]) == ("labels", 10, 60, "exact search")
    assert stage["metrics"]["mean_average_precision"] == pytest.approx(mean_average_precision(mixed), abs=1e-6)
    assert (stage["ann_recall"], stage["metrics"]["n_queries"]) == (1.0, 60)
    assert said["queries"] == "60 images of the index"


def test_one_split_asks_the_other(mixed, capsys):
    """``--queries`` and ``--where`` choose who asks and who may be found."""
    splits = np.array(ImageIndex.load(mixed).images.splits)
    assert set(splits) == {"train", "test"}
    said = evaluate(capsys, mixed, "--queries", "split=test", "--where", "split=train")
    expected = mean_average_precision(mixed, splits == "test", splits == "train")
    assert said["stages"][0]["metrics"]["mean_average_precision"] == pytest.approx(expected, abs=1e-6)
    assert said["stages"][0]["metrics"]["n_queries"] == 12


def test_text_is_a_table(mixed, capsys):
    """Without ``--json``, a line says what was asked, a table has a row a stage, a note explains a column."""
    capsys.readouterr()
    assert run("evaluate-index", mixed, "-k", 5, "--expand", 2, "--reciprocal", "--candidates", 20) == 0
    first, header, *rows, note = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{mixed}: 60 images of the index")
    assert "mAP" in header
    assert "exact@5" in header
    assert [row.split("  ")[0] for row in rows] == ["exact search", "+ expand 2", "+ reciprocal"]
    assert f"{mean_average_precision(mixed):.3f}" in rows[0]
    assert note.startswith("exact@5 is the share")


def test_depth_and_k(mixed, capsys):
    """``--depth`` cuts rankings, ``-k`` is lowered to it."""
    said = evaluate(capsys, mixed, "--depth", 7, "-k", 20)
    assert (said["depth"], said["k"]) == (7, 7)
    assert set(said["stages"][0]["metrics"]["recall_at"]) == {"1", "5"}


def test_a_ground_truth(mixed, tmp_path, capsys):
    """``--truth`` says what is right: the nearest image of one, and none of the others."""
    index = ImageIndex.load(mixed)
    cosines = unit(index.vectors) @ unit(index.vectors)[4]
    order = [row for row in np.argsort(-cosines).tolist() if row != 4]
    (tmp_path / "t.csv").write_text(f"query,path\n4.png,{index.paths[order[0]]}\n4.png,{index.paths[order[3]]}\n")
    said = evaluate(capsys, mixed, "--truth", tmp_path / "t.csv")
    metrics = said["stages"][0]["metrics"]
    assert metrics["mean_average_precision"] == pytest.approx((1 + 2 / 4) / 2)
    assert (said["truth"], metrics["n_queries"], metrics["n_without_answer"]) == ("the ground truth", 1, 0)
    assert run("evaluate-index", mixed, "--truth", tmp_path / "t.csv") == 0
    assert (
        "1 images of the index, each left out of its own answers; right by the ground truth" in capsys.readouterr().out
    )


def test_images_of_a_folder_ask(gallery, tmp_path, capsys):
    """Labelled pictures go through the network and find those of their class; a broken one is named, with exit 1."""
    photos = shutil.copytree(gallery.photos, tmp_path / "photos")
    said = evaluate(capsys, gallery.index, photos)
    (stage,) = said["stages"]
    assert stage["metrics"]["top_1"] == 1
    assert stage["metrics"]["n_queries"] == 24
    assert said["queries"].startswith("24 images of")
    assert said["depth"] == 24
    (photos / "red" / "000.jpg").write_text("no picture")
    capsys.readouterr()
    assert run("evaluate-index", gallery.index, photos, "--json") == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["stages"][0]["metrics"]["n_queries"] == 23
    assert "red/000.jpg: not an image" in err


def test_a_store_asks_as_its_pictures_do(gallery, capsys):
    """Features of a store give what the same pictures give through the network."""
    from_store = evaluate(capsys, gallery.index, gallery.store)["stages"][0]["metrics"]
    from_photos = evaluate(capsys, gallery.index, gallery.photos)["stages"][0]["metrics"]
    assert from_store["mean_average_precision"] == pytest.approx(from_photos["mean_average_precision"], abs=1e-3)
    assert from_store["n_queries"] == 24


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("-k", "0"), "both are at least 1"),
        (("--depth", "0"), "both are at least 1"),
        (("--queries", "label"), "no condition"),
        (("--queries", "label=zzz"), "label"),
        (("--where", "nothing=1"), "there is no field"),
        (("{store}", "--queries", "label=red"), "leave it out where QUERIES are given"),
        (("--truth", "{folder}/none.csv"), "cannot be read as a ground truth"),
        (("--expand", "-2"), "expand=-2"),
        (("{folder}/nowhere",), "nowhere"),
        (("{classifier}",), "g.featx"),
    ],
)
def test_what_cannot_be_measured(arguments, said, gallery, capsys):
    """Wrong arguments are exit 2 and say what is wrong."""
    places = {name: str(value) for name, value in vars(gallery).items()}
    assert run("evaluate-index", gallery.index, *(argument.format(**places) for argument in arguments)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err


def test_what_is_no_index(gallery, tmp_path, capsys):
    """Other files, an index without labels and a ground truth of strangers are exit 2, another network is exit 3."""
    assert run("evaluate-index", gallery.store) == 2
    assert "not an image index" in capsys.readouterr().err
    ImageIndex.build(np.eye(3)).save(tmp_path / "plain.index")
    assert run("evaluate-index", tmp_path / "plain.index") == 2
    assert "no image of the index has a label" in capsys.readouterr().err
    (tmp_path / "t.csv").write_text("query,path\nred/001.png,red/999.png\n")
    assert run("evaluate-index", gallery.index, "--truth", tmp_path / "t.csv") == 2
    assert "'red/999.png' is not in the index" in capsys.readouterr().err
    store = write_store(tmp_path / "s.h5", np.eye(4), [0, 0, 1, 1])
    assert run("evaluate-index", gallery.index, store) == 3
    assert "weights: expected" in capsys.readouterr().err


def test_a_reduced_index_is_measured(gallery, tmp_path, capsys):
    """With whitening, the pictures of the index ask through it and find themselves first."""
    assert run("index", gallery.store, "--out", tmp_path / "w.index", "--whiten", 5, "--allow-random") == 0
    said = evaluate(capsys, tmp_path / "w.index", gallery.store, "--depth", 1)
    assert said["stages"][0]["metrics"]["top_1"] == 1
