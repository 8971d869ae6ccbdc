"""Images that could not be read, on stderr."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING

from featx.commands.tables import count

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_N_SHOWN = 20


def print_failures(failures: Sequence[tuple[str, str]], store: str | Path) -> None:
    """Print which images have no row in a store, and why; nothing where all have one.

    Parameters
    ----------
    failures : sequence of (str, str)
        Path and reason.
    store : str or Path
        That lists all of them.
    """
    if not failures:
        return
    print(f"{count(len(failures), 'image')} could not be read, without a row in the store:", file=sys.stderr)
    for path, reason in failures[:_N_SHOWN]:
        print(f"  {path}: {reason}", file=sys.stderr)
    if len(failures) > _N_SHOWN:
        print(f"  … all of them: featx info {shlex.quote(str(store))} --failures", file=sys.stderr)
