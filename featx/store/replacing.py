"""Files appear whole or not at all: temporary names, flushing, renaming, and plain words when the disk says no."""

from __future__ import annotations

import errno
import logging
import os
import platform
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from featx.errors import FeatxError, StoreError

_TEMPORARY = re.compile(r"\.tmp-(?P<process>\d+)-(?P<thread>\d+)@(?P<host>[^@/]*)$")
_HOST = re.sub(r"[^\w.-]", "_", platform.node())
_SECONDS_UNTIL_STALE = 24 * 3600.0
_log = logging.getLogger(__name__)
_LIVE: set[str] = set()  # temporary files that this process is writing now


@contextmanager
def temporary_file(out: Path) -> Iterator[Path]:
    """Give a temporary name beside `out`, and remove the file of that name, if it is still there, in the end.

    Leftovers of killed writers of the same `out` are removed first.
    """
    remove_leftovers(out.parent, out.name)
    temporary = out.with_name(f"{out.name}.tmp-{os.getpid()}-{threading.get_ident()}@{_HOST}")
    temporary.unlink(missing_ok=True)
    _LIVE.add(str(temporary))
    try:
        yield temporary
    finally:
        _LIVE.discard(str(temporary))
        temporary.unlink(missing_ok=True)


def publish(temporary: Path, out: Path) -> None:
    """Give a finished temporary file its name, so that neither a crash nor a power cut leaves half of it."""
    flush_to_disk(temporary)
    os.replace(temporary, out)
    try:
        flush_to_disk(out.parent)
    except OSError as error:
        # The file is whole and in its place, and some network disks cannot flush folders at all.
        _log.warning("%s is written, but its name may not survive a power cut: %s", out, error)


def flush_to_disk(path: Path) -> None:
    """Wait until the file, or the folder's list of names, is on the disk."""
    if os.name == "nt" and path.is_dir():
        return  # Windows can neither open nor flush a folder
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path, name: str) -> None:
    """Remove temporary files of writers of `name` that are no longer alive."""
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        match = _TEMPORARY.search(path.name)
        if match and path.name[: match.start()] == name:
            with suppress(FileNotFoundError):  # its writer has just finished
                if _is_stale(path, match):
                    path.unlink()


def _is_stale(path: Path, match: re.Match[str]) -> bool:
    process = int(match["process"])
    if match["host"] != _HOST or os.name == "nt":
        # Another machine's processes cannot be asked for; no writer leaves its file untouched for a day.
        return time.time() - path.stat().st_mtime > _SECONDS_UNTIL_STALE
    if process == os.getpid():
        return str(path) not in _LIVE  # a process of an earlier container may have had our number
    return not _is_alive(process)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


@contextmanager
def write_errors(out: Path, *, kept: str) -> Iterator[None]:
    """Turn what goes wrong inside into a StoreError: which file, why, what is kept, what to do.

    Parameters
    ----------
    out : Path
        What was to be written.
    kept : str
        A sentence on what is still there.
    """
    try:
        yield
    except FeatxError:
        raise
    except (OSError, RuntimeError) as error:
        reason, advice = _reason(error)
        message = f"{out} could not be written: {reason}. {kept} {advice}"
        raise StoreError(message) from error


def _reason(error: OSError | RuntimeError) -> tuple[str, str]:
    """Return the system's words for the error, and what to do about it."""
    number = getattr(error, "errno", None)
    words = os.strerror(number) if number else str(error).splitlines()[0].strip().rstrip(".")
    if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return words, "Free some space (or choose another disk) and repeat the command."
    if number in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR):
        return words, "Choose a folder that exists and that you may write to, and repeat the command."
    return words, "Check the disk and repeat the command."
