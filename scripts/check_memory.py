"""Measures the peak memory of a small and of a large extraction: it must not grow with the number of images.

    python scripts/check_memory.py                        2,000 against 20,000 images, default network
    python scripts/check_memory.py --few 200 --many 1000 --photos ../shared/data/pets3_180

Each extraction is the real command in a process of its own; measured is the most memory that this process ever had
resident (``ru_maxrss``). The pictures are copies of a few, each with its number appended: other bytes, so that every
copy is computed, and the same picture. A first run converts the network, so that the other two are alike; it is held
to the limit too.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

import featx
from featx.images import list_images

_N_DIFFERENT = 20


def main() -> int:
    """Print the figures; return 1 where a bound is broken."""
    arguments = parse()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        originals = photos(arguments.photos) if arguments.photos else draw_pictures(arguments.size, arguments.seed)
        peaks = {}
        print("  images  images/s  seconds  peak MB")
        for title, n_images in (("first", arguments.first), ("few", arguments.few), ("many", arguments.many)):
            if not n_images:
                continue
            source = write_copies(folder / title, originals, n_images)
            report, seconds, peaks[title] = measure(extract_command(arguments, source, folder / f"{title}.h5"))
            if report["computed"] != n_images:
                print(f"FAILED: {report['computed']} of {n_images} images were computed")
                return 1
            print(f"{n_images:8}  {n_images / seconds:8.1f}  {seconds:7.1f}  {peaks[title]:7.0f}", flush=True)
    growth, most = peaks["many"] - peaks["few"], max(peaks.values())
    print(f"growth {growth:.0f} MB (at most {arguments.growth}), most {most:.0f} MB (at most {arguments.limit})")
    if growth > arguments.growth or most > arguments.limit:
        print("FAILED: too much memory")
        return 1
    print("ok")
    return 0


def parse() -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", type=int, default=64, help="images of the run that converts; 0 leaves it out")
    parser.add_argument("--few", type=int, default=2000, help="images of the small extraction")
    parser.add_argument("--many", type=int, default=20000, help="images of the large one")
    parser.add_argument("--photos", type=Path, help="pictures to copy (default: drawn ones)")
    parser.add_argument("--size", default="500x375", help="of drawn pictures, width and height in pixels")
    parser.add_argument("--seed", type=int, default=0, help="of drawn pictures")
    parser.add_argument("--model", default="tf_efficientnet_lite0")
    parser.add_argument("--weights")
    parser.add_argument("--layers", default="penultimate")
    parser.add_argument("--growth", type=float, default=150, help="MB that the large one may take more")
    parser.add_argument("--limit", type=float, default=2000, help="MB that any may take")
    return parser.parse_args()


def extract_command(arguments: argparse.Namespace, source: Path, out: Path) -> list[str]:
    """Return the command of one extraction."""
    options = ["--model", arguments.model, "--layers", arguments.layers, "--json"]
    options += ["--weights", arguments.weights] if arguments.weights else []
    return [sys.executable, "-m", "featx", "extract", str(source), "--out", str(out), *options]


def measure(command: list[str]) -> tuple[dict, float, float]:
    """Run a command; return what it printed, the seconds it took, and the most MB that it had resident."""
    places = [str(Path(featx.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places)}
    started = time.monotonic()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)
    with process.stdout as printed:
        report = printed.read()
    _, status, usage = os.wait4(process.pid, 0)  # of this child alone
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"FAILED: the command ended with {process.returncode}")
    n_bytes = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return json.loads(report), time.monotonic() - started, n_bytes / 1e6


def photos(folder: Path) -> list[tuple[str, bytes]]:
    """Return extension and content of all pictures of a source."""
    paths = [Path(entry.location) for entry in list_images(folder).entries]
    return [(path.suffix, path.read_bytes()) for path in paths]


def draw_pictures(size: str, seed: int) -> list[tuple[str, bytes]]:
    """Return extension and content of a few JPEG files of random patches of colour."""
    width, height = map(int, size.split("x"))
    numbers = np.random.default_rng(seed)
    contents = []
    for _ in range(_N_DIFFERENT):
        file = io.BytesIO()
        patches = Image.fromarray(numbers.integers(0, 256, (24, 32, 3), np.uint8))
        patches.resize((width, height), Image.Resampling.BICUBIC).save(file, "JPEG", quality=75)
        contents.append((".jpg", file.getvalue()))
    return contents


def write_copies(folder: Path, originals: list[tuple[str, bytes]], n_images: int) -> Path:
    """Write so many copies, no two of the same bytes; decoders stop at the end of the picture."""
    for number in range(n_images):
        suffix, content = originals[number % len(originals)]
        path = folder / f"class{number % 10}" / f"{number:06}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content + f"copy {number}".encode())
    return folder


if __name__ == "__main__":
    sys.exit(main())
