"""Compute features of all images of a source and keep them in an HDF5 file.

SOURCE is a folder (class = first folder level; train, val, test on top are splits), a text file of paths, - for paths
from standard input, a CSV with columns path[,label][,split][,group], or torchvision-data:NAME:ROOT.

Running the same command again continues it: only new and changed images are computed, images that are gone leave.
More layers on an existing file add them; the others stay. So do spatial maps (--keep-map).
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from typing import TYPE_CHECKING, Any

from featx.commands.failures import print_failures
from featx.commands.options import add_compute_arguments, add_json_argument, add_output_argument, compute_options
from featx.commands.tables import count, format_table
from featx.errors import WouldOverwriteError

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from featx.extraction import Extraction, ExtractionReport


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``featx extract``."""
    parser.add_argument("source", metavar="SOURCE", help="where the images are")
    add_output_argument(parser, "the store", "features.h5")
    network = parser.add_argument_group("which features")
    network.add_argument(
        "--model", default="tf_efficientnet_lite0", metavar="NAME", help="network (default: %(default)s)"
    )
    network.add_argument("--weights", metavar="FILE", help="weights file, or random:SEED (default: looked for)")
    network.add_argument(
        "--size", type=int, metavar="N", help="pictures of N x N pixels for the network (default: its own size)"
    )
    network.add_argument(
        "--layers",
        default="penultimate",
        metavar="LIST",
        help="names, globs, all-stages, P%%, early, middle, late, penultimate; each may end in @POOL"
        " (default: penultimate)",
    )
    network.add_argument(
        "--pool",
        default="avg",
        metavar="LIST",
        help="avg, max, avgmax, gem[:p], grid:K, rmac[:L], flatten, cls, prefix (default: avg)",
    )
    network.add_argument(
        "--keep-map",
        metavar="LAYER[,LAYER]",
        help="also keep the spatial maps of these layers, for matching parts of pictures: rows x columns x channels x"
        " 2 bytes an image (43.9 kB for blocks.4 of the default network)",
    )
    network.add_argument("--precision", default="f32", metavar="NAME", help="f32, bf16 or f16 (default: %(default)s)")
    network.add_argument("--dtype", default="float32", metavar="NAME", help="float32 or float16 in the file")
    add_compute_arguments(parser)
    parser.add_argument("--compile", action="store_true", dest="compiled", help="use torch.compile (engine torch)")
    parser.add_argument("--limit", type=int, metavar="N", help="only N images, evenly spaced over the source")
    parser.add_argument("--strict", action="store_true", help="stop at the first image that cannot be read")
    parser.add_argument("--resume", action="store_true", help="accepted; a repeated command always continues")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    add_json_argument(parser)


def run(
    *,
    source: str,
    out: str,
    model: str,
    weights: str | None,
    size: int | None,
    layers: str,
    pool: str,
    keep_map: str | None,
    precision: str,
    dtype: str,
    engine: str,
    device: str,
    batch_size: int | None,
    workers: int | None,
    compiled: bool,
    limit: int | None,
    overwrite: bool,
    strict: bool,
    resume: bool,  # noqa: ARG001 - a repeated command always continues
    dry_run: bool,
    as_json: bool,
) -> int:
    """Extract features and print what was done."""
    from pathlib import Path

    from featx.commands.progress import ProgressBar
    from featx.images import list_images

    started = time.perf_counter()
    _refuse_other_file(out, overwrite)
    listing = list_images(source, limit=limit)  # first, because a wrong path should not wait for torch
    options = compute_options(engine, device, batch_size, workers, precision, compiled)

    from featx.backbones import open_backbone
    from featx.extraction import Extraction, FeatureComputer, select_maps

    backbone = open_backbone(model, weights=weights, size=size)
    selection = backbone.select(layers, pool)
    maps = None if keep_map is None else select_maps(backbone, keep_map)
    extraction = Extraction(
        listing,
        FeatureComputer(backbone, selection.taps, options),
        Path(out),
        aliases=selection.aliases if maps is None else {**selection.aliases, **maps.aliases},
        dtype=dtype,
        overwrite=overwrite,
        strict=strict,
        map_taps=() if maps is None else maps.taps,
    )
    if dry_run:
        _print_plan(extraction, as_json)
        return 0
    if not as_json:
        print(_opening_line(extraction), file=sys.stderr)
    with ProgressBar(len(listing)) as bar:
        extraction.progress = bar
        report = extraction.run()
    seconds = time.perf_counter() - started
    print(json.dumps(_as_json(extraction, report, seconds)) if as_json else _summary(extraction, report, seconds))
    print_failures(report.failures, report.out)
    return 1 if report.failures else 0


