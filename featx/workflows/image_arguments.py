"""Images named on a command line: files, folders, lists, and ``-``."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from featx.errors import UsageError
from featx.images import escape_path, image_extensions, list_images

if TYPE_CHECKING:
    from collections.abc import Sequence

    from featx.images import ImageEntry


def named_images(arguments: Sequence[str]) -> list[ImageEntry]:
    """Return the images that arguments stand for, in their order, each with a path that can be opened from here.

    Parameters
    ----------
    arguments : sequence of str
        Image files, folders, lists of paths, or ``-`` for paths from standard input.

    Raises
    ------
    UsageError
        No argument is given.
    SourceError
        A folder or list does not exist or holds no image.
    """
    if not arguments:
        raise UsageError("no image given; name image files or folders, or - to read paths from standard input")
    entries: list[ImageEntry] = []
    for argument in arguments:
        if argument != "-" and not os.path.exists(argument):
            # One missing file among many must not stop the others: it fails when it is read.
            entries += list_images([argument]).entries
            continue
        folder = escape_path(_folder_of_paths(argument))
        # An absolute path stays as it is: that is how join treats it.
        entries += [replace(entry, path=os.path.join(folder, entry.path)) for entry in list_images(argument).entries]
    return entries


def _folder_of_paths(argument: str) -> str:
    """Return the folder, seen from here, that the paths in the listing of an argument count from."""
    if argument == "-":
        return ""
    if os.path.isdir(argument):
        return argument
    suffix = os.path.splitext(argument)[1].lower()
    # The paths in a CSV count from its own folder; those in a list of paths from the working folder.
    return os.path.dirname(argument) if suffix == ".csv" or suffix in image_extensions() else ""
