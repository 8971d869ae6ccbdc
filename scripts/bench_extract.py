"""Speed of extraction: images a second end to end, against the plain loop, alternated in one run.

    python scripts/bench_extract.py ../shared/data/pets3_180

The photos are copied until there are enough, each copy with its number appended, so that no two are the same bytes
(featx computes identical images once). The plain loop is eager torch in f32 with timm's own transform, batches of
64, decoding in the main thread. Rates leave out start-up, which is measured beside them.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from featx.backbones import open_backbone
from featx.errors import EngineError
from featx.extraction import ComputeOptions, Extraction, FeatureComputer
from featx.extraction.computing import load_images
from featx.images import ImageListing, list_images

EARLY_TAPS = ("blocks.4", "blocks.2", "blocks.0")


def main() -> int:
    """Print every figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, help="a folder of natural-size photos")
    parser.add_argument("--images", type=int, default=1008)
    parser.add_argument("--plain-images", type=int, default=192, help="of them, for the slow plain loop")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        listing = copy_photos(arguments.photos, Path(folder, "photos"), arguments.images)
        print(f"{len(listing)} photos, {torch.get_num_threads()} threads")
        compare_with_plain(listing, Path(folder), arguments.plain_images, arguments.rounds)
        compare_taps(listing, Path(folder), arguments.rounds)
        measure_start(Path(folder, "photos"), Path(folder), arguments.rounds)
    return 0


def copy_photos(source: Path, target: Path, n_images: int) -> ImageListing:
    """Return a listing of so many photos, no two with the same bytes."""
    target.mkdir()
    originals = [Path(entry.location) for entry in list_images(source).entries]
    for number in range(n_images):
        original = originals[number % len(originals)]
        copied = original.read_bytes() + f"copy {number}".encode()  # decoders stop at the end of the picture
        (target / f"{number:05}{original.suffix}").write_bytes(copied)
    return list_images(target)


def compare_with_plain(listing: ImageListing, folder: Path, n_plain: int, rounds: int) -> None:
    """Print the rates of featx and of the plain loop, and their ratio round by round."""
    rates: dict[str, list[float]] = {}
    for _ in range(rounds):
        rates.setdefault("plain loop", []).append(plain_rate(listing, n_plain))
        for precision in ("f32", "bf16"):
            try:
                rate = featx_rate(listing, folder, "penultimate", precision)
            except EngineError as error:
                print(f"{precision}: not on this processor ({error})")
                continue
            rates.setdefault(f"featx {precision}", []).append(rate)
    plain = rates.pop("plain loop")
    print(f"plain loop    {statistics.median(plain):7.1f} images/s  (rounds: {shown(plain)})")
    for name, values in rates.items():
        ratios = [ours / theirs for ours, theirs in zip(values, plain, strict=True)]
        print(
            f"{name:13} {statistics.median(values):7.1f} images/s  (rounds: {shown(values)});"
            f" {statistics.median(ratios):.1f} times the plain loop (rounds: {shown(ratios)})"
        )


def shown(values: list[float]) -> str:
    """Return numbers side by side."""
    return ", ".join(f"{value:.1f}" for value in values)


def plain_rate(listing: ImageListing, n_images: int) -> float:
    """Return images a second of the loop that everybody writes."""
    from PIL import Image
    from timm.data import create_transform, resolve_model_data_config

    model = open_backbone().module
    model.pretrained_cfg = dict(model.pretrained_cfg)
    transform = create_transform(**resolve_model_data_config(model), is_training=False)
    entries = listing.entries[:n_images]
    started = time.perf_counter()
    with torch.no_grad():
        for start in range(0, len(entries), 64):
            pictures = [Image.open(entry.location).convert("RGB") for entry in entries[start : start + 64]]
            batch = torch.stack([transform(picture) for picture in pictures])
            model.forward_head(model.forward_features(batch), pre_logits=True)
    return len(entries) / (time.perf_counter() - started)


