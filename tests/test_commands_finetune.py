"""``featx finetune``: what it prints and writes, what it refuses, and that a killed run goes on."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from fake_backbone import write_pictures
from gallery import run, separable, write_store
from PIL import Image

import featx
from featx.finetuning import Training
from featx.store import FeatureStore
from featx.workflows import tuning_outcome

NETWORK = ("--model", "test_resnet", "--weights", "random:0", "--size", 32)
QUICK = ("--batch-size", 8, "--epochs", 2)
MINIMUM = (*QUICK, "--regime", "minimum")
FILES = {"frozen.h5", "tuned.h5", "tuned.safetensors", "classifier.featx", "curves.png", "history.csv", "result.json"}


@pytest.fixture(autouse=True)
def _undrawn_curves(monkeypatch):
    """Leave out the drawing of curves, which takes longer than the training; those of `done` are drawn before that."""
    monkeypatch.setattr(tuning_outcome, "save_curves", lambda *_args, **_named: None)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A finished tuning of 24 pictures of three classes, with what it printed; read only."""
    folder = tmp_path_factory.mktemp("finetune")
    photos, out = write_pictures(folder / "photos"), folder / "my run"
    printed, progressed = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(progressed):
        code = run("finetune", photos, "--out", out, *NETWORK, *QUICK, "--last", 1)
    return SimpleNamespace(
        photos=photos, out=out, store=out / "frozen.h5", code=code, text=printed.getvalue(), err=progressed.getvalue()
    )


@pytest.fixture
def copy(done, tmp_path):
    """The finished folder, to be changed."""
    return Path(shutil.copytree(done.out, tmp_path / "run"))


def refused(capsys, code: int, *arguments) -> str:
    """Run a command that must fail with a code; return its message."""
    assert run("finetune", *arguments) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("featx: ")
    return err


def test_what_is_printed(done):
    """Stdout has the images, what is trained, a line an epoch, the scores and the next command; stderr the source."""
    assert done.code == 0
    lines = done.text.splitlines()
    assert any(line.startswith("check: ") for line in lines) or "warning: " in done.err
    parts = "15 images to learn from, 3 to choose the epoch by (15 % of the others), 6 to score on"
    assert f"{parts} (held-out 20 % of the labelled rows, stratified, seed 0)" in done.text
    assert any(line.startswith("partial: trains ") and line.endswith(" and the head") for line in lines)
    assert "layer4" in done.text
    assert "layer3" not in done.text
    (header,) = (place for place, line in enumerate(lines) if line.split()[:2] == ["epoch", "loss"])
    assert [line.split()[0] for line in lines[header + 1 : header + 3]] == ["1", "2"]
    assert any(line.startswith("best epoch ") and " of 2, by validation accuracy; " in line for line in lines)
    for name in ("frozen features, linear SVM", "partial, softmax", "tuned features, linear SVM"):
        assert any(line.startswith(name) for line in lines)
    assert any(line.startswith("gain over the frozen features ") for line in lines)
    assert any(line.startswith("likeness of the features to those before ") for line in lines)
    assert "under 100, fine-tuning may not converge" in done.text
    assert lines[-1] == f"next: featx predict '{done.out / 'classifier.featx'}' IMAGE..."
    assert "24 images, 3 classes; test_resnet at 32 x 32 pixels, weights random:0" in done.err


def test_balanced_is_passed_on_and_said(done, tmp_path, capsys):
    """``--balanced`` is a setting of the training, and its table says what its numbers mean."""
    few = ["--regime", "minimum", "--epochs", 1, "--no-check"]
    assert run("finetune", done.photos, "--out", tmp_path / "run", *NETWORK, *few, "--balanced") == 0
    assert "classes count alike in these losses and accuracies" in capsys.readouterr().out
    assert json.loads((tmp_path / "run" / "result.json").read_text())["settings"]["class_weight"] == "balanced"


