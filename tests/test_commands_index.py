"""``featx index``: layers, weights, whitening, wishes for speed, and updates."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from gallery import NETWORK, make_gallery, run, write_store
from layered_stores import write_layers
from structured_indexes import nearest_by_loop

from featx.retrieval import ImageIndex
from featx.retrieval.embedding import Embedding
from featx.retrieval.expansion import expand_queries
from featx.store import FeatureStore


@pytest.fixture(scope="module")
def gallery(tmp_path_factory):
    """Pictures, store, classifier and index; read only."""
    return make_gallery(tmp_path_factory.mktemp("gallery"))


def test_layers_joined_with_weights(gallery, tmp_path, capsys):
    """``--layer A+B --layer-weights`` is the embedding of both layers' columns, and images ask through it too."""
    out = tmp_path / "joined.index"
    options = ("--layer", "blocks.2+penultimate", "--layer-weights", "3,1", "--allow-random")
    assert run("index", gallery.store, "--out", out, *options) == 0
    assert "blocks.2@avg+penultimate@avg, exact search" in capsys.readouterr().out
    with FeatureStore(gallery.store) as store:
        columns = [store["blocks.2@avg"][:], store["penultimate@avg"][:]]
        paths = store.paths.tolist()
    embedding = Embedding([part.shape[1] for part in columns], weights=[3, 1])
    np.testing.assert_allclose(ImageIndex.load(out).vectors, embedding.transform(np.concatenate(columns, axis=1)))
    assert run("query", out, gallery.photos / "green" / "003.png", "-k", 3, "--json") == 0
    first, *_ = json.loads(capsys.readouterr().out)["hits"]
    assert (first["path"], first["score"]) == (paths[paths.index("green/003.png")], pytest.approx(1, abs=1e-4))


def test_whitened_and_augmented(gallery, tmp_path, capsys):
    """``--whiten`` and ``--augment`` change the vectors as the library does, and the index still takes images."""
    with FeatureStore(gallery.store) as store:
        features = store["penultimate@avg"][:]
    whitened = Embedding([features.shape[1]], whiten=6).fit(features).transform(features)
    out = tmp_path / "whitened.index"
    assert run("index", gallery.store, "--out", out, "--whiten", 6, "--allow-random") == 0
    np.testing.assert_allclose(ImageIndex.load(out).vectors, whitened, atol=1e-6)
    capsys.readouterr()
    assert run("query", out, gallery.photos / "blue" / "003.png", "-k", 2, "--json") == 0
    first, *_ = json.loads(capsys.readouterr().out)["hits"]
    assert (first["path"], first["score"]) == ("blue/003.png", pytest.approx(1, abs=1e-3))
    augmented = tmp_path / "augmented.index"
    assert run("index", gallery.store, "--out", augmented, "--whiten", 6, "--augment", 2, "--allow-random") == 0
    cosines = whitened.astype(np.float64) @ whitened.T
    np.fill_diagonal(cosines, -2)
    nearest = np.argsort(-cosines, axis=1)[:, :2]
    moved = expand_queries(whitened, whitened[nearest], np.take_along_axis(cosines, nearest, axis=1), alpha=1)
    np.testing.assert_allclose(ImageIndex.load(augmented).vectors, moved, atol=1e-6)


