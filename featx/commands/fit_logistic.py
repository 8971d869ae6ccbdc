"""Fit a logistic regression on features and score it on rows that it never saw."""

from __future__ import annotations

from typing import Any

from featx.commands.fitting import add_fit_arguments as add_arguments
from featx.commands.fitting import fit_and_report

__all__ = ["add_arguments", "run"]


def run(**values: Any) -> int:
    """Fit, save and report."""
    return fit_and_report("logistic", **values)
