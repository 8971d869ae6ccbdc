"""The score of a classifier is honest: what it is scored on was never learned from, in any way."""

from __future__ import annotations

import json

import numpy as np
import pytest
from extraction_runs import TORCH, by_hand, extract
from gallery import TRAINED, separable, write_store
from layered_stores import LABELS as LAYERED
from layered_stores import layered, random_bytes, spoiled, with_copies, write_layers
from safetensors.torch import load
from sklearn.pipeline import Pipeline

from featx import backbones
from featx.backbones import open_backbone
from featx.backbones.weights import weights_digest
from featx.bundle import load_bundle
from featx.errors import FeatureKeyError, HeadError, RefusedError, UsageError
from featx.extraction import FeatureSpec
from featx.heads import split_rows
from featx.images import list_images
from featx.store import FeatureStore
from featx.workflows import fitting
from featx.workflows.fitting import FitSettings, fit_classifier, network_weights
from featx.workflows.labelled_rows import labelled_rows
from featx.workflows.learnable_features import layers_to_try
from featx.workflows.predicting import predict_images
from featx.workflows.reducing import reduce_store
from featx.workflows.stored_features import read_reducer

LABELS = np.repeat([0, 1, 2], [20, 15, 10])
LOGISTIC = FitSettings(head="logistic", cv=2)


@pytest.fixture
def seen(monkeypatch):
    """The rows of features that each fit sees, as sets of their bytes."""
    fits = []
    fit_head = fitting.fit_head

    def spy(features, labels, **options):
        fits.append({row.tobytes() for row in features})
        return fit_head(features, labels, **options)

    monkeypatch.setattr(fitting, "fit_head", spy)
    return fits


@pytest.fixture
def scored(monkeypatch):
    """The rows of features that each whole pipeline predicts."""
    rows = []
    predict = Pipeline.predict

    def spy(pipeline, features):
        rows.append({row.tobytes() for row in features})
        return predict(pipeline, features)

    monkeypatch.setattr(Pipeline, "predict", spy)
    return rows


