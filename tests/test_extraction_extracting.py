"""Extraction: right features in the right rows, and only what is missing is computed."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
from extraction_runs import (
    TORCH,
    assert_rows_by_hand,
    by_hand,
    count_images,
    extract,
    make_extraction,
)
from fake_backbone import FAKE_TRANSFORM, FAKE_WIDTHS, FakeNetwork
from PIL import Image

from featx.backbones import open_backbone
from featx.errors import SourceError, UsageError, WouldOverwriteError
from featx.extraction import ComputeOptions
from featx.images import list_images
from featx.store import FeatureStore, verify


@pytest.fixture
def out(tmp_path):
    return tmp_path / "features.h5"


def test_rows_are_the_features_computed_by_hand(fake_backbone, image_folder, out):
    """Every layer of every image equals a plain loop over the images with numpy alone, in listing order."""
    report = extract(fake_backbone, image_folder, out, "stages.1,stages.3,penultimate")
    assert (report.rows, report.n_computed, report.n_kept, report.failures) == (24, 24, 0, ())
    for layer in ("stages.1", "stages.3", "penultimate"):
        assert_rows_by_hand(out, image_folder, layer)
    with FeatureStore(out) as store:
        assert {info.layer: info.width for info in store.infos.values()} == {
            layer: FAKE_WIDTHS[layer] for layer in ("stages.1", "stages.3", "penultimate")
        }
        assert store.sizes.tolist() == [[24, 18]] * 24
        assert store.splits.tolist() == [-1] * 24
    assert verify(out) == []
    assert sorted(path.name for path in out.parent.iterdir()) == ["features.h5", "pictures"]


def test_openvino_computes_the_same_rows(fake_backbone, image_folder, out):
    """The engine of the CPU gives the features computed by hand too, and the report says that it ran."""
    options = ComputeOptions(engine="openvino", batch_size=7, workers=2)
    report = extract(fake_backbone, image_folder, out, options=options)
    assert report.engine == "openvino on cpu, f32"
    assert_rows_by_hand(out, image_folder)


def test_bad_images_have_no_row_and_the_others_keep_theirs(fake_backbone, image_folder, out):
    """Each unreadable image is in the ledger with its reason, and every other row is its own image's."""
    (image_folder / "blue" / "000.jpg").write_bytes(b"")
    (image_folder / "green" / "003.png").write_bytes(b"no picture at all")
    whole = (image_folder / "red" / "006.jpg").read_bytes()
    (image_folder / "red" / "006.jpg").write_bytes(whole[: len(whole) // 2])
    report = extract(fake_backbone, image_folder, out)
    reasons = dict(report.failures)
    assert list(reasons) == ["blue/000.jpg", "green/003.png", "red/006.jpg"]
    assert reasons["blue/000.jpg"] == "empty file"
    assert "not an image" in reasons["green/003.png"]
    assert "truncated" in reasons["red/006.jpg"]
    assert (report.rows, report.n_computed) == (21, 21)
    assert_rows_by_hand(out, image_folder)
    with FeatureStore(out) as store:
        assert store.failures == list(report.failures)


def test_failed_images_are_tried_again(fake_backbone, image_folder, out, monkeypatch):
    """An image that was mended gets its row at the next run, and nothing else is computed."""
    broken = image_folder / "green" / "001.png"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:40])
    extract(fake_backbone, image_folder, out)
    broken.write_bytes(whole)
    counted = count_images(monkeypatch)
    report = extract(fake_backbone, image_folder, out)
    assert counted == {"penultimate@avg": 1}
    assert (report.rows, report.n_kept, report.failures) == (24, 23, ())
    assert_rows_by_hand(out, image_folder)


def test_no_readable_image_is_an_error_and_no_store(fake_backbone, tmp_path, out):
    """Where nothing can be read there is a SourceError with the first reason, and nothing is left behind."""
    (tmp_path / "bad").mkdir()
    for number in range(3):
        (tmp_path / "bad" / f"{number}.jpg").write_bytes(b"nothing")
    with pytest.raises(SourceError, match=r"none of the 3 images of .*bad can be read; 0\.jpg: not an image"):
        extract(fake_backbone, tmp_path / "bad", out)
    assert [path.name for path in tmp_path.iterdir()] == ["bad"]


def test_an_image_that_vanishes_after_listing_is_a_failure(fake_backbone, image_folder, out):
    """A file removed between listing and reading is in the ledger with the system's reason."""
    listing = list_images(image_folder)
    (image_folder / "red" / "002.jpg").unlink()
    report = extract(fake_backbone, listing, out)
    assert report.failures == (("red/002.jpg", "No such file or directory"),)
    assert report.rows == 23