def _refuse_other_file(out: str, overwrite: bool) -> None:
    from featx.workflows.file_kinds import STORE, kind_of

    if os.path.isfile(out) and kind_of(out) != STORE and not overwrite:
        raise WouldOverwriteError(
            f"{out} is already there, and is no store that could be continued; choose another --out, or give"
            " --overwrite to replace it"
        )


def _opening_line(extraction: Extraction) -> str:
    listing, backbone = extraction.listing, extraction.computer.backbone
    ignored = f", {count(listing.n_ignored, 'other file')} passed over" if listing.n_ignored else ""
    classes = f", {count(len(listing.class_names), 'class')}" if listing.class_names else ", no classes"
    return f"{count(len(listing), 'image')}{classes}{ignored}; {backbone.name}, weights {backbone.weights.source}"


def _print_plan(extraction: Extraction, as_json: bool) -> None:
    plan = extraction.plan()
    if as_json:
        print(
            json.dumps(
                {
                    "rows": plan.rows,
                    "to_compute": plan.n_missing,
                    "minutes": plan.minutes,
                    "layers": _layers(extraction),
                    "maps": _maps(extraction),
                }
            )
        )
        return
    print(_opening_line(extraction))
    print(f"would write {extraction.out}: {count(plan.rows, 'row')}, {plan.n_missing} of them to be computed")
    print("\n".join([_layer_table(extraction), *_map_lines(extraction)]))
    time_needed = f"{plan.minutes:.1f} minutes" if plan.minutes >= 1 else f"{plan.minutes * 60:.1f} seconds"
    print(f"about {time_needed} on this machine, start not included")


def _layers(extraction: Extraction) -> list[dict[str, Any]]:
    return [
        {"key": info.key, "width": info.width, "depth": info.depth, "megabytes": extraction.megabytes(info)}
        for info in extraction.infos.values()
    ]


def _layer_table(extraction: Extraction) -> str:
    rows = [
        (layer["key"], layer["width"], f"{layer['depth']:.0%}", f"{layer['megabytes']:.2f}")
        for layer in _layers(extraction)
    ]
    return format_table(("features", "width", "depth", "MB"), rows)


def _maps(extraction: Extraction) -> list[dict[str, Any]]:
    return [
        {
            "layer": info.layer,
            "shape": list(info.shape),
            "bytes_per_image": info.bytes_per_image,
            "megabytes": extraction.megabytes(info),
        }
        for info in extraction.maps.values()
    ]


def _map_lines(extraction: Extraction) -> list[str]:
    return [f"{info}, {extraction.megabytes(info):.2f} MB in all" for info in extraction.maps.values()]


def _summary(extraction: Extraction, report: ExtractionReport, seconds: float) -> str:
    done = [f"{report.n_computed} computed", f"{report.n_kept} known already"]
    if report.n_removed:
        done.append(f"{count(report.n_removed, 'row')} of images that are gone removed")
    lines = [f"{report.out}: {count(report.rows, 'row')} ({', '.join(done)})", _layer_table(extraction)]
    lines += _map_lines(extraction)
    if report.n_computed:
        lines.append(f"{report.engine}; {seconds:.1f} s, start included")
    if extraction.listing.has_labels:
        lines.append(_next_step("fit-svm", report.out, ".featx"))
    else:
        lines.append(_next_step("index", report.out, ".index"))
    return "\n".join(lines)


def _next_step(verb: str, out: Path, suffix: str) -> str:
    return f"next: featx {verb} {shlex.quote(str(out))} --out {shlex.quote(str(out.with_suffix(suffix)))}"


def _as_json(extraction: Extraction, report: ExtractionReport, seconds: float) -> dict[str, Any]:
    return {
        "out": str(report.out),
        "rows": report.rows,
        "computed": report.n_computed,
        "kept": report.n_kept,
        "removed": report.n_removed,
        "failures": [{"path": path, "reason": reason} for path, reason in report.failures],
        "layers": _layers(extraction),
        "maps": _maps(extraction),
        "engine": report.engine,
        "seconds": round(seconds, 3),
    }
