"""Write features of a store as .npy, .csv, .parquet or .pt; the extension of --out says which.

.npy holds the matrix, with paths, labels and splits in OUT.csv beside it. Of a reduced store, the reduced columns are
written; codes (--reduce pq:M) are decoded to the features that they stand for.

With --maps the argument is an image, and its activation maps are drawn as .png, .jpg, .webp or .pdf: what early and
late layers see in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from featx.commands.exported_maps import add_map_arguments, export_maps, refuse_map_options
from featx.commands.options import add_layer_argument, add_output_argument
from featx.commands.outputs import check_output, make_folder_of
from featx.commands.tables import count
from featx.errors import UsageError

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``featx export``."""
    parser.add_argument("file", metavar="F.h5|IMAGE", help="store to read; with --maps, an image")
    add_output_argument(parser, "the file to write", "features.csv or maps.png")
    add_layer_argument(parser)
    add_map_arguments(parser)


def run(
    *,
    file: str,
    out: str,
    overwrite: bool,
    layer: str | None,
    maps: str | None,
    model: str | None,
    weights: str | None,
    channels: int | None,
) -> int:
    """Export one layer, or draw maps, and print what was written."""
    if maps is None:
        refuse_map_options(model=model, weights=weights, channels=channels)
        return _export_features(file, out, overwrite=overwrite, layer=layer)
    if layer is not None:
        raise UsageError("--layer names features of a store, and --maps layers of a network for one image; give one")
    return export_maps(file, out, layers=maps, model=model, weights=weights, channels=channels, overwrite=overwrite)


def _export_features(store: str, out: str, *, overwrite: bool, layer: str | None) -> int:
    from featx.store import FeatureStore
    from featx.workflows.exporting import check_format, export_features
    from featx.workflows.file_kinds import STORE, require_kind
    from featx.workflows.stored_features import decoded

    require_kind(store, STORE, "; or draw activation maps of an image with --maps LAYER")
    target = check_output(out, store, overwrite=overwrite)
    check_format(target)
    with FeatureStore(store) as opened:
        opened.resolve(layer)  # a wrong name should leave no folder behind
        make_folder_of(target)
        key = export_features(opened, target, layer, overwrite=overwrite)
        print(f"{out}: {count(opened.rows, 'row')} of {key}, {decoded(opened, key).shape[1]} wide")
    return 0