@pytest.mark.parametrize("kind", ["held out", "test split", "val split", "groups"])
def test_held_out_rows_are_never_in_training(kind, tmp_path, seen, scored):
    """Training and scored rows have nothing in common, and together are all rows with a label."""
    columns = {}
    if kind.endswith("split"):
        columns["splits"] = np.where(np.arange(45) % 4 == 0, 2 if kind == "test split" else 1, 0)
    if kind == "groups":
        columns["groups"] = np.arange(45) // 3
    store = write_store(tmp_path / "s.h5", separable(LABELS), LABELS, **columns)
    with FeatureStore(store) as opened:
        result = fit_classifier(opened, None, LOGISTIC)
        features = opened["penultimate"][:]
    assert len(seen) == len(scored) == 1
    assert seen[0] & scored[0] == set()
    assert seen[0] | scored[0] == {row.tobytes() for row in features}
    assert result.evaluation.rows == len(scored[0])
    if kind == "groups":
        groups = [
            {row // 3 for row, values in enumerate(features) if values.tobytes() in part} for part in (*seen, *scored)
        ]
        assert groups[0] & groups[1] == set()


def test_shuffled_labels_score_like_chance(tmp_path):
    """With labels that mean nothing, hundreds of wide rows still score near one half."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 300)
    store = write_store(tmp_path / "s.h5", random.normal(size=(300, 400)), labels)
    with FeatureStore(store) as opened:
        evaluation = fit_classifier(opened, None, FitSettings(head="logistic", cv=3, held_out=0.5)).evaluation
    assert 0.35 < evaluation.accuracy < 0.65
    assert evaluation.interval[0] < 0.5 < evaluation.interval[1]


def test_the_scaler_has_not_seen_held_out_rows(tmp_path):
    """Mean and scale of the saved head are those of the training rows alone."""
    features = separable(LABELS)
    splits = np.where(np.arange(45) % 5 == 0, 2, 0)
    store = write_store(tmp_path / "s.h5", features, LABELS, splits=splits)
    with FeatureStore(store) as opened:
        scaler = fit_classifier(opened, None, LOGISTIC).bundle.pipeline.named_steps["scale"]
    np.testing.assert_allclose(scaler.mean_, features[splits == 0].mean(axis=0), rtol=1e-5)
    assert np.abs(scaler.mean_ - features.mean(axis=0)).max() > 1e-3


def test_refit_all_learns_from_every_labelled_row_after_scoring(tmp_path, seen):
    """The score is that of the first head, the saved head has seen all labelled rows, and the card says so."""
    features, labels = separable([*LABELS, 0]), [*LABELS, -1]
    store = write_store(tmp_path / "s.h5", features, labels)
    with FeatureStore(store) as opened:
        plain = fit_classifier(opened, None, LOGISTIC)
        refitted = fit_classifier(opened, None, FitSettings(head="logistic", cv=2, refit_all=True))
    assert refitted.evaluation.to_json() == plain.evaluation.to_json()
    assert [len(rows) for rows in seen] == [36, 36, 45]
    assert features[-1].tobytes() not in seen[2]
    scaler = refitted.bundle.pipeline.named_steps["scale"]
    np.testing.assert_allclose(scaler.mean_, features[:-1].mean(axis=0), rtol=1e-5)
    cards = [result.bundle.card for result in (plain, refitted)]
    assert [card["rows_learned_from"] for card in cards] == [36, 45]
    assert [card["rows_scored_were_learned_from_afterwards"] for card in cards] == [False, True]
    assert [card["training_rows"] for card in cards] == [36, 36]


def test_the_result_is_plain_json_and_survives_saving(tmp_path):
    """The result and the card hold nothing that JSON cannot; the saved bundle predicts the same."""
    features = separable(LABELS)
    store = write_store(tmp_path / "s.h5", features, LABELS)
    with FeatureStore(store) as opened:
        result = fit_classifier(opened, "penultimate@avg", FitSettings())
        assert result.bundle.spec == FeatureSpec.of_store(opened)
    shown = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert shown["params"].keys() == {"C", "scale", "reduce"}
    assert shown["cv_accuracy"] == result.fitted.cv_accuracy
    assert result.seconds > 0
    result.bundle.save(tmp_path / "c.featx")
    again = load_bundle(tmp_path / "c.featx")
    np.testing.assert_array_equal(again.predict_proba(features), result.bundle.predict_proba(features))
    assert again.card == json.loads(json.dumps(result.bundle.card))


def test_rows_without_a_label_are_counted(tmp_path):
    """Rows without a label are neither learned from nor scored."""
    store = write_store(tmp_path / "s.h5", separable([*LABELS, 1, 2]), [*LABELS, -1, -1])
    with FeatureStore(store) as opened:
        result = fit_classifier(opened, None, LOGISTIC)
    assert (result.n_unlabelled, result.fitted.n_rows + result.evaluation.rows) == (2, 45)


def test_what_cannot_be_fitted(tmp_path):
    """No labels, one class, an unknown layer and untrained weights are errors of their own."""
    for labels, said in (([-1] * 6, "none of the 6 rows"), ([0] * 6, "are of the class 'a'")):
        store = write_store(tmp_path / f"{labels[0]}.h5", separable([0] * 6), labels)
        with FeatureStore(store) as opened, pytest.raises(HeadError, match=said):
            fit_classifier(opened)
    random = {**TRAINED, "weights_source": "random:3"}
    store = write_store(tmp_path / "random.h5", separable(LABELS), LABELS, fingerprint=random)
    with FeatureStore(store) as opened:
        with pytest.raises(RefusedError, match="untrained weights"):
            fit_classifier(opened)
        with pytest.raises(FeatureKeyError, match="penultimate@avg"):
            fit_classifier(opened, "blocks.9", FitSettings(allow_random=True))


def test_the_weights_of_a_network_come_back():
    """The bytes for a bundle hold every tensor of the network, as safetensors."""
    backbone = open_backbone("test_efficientnet", weights="random:0")
    made = {
        **TRAINED,
        "weights": backbone.weights.digest,
        "weights_source": "random:0",
        "transform": backbone.transform.to_json(),
    }
    state = load(network_weights(FeatureSpec("penultimate@avg", 256, made)))
    other = open_backbone("test_efficientnet", weights="random:1").module
    other.load_state_dict(state)
    assert weights_digest(other) == backbone.weights.digest


@pytest.fixture
def fake_store(fake_backbone, image_folder, tmp_path, monkeypatch):
    """An open store of three layers of the fake network, which opens by its name from now on."""
    extract(fake_backbone, image_folder, tmp_path / "f.h5", "stages.0,stages.3,penultimate")
    monkeypatch.setattr(backbones, "open_backbone", lambda *_, **__: fake_backbone)
    with FeatureStore(tmp_path / "f.h5") as opened:
        yield opened


def probabilities(bundle, entries):
    """Return what a classifier says of images, (n, classes) in the order of its class names."""
    rankings = [dict(named.ranking) for named in predict_images(bundle, entries, TORCH, n_best=len(bundle.class_names))]
    return np.array([[ranking[name] for name in bundle.class_names] for ranking in rankings])


@pytest.mark.parametrize("layer", ["stages.3+stages.0", "stages.0+stages.3", "stages.3+penultimate+stages.0"])
def test_layers_side_by_side_reach_images(layer, fake_store, image_folder, tmp_path):
    """A classifier on ``A+B`` gives images just what its pipeline gives columns of A, then of B; saved or not."""
    bundle = fit_classifier(fake_store, layer, LOGISTIC).bundle
    entries = list_images(image_folder).entries
    keys = [f"{name}@avg" for name in layer.split("+")]
    assert bundle.spec.key == "+".join(keys)
    both = np.hstack([fake_store[key][:] for key in keys])
    np.testing.assert_array_equal(bundle.spec.join(fake_store), both)
    stored = bundle.pipeline.predict_proba(both)
    computed = by_hand(entries)
    columns = np.hstack([computed[name] for name in layer.split("+")]).astype(np.float32)
    np.testing.assert_allclose(bundle.pipeline.predict_proba(columns), stored, atol=1e-5)
    np.testing.assert_allclose(probabilities(bundle, entries), stored, atol=1e-5)
    bundle.save(tmp_path / "c.featx")
    again = load_bundle(tmp_path / "c.featx")
    assert again.spec.key == bundle.spec.key
    np.testing.assert_array_equal(probabilities(again, entries), probabilities(bundle, entries))
    assert np.ptp(stored, axis=0).min() > 0.1


@pytest.mark.parametrize("by", ["pca:4", "pq:4"])
def test_a_reduced_store_gives_a_classifier_of_images(by, fake_store, image_folder, tmp_path):
    """Images go through the reducer of the store, then through the head; saved or not."""
    reduce_store(fake_store, by, tmp_path / "r.h5")
    with FeatureStore(tmp_path / "r.h5") as small:
        result = fit_classifier(small, "penultimate", LOGISTIC)
        reducer = read_reducer(small, "penultimate@avg")
    stored, *head = result.bundle.pipeline.steps
    features = reducer.transform(fake_store["penultimate"][:])
    expected = features
    for _, step in head[:-1]:
        expected = step.transform(expected)
    expected = head[-1][1].predict_proba(expected)
    assert (stored[0], result.bundle.spec) == ("stored", FeatureSpec.of_store(fake_store, "penultimate"))
    entries = list_images(image_folder).entries
    np.testing.assert_allclose(probabilities(result.bundle, entries), expected, atol=1e-5)
    result.bundle.save(tmp_path / "c.featx")
    again = load_bundle(tmp_path / "c.featx")
    np.testing.assert_array_equal(probabilities(again, entries), probabilities(result.bundle, entries))
    assert np.ptp(expected, axis=0).min() > 0.05


@pytest.mark.parametrize("head", ["svm", "logistic", "knn"])
def test_the_scaler_of_layers_side_by_side_knows_where_each_begins(head, tmp_path):
    """``l2`` gives each layer its own length, so that a layer of large numbers does not drown the other."""
    features = layered(LAYERED)
    features["penultimate@avg"] *= 1000
    with FeatureStore(write_layers(tmp_path / "s.h5", features=features)) as opened:
        settings = FitSettings(head=head, scale="l2", cv=2)
        bundle = fit_classifier(opened, "penultimate+blocks.2", settings).bundle
    both = np.hstack([features["penultimate@avg"], features["blocks.2@avg"]])
    scaled = bundle.pipeline.named_steps["scale"].transform(both)
    lengths = [np.linalg.norm(part, axis=1) for part in (scaled[:, :10], scaled[:, 10:])]
    np.testing.assert_allclose(lengths[0], lengths[1], rtol=1e-4)


def test_auto_takes_the_layer_that_is_best(tmp_path):
    """The layer whose classes lie apart is taken, with a reason and the scores of all that were tried."""
    with FeatureStore(write_layers(tmp_path / "s.h5")) as opened:
        result = fit_classifier(opened, "auto", LOGISTIC)
        named = fit_classifier(opened, "blocks.2", LOGISTIC)
        tried = layers_to_try(opened)
    assert result.bundle.spec.key == result.choice.layer == "blocks.2@avg"
    assert [score.layer for score in result.choice.scores] == tried
    assert result.evaluation.to_json() == named.evaluation.to_json()
    assert named.choice is None
    assert result.choice.reason == "the best in cross-validation"


def test_auto_may_take_layers_side_by_side(tmp_path):
    """Where each layer knows one half of the classes, it takes both together."""
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 25)
    halves = {"blocks.0@avg": labels % 2, "penultimate@avg": labels // 2}
    features = {
        key: (random.normal(size=(100, 5)) + 4 * np.eye(5)[half]).astype(np.float32) for key, half in halves.items()
    }
    with FeatureStore(write_layers(tmp_path / "s.h5", labels, features)) as opened:
        result = fit_classifier(opened, "auto", LOGISTIC)
    assert result.bundle.spec.key == "blocks.0@avg+penultimate@avg"
    assert result.evaluation.accuracy > 0.8


@pytest.mark.parametrize("prefer", ["best", "cheap"])
def test_auto_never_looks_at_held_out_rows(prefer, tmp_path):
    """Noise in place of the held-out rows changes neither the choice nor any score behind it."""
    features, held_out = layered(LAYERED), split_rows(LAYERED).held_out
    choices = []
    for name, made in (("plain", features), ("spoiled", spoiled(features, held_out))):
        with FeatureStore(write_layers(tmp_path / f"{name}.h5", features=made)) as opened:
            result = fit_classifier(opened, "auto", FitSettings(head="ridge", prefer=prefer))
            choices.append((result.choice, result.fitted.params, result.fitted.cv_accuracy, result.evaluation.accuracy))
    assert choices[0][:3] == choices[1][:3]
    assert choices[0][3] > choices[1][3]


def test_cheap_takes_the_shallowest_of_equals(tmp_path):
    """Where two layers hold the same, ``cheap`` takes the shallower and ``best`` the late one."""
    good = layered(LAYERED)["blocks.2@avg"]
    with FeatureStore(
        write_layers(tmp_path / "s.h5", features={"blocks.0@avg": good, "penultimate@avg": good})
    ) as store:
        cheap, best = (
            fit_classifier(store, "auto", FitSettings(head="ridge", prefer=way)) for way in ("cheap", "best")
        )
    assert (cheap.choice.layer, best.choice.layer) == ("blocks.0@avg", "penultimate@avg")
    assert best.choice.cheapest.layer == "blocks.0@avg"
    assert best.choice.reason in ("the best in cross-validation", "as good as the best in cross-validation")


def test_auto_with_one_layer_takes_it(tmp_path):
    """There is nothing to choose: the reason says so, and JSON has null for what was not measured."""
    store = write_store(tmp_path / "s.h5", separable(LABELS), LABELS)
    with FeatureStore(store) as opened:
        result = fit_classifier(opened, "auto", LOGISTIC)
    assert (result.choice.layer, result.choice.reason) == ("penultimate@avg", "it is the only one")
    shown = json.loads(json.dumps(result.to_json(), allow_nan=False))["layer_choice"]
    assert shown["scores"] == [{"layer": "penultimate@avg", "accuracy": None, "loss": 0.0, "loss_error": 0.0}]
    assert shown["cheapest"] == shown["scores"][0]


def test_the_choice_is_plain_json(tmp_path):
    """What is in the choice is in the JSON, number by number."""
    with FeatureStore(write_layers(tmp_path / "s.h5")) as opened:
        result = fit_classifier(opened, "auto", FitSettings(head="ridge", cv=2))
    shown = json.loads(json.dumps(result.to_json(), allow_nan=False))["layer_choice"]
    assert shown.keys() == {"layer", "reason", "scores", "cheapest"}
    assert [score["accuracy"] for score in shown["scores"]] == [score.accuracy for score in result.choice.scores]
    assert shown["cheapest"]["layer"] == result.choice.cheapest.layer


def test_a_default_layer_of_several_pools(tmp_path):
    """Without penultimate and with two pools of the deepest layer, a named layer and auto still work."""
    names = ("blocks.0@avg", "blocks.4@avg", "blocks.4@max")
    path = write_layers(tmp_path / "s.h5", features=dict(zip(names, layered(LAYERED).values(), strict=False)))
    with FeatureStore(path) as opened:
        assert fit_classifier(opened, "blocks.0", LOGISTIC).bundle.spec.key == "blocks.0@avg"
        assert fit_classifier(opened, "auto", LOGISTIC).choice.layer.split("@")[0].startswith("blocks")
        with pytest.raises(FeatureKeyError, match=r"blocks\.4@avg, blocks\.4@max"):
            fit_classifier(opened, None, LOGISTIC)


def test_names_of_layers_that_cannot_be_fitted(tmp_path):
    """A layer named twice and joined layers of a reduced store are usage errors, before anything is fitted."""
    with FeatureStore(write_layers(tmp_path / "s.h5")) as opened:
        with pytest.raises(UsageError, match="names the same features twice"):
            fit_classifier(opened, "blocks.2+blocks.2", LOGISTIC)
        with pytest.raises(UsageError, match="unknown; allowed are best and cheap"):
            fit_classifier(opened, "auto", FitSettings(prefer="worst"))
        reduce_store(opened, "pca:3", tmp_path / "r.h5")
    with FeatureStore(tmp_path / "r.h5") as small:
        with pytest.raises(UsageError, match="cannot stand side by side"):
            fit_classifier(small, "blocks.2+blocks.0", LOGISTIC)
        assert {score.layer for score in fit_classifier(small, "auto", LOGISTIC).choice.scores} == set(small.keys)


PAIRS = [(0, 5), (1, 9), (2, 17), (25, 30), (26, 41), (43, 50)]


def test_copies_are_never_on_both_sides(tmp_path, monkeypatch):
    """Identical images are together in training or in the held-out rows, and folds get them as groups."""
    store = write_layers(tmp_path / "s.h5", digests=with_copies(random_bytes(len(LAYERED), 16), PAIRS))
    fits = []
    fit_head = fitting.fit_head

    def spy(features, labels, **options):
        fits.append((features, options["groups"]))
        return fit_head(features, labels, **options)

    monkeypatch.setattr(fitting, "fit_head", spy)
    with FeatureStore(store) as opened:
        result = fit_classifier(opened, None, FitSettings(head="ridge", cv=2))
        matrix = opened["penultimate"][:]
    ((features, groups),) = fits
    place = {row.tobytes(): number for number, row in enumerate(features)}
    places = [[place.get(matrix[row].tobytes()) for row in pair] for pair in PAIRS]
    assert all((first is None) == (second is None) for first, second in places)
    learned = [pair for pair in places if pair[0] is not None]
    assert len(learned) > 2
    assert all(groups[first] == groups[second] >= 0 for first, second in learned)
    assert result.without_copies is None
    assert "6 of the labelled images repeat another one" in " ".join(result.fitted.notes)


def test_the_score_without_copies(tmp_path):
    """Across a given split copies stay, and the rows that have none in training are scored a second time."""
    splits = np.where(np.arange(len(LAYERED)) % 4 == 0, 2, 0)
    digests = with_copies(random_bytes(len(LAYERED), 16), [(1, 4), (2, 8), (25, 40)])
    store = write_layers(tmp_path / "s.h5", digests=digests, splits=splits)
    settings = FitSettings(head="ridge", cv=2)
    with FeatureStore(store) as opened:
        result = fit_classifier(opened, "blocks.2", settings)
        allowed = fit_classifier(opened, "blocks.2", FitSettings(head="ridge", cv=2, allow_duplicates=True))
        rows = labelled_rows(opened)
        matrix = opened["blocks.2"][:]
    kept = np.setdiff1d(np.flatnonzero(splits == 2), [4, 8, 40])
    assert rows.repeated.tolist() == [4, 8, 40]
    correct = result.bundle.pipeline.predict(matrix[kept]) == LAYERED[kept]
    assert (result.without_copies.rows, result.without_copies.accuracy) == (len(kept), correct.mean())
    assert result.without_copies.on == "test split without copies of training images"
    assert result.evaluation.rows == (splits == 2).sum()
    shown = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert shown["evaluation_without_copies"]["rows"] == len(kept)
    assert allowed.without_copies is None
    assert allowed.to_json()["evaluation_without_copies"] is None
    assert allowed.fitted.notes == ()
