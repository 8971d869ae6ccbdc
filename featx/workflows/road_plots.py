"""What each road of transfer learning came to, as one picture: accuracy against the time it took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featx.errors import UsageError
from featx.workflows.picture_files import (
    COLOURS,
    GREY,
    LEGEND_STYLE,
    SHAPES,
    new_figure,
    picture_path,
    plain_text,
    save_figure,
    tidy_axes,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox

_LEAST_SECONDS = 1e-3  # 0 has no place on a log axis
_UNITS = (("s", 1.0), ("min", 60.0), ("h", 3600.0))
# Places of the time axis: round numbers of the unit that a person would use.
_SECONDS = [
    *(digit * 10.0**power for power in (-3, -2, -1) for digit in (1, 2, 5)),
    *(number * size for _, size in _UNITS[:2] for number in (1, 2, 5, 10, 20, 30)),
    *(number * 3600.0 for number in (1, 2, 5, 10, 24, 48, 100, 200, 500, 1000)),
]
_MOST_TICKS = 9
_DISTANCE = 9.0  # of a name from its point, in points


@dataclass(frozen=True)
class RoadPoint:
    """One road in the picture.

    Attributes
    ----------
    name : str
        In the legend, and beside the point where there is room.
    accuracy : float
        On the held-out images.
    interval : tuple of float
        Its 95 % interval.
    seconds : float
        From the images to the classifier.
    """

    name: str
    accuracy: float
    interval: tuple[float, float]
    seconds: float


def save_road_plot(
    rows: Sequence[RoadPoint], path: str | Path, *, title: str = "", baseline: float | None = None
) -> None:
    """Write a picture of accuracy, with its interval, against seconds: one named point a road.

    Parameters
    ----------
    rows : sequence of RoadPoint
        At least one.
    path : str or Path
        Ends in .png, .svg or .pdf; replaced if it exists. Equal input gives equal bytes.
    title : str
        Above the picture.
    baseline : float, optional
        Accuracy of always naming the largest class.

    Raises
    ------
    UsageError
        No road, another ending, or a folder that does not exist.
    StoreError
        The picture cannot be written.
    """
    path = picture_path(path)
    save_figure(draw_roads(rows, title=title, baseline=baseline), path)


def draw_roads(rows: Sequence[RoadPoint], *, title: str = "", baseline: float | None = None) -> Figure:
    """Return the picture that `save_road_plot` writes."""
    if not rows:
        raise UsageError("a picture of no roads was asked for; give at least one.")
    figure = new_figure(8.6, 4.8)
    axes = figure.add_subplot()
    for place, row in enumerate(rows):
        _draw_point(axes, row, COLOURS[place % len(COLOURS)], SHAPES[place % len(SHAPES)])
    if baseline is not None:
        _draw_baseline(axes, baseline)
    _set_ranges(axes, rows, baseline)
    axes.set_ylabel("accuracy, with 95 % interval")
    axes.set_xlabel("time the road took (log)")
    tidy_axes(axes)
    if title:
        axes.set_title(plain_text(title), fontsize=11, pad=10)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), **LEGEND_STYLE, labelspacing=1.1)
    _write_names(figure, axes, rows)
    return figure


def duration(seconds: float) -> str:
    """Return a time as a person would say it: 0.4 s, 42 s, 7.5 min, 2.1 h."""
    unit, size = next((u for u in reversed(_UNITS) if seconds >= u[1]), _UNITS[0])
    return f"{float(f'{seconds / size:.2g}'):g} {unit}"


def _draw_baseline(axes: Axes, baseline: float) -> None:
    axes.axhline(baseline, color=GREY, linestyle=":", linewidth=1.2, zorder=1)
    place: dict[str, Any] = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points", "ha": "right"}
    text = f"always the largest class: {baseline:.3f}"
    axes.annotate(text, (1.0, baseline), xytext=(0, 3), fontsize=8.5, color=GREY, **place)


def _draw_point(axes: Axes, row: RoadPoint, colour: str, shape: str) -> None:
    # An interval need not be centred: Wilson's is not.
    down, up = max(0.0, row.accuracy - row.interval[0]), max(0.0, row.interval[1] - row.accuracy)
    style: dict[str, Any] = {"color": colour, "marker": shape, "markersize": 8, "elinewidth": 1.3, "capsize": 3}
    label = plain_text(f"{row.name}\n{row.accuracy:.3f} in {duration(row.seconds)}")
    axes.errorbar([_place(row)], [row.accuracy], yerr=[[down], [up]], linestyle="none", zorder=3, label=label, **style)


def _place(row: RoadPoint) -> float:
    return max(row.seconds, _LEAST_SECONDS)


def _set_ranges(axes: Axes, rows: Sequence[RoadPoint], baseline: float | None) -> None:
    shown = [end for row in rows for end in row.interval] + ([] if baseline is None else [baseline])
    margin = max(0.03, 0.08 * (max(shown) - min(shown)))
    axes.set_ylim(max(-0.02, min(shown) - margin), min(1.02, max(shown) + margin))
    axes.set_xscale("log")
    first, last = min(map(_place, rows)), max(map(_place, rows))
    margin = max(1.6, (last / first) ** 0.12)
    axes.set_xlim(first / margin, last * margin)
    places = [seconds for seconds in _SECONDS if first / margin <= seconds <= last * margin]
    places = places[:: -(-len(places) // _MOST_TICKS)] if places else [first]
    axes.set_xticks(places, [duration(seconds) for seconds in places])
    axes.minorticks_off()


# Names beside the points


def _write_names(figure: Figure, axes: Axes, rows: Sequence[RoadPoint]) -> None:
    """Write each road's name beside its point where it covers nothing; where all places do, the legend has it."""
    figure.draw_without_rendering()  # only now is it known where the axes lie
    figure.set_layout_engine("none")
    taken = [text.get_window_extent() for text in axes.texts]
    taken += [_box_of_point(axes, row) for row in rows]
    for place, row in enumerate(rows):
        style: dict[str, Any] = {"textcoords": "offset points", "fontsize": 9, "color": COLOURS[place % len(COLOURS)]}
        text = axes.annotate(plain_text(row.name), (_place(row), row.accuracy), xytext=(0, 0), **style)
        if _find_place(text, taken, axes.get_window_extent()):
            taken.append(text.get_window_extent())
        else:
            text.remove()


def _find_place(text: Annotation, taken: Sequence[Bbox], inside: Bbox) -> bool:
    """Move a name beside its point, right or left, then a little higher or lower; return whether it covers nothing."""
    for height in (0, 9, -9):
        for across, edge in ((_DISTANCE, "left"), (-_DISTANCE, "right")):
            text.set(position=(across, height), horizontalalignment=edge, verticalalignment="center")
            box = text.get_window_extent()
            is_inside = inside.x0 <= box.x0 and box.x1 <= inside.x1 and inside.y0 <= box.y0 and box.y1 <= inside.y1
            if is_inside and not box.count_overlaps(taken):
                return True
    return False


def _box_of_point(axes: Axes, row: RoadPoint) -> Bbox:
    """Return where a point and its interval lie, in pixels."""
    from matplotlib.transforms import Bbox

    ends = [(_place(row), min(row.accuracy, row.interval[0])), (_place(row), max(row.accuracy, row.interval[1]))]
    return Bbox(axes.transData.transform(ends)).padded(8.0)
