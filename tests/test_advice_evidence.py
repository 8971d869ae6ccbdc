"""Evidence by layer: the comparison's own numbers, on the rows given, and which layer they speak for."""

from __future__ import annotations

import numpy as np
import pytest
from layered_stores import LABELS, layered, spoiled

from featx.advice import evidence
from featx.advice.balanced_scores import balanced_scores, weight_of_rows
from featx.advice.evidence import draw_rows, measure_layers
from featx.advice.layer_sweep import LayerEvidence, LayerSweep
from featx.advice.transferability import h_score, log_me
from featx.comparison import Candidate, ComparisonSettings, Cost, FoldScore, compare_candidates, rank_candidates
from featx.errors import HeadError

KEYS = list(layered(LABELS))
LATE = KEYS[-1]
JOINED = "+".join(KEYS[-2:])
DEPTHS = {"early": 0.5, "late": 0.9, "early+late": 0.9, "beside": 0.9}


def sweep_of(**behind):
    """Return a sweep in which layers are behind the best by so many points."""
    layers = tuple(
        LayerEvidence(
            name, DEPTHS[name], 4, 0.9 - points / 100, (0.0, 1.0), points / 100, (points / 200, points / 50), 0.0, 0.0
        )
        for name, points in behind.items()
    )
    return LayerSweep(layers, "late", 0.5, True, 100, 5, 1)


def test_it_is_the_comparison_of_a_ridge():
    """Accuracy, interval and what a layer is behind by are those of `compare_candidates` on the same folds."""
    features = layered(LABELS)
    found = measure_layers(features, LABELS, [*KEYS, JOINED], late=LATE, depths=dict.fromkeys(KEYS, 0.25))
    candidates = [Candidate(layer, "zscore", "none", "ridge") for layer in [*KEYS, JOINED]]
    settings = ComparisonSettings(n_repeats=3, n_inner_folds=2)
    expected = {
        result.candidate.layer: result for result in compare_candidates(features, LABELS, candidates, settings).results
    }
    assert [entry.layer for entry in found.layers] == [*KEYS, JOINED]
    for entry in found.layers:
        result = expected[entry.layer]
        assert (entry.accuracy, entry.interval) == (result.accuracy, result.interval)
        assert (entry.behind, entry.behind_interval) == (result.difference, result.difference_interval)
    assert found.majority_accuracy == pytest.approx(24 / 54, abs=0.01)


def test_log_me_and_h_score_stand_beside():
    """They are those of the layer's columns; several layers are put side by side."""
    features = layered(LABELS)
    found = {entry.layer: entry for entry in measure_layers(features, LABELS, [*KEYS, JOINED], late=LATE).layers}
    both = np.concatenate([features[key] for key in KEYS[-2:]], axis=1)
    assert found[KEYS[0]].log_me == pytest.approx(log_me(features[KEYS[0]], LABELS))
    assert found[JOINED].h_score == pytest.approx(h_score(both, LABELS))
    assert (found[JOINED].width, found[KEYS[0]].width) == (both.shape[1], 4)
    assert found[KEYS[0]].depth is None


def test_other_rows_take_no_part():
    """Noise in rows that are not named changes nothing at all."""
    features = layered(LABELS)
    rows = np.flatnonzero(np.arange(len(LABELS)) % 5)
    others = np.setdiff1d(np.arange(len(LABELS)), rows)
    clean = measure_layers(features, LABELS[rows], KEYS, late=LATE, rows=rows)
    assert measure_layers(spoiled(features, others), LABELS[rows], KEYS, late=LATE, rows=rows) == clean
    assert clean.n_rows == len(rows)


def test_many_rows_are_drawn_and_said(monkeypatch):
    """Of many rows the same share of every class takes part, and a note says so."""
    monkeypatch.setattr(evidence, "MOST_ROWS", 27)
    found = measure_layers(layered(LABELS), LABELS, KEYS[:2], late=KEYS[1])
    assert found.n_rows == 27
    assert found.notes[0].startswith("27 of 54 training images")
    drawn = draw_rows(LABELS, 27)
    assert np.bincount(LABELS[drawn]).tolist() == [12, 9, 6]
    assert draw_rows(np.repeat(np.arange(30), 3), 20).size == 60


def test_groups_are_kept_whole():
    """Copies that carry the answer from one fold to another do not help."""
    labels, groups = np.repeat([0, 1], 40), np.repeat(np.arange(40), 2)
    features = {"a": np.repeat(np.random.default_rng(0).normal(size=(40, 90)), 2, axis=0).astype(np.float32)}
    told = measure_layers(features, labels, ["a"], late="a", groups=groups)
    assert told.best.accuracy < 0.75 < measure_layers(features, labels, ["a"], late="a").best.accuracy
    with pytest.raises(HeadError, match="nothing can be compared"):
        measure_layers(features, labels, ["a"], late="a", groups=labels)


def test_one_of_few_copies_is_left_out():
    """Where hardly any rows share a group the second ones are left out, and folds need no groups."""
    groups = np.full(len(LABELS), -1)
    groups[[3, 4]] = 0
    assert measure_layers(layered(LABELS), LABELS, KEYS[:1], late=KEYS[0], groups=groups).n_rows == len(LABELS) - 1


