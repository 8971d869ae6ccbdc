"""``featx extract``: what it writes, what it prints where, and how it continues."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from fake_backbone import write_pictures
from gallery import N_IMAGES, NETWORK, run, type_in
from PIL import Image

from featx.backbones import open_backbone
from featx.commands import progress
from featx.extraction import ExtractionProgress, FeatureComputer
from featx.images import list_images
from featx.store import FeatureStore, verify


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Three classes of eight pictures; read only."""
    return write_pictures(tmp_path_factory.mktemp("extract") / "photos")


@pytest.fixture(scope="module")
def done(photos, tmp_path_factory):
    """A store of `photos`; read only."""
    out = tmp_path_factory.mktemp("store") / "f.h5"
    assert run("extract", photos, "--out", out, *NETWORK) == 0
    return out


@pytest.fixture
def store(done, tmp_path):
    """A copy of the store, to be changed."""
    return shutil.copy(done, tmp_path / "f.h5")


def describe(path):
    """Paths, and features of the last layer, of a store."""
    with FeatureStore(path) as opened:
        return opened.paths.tolist(), np.asarray(opened["penultimate"])


def test_extract_writes_a_store_and_says_what_to_do_next(photos, tmp_path, capsys):
    """The summary is on stdout, what is going on is on stderr, and every byte of the store can be verified."""
    out = tmp_path / "my features.h5"
    assert run("extract", photos, "--out", out, *NETWORK) == 0
    printed, progressed = capsys.readouterr()
    assert f"{out}: 24 rows (24 computed, 0 known already)" in printed
    assert "penultimate@avg" in printed
    assert f"next: featx fit-svm '{out}' --out '{tmp_path / 'my features.featx'}'" in printed
    assert "24 images, 3 classes; test_efficientnet, weights random:0" in progressed
    assert verify(out) == []
    assert list(tmp_path.iterdir()) == [out]


def test_rows_belong_to_their_pictures(photos, done):
    """Each row is what the network gives for the picture at its path, computed alone."""
    backbone = open_backbone("test_efficientnet", weights="random:0")
    computer = FeatureComputer(backbone, backbone.select("penultimate").taps)
    paths, features = describe(done)
    assert paths == sorted(paths)
    for row in (0, 7, 8, 23):
        alone, failures = computer.features_of(list_images(photos / paths[row]).entries)
        assert failures == {}
        np.testing.assert_allclose(features[row], alone["penultimate@avg"][0], rtol=1e-4, atol=1e-5)
    with FeatureStore(done) as opened:
        assert [opened.label_names[label] for label in opened.labels] == [path.split("/")[0] for path in paths]


def test_json_is_one_object_on_stdout(photos, tmp_path, capsys):
    """``--json`` prints one object and nothing else."""
    assert run("extract", photos, "--out", tmp_path / "f.h5", "--json", *NETWORK) == 0
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert (report["rows"], report["computed"], report["kept"], report["removed"]) == (24, 24, 0, 0)
    assert report["failures"] == []
    assert [(layer["key"], layer["width"]) for layer in report["layers"]] == [("penultimate@avg", 256)]
    assert report["layers"][0]["megabytes"] == 24 * 256 * 4 / 1e6
    assert report["engine"].endswith("f32")
    assert err == ""


def test_a_dry_run_writes_nothing(photos, tmp_path, capsys):
    """``--dry-run`` says rows, width, megabytes and time, and leaves the folder empty."""
    assert run("extract", photos, "--out", tmp_path / "f.h5", "--dry-run", *NETWORK) == 0
    out = capsys.readouterr().out
    assert "24 rows, 24 of them to be computed" in out
    assert "penultimate@avg    256" in out
    assert "seconds on this machine" in out
    assert run("extract", photos, "--out", tmp_path / "f.h5", "--dry-run", "--json", *NETWORK) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["rows"], plan["to_compute"]) == (24, 24)
    assert plan["minutes"] > 0
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_over_a_store_counts_what_is_missing(photos, store, tmp_path, capsys):
    """What is there already is not counted, and the store stays as it is."""
    before = store.read_bytes()
    shutil.copytree(photos, tmp_path / "photos")
    Image.new("RGB", (30, 20), (1, 2, 3)).save(tmp_path / "photos" / "red" / "new.png")
    assert run("extract", tmp_path / "photos", "--out", store, "--dry-run", "--json", *NETWORK) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["rows"], plan["to_compute"]) == (25, 1)
    assert store.read_bytes() == before


