"""An advice as it is read in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from featx.commands.layer_names import shown_name
from featx.commands.tables import format_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from featx.workflows.advising import AdviceReport


def describe_advice(report: AdviceReport, commands: Sequence[tuple[str, str]]) -> str:
    """Return an advice as text.

    Parameters
    ----------
    report : AdviceReport
        What was measured, and the advice.
    commands : sequence of (str, str)
        What each is for, and the command.
    """
    from featx.advice.wording import ROADS

    advice = report.advice
    on = f", {shown_name(advice.layer)}" if advice.layer else ""
    between = ", between similar and different" if advice.between else ""
    lines = [
        f"quadrant: {advice.quadrant or 'not known'}{between}",
        f"strategy: {advice.strategy}, {ROADS[advice.strategy]}{on}",
        "",
        *advice.reasons,
        *([""] if advice.layers else []),
        *([_layer_table(report)] if advice.layers else []),
        *(f"note: {note}" for note in report.notes),
        *_titled("risks:", advice.risks),
        *_titled("also worth trying:", [f"{other.strategy}: {other.why}" for other in advice.also_worth]),
        *_titled("commands:", [f"{command}   # {what}" for what, command in commands]),
    ]
    if len(advice.size.classes) < 2:
        lines += [
            "",
            "next: put the images of each class in a folder of its own, or give a CSV with a label column, and run the"
            " same command again",
        ]
    return "\n".join(lines)


def _titled(title: str, lines: Sequence[str]) -> list[str]:
    return ["", title, *(f"  {line}" for line in lines)] if lines else []


def _layer_table(report: AdviceReport) -> str:
    rows = [
        (
            "->" if entry.layer == report.advice.layer else "",
            shown_name(entry.layer),
            "" if entry.depth is None or entry.is_joined else f"{entry.depth:.0%}",
            f"{entry.accuracy:.3f}",
            f"{entry.interval[0]:.3f} to {entry.interval[1]:.3f}",
            f"{entry.behind:.3f}",
            f"{entry.log_me:.3f}",
            "" if entry.h_score is None else f"{entry.h_score:.2f}",
        )
        for entry in report.advice.layers
    ]
    measure = "balanced accuracy" if report.sweep is not None and report.sweep.is_balanced else "accuracy"
    header = ("", "layer", "depth", measure, "95 %", "behind", "LogME", "H-score")
    return format_table(header, rows, left=(0, 1))
