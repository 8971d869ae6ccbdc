"""``featx index`` and ``featx query``: JSON, text, and what is refused."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from gallery import N_IMAGES, make_gallery, run, type_in, write_store

from featx.retrieval import ImageIndex
from featx.store import FeatureStore


@pytest.fixture(scope="module")
def gallery(tmp_path_factory):
    """Pictures, store, classifier and index; read only."""
    return make_gallery(tmp_path_factory.mktemp("gallery"))


def test_index_says_what_it_holds(gallery, tmp_path, capsys):
    """The index is written, counted, and the next command is named."""
    out = tmp_path / "new folder" / "g.index"
    assert run("index", gallery.store, "--out", out, "--layer", "blocks.2", "--allow-random") == 0
    text = capsys.readouterr().out
    assert f"{out}: 24 images by blocks.2@avg, exact search" in text
    assert f"next: featx query '{out}' IMAGE..." in text
    index = ImageIndex.load(out)
    assert (len(index), index.width) == (24, 32)


def test_json_of_a_query_has_the_promised_shape(gallery, capsys):
    """``--json`` is one line a query; the image itself comes first, with a score of 1 and its label."""
    pictures = [gallery.photos / "red" / "001.png", gallery.photos / "blue" / "000.jpg"]
    assert run("query", gallery.index, *pictures, "-k", 3, "--json") == 0
    out, err = capsys.readouterr()
    lines = [json.loads(line) for line in out.splitlines()]
    assert err == ""
    assert [line["query"] for line in lines] == [str(picture) for picture in pictures]
    for line, path in zip(lines, ("red/001.png", "blue/000.jpg"), strict=True):
        assert set(line) == {"query", "hits"}
        assert all(set(hit) == {"rank", "path", "score", "label"} for hit in line["hits"])
        assert [hit["rank"] for hit in line["hits"]] == [1, 2, 3]
        first = line["hits"][0]
        assert (first["path"], first["label"]) == (path, path.split("/")[0])
        assert first["score"] == pytest.approx(1, abs=1e-4)


def test_hits_are_those_of_a_plain_loop(gallery, capsys):
    """Order and scores are the cosines that NumPy computes from the store, over all rows when k is larger."""
    with FeatureStore(gallery.store) as store:
        features, paths = np.asarray(store["penultimate"], np.float64), store.paths.tolist()
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    cosines = unit @ unit[paths.index("green/003.png")]
    assert run("query", gallery.index, gallery.photos / "green" / "003.png", "-k", 1000, "--json") == 0
    hits = json.loads(capsys.readouterr().out)["hits"]
    assert len(hits) == N_IMAGES
    assert {hit["path"] for hit in hits} == set(paths)
    scores = [hit["score"] for hit in hits]
    assert scores == sorted(scores, reverse=True)
    np.testing.assert_allclose(scores, [cosines[paths.index(hit["path"])] for hit in hits], atol=1e-4)


def test_text_of_a_query_is_a_table(gallery, capsys):
    """Without ``--json`` a query is its path and a table of rank, score, path and label."""
    picture = gallery.photos / "red" / "001.png"
    assert run("query", gallery.index, picture, "-k", 2) == 0
    first, header, best, *_ = capsys.readouterr().out.splitlines()
    assert first == str(picture)
    assert header.split() == ["rank", "score", "path", "label"]
    assert best.split() == ["1", "1.0000", "red/001.png", "red"]


def test_rows_without_a_label_show_none(gallery, tmp_path, monkeypatch, capsys):
    """Where there are no classes the label is null in JSON and a dash in the table."""
    monkeypatch.chdir(gallery.photos)
    type_in(monkeypatch, "red/001.png\nblue/000.jpg\n")
    assert run("extract", "-", "--out", tmp_path / "f.h5", "--model", "test_efficientnet", "--weights", "random:0") == 0
    assert run("index", tmp_path / "f.h5", "--out", tmp_path / "f.index", "--allow-random") == 0
    capsys.readouterr()
    assert run("query", tmp_path / "f.index", "red/001.png", "--json") == 0
    assert [hit["label"] for hit in json.loads(capsys.readouterr().out)["hits"]] == [None, None]
    assert run("query", tmp_path / "f.index", "red/001.png") == 0
    assert capsys.readouterr().out.splitlines()[2].split() == ["1", "1.0000", "red/001.png", "-"]


def test_an_unreadable_query_does_not_stop_the_others(gallery, tmp_path, capsys):
    """Images that cannot be read go to stderr, the others are answered, and the exit code is 1."""
    (tmp_path / "broken.png").write_text("no picture")
    picture = gallery.photos / "red" / "001.png"
    assert run("query", gallery.index, tmp_path / "broken.png", picture, tmp_path / "none.png", "--json") == 1
    out, err = capsys.readouterr()
    assert [json.loads(line)["query"] for line in out.splitlines()] == [str(picture)]
    assert f"{tmp_path / 'broken.png'}: not an image" in err
    assert f"{tmp_path / 'none.png'}: No such file" in err
    assert run("query", gallery.index, tmp_path / "broken.png") == 2
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("query", "{index}"), "nothing to look for: name images"),
        (("query", "{index}", "{photos}", "-k", "0"), "-k 0 is not at least 1"),
        (("query", "nothing.index", "{photos}"), "nothing.index: no such file"),
        (("query", "{store}", "{photos}"), "is a store of features (.h5), not an image index (.index); make one with"),
        (("query", "{classifier}", "{photos}"), "is a classifier (.featx), not an image index"),
        (("query", "{photos}/red/001.png", "{photos}"), "is a picture, not an image index"),
        (("index", "{classifier}", "--out", "{folder}/no.index"), "is a classifier (.featx), not a store"),
        (("index", "nothing.h5", "--out", "{folder}/no.index"), "There is no store at"),
        (("index", "{store}", "--out", "{folder}/no.index", "--thumbnails", "-1"), "can be negative"),
        (
            ("index", "{store}", "--out", "{folder}/no.index", "--allow-random", "--layer", "blocks.9"),
            "The store holds: blocks.2@avg",
        ),
    ],
)
def test_what_cannot_be_searched(arguments, said, gallery, capsys):
    """Wrong arguments are exit 2, with what was given and what to do, and write nothing."""
    places = {name: str(value) for name, value in vars(gallery).items()}
    assert run(*(argument.format(**places) for argument in arguments)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert not (gallery.folder / "no.index").exists()


def test_what_is_refused(gallery, tmp_path, capsys):
    """Random weights, an index that is there, and another network at the query are exit 3."""
    assert run("index", gallery.store, "--out", tmp_path / "g.index") == 3
    assert "untrained weights (random:0)" in capsys.readouterr().err
    shutil.copy(gallery.index, tmp_path / "g.index")
    assert run("index", gallery.store, "--out", tmp_path / "g.index", "--allow-random") == 3
    assert "is already there" in capsys.readouterr().err
    assert run("index", gallery.store, "--out", tmp_path / "g.index", "--allow-random", "--overwrite") == 0
    assert run("query", tmp_path / "g.index", gallery.photos, "--weights", "random:1") == 3
    assert "weights: expected" in capsys.readouterr().err


def test_an_index_of_vectors_cannot_be_asked_by_image(gallery, tmp_path, capsys):
    """An index that does not say how images become features is exit 2."""
    ImageIndex.build(np.eye(3, dtype=np.float32)).save(tmp_path / "plain.index")
    assert run("query", tmp_path / "plain.index", gallery.photos) == 2
    assert "build it with featx index" in capsys.readouterr().err
    assert run("info", tmp_path / "plain.index") == 0


def test_trained_features_need_no_permission(tmp_path):
    """Features of trained weights are indexed without ``--allow-random``."""
    store = write_store(tmp_path / "s.h5", np.eye(4), [0, 0, 1, 1])
    assert run("index", store, "--out", tmp_path / "s.index") == 0
    assert ImageIndex.load(tmp_path / "s.index").labels == ("a", "a", "b", "b")
