"""``featx reduce``: what it prints, what it refuses, and that the other verbs take what it writes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from gallery import NETWORK, make_gallery, run, separable, write_store

from featx.errors import FeatxError
from featx.images import list_images
from featx.retrieval import ImageIndex
from featx.store import FeatureStore, verify
from featx.workflows.searching import index_spec, query_images
from featx.workflows.stored_features import decoded, read_features

LABELS = [row % 3 for row in range(60)]


@pytest.fixture(scope="module")
def gallery(tmp_path_factory):
    """Pictures and a store of two layers; read only."""
    return make_gallery(tmp_path_factory.mktemp("gallery"))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store of sixty labelled rows; read only."""
    return write_store(tmp_path_factory.mktemp("store") / "full.h5", separable(LABELS, 12), LABELS)


def test_it_says_what_became_of_each_layer(gallery, tmp_path, capsys):
    """Stdout is the file, a table of the layers, notes and the next command; steps go to stderr."""
    out = tmp_path / "new folder" / "small.h5"
    assert run("reduce", gallery.store, "--reduce", "pca:20", "--out", out) == 0
    text, steps = capsys.readouterr()
    first, header, early, late, following = text.splitlines()
    assert first.startswith(f"{out}: 24 rows by pca:20, fitted on 24 (all rows); ")
    assert header.split("  ")[0] == "features"
    assert header.endswith("width before  width  MB before    MB  reducer MB  variance kept")
    assert early.split()[:3] == ["blocks.2@avg", "32", "20"]
    assert late.split()[:3] == ["penultimate@avg", "256", "20"]
    assert late.split()[-1].endswith("%")
    assert following == f"next: featx fit-svm '{out}' --out '{out.with_suffix('.featx')}'"
    assert steps.splitlines()[0] == "1/4 fitting pca:20 on blocks.2@avg"
    assert verify(out) == []


def test_json_has_everything(store, tmp_path, capsys):
    """``--json`` is one object, with what was lost and where less came out than was asked for."""
    arguments = ("--reduce", "pq:3", "--out", tmp_path / "small.h5", "--seed", 4, "--layers", "penultimate", "--json")
    assert run("reduce", store, *arguments) == 0
    out, err = capsys.readouterr()
    shown = json.loads(out)
    assert err == ""
    assert {key: shown[key] for key in ("reduce", "rows", "fitted_rows", "fitted_on")} == {
        "reduce": "pq:3",
        "rows": 60,
        "fitted_rows": 60,
        "fitted_on": "all rows",
    }
    (layer,) = shown["layers"]
    assert (layer["key"], layer["width_before"], layer["width"], layer["bytes"]) == ("penultimate@avg", 12, 3, 180)
    assert (layer["n_subspaces"], layer["n_bits"], layer["explained_variance"]) == (3, 5, None)
    assert 0 < layer["reconstruction_error"] < 1
    assert layer["notes"] == ["codes of 5 instead of 8 bits: 60 rows of 12 columns"]
    assert run("info", tmp_path / "small.h5", "--json") == 0
    described = json.loads(capsys.readouterr().out)
    assert described["fingerprint"]["reduction"]["seed"] == 4
    assert (described["features"][0]["codec"], described["features"][0]["reducer"]) == ("pq", "pq")


def test_notes_are_shown(store, tmp_path, capsys):
    """Fewer components than asked for is a line of its own."""
    assert run("reduce", store, "--reduce", "pca:99", "--out", tmp_path / "small.h5") == 0
    note = "note: penultimate@avg: 12 of 99 components: 60 rows of 12 columns allow no more\n"
    assert note in capsys.readouterr().out


@pytest.mark.parametrize("by", ["pca:5", "pq:3"])
def test_info_and_verify_know_it(by, store, tmp_path, capsys):
    """``info`` shows the reduction and what codes are; ``verify`` checks every byte."""
    small = tmp_path / "small.h5"
    assert run("reduce", store, "--reduce", by, "--out", small) == 0
    capsys.readouterr()
    assert run("info", small) == 0
    text = capsys.readouterr().out
    seed = ", seed 0" if by == "pq:3" else ""
    assert f"reduced by: {by}, fitted on 60 rows (all rows){seed}\n" in text
    assert ("uint8 (pq codes)" in text) == (by == "pq:3")
    assert run("verify", small) == 0


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("{store}", "--reduce", "none", "--out", "{new}"), 2, "would change nothing"),
        (("{store}", "--reduce", "pca", "--out", "{new}"), 2, "unknown reducer 'pca'"),
        (("{store}", "--reduce", "pca:2", "--out", "{new}", "--layers", "blocks.9"), 2, "no features 'blocks.9'"),
        (("{store}", "--reduce", "pca:2", "--out", "{new}", "--layers", ","), 2, "no layer was named"),
        (("{store}", "--out", "{new}"), 2, "required: --reduce"),
        (("nothing.h5", "--reduce", "pca:2", "--out", "{new}"), 2, "There is no store"),
        (("{index}", "--reduce", "pca:2", "--out", "{new}"), 2, "is an image index (.index), not a store"),
        (("{store}", "--reduce", "pca:2", "--out", "{index}"), 3, "is already there"),
        (("{store}", "--reduce", "pca:2", "--out", "{store}", "--overwrite"), 3, "that the result is made from"),
    ],
)
def test_what_cannot_be_reduced(arguments, code, said, gallery, tmp_path, capsys):
    """Wrong arguments say what is allowed, with their exit code, and leave not even a folder behind."""
    places = {**{name: str(value) for name, value in vars(gallery).items()}, "new": str(tmp_path / "new" / "x.h5")}
    assert run("reduce", *(argument.format(**places) for argument in arguments)) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert list(tmp_path.iterdir()) == []


