"""List networks: where their weights would come from and, when at most 50 match, what they are.

PATTERN has shell wildcards, such as 'efficientnet*'; without any it matches anywhere in a name. --classic is the table
of the networks that everybody compares with, by Keras' names or timm's, with the time an image takes on this machine.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from featx.commands.classic_table import print_classic_table
from featx.commands.options import add_json_argument
from featx.commands.tables import format_table
from featx.errors import UsageError

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``featx models``."""
    parser.add_argument("pattern", nargs="?", default="*", metavar="PATTERN", help="names to list (default: all)")
    parser.add_argument("--local", action="store_true", help="only networks whose weights are on this machine")
    parser.add_argument(
        "--classic", action="store_true",
        help="Xception, VGG, ResNet, Inception: size, accuracy, parameters, depth, what timm has in their place, and"
        " measured milliseconds an image (a few minutes the first time)",
    )  # fmt: skip
    parser.add_argument("--measure-again", action="store_true", help="with --classic: measure what is remembered, too")
    add_json_argument(parser)


def run(*, pattern: str, local: bool, classic: bool, measure_again: bool, as_json: bool) -> int:
    """Print the networks that match."""
    if classic:
        return print_classic_table(pattern, local=local, measure_again=measure_again, as_json=as_json)
    if measure_again:
        raise UsageError("--measure-again goes with --classic; only that table has measured times")

    from featx.backbones import find_models

    models = find_models(pattern, local=local)
    if as_json:
        print(json.dumps([model.to_json() for model in models]))
        return 0
    if models[0].n_parameters is None:
        print(format_table(("model", "weights"), [(model.name, model.weights) for model in models], left=(0, 1)))
        print(f"{len(models)} models; name at most 50 to see their sizes")
        return 0
    rows = [
        (
            model.name,
            model.weights,
            f"{(model.n_parameters or 0) / 1e6:.1f}",
            "x".join(map(str, model.size or ())),
            model.width,
        )
        for model in models
    ]
    print(format_table(("model", "weights", "M parameters", "input", "width"), rows, left=(0, 1)))
    return 0