def test_only_new_images_are_computed(fake_backbone, image_folder, out, monkeypatch):
    """Files added to the folder are computed, in their place of the order; the others are copied."""
    extract(fake_backbone, image_folder, out)
    Image.new("RGB", (30, 30), (1, 2, 3)).save(image_folder / "green" / "0000.png")
    Image.new("RGB", (30, 30), (3, 2, 1)).save(image_folder / "red" / "900.png")
    counted = count_images(monkeypatch)
    report = extract(fake_backbone, image_folder, out)
    assert counted == {"penultimate@avg": 2}
    assert (report.rows, report.n_computed, report.n_kept, report.n_removed) == (26, 2, 24, 0)
    assert_rows_by_hand(out, image_folder)


def test_images_that_are_gone_leave(fake_backbone, image_folder, out, monkeypatch):
    """Rows of removed files leave the store without anything being computed."""
    extract(fake_backbone, image_folder, out)
    (image_folder / "blue" / "004.jpg").unlink()
    shutil.rmtree(image_folder / "red")
    counted = count_images(monkeypatch)
    report = extract(fake_backbone, image_folder, out)
    assert not counted
    assert (report.rows, report.n_removed, report.engine) == (15, 9, "")
    assert_rows_by_hand(out, image_folder)


def test_a_changed_image_is_computed_again(fake_backbone, image_folder, out, monkeypatch):
    """A file of the same name with other content gets new features, also with the old time stamp."""
    extract(fake_backbone, image_folder, out)
    changed = image_folder / "blue" / "001.png"
    status = changed.stat()
    Image.new("RGB", (24, 18), (200, 100, 50)).save(changed)
    os.utime(changed, ns=(status.st_atime_ns, status.st_mtime_ns))
    counted = count_images(monkeypatch)
    extract(fake_backbone, image_folder, out)
    assert counted == {"penultimate@avg": 1}
    assert_rows_by_hand(out, image_folder)


def test_a_renamed_image_costs_nothing(fake_backbone, image_folder, out, monkeypatch):
    """A file that moves to another name and class keeps its features and gets its new label."""
    extract(fake_backbone, image_folder, out)
    (image_folder / "blue" / "001.png").rename(image_folder / "red" / "zzz.png")
    counted = count_images(monkeypatch)
    report = extract(fake_backbone, image_folder, out)
    assert not counted
    assert (report.rows, report.n_removed) == (24, 1)
    assert_rows_by_hand(out, image_folder)


def test_labels_and_splits_change_without_computing(fake_backbone, image_folder, out, tmp_path, monkeypatch):
    """A list with other labels, splits and groups rewrites these, and computes nothing."""
    manifest = tmp_path / "list.csv"
    names = [entry.path for entry in list_images(image_folder).entries][:4]
    manifest.write_text("path,label\n" + "".join(f"pictures/{name},a\n" for name in names))
    extract(fake_backbone, manifest, out)
    counted = count_images(monkeypatch)
    rows = zip(names, "bacb", ("train", "test", "", "val"), "xyxx", strict=True)
    lines = [f"pictures/{name},{label},{split},{group}\n" for name, label, split, group in rows]
    manifest.write_text("path,label,split,group\n" + "".join(lines))
    extract(fake_backbone, manifest, out)
    assert not counted
    with FeatureStore(out) as store:
        assert store.label_names == ["a", "b", "c"]
        assert store.labels.tolist() == [1, 0, 2, 1]
        assert store.splits.tolist() == [0, 2, -1, 1]
        assert store.groups.tolist() == [0, 1, 0, 0]
    assert_rows_by_hand(out, manifest)


@pytest.mark.parametrize(
    ("column", "values", "read"),
    [
        ("label", "ba", lambda store: [store.label_names[label] for label in store.labels]),
        ("split", ("test", "val"), lambda store: [("train", "val", "test")[split] for split in store.splits]),
        ("group", "yx", lambda store: ["xy"[group] for group in store.groups]),
    ],
)
def test_each_column_is_followed_by_itself(fake_backbone, image_folder, out, tmp_path, column, values, read):
    """Where nothing but one column of a list changes, the store follows."""
    manifest = tmp_path / "list.csv"
    names = [entry.path for entry in list_images(image_folder).entries][:2]
    for written in (values, values[::-1]):
        lines = [f"pictures/{name},{value}\n" for name, value in zip(names, written, strict=True)]
        manifest.write_text(f"path,{column}\n" + "".join(lines))
        extract(fake_backbone, manifest, out)
        with FeatureStore(out) as store:
            assert read(store) == list(written)


def test_identical_files_are_computed_once(fake_backbone, image_folder, out, monkeypatch):
    """Two files of the same bytes have a row each, of one computation, whether known before or not."""
    counted = count_images(monkeypatch)
    shutil.copy(image_folder / "red" / "000.jpg", image_folder / "blue" / "copy.jpg")
    report = extract(fake_backbone, image_folder, out)
    assert counted == {"penultimate@avg": 24}
    assert (report.rows, report.n_computed) == (25, 24)
    shutil.copy(image_folder / "red" / "001.png", image_folder / "blue" / "again.png")
    assert extract(fake_backbone, image_folder, out).n_computed == 0
    assert_rows_by_hand(out, image_folder)


