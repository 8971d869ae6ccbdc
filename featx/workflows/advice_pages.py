"""The page of an advice: one HTML file with the quadrant, the curves, the reasons, the risks and the commands.

Like pages of results it runs nothing and asks for nothing; names of classes and layers, and paths, are written as text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from featx.advice.wording import ROADS, counted, layer_in_words, percent
from featx.errors import WouldOverwriteError
from featx.workflows.advice_charts import Chart, Curve, Point, draw_chart, draw_quadrants
from featx.workflows.advice_style import ADVICE_STYLE
from featx.workflows.one_step_files import draft_of
from featx.workflows.result_pages import PAGE_FOOT, check_page_name, escaped, page_head

if TYPE_CHECKING:
    from featx.advice import LayerEvidence, SetSize
    from featx.workflows.advising import AdviceReport

_MARK = '<meta name="generator" content="featx advise">'  # by which a page of ours is known
_MARKED_WITHIN = 4096  # bytes from the start
_QUADRANT_ROADS = ("earlier layers", "late layers", "train all", "train the top")  # as in `draw_quadrants`
_OF_STRATEGY = {"early-linear": 0, "late-linear": 1, "total": 2, "partial": 3}


def check_own_page(path: str | Path, *, overwrite: bool) -> None:
    """Raise an error where a page cannot be written under a name.

    Parameters
    ----------
    path : str or Path
        A page of an earlier advice may be there.
    overwrite : bool
        Any other file may be there too.

    Raises
    ------
    UsageError
        Another ending than .html or .htm.
    WouldOverwriteError
        A file is there that is no page of an advice.
    """
    check_page_name(path)
    path = Path(path)
    if overwrite or not path.exists():
        return
    with open(path, "rb") as file:
        if _MARK.encode() in file.read(_MARKED_WITHIN):
            return
    raise WouldOverwriteError(
        f"{path} is already there, and is no page of featx advise; choose another --html, or give --overwrite"
    )


def write_advice_page(
    path: str | Path,
    report: AdviceReport,
    *,
    name: str,
    commands: Sequence[tuple[str, str]],
    overwrite: bool = False,
) -> None:
    """Write the page of an advice; one that is there already is replaced.

    Parameters
    ----------
    path : str or Path
        Of the HTML file; its folder must exist.
    report : AdviceReport
        What to show.
    name : str
        Of the set.
    commands : sequence of (str, str)
        What each is for, and the command.
    overwrite : bool
        Replace any other file too.

    Raises
    ------
    UsageError, WouldOverwriteError
        As `check_own_page`.
    StoreError
        It cannot be written.
    """
    check_own_page(path, overwrite=overwrite)
    with draft_of(path, overwrite=True) as draft, open(draft, "x", encoding="utf-8", newline="\n") as file:
        file.writelines(_page(report, name, commands))


def _page(report: AdviceReport, name: str, commands: Sequence[tuple[str, str]]) -> Iterator[str]:
    title = f"Which road to take with {name}"
    yield page_head(title, dict(_facts(report)), style=ADVICE_STYLE, meta=f"\n{_MARK}")
    yield _top(report)
    yield f'<div class="charts">{"".join(_charts(report))}</div>\n'
    yield _layer_table(report)
    yield _list("Risks", report.advice.risks)
    yield _list("Also worth trying", [other.why for other in report.advice.also_worth])
    yield _list("To know", report.notes)
    yield _command_list(commands)
    yield PAGE_FOOT


def _facts(report: AdviceReport) -> list[tuple[str, str]]:
    advice, size = report.advice, report.advice.size
    value = advice.similarity.value
    classes = [("classes", f"{len(size.classes):,}"), (f"images a class, {_median(size)}", f"{size.per_class:,.0f}")]
    return [
        ("images", f"{size.n_images:,}"),
        *(classes if size.classes else [("classes", "not known")]),
        ("network", report.model),
        ("similarity", "not measured" if value is None else f"{value:.2f}, {advice.similarity.verdict}"),
        ("quadrant", advice.quadrant or "not known"),
        ("strategy", advice.strategy),
    ]


def _median(size: SetSize) -> str:
    return "lower median" if size.has_lower_median else "median"


def _top(report: AdviceReport) -> str:
    advice = report.advice
    on = f", {escaped(layer_in_words(advice.layer))}" if advice.layer else ""
    reasons = "".join(f"<li>{escaped(reason)}</li>" for reason in advice.reasons)
    diagram = draw_quadrants(
        advice.similarity.value,
        advice.similarity.interval,
        advice.size.per_class,
        _QUADRANT_ROADS,
        _QUADRANT_ROADS[_OF_STRATEGY[advice.strategy]],
    )
    return f"""<section class="top">
