"""Write a store with fewer numbers an image: principal components, or codes of a product quantizer.

SPEC is pca:N (N components), pca:F (as many as keep the fraction F of the variance) or pq:M (codes of M bytes an
image). Every layer gets a reducer of its own, fitted without the rows of val and test splits; where the store has no
such rows, it is fitted on all of them.

The new store holds the same images, labels and splits, and the fitted reducers. fit-*, index and export take it like
any other; extract cannot add to it.
"""

from __future__ import annotations

import json
import shlex
import sys
from typing import TYPE_CHECKING, Any

from featx.commands.options import add_json_argument, add_output_argument
from featx.commands.outputs import check_output, make_folder_of
from featx.commands.tables import count, format_table

if TYPE_CHECKING:
    import argparse

    from featx.workflows.reducing import ReducedFeatures, ReduceProgress, ReduceReport


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``featx reduce``."""
    parser.add_argument("store", metavar="F.h5", help="store from featx extract")
    parser.add_argument("--reduce", required=True, metavar="SPEC", help="pca:N, pca:F or pq:M, such as pca:128")
    add_output_argument(parser, "the reduced store", "reduced.h5")
    parser.add_argument("--layers", metavar="LIST", help="layers, LAYER@POOL or aliases in the store (default: all)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of pq:M (default: %(default)s)")
    add_json_argument(parser)


def run(*, store: str, reduce: str, out: str, overwrite: bool, layers: str | None, seed: int, as_json: bool) -> int:
    """Reduce a store and print what became of each layer."""
    from featx.workflows.file_kinds import STORE, require_kind

    target = check_output(out, store, overwrite=overwrite)
    require_kind(store, STORE)
    names = None if layers is None else [name.strip() for name in layers.split(",") if name.strip()]

    from featx.store import FeatureStore
    from featx.workflows.reducing import check_request, reduce_store

    with FeatureStore(store) as opened:
        check_request(opened, reduce, names)  # a wrong name should leave no folder behind
        make_folder_of(target)
        watch = None if as_json else _show
        report = reduce_store(opened, reduce, target, layers=names, seed=seed, overwrite=overwrite, progress=watch)
        has_labels = bool(opened.label_names)
    print(json.dumps(_as_json(report)) if as_json else _as_text(report, has_labels))
    return 0


def _show(progress: ReduceProgress) -> None:
    print(f"{progress.step}/{progress.n_steps} {progress.what}", file=sys.stderr, flush=True)


def _as_json(report: ReduceReport) -> dict[str, Any]:
    return {
        "out": str(report.path),
        "reduce": report.by,
        "rows": report.rows,
        "fitted_rows": report.fitted_rows,
        "fitted_on": report.fitted_on,
        "bytes_before": report.bytes_before,
        "bytes": report.n_bytes,
        "layers": [
            {
                "key": layer.key,
                "width_before": layer.width_before,
                "width": layer.width,
                "bytes_before": layer.bytes_before,
                "bytes": layer.n_bytes,
                "reducer_bytes": layer.reducer_bytes,
                "explained_variance": layer.explained_variance,
                "reconstruction_error": layer.reconstruction_error,
                "n_subspaces": layer.n_subspaces,
                "n_bits": layer.n_bits,
                "notes": list(layer.notes),
            }
            for layer in report.layers
        ],
    }


_FLATTERING = "note: measured on the rows that the codewords were learned from; of new images, less is kept"


def _as_text(report: ReduceReport, has_labels: bool) -> str:
    header = ("features", "width before", "width", "MB before", "MB", "reducer MB", "variance kept")
    lines = [
        f"{report.path}: {count(report.rows, 'row')} by {report.by}, fitted on {report.fitted_rows}"
        f" ({report.fitted_on}); {report.bytes_before / 1e6:.2f} MB before, {report.n_bytes / 1e6:.2f} MB now",
        format_table(header, [_row(layer) for layer in report.layers]),
        *([_FLATTERING] if report.by.startswith("pq:") and report.fitted_on == "all rows" else []),
        *(f"note: {layer.key}: {note}" for layer in report.layers for note in layer.notes),
    ]
    verb, suffix = ("fit-svm", ".featx") if has_labels else ("index", ".index")
    result = shlex.quote(str(report.path.with_suffix(suffix)))
    return "\n".join([*lines, f"next: featx {verb} {shlex.quote(str(report.path))} --out {result}"])


def _row(layer: ReducedFeatures) -> tuple[object, ...]:
    lost = layer.reconstruction_error
    kept = layer.explained_variance if lost is None else 1 - lost
    megabytes = (f"{n_bytes / 1e6:.2f}" for n_bytes in (layer.bytes_before, layer.n_bytes, layer.reducer_bytes))
    before, after, reducer = megabytes
    return layer.key, layer.width_before, layer.width, before, after, reducer, "?" if kept is None else f"{kept:.1%}"
