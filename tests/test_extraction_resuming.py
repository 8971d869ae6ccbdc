"""What an interruption leaves behind, and how the next run goes on from it."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
from extraction_runs import (
    assert_rows_by_hand,
    count_images,
    extract,
    make_extraction,
    segment_digests,
    stop_after,
)
from fake_backbone import FAKE_TRANSFORM, FakeNetwork

from featx.backbones import open_backbone
from featx.errors import StoreError, WouldOverwriteError
from featx.extraction import BadImageError, ComputeOptions, segment_writer
from featx.store import FeatureStore, open_segments


@pytest.fixture
def out(tmp_path):
    return tmp_path / "features.h5"


def interrupt(backbone, source, out, n_images=14, **settings):
    """Run an extraction that Ctrl-C ends after so many images."""
    with pytest.raises(KeyboardInterrupt):
        extract(backbone, source, out, progress=stop_after(n_images, KeyboardInterrupt()), **settings)


def test_ctrl_c_keeps_what_was_computed(fake_backbone, image_folder, out, monkeypatch):
    """After an interrupt all computed batches are in segments, and the next run computes just the others."""
    counted = count_images(monkeypatch)
    interrupt(fake_backbone, image_folder, out)
    assert counted["penultimate@avg"] == len(segment_digests(out)) == 12
    assert not out.exists()
    report = extract(fake_backbone, image_folder, out)
    assert counted["penultimate@avg"] == 24
    assert (report.n_computed, report.n_kept) == (12, 12)
    assert_rows_by_hand(out, image_folder)
    assert not out.with_name("features.h5.parts").exists()


def test_an_interrupted_run_continues_with_another_batch_size_and_order(
    fake_backbone, image_folder, out, tmp_path, monkeypatch
):
    """Segments serve a run with other batches over a list in another order."""
    interrupt(fake_backbone, image_folder, out, max_segment_rows=3)
    names = sorted((str(path) for path in image_folder.rglob("*.*")), key=lambda name: name[::-1])
    (tmp_path / "list.csv").write_text("path,label\n" + "".join(f"{name},{name.split('/')[-2]}\n" for name in names))
    counted = count_images(monkeypatch)
    options = ComputeOptions(engine="torch", batch_size=5, workers=1)
    extract(fake_backbone, tmp_path / "list.csv", out, options=options)
    assert counted == {"penultimate@avg": 12}
    assert_rows_by_hand(out, tmp_path / "list.csv")


def test_strict_stops_and_keeps_what_is_done(fake_backbone, image_folder, out, monkeypatch):
    """Under strict the first bad image ends the run; what was computed is there for the next one."""
    bad = image_folder / "green" / "003.png"
    whole = bad.read_bytes()
    bad.write_bytes(b"")
    with pytest.raises(BadImageError, match=r"green/003.png: empty file; stopped there because of --strict") as raised:
        extract(fake_backbone, image_folder, out, strict=True)
    assert raised.value.exit_code == 2
    assert not out.exists()
    assert len(segment_digests(out)) == 8  # two batches of four before the twelfth image
    bad.write_bytes(whole)
    counted = count_images(monkeypatch)
    extract(fake_backbone, image_folder, out, strict=True)
    assert counted == {"penultimate@avg": 16}
    assert_rows_by_hand(out, image_folder)


def test_a_full_disk_is_an_error_and_earlier_segments_stay(fake_backbone, image_folder, out, monkeypatch):
    """A segment that cannot be written ends the run with the writer's own error; earlier ones are continued."""
    write_segment = segment_writer.write_segment
    written = []

    def write_two(folder, block, infos, fingerprint):
        if len(written) == 2:
            raise StoreError("the disk is full")
        written.append(write_segment(folder, block, infos, fingerprint))

    monkeypatch.setattr(segment_writer, "write_segment", write_two)
    with pytest.raises(StoreError, match="the disk is full"):
        extract(fake_backbone, image_folder, out, max_segment_rows=4)
    assert len(segment_digests(out)) == 8
    monkeypatch.setattr(segment_writer, "write_segment", write_segment)
    assert extract(fake_backbone, image_folder, out).n_computed == 16
    assert_rows_by_hand(out, image_folder)


