"""Images named on a command line: files, folders, lists, and ``-``."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from featx.errors import UsageError
from featx.images import escape_path, list_images

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
        listing = list_images(argument)
        folder = argument if os.path.isdir(argument) else os.path.dirname(argument)
        for entry in listing.entries:
            shown = (
                entry.path
                if os.path.isabs(entry.path) or argument == "-"
                else os.path.join(escape_path(folder), entry.path)
            )
            entries.append(replace(entry, path=shown))
    return entries
