"""What fit-svm, fit-logistic and fit-tree have in common: arguments, and the report."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from featx.commands.options import add_json_argument, add_layer_argument, add_output_argument
from featx.commands.outputs import check_output, make_folder_of
from featx.commands.tables import format_table
from featx.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from featx.heads import Evaluation
    from featx.workflows.fitting import FitResult

_MAX_CONFUSION = 15  # classes; a wider matrix does not fit a terminal


def add_fit_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of every ``fit-`` verb."""
    parser.add_argument("store", metavar="F.h5", help="features with labels, from featx extract")
    add_output_argument(parser, "the classifier", "flowers.featx")
    add_layer_argument(parser)
    parser.add_argument(
        "--scale", default="zscore", metavar="NAME", help="none, zscore, minmax, l2 or sqrt (default: zscore)"
    )
    parser.add_argument(
        "--reduce", default="none", metavar="SPEC", help="none, or pca:N (N components, or a share below 1)"
    )
    parser.add_argument(
        "--cv", type=int, default=5, metavar="N", help="folds that choose hyper-parameters (default: 5)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of folds and held-out rows (default: 0)")
    parser.add_argument(
        "--held-out", type=float, default=0.2, metavar="SHARE",
        help="share of rows to score on where there is no test or val split (default: 0.2)",
    )  # fmt: skip
    parser.add_argument("--balanced", action="store_true", help="weigh classes by the inverse of their size")
    parser.add_argument("--refit-all", action="store_true", help="after scoring, fit again on all labelled rows")
    parser.add_argument("--embed-weights", action="store_true", help="put the network's weights into the classifier")
    parser.add_argument("--allow-random", action="store_true", help="accept features of untrained weights")
    parser.add_argument("--jobs", type=int, metavar="N", help="processes over folds (default: chosen)")
    add_json_argument(parser)


def fit_and_report(
    head: str,
    *,
    store: str,
    out: str,
    overwrite: bool,
    layer: str | None,
    scale: str,
    reduce: str,
    cv: int,
    seed: int,
    held_out: float,
    balanced: bool,
    refit_all: bool,
    embed_weights: bool,
    allow_random: bool,
    jobs: int | None,
    as_json: bool,
) -> int:
    """Fit a head, save the classifier and print how good it is."""
    from featx.workflows.file_kinds import STORE, require_kind

    target = check_output(out, store, overwrite=overwrite)  # all that is cheap, before torch is loaded
    require_kind(store, STORE)
    _check_numbers(cv=cv, seed=seed, held_out=held_out, jobs=jobs)

    from featx.store import FeatureStore
    from featx.workflows.fitting import FitSettings, fit_classifier, network_weights

    settings = FitSettings(
        head=head,
        scale=scale,
        reduce=reduce,
        cv=cv,
        seed=seed,
        held_out=held_out,
        class_weight="balanced" if balanced else None,
        n_jobs=jobs,
        refit_all=refit_all,
        allow_random=allow_random,
    )
    with FeatureStore(store) as opened:
        result = fit_classifier(opened, layer, settings)
    bundle = replace(result.bundle, weights=network_weights(result.bundle.spec)) if embed_weights else result.bundle
    make_folder_of(target)
    bundle.save(target, overwrite=overwrite)
    print(json.dumps(result.to_json()) if as_json else _report(result, out, refit_all))
    return 0


def _check_numbers(*, cv: int, seed: int, held_out: float, jobs: int | None) -> None:
    if cv < 2:
        raise UsageError(f"--cv {cv} is below 2; give at least 2 folds")
    if not 0 <= seed < 2**32:
        raise UsageError(f"--seed {seed} is not from 0 to {2**32 - 1}")
    if not 0 < held_out < 1:
        raise UsageError(f"--held-out {held_out} is not between 0 and 1; give a share such as 0.2")
    if jobs is not None and jobs < 1:
        raise UsageError(f"--jobs {jobs} starts no process; give 1 or more, or leave it out")


def _report(result: FitResult, out: str, refit_all: bool) -> str:
    fitted, evaluation, spec = result.fitted, result.evaluation, result.bundle.spec
    params = ", ".join(f"{name} {value}" for name, value in fitted.params.items())
    chosen = f", chosen by {fitted.cv_folds}-fold cross-validation" if fitted.cv_folds else ""
    reduced = "" if fitted.reduce == "none" else f", reduced by {fitted.reduce}"
    low, high = evaluation.interval
    lines = [
        f"{fitted.head} on {spec.key} ({spec.width} wide), scaled by {fitted.scale}{reduced}:"
        f" {params or 'no parameters'}{chosen}; {fitted.n_rows} training rows, {result.seconds:.1f} s",
        *(f"note: {note}" for note in fitted.notes),
        *([f"note: {result.n_unlabelled} rows without a label left out"] if result.n_unlabelled else []),
        "",
        f"accuracy {evaluation.accuracy:.3f}, 95 % interval {low:.3f} to {high:.3f},"
        f" on {evaluation.rows} rows never seen ({evaluation.on})",
        f"always answering {evaluation.majority_class!r} would give {evaluation.majority_accuracy:.3f}",
        f"balanced accuracy {evaluation.balanced_accuracy:.3f}, macro F1 {evaluation.macro_f1:.3f}",
        "",
        _class_table(evaluation),
        "",
        _confusion(evaluation),
        "",
        f"saved {out}" + (" (fitted again on all labelled rows after scoring)" if refit_all else ""),
        f"next: featx predict {shlex.quote(out)} IMAGE...",
    ]
    return "\n".join(lines)


def _class_table(evaluation: Evaluation) -> str:
    rows: list[tuple[Any, ...]] = [
        (score.name, f"{score.precision:.3f}", f"{score.recall:.3f}", f"{score.f1:.3f}", score.support)
        for score in evaluation.per_class
    ]
    return format_table(("class", "precision", "recall", "F1", "rows"), rows)


def _confusion(evaluation: Evaluation) -> str:
    """Return the confusion matrix or, for many classes, its largest errors."""
    names = [score.name for score in evaluation.per_class]
    matrix = evaluation.confusion
    if len(names) <= _MAX_CONFUSION:
        header = ("true \\ predicted", *(name[:12] for name in names))
        return format_table(header, [(name, *row) for name, row in zip(names, matrix.tolist(), strict=True)])
    errors = sorted(
        ((int(count), names[true], names[predicted]) for (true, predicted), count in _off_diagonal(matrix)),
        reverse=True,
    )
    rows = [(true, predicted, count) for count, true, predicted in errors[:10]]
    return format_table(("most confused: true", "predicted", "rows"), rows, left=(0, 1)) if rows else "no errors"


def _off_diagonal(matrix: Any) -> list[tuple[tuple[int, int], int]]:
    rows, columns = matrix.nonzero()
    return [((r, c), matrix[r, c]) for r, c in zip(rows.tolist(), columns.tolist(), strict=True) if r != c]
