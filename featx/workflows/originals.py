"""Where the pictures behind stored paths lie."""

from __future__ import annotations

import os

from featx.images import image_extensions, unescape_path


def original_location(source: str, path: str) -> str:
    """Return where the original of a stored path lies.

    Paths count from a source folder; from the folder of a CSV or of a single picture; and from the working folder
    where a list or standard input named them.

    Parameters
    ----------
    source, path : str
        As the store has them.
    """
    path, source = unescape_path(path), unescape_path(source)
    if os.path.isabs(path):
        return path
    if os.path.isdir(source):
        return os.path.join(source, path)
    beside_source = os.path.splitext(source)[1].lower() in {".csv", *image_extensions()}
    return os.path.join(os.path.dirname(source), path) if beside_source else path
