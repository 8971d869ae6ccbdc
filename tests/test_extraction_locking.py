"""One run at a time, and none of them trusts what it saw before it was alone."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest
from extraction_runs import assert_rows_by_hand, extract, make_extraction
from fake_backbone import FAKE_TRANSFORM, FakeNetwork

from featx.backbones import open_backbone
from featx.errors import StoreError, WouldOverwriteError
from featx.extraction.locking import locked

_HOLD = """
import sys, pathlib
from featx.extraction.locking import locked
with locked(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_run_is_refused_until_the_first_ends_however_it_ends(fake_backbone, image_folder, tmp_path):
    """While another process holds the segments a run is refused; a kill of that process frees them."""
    out = tmp_path / "features.h5"
    command = [sys.executable, "-c", _HOLD, str(tmp_path / "features.h5.parts")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(WouldOverwriteError, match=r"another run is writing to .*features\.h5\.parts"):
            extract(fake_backbone, image_folder, out)
        holder.kill()
        holder.wait()
        assert (tmp_path / "features.h5.parts" / "lock").exists()
        extract(fake_backbone, image_folder, out)
    assert_rows_by_hand(out, image_folder)
    assert not (tmp_path / "features.h5.parts").exists()


def test_a_run_looks_again_once_it_is_alone(fake_backbone, image_folder, tmp_path):
    """What another run has finished since an extraction was made is neither lost nor computed again."""
    out = tmp_path / "features.h5"
    first = make_extraction(fake_backbone, image_folder, out, "stages.1")
    second = make_extraction(fake_backbone, image_folder, out, "penultimate")
    other = open_backbone(FakeNetwork(), transform=replace(FAKE_TRANSFORM, interpolation="bilinear"))
    different = make_extraction(other, image_folder, out)
    first.run()
    assert second.run().rows == 24
    for layer in ("stages.1", "penultimate"):
        assert_rows_by_hand(out, image_folder, layer)
    before = out.read_bytes()
    with pytest.raises(WouldOverwriteError, match=r"transform\.interpolation"):
        different.run()
    assert out.read_bytes() == before


def test_waiting_runs_take_turns(tmp_path):
    """Many threads that wait for one lock, which each removes in the end, are never inside together."""
    inside, most, done = [], [], []

    def work() -> None:
        for _ in range(30):
            with locked(tmp_path / "parts", waits=True):
                inside.append(1)
                time.sleep(0.0005)  # gives a second one the time to come in
                most.append(len(inside))
                inside.pop()
        done.append(1)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 6
    assert set(most) == {1}
    assert len(most) == 180
    assert not (tmp_path / "parts").exists()


def test_a_place_that_cannot_be_written_is_named(fake_backbone, image_folder, tmp_path):
    """Where the folder of the segments cannot be made, the error says so and why."""
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match=r"features\.h5\.parts cannot be written \(Not a directory\)"):
        extract(fake_backbone, image_folder, tmp_path / "file" / "features.h5")