@pytest.mark.parametrize("moment", ["merge", "remove_segments"])
def test_an_interrupt_around_the_merge_costs_nothing(fake_backbone, image_folder, out, monkeypatch, moment):
    """Stopped before the store has its name, or before the segments are gone, the next run computes nothing."""

    def interrupted(*_arguments, **_settings):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(f"featx.extraction.extracting.{moment}", interrupted)
        with pytest.raises(KeyboardInterrupt):
            extract(fake_backbone, image_folder, out)
    assert out.exists() == (moment == "remove_segments")
    assert len(segment_digests(out)) == 24
    before = out.stat().st_mtime_ns if out.exists() else None
    counted = count_images(monkeypatch)
    report = extract(fake_backbone, image_folder, out)
    assert not counted
    assert (report.rows, report.n_kept) == (24, 24)
    assert before in (None, out.stat().st_mtime_ns)
    assert not out.with_name("features.h5.parts").exists()
    assert_rows_by_hand(out, image_folder)


def test_an_interrupted_addition_leaves_the_store_as_it_was(fake_backbone, image_folder, out, monkeypatch):
    """While a layer is added the old store stays usable, and an interrupt does not change that."""
    extract(fake_backbone, image_folder, out)
    before = out.read_bytes()
    interrupt(fake_backbone, image_folder, out, layers="stages.1")
    assert out.read_bytes() == before
    counted = count_images(monkeypatch)
    extract(fake_backbone, image_folder, out, "stages.1")
    assert counted == {"stages.1@avg": 12}
    assert_rows_by_hand(out, image_folder, "stages.1")


def test_a_damaged_segment_is_computed_again(fake_backbone, image_folder, out, monkeypatch):
    """One flipped byte in a segment costs the images in it, and no wrong number gets into the store."""
    interrupt(fake_backbone, image_folder, out, max_segment_rows=4)
    segment = sorted(out.with_name("features.h5.parts").glob("*.h5"))[1]
    content = bytearray(segment.read_bytes())
    place = content.find(open_segments(segment.parent)[1].read("penultimate@avg", np.array([0])).tobytes())
    content[place] ^= 255
    segment.write_bytes(bytes(content))
    counted = count_images(monkeypatch)
    extract(fake_backbone, image_folder, out)
    assert counted == {"penultimate@avg": 16}
    assert_rows_by_hand(out, image_folder)


def test_rounded_segments_do_not_get_into_a_full_store(fake_backbone, image_folder, out):
    """Work begun in float16 is not used for a store of float32."""
    interrupt(fake_backbone, image_folder, out, dtype="float16")
    report = extract(fake_backbone, image_folder, out)
    assert report.n_computed == 24
    assert_rows_by_hand(out, image_folder)


def test_unfinished_work_of_another_kind_is_refused(fake_backbone, image_folder, out):
    """Segments of another transform are neither mixed in nor removed, unless the run is to overwrite."""
    interrupt(fake_backbone, image_folder, out)
    other = open_backbone(FakeNetwork(), transform=replace(FAKE_TRANSFORM, interpolation="bilinear"))
    with pytest.raises(WouldOverwriteError, match=r"unfinished work in .*features\.h5\.parts was made in another way"):
        make_extraction(other, image_folder, out)
    make_extraction(other, image_folder, out, overwrite=True).plan()
    assert len(segment_digests(out)) == 12  # a plan removes nothing
    report = extract(other, image_folder, out, overwrite=True)
    assert (report.n_computed, report.rows) == (24, 24)
    assert not out.with_name("features.h5.parts").exists()


def test_an_interrupted_overwriting_run_continues(fake_backbone, image_folder, out, monkeypatch):
    """Repeating a command with overwrite goes on with its own segments, and the old store stays until the end."""
    extract(fake_backbone, image_folder, out)
    other = open_backbone(FakeNetwork(), transform=replace(FAKE_TRANSFORM, interpolation="bilinear"))
    interrupt(other, image_folder, out, overwrite=True)
    with FeatureStore(out) as store:
        assert store.fingerprint["transform"]["interpolation"] == "bicubic"
    counted = count_images(monkeypatch)
    extract(other, image_folder, out, overwrite=True)
    assert counted == {"penultimate@avg": 12}
    with FeatureStore(out) as store:
        assert store.fingerprint["transform"]["interpolation"] == "bilinear"


def test_foreign_files_beside_the_segments_stay(fake_backbone, image_folder, out):
    """A lock left by a killed run does no harm, and a file that is no segment is not removed."""
    parts = out.with_name("features.h5.parts")
    parts.mkdir()
    (parts / "lock").touch()
    (parts / "notes.txt").write_text("mine")
    extract(fake_backbone, image_folder, out)
    assert (parts / "notes.txt").read_text() == "mine"
    shutil.rmtree(parts)
    assert extract(fake_backbone, image_folder, out).n_computed == 0
