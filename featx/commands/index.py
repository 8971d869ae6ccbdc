"""Make an index to search images by content: exact, by cosine similarity."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from featx.commands.options import add_layer_argument, add_output_argument
from featx.commands.outputs import check_output, make_folder_of
from featx.commands.tables import count
from featx.errors import UsageError

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``featx index``."""
    parser.add_argument("store", metavar="F.h5", help="features from featx extract")
    add_output_argument(parser, "the index", "flowers.index")
    add_layer_argument(parser)
    parser.add_argument(
        "--thumbnails", type=int, default=0, metavar="PIXELS", help="keep thumbnails of this size (default: none)"
    )
    parser.add_argument("--allow-random", action="store_true", help="accept features of untrained weights")


def run(*, store: str, out: str, overwrite: bool, layer: str | None, thumbnails: int, allow_random: bool) -> int:
    """Build the index and print what it holds."""
    from featx.workflows.file_kinds import STORE, require_kind

    if thumbnails < 0:
        raise UsageError(f"--thumbnails {thumbnails} is negative; give pixels, such as 160, or 0 for none")
    target = check_output(out, store, overwrite=overwrite)
    require_kind(store, STORE)

    from featx.store import FeatureStore
    from featx.workflows.searching import build_index, index_spec

    with FeatureStore(store) as opened:
        index = build_index(opened, layer, thumbnail_size=thumbnails, allow_random=allow_random)
    make_folder_of(target)
    index.save(target, overwrite=overwrite)
    n_bytes = target.stat().st_size
    print(f"{out}: {count(len(index), 'image')} by {index_spec(index).key}, exact search, {n_bytes / 1e6:.1f} MB")
    print(f"next: featx query {shlex.quote(out)} IMAGE...")
    return 0
