"""One run at a time on the segments of a store."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from featx.errors import StoreError, WouldOverwriteError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep a second run away from the segments; the lock ends with the process, however it ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / "lock", os.O_CREAT | os.O_RDWR)
    except OSError as error:
        raise StoreError(f"{folder} cannot be written ({error.strerror}); choose another --out") from error
    try:
        _take(handle, folder)
        yield
    finally:
        os.close(handle)


def _take(handle: int, folder: Path) -> None:
    try:
        import fcntl
    except ImportError:  # Windows has no flock; there, two runs at once are the user's to avoid
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise WouldOverwriteError(
            f"another run is writing to {folder}; wait for it to finish, or choose another --out"
        ) from error
