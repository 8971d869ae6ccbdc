"""The demonstration behind ./scripts/demo: every step is a command that you could type."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

DATA = Path("data")
LAYERS = "25%,50%,75%,penultimate"


def main(arguments: list[str]) -> int:
    """Run the whole way on a folder, or on the digits, and say what came out."""
    source = Path(arguments[0]) if arguments else write_digits(DATA / "digits")
    out = DATA / "demo"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    store = out / "features.h5"
    print("1. Features of four depths of one frozen network, in one pass\n")
    featx("extract", source, "--out", store, "--layers", LAYERS, allowed=(0, 1))
    described = json.loads(featx("info", store, "--json", quiet=True))
    keys = [feature["key"] for feature in described["features"]]
    labelled = {name: count for name, count in described["labels"].items() if name != "(none)"}
    if len(labelled) > 1:
        compare_depths(store, out, keys, described)
    search(store, out, described)
    return 0


def compare_depths(store: Path, out: Path, keys: list[str], described: dict) -> None:
    """Fit the same SVM on each depth and on raw pixels; predict with the best; print the table."""
    print("2. A linear SVM on each depth, scored on images that it never saw\n")
    results = {}
    for number, key in enumerate(keys):
        bundle = out / f"depth-{number}.featx"
        fitted = json.loads(featx("fit-svm", store, "--layer", key, "--out", bundle, "--json", quiet=True))
        results[bundle] = (key, fitted)
    # Chosen on training images: the table below must not choose what it scores.
    best = max(results, key=lambda bundle: results[bundle][1]["cv_accuracy"] or 0)
    print(f"\n3. Naming images with {results[best][0]}, the best by cross-validation on the training images\n")
    featx("predict", best, *example_images(described, 3))
    print_table([(key, fitted["evaluation"]) for key, fitted in results.values()], results[best][0], described, store)
    print("4. Every layer, and layers side by side, on the same folds of the training images\n")
    featx("compare", store, "--heads", "ridge", "--scales", "zscore", "--reduces", "none,pca:64", "--repeats", "1")
    print("\n5. Which road of transfer to take, and the commands to type\n")
    featx("advise", store, "--html", out / "advice.html")


def print_table(results: list[tuple[str, dict]], chosen: str, described: dict, store: Path) -> None:
    """Print accuracy with its interval for each depth and for raw pixels, and what it shows."""
    features = {feature["key"]: feature for feature in described["features"]}
    raw_width, raw = raw_pixels(store)
    rows = [(f"{key}, depth {features[key]['depth']:.0%}", features[key]["width"], scored) for key, scored in results]
    print(f"\nThe same linear SVM on {raw['rows']} unseen images ({raw['on']})\n")
    print(f"{'features':36} {'width':>6} {'accuracy':>9}   95 % interval")
    for name, width, scored in [*rows, ("raw pixels", raw_width, raw)]:
        low, high = scored["interval"]
        print(f"{name:36} {width:6} {scored['accuracy']:9.3f}   {low:.3f} to {high:.3f}")
    print(f"\n{conclusion(dict(results), chosen, raw)}\n")


def conclusion(results: dict[str, dict], chosen: str, raw: dict) -> str:
    """Return in words what the table shows, and no more than that."""
    last_key, last = list(results.items())[-1]
    best = results[chosen]
    numbers = f"{chosen} has {best['accuracy']:.3f}, the last layer {last['accuracy']:.3f}"
    if chosen == last_key:
        said = (
            f"Cross-validation chose the last layer ({last['accuracy']:.3f}): these images are like the network's own."
        )
    elif last["interval"][1] < best["interval"][0]:
        said = f"On images unlike the network's own an earlier layer wins: {numbers}, and their intervals do not meet."
    elif best["accuracy"] > last["accuracy"]:
        said = f"An earlier layer is ahead: {numbers}, but their intervals overlap; it may be chance."
    else:
        said = f"Cross-validation chose an earlier layer, which is not ahead on unseen images: {numbers}."
    better = "more: for these images no network is needed" if raw["accuracy"] > best["accuracy"] else "less"
    return f"{said}\nRaw pixels give {raw['accuracy']:.3f}, {better}."


def search(store: Path, out: Path, described: dict) -> None:
    """Index the images and look for the like of one of them."""
    print("6. Search: the images most like one of them\n")
    index = out / "images.index"
    featx("index", store, "--out", index)
    featx("query", index, *example_images(described, 1), "-k", "5")


def raw_pixels(store_path: Path) -> tuple[int, dict]:
    """Return width and score of the same SVM, on the same rows, with pixel values in place of features."""
    from PIL import Image

    from featx import FeatureStore
    from featx.heads import evaluate_head, fit_head, split_rows
    from featx.images import ImageEntry
    from featx.workflows.originals import original_location

    with FeatureStore(store_path) as store:
        locations = [original_location(store.source, path) for path in store.paths.tolist()]
        pictures = [ImageEntry(location, location=location).read().decode() for location in locations]
        size = pictures[0].size if max(pictures[0].size) <= 32 else (32, 32)
        pixels = np.stack([np.asarray(picture.resize(size, Image.Resampling.BOX)) for picture in pictures])
        if (pixels == pixels[..., :1]).all():  # gray pictures have three equal channels
            pixels = pixels[..., :1]
        X, y = pixels.reshape(len(pixels), -1).astype(np.float32), np.asarray(store.labels)
        rows = split_rows(y, store.splits, groups=store.groups)
        groups = None if store.groups is None else store.groups[rows.train]
        fitted = fit_head(X[rows.train], y[rows.train], groups=groups)
        evaluation = evaluate_head(
            fitted.pipeline,
            X[rows.held_out],
            y[rows.held_out],
            class_names=store.label_names,
            y_train=y[rows.train],
            on=rows.on,
        )
    return X.shape[1], evaluation.to_json()


def example_images(described: dict, n_images: int) -> list[str]:
    """Return some images of the source, from its test split where it has one."""
    from featx.images import TEST, list_images

    entries = list_images(described["source"]).entries
    entries = [entry for entry in entries if entry.split == TEST] or list(entries)
    step = max(1, len(entries) // n_images)
    return [shown(entry.location) for entry in entries[step // 2 :: step][:n_images]]


def shown(location: str) -> str:
    """Return a path relative to here where it lies inside, so that commands stay short."""
    path = Path(location)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else location


def write_digits(folder: Path) -> Path:
    """Write scikit-learn's digits as 8 x 8 PNG files into train and test folders; a quarter is test."""
    from PIL import Image
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    _, test = train_test_split(np.arange(len(digits.target)), test_size=0.25, stratify=digits.target, random_state=0)
    is_test = np.isin(np.arange(len(digits.target)), test)
    for number, (picture, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        path = folder / ("test" if is_test[number] else "train") / str(label) / f"{number:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            Image.fromarray((picture * (255 / 16)).round().astype(np.uint8)).save(path)  # 0..16 to 0..255
    return folder


def featx(*arguments: object, quiet: bool = False, allowed: tuple[int, ...] = (0,)) -> str:
    """Run a featx command, shown as one would type it; return what it printed."""
    words = [str(argument) for argument in arguments]
    if "info" not in words:
        print(f"$ featx {shlex.join(words)}", flush=True)
    done = subprocess.run([sys.executable, "-m", "featx", *words], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode not in allowed:
        sys.exit(done.returncode)
    if not quiet:
        print(done.stdout)
    return done.stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
