"""The picture of the roads: accuracy against time, every road named, nothing written over anything."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from featx.errors import UsageError
from featx.workflows.road_plots import RoadPoint, draw_roads, duration, save_road_plot

ROADS = [
    RoadPoint("frozen", 0.861, (0.830, 0.889), 42),
    RoadPoint("minimum", 0.840, (0.800, 0.870), 95),
    RoadPoint("partial", 0.883, (0.853, 0.909), 412.3),
    RoadPoint("total", 0.889, (0.860, 0.910), 1313),
    RoadPoint("scratch", 0.410, (0.360, 0.460), 1290),
]
# As after a run on a fast device: nearly equal in both directions.
CROWDED = [RoadPoint(road.name, 0.86 + 0.001 * n, (0.84, 0.88), 40 + n) for n, road in enumerate(ROADS)]
FREE = [RoadPoint("nothing", 0.5, (0.5, 0.5), 0.0)]


def points_of(axes):
    """Place, ends of the interval and colour of every point."""
    found = []
    for container in axes.containers:
        point, _, (interval,) = container.lines
        ((_, low), (_, high)) = interval.get_segments()[0]
        found.append((point.get_xdata()[0], point.get_ydata()[0], low, high, point.get_color()))
    return found


def test_every_road_is_a_point_with_its_interval():
    """Points lie at seconds and accuracy on a logarithmic axis of time; intervals end where they were said to."""
    (axes,) = draw_roads(ROADS).axes
    expected = [(road.seconds, road.accuracy, *road.interval) for road in ROADS]
    np.testing.assert_allclose([point[:4] for point in points_of(axes)], expected)
    assert len({point[4] for point in points_of(axes)}) == 5
    assert axes.get_xscale() == "log"


def legend_texts(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_every_road_is_named_in_its_colour():
    """The legend gives name, accuracy and time, and the name stands beside the point in the point's colour."""
    (axes,) = draw_roads(ROADS).axes
    assert legend_texts(axes) == [
        "frozen\n0.861 in 42 s",
        "minimum\n0.840 in 1.6 min",
        "partial\n0.883 in 6.9 min",
        "total\n0.889 in 22 min",
        "scratch\n0.410 in 22 min",
    ]
    assert [text.get_text() for text in axes.texts] == [road.name for road in ROADS]
    assert [text.get_color() for text in axes.texts] == [point[4] for point in points_of(axes)]


def test_names_without_room_are_in_the_legend_only():
    """Where points crowd, names that would cover something are left out beside them."""
    (axes,) = draw_roads(CROWDED).axes
    assert 1 <= len(axes.texts) < len(CROWDED)
    assert [text.split("\n")[0] for text in legend_texts(axes)] == [road.name for road in CROWDED]


def test_the_baseline_is_a_dotted_line_with_its_number():
    """Always naming the largest class crosses the picture, within its range; without one there is no line."""
    (axes,) = draw_roads(ROADS, baseline=0.333).axes
    (line,) = [line for line in axes.get_lines() if line.get_linestyle() == ":"]
    assert list(line.get_ydata()) == [0.333, 0.333]
    assert "always the largest class: 0.333" in [text.get_text() for text in axes.texts]
    assert axes.get_ylim()[0] < 0.333
    assert not [line for line in draw_roads(ROADS).axes[0].get_lines() if line.get_linestyle() == ":"]


@pytest.mark.parametrize("roads", [ROADS, CROWDED, ROADS[:1], FREE], ids=["usual", "crowded", "one", "none"])
def test_nothing_is_written_over_anything_or_cut_off(roads):
    """Labels cover neither one another nor a point or an interval, and lie within the axes; so do the ticks."""
    figure = draw_roads(roads, baseline=0.3, title="roads, $5 each")
    figure.draw_without_rendering()
    (axes,) = figure.axes
    inside = axes.get_window_extent()
    labels = [text.get_window_extent() for text in axes.texts]
    assert not any(a.overlaps(b) for i, a in enumerate(labels) for b in labels[:i])
    for seconds, accuracy, low, high, _ in points_of(axes):
        marks = axes.transData.transform([(seconds, accuracy), (seconds, low), (seconds, high)])
        assert not any(label.contains(*mark) for label in labels for mark in marks)
        assert not any(b.x0 < marks[0][0] < b.x1 and b.y0 < marks[2][1] and b.y1 > marks[1][1] for b in labels)
    assert all(inside.x0 - 1 <= b.x0 and b.x1 <= inside.x1 + 1 for b in labels)
    assert all(inside.y0 - 1 <= b.y0 and b.y1 <= inside.y1 + 1 for b in labels)
    legend = axes.get_legend().get_window_extent()
    assert inside.x1 - 5 <= legend.x0 < legend.x1 <= figure.bbox.x1
    ticks = [text.get_window_extent() for text in axes.get_xticklabels()]
    assert ticks
    assert not any(a.overlaps(b) for i, a in enumerate(ticks) for b in ticks[:i])


@pytest.mark.parametrize("last", [0.02, 90, 7200, 9e5])
def test_ticks_of_time_are_round_and_few(last):
    """From milliseconds to weeks the axis names between one and nine times, each as a person would say it."""
    (axes,) = draw_roads([RoadPoint("a", 0.5, (0.4, 0.6), 0.01), RoadPoint("b", 0.5, (0.4, 0.6), last)]).axes
    names = [text.get_text() for text in axes.get_xticklabels()]
    assert 1 <= len(names) <= 9
    assert len(set(names)) == len(names)
    assert all(name.split()[1] in ("s", "min", "h") for name in names)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 s"), (0.04, "0.04 s"), (0.44, "0.44 s"), (42.4, "42 s"), (450, "7.5 min"), (7560, "2.1 h"), (1e6, "280 h")],
)
def test_durations_are_said_in_two_digits(seconds, said):
    """Seconds, minutes or hours, whichever a person would say."""
    assert duration(seconds) == said


@pytest.mark.parametrize(("name", "start"), [("a.png", b"\x89PNG"), ("a.svg", b"<?xml"), ("a.PDF", b"%PDF")])
def test_save_writes_what_the_name_says(tmp_path, name, start):
    """The ending chooses the format, and the same roads give the same bytes over what was there."""
    save_road_plot(ROADS, tmp_path / name, title="a", baseline=0.3)
    first = (tmp_path / name).read_bytes()
    assert first.startswith(start)
    (tmp_path / name).write_bytes(b"older")
    save_road_plot(ROADS, str(tmp_path / name), title="a", baseline=0.3)
    assert (tmp_path / name).read_bytes() == first
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_save_refuses_what_it_cannot_draw(tmp_path):
    """Another ending, a missing folder and no roads are named, and nothing is written."""
    for roads, path, message in (
        (ROADS, "a.gif", r"\.png, \.svg, \.pdf"),
        (ROADS, "nowhere/a.png", "no folder"),
        ([], "a.png", "no roads"),
    ):
        with pytest.raises(UsageError, match=message):
            save_road_plot(roads, tmp_path / path)
    assert list(tmp_path.iterdir()) == []


def test_pyplot_is_not_touched(tmp_path):
    """matplotlib waits until a picture is asked for, and no global figure is made."""
    code = "import sys, featx.workflows.road_plots; assert not {'matplotlib', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    before = "matplotlib.pyplot" in sys.modules
    save_road_plot(ROADS, tmp_path / "a.png")
    assert ("matplotlib.pyplot" in sys.modules) == before
