"""The layer chosen by cross-validation against the last one, learned from a few images a class.

    python scripts/score_few.py ../shared/data caltech_10 ucmerced_10 ...
    python scripts/score_few.py stores/ caltech_10 --head ridge

Images are drawn from the training split, ten times; every draw is scored on the whole test split (else val, else a
fifth that is held out once), which neither the choice nor the fit ever sees. The interval is Student's over the draws,
paired: it says how sure the mean gain is for other draws, not for other test images.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import t as student

from featx.comparison import joined_layers, select_layer
from featx.comparison.running import joined_features, layer_widths
from featx.heads import fit_head, split_rows
from featx.store import FeatureStore

LAST = "penultimate@avg"
MANY_CLASSES = 50  # one machine a class is slow from here on


@dataclass(frozen=True)
class Draw:
    """Accuracy on the test rows after learning from one draw of training rows."""

    chosen: str
    auto: float
    last: float


def main() -> int:
    """Print a row a set and number of images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="folder of labelled sets, or of their stores, SET.h5")
    parser.add_argument("sets", nargs="+")
    parser.add_argument("--head", help="default: svm, for more than 50 classes ridge")
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--images", default="5,10,20", help="a class")
    arguments = parser.parse_args()
    print("| set | head | images a class | last layer | auto | gain, 95 % | worst draw | chosen |")
    print("| --- | --- | --: | --: | --: | --- | --: | --- |")
    for name in arguments.sets:
        features, y, train, test = read_set(arguments.root, name)
        head = arguments.head or ("svm" if len(np.unique(y)) <= MANY_CLASSES else "ridge")
        for n_images in map(int, arguments.images.split(",")):
            started = time.perf_counter()
            draws = list(draw_and_score(features, y, train, test, n_images, arguments.draws, head))
            if draws:
                print(row(name, head, n_images, draws), f"<!-- {time.perf_counter() - started:.0f} s -->", flush=True)
    return 0


def read_set(root: Path, name: str) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray]:
    """Return features by layer, classes, training rows and test rows of a set."""
    with tempfile.TemporaryDirectory() as folder:
        path = root / f"{name}.h5"
        if not path.exists():
            path = Path(folder, f"{name}.h5")
            command = [sys.executable, "-m", "featx", "extract", root / name, "--out", path]
            command += ["--layers", "all-stages,penultimate"]
            subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)
        with FeatureStore(path) as store:
            split = split_rows(store.labels, store.splits)
            return {key: store[key][:] for key in store.keys}, store.labels, split.train, split.held_out


def draw_and_score(
    features: dict[str, np.ndarray],
    y: np.ndarray,
    train: np.ndarray,
    test: np.ndarray,
    n_images: int,
    n_draws: int,
    head: str,
) -> Iterator[Draw]:
    """Yield how each draw did; nothing where a class has not enough training images to leave one out."""
    classes, sizes = np.unique(y[train], return_counts=True)
    if sizes.min() < n_images:
        return
    for seed in range(n_draws):
        random = np.random.default_rng(seed)
        rows = np.concatenate([random.permutation(train[y[train] == label])[:n_images] for label in classes])
        rows.sort()
        layers = [*features, *joined_layers(list(features))]
        choice = select_layer(features, y[rows], layers=layers, rows=rows, late=LAST, head=head, seed=seed)
        scores = {layer: score(features, y, rows, test, layer, head, seed) for layer in {choice.layer, LAST}}
        yield Draw(choice.layer, scores[choice.layer], scores[LAST])


def score(
    features: dict[str, np.ndarray],
    y: np.ndarray,
    rows: np.ndarray,
    test: np.ndarray,
    layer: str,
    head: str,
    seed: int,
) -> float:
    """Return the accuracy on the test rows of a head fitted on some rows of a layer."""
    fitted = fit_head(
        joined_features(features, layer, rows), y[rows], head=head, seed=seed, widths=layer_widths(features, layer)
    )
    return float(np.mean(fitted.pipeline.predict(joined_features(features, layer, test)) == y[test]))


def row(name: str, head: str, n_images: int, draws: list[Draw]) -> str:
    """Return one line of a Markdown table."""
    gains = [draw.auto - draw.last for draw in draws]
    mean = statistics.mean(gains)
    half = 0.0
    if len(gains) > 1:
        half = float(student.ppf(0.975, len(gains) - 1)) * statistics.stdev(gains) / len(gains) ** 0.5
    names = [short(draw.chosen) for draw in draws]
    chosen = ", ".join(f"{layer} {names.count(layer)}" for layer in dict.fromkeys(names))
    last, auto = (statistics.mean(values) for values in zip(*((d.last, d.auto) for d in draws), strict=True))
    gain = f"{mean:+.3f} [{mean - half:+.3f}, {mean + half:+.3f}]"
    return f"| {name} | {head} | {n_images} | {last:.3f} | {auto:.3f} | {gain} | {min(gains):+.3f} | {chosen} |"


def short(layer: str) -> str:
    """Return a layer's name without the pooling; layers side by side as their number."""
    names = layer.split("+")
    return names[0].removesuffix("@avg") if len(names) == 1 else f"last {len(names)}"


if __name__ == "__main__":
    sys.exit(main())
