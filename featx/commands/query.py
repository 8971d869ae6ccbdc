"""Find the images of an index that look most like others.

IMAGE is a file, a folder, a list of paths, or - for paths from standard input.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from featx.commands.options import add_compute_arguments, add_json_argument, compute_options
from featx.commands.tables import format_table
from featx.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from featx.workflows.searching import QueryResult


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``featx query``."""
    parser.add_argument("index", metavar="F.index", help="index from featx index")
    parser.add_argument("inputs", nargs="+", metavar="IMAGE", help="images to find the like of")
    parser.add_argument("-k", type=int, default=10, metavar="N", help="neighbours a query (default: 10)")
    parser.add_argument(
        "--weights", metavar="FILE", help="weights of the network, where they are not found by themselves"
    )
    add_json_argument(parser)
    add_compute_arguments(parser)


def run(
    *,
    index: str,
    inputs: list[str],
    k: int,
    weights: str | None,
    as_json: bool,
    engine: str,
    device: str,
    batch_size: int | None,
    workers: int | None,
) -> int:
    """Search and print the neighbours of each image; images that cannot be read go to stderr."""
    from featx.workflows.file_kinds import INDEX, require_kind
    from featx.workflows.image_arguments import named_images

    if k < 1:
        raise UsageError(f"-k {k} is not at least 1; leave it out for 10 neighbours")
    require_kind(index, INDEX)
    entries = named_images(inputs)  # before torch is loaded, because a wrong path should not wait for it

    from featx.retrieval import ImageIndex
    from featx.workflows.searching import query_images

    opened = ImageIndex.load(index)
    options = compute_options(engine, device, batch_size, workers)
    n_done = n_failed = 0
    for result in query_images(opened, entries, k, options, weights=weights):
        n_done += 1
        if result.reason:
            n_failed += 1
            print(f"{result.query}: {result.reason}", file=sys.stderr)
        else:
            print(json.dumps(_as_json(result)) if as_json else _as_text(result), flush=True)
    if n_failed == n_done:
        return 2  # nothing came of it
    return 1 if n_failed else 0


def _as_json(result: QueryResult) -> dict[str, object]:
    hits = [
        {"rank": hit.rank, "path": hit.path, "score": round(hit.score, 6), "label": hit.label} for hit in result.hits
    ]
    return {"query": result.query, "hits": hits}


def _as_text(result: QueryResult) -> str:
    rows = [(hit.rank, f"{hit.score:.4f}", hit.path, hit.label or "-") for hit in result.hits]
    return f"{result.query}\n{format_table(('rank', 'score', 'path', 'label'), rows, left=(2, 3))}\n"
