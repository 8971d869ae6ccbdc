"""An advice from a store: what is measured on which rows and images, and what is said where something cannot be."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from gallery import make_gallery, run, separable, write_store
from layered_stores import LABELS, layered, spoiled, with_copies, write_layers, write_patients

from featx.advice import LayerShift, Similarity, evidence, measure_layers
from featx.errors import ImageError, RefusedError, SourceError
from featx.heads import split_rows
from featx.store import FeatureStore
from featx.workflows import advising
from featx.workflows.advice_features import default_store, extract_command
from featx.workflows.advising import AdviseSettings, advise_store
from featx.workflows.learnable_features import layers_to_try

KNOWN = Similarity(
    0.2, (0.1, 0.3), "different", "batch-norm statistics", "measured", 9, (LayerShift("bn1", 0.1, 0.5, 0.2),), None
)
TRAINED_NETWORK = SimpleNamespace(weights=SimpleNamespace(is_random=False), is_named=False)


@pytest.fixture(autouse=True, scope="module")
def quick():
    """Folds are drawn once, which is enough for what is asked here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evidence, "_REPEATS_OF_FEW", 1)
        yield


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The report on a store of four layers, whose network cannot be opened."""
    path = write_layers(tmp_path_factory.mktemp("plain") / "s.h5")
    return path, advised(path)


@pytest.fixture(scope="module")
def gallery(tmp_path_factory):
    """Pictures and their store; not to be changed."""
    return make_gallery(tmp_path_factory.mktemp("gallery"))


@pytest.fixture
def asked(monkeypatch):
    """The images that a similarity was asked of, by lists; it is always the same."""
    lists = []
    monkeypatch.setattr(advising, "measure_similarity", lambda _, entries, **__: lists.append(list(entries)) or KNOWN)
    return lists


def advised(path, backbone=None, **settings):
    """Return the report on a store."""
    with FeatureStore(path) as store:
        return advise_store(store, AdviseSettings(**settings), backbone=backbone)


def test_layers_are_measured_on_training_rows(tmp_path, plain):
    """The evidence is that of the rows that fit learns from; noise in all others changes nothing."""
    train, held_out = split_rows(LABELS).train, split_rows(LABELS).held_out
    path, report = plain
    with FeatureStore(path) as store:
        depths = {key: info.depth for key, info in store.infos.items()}
        names = layers_to_try(store)
    expected = measure_layers(layered(LABELS), LABELS[train], names, late="penultimate@avg", depths=depths, rows=train)
    assert report.sweep == expected
    other = advised(write_layers(tmp_path / "t.h5", features=spoiled(layered(LABELS), held_out)))
    assert other.advice.layers == report.advice.layers


def test_a_network_that_cannot_be_opened_leaves_the_rest(plain):
    """Similarity has no value and a reason, and the layers decide: here the second is far ahead."""
    _, report = plain
    assert report.advice.similarity.value is None
    assert report.advice.similarity.reason
    assert (report.advice.quadrant, report.advice.strategy) == ("small-different", "early-linear")
    assert "blocks.2@avg" in report.advice.layer


def test_the_json_shape_is_the_promised_one(plain):
    """One object of plain values with the stable names."""
    values = plain[1].to_json()
    again = json.loads(json.dumps(values, allow_nan=False))
    assert {"similarity", "size", "quadrant", "between", "strategy", "layers"} <= again.keys()
    assert again["similarity"] is None
    assert again["between"] is False
    assert again["size"] | {"min": 12, "median": 18.0, "max": 24, "classes": 3, "verdict": "small"} == again["size"]
    names = {"layer", "depth", "accuracy", "interval", "log_me", "h_score"}
    assert all(names <= layer.keys() for layer in again["layers"])
    assert again["evidence"]["rows"] == len(split_rows(LABELS).train)


def test_the_originals_are_looked_at_again(gallery, asked):
    """All images of the store are offered, at their places, each only as long as it is the one in the store."""
    report = advised(gallery.store, allow_random=True)
    (entries,) = asked
    with FeatureStore(gallery.store) as store:
        assert [entry.path for entry in entries] == store.paths.tolist()
        assert [entry.read().digest for entry in entries] == [bytes(digest) for digest in store.digests]
    assert report.advice.similarity is KNOWN
    assert report.to_json()["similarity"] == 0.2
    assert report.to_json()["measured_similarity"]["by_depth"][0]["layer"] == "bn1"


def test_another_picture_under_the_same_name_does_not_count(tmp_path, asked):
    """An original that was replaced is refused like one that cannot be read."""
    gallery = make_gallery(tmp_path)
    (gallery.photos / "blue" / "000.jpg").write_bytes((gallery.photos / "red" / "000.jpg").read_bytes())
    advised(gallery.store, allow_random=True)
    with pytest.raises(ImageError, match="another image"):
        asked[0][0].read()
    assert asked[0][1].read().digest


def test_originals_that_are_gone_are_said(tmp_path, monkeypatch):
    """Without any original there is no similarity; the reason says where they were looked for."""
    gone = Similarity(None, None, "unknown", "", "0 of 54 images could be read", 0, (), None)
    monkeypatch.setattr(advising, "measure_similarity", lambda *_, **__: gone)
    report = advised(write_layers(tmp_path / "s.h5", source="/old/photos"), TRAINED_NETWORK)
    assert report.advice.similarity.value is None
    assert "0 of 54 images could be read, where they were" in report.advice.similarity.reason
    assert "/old/photos" in report.advice.similarity.reason
    assert report.advice.layers


def network_of(side, name="net"):
    """Return a network that looks at pictures of a side."""
    weights = SimpleNamespace(is_random=False, source="file:w.pth")
    return SimpleNamespace(name=name, weights=weights, is_named=True, transform=SimpleNamespace(size=(side, side)))


@pytest.mark.parametrize(("side", "looked_at"), [(64, 224), (224, 224)])
def test_similarity_is_measured_at_the_networks_own_size(tmp_path, monkeypatch, side, looked_at):
    """The network is opened anew where features are of another size, with the same weights, and that is said."""
    opened, seen = [], []
    monkeypatch.setattr(
        advising, "open_backbone", lambda name, **options: opened.append((name, options)) or network_of(224)
    )
    monkeypatch.setattr(advising, "measure_similarity", lambda network, *_, **__: seen.append(network) or KNOWN)
    report = advised(write_layers(tmp_path / "s.h5"), network_of(side))
    assert opened == [("net", {"weights": "w.pth", "download": False})]
    assert seen[0].transform.size == (looked_at, looked_at)
    said = "at the network's own 224 x 224 pixels, though features are of 64 x 64"
    assert (said in report.advice.similarity.reason) == (side == 64)


def test_uneven_classes_are_measured_balanced(tmp_path, plain):
    """From three times the images on; the JSON says which accuracy it is."""
    labels = np.repeat([0, 1], [40, 12])
    report = advised(write_layers(tmp_path / "s.h5", labels, layered(labels)))
    assert report.sweep.is_balanced
    assert report.to_json()["evidence"]["balanced"] is True
    assert report.sweep.n_training_rows == len(split_rows(labels).train)
    assert not plain[1].sweep.is_balanced


def test_untrained_weights_are_refused(gallery):
    """Features that mean nothing give no advice, unless that is asked for."""
    with pytest.raises(RefusedError, match="untrained"):
        advised(gallery.store)
    report = advised(gallery.store, allow_random=True)
    assert "random" in report.advice.similarity.reason


@pytest.mark.parametrize(
    ("labels", "said"),
    [(np.full(12, -1), "has a label"), (np.zeros(12, int), "one class|the class"), (np.array([0, 1]), "cannot|two")],
)
def test_too_few_labels_leave_size_and_similarity(tmp_path, asked, labels, said):
    """Without two classes to learn there is no evidence by layer, and an advice all the same."""
    names = np.maximum(labels, 0)
    report = advised(write_store(tmp_path / "s.h5", separable(names), labels), TRAINED_NETWORK)
    assert report.sweep is None
    assert len(asked) == 1
    assert (report.advice.quadrant, report.advice.strategy) == ("small-different", "early-linear")
    (reason,) = [reason for reason in report.advice.reasons if reason.startswith("There is no evidence by layer")]
    assert any(word in reason for word in said.split("|"))


def test_one_layer_is_thin_evidence(tmp_path):
    """A store of one layer is told apart, and the command that adds layers is that of its own network."""
    labels = [0, 1] * 10
    path = write_store(tmp_path / "s.h5", separable(labels), labels)
    report = advised(path)
    assert report.notes[0].startswith("the store holds one layer, penultimate@avg")
    assert "an earlier layer might do better" in report.notes[0]
    inner = write_layers(tmp_path / "inner.h5", labels, {"blocks.2@avg": separable(labels)})
    assert "another layer might do better" in advised(inner).notes[0]
    assert report.advice.strategy == "late-linear"
    with FeatureStore(path) as store:
        command = extract_command(store)
    assert command == (
        f"featx extract made --out {path} --layers all-stages,penultimate --model test_efficientnet --weights w.pth"
        " --size 160"
    )


def test_a_reduced_store_is_measured_as_it_is(tmp_path):
    """Evidence is on what is there, with a note that the reducer has seen the rows."""
    store, small = write_layers(tmp_path / "s.h5"), tmp_path / "small.h5"
    assert run("reduce", store, "--reduce", "pca:3", "--out", small) == 0
    report = advised(small)
    assert {entry.width for entry in report.advice.layers} == {3}
    assert not any(entry.is_joined for entry in report.advice.layers)
    assert any("flatters" in note for note in report.notes)


def test_copies_and_groups_are_counted_apart(tmp_path):
    """Copies of a picture count once; patients keep folds whole and are no copies."""
    copied = with_copies(np.random.default_rng(0).integers(0, 256, (len(LABELS), 16), np.uint8), [(0, 1), (2, 3)])
    size = advised(write_layers(tmp_path / "c.h5", digests=copied)).advice.size
    assert (size.n_copies, size.largest) == (2, ("a", 22))
    assert advised(tmp_path / "c.h5", allow_duplicates=True).advice.size.n_copies == 0
    _, patients = write_patients(tmp_path)
    report = advised(patients, group_column="Patient")
    assert report.advice.size.n_copies == 0
    with pytest.raises(SourceError, match="doctor"):
        advised(patients, group_column="Doctor")


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("photos/", "photos.h5"),
        ("lists/some.images.csv", "some.images.h5"),
        ("-", "features.h5"),
        ("torchvision-data:CIFAR10:/data", "cifar10.h5"),
    ],
)
def test_a_store_is_called_after_its_source(tmp_path, monkeypatch, source, name):
    """The base name of the source, in the current folder."""
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    assert default_store(source) == name
