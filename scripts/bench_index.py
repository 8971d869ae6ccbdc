"""Measures an index of many vectors: is the recall as promised on fresh queries, how fast is it, what does it take?

    python scripts/bench_index.py ../shared/data                  1,000,000 vectors: 11 GB in --folder, about an hour
    python scripts/bench_index.py ../shared/data --rows 100000

Vectors are features of the default network's last layer. Real ones come from random crops (0.35 to 1.1 times the
network's own view) and mirror images of all pictures below DATA. The rest is drawn: a real vector plus a random
combination of the differences between its 16 nearest neighbours and their mean, with the variance that these have,
negative values set to 0 as the network's last activation does. Whether local geometry matches is printed: ratio of the
distances to the 10th and the first neighbour, and the local dimension (Levina and Bickel 2004), of real and of drawn
rows among as many. Queries are in the store neither, nor was anything drawn from them: as many real and drawn ones,
in proportion, as the rows are; and real ones alone, which are of another kind than most rows are.

`featx index` runs as a process of its own, whose peak memory is told. The baseline is FAISS' flat search
(``IndexFlatIP``) over the same vectors in memory, on the same threads.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import faiss
import numpy as np
from threadpoolctl import threadpool_limits

from featx.backbones import open_backbone
from featx.extraction import FeatureComputer
from featx.images import View, list_images
from featx.retrieval import ImageIndex
from featx.store import FeatureInfo
from featx.store.writing import StoreWriter

WIDTH = 1280
N_NEIGHBOURS = 16
N_QUERIES = 1000
BLOCK = 8192
K = 10


def main() -> int:
    """Print the figures."""
    arguments = parse()
    folder: Path = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    real = real_vectors(arguments, folder / "real.npy")
    rng = np.random.default_rng(arguments.seed)
    order = rng.permutation(len(real))
    fresh, own = real[np.sort(order[:N_QUERIES])], real[np.sort(order[N_QUERIES:])][: arguments.rows]
    n_drawn = arguments.rows - len(own)
    neighbours = neighbours_of(own)
    vectors = folder / f"vectors_{arguments.rows}.npy"
    if not vectors.exists():
        write_vectors(vectors, own, neighbours, n_drawn, rng)
    rows = np.load(vectors, mmap_mode="r")
    n_fresh_drawn = round(N_QUERIES * n_drawn / arguments.rows)
    alike = np.concatenate([
        fresh[: N_QUERIES - n_fresh_drawn],
        drawn(own, neighbours, n_fresh_drawn, np.random.default_rng(arguments.seed + 1)),
    ])  # fmt: skip
    print(f"{arguments.rows} vectors of {WIDTH}: {len(own)} real, {n_drawn} drawn")
    print_geometry(own, rows[len(own) :], rng)
    store, index = folder / f"store_{arguments.rows}.h5", folder / f"store_{arguments.rows}.index"
    if not store.exists():
        write_store(store, rows)
    command = [sys.executable, "-m", "featx", "index", store, "--out", index, "--overwrite", "--json"]
    command += ["--recall", arguments.recall, "--memory", arguments.memory]
    started = time.perf_counter()
    done = subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    print(f"featx index --recall {arguments.recall} --memory {arguments.memory}: {time.perf_counter() - started:.0f} s,"
          f" peak {peak / 1e9:.2f} GB, store {store.stat().st_size / 1e9:.2f} GB")  # fmt: skip
    report(json.loads(done.stdout), index, rows, {"like the rows": alike, "real": fresh})
    return 0


def parse() -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of sets of images")
    parser.add_argument("--rows", type=int, default=1_000_000, help="vectors of the index (default: 1,000,000)")
    parser.add_argument("--views", type=int, default=14, help="crops of each picture (default: 14)")
    parser.add_argument("--folder", type=Path, default=Path("bench_index"), help="where files go, and are found again")
    parser.add_argument("--recall", default="0.95@10")
    parser.add_argument("--memory", default="2GB")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def real_vectors(arguments: argparse.Namespace, path: Path) -> np.ndarray:
    """Return features of crops of all images, computed once."""
    if not path.exists():
        rng = np.random.default_rng(arguments.seed)
        entries = [
            entry
            for folder in sorted(arguments.data.iterdir())
            if folder.is_dir()
            for entry in list_images(folder).entries
        ]
        backbone = open_backbone("tf_efficientnet_lite0")
        computer = FeatureComputer(backbone, backbone.select(["penultimate"]).taps)
        blocks = []
        for start in range(0, len(entries), 64):
            views = [random_view(rng) for _ in range(arguments.views)]
            (features,), _ = (
                tuple(part.values()) for part in computer.view_features_of(entries[start : start + 64], views)
            )
            rows = features.reshape(-1, WIDTH)
            blocks.append(rows[np.isfinite(rows).all(axis=1)])
        np.save(path, np.concatenate(blocks))
    return np.load(path, mmap_mode="r")


def random_view(rng: np.random.Generator) -> View:
    """Return a crop of random size and place, mirrored or not."""
    place = (float(rng.uniform()), float(rng.uniform()))
    return View(span=float(rng.uniform(0.35, 1.1)), place=place, mirrored=bool(rng.integers(2)))


def write_vectors(path: Path, own: np.ndarray, neighbours: np.ndarray, n_drawn: int, rng: np.random.Generator) -> None:
    """Write real rows, then drawn ones."""
    partial = path.with_suffix(".partial")
    rows = np.lib.format.open_memmap(partial, "w+", np.float32, (len(own) + n_drawn, WIDTH))
    rows[: len(own)] = own
    for start in range(len(own), len(rows), BLOCK):
        rows[start : start + BLOCK] = drawn(own, neighbours, min(BLOCK, len(rows) - start), rng)
    rows.flush()
    partial.rename(path)


def neighbours_of(rows: np.ndarray) -> np.ndarray:
    """Return the nearest rows of each, without itself, in 64 principal components."""
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    axes = np.linalg.svd(unit[:: max(1, len(unit) // 5000)] - unit.mean(axis=0), full_matrices=False)[2][:64]
    reduced = np.ascontiguousarray(unit @ axes.T, dtype=np.float32)
    return faiss.knn(reduced, reduced, N_NEIGHBOURS + 1)[1][:, 1:]


def drawn(own: np.ndarray, neighbours: np.ndarray, number: int, rng: np.random.Generator) -> np.ndarray:
    """Return rows drawn around real ones."""
    centres = rng.integers(len(own), size=number)
    out = np.empty((number, WIDTH), np.float32)
    for start in range(0, number, 512):
        chosen = centres[start : start + 512]
        around = own[neighbours[chosen].ravel()].reshape(len(chosen), N_NEIGHBOURS, WIDTH)
        around = around - around.mean(axis=1, keepdims=True)
        factors = rng.normal(size=(len(chosen), 1, N_NEIGHBOURS)).astype(np.float32) / np.sqrt(N_NEIGHBOURS)
        out[start : start + 512] = np.maximum(own[chosen] + (factors @ around)[:, 0], 0)
    return out


def print_geometry(own: np.ndarray, others: np.ndarray, rng: np.random.Generator) -> None:
    """Print how real and drawn rows lie among as many of their kind."""
    number = min(len(own), len(others), 50_000)
    if number < 1000:
        return
    for name, rows in (("real", own), ("drawn", others)):
        sample = np.array(rows[np.sort(rng.choice(len(rows), number, replace=False))])
        sample /= np.linalg.norm(sample, axis=1, keepdims=True)
        distances = np.sqrt(np.maximum(faiss.knn(sample[:1000], sample, 21)[0][:, 1:], 1e-12))
        dimension = 1 / np.log(distances[:, -1:] / distances[:, :-1]).mean(axis=1)
        tenth, first = np.median(distances[:, 9]), np.median(distances[:, 0])
        print(
            f"{name:>6}: distance to the 10th {tenth:.3f}, to the first {first:.3f}, local dimension"
            f" {np.median(dimension):.1f}, among {number}"
        )


def write_store(path: Path, rows: np.ndarray) -> None:
    """Write a store of vectors without pictures."""
    info = FeatureInfo("penultimate@avg", "penultimate", "avg", 1.0, (WIDTH,), WIDTH, "float32")
    fingerprint = {"model": "tf_efficientnet_lite0", "weights": "0" * 32, "weights_source": "bundled",
                   "precision": "f32", "transform": {"size": [224, 224]}, "decoder": "pillow-1"}  # fmt: skip
    n_rows = len(rows)
    digests = np.zeros((n_rows, 16), np.uint8)
    digests[:, :8] = np.arange(n_rows)[:, None] >> (8 * np.arange(8)) & 255
    partial = path.with_suffix(".partial")
    with StoreWriter(partial) as writer:
        writer.put_strings("/images/path", [f"{row:07d}.jpg" for row in range(n_rows)])
        writer.put_column("digest", digests)
        writer.put_column("phash", np.zeros((n_rows, 8), np.uint8))
        writer.put_column("size", np.full((n_rows, 2), 224))
        writer.put_column("label", np.full(n_rows, -1))
        writer.put_column("split", np.full(n_rows, -1))
        writer.put_strings("/labels/names", [])
        writer.put_rows(info, n_rows, (rows[start : start + BLOCK] for start in range(0, n_rows, BLOCK)))
        for name in ("path", "reason"):
            writer.put_strings(f"/failures/{name}", [])
        attributes = {"source": "bench", "aliases": "{}"}
        writer.finish(format_name="featx", rows=n_rows, fingerprint=fingerprint, attributes=attributes)
    partial.rename(path)


def report(built: dict, path: Path, rows: np.ndarray, queries: dict[str, np.ndarray]) -> None:
    """Print the recall on fresh queries, and queries a second beside flat search."""
    chosen = built["tuning"]["chosen"]
    low, high = chosen["interval"]
    print(f"kept {chosen['factory']} {chosen['parameters']}: promised {chosen['recall']:.4f} ({low:.4f} to {high:.4f})")
    index = ImageIndex.load(path)
    flat = faiss.IndexFlatIP(WIDTH)
    for start in range(0, len(rows), BLOCK):
        flat.add(normalised(rows[start : start + BLOCK]))
    for name, asked in queries.items():
        exact, found = flat.search(normalised(asked), K)[1], index.search(asked, K).ids
        hits = np.array([len(np.intersect1d(one, other)) for one, other in zip(found, exact, strict=True)]) / K
        half = 1.96 * hits.std() / np.sqrt(len(hits))
        low, high = hits.mean() - half, hits.mean() + half
        print(f"measured {hits.mean():.4f} ({low:.4f} to {high:.4f}) on {len(hits)} fresh queries, {name}")
    asked = next(iter(queries.values()))
    unit = normalised(asked)
    for threads in (1, None):
        with threadpool_limits(limits=threads):
            ours, theirs = (
                speed(search, len(asked)) for search in (lambda: index.search(asked, K), lambda: flat.search(unit, K))
            )
        print(f"{threads or 'all'} threads: {ours:.0f} queries/s, flat {theirs:.1f}: {ours / theirs:.0f} times")


def normalised(rows: np.ndarray) -> np.ndarray:
    """Return rows of length 1."""
    return np.ascontiguousarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def speed(search: object, number: int) -> float:
    """Return queries a second, the best of three."""
    return number / min(_seconds(search) for _ in range(3))


def _seconds(search: object) -> float:
    started = time.perf_counter()
    search()  # type: ignore[operator]
    return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
