"""Write features of a store as .npy, .csv, .parquet or .pt; the extension of --out says which.

.npy holds the matrix, with paths, labels and splits in OUT.csv beside it. Of a reduced store, the reduced columns are
written; codes (--reduce pq:M) are decoded to the features that they stand for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from featx.commands.options import add_layer_argument, add_output_argument
from featx.commands.outputs import check_output, make_folder_of
from featx.commands.tables import count

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``featx export``."""
    parser.add_argument("store", metavar="F.h5", help="store to read")
    add_output_argument(parser, "the file to write", "features.csv")
    add_layer_argument(parser)


def run(*, store: str, out: str, overwrite: bool, layer: str | None) -> int:
    """Export one layer and print what was written."""
    from featx.store import FeatureStore
    from featx.workflows.exporting import check_format, export_features
    from featx.workflows.file_kinds import STORE, require_kind
    from featx.workflows.stored_features import decoded

    target = check_output(out, store, overwrite=overwrite)
    check_format(target)
    require_kind(store, STORE)
    with FeatureStore(store) as opened:
        opened.resolve(layer)  # a wrong name should leave no folder behind
        make_folder_of(target)
        key = export_features(opened, target, layer, overwrite=overwrite)
        print(f"{out}: {count(opened.rows, 'row')} of {key}, {decoded(opened, key).shape[1]} wide")
    return 0
