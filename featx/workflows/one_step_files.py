"""Results that appear whole or not at all: written under a name of their own beside the target, then renamed."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from featx.errors import FeatxError, StoreError, WouldOverwriteError


@contextmanager
def draft_of(path: str | Path, *, overwrite: bool) -> Iterator[Path]:
    """Give a name to write to, and move what was written there to `path` when the block ends well.

    After an error, or a crash, `path` is what it was before.

    Parameters
    ----------
    path : str or Path
        Where the result goes; its folder must exist.
    overwrite : bool
        Replace a file that is already there.

    Raises
    ------
    WouldOverwriteError
        There is a file already, and `overwrite` is false.
    StoreError
        It cannot be written.
    """
    path = Path(path)
    _refuse_existing(path, overwrite)
    # In the same folder, since renaming is one step only within a file system; the ending says the format to Pillow.
    draft = path.with_name(f".{path.stem[:100]}.{secrets.token_hex(6)}{path.suffix}")
    try:
        yield draft
        with open(draft, "r+b") as written:
            os.fsync(written.fileno())
        _refuse_existing(path, overwrite)
        os.replace(draft, path)
    except (FeatxError, BrokenPipeError):  # of whoever makes the rows, not of this file
        raise
    except OSError as error:
        raise StoreError(
            f"{path} cannot be written: {error.strerror or error}. Check its folder and the space left."
        ) from error
    finally:
        draft.unlink(missing_ok=True)


def _refuse_existing(path: Path, overwrite: bool) -> None:
    if path.exists() and not overwrite:
        raise WouldOverwriteError(f"{path} is already there. Choose another name, or allow it to be overwritten.")
