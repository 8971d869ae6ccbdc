"""``featx roads``: the table that it prints, its JSON, and what it refuses."""

from __future__ import annotations

import json

import pytest
from fake_backbone import write_pictures
from gallery import run

from featx.workflows import tuning_outcome

NETWORK = ("--model", "test_resnet", "--weights", "random:0", "--size", 32, "--layers", "layer4")
QUICK = ("--batch-size", 8, "--epochs", 1, "--no-check")


@pytest.fixture(autouse=True)
def _undrawn(monkeypatch):
    """Leave out the drawing of curves, which takes longer than the training."""
    monkeypatch.setattr(tuning_outcome, "save_curves", lambda *_args, **_named: None)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of 24 pictures of three classes."""
    return write_pictures(tmp_path_factory.mktemp("roads") / "photos")


def test_the_table_and_the_next_command(photos, tmp_path, capsys):
    """A line a road with its accuracy, the files, and a command that works."""
    out = tmp_path / "my roads"
    assert run("roads", photos, "--out", out, *NETWORK, *QUICK, "--roads", "frozen,minimum") == 0
    text = capsys.readouterr().out
    accuracies = {road["road"]: road["evaluation"]["accuracy"] for road in json.loads((out / "roads.json").read_text())}
    rows = {line.split()[0]: line for line in text.splitlines() if line.startswith(("frozen", "minimum "))}
    assert rows.keys() == accuracies.keys() == {"frozen", "minimum"}
    assert all(f"{accuracies[name]:.3f}" in row for name, row in rows.items())
    assert f"next: featx predict '{out}/" in text
    best = max(accuracies, key=accuracies.get)
    assert run("predict", out / best / "classifier.featx", photos / "red" / "000.jpg", "--weights", "random:0") == 0


def test_json_is_the_roads(photos, tmp_path, capsys):
    """``--json`` prints what roads.json holds, and nothing else."""
    out = tmp_path / "roads"
    assert run("roads", photos, "--out", out, *NETWORK, *QUICK, "--roads", "minimum", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((out / "roads.json").read_text())
    assert printed[0].keys() >= {"road", "evaluation", "svm_accuracy", "gain", "seconds"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--roads", "frozen,halfway"], "--roads names 'halfway'; allowed: frozen, minimum, partial, total, scratch"),
        (["--roads", ","], "--roads names nothing; allowed"),
        (["--epochs", 0], "epochs 0 is too small"),
        (["--augment", "swirl"], "augment 'swirl' is unknown"),
        (["--lr-scale", "a,b"], "--lr-scale a,b is no list of numbers"),
    ],
)
def test_bad_options_are_refused_before_any_work(photos, tmp_path, capsys, options, said):
    """Each is exit 2 with what was given and what is allowed, and leaves no folder behind."""
    assert run("roads", photos, "--out", tmp_path / "roads", *options) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "roads").exists()


def test_a_file_in_the_place_of_the_folder_is_refused(photos, tmp_path, capsys):
    """--out is a folder."""
    (tmp_path / "roads").write_text("mine")
    assert run("roads", photos, "--out", tmp_path / "roads") == 2
    assert "is a file; give the name of a folder" in capsys.readouterr().err


def test_the_frozen_road_alone_has_the_seed(photos, tmp_path, capsys):
    """``--seed`` draws the images of the frozen road, too, where nothing is trained."""
    assert run("roads", photos, "--out", tmp_path / "out", *NETWORK, *QUICK, "--roads", "frozen", "--seed", 5) == 0
    assert "stratified, seed 5)" in capsys.readouterr().out


def test_a_store_says_its_layers_and_costs_no_seconds(photos, tmp_path, capsys):
    """Beside a store ``--layers`` is refused; and its features count for nothing, which is said."""
    network = NETWORK[: NETWORK.index("--layers")]
    assert run("extract", photos, "--out", tmp_path / "f.h5", *network, "--layers", "layer4,penultimate") == 0
    out = tmp_path / "out"
    assert run("roads", tmp_path / "f.h5", "--out", out, *QUICK, "--layers", "layer4") == 2
    assert "--layers does not go with it" in capsys.readouterr().err
    assert run("roads", tmp_path / "f.h5", "--out", out, *QUICK, "--weights", "random:0", "--roads", "minimum") == 0
    note = "seconds leave out features that were there already"
    assert f"note: {note}" in capsys.readouterr().out
    assert (out / "roads.md").read_text().endswith(f"\n{note}\n")


def test_what_a_killed_run_leaves_is_in_nobodys_way(photos, tmp_path):
    """Drafts of features and tables beside the results do not stop the command from being repeated."""
    out = tmp_path / "out"
    (out / "features.h5.parts").mkdir(parents=True)
    for name in ("features.h5.tmp-1-2@here", ".roads.0a1b2c.json"):
        (out / name).write_bytes(b"half")
    assert run("roads", photos, "--out", out, *NETWORK, *QUICK, "--roads", "minimum") == 0


def test_a_folder_with_other_things_is_refused(photos, capsys):
    """Roads are not laid among other things, such as the images themselves."""
    assert run("roads", photos, "--out", photos, *NETWORK, *QUICK) == 3
    assert "is a folder with other things in it (blue)" in capsys.readouterr().err
