"""Score a classifier on images whose classes are known.

featx evaluate C.featx SOURCE
featx evaluate C.featx SOURCE --tta 10      and what several views of each image gain

SOURCE is what featx extract takes, with labels: a folder of class folders, with or without train, val and test on top;
a CSV with columns path,label[,split]; or torchvision-data:NAME:ROOT. Classes are matched by name.
"""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

from featx.commands.evaluations import class_table, confusion_table
from featx.commands.options import (
    add_compute_arguments,
    add_json_argument,
    add_view_arguments,
    add_weights_argument,
    compute_options,
)
from featx.commands.tables import count

if TYPE_CHECKING:
    import argparse

    from featx.extraction import ExtractionProgress
    from featx.heads import Evaluation
    from featx.workflows.evaluating import SourceEvaluation


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``featx evaluate``."""
    parser.add_argument("classifier", metavar="C.featx", help="classifier from featx fit-svm and the like")
    parser.add_argument("source", metavar="SOURCE", help="where the labelled images are")
    parser.add_argument(
        "--split", metavar="NAME", help="test, val, train or all (default: test if there is one, else val, else all)"
    )
    add_view_arguments(parser)
    add_weights_argument(parser)
    add_json_argument(parser)
    add_compute_arguments(parser)


def run(
    *,
    classifier: str,
    source: str,
    split: str | None,
    tta: int,
    combine: str,
    weights: str | None,
    as_json: bool,
    engine: str,
    device: str,
    batch_size: int | None,
    workers: int | None,
) -> int:
    """Score and print; images that cannot be read go to stderr."""
    from featx.commands.progress import ProgressBar
    from featx.images import list_images, views_of
    from featx.workflows.file_kinds import CLASSIFIER, require_kind

    require_kind(classifier, CLASSIFIER)  # all that is cheap, before torch is loaded
    views_of(tta)
    listing = list_images(source)
    options = compute_options(engine, device, batch_size, workers)

    from featx.bundle import load_bundle
    from featx.workflows.evaluating import evaluate_source

    bundle = load_bundle(classifier)
    with ExitStack() as stack:
        bars: list[ProgressBar] = []

        def show(progress: ExtractionProgress) -> None:
            if not bars:  # how many images will be scored is known from the first one on
                bars.append(stack.enter_context(ProgressBar(progress.n_total)))
            bars[0](progress)

        result = evaluate_source(
            bundle, listing, options, weights=weights, split=split, tta=tta, combine=combine, progress=show
        )
    if as_json:
        print(json.dumps({"classifier": classifier, **result.to_json()}))
    else:
        print(_report(result, classifier))
    for path, reason in result.failures:
        print(f"{path}: {reason}", file=sys.stderr)
    return 1 if result.failures else 0


def _report(result: SourceEvaluation, classifier: str) -> str:
    evaluation = result.evaluation
    rows = count(evaluation.rows, "image")
    lines = [
        f"{classifier} on {rows} of {result.source} ({evaluation.on}); {result.seconds:.1f} s",
        *(f"note: {note}" for note in result.notes),
        "",
        f"accuracy {_accuracy(evaluation)}{_views(result)}",
        *_gain_lines(result),
    ]
    if evaluation.majority_class is not None:
        lines.append(f"always answering {evaluation.majority_class!r} would give {evaluation.majority_accuracy:.3f}")
    lines += [
        f"balanced accuracy {evaluation.balanced_accuracy:.3f}, macro F1 {evaluation.macro_f1:.3f}",
        "",
        class_table(evaluation),
        "",
        confusion_table(evaluation),
    ]
    return "\n".join(lines)


def _accuracy(evaluation: Evaluation) -> str:
    low, high = evaluation.interval
    return f"{evaluation.accuracy:.3f}, 95 % interval {low:.3f} to {high:.3f}"


def _views(result: SourceEvaluation) -> str:
    from featx.images import VIEWS_IN_WORDS

    how = "mean of their probabilities" if result.combine == "mean" else "by vote"
    return f", with {result.tta} views an image ({VIEWS_IN_WORDS[result.tta]}; {how})" if result.tta > 1 else ""


def _gain_lines(result: SourceEvaluation) -> list[str]:
    """Return what the views gain, in words; nothing where there is one view alone."""
    if result.plain is None or result.gain is None:
        return []
    gain, (low, high) = result.gain, result.gain.interval
    return [
        f"accuracy {_accuracy(result.plain)}, with the network's own view alone",
        f"gain {gain.difference:+.3f}, 95 % interval {low:+.3f} to {high:+.3f}:"
        f" {count(gain.n_better, 'image')} better, {gain.n_worse} worse (p {gain.p_value:.3f}, exact McNemar test)",
    ]
