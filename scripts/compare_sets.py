"""What featx compare says of labelled sets: best layer, best of all, last layer, and their scores on unseen rows.

    python scripts/compare_sets.py ../shared/data caltech_10 ucmerced_10 ...
    python scripts/compare_sets.py stores/ caltech_10

The accuracy in cross-validation chose the candidates, so it flatters the best a little; "unseen" is the accuracy of the
recommended command on the rows that the comparison left out.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LAST = "penultimate@avg"


def main() -> int:
    """Print a row a set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="folder of labelled sets, or of their stores, SET.h5")
    parser.add_argument("sets", nargs="+")
    parser.add_argument("--heads", default="", help="as in featx compare; default: the budget's")
    arguments = parser.parse_args()
    print("| set | best layer | best of all | last layer | behind the best, 95 % | unseen: best, last, auto | s |")
    print("| --- | --- | --- | --- | --- | --- | --: |")
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.sets:
            print(compare_set(arguments.root, name, Path(folder), arguments.heads), flush=True)
    return 0


def compare_set(root: Path, name: str, folder: Path, heads: str) -> str:
    """Return one line of a Markdown table."""
    store = root / f"{name}.h5"
    if not store.exists():
        store = folder / f"{name}.h5"
        featx("extract", root / name, "--out", store, "--layers", "all-stages,penultimate")
    options = ["--heads", heads] if heads else []
    started = time.perf_counter()
    compared = featx("compare", store, "--journal", folder / f"{name}.jsonl", *options)
    seconds = time.perf_counter() - started
    entries = [entry for entry in compared["results"] if entry["head"] != "majority"]
    best = entries[0]
    single = next(entry for entry in entries if "+" not in entry["layer"])
    last = next(entry for entry in entries if entry["layer"] == LAST)
    low, high = last["difference_interval"]
    unseen = [fit(store, folder, entry, entry["layer"]) for entry in (best, last)] + [fit(store, folder, best, "auto")]
    behind = "it is the best" if last is best else f"{last['difference']:.3f} [{low:.3f}, {high:.3f}]"
    return (
        f"| {name} | {described(single)} | {described(best)} | {described(last)} | {behind}"
        f" | {', '.join(unseen)} | {seconds:.0f} |"
    )


def described(entry: dict) -> str:
    """Return a candidate and its accuracy in a few words."""
    layers = [layer.removesuffix("@avg") for layer in entry["layer"].split("+")]
    layer = layers[0] if len(layers) == 1 else f"last {len(layers)}"
    reduce = "" if entry["reduce"] == "none" else f" {entry['reduce']}"
    return f"{layer}{reduce} {entry['head']} {entry['accuracy']:.3f}"


def fit(store: Path, folder: Path, entry: dict, layer: str) -> str:
    """Return the accuracy on unseen rows of a candidate, maybe on another layer."""
    options = ["--layer", layer, "--scale", entry["scale"], "--reduce", entry["reduce"]]
    target = folder / "classifier.featx"
    fitted = featx(f"fit-{entry['head']}", store, "--out", target, "--overwrite", *options)
    return f"{fitted['evaluation']['accuracy']:.3f}"


def featx(*arguments: object) -> dict:
    """Return what a command printed as JSON."""
    command = [sys.executable, "-m", "featx", *map(str, arguments), "--json"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode > 1:
        sys.exit(done.stderr)
    return json.loads(done.stdout)


if __name__ == "__main__":
    sys.exit(main())
