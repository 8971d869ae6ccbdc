"""Curves and the diagram of quadrants as SVG inside a page: drawn here, so that nothing else is needed to read them.

Colours come from the page's style sheet, so that they follow light and dark. Names of layers are written as text.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

from featx.workflows.result_pages import visible_text

_WIDTH, _HEIGHT = 460, 290  # of a chart, in its own units
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 14, 42  # margins
_ASIDE = (1.1, 1.2, 1.3, 1.4)  # places of what has no depth of its own, right of the axis
_N_TICKS = 4


@dataclass(frozen=True)
class Point:
    """One point of a curve.

    Attributes
    ----------
    name : str
        Of the layer.
    x : float or None
        Depth from 0 to 1; None for several layers side by side, which stand on the right.
    y : float
        What was measured.
    interval : tuple of float, optional
        Drawn as a bar.
    """

    name: str
    x: float | None
    y: float
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Curve:
    """Points in the order of depth, and what they are."""

    name: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Chart:
    """Curves over depth.

    Attributes
    ----------
    title : str
        What is shown; also read aloud.
    curves : tuple of Curve
        At most three.
    level : tuple of (str, float), optional
        A line to compare with.
    marked : str
        The layer whose point is ringed and named.
    in_percent : bool
        Whether values are shares.
    """

    title: str
    curves: tuple[Curve, ...]
    level: tuple[str, float] | None = None
    marked: str = ""
    in_percent: bool = False


def draw_chart(chart: Chart) -> str:
    """Return a chart as SVG, with a legend under its title; nothing but numbers of ours and escaped text is in it."""
    values = [value for curve in chart.curves for point in curve.points for value in (point.y, *(point.interval or ()))]
    values += [chart.level[1]] if chart.level else []
    values = [value for value in values if math.isfinite(value)] or [0.0]
    ticks = nice_ticks(min(values), max(values))
    n_aside = max((sum(point.x is None for point in curve.points) for curve in chart.curves), default=0)
    scale = _Scale(ticks[0], ticks[-1], _ASIDE[min(n_aside, len(_ASIDE)) - 1] + 0.05 if n_aside else 1.02)
    parts = [*_axes(scale, ticks, chart, n_aside)]
    if chart.level is not None:
        at = scale.y(chart.level[1])
        parts.append(f'<line class="level" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
    for number, curve in enumerate(chart.curves):
        parts += _curve(scale, curve, number, chart)
    return _svg(parts, chart.title, _WIDTH, _HEIGHT)


def draw_quadrants(
    similarity: float | None, interval: tuple[float, float] | None, per_class: float, names: Sequence[str], taken: str
) -> str:
    """Return the four quadrants as SVG, with a dot where a set stands.

    Parameters
    ----------
    similarity : float or None
        From 0 to 1; without it, a line shows that only the size is known.
    interval : tuple of float or None
        Of the similarity.
    per_class : float
        Images a class.
    names : sequence of str
        What to do: small-different, small-similar, large-different, large-similar.
    taken : str
        The one of `names` that is in words of another colour.
    """
    side, left, top = 300, 40, 14
    half = side / 2

    def across(value: float) -> float:
        return left + side * value

    def down(count: float) -> float:  # 10 images a class at the bottom, 100,000 at the top, 1000 in the middle
        return top + side * (1 - min(max((math.log10(max(count, 1)) - 1) / 4, 0.02), 0.98))

    parts = [f'<rect class="well" x="{left}" y="{top}" width="{side}" height="{side}"/>']
    parts.append(f'<rect class="between" x="{across(1 / 3):.1f}" y="{top}" width="{side / 3:.1f}" height="{side}"/>')
    parts.append(f'<path class="cross" d="M{left + half} {top}V{top + side}M{left} {top + half}H{left + side}"/>')
    at = down(per_class)
    for place, name in enumerate(names):
        start = top + (half if place < 2 else 0)
        # Neither the dot nor its interval, which may be anywhere across, covers a word: away from them in height.
        x, y = left + half * (0.5 + place % 2), max(start + 24, start + half - 14, key=lambda y: abs(y - 4 - at))
        parts.append(f'<text class="road{" taken" if name == taken else ""}" x="{x}" y="{y}">{_text(name)}</text>')
    if similarity is None:
        parts.append(f'<line class="unknown" x1="{left}" x2="{left + side}" y1="{at:.1f}" y2="{at:.1f}"/>')
    else:
        if interval is not None:
            ends = f'x1="{across(interval[0]):.1f}" x2="{across(interval[1]):.1f}"'
            parts.append(f'<line class="reach" {ends} y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<circle class="here" cx="{across(similarity):.1f}" cy="{at:.1f}" r="6"/>')
    bottom = top + side + 20
    parts.append(f'<text class="axis start" x="{left}" y="{bottom}">different</text>')
    parts.append(f'<text class="axis" x="{left + half}" y="{bottom}">between</text>')
    parts.append(f'<text class="axis end" x="{left + side}" y="{bottom}">similar</text>')
    for count, said in ((100, "100"), (1000, "1000"), (10_000, "10⁴")):
        parts.append(f'<text class="axis end" x="{left - 5}" y="{down(count) + 4:.1f}">{said}</text>')
    title = "Images a class, upwards, and similarity to the source, to the right"
    return _svg(parts, title, left + side + 8, bottom + 8)


def nice_ticks(low: float, high: float) -> list[float]:
    """Return round numbers at even steps, the first at most `low` and the last at least `high`."""
    span = high - low or max(abs(high), 1.0)
    rough = span / _N_TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(place * step, 12) for place in range(first, max(last, first + 1) + 1)]


class _Scale:
    """Where depths and values lie on a chart."""

    def __init__(self, low: float, high: float, x_end: float) -> None:
        self._low, self._span, self._x_end = low, high - low, x_end

    def x(self, depth: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * depth / self._x_end

    def y(self, value: float) -> float:
        return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - (value - self._low) / self._span)


def _axes(scale: _Scale, ticks: Sequence[float], chart: Chart, n_aside: int) -> list[str]:
    parts = []
    for tick in ticks:
        y = scale.y(tick)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="axis end" x="{_LEFT - 7}" y="{y + 4:.1f}">{_number(tick, chart.in_percent)}</text>')
    floor = _HEIGHT - _BOTTOM
    for depth in (0, 0.25, 0.5, 0.75, 1):
        parts.append(f'<text class="axis" x="{scale.x(depth):.1f}" y="{floor + 18}">{100 * depth:.0f}</text>')
    parts.append(f'<text class="axis" x="{scale.x(0.5):.1f}" y="{floor + 35}">depth of the network, %</text>')
    if n_aside:
        start, end = scale.x(_ASIDE[0] - 0.05), _WIDTH - _RIGHT
        parts.append(
            f'<rect class="aside" x="{start:.1f}" y="{_TOP}" width="{end - start:.1f}" height="{floor - _TOP}"/>'
        )
        parts.append(f'<text class="axis" x="{(start + end) / 2:.1f}" y="{floor + 35}">side by side</text>')
    return parts


def _curve(scale: _Scale, curve: Curve, number: int, chart: Chart) -> list[str]:
    parts, line, n_aside = [], [], 0
    for point in curve.points:
        if not math.isfinite(point.y):
            continue
        if point.x is None:
            x = scale.x(_ASIDE[min(n_aside, len(_ASIDE) - 1)])
            n_aside += 1
        else:
            x = scale.x(point.x)
            line.append(f"{x:.1f} {scale.y(point.y):.1f}")
        parts += _point(x, scale, point, number, chart)
    path = f'<path class="line c{number}" d="M{"L".join(line)}"/>' if len(line) > 1 else ""
    return [path, *parts]


def _point(x: float, scale: _Scale, point: Point, number: int, chart: Chart) -> list[str]:
    y = scale.y(point.y)
    parts = []
    if point.interval is not None:
        low, high = (scale.y(end) for end in point.interval)
        parts.append(f'<line class="bar c{number}" x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}"/>')
    said = _text(f"{point.name}: {_number(point.y, chart.in_percent, exactly=True)}")
    is_marked = point.name == chart.marked
    ring = " marked" if is_marked else ""
    radius = 5.5 if is_marked else 3.5
    parts.append(
        f'<circle class="dot c{number}{ring}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}"><title>{said}</title></circle>'
    )
    return parts


def _number(value: float, in_percent: bool, *, exactly: bool = False) -> str:
    if in_percent:
        return f"{100 * value:.1f} %" if exactly else f"{100 * value:g}"
    shown = f"{value:.3g}" if exactly else f"{value:g}"
    return shown.replace("-", "−")


def _svg(parts: Sequence[str], title: str, width: float, height: float) -> str:
    said = _text(title)
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{said}">{"".join(parts)}</svg>'


def _text(text: str) -> str:
    return html.escape(visible_text(text))
