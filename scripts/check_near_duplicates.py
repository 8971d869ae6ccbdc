"""Measures what `find_near_duplicates` finds: copies that were changed a little, and pairs in sets as they are.

    python scripts/check_near_duplicates.py ../shared/data [--images 40] [--stores FOLDER] [--least 0.8]

Prints two Markdown tables. The first: of copies of real images, changed in one way each, the share that is found.
Slope and threshold were searched on the sets marked *; counts on the others had been seen before they were fixed. The
second: what is found in the sets themselves. Every pair of omniglot is wrong, for no drawing is there twice. Of the
pairs of the other sets all but emoji were looked at: three of cacao_360 are different pods on the same table, the
others show one picture or scene. emoji has many signs that one artist drew nearly alike.
Stores made by ``featx extract`` are used where --stores has ``SET.h5``.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from featx import FeatureExtractor, FeatureStore
from featx.images import list_images, perceptual_hash
from featx.retrieval.near_duplicates import MIN_LIKENESS, find_near_duplicates, likeness

CHOSEN_ON = ("caltech_10", "cifar10_5k", "emoji_third", "omniglot_121")
OTHERS = ("bccd_cells_600", "cacao_360", "pets3_180", "ucmerced_10")


def main() -> int:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--images", type=int, default=40, help="images a set to change (%(default)s)")
    parser.add_argument("--stores", type=Path, help="folder of stores, made where they are missing")
    parser.add_argument("--least", type=float, default=MIN_LIKENESS, help="least likeness (%(default)s)")
    arguments = parser.parse_args()
    print_found_copies(arguments.root, arguments.images, arguments.least)
    with tempfile.TemporaryDirectory() as folder:
        print_found_pairs(arguments.root, arguments.stores or Path(folder), arguments.least)
    return 0


def print_found_copies(root: Path, n_images: int, least: float) -> None:
    """Print which share of changed copies is found: a row a change, a column a set."""
    sets = [name for name in (*CHOSEN_ON, *OTHERS) if (root / name).is_dir()]
    found = np.stack([found_copies(root / name, n_images, least) for name in sets], axis=1)
    print(f"Found of {n_images} changed copies a set, likeness at least {least}:\n")
    print_row("change", *(f"{name}{'*' * (name in CHOSEN_ON)}" for name in sets), "mean*", "mean of others")
    print_row(*["---"] * (len(sets) + 3))
    chosen = np.array([name in CHOSEN_ON for name in sets])
    for change, shares in zip((*CHANGES, "mean"), np.vstack([found, found.mean(axis=0)]), strict=True):
        means = [part.mean() if len(part) else np.nan for part in (shares[chosen], shares[~chosen])]
        print_row(change, *(f"{share:.2f}" for share in (*shares, *means)))
    print()


def found_copies(folder: Path, n_images: int, least: float) -> np.ndarray:
    """Return the share of copies found, shape (number of changes,)."""
    listing = list_images(folder)
    chosen = np.random.default_rng(0).choice(len(listing), n_images, replace=False)
    originals = [listing.entries[row].read().decode().convert("RGB") for row in chosen]
    pictures = [*originals, *(change(picture) for change in CHANGES.values() for picture in originals)]
    phashes = np.array([np.frombuffer(perceptual_hash(picture), np.uint8) for picture in pictures])
    features = FeatureExtractor().fit_transform(pictures)
    copies = np.arange(n_images, len(pictures))
    return (likeness(phashes, features, copies % n_images, copies) >= least).reshape(-1, n_images).mean(axis=1)


def print_found_pairs(root: Path, stores: Path, least: float) -> None:
    """Print what is found among the images of each set as they are."""
    print("Found in the sets as they are:\n")
    columns = ("identical", "near", "groups", "largest", "pairs", "of two classes", "across splits")
    print_row("set", "images", *columns, "without features")
    print_row(*["---"] * (len(columns) + 3))
    for name in (*CHOSEN_ON, *OTHERS):
        if (root / name).is_dir():
            with FeatureStore(made_store(root / name, stores)) as store:
                print_row(name, store.rows, *found_pairs(store, least))


def found_pairs(store: FeatureStore, least: float) -> list[int]:
    """Return the numbers of one row of the second table, from the column ``identical`` on."""
    features = np.asarray(store["penultimate"], np.float32)
    found = find_near_duplicates(store.digests, store.phashes, features, min_likeness=least)
    i, j = np.nonzero(np.triu(found.groups[:, None] == found.groups, 1) & (found.groups >= 0)[:, None])
    near = likeness(store.phashes, features, i, j) >= least
    i, j = i[near], j[near]
    n_groups = int(found.groups.max()) + 1
    largest = int(np.bincount(found.groups[found.groups >= 0]).max()) if n_groups else 0
    crossing = [int((column[i] != column[j]).sum()) for column in (store.labels, store.splits)]
    by_hash = find_near_duplicates(store.digests, store.phashes).n_near
    return [found.n_identical, found.n_near, n_groups, largest, len(i), *crossing, by_hash]


def made_store(source: Path, stores: Path) -> Path:
    """Return the store of a set, made where it is missing."""
    store = stores / f"{source.name}.h5"
    if not store.exists():
        command = [sys.executable, "-m", "featx", "extract", str(source), "--out", str(store), "--json"]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode > 1:
            sys.exit(done.stderr)
    return store


def print_row(*cells: object) -> None:
    """Print one row of a Markdown table."""
    print("|", " | ".join(map(str, cells)), "|", flush=True)


def compressed(picture: Image.Image, quality: int) -> Image.Image:
    """Return a picture after JPEG compression."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def scaled(picture: Image.Image, factor: float) -> Image.Image:
    """Return a picture of another size."""
    size = [max(8, round(side * factor)) for side in picture.size]
    return picture.resize((size[0], size[1]), Image.Resampling.LANCZOS)


