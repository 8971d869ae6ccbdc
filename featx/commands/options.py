"""Options that several verbs share, so that they read the same everywhere."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from featx.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from featx.extraction import ComputeOptions

_SEED, _HELD_OUT = 0, 0.2  # what is taken where nothing is given


def add_layer_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--layer``, one feature set of a store."""
    parser.add_argument(
        "--layer",
        metavar="NAME",
        help="layer, LAYER@POOL or alias in the store (default: penultimate, else the deepest)",
    )


def add_split_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what says which rows are held out: ``--seed --held-out --groups --allow-duplicates``."""
    parser.add_argument("--seed", type=int, default=_SEED, metavar="N", help="of folds and held-out rows (default: 0)")
    parser.add_argument(
        "--held-out", type=float, default=_HELD_OUT, metavar="SHARE",
        help="share of rows to score on where there is no test or val split (default: 0.2)",
    )  # fmt: skip
    parser.add_argument(
        "--groups", metavar="COLUMN", dest="group_column",
        help="column of the CSV that the store was made from: images with the same text in it stay on one side"
        " (default: its column group)",
    )  # fmt: skip
    parser.add_argument(
        "--allow-duplicates", action="store_true", help="do not look for copies and near-copies of images"
    )


def add_row_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what says which rows a head is fitted on, and how: `add_split_arguments`, ``--balanced --allow-random``."""
    add_split_arguments(parser)
    parser.add_argument("--balanced", action="store_true", help="weigh classes by the inverse of their size")
    parser.add_argument("--allow-random", action="store_true", help="accept features of untrained weights")


def check_seed(seed: int) -> None:
    """Raise `UsageError` where ``--seed`` is out of its range."""
    if not 0 <= seed < 2**32:
        raise UsageError(f"--seed {seed} is not from 0 to {2**32 - 1}")


def check_row_arguments(*, seed: int, held_out: float, jobs: int | None) -> None:
    """Check the numbers of `add_row_arguments`, and ``--jobs``.

    Raises
    ------
    UsageError
        One is out of its range.
    """
    check_seed(seed)
    if not 0 < held_out < 1:
        raise UsageError(f"--held-out {held_out} is not between 0 and 1; give a share such as 0.2")
    if jobs is not None and jobs < 1:
        raise UsageError(f"--jobs {jobs} starts no process; give 1 or more, or leave it out")


def typed_row_options(
    *,
    seed: int,
    held_out: float,
    balanced: bool,
    group_column: str | None,
    allow_duplicates: bool,
    allow_random: bool,
) -> list[str]:
    """Return what of `add_row_arguments` has to be typed, so that another command takes the same rows."""
    return [
        *([f"--seed {seed}"] if seed != _SEED else []),
        *([f"--held-out {held_out}"] if held_out != _HELD_OUT else []),
        *(["--balanced"] if balanced else []),
        *([] if group_column is None else [f"--groups {shlex.quote(group_column)}"]),
        *(["--allow-duplicates"] if allow_duplicates else []),
        *(["--allow-random"] if allow_random else []),
    ]


def add_output_argument(parser: argparse.ArgumentParser, what: str, example: str) -> None:
    """Add ``--out`` and ``--overwrite``."""
    parser.add_argument("--out", required=True, metavar="FILE", help=f"{what}, such as {example}")
    parser.add_argument("--overwrite", action="store_true", help="replace what is at --out")


def add_json_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--json``."""
    parser.add_argument("--json", action="store_true", dest="as_json", help="print JSON for programs")


def add_view_arguments(parser: argparse.ArgumentParser) -> None:
    """Add test-time augmentation: ``--tta`` and ``--tta-combine``."""
    parser.add_argument(
        "--tta", type=int, default=1, metavar="N",
        help="views an image: 2 flip, 3 scales, 5 crops, 6 scales and flip, 10 crops and flip (default: 1, none)",
    )  # fmt: skip
    parser.add_argument(
        "--tta-combine", default="mean", choices=("mean", "vote"), dest="combine",
        help="mean of the views' probabilities, or the share of views that vote for a class (default: mean)",
    )  # fmt: skip


def add_ranking_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what a search does besides: ``--expand --alpha --reciprocal --rerank --candidates``."""
    group = parser.add_argument_group("better neighbours")
    group.add_argument(
        "--expand", type=int, default=0, metavar="N",
        help="search again with the mean of the query and its first N neighbours (default: 0, no query expansion)",
    )  # fmt: skip
    group.add_argument(
        "--alpha", type=float, default=3.0, metavar="A", help="power of the score by which these weigh (default: 3)"
    )
    group.add_argument(
        "--reciprocal", action="store_true", help="order the first candidates anew by their k-reciprocal neighbours"
    )
    group.add_argument(
        "--rerank", action="store_true",
        help="order the first candidates anew by matching places of the pictures, for the same object photographed"
        " differently",
    )  # fmt: skip
    group.add_argument(
        "--candidates", type=int, default=100, metavar="N", help="how many are ordered anew (default: 100)"
    )


def add_weights_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--weights``, for a network that a file names."""
    parser.add_argument(
        "--weights", metavar="FILE", help="weights of the network, where they are not found by themselves"
    )


def add_compute_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what says how a network is run: ``--engine --device --batch-size --workers``."""
    group = parser.add_argument_group("how the network runs")
    group.add_argument("--engine", default="auto", metavar="NAME", help="auto, openvino or torch (default: auto)")
    group.add_argument("--batch-size", type=int, metavar="N", help="images a run (default: chosen for the network)")
    add_device_arguments(group)


def add_device_arguments(group: argparse._ArgumentGroup) -> None:
    """Add ``--device`` and ``--workers`` to a group."""
    group.add_argument(
        "--device", default="auto", metavar="NAME", help="auto, cpu, cuda, cuda:N or mps (default: auto)"
    )
    group.add_argument("--workers", type=int, metavar="N", help="threads that decode images (default: one a processor)")


def compute_options(
    engine: str,
    device: str,
    batch_size: int | None,
    workers: int | None,
    precision: str = "f32",
    compiled: bool = False,
) -> ComputeOptions:
    """Return the options as the library takes them.

    Raises
    ------
    UsageError
        A number is below 1.
    """
    for name, value in (("--batch-size", batch_size), ("--workers", workers)):
        if value is not None and value < 1:
            raise UsageError(f"{name} {value} is not at least 1; leave it out to have it chosen")

    from featx.extraction import ComputeOptions

    return ComputeOptions(engine, device, precision, batch_size, workers, compiled)
