"""Nothing leaves the machine: OpenVINO's telemetry never loads, and nothing connects to anywhere."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# A conversion and a run, from a bare interpreter: what imports openvino is featx alone.
CONVERT = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from fake_backbone import FAKE_TRANSFORM, FakeNetwork, fake_features, fake_pixels
from featx.backbones import open_backbone, open_engine
backbone = open_backbone(FakeNetwork(), transform=FAKE_TRANSFORM)
engine = open_engine(backbone, backbone.select("logits").taps, engine="openvino")
assert abs(engine.run(fake_pixels())[0] - fake_features(fake_pixels())["logits"]).max() < 1e-2
print(engine.name, [name for name, module in sys.modules.items() if "telemetry" in name and module is not None])
import importlib.util
print("importable again:", sys.modules.get("openvino_telemetry", "absent"))
"""


def convert(*command):
    """Convert a network in a process of its own, under a command; return what it wrote."""
    done = subprocess.run(
        [*command, sys.executable, "-c", CONVERT], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """Convert in an empty network namespace and under strace, where the machine has them; return all that was seen."""
    isolated = bool(shutil.which("unshare")) and not subprocess.run(["unshare", "-rn", "true"], check=False).returncode
    command = ["unshare", "-rn"] if isolated else []
    log = tmp_path_factory.mktemp("strace") / "calls"
    if shutil.which("strace"):
        command += ["strace", "-f", "--seccomp-bpf", "-qq", "-e", "trace=connect,sendto,execve", "-o", str(log)]
    return isolated, convert(*command), log.read_text().splitlines() if log.exists() else None


def test_telemetry_is_never_loaded(watched):
    """After a conversion openvino's telemetry package is not among the modules, and its name is free again."""
    engine, importable = watched[1]
    modules = re.findall(r"'([^']+)'", engine)
    assert engine.startswith("openvino ")
    assert not [name for name in modules if name.partition(".")[0] == "openvino_telemetry"]
    assert importable == "importable again: absent"


def test_nothing_in_the_process_tree_connects_to_the_internet(watched):
    """Neither the converting process nor any of its children as much as tries to connect."""
    calls = watched[2]
    if calls is None:
        pytest.skip("strace is not installed; only the modules loaded are checked")
    assert any("execve(" in call for call in calls)  # strace did see the process
    assert not [call for call in calls if "AF_INET" in call]


def test_a_network_is_converted_without_any_network_interface(watched):
    """In an empty network namespace the conversion works all the same."""
    isolated, (engine, _), _ = watched
    if not isolated:
        pytest.skip("no network namespace can be made here")
    assert engine.startswith("openvino ")
