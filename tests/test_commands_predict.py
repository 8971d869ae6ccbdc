"""``featx predict``: classes of files, folders, lists and standard input, in every form of output."""

from __future__ import annotations

import csv
import io
import json
import shutil

import numpy as np
import pytest
from gallery import make_gallery, run, type_in
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_sample_image

from featx.backbones import open_backbone
from featx.bundle import load_bundle
from featx.images import list_images
from featx.store import FeatureStore
from featx.workflows.predicting import predict_images


@pytest.fixture(scope="module")
def gallery(tmp_path_factory):
    """Pictures, store, classifier and index; read only."""
    return make_gallery(tmp_path_factory.mktemp("gallery"))


def json_lines(text):
    return [json.loads(line) for line in text.splitlines()]


def test_one_image_is_one_line(gallery, capsys):
    """A picture gives its path, its class and a probability."""
    picture = gallery.photos / "red" / "001.png"
    assert run("predict", gallery.classifier, picture) == 0
    out, err = capsys.readouterr()
    path, name, probability = out.split()
    assert (path, name) == (str(picture), "red")
    assert 1 / 3 < float(probability) <= 1
    assert err == ""


def test_json_is_one_object_a_line(gallery, capsys):
    """``--json`` prints path, class and probability of every image of a folder, as the head gives them."""
    assert run("predict", gallery.classifier, gallery.photos, "--json") == 0
    lines = json_lines(capsys.readouterr().out)
    assert all(set(line) == {"path", "class", "probability"} for line in lines)
    with FeatureStore(gallery.store) as store:
        expected = load_bundle(gallery.classifier).predict_proba(np.asarray(store["penultimate"]))
        paths = [str(gallery.photos / path) for path in store.paths]
    assert [line["path"] for line in lines] == paths
    assert [line["class"] for line in lines] == [path.split("/")[-2] for path in paths]
    np.testing.assert_allclose([line["probability"] for line in lines], expected.max(axis=1), atol=1e-4)


def test_csv_has_a_header(gallery, capsys):
    """``--csv`` is CSV with the columns path, class and probability."""
    assert run("predict", gallery.classifier, gallery.photos / "blue", "--csv", "--top", 2) == 0
    header, *rows = csv.reader(io.StringIO(capsys.readouterr().out))
    assert header == ["path", "class", "probability"]
    assert len(rows) == 16
    assert [row[1] for row in rows[::2]] == ["blue"] * 8
    assert all(float(first[2]) >= float(second[2]) for first, second in zip(rows[::2], rows[1::2], strict=True))


def test_top_ranks_classes(gallery, capsys):
    """``--top`` shows the most probable classes in order, at most all of them, and they sum to 1."""
    assert run("predict", gallery.classifier, gallery.photos / "red" / "001.png", "--json", "--top", 9) == 0
    (line,) = json_lines(capsys.readouterr().out)
    assert line["top"][0]["class"] == line["class"] == "red"
    probabilities = [entry["probability"] for entry in line["top"]]
    assert probabilities == sorted(probabilities, reverse=True)
    assert len(probabilities) == 3
    assert sum(probabilities) == pytest.approx(1, abs=1e-5)
    assert run("predict", gallery.classifier, gallery.photos / "red" / "001.png", "--top", 2) == 0
    assert len(capsys.readouterr().out.split()) == 5


def test_paths_from_a_list_and_from_standard_input(gallery, tmp_path, monkeypatch, capsys):
    """A list of paths and ``-`` name images, in their order, under the paths that they gave."""
    monkeypatch.chdir(gallery.photos)
    (tmp_path / "list.txt").write_text("red/001.png\ngreen/001.png\n")
    assert run("predict", gallery.classifier, tmp_path / "list.txt", "--json") == 0
    assert [line["path"] for line in json_lines(capsys.readouterr().out)] == ["red/001.png", "green/001.png"]
    type_in(monkeypatch, "blue/000.jpg\nred/001.png\n")
    assert run("predict", gallery.classifier, "-", "--json") == 0
    lines = json_lines(capsys.readouterr().out)
    assert [(line["path"], line["class"]) for line in lines] == [("blue/000.jpg", "blue"), ("red/001.png", "red")]


