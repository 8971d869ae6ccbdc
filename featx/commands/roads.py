"""Walk the roads of transfer learning on the same images: frozen features, and the trainings that they replace.

frozen takes the best layer by cross-validation and a linear SVM; minimum, partial and total are those of featx
finetune; scratch trains the whole network from random weights. All are scored on the same images, which none has seen:
those of featx fit-svm. DIR gets a folder for each road, roads.md, roads.json and roads.png. Repeating the command
continues an interrupted one.
"""

from __future__ import annotations

import json
import shlex
import time
from typing import TYPE_CHECKING, Any

from featx.commands.failures import print_failures
from featx.commands.layer_names import shown_name
from featx.commands.options import add_json_argument, add_split_arguments, compute_options
from featx.commands.progress import StepBar
from featx.commands.tables import format_table
from featx.commands.training_options import (
    add_network_arguments,
    add_stage_arguments,
    add_training_arguments,
    around_settings,
    tuning_settings,
)
from featx.commands.training_progress import TrainingPrinter
from featx.commands.training_source import open_with_progress
from featx.errors import UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from featx.finetuning import TuningSettings
    from featx.workflows.roads import Road, RoadsSettings
    from featx.workflows.tuning_job import TuningEvents

_DEFAULT = "frozen,minimum,partial,total,scratch"
_LAYERS = "all-stages,penultimate"
_TITLES = (
    "road", "features", "", "accuracy", "95 %", "balanced", "SVM on its features", "gain over frozen", "seconds",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``featx roads``."""
    parser.add_argument("source", metavar="SOURCE", help="labelled images, or a store F.h5 of them")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for all that comes of it")
    parser.add_argument("--overwrite", action="store_true", help="begin anew where DIR holds other trainings")
    parser.add_argument("--roads", default=_DEFAULT, metavar="LIST", help=f"which (default: {_DEFAULT})")
    parser.add_argument(
        "--layers", metavar="LIST",
        help=f"that the frozen road may choose from, as in featx extract (default: {_LAYERS}, or those of the store)",
    )  # fmt: skip
    add_stage_arguments(parser)
    add_network_arguments(parser)
    add_training_arguments(parser)
    add_split_arguments(parser)
    add_json_argument(parser)


def run(
    *,
    source: str,
    out: str,
    overwrite: bool,
    roads: str,
    layers: str | None,
    device: str,
    workers: int | None,
    as_json: bool,
    **values: Any,
) -> int:
    """Walk the roads and print the table."""
    from pathlib import Path

    from featx.workflows.roads import features_file, seconds_note, walk_roads

    names, folder = _road_names(roads), Path(out)
    _settings(names, values, overwrite)  # wrong values are found before the features are computed
    _check_layers(source, layers)
    options = compute_options("auto", device, None, workers)
    started = time.perf_counter()
    opened = open_with_progress(
        source,
        features_file(folder, overwrite=overwrite),
        values,
        options=options,
        is_silent=as_json,
        layers=f"{layers or _LAYERS},penultimate",
        overwrite=overwrite,
    )
    seconds = time.perf_counter() - started
    settings = _settings(names, values, overwrite, from_random=opened.backbone.weights.is_random)
    with StepBar("steps") as bar:

        def events_of(name: str, tuning: TuningSettings) -> TuningEvents:
            if not as_json:
                print(f"\n{name}")
            return TrainingPrinter(tuning, bar, is_silent=as_json).events()

        walked = walk_roads(opened, folder, settings, seconds=seconds, options=options, events_of=events_of)
    print(json.dumps([road.to_json() for road in walked]) if as_json else _report(walked, out, seconds_note(opened)))
    print_failures(opened.failures, opened.store)
    return 1 if opened.failures else 0


def _road_names(text: str) -> list[str]:
    from featx.workflows.roads import ROADS

    names = [part.strip() for part in text.split(",") if part.strip()]
    unknown = [name for name in names if name not in ROADS]
    if unknown or not names:
        given = repr(unknown[0]) if unknown else "nothing"
        raise UsageError(f"--roads names {given}; allowed: {', '.join(ROADS)}")
    return names


def _check_layers(source: str, layers: str | None) -> None:
    from featx.workflows.file_kinds import STORE, kind_of

    if layers is not None and kind_of(source) == STORE:
        raise UsageError(
            f"{source} says itself which layers there are, so --layers does not go with it; leave it out, or give the"
            " images in its place"
        )


def _settings(
    names: Sequence[str], values: dict[str, Any], overwrite: bool, from_random: bool = False
) -> RoadsSettings:
    from featx.workflows.roads import RoadsSettings

    tunings = {name: _tuning(name, values, from_random) for name in names if name != "frozen"}
    # The frozen road has a seed and class weights, too.
    around = around_settings(values, overwrite=overwrite, tuning=_tuning("minimum", values, from_random))
    return RoadsSettings(tunings, "frozen" in names, around)


def _tuning(name: str, values: dict[str, Any], from_random: bool) -> TuningSettings:
    is_scratch = name == "scratch"
    stages = {} if name == "partial" else {"last": None, "unfreeze": None}
    return tuning_settings("total" if is_scratch else name, {**values, **stages}, from_random=from_random or is_scratch)


def _report(roads: Sequence[Road], out: str, note: str) -> str:
    best = max(roads, key=lambda road: road.evaluation.accuracy)
    score = best.evaluation
    lines = [
        "",
        f"on {score.rows} images that none has seen ({score.on})",
        format_table(
            _TITLES,
            [_row(road) for road in roads],
            left=(0, 1, 2),
        ),
        f"always answering {score.majority_class!r} would give {score.majority_accuracy:.3f}",
        *([f"note: {note}"] if note else []),
        "",
        f"saved in {out}: roads.md, roads.json, roads.png, and a folder for each road",
        f"next: featx predict {shlex.quote(str(best.folder / 'classifier.featx'))} IMAGE...",
    ]
    return "\n".join(lines)


def _row(road: Road) -> tuple[object, ...]:
    score, gain = road.evaluation, road.gain
    return (
        road.name,
        shown_name(road.layer),
        road.what,
        f"{score.accuracy:.3f}",
        "{:.3f} to {:.3f}".format(*score.interval),
        f"{score.balanced_accuracy:.3f}",
        "" if road.svm_accuracy is None else f"{road.svm_accuracy:.3f}",
        "" if gain is None else "{:+.3f} ({:+.3f} to {:+.3f})".format(gain.difference, *gain.interval),
        f"{road.seconds:.0f}",
    )
