"""Check that every byte of a store, a classifier or an index is what was written."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``featx verify``."""
    parser.add_argument("file", metavar="FILE", help="F.h5, C.featx or F.index")


def run(*, file: str) -> int:
    """Print every problem; exit 2 if there is one."""
    from featx.workflows.file_kinds import check_file

    problems = check_file(file)
    for problem in problems:
        print(problem if file in problem else f"{file}: {problem}", file=sys.stderr)
    if problems:
        print(
            f"{file} is not as it was written: restore a copy, or make it again with --overwrite",
            file=sys.stderr,
        )
        return 2
    print(f"{file}: every byte is what was written")
    return 0
