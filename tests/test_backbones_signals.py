"""Networks that come and go leave the process able to take a signal, such as Ctrl-C."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

# Two engines at a time, which go in the order in which they came.
ENGINES_COME_AND_GO = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from fake_backbone import FAKE_TRANSFORM, FakeNetwork
from featx.backbones import open_backbone, open_engine
backbone = open_backbone(FakeNetwork(), transform=FAKE_TRANSFORM)
engines = [open_engine(backbone, backbone.select("logits").taps, engine="openvino") for _ in range(2)]
while engines:
    del engines[0]
try:
    os.kill(os.getpid(), signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_an_interrupt_after_engines_came_and_went():
    """Ctrl-C is a KeyboardInterrupt, not a segmentation fault: OpenVINO unmaps the stacks it gives to signals."""
    command = [sys.executable, "-c", ENGINES_COME_AND_GO]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr
