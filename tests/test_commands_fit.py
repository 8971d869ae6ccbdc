"""The ``fit-`` verbs: JSON, report, refusals, the choice of a layer, copies and groups, and what is saved."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from gallery import make_gallery, run, separable, write_store
from layered_stores import LABELS as LAYERED
from layered_stores import layered, spoiled, write_layers, write_patients
from PIL import Image, ImageFilter

from featx.bundle import load_bundle
from featx.commands.fitting import _choice_lines
from featx.comparison import LayerChoice, LayerScore
from featx.heads import split_rows, wilson_interval
from featx.images import list_images
from featx.store import FeatureStore
from featx.workflows.labelled_rows import labelled_rows
from featx.workflows.predicting import predict_images
from featx.workflows.stored_features import read_reducer

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
        ("fit-ridge", (), "ridge", {"alpha"}),
        ("fit-knn", (), "knn", {"n_neighbors"}),
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
    assert "svm on penultimate (6 wide), scaled by zscore" in text
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
        (("--prefer", "worst", "--layer", "auto"), "--prefer worst is unknown; give best or cheap"),
        (("--prefer", "cheap"), "give --layer auto"),
        (("--layer", "penultimate+penultimate@avg"), "names the same features twice"),
        (("--layer", "penultimate+"), "The store holds: penultimate@avg"),
        (("--groups", "patient"), "is no CSV"),
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


def fitted(capsys, verb, store, out, *options):
    """Return what a ``fit-`` verb prints with ``--json``."""
    assert run(verb, store, "--out", out, "--overwrite", "--json", *options) == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture(scope="module")
def layers(tmp_path_factory):
    """A store of four layers, of which ``blocks.2`` is the best; read only."""
    return write_layers(tmp_path_factory.mktemp("layers") / "s.h5")


@pytest.mark.parametrize("verb", ["fit-svm", "fit-logistic", "fit-ridge", "fit-knn", "fit-tree"])
def test_auto_chooses_for_every_head(verb, layers, tmp_path, capsys):
    """``--layer auto`` takes the layer whose classes lie apart, and JSON says what it was chosen from."""
    options = ("--kind", "tree") if verb == "fit-tree" else ()
    result = fitted(capsys, verb, layers, tmp_path / "c.featx", "--layer", "auto", *options)
    choice = result["layer_choice"]
    assert result["layer"] == choice["layer"]
    assert "blocks.2@avg" in result["layer"]
    scores = {score["layer"]: score for score in choice["scores"]}
    assert len(scores) == 4 + 2
    assert min(score["loss"] for score in scores.values()) == 0
    for score in scores.values():
        assert score["loss"] == pytest.approx(max(s["accuracy"] for s in scores.values()) - score["accuracy"])
    assert choice["cheapest"] == scores[choice["cheapest"]["layer"]]
    assert load_bundle(tmp_path / "c.featx").spec.key == result["layer"]
    assert fitted(capsys, verb, layers, tmp_path / "c.featx", *options)["layer_choice"] is None


def test_auto_says_why(layers, tmp_path, capsys):
    """The report begins with the layer, the reason and a table of all layers, then goes on as ever."""
    choice = fitted(capsys, "fit-ridge", layers, tmp_path / "c.featx", "--layer", "auto")["layer_choice"]
    assert run("fit-ridge", layers, "--out", tmp_path / "c.featx", "--overwrite", "--layer", "auto") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "layer blocks.2: the best in cross-validation"
    start = lines.index("layer                              cross-validated  behind the best")
    rows = [line.split() for line in lines[start + 1 : start + 7]]
    names = ["blocks.0", "blocks.2", "blocks.4", "penultimate", "blocks.4+penultimate"]
    assert [row[0] for row in rows] == [*names, "blocks.0+…+penultimate"]
    numbers = [(f"{score['accuracy']:.3f}", f"{score['loss']:.3f}") for score in choice["scores"]]
    assert [tuple(row[-2:]) for row in rows] == numbers
    assert lines[start + 7] == ""
    assert lines[start + 8].startswith("ridge on blocks.2 (6 wide), scaled by zscore: alpha ")
    assert not any(line.startswith("--prefer cheap") for line in lines)


def test_cheap_is_offered_and_taken(tmp_path, capsys):
    """Where a shallower layer is as good, the report names it with its expected loss; ``--prefer cheap`` takes it."""
    good = layered(LAYERED)["blocks.2@avg"]
    store = write_layers(tmp_path / "s.h5", features={"blocks.0@avg": good, "penultimate@avg": good})
    arguments = ("fit-ridge", store, "--out", tmp_path / "c.featx", "--overwrite", "--layer", "auto")
    assert run(*arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [
        "layer penultimate: the best in cross-validation"
        if "the best" in lines[0]
        else "layer penultimate: as good as the best in cross-validation",
        "--prefer cheap would take blocks.0, expected loss 0.0 points",
    ]
    assert run(*arguments, "--prefer", "cheap") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "layer blocks.0: the cheapest that cannot be told from the best, expected loss 0.0 points"
    assert load_bundle(tmp_path / "c.featx").spec.key == "blocks.0@avg"


def test_what_is_dearer_is_not_called_cheap():
    """Where a near-tie went to a layer that costs less than the first of equals, nothing cheaper is offered."""
    names = ("a@avg", "b@avg", "a@avg+b@avg")
    scores = tuple(LayerScore(name, 0.9, 0.0, 0.0) for name in names)
    said = [
        "\n".join(_choice_lines(SimpleNamespace(choice=LayerChoice("b@avg", "good", scores, scores[place]))))
        for place in range(3)
    ]
    assert ["--prefer cheap would take a, expected loss" in text for text in said] == [True, False, False]
    assert ["--prefer" in text for text in said] == [True, False, False]


def test_auto_with_one_layer(store, tmp_path, capsys):
    """A store with one layer has nothing to choose: the report says so, without a table, and JSON stays JSON."""
    assert run("fit-ridge", store, "--out", tmp_path / "c.featx", "--layer", "auto") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "layer penultimate: it is the only one"
    assert lines[1].startswith("ridge on penultimate (6 wide)")
    assert run("fit-ridge", store, "--out", tmp_path / "c.featx", "--overwrite", "--layer", "auto", "--json") == 0
    text = capsys.readouterr().out
    assert "NaN" not in text
    assert json.loads(text)["layer_choice"]["scores"][0]["accuracy"] is None


def test_auto_never_looks_at_held_out_rows(layers, tmp_path, capsys):
    """Noise in place of the held-out features changes the score and not the choice."""
    held_out = split_rows(LAYERED).held_out
    other = write_layers(tmp_path / "s.h5", features=spoiled(layered(LAYERED), held_out))
    results = [fitted(capsys, "fit-svm", path, tmp_path / "c.featx", "--layer", "auto") for path in (layers, other)]
    for key in ("layer_choice", "params", "cv_accuracy"):
        assert results[0][key] == results[1][key]
    assert results[0]["evaluation"]["accuracy"] > results[1]["evaluation"]["accuracy"]


def test_groups_of_a_column(tmp_path, capsys):
    """``--groups`` keeps patients whole; a wrong column is exit 2 and lists those there are."""
    table, store = write_patients(tmp_path)
    plain, grouped = (
        fitted(capsys, "fit-ridge", store, tmp_path / "c.featx", *options) for options in ((), ("--groups", "patient"))
    )
    assert "groups kept whole" in grouped["evaluation"]["on"]
    assert "groups kept whole" not in plain["evaluation"]["on"]
    for prepare, said in ((lambda: None, "path, label, patient"), (table.unlink, "is not there any more")):
        prepare()
        assert run("fit-ridge", store, "--out", tmp_path / "d.featx", "--groups", "doctor") == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert said in err
    assert not (tmp_path / "d.featx").exists()


def texture(seed, tint):
    """Return a picture (96 x 72) of soft blots in a tint of its own class, like no other."""
    random = np.random.default_rng(seed)
    blots = random.integers(0, 256, (6, 8, 3)) * 0.7 + 0.3 * np.array(tint)
    picture = Image.fromarray(blots.astype(np.uint8)).resize((96, 72), Image.Resampling.BICUBIC)
    return picture.filter(ImageFilter.SHARPEN)


TINTS = {"blue": (0, 0, 255), "red": (255, 0, 0)}
N_EACH = 14


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Pictures with a copy and a re-encoding of some, and their stores by the default network; read only.

    ``plain.h5`` is of the folder, without splits. ``split.h5`` is of a CSV in which the copies are on the test side.
    """
    folder = tmp_path_factory.mktemp("real")
    for place, (name, tint) in enumerate(TINTS.items()):
        (folder / "pictures" / name).mkdir(parents=True)
        for number in range(N_EACH):
            texture(100 * place + number, tint).save(folder / "pictures" / name / f"{number:02d}.png")
    red = folder / "pictures" / "red"
    shutil.copy(red / "00.png", red / "copy.png")
    with Image.open(red / "01.png") as picture:
        picture.save(red / "encoded.jpg", quality=85)
    paths = sorted(path.relative_to(folder).as_posix() for path in (folder / "pictures").glob("*/*"))
    tested = [path for path in paths if path[-6:-4] in ("10", "11", "12", "13") or "copy" in path or "encoded" in path]
    lines = [f"{path},{path.split('/')[1]},{'test' if path in tested else 'train'}\n" for path in paths]
    (folder / "split.csv").write_text("path,label,split\n" + "".join(lines))
    for source, store in (("pictures", "plain.h5"), ("split.csv", "split.h5")):
        options = ("--layers", "blocks.1,penultimate", "--batch-size", 8)
        assert run("extract", folder / source, "--out", folder / store, *options) == 0
    return folder


