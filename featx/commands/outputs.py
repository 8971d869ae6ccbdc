"""Where a result goes: looked at before the work, so that hours are not spent on what cannot be saved."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from featx.errors import UsageError, WouldOverwriteError


def check_output(out: str, made_from: str, *, overwrite: bool, option: str = "--out") -> Path:
    """Return the path of a result that can be written; folders that it lies in need not exist yet.

    Parameters
    ----------
    out : str
        Where the result goes.
    made_from : str
        The file that it is made from, which is never replaced.
    overwrite : bool
        Replace what is there.
    option : str
        That named it, for messages.

    Raises
    ------
    UsageError
        It is a folder, or its folder cannot be written or made.
    WouldOverwriteError
        It is there already, and `overwrite` is not set, or it is what the result is made from.
    """
    path = Path(out)
    if path.is_dir():
        raise UsageError(f"{option} {out} is a folder; give the name of a file in it")
    if path.exists() and not overwrite:
        raise WouldOverwriteError(f"{out} is already there; choose another {option}, or give --overwrite")
    if path.exists() and os.path.exists(made_from) and os.path.samefile(path, made_from):
        raise WouldOverwriteError(f"{option} {out} is the file that the result is made from; choose another {option}")
    nearest = next(folder for folder in path.absolute().parents if folder.exists())
    if not nearest.is_dir():
        raise UsageError(
            f"{option} {out} cannot be written: {nearest} is a file, not a folder; choose another {option}"
        )
    if not os.access(nearest, os.W_OK):
        raise UsageError(f"{option} {out} cannot be written: {nearest} is read-only for you; choose another {option}")
    return path


def check_apart(outputs: Mapping[str, Path], inputs: Iterable[str]) -> None:
    """Raise an error where two results have one name, or one is the file that another thing is read from.

    Parameters
    ----------
    outputs : mapping of str to Path
        Option → where its result goes.
    inputs : iterable of str
        Files that are read.

    Raises
    ------
    UsageError
        Two options name the same file.
    WouldOverwriteError
        One names a file that is read.
    """
    places = [os.path.realpath(path) for path in outputs.values()]
    if len(set(places)) < len(places):
        raise UsageError(f"{' and '.join(outputs)} name the same file; give them different names")
    read = {os.path.realpath(path) for path in inputs}
    for option, path in outputs.items():
        if os.path.realpath(path) in read:
            raise WouldOverwriteError(f"{option} {path} is an image that is asked for; choose another {option}")


def make_folder_of(path: Path, option: str = "--out") -> None:
    """Make the folders that a result lies in, as ``featx extract`` does.

    Raises
    ------
    UsageError
        They cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"{option} {path} cannot be written: its folder cannot be made ({error.strerror}); choose another {option}"
        ) from error
