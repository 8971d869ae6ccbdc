"""Kills an extraction at random moments, resumes it each time, and compares with an undisturbed run.

    python scripts/check_kills.py                         3000 generated pictures, 20 kills
    python scripts/check_kills.py ../shared/data/pets3_180 --kills 10

Every run is the real command in a process of its own, ended by SIGKILL at a random moment after it began to work;
more kills are aimed at the merge. A run that ends before its kill is compared and removed, and the next begins anew.
Checked are

- the store: features, paths, labels, splits, digests, hashes and sizes equal the undisturbed ones bit for bit;
- that no work is lost: segments stay byte for byte over all later kills, until the store is there;
- that none is done twice but in the open segment: no image is in two segments, and the run that ends computes
  exactly the images that were in none.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

import featx
from featx.errors import StoreError
from featx.store import FeatureStore, open_segments, verify

_COLUMNS = ("paths", "labels", "splits", "digests", "phashes", "sizes")
# The command with segments that close sooner, for runs that are shorter than a segment.
_HASTY = """
import sys
from featx.extraction import segment_writer
segment_writer._SEGMENT_SECONDS = float(sys.argv.pop(1))
from featx.__main__ import run
run()
"""


class CheckFailedError(Exception):
    """Something is not as promised."""


@dataclass
class Trial:
    """One extraction that is killed and resumed until it ends.

    Parameters
    ----------
    command : list of str
        The command, without ``--out``.
    out : Path
        Its store.
    """

    command: list[str]
    out: Path
    segments: dict[str, str] = field(default_factory=dict)  # name -> digest of the file
    known: set[bytes] = field(default_factory=set)  # digests of images whose rows are safe

    @property
    def parts(self) -> Path:
        """Folder of the segments."""
        return self.out.with_name(f"{self.out.name}.parts")

    def start(self) -> subprocess.Popen[bytes]:
        """Start the command, and wait until it has begun to work or has ended."""
        (self.parts / "lock").unlink(missing_ok=True)  # of a killed run; it shows when this one takes it
        process = subprocess.Popen(
            [*self.command, "--out", str(self.out)], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        while process.poll() is None and not (self.parts / "lock").exists():
            time.sleep(0.002)
        return process

    def run(self) -> tuple[dict, float]:
        """Run to the end; return what the command printed, and the seconds that it was at work."""
        process = self.start()
        started = time.monotonic()
        while process.poll() is None and not self.is_done():
            time.sleep(0.002)
        seconds = time.monotonic() - started
        return finished(process), seconds

    def is_merging(self, process: subprocess.Popen[bytes]) -> bool:
        """Return whether the process is writing the store under its temporary name, or was when it was killed."""
        return any(self.out.parent.glob(f"{self.out.name}.tmp-{process.pid}-*"))

    def is_done(self) -> bool:
        """Return whether the store is there and the segments are gone, so that only leaving is left to do."""
        return self.out.exists() and not self.parts.exists()

    def look(self, process: subprocess.Popen[bytes]) -> str:
        """Check what a killed process has left, remember it, and return what it was doing."""
        if self.out.exists():
            self.known = digests_of(self.out)
            return "done but for the segments"
        rows = [bytes(digest) for segment in open_segments(self.parts) for digest in segment.digests]
        files = {path.name: content_digest(path) for path in self.parts.glob("*.h5") if path.stat().st_size}
        changed = [name for name, digest in self.segments.items() if files.get(name) != digest]
        if changed:
            raise CheckFailedError(f"segments that were finished are gone or changed: {', '.join(changed)}")
        if len(set(rows)) < len(rows):
            raise CheckFailedError(f"{len(rows) - len(set(rows))} rows are in two segments: computed twice")
        if not self.known <= set(rows):
            raise CheckFailedError(f"{len(self.known - set(rows))} rows that were safe are gone")
        self.segments, self.known = files, set(rows)
        return "merging" if self.is_merging(process) else "computing"

    def check_end(self, report: dict, reference: Path) -> None:
        """Check a run that came to its end, and forget it."""
        expected = len(digests_of(reference)) - len(self.known)
        if report["computed"] != expected:
            raise CheckFailedError(f"the last run computed {report['computed']} images; {expected} were in no segment")
        compare(reference, self.out)
        if self.parts.exists():
            raise CheckFailedError(f"{self.parts} is still there")
        self.forget()

    def forget(self) -> None:
        """Remove everything, for a new beginning."""
        self.out.unlink(missing_ok=True)
        shutil.rmtree(self.parts, ignore_errors=True)
        self.segments, self.known = {}, set()


def main() -> int:
    """Kill, resume, compare; return 1 where something is not as promised."""
    arguments = parse()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pictures = arguments.pictures or write_pictures(folder / "pictures", arguments.images, arguments.seed)
        command = extract_command(arguments, pictures)
        reference = Trial(command, folder / "undisturbed.h5")
        report, seconds = reference.run()
        print(
            f"{report['rows']} images; undisturbed {seconds:.1f} s of work; {report['engine']}; seed {arguments.seed}"
        )
        try:
            n_rounds = kill_and_resume(Trial(command, folder / "killed.h5"), reference.out, seconds, arguments)
        except CheckFailedError as error:
            print(f"FAILED: {error}")
            return 1
    n_kills = arguments.kills + arguments.merge_kills
    print(f"ok: {n_kills} kills, {n_rounds} finished extractions, all equal to the undisturbed one bit for bit")
    return 0


def parse() -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", nargs="?", type=Path, help="a source of images (default: generated pictures)")
    parser.add_argument("--images", type=int, default=3000, help="pictures to generate")
    parser.add_argument("--kills", type=int, default=20, help="at random moments")
    parser.add_argument("--merge-kills", type=int, default=3, help="and so many while the store is being merged")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="tf_efficientnet_lite0")
    parser.add_argument("--weights")
    parser.add_argument("--layers", default="middle,penultimate")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--cold", action="store_true", help="leave out the run that converts the network first")
    parser.add_argument("--segment-seconds", type=float, help="close segments sooner than the command would")
    return parser.parse_args()


def extract_command(arguments: argparse.Namespace, pictures: Path) -> list[str]:
    """Return the command that extracts the pictures, without ``--out``."""
    start = ["-m", "featx"]
    if arguments.segment_seconds is not None:
        start = ["-c", _HASTY, str(arguments.segment_seconds)]
    options = ["--model", arguments.model, "--layers", arguments.layers, "--json"]
    options += ["--weights", arguments.weights] if arguments.weights else []
    options += ["--batch-size", str(arguments.batch_size)] if arguments.batch_size else []
    return [sys.executable, *start, "extract", str(pictures), *options]


def kill_and_resume(trial: Trial, reference: Path, seconds: float, arguments: argparse.Namespace) -> int:
    """Kill as often as asked for, print a line for each, and return how many extractions came to their end."""
    moments = random.Random(arguments.seed)
    aimed = [False] * arguments.kills + [True] * arguments.merge_kills
    moments.shuffle(aimed)
    n_all, n_rounds, n_kills = len(digests_of(reference)), 0, 0
    print("kill  seconds at work  doing                      segments  images kept")
    while n_kills < len(aimed):
        process = trial.start()
        started = time.monotonic()
        share_left = max(1 - len(trial.known) / n_all, 0.2)  # what is resumed takes less time
        wait_for_the_moment(process, trial, aimed[n_kills], moments.uniform(0, seconds * share_left))
        if process.poll() is not None or trial.is_done():
            trial.check_end(finished(process), reference)
            n_rounds += 1
            continue
        at_work = time.monotonic() - started
        process.send_signal(signal.SIGKILL)
        process.communicate()
        doing = trial.look(process)
        n_kills += 1
        print(
            f"{n_kills:4}  {at_work:15.2f}  {doing:25}  {len(trial.segments):8}  {len(trial.known)}/{n_all}", flush=True
        )
    report, _ = trial.run()
    trial.check_end(report, reference)
    return n_rounds + 1


def wait_for_the_moment(process: subprocess.Popen[bytes], trial: Trial, at_merge: bool, seconds: float) -> None:
    """Return when the process is to be killed, or has ended."""
    until = time.monotonic() + seconds
    while process.poll() is None and not trial.is_done():
        if trial.is_merging(process) if at_merge else time.monotonic() > until:
            return
        time.sleep(0.0005)


def finished(process: subprocess.Popen[bytes]) -> dict:
    """Return what a command that ends by itself has printed."""
    printed, complaints = process.communicate()
    if process.returncode not in (0, 1):
        raise CheckFailedError(f"the command ended with {process.returncode}:\n{complaints.decode()}")
    return json.loads(printed)


def compare(expected: Path, found: Path) -> None:
    """Check that two stores hold the same, bit for bit."""
    problems = verify(found)
    if problems:
        raise CheckFailedError(f"{found} is damaged: {'; '.join(map(str, problems))}")
    with FeatureStore(expected) as left, FeatureStore(found) as right:
        if left.keys != right.keys or left.label_names != right.label_names or left.failures != right.failures:
            raise CheckFailedError(f"layers, classes or failures differ: {left.keys} against {right.keys}")
        for name in _COLUMNS:
            if not np.array_equal(getattr(left, name), getattr(right, name)):
                raise CheckFailedError(f"{name} differ")
        for key in left.keys:
            for number, (one, other) in enumerate(zip(left[key].blocks(1000), right[key].blocks(1000), strict=True)):
                if one.tobytes() != other.tobytes():
                    raise CheckFailedError(f"features {key} differ in rows {1000 * number} to {1000 * number + 999}")


def digests_of(path: Path) -> set[bytes]:
    """Return the digests of the images in a store."""
    try:
        with FeatureStore(path) as store:
            return set(map(bytes, store.digests))
    except StoreError as error:
        raise CheckFailedError(f"a store that is there cannot be read: {error}") from error


def content_digest(path: Path) -> str:
    """Return the digest of a file."""
    return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()


def environment() -> dict[str, str]:
    """Return an environment in which the command is this featx, wherever it is called from."""
    places = [str(Path(featx.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(places)}


def write_pictures(folder: Path, n_images: int, seed: int) -> Path:
    """Write small JPEG files of random patches of colour, in three class folders, one in fifty twice."""
    numbers = np.random.default_rng(seed)
    for number in range(n_images):
        path = folder / f"class{number % 3}" / f"{number:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        if number % 50 == 49:
            shutil.copy(folder / f"class{(number - 7) % 3}" / f"{number - 7:06}.jpg", path)
            continue
        patches = Image.fromarray(numbers.integers(0, 256, (6, 8, 3), np.uint8))
        patches.resize((160, 120), Image.Resampling.BICUBIC).save(path, quality=85)
    return folder


if __name__ == "__main__":
    sys.exit(main())