def test_planted_copies_stay_together(real, tmp_path, capsys):
    """The same bytes under two names and a JPEG of a PNG are found; they are on one side, whatever the seed."""
    with FeatureStore(real / "plain.h5") as opened:
        paths = opened.paths.tolist()
        pairs = [
            [next(row for row, path in enumerate(paths) if path.endswith(name)) for name in names]
            for names in (("red/00.png", "copy.png"), ("red/01.png", "encoded.jpg"))
        ]
        for seed in range(8):
            rows = labelled_rows(opened, seed=seed, held_out=0.4)
            for pair in pairs:
                assert np.isin(pair, rows.split.held_out).sum() in (0, 2)
                assert len(set(rows.groups_of(np.array(pair)))) == 1
        assert (rows.groups >= 0).sum() == 4
    result = fitted(capsys, "fit-svm", real / "plain.h5", tmp_path / "c.featx")
    note = (
        "2 of the labelled images repeat another one (1 identical, 1 nearly), in 2 groups: folds keep each group whole"
    )
    assert note in result["notes"]
    assert "groups kept whole" in result["evaluation"]["on"]
    assert result["evaluation_without_copies"] is None
    allowed = fitted(capsys, "fit-svm", real / "plain.h5", tmp_path / "c.featx", "--allow-duplicates")
    assert allowed["notes"] == []
    assert "groups" not in allowed["evaluation"]["on"]


