"""A small run of ``scripts/check_kills.py``: killed and resumed, an extraction equals an undisturbed one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "check_kills.py"


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_killed_and_resumed_runs_equal_an_undisturbed_one(tmp_path):
    """After two kills features, paths and labels are equal bit for bit, and no kept row is computed again."""
    options = (
        "--cold --kills 2 --merge-kills 0 --images 300 --batch-size 1 --model test_efficientnet --weights random:0"
    )
    command = [sys.executable, str(SCRIPT), *options.split(), "--layers", "penultimate", "--segment-seconds", "0.05"]
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[1]), "TMPDIR": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all equal to the undisturbed one bit for bit" in done.stdout
    kept = [int(line.split()[-1].partition("/")[0]) for line in done.stdout.splitlines() if line.endswith("/294")]
    assert len(kept) == 2
    assert max(kept) > 0
