"""The score of a classifier is honest: what it is scored on was never learned from, in any way."""

from __future__ import annotations

import json

import numpy as np
import pytest
from gallery import TRAINED, separable, write_store
from safetensors.torch import load

from featx.backbones import open_backbone
from featx.backbones.weights import weights_digest
from featx.bundle import load_bundle
from featx.errors import FeatureKeyError, HeadError, RefusedError
from featx.extraction import FeatureSpec
from featx.heads import RowSplit, evaluate_head
from featx.store import FeatureStore
from featx.workflows import fitting
from featx.workflows.fitting import FitSettings, _one_sided_notes, fit_classifier, network_weights

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
    """The rows of features that each evaluation sees."""
    rows = []

    def spy(pipeline, features, labels, **options):
        rows.append({row.tobytes() for row in features})
        return evaluate_head(pipeline, features, labels, **options)

    monkeypatch.setattr(fitting, "evaluate_head", spy)
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


def test_classes_on_one_side_only_are_named():
    """A class that is never scored, or never learned, is in the notes."""
    labels = np.array([0] * 10 + [1] * 10 + [2])
    split = RowSplit(train=np.r_[0:8, 20], held_out=np.r_[8:20], on="test split")
    learned, scored = _one_sided_notes(["a", "b", "c"], labels, split)
    assert learned == "no training rows of b: every one of them counts as an error"
    assert scored == "no rows to score c on: the score says nothing about them"
