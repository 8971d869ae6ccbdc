"""What each way to better neighbours than plain cosine gains, on labelled sets.

    python scripts/score_retrieval.py ../shared/data emoji_third caltech_10 ...
    python scripts/score_retrieval.py stores/ caltech_10

Everything that is chosen (layers, whitening, numbers of neighbours) is chosen on other queries than those reported:

* a set with a training and a test split: each test image searches the training images, the same class is right; chosen
  on every fourth training image, which searches the others;
* a set whose classes all have the same file names, one drawing style each (emoji_third): each image searches those of
  another style for its own class, over all ordered pairs of styles; chosen on every other class, reported on the rest;
* any other set: one half of the images of each class searches the other half; chosen on every other class.

Whitening is learned without labels: on the searched images; for drawing styles on all images of every other class (to
choose, a quarter of the classes ask and another quarter is learned on, and the other way round). Of a step with several
parameters, those of the best mAP are taken. The intervals are from a bootstrap over queries, paired; for drawing styles
over classes, each with all its queries.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from featx.retrieval.embedding import Embedding
from featx.retrieval.expansion import augment_blocks, expand_queries
from featx.retrieval.metrics import average_precision
from featx.retrieval.reciprocal import reciprocal_scores
from featx.retrieval.vectors import unit_vectors
from featx.store import FeatureStore

BASELINE = "penultimate@avg"
POOLS = {
    "avg": [*(f"blocks.{n}@avg" for n in range(2, 7)), BASELINE],
    "gem": ["blocks.4@gem", "blocks.5@gem", "blocks.6@gem", "bn2@gem"],
    "rmac": ["blocks.5@rmac", "blocks.6@rmac"],
    "grid:2": [f"blocks.{n}@grid:2" for n in range(3, 7)],
    "grid:3": [f"blocks.{n}@grid:3" for n in range(3, 7)],
}
COMPONENTS = (32, 64, 128, 256, 512)
NEIGHBOURS = [(n, alpha) for n in (1, 2, 3, 5, 10, 20, 50) for alpha in (1.0, 3.0)]
RECIPROCAL = [(2, 1, 0.7), (5, 2, 0.8), (10, 3, 0.5), (10, 3, 0.8), (20, 6, 0.3), (20, 6, 0.6), (40, 10, 0.3)]
N_RERANKED = 100
MOST_QUERIES = 500  # to choose on
N_RESAMPLES = 2000
N_KEPT = 8  # embeddings in memory


@dataclass(frozen=True)
class Task:
    """Queries and what they search.

    Attributes
    ----------
    queries, gallery, learned_on : ndarray of int
        Rows; of the last the whitening is learned.
    wider : ndarray of int
        Rows that query expansion may also use, beside the gallery.
    """

    queries: np.ndarray
    gallery: np.ndarray
    learned_on: np.ndarray
    wider: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))


@dataclass(frozen=True)
class Recipe:
    """How neighbours are found: layers, whitening (components, power), DBA and QE (neighbours, α), (k1, k2, λ)."""

    layers: tuple[str, ...] = (BASELINE,)
    whiten: tuple[int, float] | None = None
    augment: tuple[int, float] | None = None
    expand: tuple[int, float] | None = None
    expand_wider: bool = False
    reciprocal: tuple[int, int, float] | None = None

    def __str__(self) -> str:
        pool = self.layers[-1].partition("@")[2]
        names = [layer.replace("blocks.", "b").removesuffix(f"@{pool}") for layer in self.layers]
        parts = [" + ".join(names) + (f" ({pool})" if pool != "avg" else "")]
        parts += [f"whiten {self.whiten[0]} power {self.whiten[1]:g}"] if self.whiten else []
        parts += [f"DBA n={self.augment[0]} α={self.augment[1]:g}"] if self.augment else []
        parts += [f"QE n={self.expand[0]} α={self.expand[1]:g}"] if self.expand else []
        parts += ["k1={} k2={} λ={:g}".format(*self.reciprocal)] if self.reciprocal else []
        return ", ".join(parts)


@dataclass(frozen=True)
class Scores:
    """Of each query: average precision, whether the first is right, and what it is resampled with."""

    precision: np.ndarray
    first: np.ndarray
    group: np.ndarray


class Bench:
    """The features of one set, and recipes measured on tasks."""

    def __init__(self, store: FeatureStore) -> None:
        self.features = {key: store[key][:].astype(np.float32) for key in store.keys}
        self.labels = np.asarray(store.labels)
        self._vectors: dict[object, np.ndarray] = {}
        self._fits: dict[object, tuple] = {}

    def measure(self, recipe: Recipe, tasks: Sequence[Task]) -> Scores:
        """Return how a recipe does on all queries of some tasks."""
        precision, first = [], []
        for task in tasks:
            for query, ranked in zip(task.queries, self._rank(recipe, task), strict=True):
                relevant = task.gallery[self.labels[task.gallery] == self.labels[query]]
                precision.append(average_precision(ranked, relevant))
                first.append(self.labels[ranked[0]] == self.labels[query])
        queries = np.concatenate([task.queries for task in tasks])
        return Scores(np.array(precision), np.array(first, float), self.labels[queries] if len(tasks) > 1 else queries)

    def best(self, recipes: Iterable[Recipe], tasks: Sequence[Task]) -> Recipe:
        """Return the recipe of the best mAP."""
        return max(recipes, key=lambda recipe: self.measure(recipe, tasks).precision.mean())

    def most_components(self, layers: Sequence[str], task: Task) -> int:
        """Return how many components whitening can have."""
        return min(len(task.learned_on) - 1, sum(self.features[layer].shape[1] for layer in layers))

    def _embedded(self, recipe: Recipe, task: Task) -> np.ndarray:
        if recipe.whiten is None:
            return self._whitened(recipe.layers, None, 1.0, task)
        n_components, power = recipe.whiten
        # fewer components are the first of many, brought to length 1 again
        most = min(self.most_components(recipe.layers, task), max(COMPONENTS))
        return unit_vectors(self._whitened(recipe.layers, most, power, task)[:, :n_components])

    def _whitened(self, layers: tuple[str, ...], whiten: int | None, power: float, task: Task) -> np.ndarray:
        key = (layers, whiten, power, task.learned_on.tobytes() if whiten else b"")
        if key not in self._vectors:
            joined = np.concatenate([self.features[layer] for layer in layers], axis=1)
            embedding = Embedding([self.features[layer].shape[1] for layer in layers])
            if whiten is not None:
                embedding = self._fitted(embedding.widths, joined, whiten, power, key)
            keep(self._vectors, key, embedding.transform(joined))
        return self._vectors[key]

    def _fitted(self, widths: tuple[int, ...], joined: np.ndarray, whiten: int, power: float, key: tuple) -> Embedding:
        """Return a whitening of any power from the one of power 1, whose axes are as long as 1 / deviation."""
        learned_on = np.frombuffer(key[3], dtype=np.int64)
        whole = (key[0], whiten, key[3])
        if whole not in self._fits:
            embedding = Embedding(widths, whiten=whiten, whiten_power=1.0).fit(joined[learned_on])
            keep(self._fits, whole, embedding.to_parts())
        described, arrays = self._fits[whole]
        lengths = np.linalg.norm(arrays["axes"], axis=1, keepdims=True)
        axes = (arrays["axes"] * lengths ** (power - 1)).astype(np.float32)
        return Embedding.from_parts({**described, "whiten_power": power}, {**arrays, "axes": axes})

    def _rank(self, recipe: Recipe, task: Task) -> Iterator[np.ndarray]:
        """Yield the gallery's rows for each query, best first."""
        vectors = self._embedded(recipe, task)
        queries, gallery = vectors[task.queries], vectors[task.gallery]
        if recipe.augment:
            n, alpha = recipe.augment
            blocks = augment_blocks(gallery.__getitem__, len(gallery), search_in(gallery), n_neighbours=n, alpha=alpha)
            gallery = np.concatenate(list(blocks))
        if recipe.expand:
            n, alpha = recipe.expand
            pool = np.concatenate([gallery, vectors[task.wider]]) if recipe.expand_wider else gallery
            found, scores = search_in(pool)(queries, n)
            queries = expand_queries(queries, pool[found], scores, alpha=alpha)
        found, _ = search_in(gallery)(queries, len(gallery))
        for query, order in zip(queries, found, strict=True):
            if recipe.reciprocal:
                k1, k2, share = recipe.reciprocal
                top = order[:N_RERANKED]
                scores = reciprocal_scores(query, gallery[top], k1=k1, k2=k2, lambda_value=share)
                order[:N_RERANKED] = top[np.argsort(-scores, kind="stable")]
            yield task.gallery[order]


