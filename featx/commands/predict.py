"""Name the class of images, with its probability.

featx predict C.featx IMAGE...              with a classifier of your own
featx predict --model NAME IMAGE...         with a pretrained network as it is (ImageNet's classes)

IMAGE is a file, a folder, a list of paths, or - for paths from standard input.
"""

from __future__ import annotations

import csv
import json
import sys
from typing import TYPE_CHECKING

from featx.commands.options import add_compute_arguments, add_view_arguments, add_weights_argument, compute_options
from featx.errors import UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from featx.workflows.predicting import Prediction


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``featx predict``."""
    parser.add_argument(
        "inputs", nargs="*", metavar="C.featx IMAGE", help="a classifier (not with --model), then images"
    )
    parser.add_argument("--model", metavar="NAME", help="use this pretrained network's own classifier")
    add_weights_argument(parser)
    parser.add_argument("--top", type=int, default=1, metavar="N", help="classes shown an image (default: 1)")
    add_view_arguments(parser)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", dest="as_json", help="one JSON object a line")
    form.add_argument("--csv", action="store_true", dest="as_csv", help="CSV with columns path, class, probability")
    add_compute_arguments(parser)


def run(
    *,
    inputs: list[str],
    model: str | None,
    weights: str | None,
    top: int,
    tta: int,
    combine: str,
    as_json: bool,
    as_csv: bool,
    engine: str,
    device: str,
    batch_size: int | None,
    workers: int | None,
) -> int:
    """Predict and print a line an image; images that cannot be read go to stderr."""
    from featx.images import views_of
    from featx.workflows.image_arguments import named_images

    if top < 1:
        raise UsageError(f"--top {top} is not at least 1; leave it out for the most probable class alone")
    views_of(tta)
    classifier, images = _take_classifier(inputs, model)
    entries = named_images(images)  # before torch is loaded, because a wrong path should not wait for it
    options = compute_options(engine, device, batch_size, workers)

    from featx.bundle import load_bundle
    from featx.workflows.predicting import name_images, predict_images

    if model is not None:
        predictions = name_images(model, entries, options, weights=weights, n_best=top, tta=tta, combine=combine)
    else:
        predictions = predict_images(
            load_bundle(classifier), entries, options, weights=weights, n_best=top, tta=tta, combine=combine
        )
    return _print(predictions, as_json, as_csv)


def _take_classifier(inputs: list[str], model: str | None) -> tuple[str, list[str]]:
    """Return the classifier, empty with ``--model``, and the images."""
    from featx.workflows.file_kinds import CLASSIFIER, kind_of, require_kind

    if model is not None:
        if inputs and kind_of(inputs[0]) == CLASSIFIER:
            raise UsageError(f"give a classifier ({inputs[0]}) or --model {model}, not both")
        return "", inputs
    if not inputs:
        raise UsageError("give a classifier and images: featx predict C.featx IMAGE...; or --model NAME IMAGE...")
    require_kind(
        inputs[0], CLASSIFIER, "; or use a pretrained network's own classes: featx predict --model NAME IMAGE..."
    )
    return inputs[0], inputs[1:]


def _print(predictions: Iterable[Prediction], as_json: bool, as_csv: bool) -> int:
    n_done = n_failed = 0
    writer = csv.writer(sys.stdout, lineterminator="\n")
    if as_csv:
        writer.writerow(("path", "class", "probability"))
    for prediction in predictions:
        n_done += 1
        if not prediction.ranking:
            n_failed += 1
            print(f"{prediction.path}: {prediction.reason}", file=sys.stderr)
        elif as_json:
            print(json.dumps(_as_json(prediction)), flush=True)
        elif as_csv:
            writer.writerows((prediction.path, name, f"{probability:.6f}") for name, probability in prediction.ranking)
        else:
            named = "  ".join(f"{name} {probability:.3f}" for name, probability in prediction.ranking)
            print(f"{prediction.path}  {named}", flush=True)
    if n_failed == n_done:
        return 2  # nothing came of it
    return 1 if n_failed else 0


def _as_json(prediction: Prediction) -> dict[str, object]:
    name, probability = prediction.ranking[0]
    shown: dict[str, object] = {"path": prediction.path, "class": name, "probability": round(probability, 6)}
    if len(prediction.ranking) > 1:
        shown["top"] = [{"class": name, "probability": round(value, 6)} for name, value in prediction.ranking]
    return shown