def test_a_path_listed_twice_has_two_rows(fake_backbone, image_folder, out):
    """A sequence of paths may repeat one; each place has its row."""
    path = image_folder / "red" / "000.jpg"
    other = image_folder / "blue" / "000.jpg"
    report = extract(fake_backbone, list_images([path, other, path]), out)
    assert (report.rows, report.n_computed) == (3, 2)
    with FeatureStore(out) as store:
        features = store["penultimate"][:]
        entries = list_images([path, other, path]).entries
        np.testing.assert_allclose(features, by_hand(list(entries))["penultimate"], rtol=1e-5)


def test_names_that_are_not_utf8_come_back(fake_backbone, image_folder, out):
    """A file whose name is not UTF-8 has its row under the escaped name, and repeating finds it again."""
    try:
        os.rename(image_folder / "red" / "000.jpg", os.fsencode(image_folder / "red") + b"/caf\xe9.jpg")
    except OSError:
        pytest.skip("this file system takes only names in UTF-8")
    extract(fake_backbone, image_folder, out)
    before = out.stat()
    extract(fake_backbone, image_folder, out)
    assert (out.stat().st_ino, out.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    with FeatureStore(out) as store:
        assert "red/caf%E9.jpg" in store.paths.tolist()


def test_more_layers_add_datasets_and_leave_the_old_ones(fake_backbone, image_folder, out, monkeypatch):
    """Asking for another layer computes that alone; the bytes of the first stay, and both names work."""
    extract(fake_backbone, image_folder, out, "middle")
    with FeatureStore(out) as store:
        before = store["stages.2"][:].tobytes()
    counted = count_images(monkeypatch)
    report = extract(fake_backbone, image_folder, out, "early,penultimate")
    assert counted == {"stages.1@avg": 24, "penultimate@avg": 24}
    assert report.rows == 24
    with FeatureStore(out) as store:
        assert store["stages.2"][:].tobytes() == before
        assert store.aliases == {"middle": "stages.2", "early": "stages.1"}
    for layer in ("stages.1", "stages.2", "penultimate"):
        assert_rows_by_hand(out, image_folder, layer)


def test_new_images_get_the_layers_of_the_store_too(fake_backbone, image_folder, out, monkeypatch):
    """A new image gets every feature that the store has, whatever this run asks for."""
    extract(fake_backbone, image_folder, out, "stages.0,penultimate")
    Image.new("RGB", (30, 30), (9, 2, 3)).save(image_folder / "green" / "new.png")
    counted = count_images(monkeypatch)
    extract(fake_backbone, image_folder, out, "stages.1")
    assert counted == {"stages.0@avg": 1, "stages.1@avg": 25, "penultimate@avg": 1}
    for layer in ("stages.0", "stages.1", "penultimate"):
        assert_rows_by_hand(out, image_folder, layer)


def test_nothing_to_do_leaves_the_file_alone(fake_backbone, image_folder, out, monkeypatch):
    """Repeating a finished command opens no engine and does not touch the file."""
    (image_folder / "red" / "bad.jpg").write_bytes(b"")
    extract(fake_backbone, image_folder, out, "early,penultimate")
    before = out.stat()
    monkeypatch.setattr("featx.backbones.open_engine", None)  # would fail where called
    report = extract(fake_backbone, image_folder, out, "penultimate")
    assert (report.n_computed, report.n_kept, report.n_removed) == (0, 24, 0)
    assert len(report.failures) == 1
    after = out.stat()
    assert (after.st_ino, after.st_mtime_ns, after.st_size) == (before.st_ino, before.st_mtime_ns, before.st_size)


def test_one_extraction_can_run_again(fake_backbone, image_folder, out):
    """The same object run twice notices what changed in between, and reports the second run alone."""
    extraction = make_extraction(fake_backbone, image_folder, out)
    assert extraction.run().n_computed == 24
    (image_folder / "red" / "001.png").write_bytes(b"")
    report = extraction.run()
    assert (report.n_computed, report.n_kept, report.rows) == (0, 23, 23)
    assert report.failures == (("red/001.png", "empty file"),)
    assert_rows_by_hand(out, image_folder)


def other_backbone():
    return open_backbone(FakeNetwork(), transform=replace(FAKE_TRANSFORM, interpolation="bilinear"))


def test_features_made_in_another_way_are_refused(fake_backbone, image_folder, out):
    """A store of another transform is refused with both values, and replaced where that is asked for."""
    extract(fake_backbone, image_folder, out)
    before = out.read_bytes()
    with pytest.raises(WouldOverwriteError, match=r'transform.interpolation: expected "bilinear", found "bicubic"'):
        extract(other_backbone(), image_folder, out)
    assert out.read_bytes() == before
    report = extract(other_backbone(), image_folder, out, overwrite=True)
    assert (report.n_computed, report.rows) == (24, 24)
    with FeatureStore(out) as store:
        assert store.fingerprint["transform"]["interpolation"] == "bilinear"


def test_batch_size_order_and_threads_change_nothing(image_folder, tmp_path):
    """Features of an image are the same in any batch, order and number of threads, on a real network."""
    backbone = open_backbone("test_efficientnet", weights="random:0")
    listing = list_images(image_folder)
    backwards = replace(listing, entries=listing.entries[::-1])
    results = []
    for number, (source, batch_size, workers) in enumerate([(listing, 32, 1), (backwards, 5, 3), (listing, 1, 2)]):
        options = ComputeOptions(batch_size=batch_size, workers=workers)
        extract(backbone, source, tmp_path / f"{number}.h5", options=options)
        with FeatureStore(tmp_path / f"{number}.h5") as store:
            results.append(dict(zip(store.paths.tolist(), store["penultimate"][:], strict=True)))
    for path, expected in results[0].items():
        for other in results[1:]:
            assert np.abs(other[path] - expected).max() <= 1e-5 * np.abs(expected).max()


def test_float16_halves_the_file_and_rounds(fake_backbone, image_folder, out):
    """With dtype float16 the stored numbers are the rounded ones, and stay so when the run is repeated."""
    extract(fake_backbone, image_folder, out, dtype="float16")
    with FeatureStore(out) as store:
        features = store["penultimate"][:]
    assert features.dtype == np.float16
    expected = by_hand(list(list_images(image_folder).entries))["penultimate"]
    np.testing.assert_allclose(features.astype(np.float64), expected, rtol=1e-3)
    assert (features.astype(np.float64) != expected).any()


def test_the_plan_counts_and_writes_nothing(fake_backbone, image_folder, out, tmp_path):
    """A plan says how many images are listed and missing, and leaves no file behind."""
    extract(fake_backbone, image_folder, out)
    Image.new("RGB", (30, 30), (9, 2, 3)).save(image_folder / "green" / "new.png")
    (image_folder / "green" / "bad.png").write_bytes(b"")
    before = sorted(tmp_path.rglob("*")), out.stat().st_mtime_ns
    plan = make_extraction(fake_backbone, image_folder, out).plan()
    assert (plan.rows, plan.n_missing) == (26, 2)
    assert plan.minutes > 0
    assert make_extraction(fake_backbone, image_folder, tmp_path / "other.h5").plan().n_missing == 26
    assert (sorted(tmp_path.rglob("*")), out.stat().st_mtime_ns) == before


def test_the_folder_of_the_store_is_made(fake_backbone, image_folder, tmp_path):
    """A store in a folder that does not exist yet is written there."""
    out = tmp_path / "new" / "deeper" / "features.h5"
    extract(fake_backbone, image_folder, out)
    assert_rows_by_hand(out, image_folder)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"dtype": "float8"}, "dtype 'float8' is unknown; allowed: float32, float16"), ({}, "is a folder; give the name")],
)
def test_settings_that_make_no_sense(fake_backbone, image_folder, tmp_path, settings, message):
    """An unknown dtype, and a folder in the place of a file, are named at once."""
    out = tmp_path / "features.h5" if settings else tmp_path
    with pytest.raises(UsageError, match=message):
        make_extraction(fake_backbone, image_folder, out, **settings)


def test_numbers_below_one_are_refused():
    """A batch size or number of threads below 1 is named, not taken for the default."""
    for name in ("batch_size", "workers"):
        with pytest.raises(UsageError, match=f"{name} 0 is not at least 1"):
            replace(TORCH, **{name: 0})


def test_progress_reports_every_image(fake_backbone, image_folder, out):
    """Progress counts up image by image to the end, with the number computed so far."""
    states = []
    extract(fake_backbone, image_folder, out, progress=states.append)
    assert [state.n_done for state in states] == list(range(1, 25))
    assert {state.n_total for state in states} == {24}
    assert [state.n_computed for state in states] == [4 * (done // 4) for done in range(1, 25)]


def test_the_store_says_which_engine_ran(fake_backbone, image_folder, out):
    """A run that has nothing to compute keeps the recorded engine of the run that did."""
    extract(fake_backbone, image_folder, out)
    (image_folder / "red" / "000.jpg").unlink()
    options = ComputeOptions(engine="openvino")
    extract(fake_backbone, image_folder, out, options=options)
    with FeatureStore(out) as store:
        assert store.rows == 23
        assert store.fingerprint["engine"] == "torch"
