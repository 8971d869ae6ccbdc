"""Files that vectors lie in: read in place, without their pages counting as memory of the process."""

from __future__ import annotations

import os
import tempfile
import weakref
from pathlib import Path

import numpy as np

from featx.errors import StoreError

_BYTES_PER_CALL = 16 * 2**20


class OpenFile:
    """An open file of vectors; it is closed when nothing refers to it any more.

    Parameters
    ----------
    descriptor : int
        As ``os.open`` gives it; this object closes it.
    name : str
        What it is called in messages.
    """

    def __init__(self, descriptor: int, name: str) -> None:
        self.descriptor = descriptor
        self.name = name
        weakref.finalize(self, os.close, descriptor)

    @classmethod
    def temporary(cls, folder: Path | None = None) -> OpenFile:
        """Return a new file without a name, whose room is free again when it is closed.

        Raises
        ------
        StoreError
            When the folder cannot be written to.
        """
        place = str(folder or tempfile.gettempdir())
        try:
            with tempfile.TemporaryFile(dir=folder) as file:
                return cls(os.dup(file.fileno()), f"a temporary file in {place}")
        except OSError as error:
            raise _not_written(f"a temporary file in {place}", error) from error

    def write(self, block: np.ndarray, position: int) -> None:
        """Write a C-contiguous block from a byte of the file on.

        Raises
        ------
        StoreError
            When the disk is full; the message says what to do.
        """
        content = block.reshape(-1).view(np.uint8).data
        try:
            os.lseek(self.descriptor, position, os.SEEK_SET)
            while len(content):
                content = content[os.write(self.descriptor, content[:_BYTES_PER_CALL]) :]
        except OSError as error:
            raise _not_written(self.name, error) from error

    def read_into(self, block: np.ndarray, position: int) -> None:
        """Fill a C-contiguous block from a byte of the file on; any number of threads may.

        Raises
        ------
        StoreError
            When the file ends before.
        """
        target = block.reshape(-1).view(np.uint8).data
        done = 0
        while done < len(target):
            # One call reads at most 2 GiB on Linux.
            n_bytes = _read_at(self.descriptor, target[done:], position + done)
            if n_bytes == 0:
                raise StoreError(
                    f"{self.name} ends at byte {position + done}, before the vectors that it held do. It was changed "
                    "while it was in use: load or build the index again."
                )
            done += n_bytes

    def mapped(self, offset: int, shape: tuple[int, int]) -> np.ndarray:
        """Return a read-only memory map of a part of the file, as a plain array."""
        with os.fdopen(os.dup(self.descriptor), "rb") as file:
            return np.asarray(np.memmap(file, np.float32, "r", offset, shape))


def _read_at(descriptor: int, target: memoryview, position: int) -> int:
    if hasattr(os, "preadv"):
        return os.preadv(descriptor, [target], position)
    os.lseek(descriptor, position, os.SEEK_SET)  # Windows has no positioned read
    content = os.read(descriptor, min(len(target), _BYTES_PER_CALL))
    target[: len(content)] = content
    return len(content)


def _not_written(name: str, error: OSError) -> StoreError:
    return StoreError(
        f"the vectors do not fit into memory, and cannot be written to {name}: {error.strerror or error}. Free disk "
        "space there, choose another folder (TMPDIR), or allow more memory."
    )
