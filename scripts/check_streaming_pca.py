"""Measures StreamingPCA on a file larger than memory allows: seconds against reading and multiplying, and peak memory.

    python scripts/check_streaming_pca.py                              1,000,000 rows of 1,280 float32 (5.1 GB on disk)
    python scripts/check_streaming_pca.py --rows 50000 --folder /tmp

Two runs are alternated, each a process of its own: the baseline reads the file in the blocks that StreamingPCA takes
and adds up ``block.T @ block`` in float64, which is the least that any exact PCA in one pass has to do; the other is
``StreamingPCA(128).fit``. The best of each counts. The file is read with plain reads: pages of a memory map would count
as resident. Peak memory is ``ru_maxrss``, of the whole process; as a process inherits it from the one that starts it,
the file is written by another process, too.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import featx
from featx.reducers import StreamingPCA
from featx.reducers.row_blocks import rows_per_block

_N_COLUMNS = 1280
_N_COMPONENTS = 128
_ROWS_WRITTEN_AT_ONCE = 10_000


class RowsOnDisk:
    """float32 rows of a raw file, read when they are sliced."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.shape = (path.stat().st_size // (4 * _N_COLUMNS), _N_COLUMNS)

    def __getitem__(self, rows: slice) -> np.ndarray:
        start, stop, _ = rows.indices(self.shape[0])
        count = (stop - start) * _N_COLUMNS
        return np.fromfile(self._path, np.float32, count, offset=start * 4 * _N_COLUMNS).reshape(-1, _N_COLUMNS)


def main() -> int:
    """Print the figures; return 1 where a bound is broken."""
    arguments = parse()
    if arguments.child:
        print(json.dumps(child(arguments)))
        return 0
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        path = Path(name) / "rows.f32"
        run_child("write", path, "--rows", str(arguments.rows), "--seed", str(arguments.seed))
        runs: dict[str, list[dict]] = {"baseline": [], "pca": []}
        print("run         seconds  peak MB")
        for _ in range(arguments.repeats):
            for title, done in runs.items():
                done.append(run_child(title, path))
                print(f"{title:10}  {done[-1]['seconds']:7.2f}  {done[-1]['peak']:7.0f}", flush=True)
    seconds = {title: min(run["seconds"] for run in done) for title, done in runs.items()}
    ratio, peak = seconds["pca"] / seconds["baseline"], max(run["peak"] for run in runs["pca"])
    print(f"ratio {ratio:.2f} (at most {arguments.ratio}), peak {peak:.0f} MB (at most {arguments.limit:.0f})")
    if ratio > arguments.ratio or peak > arguments.limit:
        print("FAILED: too slow or too much memory")
        return 1
    print("ok")
    return 0


def parse() -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="for the file, deleted in the end (default: the system's)")
    parser.add_argument("--repeats", type=int, default=2, help="of both runs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ratio", type=float, default=1.5, help="of seconds that is allowed")
    parser.add_argument("--limit", type=float, default=1000, help="MB that are allowed")
    parser.add_argument("--child", choices=["write", "baseline", "pca"], help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def write_rows(path: Path, n_rows: int, seed: int) -> None:
    """Write rows whose columns are correlated and whose spectrum decays, in blocks."""
    numbers = np.random.default_rng(seed)
    deviations = np.arange(1, _N_COLUMNS + 1, dtype=np.float32) ** -0.5
    mixing = np.linalg.qr(numbers.normal(size=(_N_COLUMNS, _N_COLUMNS)))[0].astype(np.float32)
    with path.open("wb") as file:
        for start in range(0, n_rows, _ROWS_WRITTEN_AT_ONCE):
            size = (min(_ROWS_WRITTEN_AT_ONCE, n_rows - start), _N_COLUMNS)
            block = numbers.standard_normal(size, dtype=np.float32) * deviations
            (block @ mixing + np.float32(0.5)).tofile(file)


def run_child(title: str, path: Path, *options: str) -> dict:
    """Return seconds and peak memory of one run in a fresh process."""
    places = [str(Path(featx.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places)}
    command = [sys.executable, __file__, "--child", title, "--file", str(path), *options]
    return json.loads(subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout)


def child(arguments: argparse.Namespace) -> dict:
    """Do one run; return its seconds, without imports, and the peak memory of the process in MB."""
    started = time.perf_counter()
    if arguments.child == "write":
        write_rows(arguments.file, arguments.rows, arguments.seed)
    elif arguments.child == "pca":
        StreamingPCA(_N_COMPONENTS).fit(RowsOnDisk(arguments.file))
    else:
        multiply(RowsOnDisk(arguments.file))
    seconds = time.perf_counter() - started
    n_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {"seconds": seconds, "peak": n_bytes / 1e6}


def multiply(rows: RowsOnDisk) -> np.ndarray:
    """Return the sum of the products of all blocks with themselves, in float64."""
    n_rows = rows_per_block(_N_COLUMNS)
    total = np.zeros((_N_COLUMNS, _N_COLUMNS))
    for start in range(0, rows.shape[0], n_rows):
        block = rows[start : start + n_rows].astype(np.float64)
        total += block.T @ block
    return total


if __name__ == "__main__":
    sys.exit(main())
