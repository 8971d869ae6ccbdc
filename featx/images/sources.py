"""One entry to all kinds of sources."""

from __future__ import annotations

import difflib
import os
import stat
import sys
from collections.abc import Iterable
from typing import BinaryIO, TextIO

from featx.errors import SourceError, UsageError
from featx.images.decoding import image_extensions
from featx.images.entries import ImageEntry, ImageListing
from featx.images.folders import list_folder
from featx.images.manifests import list_csv, list_paths, list_text
from featx.images.stored_paths import escape_path
from featx.images.torchvision_data import PREFIX, list_torchvision_data


def list_images(
    source: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    stdin: TextIO | BinaryIO | None = None,
    limit: int | None = None,
) -> ImageListing:
    """Listing of the images of a source: deterministic, no image is opened.

    Parameters
    ----------
    source : str, os.PathLike, or iterable of them
        A folder (see :mod:`featx.images.folders`); a ``.csv`` or a text file of paths, ``-`` for paths from standard
        input, or a Python sequence of paths (see :mod:`featx.images.manifests`); ``torchvision-data:NAME:ROOT`` (see
        :mod:`featx.images.torchvision_data`); one image file. Relative paths in a text or a sequence count from the
        current folder, those in a CSV from the folder of the CSV. A named path that does not exist is found out when
        it is read.
    stdin : file object, optional
        Read for ``-`` in place of ``sys.stdin``; text or binary.
    limit : int, optional
        Take only that many images, at even steps over the listing.

    Raises
    ------
    SourceError
        If the source does not exist, is empty, or contradicts itself.
    UsageError
        If `limit` is below 1.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"limit is {limit}; give at least 1, or none for all images")
    listing = _list(source, stdin)
    return listing if limit is None else listing.evenly_spaced(limit)


def _list(
    source: str | os.PathLike[str] | Iterable[str | os.PathLike[str]], stdin: TextIO | BinaryIO | None
) -> ImageListing:
    if not isinstance(source, (str, bytes, os.PathLike)):
        if not isinstance(source, Iterable):
            raise SourceError(f"{source!r} is not a source of images; give a path or a sequence of paths")
        return list_paths(source)
    name = os.fsdecode(source)
    if name == "-":
        return list_text(_read_all(stdin or sys.stdin.buffer), "-")
    if name.startswith(PREFIX):
        return list_torchvision_data(name)
    return _list_path(name)


def _list_path(name: str) -> ImageListing:
    try:
        mode = os.stat(name).st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SourceError(_missing(name)) from error
    except (OSError, ValueError) as error:
        raise SourceError(f"{escape_path(name)} cannot be read: {getattr(error, 'strerror', error)}") from error
    if stat.S_ISDIR(mode):
        return list_folder(name)
    extension = os.path.splitext(name)[1].lower()
    location = os.path.abspath(name)
    if extension == ".csv":
        return list_csv(location)
    if extension in image_extensions():
        entry = ImageEntry(escape_path(os.path.basename(location)), location=location)
        return ImageListing(escape_path(location), (entry,))
    try:
        with open(location, "rb") as file:
            return list_text(file.read(), escape_path(location))
    except OSError as error:
        raise SourceError(f"{escape_path(location)} cannot be read: {error.strerror}; make it readable") from error


def _missing(name: str) -> str:
    """Message for a source that does not exist, with what is there in its place."""
    if not name:
        return "the source is an empty text; give a folder, a list of paths, or '-'"
    shown = escape_path(name)
    parent, base = os.path.split(os.path.abspath(name))
    try:
        beside = os.listdir(parent)
    except OSError:
        return f"{shown} does not exist, and neither does its folder {escape_path(parent)}; check the path"
    lower = {item.lower(): item for item in sorted(beside, reverse=True)}
    close = [escape_path(lower[match]) for match in difflib.get_close_matches(base.lower(), lower, n=3)]
    if close:
        return f"{shown} does not exist; did you mean {' or '.join(close)} in {escape_path(parent)}?"
    return f"{shown} does not exist, nor anything with a like name in {escape_path(parent)}; check the path"


def _read_all(stream: TextIO | BinaryIO) -> bytes:
    content = stream.read()
    return content if isinstance(content, bytes) else os.fsencode(content)