def cropped(picture: Image.Image, left_top: float, right_bottom: float) -> Image.Image:
    """Return a picture without so much of its borders."""
    width, height = picture.size
    cut = [round(side * share) for share in (left_top, right_bottom) for side in (width, height)]
    return picture.crop((cut[0], cut[1], width - cut[2], height - cut[3]))


def turned(picture: Image.Image, degrees: float) -> Image.Image:
    """Return a picture turned about its centre, corners filled with the colour of its first pixel."""
    return picture.rotate(degrees, Image.Resampling.BICUBIC, fillcolor=picture.getpixel((0, 0)))


CHANGES = {
    "JPEG quality 70": lambda picture: compressed(picture, 70),
    "JPEG quality 30": lambda picture: compressed(picture, 30),
    "size 80 %": lambda picture: scaled(picture, 0.8),
    "size 50 %": lambda picture: scaled(picture, 0.5),
    "size 50 %, JPEG 50": lambda picture: compressed(scaled(picture, 0.5), 50),
    "borders cut 2 % each": lambda picture: cropped(picture, 0.02, 0.02),
    "borders cut 5 % each": lambda picture: cropped(picture, 0.05, 0.05),
    "left and top cut 4 %": lambda picture: cropped(picture, 0.04, 0),
    "brightness +15 %": lambda picture: ImageEnhance.Brightness(picture).enhance(1.15),
    "brightness -15 %": lambda picture: ImageEnhance.Brightness(picture).enhance(0.85),
    "contrast +15 %": lambda picture: ImageEnhance.Contrast(picture).enhance(1.15),
    "contrast -15 %": lambda picture: ImageEnhance.Contrast(picture).enhance(0.85),
    "gray": lambda picture: picture.convert("L").convert("RGB"),
    "mirrored": ImageOps.mirror,
    "turned 2 degrees": lambda picture: turned(picture, 2),
    "turned 3 degrees": lambda picture: turned(picture, 3),
}

if __name__ == "__main__":
    sys.exit(main())
