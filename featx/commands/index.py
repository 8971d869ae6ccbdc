"""Make an index to search images by content, by cosine similarity.

Search is exact, and right for some tens of thousands of images, unless a recall or a memory is asked for. Then queries
are held out, ways to search are tried on them, and the fastest that meets the wish is kept: FAISS proposes candidates
from what fits into memory, and each is scored with its vector in the file.

  featx index F.h5 --out F.index --recall 0.95@10 --memory 2GB
  featx index F.h5 --out F.index --layer blocks.6 --whiten 128     better neighbours; see evaluate-index
  featx index F.h5 --out F.index --update                          what is new in the store, and what has gone
"""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featx.commands.options import (
    add_compute_arguments,
    add_json_argument,
    add_output_argument,
    check_seed,
    compute_options,
)
from featx.commands.outputs import check_output, make_folder_of
from featx.commands.tables import count, format_table
from featx.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from featx.extraction import ComputeOptions
    from featx.retrieval import ImageIndex
    from featx.retrieval.tuning import Trial, Tuning


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``featx index``."""
    parser.add_argument("store", metavar="F.h5", help="features from featx extract")
    add_output_argument(parser, "the index", "flowers.index")
    parser.add_argument(
        "--update", action="store_true", help="bring the index at --out in step with the store, without building it"
    )
    parser.add_argument(
        "--layer", metavar="NAME",
        help="layer, LAYER@POOL or alias in the store, or several joined by + (default: penultimate, else the deepest)",
    )  # fmt: skip
    vectors = parser.add_argument_group("better neighbours")
    vectors.add_argument(
        "--layer-weights", metavar="LIST", help="what each of several layers counts, such as 2,1 (default: all alike)"
    )
    vectors.add_argument(
        "--whiten", type=int, metavar="N", help="PCA-whiten to N components, learned on the store (default: not)"
    )
    vectors.add_argument(
        "--whiten-power", type=float, default=0.5, metavar="P",
        help="of the standard deviations that components are divided by; 1 is the usual whitening (default: 0.5)",
    )  # fmt: skip
    vectors.add_argument(
        "--augment", type=int, default=0, metavar="N",
        help="replace each vector by the mean of itself and its N nearest (default: 0)",
    )  # fmt: skip
    vectors.add_argument(
        "--keep-places", metavar="LAYER",
        help="keep what this layer sees where on each whole picture, compressed, for query --rerank; none for nothing"
        " (default: the map that the store keeps, if it has one)",
    )  # fmt: skip
    search = parser.add_argument_group("faster search")
    search.add_argument("--recall", metavar="R@K", help="share of the exact K nearest to find, such as 0.95@10")
    search.add_argument("--memory", metavar="BYTES", help="what building and searching may take, such as 2GB")
    search.add_argument("--factory", metavar="STRING", help="FAISS' name of the structure, such as IVF1024,SQ8")
    search.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of held-out queries and training (default: 0)"
    )
    parser.add_argument(
        "--thumbnails", type=int, default=0, metavar="PIXELS", help="keep thumbnails of this size (default: none)"
    )
    parser.add_argument("--allow-random", action="store_true", help="accept features of untrained weights")
    add_json_argument(parser)
    add_compute_arguments(parser)


def run(
    *,
    store: str,
    out: str,
    overwrite: bool,
    update: bool,
    layer: str | None,
    layer_weights: str | None,
    whiten: int | None,
    whiten_power: float,
    augment: int,
    keep_places: str | None,
    recall: str | None,
    memory: str | None,
    factory: str | None,
    seed: int,
    thumbnails: int,
    allow_random: bool,
    as_json: bool,
    engine: str,
    device: str,
    batch_size: int | None,
    workers: int | None,
) -> int:
    """Build or update the index and print what it holds."""
    from featx.workflows.file_kinds import STORE, require_kind

    if update:
        texts = (layer, layer_weights, whiten, keep_places, recall, memory, factory)
        others = (overwrite, augment, thumbnails, seed, whiten_power != 0.5, *(text is not None for text in texts))
        return _update(store, out, others, compute_options(engine, device, batch_size, workers), as_json=as_json)
    if thumbnails < 0 or augment < 0:
        raise UsageError(f"--thumbnails {thumbnails} and --augment {augment}: neither can be negative; 0 is none")
    check_seed(seed)
    target = check_output(out, store, overwrite=overwrite)
    require_kind(store, STORE)
    weights = _numbers(layer_weights)

    from featx.retrieval.tuning.wishes import parse_bytes, parse_recall
    from featx.store import FeatureStore
    from featx.workflows.indexing import build_index

    compute = compute_options(engine, device, batch_size, workers)
    limit = None if memory is None else parse_bytes(memory)
    if recall is not None:
        parse_recall(recall)  # before any work
    make_folder_of(target)
    with FeatureStore(store) as opened:
        index = build_index(
            opened, layer,
            thumbnail_size=thumbnails, allow_random=allow_random, layer_weights=weights, whiten=whiten,
            whiten_power=whiten_power,
            keep_places=keep_places, compute=compute, augment=augment, recall=recall, memory=limit, factory=factory,
            seed=seed, folder=target.parent, on_step=None if as_json else _show,
        )  # fmt: skip
    index.save(target, overwrite=overwrite)
    print(json.dumps(_as_json(index, out)) if as_json else _as_text(index, out))
    return 0


def _update(store: str, out: str, others: tuple[object, ...], compute: ComputeOptions, *, as_json: bool) -> int:
    from featx.workflows.file_kinds import INDEX, STORE, require_kind

    if any(others):
        raise UsageError("--update keeps how the index was built; leave the other options out, or build it again")
    require_kind(store, STORE)
    if not Path(out).exists():
        raise UsageError(f"{out}: no such file to update; build it without --update")
    require_kind(out, INDEX)

    from featx.retrieval import ImageIndex
    from featx.store import FeatureStore
    from featx.workflows.indexing import update_index

    index = ImageIndex.load(out)
    with FeatureStore(store) as opened:
        done = update_index(index, opened, compute)
    index.save(out, overwrite=True)
    if as_json:
        print(json.dumps({"out": out, "added": done.n_added, "removed": done.n_removed, "kept": done.n_kept,
                          "advice": done.advice or None}))  # fmt: skip
        return 0
    print(f"{out}: {count(done.n_added, 'image')} added, {done.n_removed} removed, {done.n_kept} kept")
    if done.advice:
        print(f"note: {done.advice}")
    return 0


def _numbers(text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise UsageError(f"--layer-weights {text!r} is not a list of numbers; give one a layer, such as 2,1") from error


def _show(what: str, number: int, n_steps: int) -> None:
    print(f"{number + 1}/{n_steps} {what}", file=sys.stderr, flush=True)


def _as_json(index: ImageIndex, out: str) -> dict[str, Any]:
    from featx.workflows.indexing import index_spec

    return {
        "out": out,
        "images": len(index),
        "features": index_spec(index).key,
        "bytes": Path(out).stat().st_size,
        "tuning": None if index.tuning is None else index.tuning.to_json(),
    }


def _as_text(index: ImageIndex, out: str) -> str:
    from featx.workflows.indexing import index_spec
    from featx.workflows.kept_places import KeptPlaces

    tuning = index.tuning
    how = "exact search" if tuning is None or index.structure is None else f"search by {tuning.chosen.factory}"
    n_bytes = Path(out).stat().st_size
    lines = [] if tuning is None else _tuning_lines(tuning)
    lines.append(f"{out}: {count(len(index), 'image')} by {index_spec(index).key}, {how}, {n_bytes / 1e6:.1f} MB")
    kept = KeptPlaces.of_index(index)
    if kept is not None:
        seen = "whole pictures" if kept.views == "whole" else "the store's maps"
        lines.append(f"places of {kept.layer}, from {seen}: {kept.bytes_per_image / 1000:.1f} kB an image")
        if kept.n_unread:
            lines.append(f"note: {count(kept.n_unread, 'picture')} could not be read, and will come last in --rerank")
    return "\n".join([*lines, f"next: featx query {shlex.quote(out)} IMAGE..."])


def _tuning_lines(tuning: Tuning) -> list[str]:
    """Return what was tried as a table: the Pareto front of recall, speed and memory, and the choice."""
    wish = tuning.wish
    if not tuning.n_queries:
        return [f"kept: {tuning.reason}"]
    shown = [trial for trial in tuning.trials if trial.on_front or trial == tuning.chosen]
    header = (
        "", "structure", "search", f"recall@{wish.k}", "95 % interval", "queries/s, 1 thread", "all threads",
        "bytes/image", "build s",
    )  # fmt: skip
    rows = [_trial_row(trial, trial == tuning.chosen) for trial in shown]
    return [
        f"{count(len(tuning.trials), 'way')} to search tried on {count(tuning.n_queries, 'held-out query')}; on the"
        " front of recall, speed and memory:",
        format_table(header, rows, left=(0, 1, 2)),
        f"kept: {tuning.reason}",
    ]


def _trial_row(trial: Trial, is_chosen: bool) -> tuple[object, ...]:
    low, high = trial.interval
    return (
        "*" if is_chosen else "",
        trial.factory,
        str(trial.parameters) if trial.parameters else "-",
        f"{trial.recall:.3f}",
        f"{low:.3f}-{high:.3f}",
        f"{trial.queries_per_second:.0f}",
        f"{trial.queries_per_second_all:.0f}",
        f"{trial.bytes_per_vector:.0f}",
        f"{trial.build_seconds:.1f}",
    )
