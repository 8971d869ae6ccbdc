"""What the ``fit-`` verbs have in common: arguments, and the report."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from featx.commands.evaluations import class_table, confusion_table
from featx.commands.layer_names import shown_name
from featx.commands.options import add_json_argument, add_output_argument, add_row_arguments, check_row_arguments
from featx.commands.outputs import check_output, make_folder_of
from featx.commands.tables import format_table
from featx.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from featx.workflows.fitting import FitResult


def add_fit_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of every ``fit-`` verb."""
    parser.add_argument("store", metavar="F.h5", help="features with labels, from featx extract")
    add_output_argument(parser, "the classifier", "flowers.featx")
    parser.add_argument(
        "--layer", metavar="NAME",
        help="layer, LAYER@POOL or alias in the store; A+B for several side by side; auto to have one chosen by"
        " cross-validation (default: penultimate, else the deepest)",
    )  # fmt: skip
    parser.add_argument(
        "--prefer", default="best", metavar="WHICH",
        help="with --layer auto: best, or cheap for the cheapest that cannot be told from it (default: best)",
    )  # fmt: skip
    parser.add_argument(
        "--scale", default="zscore", metavar="NAME", help="none, zscore, minmax, l2 or sqrt (default: zscore)"
    )
    parser.add_argument(
        "--reduce", default="none", metavar="SPEC",
        help="none, pca:N (N components, or a share below 1) or pq:M (M bytes an image)",
    )  # fmt: skip
    parser.add_argument(
        "--cv", type=int, default=5, metavar="N", help="folds that choose hyper-parameters (default: 5)"
    )
    add_row_arguments(parser)
    parser.add_argument("--refit-all", action="store_true", help="after scoring, fit again on all labelled rows")
    parser.add_argument("--embed-weights", action="store_true", help="put the network's weights into the classifier")
    parser.add_argument("--jobs", type=int, metavar="N", help="processes over folds (default: chosen)")
    add_json_argument(parser)


def fit_and_report(
    head: str,
    *,
    store: str,
    out: str,
    overwrite: bool,
    layer: str | None,
    embed_weights: bool,
    as_json: bool,
    **how: Any,
) -> int:
    """Fit a head, save the classifier and print how good it is.

    Parameters
    ----------
    head : str
        A key of `featx.heads.HEADS`.
    store, out, overwrite, layer, embed_weights, as_json
        The arguments of those names.
    **how
        The other arguments of `add_fit_arguments`.
    """
    from featx.workflows.file_kinds import STORE, require_kind

    target = check_output(out, store, overwrite=overwrite)  # all that is cheap, before torch is loaded
    require_kind(store, STORE)
    if how["cv"] < 2:
        raise UsageError(f"--cv {how['cv']} is below 2; give at least 2 folds")
    check_row_arguments(seed=how["seed"], held_out=how["held_out"], jobs=how["jobs"])
    _check_preference(how["prefer"], layer)

    from featx.store import FeatureStore
    from featx.workflows.fitting import FitSettings, fit_classifier, network_weights

    settings = FitSettings(
        head=head,
        class_weight="balanced" if how.pop("balanced") else None,
        n_jobs=how.pop("jobs"),
        **how,
    )
    with FeatureStore(store) as opened:
        result = fit_classifier(opened, layer, settings)
    bundle = replace(result.bundle, weights=network_weights(result.bundle.spec)) if embed_weights else result.bundle
    make_folder_of(target)
    bundle.save(target, overwrite=overwrite)
    print(json.dumps(result.to_json()) if as_json else _report(result, out, settings.refit_all))
    return 0


def _check_preference(prefer: str, layer: str | None) -> None:
    if prefer not in ("best", "cheap"):
        raise UsageError(f"--prefer {prefer} is unknown; give best or cheap")
    if prefer == "cheap" and layer != "auto":
        raise UsageError("--prefer cheap says which layer --layer auto takes; give --layer auto, or leave it out")


def _report(result: FitResult, out: str, refit_all: bool) -> str:
    fitted, evaluation, spec = result.fitted, result.evaluation, result.bundle.spec
    params = ", ".join(f"{name} {value}" for name, value in fitted.params.items())
    chosen = f", chosen by {fitted.cv_folds}-fold cross-validation" if fitted.cv_folds else ""
    reduced = "" if fitted.reduce == "none" else f", reduced by {fitted.reduce}"
    low, high = evaluation.interval
    lines = [
        *_choice_lines(result),
        f"{fitted.head} on {shown_name(spec.key)} ({spec.width} wide), scaled by {fitted.scale}{reduced}:"
        f" {params or 'no parameters'}{chosen}; {fitted.n_rows} training rows, {result.seconds:.1f} s",
        *(f"note: {note}" for note in fitted.notes),
        *([f"note: {result.n_unlabelled} rows without a label left out"] if result.n_unlabelled else []),
        "",
        f"accuracy {evaluation.accuracy:.3f}, 95 % interval {low:.3f} to {high:.3f},"
        f" on {evaluation.rows} rows never seen ({evaluation.on})",
        f"always answering {evaluation.majority_class!r} would give {evaluation.majority_accuracy:.3f}",
        f"balanced accuracy {evaluation.balanced_accuracy:.3f}, macro F1 {evaluation.macro_f1:.3f}",
        *_copies_lines(result),
        "",
        class_table(evaluation),
        "",
        confusion_table(evaluation),
        "",
        f"saved {out}" + (" (fitted again on all labelled rows after scoring)" if refit_all else ""),
        f"next: featx predict {shlex.quote(out)} IMAGE...",
    ]
    return "\n".join(lines)


def _choice_lines(result: FitResult) -> list[str]:
    """Return why the layer was chosen, and what else there was."""
    choice = result.choice
    if choice is None:
        return []
    lines = [f"layer {shown_name(choice.layer)}: {choice.reason}"]
    if len(choice.scores) > 1:
        cells = [(shown_name(score.layer), f"{score.accuracy:.3f}", f"{score.loss:.3f}") for score in choice.scores]
        lines += [format_table(("layer", "cross-validated", "behind the best"), cells), ""]
    cheapest = choice.cheapest
    order = [score.layer for score in choice.scores]
    if order.index(cheapest.layer) < order.index(choice.layer):  # layers come from the cheapest to the dearest
        lines.insert(
            1, f"--prefer cheap would take {shown_name(cheapest.layer)}, expected loss {100 * cheapest.loss:.1f} points"
        )
    return lines


def _copies_lines(result: FitResult) -> list[str]:
    """Return what the score is without copies of training images."""
    without = result.without_copies
    if without is None:
        return []
    low, high = without.interval
    return [
        f"without the {result.evaluation.rows - without.rows} of them that have a copy in training: accuracy"
        f" {without.accuracy:.3f}, interval {low:.3f} to {high:.3f}"
    ]