def test_an_unreadable_image_does_not_stop_the_others(gallery, tmp_path, capsys):
    """Unreadable and missing images go to stderr with a reason, the others are printed, and the exit code is 1."""
    (tmp_path / "broken.png").write_text("no picture")
    arguments = (tmp_path / "broken.png", gallery.photos / "red" / "001.png", tmp_path / "missing.png")
    for options in ((), ("--json",), ("--csv",)):
        assert run("predict", gallery.classifier, *arguments, *options) == 1
        out, err = capsys.readouterr()
        assert "001.png" in out
        assert "broken.png" not in out
        assert "missing.png" not in out
        assert f"{tmp_path / 'broken.png'}: not an image" in err
        assert f"{tmp_path / 'missing.png'}: No such file" in err


def test_only_unreadable_images(gallery, tmp_path, capsys):
    """Where no image can be read, stdout stays empty and the exit code is 2, with either kind of classifier."""
    (tmp_path / "broken.png").write_text("no picture")
    for classifier in ((gallery.classifier,), ("--model", "tf_efficientnet_lite0")):
        assert run("predict", *classifier, tmp_path / "broken.png") == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert "broken.png" in err


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        (("--tta", 5), {"tta": 5}),
        (("--tta", 10, "--tta-combine", "vote"), {"tta": 10, "combine": "vote"}),
    ],
)
def test_views_are_those_of_the_library(options, arguments, gallery, capsys):
    """``--tta`` and ``--tta-combine`` print what `predict_images` gives, and change what is printed without."""
    folder = gallery.photos / "green"
    assert run("predict", gallery.classifier, folder, "--json", *options) == 0
    found = json_lines(capsys.readouterr().out)
    predictions = list(predict_images(load_bundle(gallery.classifier), list_images(folder).entries, **arguments))
    assert [(line["class"], line["probability"]) for line in found] == [
        (prediction.ranking[0][0], round(prediction.ranking[0][1], 6)) for prediction in predictions
    ]
    assert run("predict", gallery.classifier, folder, "--json") == 0
    assert json_lines(capsys.readouterr().out) != found


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "featx predict C.featx IMAGE"),
        (("{classifier}",), "no image given"),
        (("{classifier}", "{photos}", "--top", "0"), "--top 0 is not at least 1"),
        (("{classifier}", "{photos}", "--batch-size", "0"), "--batch-size 0"),
        (("{classifier}", "{photos}", "--tta", "4"), "use 1 (the network's own view); 2 (flip: "),
        (("--model", "tf_efficientnet_lite0", "{photos}", "--tta", "0"), "0 views of an image are not among"),
        (("{classifier}", "{photos}", "--tta-combine", "vote"), "one view has nobody to vote with"),
        (("{classifier}", "{folder}/empty"), "no images in"),
        (("{store}", "{photos}"), "is a store of features (.h5), not a classifier (.featx); make one with"),
        (("{index}", "{photos}"), "is an image index (.index), not a classifier"),
        (("{photos}/red/001.png",), "is a picture, not a classifier"),
        (("{photos}/red/001.png", "{photos}/red/003.png"), "featx predict --model NAME IMAGE"),
        (("nothing.featx", "{photos}"), "nothing.featx: no such file"),
        (("--model", "tf_efficientnet_lite0"), "no image given"),
        (("--model", "tf_efficientnet_lite0", "{classifier}", "{photos}"), "not both"),
        (("--model", "test_eficientnet", "{photos}"), "close: test_efficientnet"),
        (("--model", "test_efficientnet", "--weights", "random:0", "{photos}"), "has no trained classifier"),
    ],
)
def test_what_cannot_be_predicted(arguments, said, gallery, capsys):
    """Wrong arguments are exit 2, with what was given and what to do."""
    (gallery.folder / "empty").mkdir(exist_ok=True)
    places = {name: str(value) for name, value in vars(gallery).items()}
    assert run("predict", *(argument.format(**places) for argument in arguments)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err


def test_another_network_is_refused(gallery, capsys):
    """Weights other than those of the features are exit 3, with both digests."""
    assert run("predict", gallery.classifier, gallery.photos, "--weights", "random:1") == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert "weights: expected" in err


@pytest.mark.parametrize("left_out", ["nothing", "classifier"])
def test_weights_that_moved_are_asked_for(left_out, gallery, tmp_path, monkeypatch, capsys):
    """A classifier or index whose weights file is gone says which, and takes its new place with ``--weights``."""
    monkeypatch.chdir(tmp_path)
    tensors = open_backbone("test_efficientnet", weights="random:5").module.state_dict()
    save_file({name: value for name, value in tensors.items() if not name.startswith(left_out)}, "w.safetensors")
    network = ("--model", "test_efficientnet", "--weights", "w.safetensors")
    assert run("extract", gallery.photos, "--out", "f.h5", *network) == 0
    assert run("fit-svm", "f.h5", "--out", "c.featx") == 0
    assert run("fit-svm", "f.h5", "--out", "whole.featx", "--embed-weights") == 0
    assert run("index", "f.h5", "--out", "f.index") == 0
    shutil.move("w.safetensors", "moved.safetensors")
    picture = gallery.photos / "red" / "001.png"
    for verb in (("predict", "c.featx"), ("query", "f.index")):
        capsys.readouterr()
        assert run(*verb, picture) == 2
        err = capsys.readouterr().err
        assert "w.safetensors" in err
        assert "say where they are now with --weights FILE" in err
        assert run(*verb, picture, "--weights", "moved.safetensors") == 0
        assert "red" in capsys.readouterr().out
        assert run(*verb, picture, "--weights", "nowhere.safetensors") == 2
        assert "nowhere.safetensors': no such file" in capsys.readouterr().err
    (tmp_path / "moved.safetensors").unlink()
    assert run("predict", "whole.featx", picture) == 0
    assert " red " in capsys.readouterr().out


def test_the_pretrained_network_names_its_own_classes(tmp_path, capsys):
    """``predict --model`` takes scikit-learn's photo of the Summer Palace for a palace, without a connection."""
    Image.fromarray(load_sample_image("china.jpg")).save(tmp_path / "china.jpg", quality=95)
    assert run("predict", "--model", "tf_efficientnet_lite0", tmp_path / "china.jpg", "--json", "--top", 3) == 0
    (line,) = json_lines(capsys.readouterr().out)
    assert line["class"] == "palace"
    assert 1 > line["probability"] > line["top"][1]["probability"]
    assert len(line["top"]) == 3
    assert run("predict", "--model", "tf_efficientnet_lite0", tmp_path / "china.jpg", "--json", "--tta", 2) == 0
    (mirrored,) = json_lines(capsys.readouterr().out)
    assert mirrored["class"] == "palace"
    assert mirrored["probability"] != line["probability"]


def test_pictures_are_read_in_blocks(gallery, monkeypatch, capsys):
    """More images than a block holds come out in order, each once, the unreadable one between them too."""
    monkeypatch.setattr("featx.workflows.predicting._BLOCK", 5)
    pictures = [gallery.photos / "red" / "001.png", gallery.photos / "missing.png", gallery.photos / "blue" / "001.png"]
    assert run("predict", gallery.classifier, *pictures * 4, "--json") == 1
    out, err = capsys.readouterr()
    assert [line["class"] for line in json_lines(out)] == ["red", "blue"] * 4
    assert err.count("missing.png") == 4


@pytest.mark.parametrize(
    ("folder", "names"),
    [
        ("grand_piano", ("grand piano", "upright")),
        ("laptop", ("notebook", "laptop")),
    ],
)
def test_photos_of_sure_classes_are_named(folder, names, shared_data, capsys):
    """The pretrained network, as it is, names photos whose ImageNet class is sure; nine in ten of them at least."""
    photos = shared_data / "caltech_10" / "test" / folder
    assert run("predict", "--model", "tf_efficientnet_lite0", photos, "--json") == 0
    named = [json.loads(line)["class"] for line in capsys.readouterr().out.splitlines()]
    assert len(named) == len(list(photos.iterdir()))
    assert sum(name.startswith(names) for name in named) >= 0.9 * len(named)
