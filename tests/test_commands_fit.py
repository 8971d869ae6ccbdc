"""``featx fit-svm``, ``fit-logistic`` and ``fit-tree``: JSON, report, refusals, and what is saved."""

from __future__ import annotations

import json

import numpy as np
import pytest
from gallery import make_gallery, run, separable, write_store

from featx.bundle import load_bundle
from featx.heads import wilson_interval
from featx.store import FeatureStore

LABELS = [0] * 20 + [1] * 15 + [2] * 10


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store of three classes that a line tells apart; read only."""
    return write_store(tmp_path_factory.mktemp("store") / "s.h5", separable(LABELS), LABELS)


@pytest.fixture(scope="module")
def gallery(tmp_path_factory):
    """Pictures, store, classifier and index; read only."""
    return make_gallery(tmp_path_factory.mktemp("gallery"))


@pytest.mark.parametrize(
    ("verb", "options", "head", "params"),
    [
        ("fit-svm", (), "svm", {"C"}),
        ("fit-svm", ("--kernel", "rbf"), "svm-rbf", {"C"}),
        ("fit-logistic", (), "logistic", {"C"}),
        ("fit-tree", ("--kind", "tree"), "tree", {"max_depth", "min_samples_leaf"}),
        ("fit-tree", ("--cv", "2"), "forest", {"min_samples_leaf"}),
        ("fit-tree", ("--kind", "boosting", "--cv", "2"), "boosting", {"max_leaf_nodes"}),
    ],
)
def test_json_has_the_promised_shape(verb, options, head, params, store, tmp_path, capsys):
    """``--json`` is one object with layer, params, evaluation and classes, and the classifier is saved."""
    assert run(verb, store, "--out", tmp_path / "c.featx", "--json", *options) == 0
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert err == ""
    assert result["layer"] == "penultimate@avg"
    assert result["classes"] == ["a", "b", "c"]
    assert result["head"] == head
    assert set(result["params"]) == {*params, "scale", "reduce"}
    evaluation = result["evaluation"]
    assert {"accuracy", "interval", "balanced_accuracy", "macro_f1", "rows", "on"} <= set(evaluation)
    assert evaluation["rows"] == 9  # a fifth of 20, 15 and 10
    n_correct = round(evaluation["accuracy"] * 9)
    assert evaluation["interval"] == pytest.approx(list(wilson_interval(n_correct, 9)))
    assert evaluation["majority_accuracy"] == pytest.approx(4 / 9)
    assert np.sum(evaluation["confusion"], axis=1).tolist() == [4, 3, 2]
    assert np.trace(evaluation["confusion"]) == n_correct
    bundle = load_bundle(tmp_path / "c.featx")
    assert bundle.class_names == ("a", "b", "c")
    assert bundle.card["head"] == head


def test_the_report_says_how_good_it_is(store, tmp_path, capsys):
    """The report has accuracy with its interval, which rows, the majority baseline, classes and confusion."""
    out = tmp_path / "my classifier.featx"
    assert run("fit-svm", store, "--out", out) == 0
    text = capsys.readouterr().out
    assert "svm on penultimate@avg (6 wide), scaled by zscore" in text
    assert "chosen by 5-fold cross-validation; 36 training rows" in text
    low, high = wilson_interval(9, 9)
    assert f"accuracy 1.000, 95 % interval {low:.3f} to {high:.3f}, on 9 rows never seen" in text
    assert "always answering 'a' would give 0.444" in text
    assert "balanced accuracy 1.000, macro F1 1.000" in text
    assert "class  precision  recall     F1  rows\na          1.000   1.000  1.000     4\n" in text
    assert "true \\ predicted  a  b  c\na                 4  0  0\n" in text
    assert f"saved {out}\nnext: featx predict '{out}' IMAGE..." in text


def test_many_classes_show_only_the_largest_errors(tmp_path, capsys):
    """Where the confusion matrix does not fit a terminal, the largest errors stand for it."""
    labels = [label for label in range(17) for _ in range(6)]
    shuffled = np.random.default_rng(0).permutation(labels)
    store = write_store(tmp_path / "s.h5", separable(shuffled, 17), labels)
    assert run("fit-logistic", store, "--out", tmp_path / "c.featx") == 0
    text = capsys.readouterr().out
    assert "most confused: true  predicted  rows" in text
    assert "true \\ predicted" not in text


def test_a_named_layer_is_taken(gallery, tmp_path, capsys):
    """``--layer`` takes a key or layer of the store; a wrong one is exit 2 and lists what there is."""
    arguments = ("fit-svm", gallery.store, "--allow-random", "--json", "--layer")
    assert run(*arguments, "blocks.2", "--out", tmp_path / "c.featx") == 0
    assert json.loads(capsys.readouterr().out)["layer"] == "blocks.2@avg"
    assert load_bundle(tmp_path / "c.featx").spec.key == "blocks.2@avg"
    assert run(*arguments, "blocks.9", "--out", tmp_path / "d.featx") == 2
    assert "blocks.2@avg" in capsys.readouterr().err


def test_the_test_split_is_scored_on(tmp_path, capsys):
    """Where the store has a test split, that is what the score is on."""
    splits = np.zeros(len(LABELS))
    splits[::3] = 2
    store = write_store(tmp_path / "s.h5", separable(LABELS), LABELS, splits=splits)
    assert run("fit-svm", store, "--out", tmp_path / "c.featx", "--json") == 0
    evaluation = json.loads(capsys.readouterr().out)["evaluation"]
    assert (evaluation["rows"], evaluation["on"]) == (15, "test split")


def test_held_out_and_seed_say_which_rows(store, tmp_path, capsys):
    """``--held-out`` is the share that is scored on; the same seed gives the same result again."""
    results = []
    for seed in (0, 0, 1):
        arguments = ("--out", tmp_path / "c.featx", "--overwrite", "--held-out", 0.4, "--seed", seed, "--json")
        assert run("fit-logistic", store, *arguments) == 0
        results.append(json.loads(capsys.readouterr().out))
        results[-1].pop("seconds")
    assert results[0]["evaluation"]["rows"] == 18
    assert results[0] == results[1]
    assert "seed 1" in results[2]["evaluation"]["on"]


def test_scale_and_reduce_are_in_the_result(store, tmp_path, capsys):
    """What was asked for is what the JSON, the report and the saved card say."""
    out = tmp_path / "c.featx"
    assert run("fit-svm", store, "--out", out, "--scale", "l2", "--reduce", "pca:3", "--json") == 0
    params = json.loads(capsys.readouterr().out)["params"]
    assert (params["scale"], params["reduce"]) == ("l2", "pca:3")
    assert run("fit-svm", store, "--out", out, "--scale", "l2", "--reduce", "pca:3", "--overwrite") == 0
    assert "scaled by l2, reduced by pca:3" in capsys.readouterr().out
    assert load_bundle(out).card["reduce"] == "pca:3"


def test_refit_all_keeps_the_score_and_learns_from_all_rows(store, tmp_path, capsys):
    """``--refit-all`` scores as before; the saved head has seen every row, and its card says so."""
    scores = []
    for name, options in (("c", ()), ("all", ("--refit-all",))):
        assert run("fit-svm", store, "--out", tmp_path / f"{name}.featx", "--json", *options) == 0
        scores.append(json.loads(capsys.readouterr().out)["evaluation"])
    assert scores[0] == scores[1]
    assert load_bundle(tmp_path / "c.featx").card["rows_learned_from"] == 36
    card = load_bundle(tmp_path / "all.featx").card
    assert (card["rows_learned_from"], card["rows_scored_were_learned_from_afterwards"]) == (45, True)
    assert run("info", tmp_path / "all.featx") == 0
    assert "fitted again on all rows afterwards" in capsys.readouterr().out


def test_balanced_weighs_small_classes(tmp_path):
    """``--balanced`` weighs classes: what one class outnumbers in a mixed place becomes more probable."""
    labels = [0] * 60 + [1] * 12
    store = write_store(tmp_path / "s.h5", separable([0] * 72), labels)
    chances = []
    for options in ((), ("--balanced",)):
        assert run("fit-logistic", store, "--out", tmp_path / "c.featx", "--overwrite", *options) == 0
        with FeatureStore(store) as opened:
            features = np.asarray(opened["penultimate"])
        chances.append(load_bundle(tmp_path / "c.featx").predict_proba(features)[:, 1].mean())
    assert chances[0] < 0.3
    assert chances[1] > 0.4


def test_rows_without_a_label_are_left_out_and_said_so(tmp_path, capsys):
    """Rows without a label are neither learned from nor scored on, and the report counts them."""
    store = write_store(tmp_path / "s.h5", separable([*LABELS, 0, 0]), [*LABELS, -1, -1])
    assert run("fit-svm", store, "--out", tmp_path / "c.featx") == 0
    text = capsys.readouterr().out
    assert "36 training rows" in text
    assert "note: 2 rows without a label left out" in text


def test_a_class_without_training_rows_is_said_so(tmp_path, capsys):
    """A class that is only in the test split counts as an error, with a note."""
    splits = [0 if label < 2 else 2 for label in LABELS]
    splits[0] = splits[20] = 2
    store = write_store(tmp_path / "s.h5", separable(LABELS), LABELS, splits=splits)
    assert run("fit-svm", store, "--out", tmp_path / "c.featx", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["notes"] == ["no training rows of c: every one of them counts as an error"]
    assert result["evaluation"]["accuracy"] == pytest.approx(2 / 12)


def test_what_cannot_be_fitted(tmp_path, capsys):
    """Without labels, or with one class only, the exit code is 2 and the message says what to do."""
    for labels, said in (([-1] * 8, "put the images of each class in a folder of its own"), ([0] * 8, "class 'a'")):
        store = write_store(tmp_path / f"{labels[0]}.h5", separable([0] * 8), labels)
        assert run("fit-svm", store, "--out", tmp_path / "new" / "c.featx") == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert said in err
    assert not (tmp_path / "new").exists()


def test_features_of_random_weights_are_refused(gallery, tmp_path, capsys):
    """Features of untrained weights give no classifier by mistake: exit 3, unless that is meant."""
    assert run("fit-svm", gallery.store, "--out", tmp_path / "c.featx") == 3
    err = capsys.readouterr().err
    assert "untrained weights (random:0)" in err
    assert "--allow-random" in err
    assert not (tmp_path / "c.featx").exists()
    assert run("fit-svm", gallery.store, "--out", tmp_path / "c.featx", "--allow-random") == 0


def test_an_existing_file_needs_overwrite(store, tmp_path, capsys):
    """``--out`` that is there is exit 3 before anything is fitted; ``--overwrite`` replaces it."""
    out = tmp_path / "c.featx"
    out.write_text("precious")
    assert run("fit-logistic", store, "--out", out) == 3
    assert capsys.readouterr().out == ""
    assert out.read_text() == "precious"
    assert run("fit-logistic", store, "--out", out, "--overwrite") == 0
    assert load_bundle(out).class_names == ("a", "b", "c")


def test_missing_folders_are_made(store, tmp_path):
    """The folder of ``--out`` need not exist, as with extract."""
    assert run("fit-logistic", store, "--out", tmp_path / "new" / "deep er" / "c.featx") == 0
    assert load_bundle(tmp_path / "new" / "deep er" / "c.featx").class_names == ("a", "b", "c")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--scale", "log"), "allowed are none, zscore, minmax, l2, sqrt"),
        (("--reduce", "pca:x"), "pca:128"),
        (("--cv", "1"), "at least 2 folds"),
        (("--seed", "-1"), "--seed -1 is not from 0 to"),
        (("--seed", str(2**32)), "is not from 0 to"),
        (("--held-out", "0"), "give a share such as 0.2"),
        (("--held-out", "1"), "give a share such as 0.2"),
        (("--held-out", "nan"), "give a share such as 0.2"),
        (("--jobs", "0"), "1 or more"),
        (("--layer", "nothing"), "The store holds: penultimate@avg"),
    ],
)
def test_wrong_options(options, said, store, tmp_path, capsys):
    """A value that makes no sense is exit 2 with what is allowed, and leaves nothing behind."""
    assert run("fit-svm", store, "--out", tmp_path / "new" / "c.featx", *options) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert list(tmp_path.iterdir()) == []


def test_other_files_than_stores(gallery, tmp_path, capsys):
    """A file that is no store is called what it is."""
    out = ("--out", tmp_path / "c.featx")
    assert run("fit-svm", gallery.classifier, *out) == 2
    assert "is a classifier (.featx), not a store of features (.h5)" in capsys.readouterr().err
    assert run("fit-svm", gallery.photos, *out) == 2
    assert "is a folder, not a store" in capsys.readouterr().err
    assert run("fit-svm", tmp_path / "nothing.h5", *out) == 2
    assert "There is no store at" in capsys.readouterr().err


def test_embedded_weights_make_the_file_whole(gallery, tmp_path, capsys):
    """``--embed-weights`` puts the network's weights into the classifier."""
    out = tmp_path / "c.featx"
    assert run("fit-svm", gallery.store, "--out", out, "--allow-random", "--embed-weights") == 0
    bundle = load_bundle(out)
    assert len(bundle.weights) > 100_000
    capsys.readouterr()
    assert run("info", out) == 0
    assert "weights of the network: inside this file" in capsys.readouterr().out