def test_planted_copies_across_a_split_are_reported(real, tmp_path, capsys):
    """The report and JSON have the score without the test images that are copies of training images."""
    result = fitted(capsys, "fit-svm", real / "split.h5", tmp_path / "c.featx")
    evaluation, without = result["evaluation"], result["evaluation_without_copies"]
    assert (evaluation["rows"], without["rows"]) == (10, 8)
    n_correct = round(without["accuracy"] * 8)
    assert without["interval"] == pytest.approx(list(wilson_interval(n_correct, 8)))
    assert np.trace(without["confusion"]) == n_correct
    assert "2 of the 10 images of the test split have copies or near-copies in training" in result["notes"]
    assert run("fit-svm", real / "split.h5", "--out", tmp_path / "c.featx", "--overwrite") == 0
    text = capsys.readouterr().out
    low, high = without["interval"]
    assert (
        f"\nwithout the 2 of them that have a copy in training: accuracy {without['accuracy']:.3f},"
        f" interval {low:.3f} to {high:.3f}\n"
    ) in text
    arguments = ("fit-svm", real / "split.h5", "--out", tmp_path / "c.featx", "--overwrite", "--allow-duplicates")
    assert run(*arguments) == 0
    text = capsys.readouterr().out
    assert "cop" not in text.replace(str(tmp_path), "")
    assert run(*arguments, "--json") == 0
    assert json.loads(capsys.readouterr().out)["evaluation_without_copies"] is None