def open_computer(layer: str, precision: str, n_images: int) -> FeatureComputer:
    """Return a computer whose engine is open."""
    backbone = open_backbone()
    computer = FeatureComputer(backbone, backbone.select(layer).taps, ComputeOptions(precision=precision))
    computer.engine_for((tap.key for tap in computer.taps), n_images).run(np.zeros((1, 224, 224, 3), np.uint8))
    return computer


def featx_rate(listing: ImageListing, folder: Path, layer: str, precision: str) -> float:
    """Return images a second from the first file read to the finished store."""
    computer = open_computer(layer, precision, len(listing))
    extraction = Extraction(listing, computer, folder / "bench.h5", overwrite=True)
    started = time.perf_counter()
    extraction.run()
    return len(listing) / (time.perf_counter() - started)


def compare_taps(listing: ImageListing, folder: Path, rounds: int) -> None:
    """Print what an early tap costs, and how much of what decoding and network allow together is reached."""
    decoding = statistics.median(decode_rate(listing) for _ in range(rounds))
    print(f"\ndecoding alone {decoding:.0f} images/s")
    print(f"{'layer':12} {'forward alone':>14} {'both allow':>11} {'end to end':>11} {'share':>6}")
    for layer in ("penultimate", *EARLY_TAPS):
        forward = statistics.median(forward_rate(layer) for _ in range(rounds))
        ours = statistics.median(featx_rate(listing, folder, layer, "f32") for _ in range(rounds))
        together = 1 / (1 / decoding + 1 / forward)  # both keep all cores busy
        print(f"{layer:12} {forward:14.0f} {together:11.0f} {ours:11.0f} {ours / together:6.0%}")


def decode_rate(listing: ImageListing) -> float:
    """Return images a second of reading, hashing, decoding and resizing."""
    transform = open_backbone().transform
    started = time.perf_counter()
    n_images = sum(1 for _ in load_images(listing.entries, transform, n_threads=ComputeOptions().n_threads))
    return n_images / (time.perf_counter() - started)


def forward_rate(layer: str, n_batches: int = 12) -> float:
    """Return images a second of the network alone."""
    computer = open_computer(layer, "f32", 10**6)
    engine = computer.engine_for((tap.key for tap in computer.taps), 10**6)
    batch = np.random.default_rng(0).integers(0, 256, (computer.batch_size, 224, 224, 3), dtype=np.uint8)
    engine.run(batch)
    started = time.perf_counter()
    for _ in range(n_batches):
        engine.run(batch)
    return n_batches * len(batch) / (time.perf_counter() - started)


# The command itself, which says on stderr when its first batch is through.
_WATCHED = """
import sys, time
from featx.extraction.extracting import Extraction
from featx.commands.command_line import main
run_batch = Extraction._run_batch
def watched(self, *arguments):
    run_batch(self, *arguments)
    print("first batch at", time.time(), file=sys.stderr)
Extraction._run_batch = watched
sys.exit(main(sys.argv[1:]))
"""


def measure_start(photos: Path, folder: Path, rounds: int) -> None:
    """Print the seconds from typing a command to its first batch, with the converted network cached and without."""
    cold, warm = [], []
    for number in range(rounds):
        environment = {**os.environ, "FEATX_CACHE": str(folder / f"cache-{number}")}
        for seconds in (cold, warm):
            out = folder / f"start-{number}-{len(cold)}-{len(warm)}.h5"
            command = [sys.executable, "-c", _WATCHED, "extract", str(photos), "--out", str(out), "--limit", "32"]
            started = time.time()
            done = subprocess.run(command, check=True, env=environment, capture_output=True, text=True)
            moment, *_ = (line.split()[-1] for line in done.stderr.splitlines() if line.startswith("first batch at"))
            seconds.append(float(moment) - started)
    print(
        f"\nfrom typing to the first batch of 32: {statistics.median(cold):.1f} s the first time ({shown(cold)}),"
        f" {statistics.median(warm):.1f} s when the network was converted before ({shown(warm)})"
    )


if __name__ == "__main__":
    sys.exit(main())
