"""How often a phone photo finds its printed cover at rank 1, step by step from plain cosine to the geometric check.

    python scripts/score_covers.py ../shared/data
    python scripts/score_covers.py ../shared/data --covers 40 --shots 2      (a quick look)

Covers and photos are made here (see cover_photos.py), the same ones each time. The recipe was chosen on the first half
of the covers; the other half has seen none of it. Whitening is learned on the covers of each half alone.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from cover_photos import Hardship, Pictures, list_pictures, make_cover, photograph, split_pictures
from PIL import Image

from featx.backbones import open_backbone
from featx.extraction import FeatureComputer
from featx.extraction.memory_entries import MemoryEntry
from featx.images.views import View
from featx.retrieval.local.descriptors import fit_local_encoder
from featx.retrieval.local.matching import MatchOptions, score_candidates
from featx.retrieval.local.places import LocalPlaces, place_positions

LAYER = "blocks.4"
OWN, WHOLE = View(), View(span=8.0)  # as far as the picture goes, in each direction for itself
CLOSER = tuple(View(span=0.6, place=(down, across)) for down in (0, 0.5, 1) for across in (0, 0.5, 1))
TURNS = (None, Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_270)
HARDSHIPS = {
    "usual": Hardship(),
    "hard": Hardship(turn=18, tilt=0.15, extent=(0.3, 0.8), shift=0.15, glare=0.9, spoil=2.2),
}


Step = Callable[["Half"], np.ndarray]  # scores (photos, covers)


@dataclass(frozen=True)
class Seen:
    """What the network makes of pictures: some views of each."""

    last: np.ndarray  # (n, d) of the network's own view
    maps: np.ndarray  # (n, views, h, w, c) float16
    positions: np.ndarray  # (n, views, h·w, 2)

    def places(self, views: slice, number: int | None = None) -> np.ndarray:
        """Return the places of some views, of all pictures or of one, (n, places, c)."""
        chosen = self.maps[slice(None) if number is None else slice(number, number + 1), views]
        return chosen.reshape(len(chosen), -1, chosen.shape[-1])

    def where(self, views: slice) -> np.ndarray:
        """Return where they lie, (n, places, 2)."""
        return self.positions[:, views].reshape(len(self.positions), -1, 2)


@dataclass(frozen=True)
class Half:
    """Half of the covers, with their photos in every turn; photo i shows cover i // shots."""

    covers: Seen
    photos: tuple[Seen, ...]
    shots: int

    def share_found(self, scores: np.ndarray) -> float:
        """Return the share of photos whose cover has the highest of the scores (photos, covers)."""
        truth = np.arange(len(scores)) // self.shots
        return float((scores.argmax(axis=1) == truth).mean())


def main() -> None:
    """Print a row a step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of the shared sets of pictures")
    parser.add_argument("--covers", type=int, default=200, help="half of them to choose on, half to report on")
    parser.add_argument("--shots", type=int, default=4, help="photos a cover")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--photos", choices=HARDSHIPS, default="usual", help="hard: dimmer, smaller, more blurred")
    arguments = parser.parse_args()
    backbone = open_backbone("tf_efficientnet_lite0", download=False)
    computer = FeatureComputer(backbone, backbone.select([f"{LAYER}@flatten", "penultimate"]).taps)
    printed, clutter = split_pictures(list_pictures(arguments.data), arguments.seed)
    middle = arguments.covers // 2
    halves = [
        look_at(computer, numbers, printed, clutter, arguments.shots, arguments.seed, HARDSHIPS[arguments.photos])
        for numbers in (range(middle), range(middle, 2 * middle))
    ]
    n_photos = middle * arguments.shots
    print(f"\n{middle} covers and {n_photos} photos a half; rank 1")
    print("| step | choosing half | reporting half | ms a query | bytes a cover |")
    print("| --- | --: | --: | --: | --: |")
    for name, function, n_bytes in steps():
        started = time.perf_counter()
        found = [half.share_found(function(half)) for half in halves]
        milliseconds = (time.perf_counter() - started) / (2 * n_photos) * 1000
        print(f"| {name} | {found[0]:.3f} | {found[1]:.3f} | {milliseconds:.1f} | {n_bytes} |", flush=True)


def look_at(
    computer: FeatureComputer,
    numbers: range,
    printed: Pictures,
    clutter: Pictures,
    shots: int,
    seed: int,
    hard: Hardship,
) -> Half:
    """Make covers and their photos, and show them to the network."""
    covers = [make_cover(number, printed, seed) for number in numbers]
    photos = [
        photograph(cover, number, shot, clutter, seed, hard)
        for number, cover in zip(numbers, covers, strict=True)
        for shot in range(shots)
    ]
    turned = (photos if turn is None else [photo.transpose(turn) for photo in photos] for turn in TURNS)
    seen = tuple(show(computer, pictures, (OWN, *CLOSER)) for pictures in turned)
    return Half(show(computer, covers, (OWN, WHOLE)), seen, shots)


def show(computer: FeatureComputer, pictures: Sequence[Image.Image], views: Sequence[View]) -> Seen:
    """Return what the network sees in some views of pictures."""
    local, last = computer.taps
    channels, height, width = local.layer.shape
    maps, vectors = [], []
    for start in range(0, len(pictures), 20):
        entries = [MemoryEntry(str(start), picture) for picture in pictures[start : start + 20]]
        features, _ = computer.view_features_of(entries, views)
        part = features[local.key].reshape(len(entries), len(views), channels, height, width)
        maps.append(part.transpose(0, 1, 3, 4, 2).astype(np.float16))
        vectors.append(features[last.key][:, 0])
    positions = [
        place_positions((height, width), np.array([box_of(view, picture.size) for view in views]), picture.size)
        for picture in pictures
    ]
    where = np.stack(positions).reshape(len(pictures), len(views), height * width, 2)
    return Seen(np.concatenate(vectors), np.concatenate(maps), where)


def box_of(view: View, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Return what a view shows (left, top, right, bottom) as shares of the picture, for a crop of 0.875 in the middle.

    The network's own crop is a square of 0.875 of the shorter side.
    """
    crop = 0.875 * min(size)
    width, height = (min(view.span * crop / length, 1.0) for length in size)
    left, top = view.place[1] * (1 - width), view.place[0] * (1 - height)
    return left, top, left + width, top + height


