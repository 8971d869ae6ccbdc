"""``featx advise``: from images or a store to what is printed, saved, refused, and can be typed next."""

from __future__ import annotations

import json
import shlex
import shutil

import numpy as np
import pytest
from fake_backbone import write_pictures
from gallery import NETWORK, make_gallery, run
from layered_stores import write_layers

from featx.advice import Similarity, evidence
from featx.commands.command_line import make_parser
from featx.store import FeatureStore
from featx.workflows import advising

RANDOM = (*NETWORK, "--allow-random")
KNOWN = Similarity(0.2, (0.1, 0.3), "different", "batch-norm statistics", "measured", 24, (), None)


@pytest.fixture(autouse=True, scope="module")
def quick():
    """Folds are drawn once, and the similarity is known."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evidence, "_REPEATS_OF_FEW", 1)
        patch.setattr(advising, "measure_similarity", lambda *_, **__: KNOWN)
        yield


@pytest.fixture(scope="module")
def gallery(tmp_path_factory):
    """Pictures and a store of two layers; not to be changed."""
    return make_gallery(tmp_path_factory.mktemp("gallery"))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store of four layers whose second is the best by far; not to be changed, but for pages beside it."""
    return write_layers(tmp_path_factory.mktemp("store") / "my set.h5")


def as_json(capsys, *arguments):
    """Return what ``featx advise`` prints with ``--json``."""
    assert run("advise", *arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_text_has_the_road_the_reasons_the_layers_and_the_commands(store, tmp_path, capsys):
    """Quadrant and strategy come first, then every layer with a line, then what may be typed; the page is saved."""
    page = tmp_path / "p.html"
    assert run("advise", store, "--html", page) == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert lines[0] == "quadrant: small-different"
    assert lines[1].startswith("strategy: early-linear, a linear head on earlier features, blocks.")
    for key in ("blocks.0", "blocks.2", "blocks.4", "penultimate"):
        assert any(line.removeprefix("->").split()[:1] == [key] for line in lines)
    assert {"risks:", "also worth trying:", "commands:"} <= set(lines)
    assert lines[-1] == f"saved {page}"
    assert page.read_text().startswith("<!DOCTYPE html>")


def test_every_command_can_be_typed(store, capsys):
    """Each command is one that the parser takes as it stands; the advised one fits and scores."""
    values = as_json(capsys, store, "--no-html", "--seed", 3)
    commands = [entry["command"] for entry in values["commands"]]
    verbs = [shlex.split(command)[1] for command in commands]
    assert verbs == ["fit-svm", "compare"]  # there are no images behind this store to train on
    assert "does not exist" in values["no_fine_tuning"]
    for command in commands:
        program, *arguments = shlex.split(command)
        assert program == "featx"
        parsed = vars(make_parser().parse_args(arguments))
        assert str(store) in (parsed.get("store"), parsed.get("source"))
        assert parsed["seed"] == 3
    assert run(*shlex.split(commands[0])[1:]) == 0
    assert store.with_suffix(".featx").exists()


def test_json_has_the_promised_shape(gallery, capsys):
    """One object; ``similarity`` is a number, ``layers`` a list, and the page is named."""
    values = as_json(capsys, gallery.store, "--allow-random")
    assert (values["similarity"], values["quadrant"], values["between"]) == (0.2, "small-different", False)
    assert values["strategy"] in ("early-linear", "late-linear")
    assert [layer["layer"] for layer in values["layers"]][:2] == ["blocks.2@avg", "penultimate@avg"]
    assert values["html"] == str(gallery.store.with_suffix(".advice.html"))
    assert values["store"] == str(gallery.store)


def test_images_become_a_store_that_is_continued(tmp_path, monkeypatch, capsys):
    """The store has the images' name, all stages and the last layer; a repeated advice computes nothing again."""
    write_pictures(tmp_path / "photos", n_each=4)
    monkeypatch.chdir(tmp_path)
    assert run("advise", "photos", *RANDOM) == 0
    assert "0 known" not in capsys.readouterr().err
    with FeatureStore(tmp_path / "photos.h5") as made:
        assert made.rows == 12
        assert "penultimate@avg" in made.keys
        assert len(made.keys) > 3
    before = (tmp_path / "photos.h5").read_bytes()
    assert run("advise", "photos", *RANDOM) == 0
    assert "12 images, 12 known already" in capsys.readouterr().err
    assert (tmp_path / "photos.h5").read_bytes() == before
    assert (tmp_path / "photos.advice.html").exists()


def test_roads_are_offered_where_they_can_be_walked(tmp_path, monkeypatch, capsys):
    """With the images there, the command has their network's weights; once they are gone, why there is none is said."""
    write_pictures(tmp_path / "photos", n_each=4)
    monkeypatch.chdir(tmp_path)
    values = as_json(capsys, "photos", "--no-html", *RANDOM)
    assert values["no_fine_tuning"] is None
    (roads,) = (entry["command"] for entry in values["commands"] if entry["command"].startswith("featx roads"))
    assert "--weights random:0" in roads
    quick = ["--roads", "minimum", "--epochs", "1", "--no-check"]
    assert run(*shlex.split(roads)[1:], *quick) == 0
    capsys.readouterr()
    (tmp_path / "photos").rename(tmp_path / "elsewhere")
    assert run("advise", "photos.h5", "--no-html", "--allow-random") == 0
    out = capsys.readouterr().out
    assert "note: no command trains the network, since" in out
    assert not any(f"featx {verb}" in out for verb in ("roads", "finetune"))


def test_images_without_labels_have_an_advice(tmp_path, capsys):
    """Size and similarity are enough for a road; no command can be typed yet, and the next step is said."""
    photos = write_pictures(tmp_path / "photos", n_each=2)
    for number, path in enumerate(sorted(photos.glob("*/*"))):
        shutil.move(path, photos / f"{number}{path.suffix}")
    assert run("advise", photos, "--store", tmp_path / "s.h5", "--no-html", *RANDOM) == 0
    out = capsys.readouterr().out
    assert "strategy: early-linear" in out
    assert "There is no evidence by layer" in out
    assert "next: put the images of each class in a folder of its own" in out
    assert "commands:" not in out


def test_images_that_cannot_be_read_are_exit_1(tmp_path, capsys):
    """The others are enough for an advice; the failed ones are listed."""
    photos = write_pictures(tmp_path / "photos", n_each=4)
    (photos / "red" / "bad.png").write_bytes(b"no picture")
    assert run("advise", photos, "--store", tmp_path / "s.h5", "--no-html", *RANDOM) == 1
    out, err = capsys.readouterr()
    assert "strategy:" in out
    assert "1 image could not be read" in err
    assert "red/bad.png" in err


def test_foreign_files_are_refused_before_anything_is_computed(gallery, tmp_path, monkeypatch, capsys):
    """A file that is no store, a store made in another way, and a file that is no page of ours: exit 3."""
    monkeypatch.setattr(advising, "measure_layers", lambda *_, **__: pytest.fail("measured"))
    mine = tmp_path / "mine.html"
    mine.write_text("mine")
    assert run("advise", gallery.photos, "--store", mine, *RANDOM) == 3
    assert run("advise", gallery.store, "--html", mine, "--allow-random") == 3
    other = ("--model", "test_efficientnet", "--weights", "random:1", "--allow-random")
    assert run("advise", gallery.photos, "--store", gallery.store, *other) == 3
    assert mine.read_text() == "mine"
    assert capsys.readouterr().out == ""


def test_only_overwrite_replaces_a_foreign_page(store, tmp_path):
    """With ``--overwrite`` the page goes there; without it a page of ours is replaced all the same."""
    page = tmp_path / "p.html"
    page.write_text("mine")
    assert run("advise", store, "--html", page, "--overwrite") == 0
    assert run("advise", store, "--html", page) == 0
    assert "generator" in page.read_text()


def test_untrained_weights_are_refused_before_the_extraction(tmp_path, capsys):
    """Exit 3, no store, and the word that allows it."""
    photos = write_pictures(tmp_path / "photos", n_each=2)
    assert run("advise", photos, "--store", tmp_path / "s.h5", *NETWORK) == 3
    assert "--allow-random" in capsys.readouterr().err
    assert not (tmp_path / "s.h5").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--model", "resnet18"), "--model is for images"),
        (("--store", "x.h5"), "--store is for images"),
        (("--html", "x.png"), "allowed endings"),
        (("--html", "x.html", "--no-html"), "give one of them"),
        (("--held-out", 2), "--held-out"),
    ],
)
def test_bad_usage_is_exit_2(store, options, said, capsys):
    """What makes no sense is said before anything is measured."""
    assert run("advise", store, *options) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("name", ["nowhere", "nowhere.h5"])