@pytest.mark.parametrize(
    ("behind", "preferred", "is_behind"),
    [
        ({"early": 3, "late": 0, "early+late": 0.5}, "late", False),
        ({"early": 0, "late": 0.9, "early+late": 0.5}, "late", False),
        ({"early": 0, "late": 1.1, "early+late": 2}, "early", True),
        ({"early": 0, "late": 1.1, "early+late": 0.9}, "early+late", True),
        ({"early": 4, "late": 3, "beside": 0}, "late", False),
        ({"early": 1, "late": 3, "beside": 0}, "early", True),
    ],
)
def test_near_ties_go_to_the_last_layer(behind, preferred, is_behind):
    """The rule of ``--layer auto``: ties within a point go to the last layer, else to the last of the tied."""
    sweep = sweep_of(**behind)
    assert (sweep.preferred.layer, sweep.is_behind) == (preferred, is_behind)
    assert sweep.best_earlier.layer == "early"
    assert sweep.latest.layer == "late"


def test_the_last_stage_is_not_earlier_than_what_pools_it():
    """What lies as deep as the last layer is no earlier one, and does not stand beside it with the same columns."""
    features = layered(LABELS)
    features["stage@avg"] = features[LATE].copy()
    names = [*KEYS, "stage@avg", f"stage@avg+{LATE}", f"{KEYS[0]}+stage@avg+{LATE}"]
    depths = {key: (place + 1) / len(KEYS) for place, key in enumerate(KEYS)} | {"stage@avg": 1.0}
    found = measure_layers(features, LABELS, names, late=LATE, depths=depths)
    assert [entry.layer for entry in found.layers] == [*KEYS, "stage@avg", f"{KEYS[0]}+{LATE}"]
    alone = measure_layers(features, LABELS, ["stage@avg", LATE], late=LATE, depths=depths)
    assert alone.best_earlier is None
    assert alone.preferred.layer == LATE


def test_uneven_classes_are_weighed_and_measured_by_balanced_accuracy():
    """Accuracies are the comparison's balanced ones of a weighed ridge; the largest class alone has an even share."""
    labels = np.repeat([0, 1], [60, 10])
    features = layered(labels)
    found = measure_layers(features, labels, KEYS, late=LATE, balanced=True)
    settings = ComparisonSettings(n_repeats=3, n_inner_folds=2, class_weight="balanced")
    candidates = [Candidate(layer, "zscore", "none", "ridge") for layer in KEYS]
    results = compare_candidates(features, labels, candidates, settings).results
    expected = {result.candidate.layer: result.balanced_accuracy for result in results}
    assert found.is_balanced
    assert {entry.layer: entry.accuracy for entry in found.layers} == pytest.approx(expected)
    assert [entry.behind for entry in found.layers] == pytest.approx(
        [max(expected.values()) - expected[key] for key in KEYS]
    )
    assert found.majority_accuracy == pytest.approx(0.5)
    noise = {"a": np.random.default_rng(0).normal(size=(70, 4)).astype(np.float32)}
    assert found.learned
    assert not measure_layers(noise, labels, ["a"], late="a", balanced=True).learned


def test_balanced_scores_are_those_of_the_comparison_in_even_classes():
    """Where balanced accuracy is accuracy, all means and intervals are the comparison's own."""
    random = np.random.default_rng(0)
    folds = {
        layer: [FoldScore(value, value, value, 80, 20, 0.0, 0.0, {}) for value in random.uniform(low, 1, 5)]
        for layer, low in (("a", 0.5), ("b", 0.8), ("c", 0.1))
    }
    found = balanced_scores(folds, 100, 1.0)
    candidates = {Candidate(layer, "zscore", "none", "ridge"): scores for layer, scores in folds.items()}
    ranked = rank_candidates(candidates, dict.fromkeys(candidates, Cost(1)), n_rows=100)
    for result in ranked:
        score = found[result.candidate.layer]
        assert (score.accuracy, score.interval) == (result.accuracy, result.interval)
        assert score.behind == pytest.approx(result.difference, abs=1e-12)
        assert score.behind_interval == pytest.approx(result.difference_interval)


@pytest.mark.parametrize(("counts", "n_counted"), [((50, 50), 100), ((990, 10), 39.6), ((10, 10, 1000), 44.8)])
def test_a_mean_over_classes_is_as_sure_as_its_small_classes(counts, n_counted):
    """Even classes count whole; a small one beside a large one makes few rows of many."""
    labels = np.repeat(range(len(counts)), counts)
    assert weight_of_rows(labels) * len(labels) == pytest.approx(n_counted, rel=0.01)
    random = np.random.default_rng(0)
    draws = np.mean([random.binomial(count, 0.8, 20_000) / count for count in counts], axis=0)
    assert draws.var() == pytest.approx(0.8 * 0.2 / n_counted, rel=0.05)


def test_an_h_score_of_nothing_is_left_out(monkeypatch):
    """On features that are white already, shrinkage leaves nothing of it: no number, not 0.00."""
    monkeypatch.setattr(evidence, "h_score", lambda *_: 0.0)
    found = measure_layers(layered(LABELS), LABELS, KEYS[:1], late=KEYS[0])
    assert found.layers[0].h_score is None
