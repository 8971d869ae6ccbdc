"""Speed of the comparison against scikit-learn's grid search: same candidates, folds and grids, alternated in one run.

    python scripts/bench_heads.py ../shared/data/cifar10_5k
    python scripts/bench_heads.py F.h5 --layers penultimate,blocks.6

The baseline is what a careful user writes: for each outer fold, GridSearchCV over
make_pipeline(StandardScaler(), PCA(128), LinearSVC() or LogisticRegression(max_iter=1000)) with the inner folds and the
values of C that featx uses. It runs as written (n_jobs left out) and with a process for each processor. scikit-learn
takes its randomized PCA here, which is inexact; one more run, with its exact one, says how much of a difference in
accuracy comes from that.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import joblib
import numpy as np
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from featx.comparison import Candidate, ComparisonSettings, compare_candidates
from featx.heads import HEADS
from featx.heads.fitting import make_folds
from featx.store import FeatureStore

HEADS_COMPARED = {"svm": LinearSVC, "logistic": lambda: LogisticRegression(max_iter=1000)}
N_COMPONENTS = 128
N_FOLDS, N_INNER_FOLDS, SEED = 5, 3, 0
TEST = 2

Accuracies = dict[tuple[str, str], float]


def main() -> int:
    """Print seconds, ratios and accuracies."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="labelled images, or a store of their features")
    parser.add_argument("--layers", default="penultimate,blocks.6")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--skip-serial", action="store_true", help="leave out the baseline as written, the slower one")
    arguments = parser.parse_args()
    layers = arguments.layers.split(",")
    features, y = read_rows(arguments.source, layers)
    n_jobs = joblib.cpu_count()
    runs: dict[str, Callable[[], Accuracies]] = {
        "featx": lambda: run_featx(features, y, n_jobs),
        f"GridSearchCV, n_jobs={n_jobs}": lambda: run_baseline(features, y, n_jobs),
    }
    if not arguments.skip_serial:
        runs["GridSearchCV as written"] = lambda: run_baseline(features, y, None)
    print(f"{len(y)} rows, {n_jobs} processors; {', '.join(f'{k} {x.shape[1]} wide' for k, x in features.items())}")
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    accuracies: dict[str, Accuracies] = {}
    for number in range(arguments.rounds):
        for name, run in runs.items():
            started = time.perf_counter()
            accuracies[name] = run()
            seconds[name].append(time.perf_counter() - started)
            print(f"round {number + 1}: {name} {seconds[name][-1]:.1f} s", flush=True)
    accuracies["GridSearchCV, exact PCA"] = run_baseline(features, y, n_jobs, "covariance_eigh")
    report(seconds, accuracies)
    return 0


def read_rows(source: Path, layers: list[str]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return features by layer and classes of the rows that are not in the test split."""
    with tempfile.TemporaryDirectory() as folder:
        path = source
        if source.is_dir():
            path = Path(folder, "features.h5")
            command = [sys.executable, "-m", "featx", "extract", source, "--out", path, "--layers", ",".join(layers)]
            subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)
        with FeatureStore(path) as store:
            rows = np.flatnonzero((store.labels >= 0) & (store.splits != TEST))
            return {layer: store[layer][rows] for layer in layers}, store.labels[rows].astype(np.int64)


def run_featx(features: dict[str, np.ndarray], y: np.ndarray, n_jobs: int) -> Accuracies:
    """Return the accuracy of each layer and head, by featx."""
    candidates = [
        Candidate(layer, "zscore", f"pca:{N_COMPONENTS}", head) for layer in features for head in HEADS_COMPARED
    ]
    settings = ComparisonSettings(N_FOLDS, n_repeats=1, n_inner_folds=N_INNER_FOLDS, seed=SEED, n_jobs=n_jobs)
    result = compare_candidates(features, y, candidates, settings)
    return {(entry.candidate.layer, entry.candidate.head): entry.accuracy for entry in result.results}


def run_baseline(
    features: dict[str, np.ndarray], y: np.ndarray, n_jobs: int | None, svd_solver: str = "auto"
) -> Accuracies:
    """Return the accuracy of each layer and head, by scikit-learn's grid search."""
    accuracies = {}
    folds, _ = make_folds(y, None, N_FOLDS, SEED)
    for layer, X in features.items():
        for head, make in HEADS_COMPARED.items():
            scores = []
            for train, test in folds:
                inner, _ = make_folds(y[train], None, N_INNER_FOLDS, SEED)
                values = [params["C"] for params in HEADS[head].candidates(X.shape[1], len(train))]
                reducer = PCA(N_COMPONENTS, svd_solver=svd_solver, random_state=SEED)
                pipeline = make_pipeline(StandardScaler(), reducer, make())
                search = GridSearchCV(pipeline, {f"{pipeline.steps[-1][0]}__C": values}, cv=inner, n_jobs=n_jobs)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", ConvergenceWarning)
                    scores.append(search.fit(X[train], y[train]).score(X[test], y[test]))
            accuracies[layer, head] = float(np.mean(scores))
    return accuracies


def report(seconds: dict[str, list[float]], accuracies: dict[str, Accuracies]) -> None:
    """Print medians, ratios and the largest difference in accuracy."""
    ours = statistics.median(seconds["featx"])
    for name, taken in seconds.items():
        spread = f"{min(taken):.1f} to {max(taken):.1f}"
        ratio = "" if name == "featx" else f", {statistics.median(taken) / ours:.1f} times as long as featx"
        print(f"{name}: median {statistics.median(taken):.1f} s ({spread}){ratio}")
    print("accuracy " + "  ".join(name for name in accuracies))
    for key in accuracies["featx"]:
        print(f"{' · '.join(key):28}" + "  ".join(f"{values[key]:.4f}" for values in accuracies.values()))
    for name, values in accuracies.items():
        largest = max(abs(values[key] - accuracies["featx"][key]) for key in accuracies["featx"])
        if name != "featx":
            print(f"largest difference from {name}: {100 * largest:.2f} points")


if __name__ == "__main__":
    sys.exit(main())
