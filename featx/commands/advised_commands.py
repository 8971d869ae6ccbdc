"""The commands to type for an advice: the road that it names, and the others."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from featx.commands.layer_names import typed_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from featx.workflows.advising import AdviceReport

_TUNING = ("partial", "total")  # roads on which the network is trained
_MANY_CLASSES = 50  # from which a machine a class takes long


def advised_commands(
    report: AdviceReport,
    store: str,
    *,
    extract: str,
    rows: Sequence[str] = (),
    fits: Sequence[str] = (),
    trainings: Sequence[str] | None = (),
) -> list[tuple[str, str]]:
    """Return what each command is for, and the command: first the road that is advised, last what tries all of them.

    Only commands that can run are among them.

    Parameters
    ----------
    report : AdviceReport
        The advice.
    store : str
        File of the features.
    extract : str
        The command that adds layers to it.
    rows, fits : sequence of str
        Options as they are typed: for every command, and for those that take features of untrained weights.
    trainings : sequence of str or None
        The same for those that train the network; None where it cannot be trained on the images of this store.
    """
    advice = report.advice
    commands = [("more layers", extract)] if len(report.keys) == 1 else []
    if len(advice.size.classes) < 2:  # nothing can be learned yet
        return commands
    file, rows = shlex.quote(store), [*(["--balanced"] if advice.size.is_uneven else []), *rows]
    roads = [(advice.strategy, advice.layer, "advised")]
    roads += [(other.strategy, other.layer, "also worth trying") for other in advice.also_worth]
    walked = []
    for road, layer, said in roads:
        if road not in _TUNING:
            walked.append((f"{said}, {road}", _fit(report, road, layer, store, [*rows, *fits])))
        elif trainings is not None:
            parts = ["featx finetune", file, "--regime", road, *rows, *trainings, _out(store, f"-{road}")]
            walked.append((f"{said}, {road}", " ".join(parts)))
    whole = []
    if report.sweep is not None:  # else there are too few images to divide
        whole.append(("every layer and head", " ".join(["featx compare", file, *rows, *fits])))
        if trainings is not None:
            parts = ["featx roads", file, *rows, *trainings, _out(store, "-roads")]
            whole.append(("all roads on the same images", " ".join(parts)))
    return [*walked, *commands, *whole]


def _fit(report: AdviceReport, road: str, layer: str | None, store: str, options: list[str]) -> str:
    advice = report.advice
    if layer is None:  # none was measured
        layer = report.late if road == "late-linear" else "auto"
    verb = "fit-ridge" if len(advice.size.classes) > _MANY_CLASSES else "fit-svm"
    options = ["--layer", shlex.quote(typed_name(layer, report.keys)), *options]
    suffix = ".featx" if road == advice.strategy else f"-{road}.featx"
    return " ".join([f"featx {verb}", shlex.quote(store), *options, _out(store, suffix)])


def _out(store: str, suffix: str) -> str:
    path = Path(store)
    return f"--out {shlex.quote(str(path.with_name(path.stem + suffix)))}"