def steps() -> list[tuple[str, Step, int]]:
    """Return name, function of a half to scores, and bytes a cover, of each step."""
    own, whole, every = slice(0, 1), slice(1, 2), slice(None)
    unguided, turned = MatchOptions(n_guided=0), {"turns": every}
    n_places = 14 * 14
    eight, four = n_places * 64, n_places * 32
    return [
        ("cosine of the last layer", cosine, 1280 * 4),
        ("late interaction of whitened places", plain_late, n_places * 112 * 2),
        ("+ 64 numbers a place, means off, summed over the cover", staged(own, own, unguided, only_late=True), eight),
        ("+ closer views of the photo", staged(own, every, unguided, only_late=True), eight),
        ("+ geometric check", staged(own, every, unguided), eight),
        ("+ guided matching", staged(own, every), eight),
        ("+ photo turned by ±90°: **final on the network's own crop**", staged(own, every, **turned), eight),
        ("+ 4 bits a number", staged(own, every, **turned, bits=4), four),
        ("the whole cover: late interaction", staged(whole, every, unguided, only_late=True), eight),
        ("+ geometric check", staged(whole, every, unguided), eight),
        ("+ guided matching", staged(whole, every), eight),
        ("+ photo turned by ±90°: **final**", staged(whole, every, **turned), eight),
        ("+ 4 bits a number", staged(whole, every, **turned, bits=4), four),
    ]


def cosine(half: Half) -> np.ndarray:
    """Score by the cosine of the last layer."""
    photos, covers = half.photos[0].last, half.covers.last
    return (photos / np.linalg.norm(photos, axis=1, keepdims=True)) @ (
        covers / np.linalg.norm(covers, axis=1, keepdims=True)
    ).T


def plain_late(half: Half) -> np.ndarray:
    """Score by ColBERT's sum, over the photo's places, of the best match in the cover; all numbers of a place."""
    own = slice(0, 1)
    covers = half.covers.places(own)
    encoder = fit_local_encoder([covers], n_components=covers.shape[2], own_mean=0.0)
    candidates = encoder.describe(covers)
    flat = candidates.reshape(-1, candidates.shape[2]).T
    scores = []
    for vectors in encoder.describe(half.photos[0].places(own)):
        scores.append((vectors @ flat).reshape(len(vectors), *candidates.shape[:2]).max(axis=2).sum(axis=0))
    return np.array(scores)


def staged(
    cover_views: slice,
    photo_views: slice,
    options: MatchOptions | None = None,
    *,
    turns: slice = slice(0, 1),
    only_late: bool = False,
    bits: int = 8,
) -> Step:
    """Return a function that scores by the library's second stage, covers from their bytes."""

    def score(half: Half) -> np.ndarray:
        maps = half.covers.places(cover_views)
        encoder = fit_local_encoder([maps], bits=bits)
        candidates, where = encoder.decode(encoder.encode(maps)), half.covers.where(cover_views)
        rows = []
        for number in range(len(half.photos[0].maps)):
            query = [
                LocalPlaces(encoder.describe(seen.places(photo_views, number))[0], seen.where(photo_views)[number])
                for seen in half.photos[turns]
            ]
            found = score_candidates(query, candidates, where, options)
            rows.append(found.late if only_late else found.scores)
        return np.array(rows)

    return score


if __name__ == "__main__":
    main()