def test_what_is_written(done):
    """The folder holds all that the last lines name, and what a repeated command needs."""
    assert {path.name for path in done.out.iterdir()} == FILES | {"run.json", "state.pt"}
    assert "tuned.safetensors, tuned.h5, classifier.featx (softmax), curves.png, history.csv, result.json" in done.text
    with open(done.out / "history.csv", newline="") as file:
        assert [line["epoch"] for line in csv.DictReader(file)] == ["1", "2"]
    assert (done.out / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_repeated_command_prints_the_same_again(done, copy, capsys, monkeypatch):
    """Nothing is trained or computed again, and every number is as before."""
    monkeypatch.setattr(Training, "_take_step", lambda *_: pytest.fail("took a step"))
    assert run("finetune", done.photos, "--out", copy, *NETWORK, *QUICK, "--last", 1) == 0
    text = capsys.readouterr().out
    assert "going on after epoch 2" in text

    def results(printed: str) -> list[str]:
        lines = printed[printed.index("best epoch") :].splitlines()
        return [line for line in lines if not line.startswith(("saved in", "next:"))]

    assert set(results(done.text)) <= {*results(text), *text.splitlines()}


def test_json_is_one_object_on_stdout(done, copy, capsys):
    """``--json`` prints what result.json holds, with the files, and nothing else."""
    assert run("finetune", done.photos, "--out", copy, *NETWORK, *QUICK, "--last", 1, "--json") == 0
    out, err = capsys.readouterr()
    shown = json.loads(out)
    assert err == ""
    assert shown.pop("files") == {
        "weights": str(copy / "tuned.safetensors"),
        "classifier": str(copy / "classifier.featx"),
    }
    assert shown == json.loads((copy / "result.json").read_text())
    assert shown.keys() >= {
        "settings", "parameters", "epochs", "best_epoch", "stopped", "check", "frozen", "softmax", "svm", "gain",
        "likeness", "frozen_validation_accuracy", "notes", "seconds",
    }  # fmt: skip
    assert shown["settings"]["last"] == 1
    assert shown["parameters"]["trained"] < shown["parameters"]["all"]
    assert [record["epoch"] for record in shown["epochs"]] == [1, 2]
    assert shown["check"].keys() == {"n_images", "n_steps", "accuracy", "passed"}
    for score in ("frozen", "softmax", "svm"):
        assert shown[score].keys() >= {"accuracy", "interval", "balanced_accuracy", "macro_f1", "rows", "on"}


def test_the_classifier_predicts(done, capsys):
    """``featx predict`` takes it with the tuned network, and answers as it does for the stored features."""
    images = [done.photos / name / "000.jpg" for name in ("blue", "red")]
    assert run("predict", done.out / "classifier.featx", *images, "--json") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    bundle = featx.load_bundle(done.out / "classifier.featx")
    with FeatureStore(done.out / "tuned.h5") as tuned:
        rows = [tuned.paths.tolist().index(f"{image.parent.name}/{image.name}") for image in images]
        expected = bundle.pipeline.predict_proba(np.asarray(tuned["penultimate"][:])[rows])
    assert [line["class"] for line in lines] == [bundle.class_names[best] for best in expected.argmax(1)]
    np.testing.assert_allclose([line["probability"] for line in lines], expected.max(1), atol=1e-3)


def test_the_tuned_network_extracts(done, tmp_path):
    """``featx extract --weights`` gives the features of tuned.h5; at another size they would be others."""
    weights = done.out / "tuned.safetensors"
    network = ("--model", "test_resnet", "--weights", weights)
    assert run("extract", done.photos, "--out", tmp_path / "f.h5", *network, "--size", 32) == 0
    with FeatureStore(tmp_path / "f.h5") as again, FeatureStore(done.out / "tuned.h5") as tuned:
        np.testing.assert_allclose(again["penultimate"][:], tuned["penultimate"][:], rtol=1e-4, atol=1e-5)
        assert again.fingerprint["transform"] == tuned.fingerprint["transform"]
        assert again.fingerprint["transform"]["size"] == [32, 32]
    assert run("extract", done.photos, "--out", tmp_path / "f.h5", *network, "--size", 48) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--regime", "half"), "regime 'half' is unknown; allowed: minimum, partial, total"),
        (("--head", "round"), "head 'round' is unknown; allowed: linear, dense"),
        (("--lr", "-1"), "learning rate -1.0 is out of its range"),
        (("--lr", "nan"), "learning rate nan is out of its range"),
        (("--lr-scale", "0.1,x"), "--lr-scale 0.1,x is no list of numbers"),
        (("--lr-scale", "3"), "lr_scale (3.0,) is out of its range"),
        (("--augment", "flip,blur"), "augment 'blur' is unknown; allowed: flip, vflip"),
        (("--optimizer", "lion"), "optimizer 'lion' is unknown; allowed: sgd, adam, adamw, adagrad"),
        (("--schedule", "wave"), "schedule 'wave' is unknown"),
        (("--precision", "f64"), "precision 'f64' is unknown"),
        (("--norm-statistics", "x"), "norm_statistics 'x' is unknown; allowed: frozen, trained"),
        (("--epochs", "0"), "epochs 0 is too small"),
        (("--batch-size", "1"), "batch_size 1 is too small"),
        (("--dropout", "1"), "dropout 1.0 is out of its range"),
        (("--ema", "2"), "ema 2.0 is out of its range"),
        (("--seed", "-1"), "seed"),
        (("--held-out", "1"), "--held-out 1.0 is not between 0 and 1"),
        (("--unfreeze", " , "), "--unfreeze names nothing"),
        (("--regime", "total", "--last", "1"), "unfreeze and last belong to partial"),
    ],
)
def test_bad_options_cost_no_work(tmp_path, capsys, options, message):
    """A value that is not allowed is refused with exit code 2 before anything is opened or written."""
    err = refused(capsys, 2, tmp_path / "nowhere", "--out", tmp_path / "run", *options)
    assert message in err
    assert not (tmp_path / "run").exists()


