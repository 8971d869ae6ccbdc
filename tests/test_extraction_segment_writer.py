"""Rows go to segments in the background, whole batches at a time, and errors of the disk come out."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from featx.errors import StoreError
from featx.extraction import segment_writer
from featx.extraction.loading import LoadedImage
from featx.extraction.segment_writer import SegmentWriter
from featx.store import FeatureInfo, open_segments

INFOS = {
    key: FeatureInfo(key, key.partition("@")[0], "avg", depth, (width,), width, "float32")
    for key, depth, width in (("a@avg", 0.25, 3), ("b@avg", 0.5, 5))
}
FINGERPRINT = {"model": "m", "precision": "f32"}


def add(writer, start: int, n_rows: int = 4, keys: tuple[str, ...] = ("a@avg", "b@avg")) -> None:
    """Give a writer rows whose numbers all say which row they are."""
    numbers = range(start, start + n_rows)
    rows = [LoadedImage(n, bytes([n] * 16), np.zeros((2, 2, 3), np.uint8), bytes([n] * 8), (n, n + 1)) for n in numbers]
    features = [np.array([[n] * INFOS[key].width for n in numbers], np.float32) for key in keys]
    writer.add(keys, [f"{n}.jpg" for n in numbers], rows, features)


def test_all_columns_of_a_row_stay_together(tmp_path):
    """Every row comes back with its own digest, hash, size and features, whatever segment it went to."""
    writer = SegmentWriter(tmp_path, INFOS, FINGERPRINT, max_rows=7)
    for start in range(0, 40, 4):
        add(writer, start)
    writer.close()
    seen = []
    for segment in open_segments(tmp_path):
        rows = np.arange(len(segment))
        numbers = segment.digests[:, 0].tolist()
        seen += numbers
        assert segment.read_phashes(rows)[:, 0].tolist() == numbers
        assert segment.read_sizes(rows).tolist() == [[n, n + 1] for n in numbers]
        for key, info in INFOS.items():
            assert segment.read(key, rows).tolist() == [[float(n)] * info.width for n in numbers]
    assert seen == list(range(40))
    assert len(open_segments(tmp_path)) == 5  # of two batches each


def test_rows_with_other_features_go_to_other_segments(tmp_path):
    """A segment has the same features in all of its rows."""
    writer = SegmentWriter(tmp_path, INFOS, FINGERPRINT)
    add(writer, 0)
    add(writer, 10, keys=("b@avg",))
    add(writer, 20)
    writer.close()
    found = {tuple(segment.infos): segment.digests[:, 0].tolist() for segment in open_segments(tmp_path)}
    assert found == {("a@avg", "b@avg"): [0, 1, 2, 3, 20, 21, 22, 23], ("b@avg",): [10, 11, 12, 13]}


@pytest.mark.parametrize(("name", "value"), [("_SEGMENT_BYTES", 4 * 8 * 4), ("_SEGMENT_SECONDS", -1.0)])
def test_segments_close_by_size_and_by_time(tmp_path, monkeypatch, name, value):
    """A segment is written once it is large or old enough, without waiting for the end."""
    monkeypatch.setattr(segment_writer, name, value)
    writer = SegmentWriter(tmp_path, INFOS, FINGERPRINT)
    for start in (0, 10, 20):
        add(writer, start)
    writer.close()
    assert [len(segment) for segment in open_segments(tmp_path)] == [4, 4, 4]


def test_the_writers_error_comes_out_at_the_next_batch_and_at_the_end(tmp_path, monkeypatch):
    """An error in the writing thread is raised where rows are given, and again when closing; nothing hangs."""
    failed = threading.Event()

    def fail(*_arguments):
        failed.set()
        raise StoreError("the disk is full")

    monkeypatch.setattr(segment_writer, "write_segment", fail)
    writer = SegmentWriter(tmp_path, INFOS, FINGERPRINT, max_rows=1)
    add(writer, 0)
    assert failed.wait(5)
    writer._thread.join(5)
    with pytest.raises(StoreError, match="the disk is full"):
        add(writer, 10)
    with pytest.raises(StoreError, match="the disk is full"):
        writer.close()


def test_a_dead_writer_is_not_waited_for(tmp_path, monkeypatch):
    """Where the thread dies with rows still waiting, closing ends with its error."""
    started, go_on = threading.Event(), threading.Event()

    def fail(*_arguments):
        started.set()
        go_on.wait(5)
        raise MemoryError

    monkeypatch.setattr(segment_writer, "write_segment", fail)
    writer = SegmentWriter(tmp_path, INFOS, FINGERPRINT, max_rows=1)
    for start in (0, 10, 20):
        add(writer, start)
    assert started.wait(5)
    go_on.set()
    with pytest.raises(MemoryError):
        writer.close()


def test_a_writer_without_rows_writes_nothing(tmp_path):
    """Closing an unused writer leaves the folder empty."""
    SegmentWriter(tmp_path, INFOS, FINGERPRINT).close()
    assert list(tmp_path.iterdir()) == []
