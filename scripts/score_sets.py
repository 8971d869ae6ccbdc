"""Accuracy of a linear SVM by depth on every labelled set of a folder, through the command line.

python scripts/score_sets.py ../shared/data pets3_180 caltech_10 ...
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LAYERS = "25%,50%,75%,penultimate"


def main() -> int:
    """Print a row a set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("sets", nargs="+")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.sets:
            print(score_set(arguments.root / name, Path(folder)), flush=True)
    return 0


def score_set(source: Path, folder: Path) -> str:
    """Return accuracy and interval at each depth as one line of a Markdown table."""
    store = folder / f"{source.name}.h5"
    extracted, seconds = featx("extract", source, "--out", store, "--layers", LAYERS)
    cells = []
    for number, layer in enumerate(extracted["layers"]):
        bundle = folder / f"{source.name}-{number}.featx"
        fitted, fit_seconds = featx("fit-svm", store, "--layer", layer["key"], "--out", bundle)
        scored = fitted["evaluation"]
        low, high = scored["interval"]
        cells.append(f"{layer['key']} {scored['accuracy']:.3f} [{low:.3f}, {high:.3f}] ({fit_seconds:.0f} s)")
    described = f"{extracted['rows']} images in {seconds:.0f} s; scored on {scored['rows']} ({scored['on']})"
    return f"| {source.name} | {' | '.join(cells)} | {described} |"


def featx(*arguments: object) -> tuple[dict, float]:
    """Return what a command printed as JSON, and its seconds."""
    command = [sys.executable, "-m", "featx", *map(str, arguments), "--json"]
    started = time.perf_counter()
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode > 1:
        sys.exit(done.stderr)
    return json.loads(done.stdout), time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
