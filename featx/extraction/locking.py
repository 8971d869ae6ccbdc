"""One run at a time on the segments of a store."""

from __future__ import annotations

import logging
import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from featx.errors import StoreError, WouldOverwriteError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_NAME = "lock"
_logger = logging.getLogger(__name__)


@contextmanager
def locked(folder: Path, *, waits: bool = False) -> Iterator[None]:
    """Keep a second run away from a folder, which is made; the lock ends with the process, however it ends.

    In the end the folder is removed where nothing but the lock is in it.

    Parameters
    ----------
    folder : Path
        Of segments.
    waits : bool
        Wait for the other run to end.

    Raises
    ------
    WouldOverwriteError
        Another run holds the lock.
    StoreError
        The folder cannot be written.
    """
    handle = _take(folder, waits)
    try:
        yield
    finally:
        # Removed before it is let go, so that nobody can hold a lock that others do not see.
        with suppress(OSError):  # Windows does not remove open files; a lock left behind is harmless
            if os.listdir(folder) == [_NAME]:
                (folder / _NAME).unlink()
                folder.rmdir()
        os.close(handle)


def _take(folder: Path, waits: bool) -> int:
    """Return the open lock file, locked, and the one that the folder's name leads to."""
    while True:
        handle = _open(folder)
        try:
            _lock(handle, folder, waits)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), os.stat(folder / _NAME)):
                    return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # its last holder has removed it in the meantime


def _open(folder: Path) -> int:
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            if isinstance(error, FileExistsError) and not (folder.is_file() or folder.is_symlink()):
                continue  # another run has just ended and removed the folder
            raise _unwritable(folder, error) from error
        try:
            return os.open(folder / _NAME, os.O_CREAT | os.O_RDWR, 0o666)
        except FileNotFoundError:
            continue  # the same, a moment later
        except OSError as error:
            raise _unwritable(folder, error) from error


def _unwritable(folder: Path, error: OSError) -> StoreError:
    return StoreError(f"{folder} cannot be written ({error.strerror}); choose another --out")


def _lock(handle: int, folder: Path, waits: bool) -> None:
    try:
        import fcntl
    except ImportError:  # Windows has no flock; there, two runs at once are the user's to avoid
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if waits else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise WouldOverwriteError(
            f"another run is writing to {folder}; wait for it to finish, or choose another --out"
        ) from error
    except OSError as error:
        _logger.warning("%s cannot be locked (%s); do not start a second run on it", folder, error.strerror)
