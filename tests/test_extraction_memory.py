"""A small run of ``scripts/check_memory.py``: five times the images take no more memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "check_memory.py"


@pytest.mark.skipif(not hasattr(os, "wait4"), reason="this system does not tell the memory of a process")
def test_memory_does_not_grow_with_the_number_of_images(tmp_path):
    """1500 pictures more, whose pixels would be 115 MB, add at most 60 MB to the peak."""
    options = "--first 0 --few 300 --many 1800 --size 200x150 --model test_efficientnet --weights random:0"
    command = [sys.executable, str(SCRIPT), *options.split(), "--growth", "60"]
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[1]), "TMPDIR": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("ok\n")
