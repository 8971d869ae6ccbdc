"""Where featx keeps what it can make again: converted networks, and times that it measured."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return ``FEATX_CACHE``, else ``featx`` in the user's cache folder; it need not exist yet.

    Raises
    ------
    RuntimeError
        The user has no home, and names no other folder.
    """
    root = os.environ.get("FEATX_CACHE")
    if root:
        return Path(root)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "featx"