def test_repeating_computes_nothing(photos, store, capsys):
    """The same command again keeps every byte of the store."""
    before = (store.read_bytes(), store.stat().st_mtime_ns)
    assert run("extract", photos, "--out", store, *NETWORK) == 0
    assert "24 rows (0 computed, 24 known already)" in capsys.readouterr().out
    assert (store.read_bytes(), store.stat().st_mtime_ns) == before


def test_only_what_changed_is_computed(photos, done, tmp_path, capsys):
    """A new picture and a changed one are computed, one that is gone leaves, and all others keep their rows."""
    folder, store = shutil.copytree(photos, tmp_path / "photos"), shutil.copy(done, tmp_path / "f.h5")
    paths, features = describe(store)
    Image.new("RGB", (30, 20), (200, 200, 10)).save(folder / "red" / "new.png")
    shutil.copy(folder / "red" / "001.png", folder / "blue" / "001.png")
    (folder / "green" / "000.jpg").unlink()
    # Over another folder of the same pictures: the row that leaves would be one of another source.
    assert run("extract", folder, "--out", store, *NETWORK) == 3
    assert "1 of its 24 rows are not in" in capsys.readouterr().err
    shutil.copy(photos / "green" / "000.jpg", folder / "green" / "000.jpg")
    assert run("extract", folder, "--out", store, *NETWORK) == 0
    assert "25 rows (1 computed, 24 known already)" in capsys.readouterr().out
    (folder / "green" / "000.jpg").unlink()
    assert run("extract", folder, "--out", store, *NETWORK) == 0
    assert "24 rows (0 computed, 24 known already, 1 row of images that are gone removed)" in capsys.readouterr().out
    new_paths, new_features = describe(store)
    assert set(paths) - set(new_paths) == {"green/000.jpg"}
    assert set(new_paths) - set(paths) == {"red/new.png"}
    rows = dict(zip(paths, features, strict=True))
    for path, row in zip(new_paths, new_features, strict=True):
        expected = rows["red/001.png"] if path == "blue/001.png" else rows.get(path)
        assert expected is None or np.array_equal(row, expected)


def test_maps_are_kept_where_they_are_asked_for(photos, store, capsys):
    """``--keep-map`` adds the map of a layer to a store, and says what it costs an image; so does ``featx info``."""
    _, before = describe(store)
    assert run("extract", photos, "--out", store, "--keep-map", "middle", *NETWORK) == 0
    printed = capsys.readouterr().out
    with FeatureStore(store) as opened:
        (info,) = opened.maps.values()
        assert opened.map("middle").layer == info.layer
        rows, columns, channels = info.shape
        assert opened.map()[:].shape == (24, rows, columns, channels)
    assert np.array_equal(describe(store)[1], before)
    n_bytes = rows * columns * channels * 2
    line = f"map of {info.layer}: {rows} x {columns} x {channels}, {n_bytes / 1000:.1f} kB an image"
    assert f"{line}, {24 * n_bytes / 1e6:.2f} MB in all\n" in printed
    assert run("info", store) == 0
    assert f"\n{line}\naliases: middle = {info.layer}\n" in capsys.readouterr().out
    assert run("info", store, "--json") == 0
    described = {"layer": info.layer, "shape": [rows, columns, channels], "dtype": "float16"}
    assert json.loads(capsys.readouterr().out)["maps"] == [{**described, "bytes_per_image": n_bytes}]
    assert verify(store) == []