def test_stages_are_named_in_one_way(done, tmp_path, capsys):
    """--last and --unfreeze exclude each other; stages that are not there are named with those that are."""
    both = ("--last", 1, "--unfreeze", "layer4")
    assert "--unfreeze: not allowed with argument --last" in refused(capsys, 2, done.store, "--out", tmp_path, *both)
    for options, message in (
        (("--last", 9), "test_resnet has 4 stages (layer1, layer2, layer3, layer4), so its last 9 cannot be trained"),
        (("--unfreeze", "layer5"), "nothing that could be trained is called 'layer5' in test_resnet; close: layer"),
    ):
        assert message in refused(capsys, 2, done.store, "--out", tmp_path / "run", "--no-check", *QUICK, *options)


def test_folders_that_are_not_free(done, copy, tmp_path, capsys):
    """A file is exit 2; a folder of other things, or of another training, is exit 3 and stays as it was."""
    (tmp_path / "file").write_text("x")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("x")
    assert "is a file; give the name of a folder" in refused(capsys, 2, done.store, "--out", tmp_path / "file")
    err = refused(capsys, 3, done.photos, "--out", tmp_path / "thesis", *NETWORK)
    assert "is a folder with other things in it (chapter.tex)" in err
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["chapter.tex"]
    before = (copy / "result.json").read_bytes()
    err = refused(capsys, 3, done.store, "--out", copy, *MINIMUM)
    assert "holds a fine-tuning with other" in err
    assert "regime (partial)" in err
    assert (copy / "result.json").read_bytes() == before
    assert run("finetune", done.store, "--out", copy, *MINIMUM, "--overwrite") == 0
    assert {path.name for path in copy.iterdir()} == FILES - {"tuned.h5", "tuned.safetensors", "curves.png"} | {
        "run.json",
        "state.pt",
    }


def test_stores_that_cannot_be_tuned_on(done, tmp_path, capsys):
    """Reduced features, other layers, images that are gone, and a network beside a store are exit 2 with what to do."""
    out = ("--out", tmp_path / "run")
    assert run("reduce", done.store, "--reduce", "pca:4", "--out", tmp_path / "small.h5") == 0
    assert run("extract", done.photos, "--out", tmp_path / "early.h5", *NETWORK, "--layers", "layer2") == 0
    capsys.readouterr()
    assert "holds reduced features; give the store that it was made from" in refused(
        capsys, 2, tmp_path / "small.h5", *out
    )
    err = refused(capsys, 2, tmp_path / "early.h5", *out)
    assert "holds layer2@avg, and not penultimate@avg" in err
    assert "add it with featx extract --layers penultimate" in err
    labels = [row % 2 for row in range(12)]
    store = write_store(tmp_path / "made.h5", separable(labels), labels)
    assert "made" in refused(capsys, 2, store, *out)
    for option in (("--model", "resnet18"), ("--size", 64)):
        err = refused(capsys, 2, done.store, *out, *option)
        assert "names its network itself, so --model and --size do not go with it" in err
    assert not (tmp_path / "run").exists()


