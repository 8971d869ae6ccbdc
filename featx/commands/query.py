"""Find the images of an index that look most like others.

IMAGE is a file, a folder, a list of paths, or - for paths from standard input. Each is a query of its own, unless
--together makes one of all. Images of the index itself are named by --row.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from featx.commands.options import (
    add_compute_arguments,
    add_json_argument,
    add_ranking_arguments,
    add_weights_argument,
    compute_options,
)
from featx.commands.outputs import check_apart, check_output, make_folder_of
from featx.commands.tables import count, format_table
from featx.errors import UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from featx.retrieval import ImageIndex
    from featx.workflows.searching import Query, QueryResult


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``featx query``."""
    parser.add_argument("index", metavar="F.index", help="index from featx index")
    parser.add_argument("inputs", nargs="*", metavar="IMAGE", help="images to find the like of")
    parser.add_argument("-k", type=int, default=10, metavar="N", help="neighbours a query (default: 10)")
    parser.add_argument(
        "--row",
        action="append",
        default=[],
        metavar="ID",
        help="an image of the index, by path or id; may be repeated",
    )
    parser.add_argument("--together", action="store_true", help="one query of all images: their mean")
    parser.add_argument(
        "--minus", action="append", default=[], metavar="IMAGE",
        help="what answers should not be like: an image, or a folder of them; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--minus-row", action="append", default=[], metavar="ID", help="the same by an image of the index"
    )
    parser.add_argument(
        "--where", action="append", default=[], metavar="CONDITION",
        help="search only among some: label=cat,dog or split!=test or path=pets/*.jpg; repeated, all must hold",
    )  # fmt: skip
    add_ranking_arguments(parser)
    add_json_argument(parser)
    parser.add_argument("--html", metavar="OUT", help="write a page with pictures, one file that works offline")
    parser.add_argument("--save-grid", metavar="OUT", help="write a picture of all answers (.png or .jpg)")
    parser.add_argument("--overwrite", action="store_true", help="replace what is at --html and --save-grid")
    add_weights_argument(parser)
    add_compute_arguments(parser)


def run(
    *,
    index: str,
    inputs: list[str],
    k: int,
    row: list[str],
    together: bool,
    minus: list[str],
    minus_row: list[str],
    where: list[str],
    expand: int,
    alpha: float,
    reciprocal: bool,
    rerank: bool,
    candidates: int,
    as_json: bool,
    html: str | None,
    save_grid: str | None,
    overwrite: bool,
    weights: str | None,
    engine: str,
    device: str,
    batch_size: int | None,
    workers: int | None,
) -> int:
    """Search and print the neighbours of each query; images that cannot be read go to stderr."""
    from featx.workflows.file_kinds import INDEX, require_kind
    from featx.workflows.image_arguments import named_images
    from featx.workflows.result_grids import check_grid_name
    from featx.workflows.result_pages import check_page_name

    if k < 1:
        raise UsageError(f"-k {k} is not at least 1; leave it out for 10 neighbours")
    if not inputs and not row:
        raise UsageError("nothing to look for: name images, or rows of the index with --row")
    outputs = {
        option: check_output(out, index, overwrite=overwrite, option=option) for option, out in _given(html, save_grid)
    }
    if save_grid is not None:
        check_grid_name(save_grid)
    if html is not None:
        check_page_name(html)
    require_kind(index, INDEX)
    like = named_images(inputs) if inputs else []  # before torch is loaded: a wrong path should not wait for it
    unlike = named_images(minus) if minus else []
    check_apart(outputs, [entry.location for entry in (*like, *unlike)])
    options = compute_options(engine, device, batch_size, workers)

    from featx.retrieval import ImageIndex
    from featx.retrieval.ranking import RankingSteps
    from featx.workflows.named_rows import conditions_hold, rows_named
    from featx.workflows.searching import query_images, single_or_together

    steps = RankingSteps(expand, alpha, reciprocal, candidates)
    opened = ImageIndex.load(index)
    queries = single_or_together(
        [*like, *rows_named(opened, row)], [*unlike, *rows_named(opened, minus_row)], together=together
    )
    results = []
    for result in query_images(
        opened, queries, k, options,
        weights=weights, steps=steps, where=conditions_hold(opened, where), rerank=rerank,
    ):  # fmt: skip
        if result.reason:
            print(f"{result.query}: {result.reason}", file=sys.stderr)
        else:
            print(json.dumps(_as_json(result)) if as_json else _as_text(result), flush=True)
        results.append(result)
    n_failed = sum(bool(result.reason) for result in results)
    if n_failed < len(results):
        _write_pictures(opened, index, queries, results, outputs, overwrite=overwrite)
    if n_failed == len(results):
        return 2  # nothing came of it
    return 1 if n_failed else 0


def _given(html: str | None, save_grid: str | None) -> list[tuple[str, str]]:
    return [(option, out) for option, out in (("--html", html), ("--save-grid", save_grid)) if out is not None]


def _write_pictures(
    opened: ImageIndex,
    index: str,
    queries: Sequence[Query],
    results: Sequence[QueryResult],
    outputs: dict[str, Path],
    *,
    overwrite: bool,
) -> None:
    if not outputs:
        return

    from featx.workflows.pictured_results import pictured
    from featx.workflows.result_grids import MAX_QUERIES, write_results_grid
    from featx.workflows.result_pages import write_results_page

    for option, out in outputs.items():
        make_folder_of(out, option)
        if option == "--html":
            facts = {"index": index, "images": f"{len(opened):,}", "queries": f"{len(queries):,}"}
            rows = pictured(opened, queries, results)
            write_results_page(out, rows, title=f"Images like these, from {Path(index).name}", facts=facts,
                               overwrite=overwrite)  # fmt: skip
        else:
            rows = pictured(opened, queries[:MAX_QUERIES], results[:MAX_QUERIES])
            n_left_out = write_results_grid(out, rows, overwrite=overwrite) + max(0, len(queries) - MAX_QUERIES)
            if n_left_out:
                print(f"{out}: {count(n_left_out, 'query')} left out of the picture; see --html", file=sys.stderr)
        print(f"wrote {out}", file=sys.stderr)


def _as_json(result: QueryResult) -> dict[str, object]:
    hits = [
        {"rank": hit.rank, "path": hit.path, "score": round(hit.score, 6), "label": hit.label} for hit in result.hits
    ]
    return {"query": result.query, "hits": hits}


def _as_text(result: QueryResult) -> str:
    rows = [(hit.rank, f"{hit.score:.4f}", hit.path, hit.label or "-") for hit in result.hits]
    return f"{result.query}\n{format_table(('rank', 'score', 'path', 'label'), rows, left=(2, 3))}\n"