def test_the_size_of_maps_is_planned(photos, tmp_path, capsys):
    """``--dry-run`` counts the maps; both answers in JSON have their layers, shapes and bytes."""
    options = ("--keep-map", "blocks.2,blocks.1", *NETWORK)
    assert run("extract", photos, "--out", tmp_path / "f.h5", "--dry-run", *options) == 0
    assert "map of blocks.1: " in capsys.readouterr().out
    assert run("extract", photos, "--out", tmp_path / "f.h5", "--dry-run", "--json", *options) == 0
    planned = json.loads(capsys.readouterr().out)["maps"]
    assert [kept["layer"] for kept in planned] == ["blocks.1", "blocks.2"]
    for kept in planned:
        assert kept["bytes_per_image"] == 2 * np.prod(kept["shape"])
        assert kept["megabytes"] == 24 * kept["bytes_per_image"] / 1e6
    assert run("extract", photos, "--out", tmp_path / "f.h5", "--json", *options) == 0
    assert json.loads(capsys.readouterr().out)["maps"] == planned


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("penultimate", "'penultimate' gives a vector of 256 numbers, no spatial map; layers that have one: blocks.0"),
        ("blocks.9", "no layer 'blocks.9'"),
        ("blocks.1@avg", "without a pooling; write blocks.1"),
        ("", "no layer given"),
    ],
)
def test_a_layer_without_a_map_is_bad_usage(photos, tmp_path, capsys, layer, message):
    """A layer that has no map is exit 2 before anything is computed, with the layers that have one."""
    assert run("extract", photos, "--out", tmp_path / "f.h5", "--keep-map", layer, *NETWORK) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_more_layers_join_a_store(photos, store, capsys):
    """More layers on an existing store add them, and leave the others as they were."""
    _, before = describe(store)
    assert run("extract", photos, "--out", store, "--layers", "middle,blocks.4@max", *NETWORK) == 0
    assert "24 computed" in capsys.readouterr().out
    with FeatureStore(store) as opened:
        assert {"blocks.4@max", "penultimate@avg"} < set(opened.keys)
        assert opened["middle"].shape == (24, opened.infos[opened.resolve("middle")].width)
    np.testing.assert_array_equal(describe(store)[1], before)


def test_bad_images_go_to_the_ledger(photos, tmp_path, capsys):
    """An image that cannot be read has no row, is named with its reason on stderr, and makes the exit code 1."""
    folder = shutil.copytree(photos, tmp_path / "photos")
    (folder / "green" / "broken.jpg").write_text("no picture")
    assert run("extract", folder, "--out", tmp_path / "f.h5", *NETWORK) == 1
    out, err = capsys.readouterr()
    assert "24 rows" in out
    assert "broken.jpg" not in out
    assert "1 image could not be read" in err
    assert "green/broken.jpg: not an image" in err
    paths, _ = describe(tmp_path / "f.h5")
    assert len(paths) == 24
    assert "green/broken.jpg" not in paths
    assert run("info", tmp_path / "f.h5", "--failures") == 0
    assert capsys.readouterr().out.startswith("green/broken.jpg: not an image")
    assert run("extract", folder, "--out", tmp_path / "f.h5", "--json", *NETWORK) == 1
    failures = json.loads(capsys.readouterr().out)["failures"]
    assert [failure["path"] for failure in failures] == ["green/broken.jpg"]


def test_many_bad_images_are_cut_short(photos, tmp_path, capsys):
    """Of very many bad images some are shown, with the command that lists all of them."""
    folder = shutil.copytree(photos / "red", tmp_path / "photos")
    for number in range(30):
        (folder / f"bad{number:02d}.jpg").write_text("no picture")
    assert run("extract", folder, "--out", tmp_path / "f.h5", *NETWORK) == 1
    err = capsys.readouterr().err
    assert "30 images could not be read" in err
    assert err.count(": not an image") == 20
    assert f"featx info {tmp_path / 'f.h5'} --failures" in err