def predicted(capsys, classifier, folder):
    """Return what ``featx predict`` says of the pictures of a folder: probability by path and class."""
    assert run("predict", classifier, folder, "--json", "--top", len(TINTS)) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return {line["path"]: {entry["class"]: entry["probability"] for entry in line["top"]} for line in lines}


def assert_predicted(capsys, classifier, real, expected):
    """Check that images get the probabilities (n, classes) that are expected of the rows of ``plain.h5``."""
    bundle = load_bundle(classifier)
    shown = predicted(capsys, classifier, real / "pictures")
    entries = list_images(real / "pictures").entries
    in_python = {named.path: dict(named.ranking) for named in predict_images(bundle, entries, n_best=2)}
    assert len(shown) == len(in_python) == len(expected)
    with FeatureStore(real / "plain.h5") as opened:
        paths = opened.paths.tolist()
    for named, tolerance in ((shown, 2e-5), (in_python, 2e-5)):
        by_end = {path: next(values for key, values in named.items() if key.endswith(path)) for path in paths}
        found = np.array([[by_end[path][name] for name in bundle.class_names] for path in paths])
        np.testing.assert_allclose(found, expected, atol=tolerance)
    assert np.ptp(expected) > 0.2


@pytest.mark.parametrize("layer", ["penultimate+blocks.1", "blocks.1+penultimate"])
def test_layers_side_by_side_predict_images(layer, real, tmp_path, capsys):
    """``--layer A+B`` and ``predict``: images get what the pipeline gives columns of A, then of B, of the store."""
    out = tmp_path / "c.featx"
    result = fitted(capsys, "fit-svm", real / "plain.h5", out, "--layer", layer)
    keys = [f"{name}@avg" for name in layer.split("+")]
    assert result["layer"] == "+".join(keys)
    with FeatureStore(real / "plain.h5") as opened:
        both = np.hstack([np.asarray(opened[key]) for key in keys])
    assert_predicted(capsys, out, real, load_bundle(out).pipeline.predict_proba(both))


@pytest.mark.parametrize("by", ["pca:4", "pq:4"])
def test_a_reduced_store_predicts_images(by, real, tmp_path, capsys):
    """A classifier of a reduced store takes images: reducer, then head; ``evaluate`` scores what ``predict`` says."""
    small, out = tmp_path / "small.h5", tmp_path / "c.featx"
    assert run("reduce", real / "plain.h5", "--reduce", by, "--out", small) == 0
    assert run("fit-svm", small, "--out", out, "--embed-weights") == 0
    capsys.readouterr()
    with FeatureStore(small) as opened, FeatureStore(real / "plain.h5") as full:
        features = read_reducer(opened, "penultimate@avg").transform(np.asarray(full["penultimate"]))
        labels = full.labels
    pipeline = load_bundle(out).pipeline
    expected = pipeline[1:].predict_proba(features)
    assert [name for name, _ in pipeline.steps] == ["stored", "scale", "reduce", "head"]
    assert_predicted(capsys, out, real, expected)
    assert run("evaluate", out, real / "pictures", "--json") == 0
    evaluation = json.loads(capsys.readouterr().out)["evaluation"]
    assert evaluation["accuracy"] == pytest.approx((expected.argmax(axis=1) == labels).mean())
    assert evaluation["rows"] == len(labels)
    assert run("fit-svm", small, "--out", tmp_path / "d.featx", "--layer", "blocks.1+penultimate") == 2
    said = "holds reduced features, each layer by itself; several cannot stand side by side"
    assert said in capsys.readouterr().err
    assert not (tmp_path / "d.featx").exists()
