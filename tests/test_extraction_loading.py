"""Reading ahead: in order, bounded, and never a hang whatever happens in a thread."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from dataclasses import dataclass, replace

import numpy as np
import pytest
from extraction_runs import extract
from fake_backbone import FAKE_TRANSFORM, write_pictures

from featx.errors import ImageError
from featx.extraction.loading import load_images, n_images_ahead, stack_pixels
from featx.extraction.memory_entries import memory_entry
from featx.images import list_images, views_of


@dataclass(frozen=True)
class SlowEntry:
    """An image that counts how often it is read, and takes a while."""

    path: str
    reads: list
    seconds: float = 0.0
    error: BaseException | None = None

    def read(self):
        time.sleep(self.seconds)
        self.reads.append(self.path)
        if self.error:
            raise self.error
        return memory_entry(np.full((9, 9, 3), len(self.path), np.uint8), 0).read()


def n_decoding_threads() -> int:
    return sum(thread.name.startswith("featx-decode") for thread in threading.enumerate())


def test_images_come_in_order_whatever_takes_how_long():
    """Every image comes once and in its place, with the pixels of its own file."""
    reads = []
    entries = [SlowEntry("x" * number, reads, 0.002 * (number % 3)) for number in range(40)]
    loaded = list(load_images(entries, FAKE_TRANSFORM, n_threads=4, n_ahead=7))
    assert [image.index for image in loaded] == list(range(40))
    assert [int(image.pixels.max()) for image in loaded] == list(range(40))
    assert stack_pixels(loaded).shape == (40, 8, 8, 3)
    assert len(reads) == 40


def test_no_more_images_are_read_than_asked_for():
    """While the consumer holds one image, at most so many ahead of it have been read."""
    reads = []
    entries = [SlowEntry("x" * number, reads) for number in range(60)]
    for number, _ in enumerate(load_images(entries, FAKE_TRANSFORM, n_threads=3, n_ahead=5), start=1):
        time.sleep(0.001)
        assert len(reads) <= number + 5


def test_pixels_are_let_go(fake_backbone, tmp_path, monkeypatch):
    """The number of images in memory does not grow with the number of images."""
    alive, most = weakref.WeakSet(), []

    def loading(entries, *arguments, **settings):
        for loaded in load_images(entries, *arguments, **settings):
            alive.add(loaded)
            most.append(len(alive))
            yield loaded

    monkeypatch.setattr("featx.extraction.extracting.load_images", loading)
    extract(fake_backbone, write_pictures(tmp_path / "many", n_each=40), tmp_path / "features.h5")
    assert len(most) == 120
    assert max(most) <= 4 + 1  # one batch, and the one just given


def test_what_is_known_is_not_decoded(image_folder, monkeypatch):
    """An image whose digest is known is read for the digest and nothing more."""
    entries = list_images(image_folder).entries
    known = {entry.read().digest for entry in entries[::2]}
    monkeypatch.setattr("featx.extraction.loading.images.perceptual_hash", lambda _picture: b"\0" * 8)
    loaded = list(load_images(entries, FAKE_TRANSFORM, is_known=known.__contains__))
    assert [image.pixels is None for image in loaded] == [True, False] * 12
    assert [image.digest for image in loaded] == [entry.read().digest for entry in entries]


def test_bad_images_carry_their_reason():
    """An ImageError in a thread becomes the reason of that image; the others come."""
    entries = [SlowEntry("a", []), SlowEntry("b", [], error=ImageError("bad luck")), SlowEntry("c", [])]
    loaded = list(load_images(entries, FAKE_TRANSFORM))
    assert [image.reason for image in loaded] == ["", "bad luck", ""]
    assert loaded[1].pixels is None


def test_other_errors_come_out_and_name_the_image(caplog):
    """An error that is not the image's fault ends the run at that image, is logged with its path, and nothing hangs."""
    entries = [
        SlowEntry(f"{number}.jpg", [], error=OverflowError("a bug") if number == 9 else None) for number in range(50)
    ]
    with caplog.at_level(logging.ERROR, "featx"), pytest.raises(OverflowError, match="a bug"):
        list(load_images(entries, FAKE_TRANSFORM, n_threads=2, n_ahead=10))
    assert "9.jpg could not be prepared" in caplog.text
    assert n_decoding_threads() == 0


def test_closing_early_stops_the_threads():
    """A consumer that stops leaves no thread and no pending image behind."""
    reads = []
    loading = load_images([SlowEntry("x", reads, 0.005)] * 200, FAKE_TRANSFORM, n_threads=2, n_ahead=100)
    next(loading)
    loading.close()
    n_read = len(reads)
    assert n_decoding_threads() == 0
    assert n_read < 20
    time.sleep(0.03)
    assert len(reads) == n_read


def test_an_error_of_the_consumer_stops_the_threads(fake_backbone, image_folder, tmp_path):
    """An interrupt in the middle of an extraction leaves no thread, while its traceback is still held."""

    def stop(_state):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as raised:
        extract(fake_backbone, image_folder, tmp_path / "features.h5", progress=stop)
    assert raised.tb is not None
    assert n_decoding_threads() == 0


def test_reading_ahead_is_bounded_in_bytes():
    """Three batches ahead for usual pictures, less for large ones, and enough for all threads in any case."""
    large = replace(FAKE_TRANSFORM, size=(1024, 1024))
    assert n_images_ahead(32, 2, FAKE_TRANSFORM) == 96
    assert n_images_ahead(64, 2, large) == 85  # 256 MiB of 3 MiB each
    assert n_images_ahead(256, 2, large) == 256  # a batch must fit
    assert n_images_ahead(1, 16, FAKE_TRANSFORM) == 32
    assert n_images_ahead(8, 2, large, n_views=10) == 8  # ten views of an image take as much as ten images
    assert n_images_ahead(4, 2, large, n_views=10) == 8


def test_views_are_loaded_together():
    """With views, an image comes with the pixels of all of them, and a stack has them one after another."""
    entries = [SlowEntry("x" * number, []) for number in (5, 9)]
    loaded = list(load_images(entries, FAKE_TRANSFORM, views=views_of(3)))
    assert [image.pixels.shape for image in loaded] == [(3, 8, 8, 3)] * 2
    stacked = stack_pixels(loaded)
    assert stacked.shape == (6, 8, 8, 3)
    assert [int(pixels.max()) for pixels in stacked] == [5, 5, 5, 9, 9, 9]