def test_strict_stops_at_the_first_bad_image(photos, tmp_path, capsys):
    """``--strict`` names the image and exits with 2; after mending, the same command goes on."""
    folder = shutil.copytree(photos, tmp_path / "photos")
    (folder / "green" / "broken.jpg").write_text("no picture")
    assert run("extract", folder, "--out", tmp_path / "f.h5", "--strict", "--batch-size", 4, *NETWORK) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "green/broken.jpg" in err
    assert "run the same command again" in err
    assert not (tmp_path / "f.h5").exists()
    (folder / "green" / "broken.jpg").unlink()
    assert run("extract", folder, "--out", tmp_path / "f.h5", "--strict", "--batch-size", 4, "--json", *NETWORK) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["rows"] == 24
    assert report["computed"] < 24  # what was computed before the bad image was kept


def test_no_readable_image_is_an_error(tmp_path, capsys):
    """Where nothing can be read there is no store, and the exit code is 2."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "bad.png").write_text("no picture")
    assert run("extract", tmp_path / "photos", "--out", tmp_path / "f.h5", *NETWORK) == 2
    assert "none of the 1 images" in capsys.readouterr().err
    assert not (tmp_path / "f.h5").exists()


def test_another_fingerprint_is_refused(photos, store, capsys):
    """Features made in another way are not mixed: exit 3, the differing field with both values, all as before."""
    before = store.read_bytes()
    other = ("--model", "test_efficientnet", "--weights", "random:1")
    assert run("extract", photos, "--out", store, *other) == 3
    err = capsys.readouterr().err
    assert "weights: expected" in err
    assert "model" not in err
    assert "--overwrite" in err
    assert store.read_bytes() == before
    assert run("extract", photos, "--out", store, "--overwrite", *other) == 0
    with FeatureStore(store) as opened:
        assert opened.fingerprint["weights_source"] == "random:1"


def test_other_files_are_not_taken_for_stores(photos, tmp_path, capsys):
    """A file that is no store is not written over, whatever it is."""
    (tmp_path / "notes.txt").write_text("precious")
    picture = shutil.copy(photos / "red" / "001.png", tmp_path / "p.png")
    for out in (tmp_path / "notes.txt", picture):
        before = out.read_bytes()
        assert run("extract", photos, "--out", out, *NETWORK) == 3
        assert "is no store that could be continued" in capsys.readouterr().err
        assert out.read_bytes() == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--model", "test_eficientnet"), "close: test_efficientnet"),
        ((*NETWORK, "--layers", "block.1"), "close: blocks.1"),
        ((*NETWORK, "--layers", ""), "layer"),
        ((*NETWORK, "--pool", "mean"), "allowed: avg, max"),
        ((*NETWORK, "--engine", "tensorflow"), "allowed: auto, openvino, torch"),
        ((*NETWORK, "--device", "tpu"), "'tpu'"),
        ((*NETWORK, "--precision", "f8"), "allowed: f32, bf16, f16"),
        ((*NETWORK, "--dtype", "float8"), "allowed: float32, float16"),
        ((*NETWORK, "--batch-size", "0"), "--batch-size 0 is not at least 1"),
        ((*NETWORK, "--workers", "-1"), "--workers -1 is not at least 1"),
        ((*NETWORK, "--limit", "0"), "give at least 1"),
        (("--model", "test_efficientnet", "--weights", "nowhere.pth"), "nowhere.pth': no such file"),
        (("--model", "test_efficientnet", "--weights", "random:x"), "such as random:0"),
    ],
)
def test_what_cannot_be_asked_for(options, said, photos, tmp_path, capsys):
    """A wrong option is exit 2, says what is allowed, and leaves nothing behind."""
    assert run("extract", photos, "--out", tmp_path / "f.h5", *options) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert not (tmp_path / "f.h5").exists()


@pytest.mark.parametrize(("given", "said"), [("photo", "did you mean photos in"), ("nowhere", "does not exist")])
def test_a_missing_source(given, said, photos, tmp_path, capsys):
    """A source that is not there is exit 2, with what is there under a like name."""
    assert run("extract", photos.parent / given, "--out", tmp_path / "f.h5") == 2
    assert said in capsys.readouterr().err


def test_limit_takes_an_even_sample(photos, tmp_path):
    """``--limit 6`` of three classes in a row takes two of each."""
    assert run("extract", photos, "--out", tmp_path / "f.h5", "--limit", 6, *NETWORK) == 0
    with FeatureStore(tmp_path / "f.h5") as opened:
        assert np.bincount(opened.labels).tolist() == [2, 2, 2]


def test_limit_does_not_shrink_a_store(photos, store, tmp_path, capsys):
    """A sample over a store of everything is refused: its other rows would be lost."""
    folder = shutil.copytree(photos, tmp_path / "photos")
    assert run("extract", folder, "--out", store, *NETWORK) == 0  # from here on it is a store of this folder
    before = store.read_bytes()
    capsys.readouterr()
    assert run("extract", folder, "--out", store, "--limit", 6, *NETWORK) == 3
    assert "18 of them are not among the 6 images that a limit chose" in capsys.readouterr().err
    assert store.read_bytes() == before


def test_paths_from_standard_input(photos, tmp_path, monkeypatch, capsys):
    """``-`` reads paths; without classes the next step is a search."""
    monkeypatch.chdir(photos)
    type_in(monkeypatch, "red/001.png\nblue/000.jpg\n")
    assert run("extract", "-", "--out", tmp_path / "f.h5", *NETWORK) == 0
    out, err = capsys.readouterr()
    assert "2 images, no classes" in err
    assert "next: featx index" in out
    assert describe(tmp_path / "f.h5")[0] == ["red/001.png", "blue/000.jpg"]


def test_a_csv_gives_labels_and_splits(photos, tmp_path):
    """Labels, splits and groups of a CSV reach the store, in its order."""
    rows = ["path,label,split,group", f"{photos}/red/001.png,warm,train,a", f"{photos}/blue/001.png,cold,test,b"]
    (tmp_path / "list.csv").write_text("\n".join(rows))
    assert run("extract", tmp_path / "list.csv", "--out", tmp_path / "f.h5", *NETWORK) == 0
    with FeatureStore(tmp_path / "f.h5") as opened:
        assert [opened.label_names[label] for label in opened.labels] == ["warm", "cold"]
        assert opened.splits.tolist() == [0, 2]
        assert opened.groups.tolist() == [0, 1]


def test_half_precision_in_the_file(photos, done, tmp_path):
    """``--dtype float16`` keeps the same features rounded to half precision."""
    assert run("extract", photos, "--out", tmp_path / "f.h5", "--dtype", "float16", *NETWORK) == 0
    with FeatureStore(tmp_path / "f.h5") as opened:
        assert opened["penultimate"].dtype == np.float16
        np.testing.assert_allclose(np.asarray(opened["penultimate"]), describe(done)[1].astype(np.float16), rtol=2e-3)


def test_progress_is_a_line_now_and_then_where_there_is_no_terminal(monkeypatch, capsys):
    """Without a terminal, progress is whole lines on stderr, not more often than the interval."""
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0.0)
    with progress.ProgressBar(N_IMAGES) as bar:
        bar(ExtractionProgress(12, N_IMAGES, 12))
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("12/24 images, ")
    assert "minutes left" in err
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 3600.0)
    with progress.ProgressBar(N_IMAGES) as bar:
        bar(ExtractionProgress(13, N_IMAGES, 13))
    assert capsys.readouterr() == ("", "")


def test_progress_is_a_bar_on_a_terminal(monkeypatch, capsys):
    """On a terminal it is a bar with images a second."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with progress.ProgressBar(N_IMAGES) as bar:
        bar(ExtractionProgress(24, N_IMAGES, 24))
    err = capsys.readouterr().err
    assert "24/24" in err
    assert "images/s" in err
