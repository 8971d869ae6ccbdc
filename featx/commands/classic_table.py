"""The table of ``featx models --classic``."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from featx.commands.progress import StepBar
from featx.commands.tables import format_table

if TYPE_CHECKING:
    from featx.backbones import ClassicTable

_HEADER = (
    "Keras' name", "MB", "top-1", "top-5", "M", "depth", "timm's name", "weights", "top-1", "M", "input", "ms",
)  # fmt: skip
_BUSY = 0.75  # of the cores wanted by others: a network and its start take one for a while


def print_classic_table(pattern: str, *, local: bool, measure_again: bool, as_json: bool) -> int:
    """Print the classic networks that match, measuring what is not remembered; see ``featx models``."""
    from featx.backbones import find_classic_networks, measure_classic_networks

    networks = find_classic_networks(pattern, local=local)
    started = time.monotonic()
    with StepBar("networks") as bar:

        def show(n_done: int, n_total: int) -> None:
            left = (time.monotonic() - started) / n_done * (n_total - n_done) if n_done else None
            bar(n_done, n_total, left)

        table = measure_classic_networks(networks, measure_again=measure_again, on_progress=show)
    print(json.dumps(table.to_json()) if as_json else "\n".join(_lines(table)))
    return 0


def _lines(table: ClassicTable) -> list[str]:
    return [
        format_table(_HEADER, _rows(table), left=(0, 6, 7)),
        "",
        "Up to depth: Keras' own weights, as https://keras.io/api/applications/ prints them. After timm's name: those"
        " weights (top-1 by timm's validation, %), parameters in millions.",
        _measured(table),
        *_busy(table),
        "",
        *_notes(table),
    ]


def _rows(table: ClassicTable) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for row in table.rows:
        known, built = row.network, row.summary
        figures = (known.megabytes, known.top1, known.top5, known.parameters, known.depth)
        count = None if built is None or built.n_parameters is None else f"{built.n_parameters / 1e6:.1f}"
        size = None if built is None or built.size is None else "x".join(map(str, built.size))
        rows.append(
            (
                known.name,
                *("–" if figure is None else figure for figure in figures),
                known.model,
                "?" if built is None else built.weights,
                "–" if known.timm_top1 is None else known.timm_top1,
                count or "?",
                size or "?",
                "?" if row.timing is None else f"{row.timing.milliseconds:.1f}",
            )
        )
    return rows


def _measured(table: ClassicTable) -> str:
    """Return what the last column is, and whether it was measured now."""
    engines = sorted({row.timing.engine for row in table.rows if row.timing is not None})
    ran = f"{' or '.join(engines)}, up to the penultimate layer" if engines else "nothing could be run"
    machine = table.machine
    kept = "remembered; --measure-again measures anew"
    if table.n_measured:
        kept = f"not remembered: {table.not_kept}" if table.not_kept else "measured now, and remembered"
    return (
        f"ms: an image, of {machine['batch_size']} at a time; {ran}; {machine['processor']}, {machine['cores']} cores"
        f" ({kept})."
    )


def _busy(table: ClassicTable) -> list[str]:
    """Return a warning where other work slowed down what was measured."""
    cores = table.machine["cores"]
    loads = [row.timing.load for row in table.rows if row.timing is not None and row.timing.load is not None]
    if max(loads, default=0.0) <= _BUSY * cores:
        return []
    return [
        f"The machine was busy when this was measured (load {max(loads):.1f} on {cores} cores), so the times are too"
        " long: --measure-again when it is idle."
    ]


def _notes(table: ClassicTable) -> list[str]:
    """Return what is to be known of the rows, equal notes once, then what went wrong."""
    noted: dict[str, list[str]] = {}
    for row in table.rows:
        if row.network.note:
            noted.setdefault(row.network.note, []).append(row.network.name)
    failed = [f"? {row.network.name}: {row.reason}" for row in table.rows if row.reason]
    return [*(f"{', '.join(names)}: {note}" for note, names in noted.items()), *failed]
