"""A bundle comes back as it was written, names the classes of new images, and takes no other network's features."""

from __future__ import annotations

import json
import pickle
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from gallery import TRAINED, make_gallery, run, separable
from safetensors.torch import save_file

from featx.archive import write_archive
from featx.backbones import open_backbone
from featx.bundle import KIND, Bundle, load_bundle, read_spec
from featx.errors import FingerprintMismatchError, StoreError, UnsafeFileError, WouldOverwriteError
from featx.extraction import FeatureSpec
from featx.heads import dump_head, fit_head
from featx.images import list_images

SPEC = FeatureSpec("penultimate@avg", 6, TRAINED)
LABELS = np.repeat([0, 2], 10)  # no row of class 1


@pytest.fixture(scope="module")
def bundle():
    """A bundle of three class names, one of which was never learned."""
    fitted = fit_head(separable(LABELS), LABELS, head="logistic")
    return Bundle(SPEC, fitted.pipeline, ("ä b", "never", "z"), {"head": "logistic", "score": 0.5, "notes": []})


@pytest.fixture(scope="module")
def gallery(tmp_path_factory):
    """Pictures, store, classifier and index; read only."""
    return make_gallery(tmp_path_factory.mktemp("gallery"))


@pytest.mark.parametrize("head", ["svm", "logistic", "tree", "boosting"])
def test_a_bundle_comes_back(head, tmp_path):
    """What was saved predicts exactly the same, and carries the same specification, classes and card."""
    fitted = fit_head(separable(LABELS), LABELS, head=head, reduce="pca:4", cv=2)
    bundle = Bundle(SPEC, fitted.pipeline, ("a", "b", "c"), {"params": fitted.params}, b"weights")
    bundle.save(tmp_path / "my c.featx")
    again = load_bundle(tmp_path / "my c.featx")
    features = separable(LABELS, seed=1)
    np.testing.assert_array_equal(again.predict_proba(features), bundle.predict_proba(features))
    assert (again.spec, again.class_names, again.card) == (SPEC, ("a", "b", "c"), {"params": fitted.params})
    assert again.weights == b"weights"


def test_a_class_that_was_never_learned_has_no_probability(bundle):
    """Every class has a column, in the order of the names; what was never learned stays at 0, rows sum to 1."""
    probabilities = bundle.predict_proba(separable([0, 2, 1]))
    assert probabilities.shape == (3, 3)
    assert probabilities[:, 1].tolist() == [0, 0, 0]
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert probabilities[:2].argmax(axis=1).tolist() == [0, 2]


def test_no_features_give_no_probabilities(bundle):
    """Zero rows are no error."""
    assert bundle.predict_proba(np.zeros((0, 6), np.float32)).shape == (0, 3)


def test_saving_replaces_only_when_told(bundle, tmp_path):
    """An existing file stays unless overwriting is asked for."""
    (tmp_path / "c.featx").write_text("precious")
    with pytest.raises(WouldOverwriteError, match="already there"):
        bundle.save(tmp_path / "c.featx")
    assert (tmp_path / "c.featx").read_text() == "precious"
    bundle.save(tmp_path / "c.featx", overwrite=True)
    assert load_bundle(tmp_path / "c.featx").class_names == bundle.class_names


def test_other_files_are_refused(gallery, bundle, tmp_path):
    """Nothing but a whole bundle loads: not an index, a store, a ZIP of something else, or a missing file."""
    with zipfile.ZipFile(tmp_path / "other.featx", "w") as other:
        other.writestr("manifest.json", "{}")
    (tmp_path / "pickle.featx").write_bytes(pickle.dumps(bundle.pipeline))
    for path, said in (
        (gallery.index, "is a featx image index"),
        (gallery.store, "was not written by featx"),
        (tmp_path / "other.featx", "was not written by featx"),
        (tmp_path / "pickle.featx", "was not written by featx"),
        (tmp_path / "missing.featx", "no such file"),
    ):
        with pytest.raises(StoreError, match=said):
            load_bundle(path)


def test_damage_is_found(bundle, tmp_path):
    """A flipped byte anywhere, or a missing end, is an error and never another prediction."""
    replace(bundle, weights=b"w" * 500).save(tmp_path / "c.featx")
    whole = (tmp_path / "c.featx").read_bytes()
    expected = bundle.predict_proba(separable(LABELS))
    n_found = 0
    for place in np.linspace(0, len(whole) - 1, 60).astype(int):
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        (tmp_path / "d.featx").write_bytes(damaged)
        try:
            loaded = load_bundle(tmp_path / "d.featx")
        except (StoreError, UnsafeFileError):
            n_found += 1
            continue
        # Some bytes of a ZIP directory, such as dates, mean nothing.
        np.testing.assert_array_equal(loaded.predict_proba(separable(LABELS)), expected)
        assert loaded.card == bundle.card
    assert n_found > 50
    (tmp_path / "d.featx").write_bytes(whole[:-100])
    with pytest.raises(StoreError):
        load_bundle(tmp_path / "d.featx")


