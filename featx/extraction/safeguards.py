"""What is checked before hours of work, or the fruits of them, are lost."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from featx.errors import StoreError, WouldOverwriteError
from featx.images import unescape_path

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from featx.images import ImageListing
    from featx.store import FeatureStore, RowInfo

_ROW_BYTES = 256  # path, digest and the other columns, generously


def refuse_dropping_rows(store: FeatureStore, listing: ImageListing, out: Path) -> None:
    """Refuse to drop rows only because other images are listed this time.

    Rows leave a store without further asking where their files are gone, and where a list of images that names its
    rows no longer names them.

    Raises
    ------
    WouldOverwriteError
        Rows would leave because of a limit, because the source is another one, or although their files are there.
    """
    listed = {entry.path for entry in listing.entries}
    leaving = [path for path in store.paths.tolist() if path not in listed]
    if not leaving:
        return
    advice = "choose another --out, or give --overwrite to replace them"
    if listing.n_left_out:
        raise WouldOverwriteError(
            f"{out} holds {store.rows} rows, and {len(leaving)} of them are not among the {len(listing)} images that a"
            f" limit chose; leave the limit away, {advice}"
        )
    if store.source != listing.source:
        raise WouldOverwriteError(
            f"{out} holds features of {store.source}, and {len(leaving)} of its {store.rows} rows are not in"
            f" {listing.source}; {advice}"
        )
    still_there = _first_that_exists(leaving, listing.source)
    if still_there:
        raise WouldOverwriteError(
            f"{out} holds {store.rows} rows, and {len(leaving)} of them are not listed this time, although their files"
            f" are there (the first is {still_there}); list all of them, {advice}"
        )


def _first_that_exists(paths: Iterable[str], source: str) -> str:
    """Return the first of the stored paths whose image is still in the source, empty where none is."""
    folder = "." if source == "-" else unescape_path(source)
    if os.path.isfile(folder):
        return ""  # a list, which says itself what belongs to it
    is_folder = os.path.isdir(folder)  # else a data set of torchvision, whose images do not vanish one by one
    there = (path for path in paths if not is_folder or os.path.exists(os.path.join(folder, unescape_path(path))))
    return next(there, "")


def check_free_space(folder: Path, infos: Iterable[RowInfo], *, n_new: int, n_rows: int) -> None:
    """Refuse at the start what would fill the disk hours later.

    Parameters
    ----------
    folder : Path
        Of the segments, beside the store.
    infos : iterable of FeatureInfo or MapInfo
        What each row has.
    n_new, n_rows : int
        Rows to be computed, which are written as segments first, and rows of the store.

    Raises
    ------
    StoreError
        There is too little space.
    """
    if not n_new:
        return  # at the most labels change, and a full disk leaves the store as it is
    row_bytes = sum(info.bytes_per_image for info in infos) + _ROW_BYTES
    needed, free = (n_new + n_rows) * row_bytes, shutil.disk_usage(folder).free
    if needed > free:
        raise StoreError(
            f"{folder.with_suffix('')} needs about {needed / 1e6:.0f} MB while it is written, and {free / 1e6:.0f} MB"
            " are free; free some space, choose fewer layers or maps, or give --dtype float16"
        )
