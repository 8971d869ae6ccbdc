"""Write features of a store as .npy, .csv, .parquet or .pt; the extension of --out says which.

.npy holds the matrix, with paths, labels and splits in OUT.csv beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from featx.commands.options import add_layer_argument, add_output_argument

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``featx export``."""
    parser.add_argument("store", metavar="F.h5", help="store to read")
    add_output_argument(parser, "the file to write", "features.csv")
    add_layer_argument(parser)


def run(*, store: str, out: str, overwrite: bool, layer: str | None) -> int:
    """Export one layer and print what was written."""
    from pathlib import Path

    from featx.store import FeatureStore
    from featx.workflows.exporting import export_features

    with FeatureStore(store) as opened:
        key = export_features(opened, Path(out), layer, overwrite=overwrite)
        print(f"{out}: {opened.rows} rows of {key}, {opened.infos[key].width} wide")
    return 0
