"""``featx evaluate``: the report, its JSON, and what is left out, said loudly."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from gallery import make_gallery, run

from featx.bundle import load_bundle
from featx.heads import wilson_interval
from featx.images import list_images
from featx.workflows.evaluating import evaluate_source


@pytest.fixture(scope="module")
def gallery(tmp_path_factory):
    """Pictures, store, classifier and index; read only."""
    return make_gallery(tmp_path_factory.mktemp("gallery"))


@pytest.fixture
def shuffled(gallery, tmp_path):
    """A copy of some pictures, two of them in the folder of another class."""
    for name in ("blue", "green", "red"):
        (tmp_path / "new" / name).mkdir(parents=True)
        for number in ("001", "003", "005"):
            shutil.copy(gallery.photos / name / f"{number}.png", tmp_path / "new" / name)
    for name in ("green", "red"):
        (tmp_path / "new" / name / "001.png").rename(tmp_path / "new" / "blue" / f"{name}.png")
    return tmp_path / "new"


def test_the_report_says_how_good_it_is(gallery, shuffled, capsys):
    """Accuracy with interval, baseline, classes and confusion, in the form of the fit's report."""
    assert run("evaluate", gallery.classifier, shuffled) == 0
    out, err = capsys.readouterr()
    low, high = wilson_interval(7, 9)
    assert err == ""
    assert out.startswith(f"{gallery.classifier} on 9 images of {shuffled} (all images); ")
    assert f"\naccuracy 0.778, 95 % interval {low:.3f} to {high:.3f}\n" in out
    assert "\nalways answering 'blue' would give 0.556\n" in out
    assert f"balanced accuracy {(0.6 + 1 + 1) / 3:.3f}, macro F1 " in out
    assert "\nclass  precision  recall     F1  rows\nblue       1.000   0.600  0.750     5\n" in out
    assert "\ntrue \\ predicted  blue  green  red\nblue                 3      1    1\n" in out
    assert "gain" not in out


def test_json_is_one_object(gallery, shuffled, capsys):
    """``--json`` has classifier, source, the evaluation in its stable shape, and no gain without views."""
    assert run("evaluate", gallery.classifier, shuffled, "--json") == 0
    out, err = capsys.readouterr()
    shown = json.loads(out)
    assert err == ""
    assert (shown["classifier"], shown["source"], shown["split"]) == (str(gallery.classifier), str(shuffled), "all")
    evaluation = shown["evaluation"]
    assert {"accuracy", "interval", "balanced_accuracy", "macro_f1", "rows", "on"} <= set(evaluation)
    assert (evaluation["rows"], evaluation["accuracy"]) == (9, pytest.approx(7 / 9))
    assert np.sum(evaluation["confusion"], axis=1).tolist() == [5, 2, 2]
    assert (shown["tta"], shown["plain"], shown["gain"]) == (1, None, None)
    assert (shown["unlabelled"], shown["unknown"], shown["failures"]) == (0, {}, [])


