"""Fit a ridge classifier on features, the fastest of the linear ones, and score it on rows that it never saw."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from featx.commands.fitting import add_fit_arguments, fit_and_report

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``featx fit-ridge``."""
    add_fit_arguments(parser)


def run(**values: Any) -> int:
    """Fit, save and report."""
    return fit_and_report("ridge", **values)
