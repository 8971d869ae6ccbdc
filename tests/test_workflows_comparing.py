"""A comparison measures on rows that a fit would learn from, whatever it is given, and remembers what it measured."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from gallery import TRAINED, run
from layered_stores import LABELS, layered, random_bytes, spoiled, with_copies, write_layers, write_patients

import featx
from featx.backbones import open_backbone
from featx.comparison import Comparison, running
from featx.errors import FeatureKeyError, HeadError, RefusedError, UsageError
from featx.heads import split_rows
from featx.store import FeatureStore
from featx.workflows.comparing import CompareSettings, compare, compare_store, layer_costs
from featx.workflows.reducing import reduce_store

N_ROWS = len(LABELS)
FEATURES = layered(LABELS)
KEYS = list(FEATURES)
# One head and few folds: a tenth of a second.
SHORT = {"scales": ["zscore"], "reduces": ["none"], "heads": ["ridge"], "n_folds": 3, "n_repeats": 1}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store of four layers and three classes; read only."""
    return write_layers(tmp_path_factory.mktemp("store") / "s.h5")


def measured(comparison: Comparison) -> dict:
    """Return what a comparison says, without what a clock says."""
    times = {"fit_seconds": 0.0, "predict_ms": 0.0}
    plain = replace(comparison, results=tuple(replace(result, **times) for result in comparison.results))
    return {**plain.to_json(), "results": sorted(plain.to_json()["results"], key=str)}


def no_measuring(*_, **__):
    """Fail where something is measured."""
    pytest.fail("something was measured that is in the journal")


def test_it_is_what_the_package_offers():
    """``featx.compare`` is this function."""
    assert featx.compare is compare


def test_a_path_an_open_store_and_arrays_give_the_same(store):
    """A store by path or open, and its arrays with their classes, give the same numbers on all rows."""
    by_path = compare(store, all_rows=True, **SHORT)
    with FeatureStore(store) as opened:
        by_store = compare(opened, all_rows=True, **SHORT)
        by_settings = compare_store(opened, CompareSettings(all_rows=True, **SHORT))
    by_arrays = compare(FEATURES, LABELS.tolist(), **SHORT)
    assert measured(by_path) == measured(by_store) == measured(by_settings)
    scores = [
        {result.candidate: result.fold_accuracies for result in comparison.results}
        for comparison in (by_path, by_arrays)
    ]
    assert scores[0] == scores[1]
    assert by_arrays.best.candidate.layer == "blocks.2@avg"
    assert (by_path.rows, by_arrays.rows, by_arrays.n_rows) == ("all labelled rows", "all rows", N_ROWS)


def test_one_array_is_one_layer(store):
    """An array, or a list of rows, is called ``features`` and scores as the layer that it is."""
    alone = compare(FEATURES["blocks.2@avg"], LABELS, **SHORT)
    assert {result.candidate.layer for result in alone.results} == {"features"}
    listed = compare(FEATURES["blocks.2@avg"].tolist(), LABELS, **SHORT)
    assert listed.best.fold_accuracies == alone.best.fold_accuracies
    (of_store,) = (
        result
        for result in compare(store, layers=["blocks.2"], all_rows=True, **SHORT).results
        if not result.is_baseline
    )
    assert of_store.fold_accuracies == alone.best.fold_accuracies


def test_groups_beside_arrays_are_never_divided(monkeypatch):
    """Rows of one group are in one fold."""
    groups = np.arange(N_ROWS) // 3
    tests = []
    units = running._units

    def spy(candidates, scores, folds, widths):
        tests.extend(test for _, test in folds)
        return units(candidates, scores, folds, widths)

    monkeypatch.setattr(running, "_units", spy)
    compare(FEATURES["blocks.2@avg"], LABELS, groups=groups, **SHORT)
    assert len(tests) == 3
    for test in tests:
        assert set(groups[test]) & set(groups[np.setdiff1d(np.arange(N_ROWS), test)]) == set()