@pytest.mark.parametrize(("options", "combine"), [((), "mean"), (("--tta-combine", "vote"), "vote")])
def test_views_report_their_gain(options, combine, gallery, shuffled, capsys):
    """With ``--tta`` both scores and the gain are shown, as the library gives them."""
    expected = evaluate_source(load_bundle(gallery.classifier), list_images(shuffled), tta=5, combine=combine)
    assert run("evaluate", gallery.classifier, shuffled, "--tta", 5, *options, "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["evaluation"] == expected.evaluation.to_json()
    assert shown["plain"] == expected.plain.to_json()
    assert shown["gain"] == expected.gain.to_json()
    assert (shown["tta"], shown["combine"]) == (5, combine)
    assert run("evaluate", gallery.classifier, shuffled, "--tta", 5, *options) == 0
    out = capsys.readouterr().out
    how = "mean of their probabilities" if combine == "mean" else "by vote"
    assert f", with 5 views an image (crops: that view and the four corners; {how})\n" in out
    plain, gain = expected.plain, expected.gain
    assert f"\naccuracy {plain.accuracy:.3f}, 95 % interval {plain.interval[0]:.3f} to " in out
    assert f"\ngain {gain.difference:+.3f}, 95 % interval {gain.interval[0]:+.3f} to {gain.interval[1]:+.3f}: " in out
    assert f"better, {gain.n_worse} worse (p {gain.p_value:.3f}" in out


def test_what_is_left_out_is_said(gallery, shuffled, capsys):
    """Unknown classes, unlabelled and unreadable images are counted and named; a broken one makes exit code 1."""
    shutil.copytree(shuffled / "red", shuffled / "orange")
    shutil.copy(shuffled / "red" / "003.png", shuffled / "loose.png")
    (shuffled / "red" / "003.png").write_text("no picture")
    assert run("evaluate", gallery.classifier, shuffled) == 1
    out, err = capsys.readouterr()
    assert "note: left out for a class that the classifier does not know: 2 images, orange (2)\n" in out
    assert "note: left out without a label: 1 image\n" in out
    assert "note: left out because they cannot be read: 1 image\n" in out
    assert " on 8 images of " in out
    assert err.startswith("red/003.png: not an image")
    assert run("evaluate", gallery.classifier, shuffled, "--json") == 1
    out, err = capsys.readouterr()
    shown = json.loads(out)
    assert (shown["unlabelled"], shown["unknown"]) == (1, {"orange": 2})
    assert [failure["path"] for failure in shown["failures"]] == ["red/003.png"]
    assert "red/003.png" in err


def test_splits_and_training_images(gallery, tmp_path, capsys):
    """``--split`` says which images; where training images are among them, the report says that it flatters."""
    for split, numbers in (("train", ("000.jpg", "001.png")), ("test", ("003.png",))):
        for name in ("blue", "green", "red"):
            (tmp_path / "s" / split / name).mkdir(parents=True)
            for number in numbers:
                shutil.copy(gallery.photos / name / number, tmp_path / "s" / split / name)
    for options, n_images, words in (
        ((), 3, "test split"), (("--split", "train"), 6, "train split"), (("--split", "all"), 9, "all images"),
    ):  # fmt: skip
        assert run("evaluate", gallery.classifier, tmp_path / "s", *options) == 0
        out = capsys.readouterr().out
        assert f" on {n_images} images of {tmp_path / 's'} ({words}); " in out
        assert "flatters" not in out
    assert run("evaluate", gallery.classifier, gallery.photos) == 0
    assert "note: the classifier was fitted on images of this very source" in capsys.readouterr().out


def test_a_csv_is_a_source(gallery, tmp_path, capsys):
    """Labels may come from a CSV, and so do splits."""
    rows = [f"{gallery.photos}/{name}/001.png,{name},test" for name in ("blue", "red")]
    rows.append(f"{gallery.photos}/green/001.png,red,train")
    (tmp_path / "new.csv").write_text("\n".join(["path,label,split", *rows]))
    assert run("evaluate", gallery.classifier, tmp_path / "new.csv", "--json") == 0
    evaluation = json.loads(capsys.readouterr().out)["evaluation"]
    assert (evaluation["rows"], evaluation["accuracy"]) == (2, 1.0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("{store}", "{photos}"), "is a store of features (.h5), not a classifier"),
        (("{classifier}", "{folder}/nowhere"), "nowhere does not exist"),
        (("{classifier}", "{photos}/red"), "has a label to score against"),
        (
            ("{classifier}", "{photos}", "--split", "test"),
            "has no test split; found: no splits at all; name another, or all",
        ),
        (("{classifier}", "{photos}", "--split", "dev"), "use one of test, val, train, all"),
        (("{classifier}", "{photos}", "--tta", "4"), "use 1 (the network's own view); 2 (flip: "),
        (("{classifier}", "{photos}", "--tta-combine", "vote"), "one view has nobody to vote with"),
        (("{classifier}", "{photos}", "--tta", "5", "--tta-combine", "median"), "invalid choice: 'median'"),
        (("{classifier}", "{photos}", "--batch-size", "0"), "--batch-size 0"),
    ],
)
def test_what_cannot_be_evaluated(arguments, said, gallery, capsys):
    """Wrong arguments are exit 2, with what was given and what to do."""
    places = {name: str(value) for name, value in vars(gallery).items()}
    assert run("evaluate", *(argument.format(**places) for argument in arguments)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err


def test_another_network_is_refused(gallery, capsys):
    """Weights other than those of the features are exit 3."""
    assert run("evaluate", gallery.classifier, gallery.photos, "--weights", "random:1") == 3
    assert "weights: expected" in capsys.readouterr().err