def test_one_class_is_not_enough(tmp_path, capsys):
    """A classifier needs two classes; the message says what to add."""
    photos = write_pictures(tmp_path / "photos", n_each=4)
    shutil.rmtree(photos / "red")
    shutil.rmtree(photos / "blue")
    assert run("finetune", photos, "--out", tmp_path / "run", *NETWORK) == 2
    assert "are of the class 'green'" in capsys.readouterr().err


def test_images_that_cannot_be_read_are_listed(tmp_path, capsys):
    """They take no part; the exit code is 1, and stderr names them."""
    photos = write_pictures(tmp_path / "photos", n_each=6)
    (photos / "red" / "broken.jpg").write_bytes(b"no picture")
    Image.new("L", (20, 20), 7).save(photos / "red" / "grey.png")
    assert run("finetune", photos, "--out", tmp_path / "run", *NETWORK, *MINIMUM, "--head", "dense") == 1
    out, err = capsys.readouterr()
    assert "1 image could not be read" in err
    assert "red/broken.jpg" in err
    assert "minimum: trains " in out
    assert "classifier.featx (softmax)" in out
    assert "likeness" not in out  # of a network that stays as it is
    with FeatureStore(tmp_path / "run" / "frozen.h5") as store:
        assert store.rows == 19


def test_a_tuned_network_inside_the_classifier(done, copy, capsys):
    """With ``--embed-weights`` the classifier works without the weights beside it."""
    options = ("--last", 1, "--embed-weights", "--head", "svm")
    assert run("finetune", done.photos, "--out", copy, *NETWORK, *QUICK, *options) == 0
    assert "classifier.featx (a linear SVM on the tuned features)" in capsys.readouterr().out
    (copy / "tuned.safetensors").unlink()
    assert run("predict", copy / "classifier.featx", done.photos / "red" / "000.jpg", "--json") == 0
    assert json.loads(capsys.readouterr().out)["class"] in ("blue", "green", "red")


def test_events_for_tensorboard(done, tmp_path):
    """``--tensorboard`` writes a scalar an epoch that says what history.csv says, and the graph."""
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    out = tmp_path / "run"
    assert run("finetune", done.store, "--out", out, *MINIMUM, "--tensorboard") == 0
    events = event_accumulator.EventAccumulator(str(out / "tensorboard"))
    events.Reload()
    with open(out / "history.csv", newline="") as file:
        expected = [float(line["validation_loss"]) for line in csv.DictReader(file)]
    assert [event.value for event in events.Scalars("loss/validation")] == pytest.approx(expected, rel=1e-6)
    assert [event.step for event in events.Scalars("loss/validation")] == [1, 2]
    assert events.Tags()["graph"]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_a_killed_process_is_continued(done, tmp_path):
    """Killed in mid-training and repeated, it has the curve and the result of a run that nobody disturbed."""
    epochs = 6
    options = ("--batch-size", 2, "--epochs", epochs, "--augment", "flip,mixup", "--ema", 0.9, "--patience", 0)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run("finetune", done.store, "--out", whole, *options) == 0
    command = [sys.executable, "-m", "featx", "finetune", done.store, "--out", killed, *options]
    environment = {**os.environ, "PYTHONPATH": str(Path(featx.__file__).parents[1])}
    with subprocess.Popen(
        list(map(str, command)), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        while process.poll() is None and not (killed / "state.pt").exists():
            time.sleep(0.002)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert not (killed / "result.json").exists()
    assert 1 <= len(curve(killed)) < epochs
    assert run("finetune", done.store, "--out", killed, *options) == 0
    assert curve(killed) == curve(whole)
    assert result(killed) == result(whole)


def curve(folder: Path) -> list[dict[str, str]]:
    """Return history.csv without its seconds."""
    with open(folder / "history.csv", newline="") as file:
        return [{name: value for name, value in line.items() if name != "seconds"} for line in csv.DictReader(file)]


def result(folder: Path) -> dict:
    """Return result.json without its seconds."""
    values = json.loads((folder / "result.json").read_text())
    for record in [values, *values["epochs"]]:
        record.pop("seconds")
    return values
