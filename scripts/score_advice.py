"""What featx advise says of labelled sets, against what the full comparison finds best.

    python scripts/score_advice.py ../shared/data caltech_10 ucmerced_10 ...
    python scripts/score_advice.py stores/ caltech_10 --heads ridge,svm --journals journals/

"behind" is how far the advised road is behind the best candidate of ``featx compare``, on the same folds: the road is
the best candidate on the layer that the advice names, the last one for late-linear. Advice to train has no such number.
It is right where it is behind by less than a point, and open where it is behind by more but the interval reaches 0.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from compare_sets import featx

LAST = "penultimate@avg"
NEAR_TIE = 0.01


def main() -> int:
    """Print a row a set, and how often the advice was right."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="folder of labelled sets, or of their stores, SET.h5")
    parser.add_argument("sets", nargs="+")
    parser.add_argument("--heads", help="as in featx compare; default: the budget's")
    parser.add_argument("--repeats", help="as in featx compare; default: the budget's")
    parser.add_argument("--journals", type=Path, help="folder that remembers scores; default: none is kept")
    arguments = parser.parse_args()
    print("| set | similarity | quadrant | advice | best single layer | best of all | last layer | behind, 95 % | |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    outcomes = []
    with tempfile.TemporaryDirectory() as folder:
        journals = arguments.journals or Path(folder)
        journals.mkdir(parents=True, exist_ok=True)
        options = [] if arguments.heads is None else ["--heads", arguments.heads]
        options += [] if arguments.repeats is None else ["--repeats", arguments.repeats]
        for name in arguments.sets:
            line, outcome = score_set(arguments.root, name, Path(folder), journals, options)
            outcomes.append(outcome)
            print(line, flush=True)
    right = sum(outcome == "right" for outcome, _ in outcomes)
    late = sum(is_late for _, is_late in outcomes)
    print(f"\nright on {right} of {len(outcomes)} sets; always taking the last layer would be on {late}")
    return 0


def score_set(root: Path, name: str, folder: Path, journals: Path, options: list[str]) -> tuple[str, tuple[str, bool]]:
    """Return one line of a Markdown table, whether the advice was right, and whether the last layer would have been."""
    store = root / f"{name}.h5"
    if not store.exists():
        store = folder / f"{name}.h5"
        featx("extract", root / name, "--out", store, "--layers", "all-stages,penultimate")
    advice = featx("advise", store, "--no-html")
    compared = featx("compare", store, "--journal", journals / f"{name}.jsonl", *options)
    entries = [entry for entry in compared["results"] if entry["head"] != "majority"]
    single = next(entry for entry in entries if "+" not in entry["layer"])
    last = next(entry for entry in entries if entry["layer"] == LAST)
    taken = next((entry for entry in entries if entry["layer"] == advice["layer"]), None)
    outcome, behind = "", "trained, not compared"
    if taken is not None:
        low, high = taken["difference_interval"]
        outcome = "right" if taken["difference"] < NEAR_TIE else "open" if low <= 0 else "wrong"
        behind = f"{taken['difference']:.3f} [{low:.3f}, {high:.3f}]" if taken is not entries[0] else "it is the best"
    cells = (
        name,
        described_similarity(advice),
        advice["quadrant"] + (", between" if advice["between"] else ""),
        advice["strategy"] + ("" if advice["layer"] in (None, LAST) else f", {shown(advice['layer'])}"),
        *(described(entry) for entry in (single, entries[0], last)),
        behind,
        outcome,
    )
    return f"| {' | '.join(cells)} |", (outcome, last["difference"] < NEAR_TIE)


def described_similarity(advice: dict) -> str:
    """Return the number with its interval."""
    value, interval = advice["similarity"], advice["measured_similarity"]["interval"]
    return "none" if value is None else f"{value:.2f} [{interval[0]:.2f}, {interval[1]:.2f}]"


def described(entry: dict) -> str:
    """Return a candidate and its accuracy in a few words."""
    reduce = "" if entry["reduce"] == "none" else f" {entry['reduce']}"
    return f"{shown(entry['layer'])}{reduce} {entry['head']} {entry['accuracy']:.3f}"


def shown(layer: str) -> str:
    """Return the name of a layer in a few words."""
    layers = [name.removesuffix("@avg") for name in layer.split("+")]
    return layers[0] if len(layers) == 1 else f"last {len(layers)}"


if __name__ == "__main__":
    sys.exit(main())
