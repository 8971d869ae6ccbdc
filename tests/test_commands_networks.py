"""``featx layers`` and ``featx models``: which networks there are, and what is inside one."""

from __future__ import annotations

import json

import pytest
from gallery import run

from featx.backbones import open_backbone
from featx.backbones.timing import Timing


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """The networks that are measured: nothing is run, each takes 40 ms, Xception cannot be run; the cache is empty."""
    asked = []

    def measure(name):
        asked.append(name)
        if name == "legacy_xception":
            raise RuntimeError("out of luck")
        return Timing(40.04, "abacus on table, f32", 8, 3)

    monkeypatch.setenv("FEATX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("featx.backbones.classic_networks.time_network", measure)
    monkeypatch.setattr("featx.backbones.classic_networks.current_load", lambda: 0.1)
    return asked


def test_layers_shows_the_stages_and_what_the_classifier_receives(capsys):
    """By default: the stages in execution order with shape, width, depth and work up to them."""
    assert run("layers", "test_efficientnet") == 0
    first, header, *rows = capsys.readouterr().out.splitlines()
    assert first.startswith("test_efficientnet: input 160x160, ")
    assert header.split() == ["layer", "output", "width", "depth", "GMACs", "up", "to", "it"]
    assert [row.split()[0] for row in rows] == [*(f"blocks.{n}" for n in range(5)), "penultimate"]
    assert rows[2].split()[1:3] == ["32x20x20", "32"]


def test_layers_as_json(capsys):
    """The JSON holds the same; depth and work only grow."""
    assert run("layers", "test_efficientnet", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert set(rows[0]) == {"layer", "pool", "shape", "width", "depth", "gmacs"}
    assert [row["width"] for row in rows] == [16, 24, 32, 48, 64, 256]
    assert rows[2]["shape"] == [32, 20, 20]
    for column in ("depth", "gmacs"):
        values = [row[column] for row in rows]
        assert values == sorted(values)
    assert 0 < rows[0]["depth"] < rows[-1]["depth"] <= 1


def test_layers_of_a_list_and_of_everything(capsys):
    """``--layers`` shows what a list stands for, with its poolings, and ``--all`` every layer that can be tapped."""
    assert run("layers", "test_efficientnet", "--layers", "blocks.*", "--pool", "avg,max") == 0
    names = [row.split()[0] for row in capsys.readouterr().out.splitlines()[2:]]
    assert names == [f"blocks.{n}@{pool}" for n in range(5) for pool in ("avg", "max")]
    assert run("layers", "test_efficientnet", "--all", "--json") == 0
    everything = {row["layer"] for row in json.loads(capsys.readouterr().out)}
    layers = open_backbone("test_efficientnet", weights="random:0").layers
    assert everything == {name for name, layer in layers.items() if not layer.problem}
    assert {"conv_stem", "blocks.2.0", "penultimate", "logits"} <= everything


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("layers", "test_eficientnet"), "close: test_efficientnet"),
        (("layers", "test_efficientnet", "--layers", "block.1"), "close: blocks.1"),
        (("layers", "test_efficientnet", "--layers", "nothing"), "see: featx layers MODEL"),
        (("layers", "test_efficientnet", "--all", "--layers", "blocks.*"), "not allowed with"),
        (("models", "nonsense123"), "no network fits 'nonsense123'"),
        (("models", "eva_giant_patch14_560", "--local"), "with weights on this machine"),
    ],
)
def test_what_is_not_there(arguments, said, capsys):
    """Unknown networks and layers are exit 2, with close names or where to look."""
    assert run(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err


def test_models_shows_sizes_of_a_few(capsys):
    """At most 50 networks are shown with parameters, input size and width."""
    assert run("models", "efficientnet_lite0") == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split() == ["model", "weights", "M", "parameters", "input", "width"]
    shown = {row.split()[0]: row.split()[1:] for row in rows}
    assert shown["tf_efficientnet_lite0"] == ["bundled", "4.7", "224x224", "1280"]
    assert set(shown) == {"efficientnet_lite0", "tf_efficientnet_lite0"}


def test_models_counts_many(capsys):
    """Without a pattern all of timm's networks are listed, without building them."""
    assert run("models") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"{len(lines) - 2} models; name at most 50 to see their sizes"
    assert len(lines) > 1000


def test_models_as_json(capsys):
    """``--json`` is one list; ``--local`` keeps what needs no connection."""
    assert run("models", "--local", "--json", "tf_efficientnet_lite*") == 0
    models = json.loads(capsys.readouterr().out)
    names = {model["name"]: model for model in models}
    assert names["tf_efficientnet_lite0"]["n_parameters"] == 4_652_008
    assert all(model["weights"] in ("bundled", "cache") for model in models)


def test_the_classic_networks_are_one_table(measured, capsys):
    """Keras' figures, what timm has instead, its count of parameters, measured times, and notes below."""
    assert run("models", "--classic") == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert " ".join(header.split()) == "Keras' name MB top-1 top-5 M depth timm's name weights top-1 M input ms"
    rows = {line.split()[0]: line.split()[1:] for line in lines[:12]}
    assert rows["VGG16"] == [
        "528",
        "71.3",
        "90.1",
        "138.4",
        "16",
        "vgg16.tv_in1k",
        "hub",
        "71.6",
        "138.4",
        "224x224",
        "40.0",
    ]
    assert rows["Xception"][-1] == "?"
    assert rows["EfficientNet-Lite0"][:5] == ["–"] * 5
    assert rows["EfficientNet-Lite0"][5:] == ["tf_efficientnet_lite0", "bundled", "74.8", "4.7", "224x224", "40.0"]
    assert len(measured) == len(rows) == 12
    below = lines[12:]
    assert "? Xception: out of luck" in below
    assert any("https://keras.io/api/applications/" in line for line in below)
    assert any("of 8 at a time; abacus on table, f32" in line and "measured now" in line for line in below)
    assert sum(line.startswith("ResNet50, ResNet101, ResNet152: ") for line in below) == 1
    assert not any("busy" in line for line in below)


def test_classic_times_are_remembered(measured, capsys):
    """The second time nothing is measured, and it says so; ``--measure-again`` measures."""
    for arguments, n_measured, said in (
        ((), 1, "measured now, and remembered"),
        ((), 1, "remembered; --measure-again measures anew"),
        (("--measure-again",), 2, "measured now, and remembered"),
    ):
        assert run("models", "vgg19", "--classic", *arguments) == 0
        assert said in capsys.readouterr().out
        assert measured == ["vgg19"] * n_measured


def test_classic_times_that_mislead_or_are_lost_are_said(measured, tmp_path, monkeypatch, capsys):
    """A busy machine and a cache that cannot be written are named in the table; neither is an error."""
    monkeypatch.setattr("featx.backbones.classic_networks.current_load", lambda: 1e3)
    (tmp_path / "cache").write_text("a file where a folder should be")
    assert run("models", "lite0", "--classic") == 0
    out = capsys.readouterr().out
    assert "(not remembered: " in out
    assert "The machine was busy when this was measured (load 1000.0 on " in out
    assert measured == ["tf_efficientnet_lite0"]


@pytest.mark.usefixtures("measured")
def test_classic_networks_as_json(capsys):
    """``--json`` is one object: the machine, and a network with all that is known of it; missing is null."""
    assert run("models", "*tion", "--classic", "--json") == 0
    described = json.loads(capsys.readouterr().out)
    assert set(described) == {"machine", "networks"}
    assert described["machine"]["cores"] >= 1
    (network,) = described["networks"]
    assert (network["name"], network["megabytes"], network["timing"]) == ("Xception", 88, None)
    assert (network["model"], network["n_parameters"]) == ("legacy_xception.tf_in1k", 22_855_952)
    assert network["reason"] == "out of luck"
    assert run("models", "lite0", "--classic", "--json") == 0
    (default,) = json.loads(capsys.readouterr().out)["networks"]
    assert default["timing"]["milliseconds"] == 40.04
    assert default["top1"] is None


def test_what_is_not_classic(measured, capsys):
    """A name that is not in the table is exit 2, and so is measuring again what has no measured times."""
    assert run("models", "alexnet", "--classic") == 2
    assert "no classic network fits 'alexnet'" in capsys.readouterr().err
    assert run("models", "--measure-again") == 2
    assert "--measure-again goes with --classic" in capsys.readouterr().err
    assert run("models", "--classic", "--local") == 0
    assert "EfficientNet-Lite0" in capsys.readouterr().out
    assert "tf_efficientnet_lite0" in measured