def write_changed(bundle, path, *, head=None, **content):
    """Write a bundle file with some of its content replaced, every digest right."""
    parts = {} if head == b"" else {"head.skops": head or dump_head(bundle.pipeline)}
    values = {"features": SPEC.to_json(), "classes": list(bundle.class_names), "card": {}, **content}
    write_archive(path, KIND, {name: value for name, value in values.items() if value is not None}, parts)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"features": None}, "does not say which features"),
        ({"features": "penultimate@avg"}, "does not say which features"),
        ({"features": {"key": "x", "width": 6}}, "does not say which features"),
        ({"features": {"key": "x", "width": "6", "fingerprint": TRAINED}}, "does not say which features"),
        ({"features": {"key": "x", "width": 6, "fingerprint": {"model": "m"}}}, "does not say which features"),
        ({"features": {"key": "x", "width": 7, "fingerprint": TRAINED}}, "a head for 6 features, and a network"),
        ({"classes": None}, "no list of class names"),
        ({"classes": "abc"}, "no list of class names"),
        ({"classes": ["a", 1, "c"]}, "no list of class names"),
        ({"classes": []}, "classes that have no name"),
        ({"classes": ["a", "b"]}, "classes that have no name"),
        ({"card": None}, "no card"),
        ({"card": [1]}, "no card"),
        ({"head": b""}, r"no head\.skops"),
        ({"head": b"no head"}, "cannot be read"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change, said, bundle, tmp_path):
    """A file whose parts contradict each other is an error when it is loaded, not at the first image."""
    write_changed(bundle, tmp_path / "c.featx", **change)
    with pytest.raises(StoreError, match=said):
        load_bundle(tmp_path / "c.featx")


def test_a_foreign_type_is_refused(bundle, tmp_path):
    """A head that asks for a type outside of the list is refused before anything of it is built."""
    data = dump_head(bundle.pipeline)
    with zipfile.ZipFile(tmp_path / "h.zip", "w") as made, zipfile.ZipFile(_in(tmp_path, data)) as read:
        for name in read.namelist():
            content = read.read(name)
            if name == "schema.json":
                content = json.dumps(_with_foreign_type(json.loads(content))).encode()
            made.writestr(name, content)
    write_changed(bundle, tmp_path / "c.featx", head=(tmp_path / "h.zip").read_bytes())
    with pytest.raises(UnsafeFileError, match=r"holds a subprocess\.Popen"):
        load_bundle(tmp_path / "c.featx")


def _in(folder, data):
    path = folder / "head.zip"
    path.write_bytes(data)
    return path


def _with_foreign_type(node):
    """Return a schema in which the logistic regression is another thing."""
    if isinstance(node, list):
        return [_with_foreign_type(item) for item in node]
    if not isinstance(node, dict):
        return node
    node = {name: _with_foreign_type(value) for name, value in node.items()}
    if node.get("__class__") == "LogisticRegression":
        node |= {"__class__": "Popen", "__module__": "subprocess"}
    return node


def test_another_network_is_refused_by_name_of_the_field(gallery):
    """Other weights, or another transform, are an error that names exactly the fields that differ."""
    bundle = load_bundle(gallery.classifier)
    with pytest.raises(FingerprintMismatchError) as caught:
        bundle.open_features(weights="random:1")
    assert "weights: expected" in str(caught.value)
    assert "transform" not in str(caught.value)
    made = bundle.spec.fingerprint
    other = {**made, "transform": {**made["transform"], "crop_mode": "squash"}, "decoder": "other-1"}
    with pytest.raises(FingerprintMismatchError) as caught:
        replace(bundle, spec=replace(bundle.spec, fingerprint=other)).open_features()
    for said in ('transform.crop_mode: expected "squash", found "center"', 'decoder: expected "other-1"'):
        assert said in str(caught.value)
    assert "weights" not in str(caught.value)


def test_embedded_weights_outlive_their_file(gallery, tmp_path, monkeypatch):
    """A bundle that carries its weights gives the same features after the file of weights is gone."""
    monkeypatch.chdir(tmp_path)
    save_file(open_backbone("test_efficientnet", weights="random:7").module.state_dict(), "w.safetensors")
    network = ("--model", "test_efficientnet", "--weights", "w.safetensors")
    assert run("extract", gallery.photos, "--out", "f.h5", *network) == 0
    assert run("fit-svm", "f.h5", "--out", "c.featx", "--embed-weights") == 0
    bundle = load_bundle("c.featx")
    entries = list_images(gallery.photos).entries[:3]
    before, _ = bundle.spec.open().features_of(entries)
    (tmp_path / "w.safetensors").unlink()
    after, failures = bundle.open_features().features_of(entries)
    assert failures == {}
    np.testing.assert_array_equal(after["penultimate@avg"], before["penultimate@avg"])


def test_a_specification_survives_json():
    """What was written as JSON is read as the same specification."""
    assert read_spec(json.loads(json.dumps(SPEC.to_json())), "it") == SPEC
