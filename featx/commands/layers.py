"""List the layers of a network in execution order.

By default the stages of the body, and what the classifier receives; --all shows every layer, --layers what a list
stands for.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from featx.commands.options import add_json_argument
from featx.commands.tables import format_table

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``featx layers``."""
    parser.add_argument(
        "model", nargs="?", default="tf_efficientnet_lite0", metavar="MODEL", help="network (default: %(default)s)"
    )
    parser.add_argument(
        "--weights", default="random:0", metavar="FILE", help="not needed: shapes do not depend on them"
    )
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--all", action="store_true", dest="show_all", help="every layer that can be tapped")
    shown.add_argument("--layers", metavar="LIST", help="what this list stands for, as in featx extract")
    parser.add_argument("--pool", default="avg", metavar="LIST", help="poolings for the width (default: avg)")
    add_json_argument(parser)


def run(*, model: str, weights: str, show_all: bool, layers: str | None, pool: str, as_json: bool) -> int:
    """Print the layers of one network."""
    from featx.backbones import make_tap, open_backbone

    backbone = open_backbone(model, weights=weights)
    if show_all:
        taps = [make_tap(layer) for layer in backbone.layers.values() if not layer.problem]
    else:
        taps = list(backbone.select(layers or _default_layers(backbone.layers), pool).taps)
    rows = [
        {
            "layer": tap.layer.name,
            "pool": tap.pool,
            "shape": list(tap.layer.shape),
            "width": tap.width,
            "depth": tap.layer.depth,
            "gmacs": tap.layer.macs / 1e9,
        }
        for tap in taps
    ]
    if as_json:
        print(json.dumps(rows))
        return 0
    table = [
        (
            tap.layer.name if pool == "avg" else tap.key,
            "x".join(map(str, tap.layer.shape)),
            row["width"],
            f"{row['depth']:.0%}",
            f"{row['gmacs']:.3f}",
        )
        for row, tap in zip(rows, taps, strict=True)
    ]
    print(f"{backbone.name}: input {'x'.join(map(str, backbone.transform.size))}, {len(backbone.layers)} layers")
    print(format_table(("layer", "output", "width", "depth", "GMACs up to it"), table, left=(0, 1)))
    return 0


def _default_layers(layers: Mapping[str, object]) -> str:
    return "all-stages,penultimate" if "penultimate" in layers else "all-stages"
