"""Compare layers, scalers, reducers and heads on the same folds, and say which to take.

The rows that fit-... scores on take no part, so that its score stays honest. Each candidate is measured by repeated
cross-validation, with its hyper-parameters chosen inside; copies of an image stay on one side. Scores are kept in a
journal beside the store: repeating the command continues it.
"""

from __future__ import annotations

import json
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from featx.commands.layer_names import shown_name, typed_name
from featx.commands.options import add_json_argument, add_row_arguments, check_row_arguments, typed_row_options
from featx.commands.outputs import check_output, make_folder_of
from featx.commands.progress import StepBar
from featx.commands.tables import format_table
from featx.errors import UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from featx.comparison import Candidate, CandidateResult, Comparison

_SHOWN = 12
_SUFFIXES = {True: ".featx", False: ".cheapest.featx"}  # of the best, and of another one
_PICTURES = (".png", ".svg", ".pdf")
_FORMATS = {".csv": "to_csv", ".md": "to_markdown", ".json": "to_json"}
_VERBS = {
    "svm": "fit-svm",
    "svm-rbf": "fit-svm --kernel rbf",
    "logistic": "fit-logistic",
    "ridge": "fit-ridge",
    "knn": "fit-knn",
    "tree": "fit-tree --kind tree",
    "forest": "fit-tree --kind forest",
    "boosting": "fit-tree --kind boosting",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``featx compare``."""
    parser.add_argument("store", metavar="F.h5", help="features with labels, of several layers")
    parser.add_argument("--budget", default="quick", metavar="NAME", help="quick or full (default: quick)")
    parser.add_argument(
        "--layers", metavar="LIST", help="layers, A+B for layers side by side (default: all, and some side by side)"
    )
    parser.add_argument("--scales", metavar="LIST", help="scalers: none,zscore,minmax,l2,sqrt (default: the budget's)")
    parser.add_argument("--reduces", metavar="LIST", help="reducers: none,pca:N,pq:M (default: the budget's)")
    parser.add_argument(
        "--heads", metavar="LIST",
        help="heads: svm,svm-rbf,logistic,ridge,knn,tree,forest,boosting (default: the budget's)",
    )  # fmt: skip
    parser.add_argument("--folds", type=int, default=5, metavar="N", help="parts to score on in turn (default: 5)")
    parser.add_argument("--repeats", type=int, metavar="N", help="times to divide anew (default: 2 quick, 5 full)")
    parser.add_argument("--all-rows", action="store_true", help="let the rows that fit-... scores on take part, too")
    add_row_arguments(parser)
    parser.add_argument(
        "--jobs", type=int, metavar="N", help="processes (default: one a processor where the work pays for it)"
    )
    parser.add_argument("--out", metavar="FILE", help="save the table as .csv, .md or .json")
    parser.add_argument("--plot", metavar="FILE", help="save accuracy by depth and by bytes as .png, .svg or .pdf")
    parser.add_argument("--overwrite", action="store_true", help="replace what is at --out and --plot")
    parser.add_argument("--journal", metavar="FILE", help="where scores are kept (default: F.compare.jsonl)")
    parser.add_argument("--all", action="store_true", dest="show_all", help="print all candidates, not the first 12")
    add_json_argument(parser)


def run(
    *,
    store: str,
    budget: str,
    layers: str | None,
    scales: str | None,
    reduces: str | None,
    heads: str | None,
    folds: int,
    repeats: int | None,
    all_rows: bool,
    seed: int,
    held_out: float,
    balanced: bool,
    group_column: str | None,
    allow_duplicates: bool,
    allow_random: bool,
    jobs: int | None,
    out: str | None,
    plot: str | None,
    overwrite: bool,
    journal: str | None,
    show_all: bool,
    as_json: bool,
) -> int:
    """Compare, print the table and the commands to type."""
    from featx.workflows.file_kinds import STORE, require_kind

    _check_files(store, out, plot, journal, overwrite=overwrite)
    require_kind(store, STORE)
    check_row_arguments(seed=seed, held_out=held_out, jobs=jobs)
    _check_counts(folds, repeats)

    from featx.store import FeatureStore
    from featx.workflows.comparing import CompareSettings, compare_store

    settings = CompareSettings(
        budget=budget,
        layers=_listed(layers),
        scales=_listed(scales),
        reduces=_listed(reduces),
        heads=_listed(heads),
        n_repeats=repeats,
        n_folds=folds,
        seed=seed,
        held_out=held_out,
        all_rows=all_rows,
        class_weight="balanced" if balanced else None,
        n_jobs=jobs,
        group_column=group_column,
        allow_duplicates=allow_duplicates,
        allow_random=allow_random,
    )
    with FeatureStore(store) as opened, StepBar("scores") as bar:
        keys = opened.keys
        result = compare_store(
            opened,
            settings,
            journal=journal or _journal_beside(store),
            on_progress=lambda progress: bar(progress.n_done, progress.n_total, progress.seconds_left),
        )
    rows = typed_row_options(
        seed=seed,
        held_out=held_out,
        balanced=balanced,
        group_column=group_column,
        allow_duplicates=allow_duplicates,
        allow_random=allow_random,
    )
    command = partial(_fit_command, store=store, keys=keys, rows=rows)
    _save(result, out, plot)
    if as_json:
        print(json.dumps(_as_json(result, command)))
    else:
        print(_report(result, command, show_all), *(f"saved {file}" for file in (out, plot) if file), sep="\n")
    return 0


def _check_files(store: str, out: str | None, plot: str | None, journal: str | None, *, overwrite: bool) -> None:
    """Refuse what could not be written, before hours are spent on it."""
    if out is not None and Path(out).suffix.lower() not in _FORMATS:
        raise UsageError(f"--out {out} is of no known kind; give a name that ends in .csv, .md or .json")
    if out is not None and journal is not None and Path(out).absolute() == Path(journal).absolute():
        raise UsageError(f"--out and --journal are both {out}; give two names")
    if plot is not None and Path(plot).suffix.lower() not in _PICTURES:
        raise UsageError(f"--plot {plot} is of no known kind; give a name that ends in .png, .svg or .pdf")
    for file in (out, plot):
        if file is not None:
            check_output(file, store, overwrite=overwrite)


def _check_counts(folds: int, repeats: int | None) -> None:
    if folds < 2:
        raise UsageError(f"--folds {folds} is below 2; give at least 2")
    if repeats is not None and repeats < 1:
        raise UsageError(f"--repeats {repeats} is below 1; give at least 1, or leave it out")


def _listed(text: str | None) -> tuple[str, ...] | None:
    """Return the names in a list on the command line, None where there is no list."""
    if text is None:
        return None
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise UsageError("an empty list was given; name at least one, or leave the option out")
    return names


def _journal_beside(store: str) -> str | None:
    """Return the file that scores are kept in; none where nothing can be written beside the store."""
    import os

    path = Path(store).with_suffix(".compare.jsonl")
    if os.access(path if path.exists() else path.absolute().parent, os.W_OK):
        return str(path)
    print(f"featx: {path} cannot be written: an interrupted comparison will begin anew", file=sys.stderr)
    return None


def _save(result: Comparison, out: str | None, plot: str | None) -> None:
    if out is not None:
        make_folder_of(Path(out))
        content = getattr(result, _FORMATS[Path(out).suffix.lower()])()
        Path(out).write_text(content if isinstance(content, str) else json.dumps(content, indent=1), encoding="utf-8")
    if plot is not None:
        from featx.comparison import save_plots

        make_folder_of(Path(plot))
        save_plots(result, plot)


def _fit_command(candidate: Candidate, suffix: str, *, store: str, keys: Sequence[str], rows: Sequence[str]) -> str:
    """Return the command that fits a candidate on the rows of the comparison, and scores it on those left out."""
    options = [f"--layer {shlex.quote(typed_name(candidate.layer, keys))}"]
    options += [] if candidate.scale == "zscore" else [f"--scale {candidate.scale}"]
    options += [] if candidate.reduce == "none" else [f"--reduce {candidate.reduce}"]
    options += rows
    target = shlex.quote(str(Path(store).with_suffix(suffix)))
    return f"featx {_VERBS[candidate.head]} {shlex.quote(store)} {' '.join(options)} --out {target}"


def _as_json(result: Comparison, command: Callable[[Candidate, str], str]) -> dict[str, object]:
    commands = {
        name: None if choice.is_baseline else command(choice.candidate, _SUFFIXES[choice is result.best])
        for name, choice in (("best", result.best), ("cheapest", result.cheapest))
    }
    return {**result.to_json(), "commands": commands}


def _report(result: Comparison, command: Callable[[Candidate, str], str], show_all: bool) -> str:
    shown = result.results if show_all else _worth_showing(result)
    left = len(result.results) - len(shown)
    lines = [
        f"{len(result.results)} candidates on {result.n_rows} rows, {result.n_classes} classes: {result.rows};"
        f" {result.n_folds} folds, {result.n_repeats} times, seed {result.seed}",
        *(f"note: {note}" for note in result.notes),
        *(f"not compared: {what}" for what in result.skipped),
        "",
        format_table(
            ("", "layer", "scale", "reduce", "head", "accuracy", "95 %", "behind", "balanced", "F1", "fit s", "ms",
             "bytes", "GMACs"),
            [_row(result, entry) for entry in shown],
            left=(0, 1, 2, 3, 4),
        ),
        *([f"and {left} more: --all, or --out FILE.csv"] if left else []),
        "= cannot be told from the best (corrected resampled t-test, Holm over all candidates, 5 %)",
        "",
        *result.findings,
    ]  # fmt: skip
    for choice, words in ((result.best, "best"), (result.cheapest, "cheapest")):
        if not choice.is_baseline and not (words == "cheapest" and choice is result.best):
            lines.append(f"the {words}: {command(choice.candidate, _SUFFIXES[choice is result.best])}")
    return "\n".join(lines)


def _worth_showing(result: Comparison) -> tuple[CandidateResult, ...]:
    """Return the first candidates, the best of each single layer, the cheapest and the baseline."""
    kept = {id(entry) for entry in (*result.results[:_SHOWN], result.cheapest, result.results[-1])}
    best_of_layer: dict[str, CandidateResult] = {}
    for entry in result.results:
        if len(entry.candidate.layers) == 1 and not entry.is_baseline:
            best_of_layer.setdefault(entry.candidate.layer, entry)
    kept |= {id(entry) for entry in best_of_layer.values()}
    return tuple(entry for entry in result.results if id(entry) in kept)


def _row(result: Comparison, entry: CandidateResult) -> tuple[object, ...]:
    mark = "best" if entry is result.best else "cheapest" if entry is result.cheapest else "=" if entry.tied else ""
    candidate = entry.candidate
    if entry.is_baseline:
        candidate_cells: tuple[str, ...] = ("always the largest class", "", "", candidate.head)
    else:
        candidate_cells = (shown_name(candidate.layer), candidate.scale, candidate.reduce, candidate.head)
    return (
        mark,
        *candidate_cells,
        f"{entry.accuracy:.3f}",
        f"{entry.interval[0]:.3f} to {entry.interval[1]:.3f}",
        f"{entry.difference:.3f}",
        f"{entry.balanced_accuracy:.3f}",
        f"{entry.macro_f1:.3f}",
        f"{entry.fit_seconds:.2f}",
        f"{entry.predict_ms:.2f}",
        entry.cost.bytes_per_image,
        "?" if entry.cost.gmacs is None else f"{entry.cost.gmacs:.3f}",
    )