@pytest.mark.parametrize(
    ("arguments", "settings", "said"),
    [
        ((FEATURES,), {}, "give y, one class a row"),
        ((FEATURES, LABELS), {"layer": "a"}, "unknown setting 'layer'; allowed are budget, layers"),
        ((FEATURES, LABELS), {"budget": "huge"}, "unknown budget 'huge'; allowed are quick, full"),
        ((FEATURES, LABELS), {"heads": ["cnn"]}, "unknown head 'cnn'; allowed are svm"),
        ((FEATURES, LABELS), {"scales": ["log"]}, "unknown scaler 'log'; allowed are none, zscore"),
        ((FEATURES, LABELS), {"reduces": ["lda:3"]}, "unknown reducer 'lda:3'"),
        ((FEATURES, LABELS), {"heads": "ridge"}, "is a text, not a list"),
        ((FEATURES, LABELS), {"n_repeats": 0}, "n_repeats=0 was given; give 1 or more"),
        ((FEATURES, LABELS), {"n_folds": 1}, "n_folds=1 was given; give 2 or more"),
        ((FEATURES, LABELS), {"n_jobs": 0}, "n_jobs=0 was given"),
        ((FEATURES, LABELS), {"layers": ["blocks.9@avg"]}, "no features 'blocks.9@avg'; there are blocks.0@avg"),
        ((FEATURES, LABELS), {"layers": []}, "no layer to compare"),
        (({}, LABELS), {}, "no layer to compare"),
        ((np.zeros(N_ROWS), LABELS), {}, r"of shape \(54,\); give \(n, d\)"),
        (({"a+b": np.eye(N_ROWS)}, LABELS), {}, r"\+ joins names"),
        ((FEATURES, [f"class {label}" for label in LABELS]), {}, "give whole numbers from 0"),
        ((FEATURES, LABELS.astype(float)), {}, "classes of type float64"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(arguments, settings, said):
    """Unknown names, numbers out of range and arrays of the wrong kind say what is allowed."""
    with pytest.raises(UsageError, match=said):
        compare(*arguments, **settings)


def test_classes_beside_a_store_are_not_passed_over(store):
    """A store has classes and groups of its own; others beside it are an error, not ignored."""
    for given in ({"y": LABELS}, {"groups": LABELS}):
        with pytest.raises(UsageError, match="beside a store"):
            compare(store, **given)


def test_arrays_that_do_not_fit():
    """Rows without a class, too few classes, and groups of another length are errors of the heads."""
    for y, groups, said in (
        (np.where(LABELS == 2, -1, LABELS), None, "Leave out rows without a label"),
        (np.zeros(N_ROWS, int), None, "at least two are needed"),
        (LABELS[1:], None, "needed are"),
        (LABELS, [0, 1], "groups of shape"),
    ):
        with pytest.raises(HeadError, match=said):
            compare(FEATURES, y, groups=groups, **SHORT)


def test_rows_that_fit_scores_on_take_no_part(tmp_path, store):
    """Noise in place of the held-out features changes nothing; with all rows it changes much."""
    held_out = split_rows(LABELS).held_out
    other = write_layers(tmp_path / "spoiled.h5", features=spoiled(FEATURES, held_out))
    plain = compare(store, **SHORT)
    assert measured(plain) == measured(compare(other, **SHORT))
    assert plain.n_rows == N_ROWS - len(held_out)
    assert plain.rows.startswith(f"all but the {len(held_out)} rows that fit is scored on (held-out 20 % of")
    everything = [compare(path, all_rows=True, **SHORT) for path in (store, other)]
    assert everything[0].best.accuracy > everything[1].best.accuracy + 0.1
    assert everything[0].n_rows == N_ROWS


def test_rows_of_a_test_split_take_no_part(tmp_path):
    """Where there is a test split, it is what is left out, and the comparison says so."""
    splits = np.where(np.arange(N_ROWS) % 3 == 0, 2, 0)
    paths = [
        write_layers(tmp_path / f"{name}.h5", features=features, splits=splits)
        for name, features in (("s", FEATURES), ("t", spoiled(FEATURES, np.flatnonzero(splits == 2))))
    ]
    first, second = (compare(path, **SHORT) for path in paths)
    assert measured(first) == measured(second)
    assert first.rows == f"all but the {N_ROWS // 3} rows that fit is scored on (test split)"


def test_seed_and_share_say_which_rows_are_left_out(store):
    """Another seed leaves out other rows, another share leaves out more."""
    first, second = compare(store, seed=1, **SHORT), compare(store, held_out=0.5, **SHORT)
    assert "seed 1" in first.rows
    assert second.n_rows == N_ROWS // 2
    assert measured(first) != measured(compare(store, **SHORT))


def test_rows_without_a_label_are_counted(tmp_path):
    """Rows without a label take no part, whatever they hold, and a note counts them."""
    labels = np.array([*LABELS, -1, -1])
    features = layered(labels)
    one, other = (
        compare(write_layers(tmp_path / f"{name}.h5", labels, made), **SHORT)
        for name, made in (("one", features), ("other", spoiled(features, np.array([N_ROWS, N_ROWS + 1]))))
    )
    assert measured(one) == measured(other)
    assert "2 rows without a label left out" in one.notes


def test_notes_are_about_the_rows_that_take_part(tmp_path):
    """A class that is not in the test split is nothing to a comparison; copies are."""
    splits = np.where((np.arange(N_ROWS) % 4 == 0) & (LABELS != 2), 2, 0)
    digests = with_copies(random_bytes(N_ROWS, 16), [(1, 5), (2, 9)])
    (note,) = compare(write_layers(tmp_path / "s.h5", splits=splits, digests=digests), **SHORT).notes
    assert note.startswith("2 of the labelled images repeat another one")


def test_copies_never_lie_on_both_sides_of_a_fold(tmp_path):
    """With every image twice and features of noise, nothing can be learned; with copies allowed, it seems so."""
    labels = np.repeat(np.arange(60) % 2, 2)
    noise = np.repeat(np.random.default_rng(0).normal(size=(60, 80)), 2, axis=0).astype(np.float32)
    pairs = [(row, row + 1) for row in range(0, 120, 2)]
    digests = with_copies(random_bytes(120, 16), pairs)
    path = write_layers(tmp_path / "s.h5", labels, {"penultimate@avg": noise}, digests=digests)
    settings = {**SHORT, "heads": ["knn"]}
    guarded, free = (compare(path, allow_duplicates=allowed, **settings) for allowed in (False, True))
    assert guarded.best.accuracy < 0.65
    assert not guarded.learned
    assert free.best.accuracy > 0.7
    assert "60 of the labelled images repeat another one (60 identical" in " ".join(guarded.notes)


def test_a_column_of_groups(tmp_path):
    """With features that know the patient and not the class, only patients kept whole show it."""
    labels = np.repeat([0, 1], 45)
    patients = np.arange(90) // 3
    known = 5 * np.random.default_rng(1).normal(size=(30, 60))[patients]
    table, _ = write_patients(tmp_path, labels)
    path = write_layers(tmp_path / "s.h5", labels, {"penultimate@avg": known.astype(np.float32)}, source=table)
    settings = {**SHORT, "heads": ["knn"]}
    assert compare(path, **settings).best.accuracy > 0.8
    assert compare(path, group_column="patient", **settings).best.accuracy < 0.7


def test_untrained_weights_are_refused(tmp_path):
    """Features of random weights are compared only where that is meant."""
    path = write_layers(tmp_path / "s.h5", fingerprint={**TRAINED, "weights_source": "random:3"})
    with pytest.raises(RefusedError, match=r"a comparison of them would mean nothing"):
        compare(path, **SHORT)
    assert compare(path, allow_random=True, **SHORT).best.accuracy > 0.8


def test_what_is_compared_by_default(store):
    """All layers and some side by side, each with the two ways of the quick budget, on two times five folds."""
    comparison = compare(store, n_folds=2, n_inner_folds=2)
    layers = {result.candidate.layer for result in comparison.results}
    assert layers == {*KEYS, "+".join(KEYS[-2:]), "+".join(KEYS)}
    ways = {(r.candidate.scale, r.candidate.reduce, r.candidate.head) for r in comparison.results if not r.is_baseline}
    assert ways == {("zscore", "none", "ridge"), ("zscore", "none", "svm")}  # ten columns have no 128 components
    assert (comparison.n_repeats, comparison.n_folds, len(comparison.best.fold_accuracies)) == (2, 2, 4)
    assert comparison.results[-1].is_baseline


def test_names_of_layers_become_keys(store):
    """Layers are named as everywhere, keep their order side by side, and an unknown one is an error."""
    comparison = compare(store, layers=["blocks.2", "penultimate+blocks.0@avg"], **SHORT)
    layers = {result.candidate.layer for result in comparison.results if not result.is_baseline}
    assert layers == {"blocks.2@avg", "penultimate@avg+blocks.0@avg"}
    with pytest.raises(FeatureKeyError, match="The store holds"):
        compare(store, layers=["blocks.7"], **SHORT)
    with pytest.raises(UsageError, match="same features twice"):
        compare(store, layers=["blocks.2+blocks.2@avg"], **SHORT)


def test_reduced_layers_stand_alone(store, tmp_path):
    """Of a reduced store each layer is compared by itself, and several side by side are refused as fit refuses them."""
    with FeatureStore(store) as opened:
        reduce_store(opened, "pq:2", tmp_path / "r.h5")
    comparison = compare(tmp_path / "r.h5", **SHORT)
    assert {result.candidate.layer for result in comparison.results} == set(KEYS)
    with pytest.raises(UsageError, match="cannot stand side by side"):
        compare(tmp_path / "r.h5", layers=["blocks.0+blocks.2"], **SHORT)


def test_the_deepest_layer_may_have_several_pools(tmp_path):
    """A store without a default layer, for it has two, is compared like any other."""
    names = ("blocks.0@avg", "blocks.4@avg", "blocks.4@max")
    path = write_layers(tmp_path / "s.h5", features=dict(zip(names, FEATURES.values(), strict=False)))
    layers = {result.candidate.layer for result in compare(path, **SHORT).results}
    assert {*names} < layers


def test_codes_cost_their_bytes(store, tmp_path):
    """Features that are stored as codes cost a byte a code as they are; reduced further, four bytes a component."""
    with FeatureStore(store) as opened:
        reduce_store(opened, "pq:2", tmp_path / "codes.h5", layers=["penultimate"])
    settings = CompareSettings(reduces=["none", "pca:3"], heads=["ridge"], n_repeats=1, allow_random=True)
    with FeatureStore(tmp_path / "codes.h5") as codes:
        result = compare_store(codes, settings)
    costs = {entry.candidate.reduce: entry.cost.bytes_per_image for entry in result.results if not entry.is_baseline}
    assert costs == {"none": 2, "pca:3": 12}


def test_a_quick_look_at_many_classes_leaves_out_what_is_fitted_once_a_class():
    """Above 50 classes quick leaves out the svm and says so; who names it gets it."""
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(60), 4)
    X = np.eye(60, dtype=np.float32)[y] + 0.1 * rng.normal(size=(240, 60)).astype(np.float32)
    quick = compare(X, y, n_repeats=1)
    assert {entry.candidate.head for entry in quick.results} == {"ridge", "majority"}
    assert quick.skipped == ("svm, which takes as many fits as there are classes, 60; name it with --heads to have it",)
    few = compare(X[:40], y[:40], n_repeats=1)
    assert "svm" in {entry.candidate.head for entry in few.results}
    assert few.skipped == ()
    named = compare(X, y, n_repeats=1, heads=["svm"], reduces=["pca:5"], n_inner_folds=2)
    assert "svm" in {entry.candidate.head for entry in named.results}


def test_a_journal_remembers(store, tmp_path, monkeypatch):
    """What was measured once is not measured again, and the numbers are the same, times included."""
    journal = tmp_path / "j.jsonl"
    first = compare(store, journal=journal, **SHORT)
    with monkeypatch.context() as patch:
        patch.setattr(running, "_score_unit", no_measuring)
        assert compare(store, journal=journal, **SHORT) == first
    more = compare(store, journal=journal, **{**SHORT, "heads": ["ridge", "knn"]})
    assert len(more.results) == 2 * len(first.results) - 1  # one baseline
    scores = {result.candidate: result.fold_accuracies for result in more.results}
    assert all(scores[result.candidate] == result.fold_accuracies for result in first.results)


def test_a_journal_knows_when_something_else_is_measured(store, tmp_path):
    """Other rows, folds, groups or features are measured, whatever a journal holds for the same candidates."""
    journal = tmp_path / "j.jsonl"
    short = {**SHORT, "layers": ["blocks.2"]}
    compare(store, journal=journal, **short)
    other = write_layers(tmp_path / "o.h5", features=layered(LABELS, seed=3))
    for path, changes in (
        (other, {}),
        (store, {"seed": 2}),
        (store, {"n_folds": 2}),
        (store, {"all_rows": True}),
        (store, {"class_weight": "balanced"}),
        (store, {"n_inner_folds": 2}),
    ):
        settings = {**short, **changes}
        before = journal.read_text()
        assert measured(compare(path, journal=journal, **settings)) == measured(compare(path, **settings))
        assert len(journal.read_text()) > len(before)


def test_progress_counts_scores(store):
    """Steps grow up to the number of candidates times folds, with an estimate of the time left."""
    seen = []
    compare(store, on_progress=seen.append, **SHORT)
    done = [progress.n_done for progress in seen]
    assert done == sorted(set(done))
    assert done[-1] == seen[-1].n_total == (len(KEYS) + 2 + 1) * 3
    assert seen[-1].seconds_left == 0
    assert all(progress.seconds_left >= 0 for progress in seen)


def test_costs_are_those_that_layers_shows(tmp_path, capsys):
    """The work up to a layer is the number of ``featx layers``; several side by side cost what the deepest costs."""
    assert run("layers", "test_efficientnet", "--layers", "blocks.0,blocks.2,blocks.4,penultimate", "--json") == 0
    shown = {f"{row['layer']}@avg": row["gmacs"] for row in json.loads(capsys.readouterr().out)}
    path = write_layers(tmp_path / "s.h5", fingerprint=TRAINED)
    with FeatureStore(path) as opened:
        costs = layer_costs(opened)
        assert {key: cost.gmacs for key, cost in costs.items()} == shown
        assert [cost.depth for cost in costs.values()] == [opened.infos[key].depth for key in KEYS]
    assert 0 < shown["blocks.0@avg"] < shown["penultimate@avg"] < 1
    layers = open_backbone("test_efficientnet", weights="random:0").layers
    assert shown["blocks.2@avg"] == layers["blocks.2"].macs / 1e9
    comparison = compare(path, layers=["blocks.4+blocks.0", "blocks.2"], **SHORT)
    gmacs = {result.candidate.layer: result.cost.gmacs for result in comparison.results if not result.is_baseline}
    assert gmacs == {
        "blocks.4@avg+blocks.0@avg": shown["blocks.4@avg"],
        "blocks.2@avg": shown["blocks.2@avg"],
    }
    sizes = {r.candidate.layer: r.cost.bytes_per_image for r in comparison.results if not r.is_baseline}
    assert sizes == {"blocks.4@avg+blocks.0@avg": 4 * (8 + 4), "blocks.2@avg": 4 * 6}


@pytest.mark.parametrize("model", ["hf-hub:nobody/nothing", "local-dir:/nowhere", "no_such_network", "torch:Net", ""])
def test_networks_that_cannot_be_built_have_no_known_cost(model, tmp_path):
    """The work is not known, the depth is, and nothing is requested or refused."""
    with FeatureStore(write_layers(tmp_path / "s.h5", fingerprint={**TRAINED, "model": model})) as opened:
        costs = layer_costs(opened)
    assert [cost.gmacs for cost in costs.values()] == [None] * 4
    assert [cost.depth for cost in costs.values()] == [0.25, 0.5, 0.75, 1.0]