def test_json_of_an_index(gallery, tmp_path, capsys):
    """``--json`` says where the index is, what it holds and how large it is, and that nothing was tuned."""
    out = tmp_path / "j.index"
    assert run("index", gallery.store, "--out", out, "--allow-random", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    n_bytes = out.stat().st_size
    assert said == {"out": str(out), "images": 24, "features": "penultimate@avg", "bytes": n_bytes, "tuning": None}


@pytest.fixture(scope="module")
def large_store(tmp_path_factory):
    """A store of 3000 vectors in clusters, so that neighbours are worth finding."""
    random = np.random.default_rng(0)
    centres = random.normal(size=(60, 32))
    labels = random.integers(0, 20, 3000)
    features = centres[random.integers(60, size=3000)] + 0.5 * random.normal(size=(3000, 32))
    return write_store(tmp_path_factory.mktemp("large") / "l.h5", features, labels.tolist())


def recall_of(index, k=10):
    """Return the share of true neighbours that an index finds for queries that it has not seen."""
    random = np.random.default_rng(9)
    queries = index.vectors[random.integers(len(index), size=100)] + 0.05 * random.normal(size=(100, index.width))
    expected, _ = nearest_by_loop(index.vectors, queries, k, index.ids)
    found = index.search(queries, k).ids
    return np.mean([len(np.intersect1d(a, b)) for a, b in zip(found, expected, strict=True)]) / k


def test_a_factory_is_tuned_to_a_recall(large_store, tmp_path, capsys):
    """``--factory`` builds what it names; the choice is printed, kept in the file, and holds for other queries."""
    out = tmp_path / "f.index"
    given = ("index", large_store, "--out", out, "--factory", "IVF32,SQ8", "--recall", "0.9@10", "--seed", 3)
    assert run(*given) == 0
    text, steps = capsys.readouterr()
    assert "search by IVF32,SQ8" in text
    assert "nprobe" in text
    assert "recall@10" in text
    assert steps
    index = ImageIndex.load(out)
    assert index.structure.factory == "IVF32,SQ8"
    assert (index.tuning.wish.recall, index.tuning.wish.k) == (0.9, 10)
    assert recall_of(index) > 0.85
    assert run("info", out) == 0
    assert "3000" in capsys.readouterr().out.replace(",", "")
    assert run("query", out, "--row", "17", "-k", 3, "--json") == 0
    assert len(json.loads(capsys.readouterr().out)["hits"]) == 3
    assert run(*given, "--overwrite", "--json") == 0
    out_text, steps = capsys.readouterr()
    assert json.loads(out_text)["tuning"]["chosen"]["factory"] == "IVF32,SQ8"
    assert steps == ""


def test_a_small_store_is_searched_exactly(gallery, tmp_path, capsys):
    """With few images, a wish for recall and memory is met by exact search, and that is said."""
    out = tmp_path / "w.index"
    wish = ("--recall", "0.95@10", "--memory", "2GB", "--allow-random")
    assert run("index", gallery.store, "--out", out, *wish) == 0
    text = capsys.readouterr().out
    assert "24 images by penultimate@avg, exact search" in text
    assert "too few for anything else" in text
    index = ImageIndex.load(out)
    assert (index.structure, index.tuning.chosen.factory, index.tuning.chosen.recall) == (None, "Flat", 1.0)


def test_an_update_follows_a_folder(gallery, tmp_path, capsys):
    """Pictures come, go, change and move between classes; after extract and ``--update`` the index is in step."""
    photos = shutil.copytree(gallery.photos, tmp_path / "photos")
    store, index = tmp_path / "f.h5", tmp_path / "f.index"
    assert run("extract", photos, "--out", store, *NETWORK) == 0
    assert run("index", store, "--out", index, "--allow-random", "--thumbnails", 16) == 0
    ids = dict(zip(ImageIndex.load(index).paths, range(24), strict=True))
    (photos / "red" / "001.png").unlink()
    shutil.copy(photos / "blue" / "001.png", photos / "red" / "003.png")  # another picture of the same name
    shutil.move(photos / "green" / "005.png", photos / "blue" / "105.png")
    shutil.copy(photos / "green" / "007.png", photos / "green" / "207.png")
    store.unlink()
    assert run("extract", photos, "--out", store, *NETWORK) == 0
    capsys.readouterr()
    assert run("index", store, "--out", index, "--update") == 0
    assert capsys.readouterr().out.splitlines()[0] == f"{index}: 3 images added, 3 removed, 21 kept"
    updated = ImageIndex.load(index)
    kept = {path: number for path, number in ids.items() if path not in ("red/001.png", "red/003.png", "green/005.png")}
    found = dict(zip(updated.paths, updated.ids.tolist(), strict=True))
    assert {path: number for path, number in found.items() if number < 24} == kept
    assert {path for path, number in found.items() if number >= 24} == {"red/003.png", "blue/105.png", "green/207.png"}
    assert [label == path.split("/")[0] for path, label in zip(updated.paths, updated.labels, strict=True)] == [
        True
    ] * 24
    assert all(updated.thumbnail(row) for row in range(24))
    assert run("query", index, photos / "blue" / "105.png", "-k", 1, "--json") == 0
    (hit,) = json.loads(capsys.readouterr().out)["hits"]
    assert (hit["path"], hit["label"]) == ("blue/105.png", "blue")
    assert run("index", store, "--out", index, "--update", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said == {"out": str(index), "added": 0, "removed": 0, "kept": 24, "advice": None}


def test_an_update_gives_advice(tmp_path, capsys):
    """When more images came than the index was built from, the update is done and building again is advised."""
    features = {"penultimate@avg": np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)}
    digests = np.random.default_rng(1).integers(0, 256, (50, 16), np.uint8)
    few = {key: part[:10] for key, part in features.items()}
    store = write_layers(tmp_path / "a.h5", [0] * 10, few, digests=digests[:10])
    assert run("index", store, "--out", tmp_path / "a.index", "--whiten", 4) == 0
    more = write_layers(tmp_path / "b.h5", [0] * 50, features, digests=digests)
    capsys.readouterr()
    assert run("index", more, "--out", tmp_path / "a.index", "--update") == 0
    assert "note: build the index again: 40 images were added to 10" in capsys.readouterr().out
    assert len(ImageIndex.load(tmp_path / "a.index")) == 50


@pytest.mark.parametrize(
    "options",
    [
        ("--layer", "penultimate"),
        ("--layer-weights", "1"),
        ("--whiten", "2"),
        ("--whiten", "0"),
        ("--augment", "1"),
        ("--recall", "0.9@10"),
        ("--memory", "1GB"),
        ("--factory", "Flat"),
        ("--thumbnails", "32"),
        ("--seed", "3"),
        ("--overwrite",),
    ],
)
def test_an_update_takes_no_other_options(options, gallery, tmp_path, capsys):
    """What would build another index is exit 2 beside ``--update``, and the index stays as it is."""
    out = shutil.copy(gallery.index, tmp_path / "g.index")
    assert run("index", gallery.store, "--out", out, "--update", *options) == 2
    assert "leave the other options out" in capsys.readouterr().err
    assert out.read_bytes() == gallery.index.read_bytes()


def test_what_cannot_be_updated(gallery, tmp_path, capsys):
    """No index, something else in its place, and a store of other images or another network are refused."""
    assert run("index", gallery.store, "--out", tmp_path / "none.index", "--update") == 2
    assert "build it without --update" in capsys.readouterr().err
    assert run("index", gallery.store, "--out", gallery.classifier, "--update") == 2
    assert "is a classifier" in capsys.readouterr().err
    store = write_store(tmp_path / "s.h5", np.eye(4), [0, 0, 1, 1])
    out = shutil.copy(gallery.index, tmp_path / "g.index")
    assert run("index", store, "--out", out, "--update") == 3
    assert "weights: expected" in capsys.readouterr().err
    photos = shutil.copytree(gallery.photos, tmp_path / "elsewhere")
    assert run("extract", photos, "--out", tmp_path / "e.h5", *NETWORK, "--layers", "blocks.2,penultimate") == 0
    assert run("index", tmp_path / "e.h5", "--out", out, "--update") == 3
    assert "give the store that it was made from" in capsys.readouterr().err
    assert out.read_bytes() == gallery.index.read_bytes()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--layer-weights", "2,x"), "'2,x' is not a list of numbers"),
        (("--layer-weights", "1,2"), "for 1 layers"),
        (("--layer", "blocks.2+penultimate", "--layer-weights", "1,-2"), "1e-6 to 1e6"),
        (("--layer", "blocks.2+blocks.2"), "twice"),
        (("--whiten", "0"), "whitening to 0"),
        (("--whiten", "25"), "at most 24"),
        (("--whiten", "100000"), "allowed are 1 to"),
        (("--augment", "-1"), "negative"),
        (("--thumbnails", "-1"), "negative"),
        (("--recall", "most"), "'most' is no recall"),
        (("--recall", "1.5@10"), "above 0 and at most 1"),
        (("--memory", "much"), "'much' is no amount of memory"),
        (("--factory", "IVF4,Nonsense"), "24 vectors"),
    ],
)
def test_what_cannot_be_built(options, said, gallery, tmp_path, capsys):
    """Wrong options are exit 2, say what is wrong, and write nothing."""
    out = tmp_path / "no.index"
    assert run("index", gallery.store, "--out", out, "--allow-random", *options) == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_seed_below_zero_is_refused(large_store, tmp_path, capsys):
    """A seed that no generator takes is exit 2, and no traceback."""
    assert run("index", large_store, "--out", tmp_path / "no.index", "--recall", "0.9@10", "--seed", -1) == 2
    assert "--seed -1" in capsys.readouterr().err


def test_a_factory_that_faiss_does_not_know(large_store, tmp_path, capsys):
    """The error of FAISS is told in words, with exit 2."""
    assert run("index", large_store, "--out", tmp_path / "no.index", "--factory", "IVF4,Nonsense") == 2
    assert "Nonsense" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
