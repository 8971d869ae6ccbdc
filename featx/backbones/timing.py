"""How long a network takes an image on this machine: measured once, and remembered in the cache folder."""

from __future__ import annotations

import gc
import json
import os
import platform
import secrets
import statistics
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from featx.backbones.cache_folder import cache_folder
from featx.backbones.engines import open_engine
from featx.backbones.names import PENULTIMATE
from featx.backbones.opening import open_backbone
from featx.backbones.torch_engine import best_device

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from featx.backbones.engines import Engine

BATCH_SIZE = 8
PRECISION = "f32"
_N_RUNS = 11
_SECONDS = 12.0  # of runs, when the network has been opened
_FILE = "timings.json"
_FORMAT = "featx-timings-1"
_MAX_MACHINES = 20  # remembered; library versions make a machine another one
_VERSIONED = ("torch", "timm", "openvino", "numpy")


@dataclass(frozen=True)
class Timing:
    """How long one network took.

    Parameters
    ----------
    milliseconds : float
        An image: the median of several runs, divided by the images of a run.
    engine : str
        What ran, such as ``openvino on cpu, f32``.
    batch_size : int
        Images a run.
    n_runs : int
        Runs that the median is of, after one that does not count.
    load : float or None
        Processes that wanted to run in the minute before anything was measured; None where that is not known.
    """

    milliseconds: float
    engine: str
    batch_size: int
    n_runs: int
    load: float | None = None


def time_network(name: str) -> Timing:
    """Return how long a network takes an image, by the engine that ``featx extract`` would use.

    Parameters
    ----------
    name : str
        See `open_backbone`. Its weights are drawn at random: none are looked for, and the speed does not depend on
        them.

    Raises
    ------
    BackboneError
        The network cannot be opened, or nothing here can run it.

    Notes
    -----
    In f32, up to the penultimate layer, pixels in memory already. Opening a network takes some seconds, with about
    four times its weights in memory; the converted network is not kept in the cache, where a few of these would push
    out all others.
    """
    backbone = replace(open_backbone(name, weights="random:0"), is_named=False)
    engine = open_engine(backbone, backbone.select(PENULTIMATE).taps, precision=PRECISION, batch_size=BATCH_SIZE)
    size = backbone.transform.size
    del backbone  # a compiled network has weights of its own
    try:
        return time_engine(engine, size)
    finally:
        del engine
        gc.collect()  # networks hold circles of references; the next one needs the room


def time_engine(
    engine: Engine,
    size: tuple[int, int],
    *,
    batch_size: int = BATCH_SIZE,
    seconds: float = _SECONDS,
    clock: Callable[[], float] = time.perf_counter,
) -> Timing:
    """Return how long an engine takes an image.

    Parameters
    ----------
    engine : Engine
        What runs.
    size : (int, int)
        Height and width of the pictures in pixels.
    batch_size : int
        Images a run.
    seconds : float
        No further run begins after so long; one run is measured at least, eleven at the most.
    clock : callable
        Returns seconds.
    """
    pixels = np.random.default_rng(0).integers(0, 256, (batch_size, *size, 3), np.uint8)
    engine.run(pixels)  # the first one allocates
    durations: list[float] = []
    began = clock()
    while not durations or (len(durations) < _N_RUNS and clock() - began < seconds):
        started = clock()
        engine.run(pixels)
        durations.append(clock() - started)
    milliseconds = 1000 * statistics.median(durations) / batch_size
    return Timing(milliseconds, f"{engine.name} on {engine.device}, {engine.precision}", batch_size, len(durations))


def describe_machine() -> dict[str, Any]:
    """Return all that a measured time hangs on but for the network: processor, device, precision, versions."""
    versions = {}
    for name in _VERSIONED:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    device = best_device()
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "device": torch.cuda.get_device_name() if device == "cuda" else device,
        "engine": "openvino" if device == "cpu" and "openvino" in versions else "torch",
        "precision": PRECISION,
        "batch_size": BATCH_SIZE,
        "versions": versions,
    }


def current_load() -> float | None:
    """Return how many processes wanted to run in the last minute, on average; None where that is not known."""
    try:
        return round(os.getloadavg()[0], 2)
    except (OSError, AttributeError):
        return None


def _processor() -> str:
    """Return the model of the processor, as it calls itself."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() in ("model name", "Model"):
                return value.strip()
    return platform.processor() or platform.machine()


def read_timings(machine: Mapping[str, Any]) -> dict[str, Timing]:
    """Return the times measured before on a machine, by network; empty where there are none, or the file is damaged.

    Parameters
    ----------
    machine : mapping
        See `describe_machine`; every field has to be the same.
    """
    for known in _read_all():
        if known["machine"] == machine:
            with suppress(TypeError, AttributeError):
                return {name: Timing(**values) for name, values in known["networks"].items()}
    return {}


def keep_timing(machine: Mapping[str, Any], name: str, timing: Timing) -> str:
    """Remember a time; return why it could not be, empty where it was.

    Parameters
    ----------
    machine : mapping
        See `describe_machine`.
    name : str
        Network.
    timing : Timing
        Replaces one that is there.
    """
    networks = {**read_timings(machine), name: timing}
    others = [known for known in _read_all() if known["machine"] != machine]
    entry = {"machine": dict(machine), "networks": {name: asdict(kept) for name, kept in networks.items()}}
    content = {"format": _FORMAT, "machines": [*others[1 - _MAX_MACHINES :], entry]}
    try:
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        draft = folder / f".timings-{secrets.token_hex(6)}.json"
        try:
            draft.write_text(json.dumps(content, indent=1), encoding="utf-8")
            os.replace(draft, folder / _FILE)
        finally:
            draft.unlink(missing_ok=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: a user without a home
        return str(getattr(error, "strerror", None) or error)
    return ""


def _read_all() -> list[dict[str, Any]]:
    """Return what is remembered of all machines; nothing where the file is missing or not what was written."""
    try:
        content = json.loads((cache_folder() / _FILE).read_text(encoding="utf-8"))
        if content["format"] != _FORMAT:
            return []
        return [{"machine": known["machine"], "networks": known["networks"]} for known in content["machines"]]
    except (OSError, RuntimeError, ValueError, KeyError, TypeError):
        return []
