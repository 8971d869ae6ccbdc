"""Measure what an index finds: against labels or a ground truth, and against exact search.

  featx evaluate-index F.index                                   each labelled image queries the others
  featx evaluate-index F.index --queries split=test --where split=train
  featx evaluate-index F.index NEW/ --expand 5 --reciprocal      labelled images of a folder, and what each step gains
  featx evaluate-index F.index QUERIES.h5 --truth truth.csv      columns query,path: what should be found

mAP, top-1, precision and recall say whether what is found is right; the recall of the exact neighbours says whether a
faster search finds what an exact one would. A quantizer may lose one and not the other.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from featx.commands.options import (
    add_compute_arguments,
    add_json_argument,
    add_ranking_arguments,
    add_weights_argument,
    compute_options,
)
from featx.commands.tables import format_table
from featx.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from featx.extraction import ComputeOptions
    from featx.retrieval import ImageIndex
    from featx.workflows.evaluating_index import IndexEvaluation, StageEvaluation
    from featx.workflows.query_sets import QuerySet


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``featx evaluate-index``."""
    parser.add_argument("index", metavar="F.index", help="index from featx index")
    parser.add_argument(
        "source", nargs="?", metavar="QUERIES", help="a store or a source of labelled images (default: the index's own)"
    )
    parser.add_argument(
        "-k", type=int, default=10, metavar="N", help="of the recall against exact search (default: 10)"
    )
    parser.add_argument(
        "--depth", type=int, metavar="N",
        help="rows in a ranking (default: all up to 10,000 images where search is exact, else 100)",
    )  # fmt: skip
    parser.add_argument(
        "--truth", metavar="CSV", help="columns query,path: what should be found (default: images of the same label)"
    )
    parser.add_argument(
        "--queries", action="append", default=[], metavar="CONDITION",
        help="which images of the index are queries, such as split=test (default: all that have a label)",
    )  # fmt: skip
    parser.add_argument(
        "--where", action="append", default=[], metavar="CONDITION", help="which may be found, such as split=train"
    )
    add_ranking_arguments(parser)
    add_weights_argument(parser)
    add_json_argument(parser)
    add_compute_arguments(parser)


def run(
    *,
    index: str,
    source: str | None,
    k: int,
    depth: int | None,
    truth: str | None,
    queries: list[str],
    where: list[str],
    expand: int,
    alpha: float,
    reciprocal: bool,
    rerank: bool,
    candidates: int,
    weights: str | None,
    as_json: bool,
    engine: str,
    device: str,
    batch_size: int | None,
    workers: int | None,
) -> int:
    """Measure and print; images that cannot be read go to stderr."""
    from featx.workflows.file_kinds import INDEX, require_kind

    if k < 1 or (depth is not None and depth < 1):
        raise UsageError(f"-k {k} and --depth {depth}: both are at least 1")
    if source is not None and queries:
        raise UsageError("--queries chooses among the images of the index; leave it out where QUERIES are given")
    require_kind(index, INDEX)
    options = compute_options(engine, device, batch_size, workers)

    from featx.retrieval import ImageIndex
    from featx.retrieval.ranking import RankingSteps
    from featx.workflows.evaluating_index import evaluate_index
    from featx.workflows.ground_truth import read_truth
    from featx.workflows.named_rows import conditions_hold
    from featx.workflows.second_stage import open_second_stage

    pairs = None if truth is None else read_truth(truth)
    opened = ImageIndex.load(index)
    asked = _queries(opened, source, conditions_hold(opened, queries), pairs, options, weights)
    for path, reason in asked.failures:
        print(f"{path}: {reason}", file=sys.stderr)
    result = evaluate_index(
        opened, asked,
        truth=pairs, k=k, depth=depth, steps=RankingSteps(expand, alpha, reciprocal, candidates),
        where=conditions_hold(opened, where),
        stage=open_second_stage(opened, options, weights=weights) if rerank else None,
    )  # fmt: skip
    print(json.dumps(_as_json(result)) if as_json else _as_text(result, index))
    return 1 if asked.failures else 0


def _queries(
    index: ImageIndex,
    source: str | None,
    chosen: Any,
    pairs: list[tuple[str, str]] | None,
    options: ComputeOptions,
    weights: str | None,
) -> QuerySet:
    from featx.workflows.file_kinds import STORE, kind_of
    from featx.workflows.query_sets import image_queries, own_queries, stored_queries

    if source is None:
        return own_queries(index, chosen, pairs)
    if kind_of(source) == STORE:
        from featx.store import FeatureStore

        with FeatureStore(source) as store:
            return stored_queries(index, store)

    from featx.images import list_images

    return image_queries(index, list_images(source), options, weights=weights)


def _as_json(result: IndexEvaluation) -> dict[str, Any]:
    return {
        "queries": result.queries.what,
        "truth": result.truth,
        "k": result.k,
        "depth": result.depth,
        "stages": [asdict(stage) for stage in result.stages],
    }


def _as_text(result: IndexEvaluation, index: str) -> str:
    first = result.stages[0].metrics
    n_own = int((result.queries.rows >= 0).sum())
    which = "each" if n_own == len(result.queries.rows) else f"{n_own} of which are in the index and"
    left_out = f", {which} left out of its own answers" if n_own else ""
    left_out += f"; {first.n_without_answer} have nothing to find" if first.n_without_answer else ""
    ks = sorted(first.precision_at)
    depths = [*(f"P@{k}" for k in ks if k > 1), *(f"R@{k}" for k in ks)]
    precision = "mAP" if result.is_whole else f"mAP@{result.depth}"
    score = ["N-S"] if first.ns_score is not None else []
    header = ("search", precision, "95 % interval", "top-1", *depths, *score, f"exact@{result.k}", "queries/s")
    return "\n".join(
        [
            f"{index}: {result.queries.what}{left_out}; right by {result.truth}; rankings of {result.depth}",
            format_table(header, [_row(stage, ks) for stage in result.stages]),
            f"exact@{result.k} is the share of the {result.k} nearest by exact search that are among the first"
            f" {result.k}",
        ]
    )


def _row(stage: StageEvaluation, ks: list[int]) -> tuple[object, ...]:
    metrics = stage.metrics
    low, high = metrics.interval
    return (
        stage.name,
        f"{metrics.mean_average_precision:.3f}",
        f"{low:.3f}-{high:.3f}",
        f"{metrics.top_1:.3f}",
        *(f"{metrics.precision_at[k]:.3f}" for k in ks if k > 1),
        *(f"{metrics.recall_at[k]:.3f}" for k in ks),
        *([f"{metrics.ns_score:.2f}"] if metrics.ns_score is not None else []),
        f"{stage.ann_recall:.3f}",
        f"{stage.queries_per_second:.0f}",
    )
