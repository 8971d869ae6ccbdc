"""Hours of work are not lost by a slip: rows that would leave, disks that would fill."""

from __future__ import annotations

import shutil
from collections import namedtuple

import numpy as np
import pytest
from extraction_runs import count_images, extract, make_extraction, segment_digests
from fake_backbone import write_pictures

from featx.errors import StoreError, WouldOverwriteError
from featx.extraction import safeguards
from featx.images import list_images
from featx.store import FeatureStore


@pytest.fixture
def out(tmp_path):
    return tmp_path / "features.h5"


def test_another_source_does_not_push_rows_out(fake_backbone, image_folder, out, tmp_path):
    """A run over another folder is refused with the number of rows that would leave; overwrite allows it."""
    extract(fake_backbone, image_folder, out)
    other = write_pictures(tmp_path / "other", n_each=1, seed=1)
    before = out.read_bytes()
    with pytest.raises(WouldOverwriteError, match=r"21 of its 24 rows are not in .*other; choose another --out"):
        extract(fake_backbone, other, out)
    assert out.read_bytes() == before
    assert not out.with_name("features.h5.parts").exists()
    assert extract(fake_backbone, other, out, overwrite=True).rows == 3


def test_a_source_that_moved_or_grew_is_taken(fake_backbone, image_folder, out, tmp_path, monkeypatch):
    """A folder under another name with the same images, and more, needs no leave and computes only the new ones."""
    extract(fake_backbone, image_folder, out)
    moved = image_folder.rename(tmp_path / "moved")
    (moved / "new").mkdir()
    shutil.copy(write_pictures(tmp_path / "other", n_each=1, seed=1) / "red" / "000.jpg", moved / "new")
    counted = count_images(monkeypatch)
    assert extract(fake_backbone, moved, out).rows == 25
    assert counted == {"penultimate@avg": 1}
    with FeatureStore(out) as store:
        assert store.source == str(moved)


def test_a_limit_does_not_shrink_a_store(fake_backbone, image_folder, out):
    """Rows whose files are there do not leave because fewer images are listed; rows of gone files do."""
    extract(fake_backbone, image_folder, out)
    message = "16 of them are not among the 8 images that a limit chose; leave the limit away"
    with pytest.raises(WouldOverwriteError, match=message):
        extract(fake_backbone, list_images(image_folder, limit=8), out)
    listed = {entry.location for entry in list_images(image_folder, limit=8).entries}
    for entry in list_images(image_folder).entries:
        if entry.location not in listed:
            (image_folder / entry.path).unlink()
    assert extract(fake_backbone, image_folder, out).rows == 8


def test_a_shorter_list_takes_rows_out(fake_backbone, image_folder, out, tmp_path):
    """A list of images is what it says: rows that it no longer names leave."""
    lines = [f"pictures/{entry.path}\n" for entry in list_images(image_folder).entries]
    (tmp_path / "list.csv").write_text("path\n" + "".join(lines))
    extract(fake_backbone, tmp_path / "list.csv", out)
    (tmp_path / "list.csv").write_text("path\n" + "".join(lines[:5]))
    report = extract(fake_backbone, tmp_path / "list.csv", out)
    assert (report.rows, report.n_removed, report.n_computed) == (5, 19, 0)


def test_a_limit_on_a_list_does_not_shrink_a_store(fake_backbone, image_folder, out, tmp_path):
    """A list that is only sampled does not take the other rows out."""
    names = "".join(f"pictures/{entry.path}\n" for entry in list_images(image_folder).entries)
    (tmp_path / "list.csv").write_text("path\n" + names)
    extract(fake_backbone, tmp_path / "list.csv", out)
    with pytest.raises(WouldOverwriteError, match="a limit chose"):
        extract(fake_backbone, list_images(tmp_path / "list.csv", limit=5), out)


def pretend_free(monkeypatch, n_bytes: int) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(safeguards.shutil, "disk_usage", lambda _folder: usage(0, 0, n_bytes))


def test_a_disk_that_would_fill_is_noticed_first(fake_backbone, image_folder, out, monkeypatch):
    """Too little space for segments and store is an error before anything is computed, with both sizes."""
    counted = count_images(monkeypatch)
    pretend_free(monkeypatch, 2 * 24 * (8 * 4 + 256) - 1)
    with pytest.raises(StoreError, match=r"features\.h5 needs about 0 MB while it is written, and 0 MB are free"):
        extract(fake_backbone, image_folder, out)
    assert not counted
    pretend_free(monkeypatch, 2 * 24 * (8 * 4 + 256))
    assert extract(fake_backbone, image_folder, out).rows == 24


def test_a_full_disk_is_no_matter_where_nothing_is_computed(fake_backbone, image_folder, out, monkeypatch):
    """Repeating a finished command works on a full disk."""
    extract(fake_backbone, image_folder, out)
    pretend_free(monkeypatch, 0)
    assert extract(fake_backbone, image_folder, out).n_kept == 24


def test_segments_count_as_done_for_the_disk(fake_backbone, image_folder, out, monkeypatch):
    """What lies in segments already needs space in the store only."""

    def interrupted(*_arguments, **_settings):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("featx.extraction.extracting.merge", interrupted)
        with pytest.raises(KeyboardInterrupt):
            extract(fake_backbone, image_folder, out)
    assert len(segment_digests(out)) == 24
    write_pictures(image_folder / "green", n_each=1, seed=5)
    pretend_free(monkeypatch, (24 + 2 * 3) * (8 * 4 + 256))
    assert make_extraction(fake_backbone, image_folder, out).run().rows == 27


def test_a_damaged_store_is_not_carried_on(fake_backbone, image_folder, out):
    """A store with a flipped byte is refused with the way out, and computed anew where that is asked for."""
    extract(fake_backbone, image_folder, out)
    with FeatureStore(out) as store:
        needle = np.asarray(store["penultimate"])[3].tobytes()
    content = bytearray(out.read_bytes())
    content[content.index(needle)] ^= 1
    out.write_bytes(content)
    with pytest.raises(StoreError, match=r"cannot be continued: /features/penultimate@avg.*give --overwrite"):
        extract(fake_backbone, image_folder, out)
    assert extract(fake_backbone, image_folder, out, overwrite=True).n_computed == 24


def test_an_unfinished_store_says_how_to_go_on(out):
    """Asking for a store whose extraction was interrupted names the remedy."""
    out.with_name(f"{out.name}.parts").mkdir()
    with pytest.raises(StoreError, match="is not finished; repeat the featx extract that began it"):
        FeatureStore(out).rows  # noqa: B018 - opens at first use
