"""Listing a folder of images: classes and splits from the names of its subfolders.

- The first folder level is the class; below it, images may lie at any depth. Images beside the class folders have no
  class. A folder without subfolders gives no classes.
- ``train``, ``val``, ``valid``, ``validation`` and ``test`` (in any case) on top are splits, with the same rule one
  level down, if every subfolder that holds images is one of them, or if at least two different splits occur. So one
  class folder that happens to be called ``train`` among others stays a class. Where splits occur, images outside them
  have neither split nor class: whether such a folder is a class or a heap cannot be known.
- Listed are files with an extension of a format that can be decoded, in any case. Other and hidden files, and hidden
  folders, are ignored and counted (a hidden folder once).
- Links are followed. A folder inside itself, by way of links, is ignored and counted.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from featx.errors import SourceError
from featx.images.decoding import image_extensions
from featx.images.entries import NO_SPLIT, SPLITS, ImageEntry, ImageListing, index_names
from featx.images.stored_paths import escape_path


@dataclass(frozen=True)
class _Folder:
    """A folder still to be read: its names below the source, and the identities of all folders above it."""

    names: tuple[str, ...]
    ancestors: frozenset[tuple[int, int]]


def list_folder(folder: str) -> ImageListing:
    """Images in a folder, ordered by the code points of their path's components.

    Parameters
    ----------
    folder : str
        A folder that exists.

    Raises
    ------
    SourceError
        If there is no image in it, or a subfolder cannot be read.
    """
    folder = os.path.abspath(folder)
    found, n_ignored = _walk(folder)
    if not found:
        kinds = " ".join(sorted(image_extensions()))
        raise SourceError(
            f"no images in {escape_path(folder)}: {n_ignored} other or hidden files and folders were ignored; "
            f"listed are files that end in {kinds}. Give a folder that holds some, or a list of paths"
        )
    found.sort()
    split_folders = _split_folders({names[0] for names in found if len(names) > 1})
    class_names, labels = index_names([_class_name(names, split_folders) for names in found])
    entries = tuple(
        ImageEntry(
            path="/".join(escape_path(name) for name in names),
            label=label,
            split=split_folders.get(names[0], NO_SPLIT) if len(names) > 1 else NO_SPLIT,
            location=os.path.join(folder, *names),
        )
        for names, label in zip(found, labels, strict=True)
    )
    return ImageListing(escape_path(folder), entries, class_names, n_ignored)


def _split_folders(names: set[str]) -> dict[str, int]:
    """The folders that are splits, with the split of each; empty if the folders are classes."""
    splits = {name: SPLITS[name.lower()] for name in names if name.lower() in SPLITS}
    if len(splits) == len(names) or len(set(splits.values())) >= 2:
        return splits
    return {}


def _class_name(names: tuple[str, ...], split_folders: dict[str, int]) -> str | None:
    """Class of one image from its folder names (the last name is the file's)."""
    folders = names[:-1]
    if split_folders:
        folders = folders[1:] if folders and folders[0] in split_folders else ()
    return escape_path(folders[0]) if folders else None


def _walk(top: str) -> tuple[list[tuple[str, ...]], int]:
    """Names below `top` of every image file, in no order, and the number of things ignored."""
    extensions = image_extensions()
    found: list[tuple[str, ...]] = []
    n_ignored = 0
    # A stack of our own: folders may be nested deeper than Python may recurse.
    pending = [_Folder((), frozenset({_identity(top)}))]
    while pending:
        folder = pending.pop()
        for item in _scan(os.path.join(top, *folder.names)):
            names = (*folder.names, item.name)
            if item.name.startswith("."):
                n_ignored += 1
            elif item.is_dir():
                identity = _identity(item.path)
                if identity in folder.ancestors:
                    n_ignored += 1
                else:
                    pending.append(_Folder(names, folder.ancestors | {identity}))
            # A broken link counts as an image: it shall be missed, not overlooked.
            elif os.path.splitext(item.name)[1].lower() in extensions and (item.is_file() or item.is_symlink()):
                found.append(names)
            else:
                n_ignored += 1
    return found, n_ignored


def _scan(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as items:
            return list(items)
    except OSError as error:
        raise SourceError(
            f"folder {escape_path(folder)} cannot be read: {error.strerror}; make it readable, or move it away"
        ) from error


def _identity(folder: str) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino
