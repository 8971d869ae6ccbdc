"""Two pictures of a comparison: accuracy by depth of the layer, and accuracy against bytes an image.

matplotlib is imported when a picture is asked for. Figures are made without pyplot, so that nothing global is changed
and no window opens.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featx.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from featx.comparison.results import CandidateResult, Comparison

# Colours that most colour-blind people can tell apart (M. Okabe, K. Ito 2008); shapes help the others.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#5D3A9B", "#8C564B", "#7F9A1B")
_SHAPES = ("o", "s", "^", "v", "D", "P", "X", "<", ">")
_GREY = "#777777"
_SUFFIXES = {".png": {}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}  # no date: equal results, equal files
_MAX_CONCATENATIONS = 6
_MAX_FRONT = 9
_LEFT = -0.03  # end of the axis of depth
_LEGEND_STYLE: dict[str, Any] = {"fontsize": 8, "title_fontsize": 10, "frameon": False}
_LEAST_GAP = 0.028  # between names under the axis, as a part of its length


def plot_by_depth(comparison: Comparison) -> Figure:
    """Return a picture of accuracy by depth: one line a head, the best scaler, reducer and pool at each layer.

    Several layers together have no depth of their own; the best few of them stand on the right.
    """
    figure = _new_figure(7.6, 6.6)
    _draw_by_depth(figure.add_subplot(), comparison)
    return figure


def plot_by_bytes(comparison: Comparison) -> Figure:
    """Return a picture of accuracy against bytes an image, with the best, the cheapest tied and the Pareto front."""
    figure = _new_figure(7.6, 6.6)
    _draw_by_bytes(figure.add_subplot(), comparison)
    return figure


def save_plots(comparison: Comparison, path: str | Path) -> None:
    """Write both pictures side by side into one file.

    Parameters
    ----------
    comparison : Comparison
        What to draw.
    path : str or Path
        Ends in .png, .svg or .pdf; replaced if it exists.

    Raises
    ------
    UsageError
        For another ending, or a folder that does not exist.
    """
    path = Path(path)
    if path.suffix.lower() not in _SUFFIXES:
        raise UsageError(f"a picture {path.name!r} was asked for; allowed endings are {', '.join(_SUFFIXES)}.")
    if not path.parent.is_dir():
        raise UsageError(f"there is no folder {path.parent} for the picture. Make it, or choose another.")
    figure = _new_figure(14.8, 7.2)
    by_depth, by_bytes = figure.subplots(1, 2)
    _draw_by_depth(by_depth, comparison)
    _draw_by_bytes(by_bytes, comparison)
    c = comparison
    rows = f"{c.rows}: {c.n_rows} rows, {c.n_classes} classes, {c.n_folds} folds × {c.n_repeats}"
    figure.suptitle(_plain(rows), fontsize=11)
    import matplotlib as mpl

    with mpl.rc_context({"svg.hashsalt": "featx"}):
        figure.savefig(path, dpi=150, metadata=_SUFFIXES[path.suffix.lower()])


def _new_figure(width: float, height: float) -> Figure:
    """Return an empty figure that is drawn in memory; sizes in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


# Accuracy by depth


def _draw_by_depth(axes: Axes, comparison: Comparison) -> None:
    styles, real = _styles(comparison), _without_baselines(comparison)
    single = [r for r in real if len(r.candidate.layers) == 1 and r.cost.depth is not None]
    together = _best_each([r for r in real if len(r.candidate.layers) > 1], lambda r: r.candidate.layer)
    columns = {layer: 1.09 + 0.07 * place for place, layer in enumerate(list(together)[:_MAX_CONCATENATIONS])}
    shown = []
    for place, (head, (colour, shape)) in enumerate(styles.items()):
        shift = min(0.005, 0.03 / len(styles)) * (
            place - (len(styles) - 1) / 2
        )  # intervals beside one another, not on top
        points = _best_each([r for r in single if r.candidate.head == head], lambda r: float(r.cost.depth or 0))
        line = [points[depth] for depth in sorted(points)]
        blocks = [r for r in real if r.candidate.head == head and r.candidate.layer in columns]
        beside = list(_best_each(blocks, lambda r: r.candidate.layer).values())
        for results, at, link in (
            (line, [float(r.cost.depth or 0) for r in line], "-"),
            (beside, [columns[r.candidate.layer] for r in beside], ""),
        ):
            _draw_with_intervals(axes, results, [x + shift for x in at], colour, shape, link)
            shown += results
        axes.plot([], [], color=colour, marker=shape, markersize=5, label=_plain(head))
    _draw_baseline(axes, comparison)
    _name_layers(axes, single, columns, comparison)
    _set_accuracy_range(axes, [end for r in shown for end in r.interval])
    axes.set_ylabel("accuracy, with 95 % interval")
    axes.set_xlabel(
        "layer, at its part of the network's operations" + (" · several layers together" if columns else "")
    )
    _put_legend_above(axes, "Accuracy by depth of the layer: best scaler, reducer and pool for each head")


