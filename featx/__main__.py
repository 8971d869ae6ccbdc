"""The command line: ``featx VERB …`` and ``python -m featx VERB …``."""

from __future__ import annotations

import sys
from typing import NoReturn

from featx.commands.command_line import main


def run() -> NoReturn:
    """Run the console script."""
    sys.exit(main())


if __name__ == "__main__":
    run()
