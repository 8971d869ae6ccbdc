"""``featx layers`` and ``featx models``: which networks there are, and what is inside one."""

from __future__ import annotations

import json

import pytest
from gallery import run

from featx.backbones import open_backbone


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