def _draw_with_intervals(
    axes: Axes, results: Sequence[CandidateResult], at: Sequence[float], colour: str, shape: str, link: str
) -> None:
    if not results:
        return
    accuracy = [r.accuracy for r in results]
    # An interval need not be centred: Wilson's is not.
    down = [max(0.0, r.accuracy - r.interval[0]) for r in results]
    up = [max(0.0, r.interval[1] - r.accuracy) for r in results]
    axes.errorbar(at, accuracy, yerr=[down, up], fmt="none", ecolor=colour, elinewidth=1, alpha=0.45)
    axes.plot(at, accuracy, color=colour, marker=shape, linestyle=link or "none", markersize=5, linewidth=1.6)


def _name_layers(
    axes: Axes, single: Sequence[CandidateResult], columns: dict[str, float], comparison: Comparison
) -> None:
    """Write the names of layers under the axis, leaving out those that have no room."""
    names = {float(r.cost.depth or 0): r.candidate.layer.split("@")[0] for r in reversed(single)}
    right = max([1.03, *(x + 0.05 for x in columns.values())])
    axes.set_xlim(_LEFT, right)
    # First come, first placed: the best layer, the deepest, then all from the deep end.
    best = comparison.best.cost.depth if len(comparison.best.candidate.layers) == 1 else None
    wanted = ([best] if best in names else []) + sorted(names, reverse=True)
    ticks: dict[float, str] = {}
    for depth in wanted:
        if all(abs(depth - other) >= _LEAST_GAP * (right - _LEFT) for other in ticks):
            ticks[depth] = f"{names[depth]}  {100 * depth:.0f} %"
    for layer, x in columns.items():
        ticks[x] = _short_concatenation(layer)
    axes.set_xticks(list(ticks), [_plain(text) for text in ticks.values()], rotation=90, fontsize=7.5)
    if not ticks:
        axes.text(0.5, 0.5, "no layer of known depth", transform=axes.transAxes, ha="center", color=_GREY)
    if columns:
        axes.axvspan(1.045, right, color="#000000", alpha=0.05, linewidth=0)


def _short_concatenation(layer: str) -> str:
    names = [name.split("@")[0] for name in layer.split("+")]
    whole = " + ".join(names)
    return whole if len(whole) <= 26 else f"{len(names)} layers: {names[0]} … {names[-1]}"


# Accuracy against bytes


def _draw_by_bytes(axes: Axes, comparison: Comparison) -> None:
    real = _without_baselines(comparison)
    for head, (colour, shape) in _styles(comparison).items():
        points = [(_bytes(r), r.accuracy) for r in real if r.candidate.head == head]
        style: dict[str, Any] = {"s": 20, "alpha": 0.55, "linewidth": 0}
        axes.scatter(
            [x for x, _ in points], [y for _, y in points], marker=shape, color=colour, label=_plain(head), **style
        )
    _draw_baseline(axes, comparison)
    _put_legend_above(axes, "Accuracy against bytes an image: every candidate")
    _put_legend_below(axes, [*_mark_choices(axes, comparison), *_draw_front(axes, pareto_front(real))])
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
    left, right = min(map(_bytes, real)), max(map(_bytes, real))
    axes.set_xlim(left / 2.5, right * 1.6)
    _set_accuracy_range(axes, [r.accuracy for r in real])
    axes.set_xlabel("bytes an image, as stored (log)")
    axes.set_ylabel("accuracy")


def pareto_front(results: Sequence[CandidateResult]) -> list[CandidateResult]:
    """Return the candidates that no other beats in bytes an image and accuracy at once, fewest bytes first."""
    front: list[CandidateResult] = []
    for result in sorted(results, key=lambda r: (r.cost.bytes_per_image, -r.accuracy)):
        if not front or result.accuracy > front[-1].accuracy:
            front.append(result)
    return front


def _mark_choices(axes: Axes, comparison: Comparison) -> list[Any]:
    """Mark the best and the cheapest tied, and return what the legend shows of them."""
    best, cheapest = comparison.best, comparison.cheapest
    same = cheapest is best
    marks = [(best, "best and cheapest" if same else "best", "*", "#FFD92F", 210)]
    marks += [] if same else [(cheapest, "cheapest that cannot be told from the best", "o", "none", 130)]
    return [
        axes.scatter(
            [_bytes(result)],
            [result.accuracy],
            s=size,
            marker=shape,
            facecolor=fill,
            edgecolor="#000000",
            linewidth=1.1,
            zorder=4,
            label=f"{words}: {_describe(result)}",
        )
        for result, words, shape, fill, size in marks
    ]


def _draw_front(axes: Axes, front: Sequence[CandidateResult]) -> list[Any]:
    """Draw the front as steps, its points numbered, and return what the legend shows of it."""
    at, accuracy = [_bytes(r) for r in front], [r.accuracy for r in front]
    label = "the most accuracy in so many bytes (Pareto front):"
    shown = axes.plot(at, accuracy, color="#222222", linewidth=1.1, drawstyle="steps-post", zorder=1.5, label=label)
    for number, r in list(enumerate(front, start=1))[-_MAX_FRONT:]:
        # Nothing lies above and to the left of a front.
        place: dict[str, Any] = {"xytext": (-6, 5), "textcoords": "offset points", "ha": "center"}
        axes.annotate(str(number), (_bytes(r), r.accuracy), fontsize=8, fontweight="bold", **place)
        style: dict[str, Any] = {"linestyle": "none", "color": "black", "markersize": 6, "markeredgewidth": 0.2}
        shown += axes.plot([], [], marker=f"${number}$", label=_describe(r), **style)
    return shown


def _describe(result: CandidateResult) -> str:
    c = result.candidate
    steps = [_short_concatenation(c.layer), *(step for step in (c.scale, c.reduce, c.head) if step != "none")]
    return _plain(f"{result.accuracy:.3f} in {result.cost.bytes_per_image:,} bytes, {' · '.join(steps)}")


# Both


def _without_baselines(comparison: Comparison) -> list[CandidateResult]:
    """Return the candidates, best first; the baselines only where there is nothing else."""
    return [r for r in comparison.results if not r.is_baseline] or list(comparison.results)


def _styles(comparison: Comparison) -> dict[str, tuple[str, str]]:
    """Return colour and shape of each head; they depend only on which heads there are."""
    heads = sorted({r.candidate.head for r in _without_baselines(comparison)})
    return {head: (_COLOURS[place % len(_COLOURS)], _SHAPES[place % len(_SHAPES)]) for place, head in enumerate(heads)}


def _best_each(results: Sequence[CandidateResult], key: Any) -> dict[Any, CandidateResult]:
    """Return the first result for each key; results come best first."""
    best: dict[Any, CandidateResult] = {}
    for result in results:
        best.setdefault(key(result), result)
    return best


def _bytes(result: CandidateResult) -> int:
    return max(1, result.cost.bytes_per_image)  # 0 has no place on a log axis


def _draw_baseline(axes: Axes, comparison: Comparison) -> None:
    if comparison.baseline is not None:
        accuracy = comparison.baseline.accuracy
        label = _plain(f"always the largest class: {accuracy:.3f}")
        axes.axhline(accuracy, color=_GREY, linestyle=":", linewidth=1.2, label=label, zorder=1)


def _set_accuracy_range(axes: Axes, values: Sequence[float]) -> None:
    """Show what was measured; a baseline far below stays in the legend only."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    margin = max(0.03, 0.06 * (high - low))
    axes.set_ylim(max(-0.02, low - margin), min(1.02, high + margin))
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _put_legend_above(axes: Axes, title: str) -> None:
    """Put the heads where they hide nothing, under the title of the picture."""
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=5, **_LEGEND_STYLE, title=title)


def _put_legend_below(axes: Axes, handles: Sequence[Any]) -> None:
    first = axes.get_legend()
    axes.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.13), **_LEGEND_STYLE)
    if first is not None:
        axes.add_artist(first)  # the second legend has replaced it
        first.set_clip_on(False)  # what is clipped gets no room in the layout


def _plain(text: str) -> str:
    """Return a text in which no dollar sign starts a formula."""
    return text.replace("$", r"\$")
