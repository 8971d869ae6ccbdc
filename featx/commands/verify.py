"""Check that every byte of a store is what was written."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``featx verify``."""
    parser.add_argument("store", metavar="F.h5", help="store to check")


def run(*, store: str) -> int:
    """Print every problem; exit 2 if there is one."""
    from pathlib import Path

    from featx.store import verify

    problems = verify(Path(store))
    for problem in problems:
        print(f"{store}: {problem}", file=sys.stderr)
    if problems:
        print(f"{store} is damaged: restore a copy, or extract again with --overwrite", file=sys.stderr)
        return 2
    print(f"{store}: every dataset is what was written")
    return 0
