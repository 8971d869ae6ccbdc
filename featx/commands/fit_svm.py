"""Fit a support vector machine on features and score it on rows that it never saw."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from featx.commands.fitting import add_fit_arguments, fit_and_report

if TYPE_CHECKING:
    import argparse

HEADS = {"linear": "svm", "rbf": "svm-rbf"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``featx fit-svm``."""
    add_fit_arguments(parser)
    parser.add_argument(
        "--kernel", choices=tuple(HEADS), default="linear", help="of the machine (default: %(default)s)"
    )


def run(*, kernel: str, **values: Any) -> int:
    """Fit, save and report."""
    return fit_and_report(HEADS[kernel], **values)
