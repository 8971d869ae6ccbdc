"""Tune a network on labelled images, beside a classifier on its frozen features.

SOURCE is a folder, list or CSV as in featx extract, or a store from it whose images are still there. Three regimes:
minimum trains a new head on the frozen network, partial also its last stages, total everything.

DIR gets the tuned network (tuned.safetensors, for featx extract --weights), features of all images by it (tuned.h5),
a classifier for featx predict (classifier.featx), the curves (curves.png, history.csv) and result.json. The images that
it is scored on are those of featx fit-svm; they are never learned from, and choose nothing. Repeating the command
continues an interrupted training.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from featx.commands.failures import print_failures
from featx.commands.options import add_json_argument, add_split_arguments, compute_options
from featx.commands.progress import StepBar
from featx.commands.tables import count, format_table
from featx.commands.training_options import (
    add_network_arguments,
    add_stage_arguments,
    add_training_arguments,
    around_settings,
    tuning_settings,
)
from featx.commands.training_progress import TrainingPrinter
from featx.commands.training_source import open_with_progress

if TYPE_CHECKING:
    import argparse
    from collections.abc import Collection

    from featx.workflows.tuning_folder import TuningFolder
    from featx.workflows.tuning_results import TuningResult


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``featx finetune``."""
    parser.add_argument("source", metavar="SOURCE", help="labelled images, or a store F.h5 of them")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for all that comes of it")
    parser.add_argument("--overwrite", action="store_true", help="begin anew where DIR holds another training")
    parser.add_argument(
        "--regime", default="partial", metavar="NAME", help="minimum, partial or total (default: partial)"
    )
    add_stage_arguments(parser)
    add_network_arguments(parser)
    add_training_arguments(parser)
    add_split_arguments(parser)
    parser.add_argument("--tensorboard", action="store_true", help="write events for TensorBoard into DIR/tensorboard")
    parser.add_argument("--embed-weights", action="store_true", help="put the tuned network into the classifier")
    add_json_argument(parser)


def run(
    *,
    source: str,
    out: str,
    overwrite: bool,
    regime: str,
    device: str,
    workers: int | None,
    tensorboard: bool,
    embed_weights: bool,
    as_json: bool,
    **values: Any,
) -> int:
    """Tune a network and report what it gained."""
    from pathlib import Path

    from featx.workflows.tuning_folder import TuningFolder

    settings = around_settings(
        values,
        tuning=tuning_settings(regime, values),
        tensorboard=tensorboard,
        embed_weights=embed_weights,
        overwrite=overwrite,
    )
    folder = TuningFolder(Path(out))
    folder.check(overwrite=overwrite)
    if tensorboard:
        from featx.workflows.tensorboard_log import require_tensorboard

        require_tensorboard()
    options = compute_options("auto", device, None, workers)

    from featx.store import FeatureStore
    from featx.workflows.finetuning import finetune

    opened = open_with_progress(source, folder.frozen, values, options=options, is_silent=as_json, overwrite=overwrite)
    if opened.backbone.weights.is_random:
        settings = replace(settings, tuning=tuning_settings(regime, values, from_random=True))
    with FeatureStore(opened.store) as store, StepBar("steps") as bar:
        printer = TrainingPrinter(settings.tuning, bar, is_silent=as_json)
        result = finetune(
            store, opened.listing, opened.backbone, folder.path, settings, options=options, events=printer.events()
        )
    if as_json:
        files = {"weights": str(folder.weights) if regime != "minimum" else None, "classifier": str(folder.classifier)}
        print(json.dumps({**result.to_json(), "files": files}))
    else:
        print(_report(result, folder, printer.said, is_svm=settings.classifier == "svm"))
    print_failures(opened.failures, opened.store)
    return 1 if opened.failures else 0


def _report(result: TuningResult, folder: TuningFolder, said: Collection[str], *, is_svm: bool) -> str:
    regime, gain = result.settings.regime, result.gain
    is_tuned = regime != "minimum"
    scores = [("frozen features, linear SVM", result.frozen), (f"{regime}, softmax", result.softmax)]
    scores += [("tuned features, linear SVM", result.svm)] if is_tuned else []
    cells = [
        (name, f"{score.accuracy:.3f}", "{:.3f} to {:.3f}".format(*score.interval), f"{score.balanced_accuracy:.3f}")
        for name, score in scores
    ]
    lines = [
        "",
        f"best epoch {result.best_epoch} of {len(result.records)}, by validation accuracy; {result.seconds:.1f} s of"
        " training",
        "",
        f"on {result.softmax.rows} images never seen ({result.softmax.on})",
        format_table(("", "accuracy", "95 %", "balanced"), cells),
        "gain over the frozen features {:+.3f}, 95 % {:+.3f} to {:+.3f}:".format(gain.difference, *gain.interval)
        + f" {count(gain.n_better, 'image')} better, {gain.n_worse} worse (p {gain.p_value:.3f}, exact McNemar test)",
    ]
    without = result.without_copies
    if without is not None:
        lines.append(
            f"without the {result.softmax.rows - without.rows} of them that have a copy in training: accuracy"
            " {:.3f}, 95 % {:.3f} to {:.3f}".format(without.accuracy, *without.interval)
        )
    if is_tuned:
        lines.append(f"likeness of the features to those before {result.likeness:.2f} (linear CKA; 1: unchanged)")
    lines += [f"note: {note}" for note in result.notes if note not in said]
    head = "a linear SVM on the tuned features" if is_svm else "softmax"
    files = ["tuned.safetensors", "tuned.h5"] if is_tuned else []
    files += [f"classifier.featx ({head})", "curves.png", "history.csv", "result.json"]
    lines += ["", f"saved in {folder.path}: {', '.join(files)}"]
    lines.append(f"next: featx predict {shlex.quote(str(folder.classifier))} IMAGE...")
    return "\n".join(lines)