def test_what_is_not_there_is_exit_2(tmp_path, name, capsys):
    """A missing folder or store is named."""
    assert run("advise", tmp_path / name) == 2
    assert name in capsys.readouterr().err


def test_a_classifier_is_no_source(gallery, capsys):
    """What is neither images nor a store is told what is wanted."""
    assert run("advise", gallery.classifier) == 2
    assert "neither images nor a store" in capsys.readouterr().err


def test_uneven_classes_are_weighed_and_one_layer_has_more_to_come(tmp_path, capsys):
    """Commands that learn have ``--balanced``, and a store of one layer gets the command that adds layers."""
    labels = np.repeat([0, 1], [30, 8])
    features = {"penultimate@avg": np.random.default_rng(0).normal(size=(38, 5)).astype(np.float32)}
    values = as_json(capsys, write_layers(tmp_path / "s.h5", labels, features), "--no-html")
    commands = {entry["for"]: entry["command"] for entry in values["commands"]}
    learning = [command for command in commands.values() if not command.startswith("featx extract")]
    assert len(learning) >= 2
    assert all("--balanced" in command for command in learning)
    network = "--model hf-hub:nobody/nothing --weights w.pth --size 160"
    assert commands["more layers"].endswith(f"--layers all-stages,penultimate {network}")
