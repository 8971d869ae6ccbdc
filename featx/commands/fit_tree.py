"""Fit a decision tree, random forest or gradient boosting on features and score it on rows that it never saw."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from featx.commands.fitting import add_fit_arguments, fit_and_report

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``featx fit-tree``."""
    add_fit_arguments(parser)
    parser.add_argument(
        "--kind",
        choices=("tree", "forest", "boosting"),
        default="forest",
        help="which kind of trees (default: %(default)s)",
    )


def run(*, kind: str, **values: Any) -> int:
    """Fit, save and report."""
    return fit_and_report(kind, **values)