def test_a_reduced_store_is_refused_where_it_cannot_go(gallery, tmp_path, capsys):
    """Reducing it again, and extracting into it, are exit 3, and say which reduction is in the way."""
    small = tmp_path / "small.h5"
    assert run("reduce", gallery.store, "--reduce", "pca:4", "--out", small) == 0
    before = small.read_bytes()
    capsys.readouterr()
    assert run("reduce", small, "--reduce", "pq:2", "--out", tmp_path / "x.h5") == 3
    assert "is reduced already (pca:4)" in capsys.readouterr().err
    assert run("extract", gallery.photos, "--out", small, *NETWORK) == 3
    err = capsys.readouterr().err
    assert 'reduction: expected nothing, found {"by": "pca:4"' in err
    assert "Reduced features meet only features that were reduced together with them" in err
    assert small.read_bytes() == before


@pytest.mark.parametrize("by", ["pca:6", "pq:6"])
def test_search_by_image_reaches_a_reduced_store(by, gallery, tmp_path):
    """An index of a reduced store answers without the store: its reducer, or its decoded codes, are in the index."""
    small, index = tmp_path / "small.h5", tmp_path / "small.index"
    assert run("reduce", gallery.store, "--reduce", by, "--out", small) == 0
    assert run("index", small, "--out", index, "--allow-random") == 0
    with FeatureStore(small) as opened, FeatureStore(gallery.store) as full:
        vectors = decoded(opened, "penultimate@avg")[:].astype(np.float64)
        queries = full["penultimate"][:]
        reducer = read_features(opened).reducer
        paths, spec = opened.paths.tolist(), (full.infos["penultimate@avg"].width, full.fingerprint)
    small.unlink()
    loaded = ImageIndex.load(index)
    assert (index_spec(loaded).width, index_spec(loaded).fingerprint) == spec
    # codes are compared with the query itself, components with the components of the query
    expected = queries.astype(np.float64) if by == "pq:6" else reducer.transform(queries).astype(np.float64)
    cosines = _unit(expected) @ _unit(vectors).T
    for result in query_images(loaded, list_images(gallery.photos).entries, 5):
        row = paths.index(result.query)
        places = [paths.index(hit.path) for hit in result.hits]
        np.testing.assert_allclose([hit.score for hit in result.hits], cosines[row][places], atol=2e-3)
        np.testing.assert_allclose(cosines[row][places], np.sort(cosines[row])[::-1][:5], atol=2e-3)


def _unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_layers_side_by_side_are_indexed(gallery, tmp_path):
    """Layers joined by + are reduced each by its own reducer, in the index and in the query."""
    small, index = tmp_path / "small.h5", tmp_path / "small.index"
    assert run("reduce", gallery.store, "--reduce", "pca:4", "--out", small) == 0
    assert run("index", small, "--out", index, "--allow-random", "--layer", "blocks.2+penultimate") == 0
    loaded = ImageIndex.load(index)
    assert (loaded.width, index_spec(loaded).width) == (8, 32 + 256)
    for result in query_images(loaded, list_images(gallery.photos).entries[:4], 1):
        assert (result.hits[0].path, round(result.hits[0].score, 3)) == (result.query, 1)


@pytest.mark.parametrize(
    "change",
    [
        lambda metadata: metadata["reducers"].update({"penultimate@avg": 3}),
        lambda metadata: metadata["reducers"]["penultimate@avg"].pop("kind"),
        lambda metadata: metadata["reducers"].pop("penultimate@avg") and metadata["reducers"].update(x={}),
        lambda metadata: metadata.update(reducers=[1]),
        lambda metadata: metadata["reducers"].clear() or metadata["features"].update(key="blocks.2@avg"),
    ],
)
def test_an_index_whose_reducers_make_no_sense_is_an_error(change, gallery, tmp_path):
    """Whatever stands in the place of the reducers, a query is an error that featx raises on purpose."""
    small, index = tmp_path / "small.h5", tmp_path / "small.index"
    assert run("reduce", gallery.store, "--reduce", "pca:4", "--out", small) == 0
    assert run("index", small, "--out", index, "--allow-random") == 0
    loaded = ImageIndex.load(index)
    change(loaded.metadata)
    with pytest.raises(FeatxError, match="index"):
        list(query_images(loaded, list_images(gallery.photos).entries[:1], 1))