def keep(kept: dict, key: object, value: object) -> None:
    """Keep a value, and not too many others."""
    if len(kept) >= N_KEPT:
        kept.pop(next(iter(kept)))
    kept[key] = value


def search_in(vectors: np.ndarray) -> Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]:
    """Return an exact search among some vectors."""

    def search(queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        scores = queries @ vectors.T
        found = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return found, np.take_along_axis(scores, found, axis=1)

    return search


def main() -> int:
    """Print a table for all sets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="folder of labelled sets, or of their stores, SET.h5")
    parser.add_argument("sets", nargs="+")
    arguments = parser.parse_args()
    print("| set | step | what was chosen | mAP | gain, 95 % | top-1 | gain, 95 % |")
    print("| --- | --- | --- | --: | --- | --: | --- |")
    for name in arguments.sets:
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder, FeatureStore(store_of(arguments.root, name, folder)) as store:
            bench, (choose, report) = Bench(store), tasks_of(store)
        base = bench.measure(Recipe(), report)
        for step, recipe, tasks in steps(bench, choose, report):
            print(row(name, step, recipe, bench.measure(recipe, tasks), base), flush=True)
        n_queries, n_rows = len(base.first), len(report[0].gallery)
        print(f"<!-- {name}: {n_queries} queries, {n_rows} searched, {time.perf_counter() - started:.0f} s -->")
    return 0


def store_of(root: Path, name: str, folder: str) -> Path:
    """Return the store of a set, made where there is none."""
    path = root / f"{name}.h5"
    if not path.exists():
        path = Path(folder, f"{name}.h5")
        layers = ",".join(itertools.chain.from_iterable(POOLS.values()))
        command = [sys.executable, "-m", "featx", "extract", root / name, "--out", path, "--layers", layers]
        subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)
    return path


def tasks_of(store: FeatureStore) -> tuple[list[Task], list[Task]]:
    """Return the tasks to choose on, and those to report."""
    labels, splits, rows = np.asarray(store.labels), np.asarray(store.splits), np.arange(store.rows)
    if (splits == 0).any() and (splits > 0).any():
        train, test = rows[splits == 0], rows[splits == splits.max()]
        asks = rank_in_class(labels[train]) % 4 == 0
        gallery = train[~asks]
        return [Task(sampled(train[asks]), gallery, gallery)], [Task(test, train, train)]
    views = np.array([Path(path).stem for path in store.paths])
    names, counts = np.unique(views, return_counts=True)
    n_classes = len(np.unique(labels))
    if 1 < len(names) < n_classes and (counts == n_classes).all():
        # what is chosen must not be seen by the whitening that it is chosen with
        even = labels % 2 == 0
        folds = [styles(views, rows, labels % 4 == fold, even & (labels % 4 != fold)) for fold in (0, 2)]
        return [task for fold in folds for task in fold], styles(views, rows, ~even, even)
    asks = rank_in_class(labels) % 2 == 0
    return tuple([Task(sampled(rows[asks & (labels % 2 == side)]), rows[~asks], rows[~asks])] for side in (0, 1))


def styles(views: np.ndarray, rows: np.ndarray, asks: np.ndarray, is_learned_on: np.ndarray) -> list[Task]:
    """Return a task for each ordered pair of drawing styles."""
    return [
        Task(
            rows[(views == asking) & asks],
            rows[views == searched],
            rows[is_learned_on],
            rows[(views != asking) & (views != searched)],
        )
        for asking, searched in itertools.permutations(np.unique(views), 2)
    ]


def rank_in_class(labels: np.ndarray) -> np.ndarray:
    """Return of each row how many of its class stand before it."""
    return np.array([np.sum(labels[:row] == label) for row, label in enumerate(labels)])


def sampled(rows: np.ndarray) -> np.ndarray:
    """Return at most so many rows, drawn with a fixed seed."""
    if len(rows) <= MOST_QUERIES:
        return rows
    return np.sort(np.random.default_rng(0).choice(rows, MOST_QUERIES, replace=False))


def steps(bench: Bench, choose: list[Task], report: list[Task]) -> Iterator[tuple[str, Recipe, list[Task]]]:
    """Yield what is compared: its name, the recipe that was chosen, and the tasks to report it on."""
    base = Recipe()
    yield "cosine on the last layer", base, report
    for pool, layers in POOLS.items():
        yield f"one layer, {pool}", bench.best((Recipe((layer,)) for layer in layers), choose), report
    joins = {pool: list(joined(layers)) for pool, layers in POOLS.items() if pool != "rmac"}
    for pool, candidates in joins.items():
        yield f"layers joined, {pool}", bench.best(map(Recipe, candidates), choose), report
    plain = bench.best((Recipe(c) for c in [(BASELINE,), *itertools.chain.from_iterable(joins.values())]), choose)
    for power, what in ((1.0, "whitened"), (0.5, "softly whitened")):
        yield f"last layer, {what}", bench.best(whitened(bench, base, choose, report, (power,)), choose), report
    yield from added("last layer", base, bench, choose, report)
    yield "best layers", plain, report
    for power, what in ((1.0, "whitened"), (0.5, "softly whitened")):
        yield f"best layers, {what}", bench.best(whitened(bench, plain, choose, report, (power,)), choose), report
    candidates = [bench.best(map(Recipe, found), choose) for found in joins.values()]
    whitenings = (whitened(bench, found, choose, report, (0.5, 0.75, 1.0)) for found in [base, *candidates])
    embedding = bench.best([plain, *itertools.chain.from_iterable(whitenings)], choose)
    yield "best embedding (E)", embedding, report
    if len(choose) > 1 and embedding.whiten:
        yield "E, whitening learned on what is searched", embedding, own_whitening(report, embedding)
        yield "E, whitening learned on all images", embedding, [replace(t, learned_on=everything(t)) for t in report]
    yield from added("E", embedding, bench, choose, report)


def added(
    name: str, start: Recipe, bench: Bench, choose: list[Task], report: list[Task]
) -> Iterator[tuple[str, Recipe, list[Task]]]:
    """Yield augmentation, expansion and re-ranking on top of a recipe, alone and together."""
    augmented = bench.best((replace(start, augment=values) for values in NEIGHBOURS), choose)
    expanded = bench.best((replace(start, expand=values) for values in NEIGHBOURS), choose)
    reranked = bench.best((replace(start, reciprocal=values) for values in RECIPROCAL), choose)
    yield f"{name} + DBA", augmented, report
    yield f"{name} + α-QE", expanded, report
    if len(choose[0].wider):
        wider = (replace(start, expand=values, expand_wider=True) for values in NEIGHBOURS)
        yield f"{name} + α-QE over all styles", bench.best(wider, choose), report
    yield f"{name} + k-reciprocal", reranked, report
    options = itertools.product((None, augmented.augment), (None, expanded.expand), (None, reranked.reciprocal))
    together = (replace(start, augment=a, expand=e, reciprocal=r) for a, e, r in options)
    yield f"{name} + what helps of these", bench.best(together, choose), report


def joined(layers: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Yield the last two, three, ... layers, with and without the very last."""
    for end in (len(layers), len(layers) - 1):
        for start in range(end - 2, -1, -1):
            yield tuple(layers[start:end])


def whitened(
    bench: Bench, recipe: Recipe, choose: list[Task], report: list[Task], powers: Sequence[float]
) -> Iterator[Recipe]:
    """Yield a recipe with so many components as both tasks allow."""
    most = min(bench.most_components(recipe.layers, task) for task in (*choose, *report))
    for n_components in sorted({min(n, most) for n in COMPONENTS}):
        for power in powers:
            yield replace(recipe, whiten=(n_components, power))


def own_whitening(tasks: list[Task], recipe: Recipe) -> list[Task]:
    """Return the tasks with a whitening that is learned on what is searched, where it is enough."""
    enough = recipe.whiten is None or recipe.whiten[0] < len(tasks[0].gallery)
    return [replace(task, learned_on=task.gallery) for task in tasks] if enough else tasks


def everything(task: Task) -> np.ndarray:
    """Return all rows that an index of the whole set would hold."""
    return np.unique(np.concatenate([task.learned_on, task.queries, task.gallery, task.wider]))


def row(name: str, step: str, recipe: Recipe, scores: Scores, base: Scores) -> str:
    """Return one line of a Markdown table."""
    cells = [name, step, str(recipe)]
    for found, before in ((scores.precision, base.precision), (scores.first, base.first)):
        low, high = bootstrap(found - before, scores.group)
        cells += [f"{found.mean():.3f}", f"{np.mean(found - before):+.3f} [{low:+.3f}, {high:+.3f}]"]
    return f"| {' | '.join(cells)} |"


def bootstrap(differences: np.ndarray, group: np.ndarray) -> tuple[float, float]:
    """Return the 95 % interval of the mean difference, groups resampled together."""
    _, members = np.unique(group, return_inverse=True)
    sums, sizes = np.bincount(members, differences), np.bincount(members)
    drawn = np.random.default_rng(0).integers(len(sums), size=(N_RESAMPLES, len(sums)))
    means = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


if __name__ == "__main__":
    sys.exit(main())