<div>
<p class="road-taken"><small>Take</small>{escaped(ROADS[advice.strategy])}{on}</p>
<ul class="said">{reasons}</ul>
</div>
<div>{diagram}</div>
</section>
"""


def _charts(report: AdviceReport) -> Iterator[str]:
    sweep, by_depth = report.sweep, report.advice.similarity.by_depth
    if sweep is not None:
        taken = layer_in_words(report.advice.layer) if report.advice.layer else ""
        accuracy = tuple(_point(entry, entry.accuracy, entry.interval) for entry in sweep.layers)
        level = ("always the largest class", sweep.majority_accuracy)
        measure = "Balanced accuracy" if sweep.is_balanced else "Accuracy"
        yield _figure(
            Chart(f"{measure} in cross-validation, %", (Curve("", accuracy),), level, taken, in_percent=True),
            f"{counted(sweep.n_rows, 'training image')}, bars: 95 % interval; ringed: what is advised; dashed:"
            f" {level[0]}, {percent(level[1])}",
        )
        for title, curve, note in (
            ("LogME", [_point(e, e.log_me) for e in sweep.layers], "log evidence an image of a linear model"),
            (
                "H-score",
                [_point(e, e.h_score) for e in sweep.layers if e.h_score is not None],
                "variance between classes by variance in all",
            ),
        ):
            if not curve:
                continue
            yield _figure(Chart(title, (Curve("", tuple(curve)),), None, taken), f"{note}; wide layers come out high")
    if by_depth:
        curves = (
            Curve("variance", tuple(Point(shift.layer, shift.depth, shift.variance_shift) for shift in by_depth)),
            Curve("mean", tuple(Point(shift.layer, shift.depth, shift.mean_shift) for shift in by_depth)),
        )
        yield _figure(
            Chart("Shift against the running statistics", curves),
            "how far means and variances of channels are from those that the network was trained with; 0: the same",
        )


def _point(entry: LayerEvidence, value: float, interval: tuple[float, float] | None = None) -> Point:
    return Point(layer_in_words(entry.layer), None if entry.is_joined else entry.depth, value, interval)


def _figure(chart: Chart, note: str) -> str:
    named = [(number, curve.name) for number, curve in enumerate(chart.curves) if curve.name]
    legend = "".join(f'<span><i class="c{number}"></i>{escaped(name)}</span>' for number, name in named)
    shown = f'<p class="legend">{legend}</p>' if legend else ""
    about = f'<p class="soft">{escaped(note)}</p>'
    return f"<section><h2>{escaped(chart.title)}</h2>{shown}{draw_chart(chart)}{about}</section>\n"


def _layer_table(report: AdviceReport) -> str:
    if report.sweep is None:
        return ""
    measure = "balanced accuracy, %" if report.sweep.is_balanced else "accuracy, %"
    titles = ("layer", "depth, %", measure, "95 %", "behind", "LogME", "H-score")
    head = "".join(_cell("th", title, title) for title in titles)
    rows = []
    for entry in report.sweep.layers:
        low, high = entry.interval
        cells = (
            layer_in_words(entry.layer),
            "" if entry.depth is None or entry.is_joined else f"{100 * entry.depth:.0f}",
            f"{100 * entry.accuracy:.1f}",
            f"{100 * low:.1f} to {100 * high:.1f}",
            f"{100 * entry.behind:.1f}",
            f"{entry.log_me:.3f}".replace("-", "−"),
            "" if entry.h_score is None else f"{entry.h_score:.2f}",
        )
        taken = ' class="taken"' if entry.layer == report.advice.layer else ""
        shown = "".join(_cell("td", title, cell) for title, cell in zip(titles, cells, strict=True))
        rows.append(f"<tr{taken}>{shown}</tr>")
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return f"<section><h2>Layers</h2>{table}</section>\n"


def _cell(tag: str, title: str, text: str) -> str:
    # What the curves show too has no room on a phone.
    kind = ' class="wide"' if title in ("depth, %", "95 %") else ""
    return f"<{tag}{kind}>{escaped(text)}</{tag}>"


def _list(heading: str, sentences: Sequence[str]) -> str:
    if not sentences:
        return ""
    items = "".join(f"<li>{escaped(sentence)}</li>" for sentence in sentences)
    return f'<section><h2>{heading}</h2><ul class="said">{items}</ul></section>\n'


def _command_list(commands: Sequence[tuple[str, str]]) -> str:
    if not commands:
        return ""
    items = "".join(
        f"<div><dt>{escaped(what)}</dt><dd><pre>{escaped(line)}</pre></dd></div>" for what, line in commands
    )
    return f'<section><h2>Commands</h2><dl class="commands">{items}</dl></section>\n'
