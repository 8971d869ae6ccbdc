"""Times an image: how they are measured, and how they are remembered on this machine and no other."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from featx.backbones import open_backbone, timing
from featx.backbones.cache_folder import cache_folder
from featx.backbones.timing import (
    Timing,
    current_load,
    describe_machine,
    keep_timing,
    read_timings,
    time_engine,
    time_network,
)
from featx.errors import BackboneError

MACHINE = {"processor": "abacus", "cores": 2, "versions": {"torch": "2"}}
SLOW, QUICK = Timing(200.0, "torch on cpu, f32", 8, 3), Timing(2.5, "openvino on cpu, f32", 8, 11, 0.5)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A cache folder of the test's own, which is not there yet."""
    monkeypatch.setenv("FEATX_CACHE", str(tmp_path / "some" / "cache"))
    return tmp_path / "some" / "cache"


class Engine:
    """Runs for as long as it is told, on a clock that only it moves."""

    name, device, precision = "abacus", "table", "f32"

    def __init__(self, durations):
        self.durations, self.now, self.batches = list(durations), 0.0, []

    def run(self, pixels):
        self.batches.append(pixels)
        self.now += self.durations.pop(0)

    def clock(self):
        return self.now


def test_the_median_counts_and_the_first_run_does_not():
    """Eleven runs after a first one; their median, divided by the images of a run; every run sees the same pixels."""
    engine = Engine([100, *range(1, 12)])
    result = time_engine(engine, (6, 5), batch_size=4, seconds=1000, clock=engine.clock)
    assert result == Timing(1000 * 6 / 4, "abacus on table, f32", 4, 11)
    assert engine.durations == []
    assert engine.batches[0].shape == (4, 6, 5, 3)
    assert engine.batches[0].dtype == np.uint8
    assert all(pixels is engine.batches[0] for pixels in engine.batches)


@pytest.mark.parametrize(("duration", "expected"), [(1, 5), (2, 3), (400, 1)])
def test_measuring_ends(duration, expected):
    """No run begins after the seconds allowed, and one is always measured."""
    engine = Engine([duration] * 20)
    result = time_engine(engine, (2, 2), batch_size=1, seconds=5, clock=engine.clock)
    assert result.n_runs == expected
    assert result.milliseconds == 1000 * duration


def test_a_network_is_timed_without_its_weights(folder, monkeypatch):
    """A network runs with drawn weights up to the penultimate layer, and its converted form is not kept."""
    opened = []

    def watch(*given, **options):
        opened.append((given, options))
        return open_backbone(*given, **options)

    monkeypatch.setattr(timing, "open_backbone", watch)
    monkeypatch.setattr(timing, "_N_RUNS", 2)
    result = time_network("test_efficientnet")
    assert opened == [(("test_efficientnet",), {"weights": "random:0"})]
    assert result.milliseconds > 0
    assert (result.batch_size, result.n_runs) == (8, 2)
    assert result.engine.endswith(", f32")
    assert not folder.exists()
    with pytest.raises(BackboneError, match="timm has no model"):
        time_network("no_such_network")


def test_times_are_remembered_for_this_machine_only(folder):
    """What was kept is read again on a machine whose every field is the same; the last time of a network counts."""
    assert read_timings(MACHINE) == {}
    assert keep_timing(MACHINE, "one", SLOW) == ""
    assert keep_timing(MACHINE, "two", QUICK) == ""
    assert keep_timing({**MACHINE, "cores": 4}, "one", QUICK) == ""
    assert read_timings(MACHINE) == {"one": SLOW, "two": QUICK}
    assert read_timings({**MACHINE, "cores": 4}) == {"one": QUICK}
    assert read_timings({**MACHINE, "versions": {"torch": "3"}}) == {}
    keep_timing(MACHINE, "one", QUICK)
    assert read_timings(MACHINE) == {"one": QUICK, "two": QUICK}
    assert os.listdir(folder) == ["timings.json"]


def test_the_memory_stays_small(monkeypatch):
    """Machines that were measured long ago are forgotten, the latest are not."""
    monkeypatch.setattr(timing, "_MAX_MACHINES", 3)
    for cores in range(5):
        keep_timing({**MACHINE, "cores": cores}, "one", SLOW)
    assert [cores for cores in range(5) if read_timings({**MACHINE, "cores": cores})] == [2, 3, 4]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[1, 2",
        "[]",
        "{}",
        '{"format": "other", "machines": []}',
        '{"format": "featx-timings-1", "machines": 3}',
        '{"format": "featx-timings-1", "machines": [{"machine": 1}]}',
        json.dumps({"format": "featx-timings-1", "machines": [{"machine": MACHINE, "networks": {"a": {"b": 1}}}]}),
        json.dumps({"format": "featx-timings-1", "machines": [{"machine": MACHINE, "networks": 7}]}),
    ],
)
def test_a_damaged_memory_is_an_empty_one(content, folder):
    """What is no memory of times is not read, and the next time replaces it."""
    folder.mkdir(parents=True)
    (folder / "timings.json").write_text(content)
    assert read_timings(MACHINE) == {}
    assert keep_timing(MACHINE, "one", SLOW) == ""
    assert read_timings(MACHINE) == {"one": SLOW}


def test_what_cannot_be_remembered_is_said(folder, monkeypatch):
    """Where the folder cannot be made, or the user has no home, the reason comes back, and nothing is raised."""
    folder.parent.write_text("a file where a folder should be")
    assert "irectory" in keep_timing(MACHINE, "one", SLOW) or keep_timing(MACHINE, "one", SLOW) == "File exists"
    assert read_timings(MACHINE) == {}

    def homeless():
        raise RuntimeError("no home")

    monkeypatch.setattr(timing, "cache_folder", homeless)
    assert keep_timing(MACHINE, "one", SLOW) == "no home"
    assert read_timings(MACHINE) == {}


def test_the_cache_folder(folder, monkeypatch):
    """``FEATX_CACHE`` is the folder itself; else it is ``featx`` in the user's cache folder."""
    assert cache_folder() == folder
    monkeypatch.delenv("FEATX_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert str(cache_folder()) == "/somewhere/featx"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert str(cache_folder()) == "/home/someone/.cache/featx"


def test_a_machine_is_described_the_same_way_each_time():
    """Processor, cores, device, engine, precision and versions; JSON-able, and equal after a round trip."""
    machine = describe_machine()
    assert machine == describe_machine() == json.loads(json.dumps(machine))
    assert set(machine) == {"processor", "cores", "device", "engine", "precision", "batch_size", "versions"}
    assert machine["processor"]
    assert machine["cores"] >= 1
    assert {"torch", "timm"} <= set(machine["versions"])
    load = current_load()
    assert load is None or load >= 0
