"""A comparison as JSON values, CSV, Markdown and sentences."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from featx.comparison.candidates import Candidate
    from featx.comparison.results import CandidateResult, Comparison

CSV_HEADER = (
    "rank",
    "layer",
    "scale",
    "reduce",
    "head",
    "accuracy",
    "accuracy_low",
    "accuracy_high",
    "balanced_accuracy",
    "macro_f1",
    "difference",
    "difference_low",
    "difference_high",
    "p_value",
    "tied",
    "fit_seconds",
    "predict_ms",
    "bytes_per_image",
    "gmacs",
    "depth",
    "params",
    "fold_accuracies",
    "notes",
)
_MARKDOWN_HEADER = (
    "",
    "layer",
    "scale",
    "reduce",
    "head",
    "accuracy",
    "95 % interval",
    "balanced",
    "macro F1",
    "behind best",
    "95 % interval",
    "fit s",
    "predict ms",
    "bytes",
    "GMACs",
)
_N_TEXT_COLUMNS = 5
_LEGEND = (
    "`=`: cannot be told from the best (corrected resampled t-test, Holm, 5 %). `cheapest`: of those, and with an own "
    "interval that reaches 0."
)


def describe_candidate(candidate: Candidate) -> str:
    """Return a candidate in a few words, without the steps that do nothing."""
    steps = (candidate.layer, candidate.scale, candidate.reduce, candidate.head)
    return " · ".join(step for step in steps if step != "none")


def describe_findings(comparison: Comparison) -> tuple[str, ...]:
    """Return what came out in sentences: the best, the cheapest of the tied, and whether anything was learned."""
    best, cheapest = comparison.best, comparison.cheapest
    sentences = [f"best: {describe_candidate(best.candidate)}, accuracy {best.accuracy:.3f} ({_span(best.interval)})"]
    if cheapest is not best:
        low, high = (100 * end for end in cheapest.difference_interval)
        sentences.append(
            f"cheapest that cannot be told from it: {describe_candidate(cheapest.candidate)}, "
            f"accuracy {cheapest.accuracy:.3f}, expected loss {100 * cheapest.difference:.1f} points "
            f"({low:.1f} to {high:.1f})"
        )
    elif len(comparison.tied) > 1:
        sentences.append("it is also the cheapest of those that cannot be told from it")
    baseline = comparison.baseline
    if baseline is not None and not comparison.learned:
        sentences.append(
            "nothing was learned: the best cannot be told from always naming the largest class, which has accuracy "
            f"{baseline.accuracy:.3f}"
        )
    return tuple(sentences)


def write_json(comparison: Comparison) -> dict[str, Any]:
    """Return plain numbers, texts and lists; ``best`` and ``cheapest`` are the first places of ``results``, from 0."""
    return {
        "best": comparison.results.index(comparison.best),
        "cheapest": comparison.results.index(comparison.cheapest),
        "learned": comparison.learned,
        "rows": comparison.rows,
        "n_rows": comparison.n_rows,
        "n_classes": comparison.n_classes,
        "n_folds": comparison.n_folds,
        "n_repeats": comparison.n_repeats,
        "seed": comparison.seed,
        "findings": list(comparison.findings),
        "notes": list(comparison.notes),
        "skipped": list(comparison.skipped),
        "results": [_result_values(result) for result in comparison.results],
    }


def _result_values(result: CandidateResult) -> dict[str, Any]:
    return {
        "layer": result.candidate.layer,
        "scale": result.candidate.scale,
        "reduce": result.candidate.reduce,
        "head": result.candidate.head,
        "params": dict(result.params),
        "accuracy": result.accuracy,
        "interval": list(result.interval),
        "balanced_accuracy": result.balanced_accuracy,
        "macro_f1": result.macro_f1,
        "difference": result.difference,
        "difference_interval": list(result.difference_interval),
        "p_value": result.p_value,
        "tied": result.tied,
        "fit_seconds": result.fit_seconds,
        "predict_ms": result.predict_ms,
        "bytes_per_image": result.cost.bytes_per_image,
        "gmacs": result.cost.gmacs,
        "depth": result.cost.depth,
        "fold_accuracies": list(result.fold_accuracies),
        "notes": list(result.notes),
    }


def write_csv(comparison: Comparison) -> str:
    """Return one line a candidate under `CSV_HEADER`; numbers in full, params, folds and notes as JSON."""
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_HEADER, lineterminator="\n")
    writer.writeheader()
    for rank, result in enumerate(comparison.results, start=1):
        values = _result_values(result)
        values["rank"] = rank
        values["accuracy_low"], values["accuracy_high"] = values.pop("interval")
        values["difference_low"], values["difference_high"] = values.pop("difference_interval")
        for name in ("params", "fold_accuracies", "notes", "tied"):
            values[name] = json.dumps(values[name], ensure_ascii=False)
        writer.writerow(values)
    return text.getvalue()


def write_markdown(comparison: Comparison) -> str:
    """Return findings, a table with a row for each candidate, and notes.

    The first column says ``best``, ``cheapest``, or ``=`` for what cannot be told from the best.
    """
    c = comparison
    lines = [f"{c.rows}: {c.n_rows} rows, {c.n_classes} classes; {c.n_folds} folds × {c.n_repeats}, seed {c.seed}", ""]
    lines += [f"- {_cell(finding)}" for finding in c.findings]
    lines += ["", _line(_MARKDOWN_HEADER), _line(["---"] * _N_TEXT_COLUMNS + ["--:"] * _n_number_columns())]
    lines += [_line(_markdown_cells(c, result)) for result in c.results]
    lines += ["", _LEGEND]
    remarks = [*c.notes, *(f"not compared: {what}" for what in c.skipped)]
    lines += ["", *(f"- {_cell(remark)}" for remark in remarks)] if remarks else []
    return "\n".join(lines) + "\n"


def _n_number_columns() -> int:
    return len(_MARKDOWN_HEADER) - _N_TEXT_COLUMNS


def _markdown_cells(comparison: Comparison, result: CandidateResult) -> list[str]:
    candidate, gmacs = result.candidate, result.cost.gmacs
    return [
        _mark(comparison, result),
        candidate.layer,
        candidate.scale,
        candidate.reduce,
        candidate.head,
        f"{result.accuracy:.3f}",
        _span(result.interval),
        f"{result.balanced_accuracy:.3f}",
        f"{result.macro_f1:.3f}",
        f"{result.difference:.3f}",
        _span(result.difference_interval) if result is not comparison.best else "",
        f"{result.fit_seconds:.2f}",
        f"{result.predict_ms:.3f}",
        str(result.cost.bytes_per_image),
        "" if gmacs is None else f"{gmacs:.3f}",
    ]


def _mark(comparison: Comparison, result: CandidateResult) -> str:
    if result is comparison.best:
        return "best"
    if result is comparison.cheapest:
        return "cheapest"
    return "=" if result.tied else ""


def _line(cells: Any) -> str:
    return "| " + " | ".join(_cell(cell) for cell in cells) + " |"


def _cell(text: str) -> str:
    """Return a text that Markdown shows as it is: no broken row, no emphasis from a pattern such as ``*``."""
    text = " ".join(text.split())
    for sign in ("\\", "|", "*", "_", "<"):
        text = text.replace(sign, "\\" + sign)
    return text


def _span(interval: tuple[float, float]) -> str:
    low, high = interval
    return f"{low:.3f} to {high:.3f}"
