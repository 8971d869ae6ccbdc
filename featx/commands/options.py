"""Options that several verbs share, so that they read the same everywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from featx.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from featx.extraction import ComputeOptions


def add_layer_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--layer``, one feature set of a store."""
    parser.add_argument(
        "--layer",
        metavar="NAME",
        help="layer, LAYER@POOL or alias in the store (default: penultimate, else the deepest)",
    )


def add_output_argument(parser: argparse.ArgumentParser, what: str, example: str) -> None:
    """Add ``--out`` and ``--overwrite``."""
    parser.add_argument("--out", required=True, metavar="FILE", help=f"{what}, such as {example}")
    parser.add_argument("--overwrite", action="store_true", help="replace what is at --out")


def add_json_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--json``."""
    parser.add_argument("--json", action="store_true", dest="as_json", help="print JSON for programs")


def add_compute_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what says how a network is run: ``--engine --device --batch-size --workers``."""
    group = parser.add_argument_group("how the network runs")
    group.add_argument("--engine", default="auto", metavar="NAME", help="auto, openvino or torch (default: auto)")
    group.add_argument(
        "--device", default="auto", metavar="NAME", help="auto, cpu, cuda, cuda:N or mps (default: auto)"
    )
    group.add_argument("--batch-size", type=int, metavar="N", help="images a run (default: chosen for the network)")
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
