"""The page of an advice: whole, self-contained, free of what names contain, and never over a file of somebody else."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pytest
from headless_browser import find_browser, look_at, take_picture
from PIL import Image

from featx.advice import LayerEvidence, LayerShift, LayerSweep, SetSize, Similarity, decide
from featx.commands.advice_report import describe_advice
from featx.errors import UsageError, WouldOverwriteError
from featx.workflows.advice_charts import Chart, Curve, Point, draw_chart, draw_quadrants, nice_ticks
from featx.workflows.advice_pages import write_advice_page
from featx.workflows.advising import AdviceReport
from featx.workflows.result_pages import POLICY

HOSTILE = (
    "<script>window.marks += 1</script>",
    '"><img src=http://127.0.0.1:9/x onerror="window.marks += 1">',
    "</title></style></svg><svg onload=window.marks+=1>",
    "x\u202egpj\x00",
    "unbroken" * 40,
)
COMMANDS = [("advised, early-linear", "featx fit-svm 'a b.h5' --layer blocks.4 --out 'a b.featx'")]


def entry(layer, depth, accuracy):
    """Return evidence of a layer."""
    interval = (accuracy - 0.04, accuracy + 0.02)
    return LayerEvidence(layer, depth, 64, accuracy, interval, 0.95 - accuracy, (0.0, 0.1), -0.1, 3.2)


def report(*, similarity=0.2, names=("blocks.1@avg", "blocks.4@avg"), classes=("cat", "dog")):
    """Return a report of a small set with two earlier layers, the last one, and two side by side."""
    layers = [entry(names[0], 0.2, 0.6), entry(names[1], 0.6, 0.95), entry("penultimate@avg", 1.0, 0.9)]
    layers.append(entry(f"{names[1]}+penultimate@avg", 1.0, 0.93))
    sweep = LayerSweep(tuple(layers), "penultimate@avg", 0.5, True, 80, 5, 3)
    shifts = tuple(LayerShift(f"{names[0]}.bn{n}", n / 9, n / 10, n / 20) for n in range(9))
    size = SetSize(104, 104, 4, tuple((name, 40 + 20 * n) for n, name in enumerate(classes)))
    interval = (similarity - 0.1, similarity + 0.1)
    known = Similarity(similarity, interval, "different", "batch-norm statistics", "measured", 96, shifts, None)
    keys = tuple(layer.layer for layer in layers[:3])
    return AdviceReport(decide(size, known, sweep), sweep, "penultimate@avg", keys, "net", "rows", ("a note",))


def write(path, made=None, *, name="pets", commands=COMMANDS, **options):
    """Write a page and return its text."""
    write_advice_page(path, report() if made is None else made, name=name, commands=commands, **options)
    return path.read_text(encoding="utf-8")


def unknown(made):
    """Return a report without layers and similarity."""
    nothing = Similarity(None, None, "unknown", "", "no images", 0, (), None)
    return replace(made, advice=decide(SetSize(30, 0, 0, ()), nothing, no_sweep="no labels"), sweep=None)


def test_everything_is_on_the_page(tmp_path):
    """The road, all reasons and risks, every layer with its numbers, four curves, the diagram and the commands."""
    page, made = write(tmp_path / "p.html"), report()
    assert "a linear head on earlier features, blocks.4" in page
    assert page.count("<svg ") == 5
    assert all(sentence.replace("'", "&#x27;") in page for sentence in (*made.advice.reasons, *made.advice.risks))
    assert '<tr class="taken"><td>blocks.4</td><td class="wide">60</td><td>95.0</td>' in page
    assert "featx fit-svm &#x27;a b.h5&#x27; --layer blocks.4" in page
    assert "a note" in page
    assert "always the largest class, 50.0 %" in page


def test_what_was_not_measured_is_left_out(tmp_path):
    """Without labels and originals there is a page too: the diagram, the reasons, no curve and no command."""
    page = write(tmp_path / "p.html", unknown(report()), commands=[])
    assert page.count("<svg ") == 1
    assert "not measured" in page
    assert 'class="unknown"' in page
    assert "<table" not in page
    assert "<h2>Commands" not in page


def test_the_page_asks_for_nothing(tmp_path):
    """The strict policy, no script, no address but that of the empty icon."""
    page = write(tmp_path / "p.html")
    assert POLICY.replace("'", "&#x27;") in page
    assert "<script" not in page
    assert re.findall(r'(?:src|href)="([^"]*)"', page) == ["data:,"]


def test_hostile_names_stay_text(tmp_path):
    """Names of classes, layers, sets and paths are never markup, and the drawings stay well-formed."""
    for text in HOSTILE:
        layer = text.replace("+", "-")  # no layer has a + in its name
        made = report(names=(f"{layer}@avg", f"b{layer}@avg"), classes=(text, "dog"))
        page = write(tmp_path / "p.html", made, name=text, commands=[(text, text)])
        assert "<script" not in page
        assert "<img" not in page
        assert "\u202e" not in page
        for drawing in re.findall(r"<svg .*?</svg>", page, re.DOTALL):
            assert ET.fromstring(drawing).tag == "svg"


def test_only_pages_of_ours_are_replaced(tmp_path):
    """A repeated advice replaces its page; any other file stays, unless that is asked for; other endings never."""
    path = tmp_path / "p.html"
    first = write(path)
    assert write(path, report(similarity=0.3)) != first
    path.write_text("mine")
    with pytest.raises(WouldOverwriteError, match="no page of featx advise"):
        write(path)
    assert path.read_text() == "mine"
    assert write(path, overwrite=True).startswith("<!DOCTYPE html>")
    with pytest.raises(UsageError, match="allowed endings"):
        write(tmp_path / "p.png")


def dots(drawing):
    """Return the places of the points of a drawing."""
    circles = ET.fromstring(drawing).iter("circle")
    return [(float(circle.get("cx")), float(circle.get("cy"))) for circle in circles]


def test_points_lie_where_their_values_are():
    """Deeper is further right, more is higher, equal steps are equal distances; joined layers stand at the end."""
    points = (Point("a", 0.0, 0.2), Point("b", 0.5, 0.4), Point("c", 1.0, 0.6), Point("d", None, 0.4))
    a, b, c, d = dots(draw_chart(Chart("t", (Curve("", points),))))
    assert c[0] - b[0] == pytest.approx(b[0] - a[0], abs=0.11)
    assert b[1] - c[1] == pytest.approx(a[1] - b[1], abs=0.11)
    assert d[0] > c[0]
    assert d[1] == b[1]
    assert a[1] > b[1]


def test_values_that_are_not_finite_are_not_drawn():
    """A curve with a gap, and one without any value, end in a drawing."""
    points = (Point("a", 0.0, 0.2), Point("b", 0.5, float("nan")), Point("c", 1.0, 0.6))
    assert len(dots(draw_chart(Chart("t", (Curve("", points),))))) == 2
    assert dots(draw_chart(Chart("t", (Curve("", ()),)))) == []


def test_the_dot_stands_in_its_quadrant():
    """Similar is right, many is up; the middle of both is 0.5 and 1000 images a class."""
    names = ("a", "b", "c", "d")
    (left, low), (right, high) = (
        dots(draw_quadrants(value, None, count, names, "a"))[0] for value, count in ((0.2, 50), (0.8, 20_000))
    )
    (middle,) = dots(draw_quadrants(0.5, (0.4, 0.6), 1000, names, "a"))
    assert left < middle[0] < right
    assert low > middle[1] > high
    assert dots(draw_quadrants(None, None, 0, names, "a")) == []


@pytest.mark.parametrize("count", [10, 35, 100, 300, 900, 1000, 1100, 5000, 10_000, 50_000])
def test_the_dot_covers_no_word(count):
    """Whatever the size and similarity, labels of the quadrants keep away from the dot and its interval in height."""
    drawing = ET.fromstring(draw_quadrants(0.3, (0.2, 0.4), count, ("a", "b", "c", "d"), "a"))
    heights = [float(text.get("y")) for text in drawing.iter("text") if "road" in text.get("class")]
    (dot,) = (float(circle.get("cy")) for circle in drawing.iter("circle"))
    assert min(abs(height - 4 - dot) for height in heights) > 15
    assert [height < 164 for height in heights] == [False, False, True, True]


def test_balanced_accuracy_and_what_is_missing_are_shown(tmp_path):
    """Weighed classes have another title and column; an H-score that there is not has no chart and no number."""
    made = report()
    layers = tuple(replace(entry, h_score=None) for entry in made.sweep.layers)
    sweep = replace(made.sweep, layers=layers, is_balanced=True)
    page = write(tmp_path / "p.html", replace(made, sweep=sweep))
    assert "Balanced accuracy in cross-validation, %" in page
    assert "<th>balanced accuracy, %</th>" in page
    assert page.count("<svg ") == 4
    assert "<td></td></tr>" in page
    text = describe_advice(replace(made, sweep=sweep, advice=replace(made.advice, layers=layers)), [])
    assert "balanced accuracy" in text
    assert "3.20" not in text


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.3, 0.31), (-0.2, 0.9), (5, 5), (0, 0), (-3, -2), (1e-7, 3e4)])
def test_ticks_are_round_and_cover(low, high):
    """Even steps of 1, 2, 2.5 or 5 times a power of ten, around all values, and few of them."""
    ticks = nice_ticks(low, high)
    assert ticks[0] <= low
    assert ticks[-1] >= high
    assert 2 <= len(ticks) <= 8
    step = ticks[1] - ticks[0]
    assert np.allclose(np.diff(ticks), step)
    assert min(abs(step / 10 ** np.floor(np.log10(step * 1.0001)) - np.array([1, 2, 2.5, 5]))) < 1e-6


@pytest.mark.parametrize("width", [400, 1400])
def test_a_browser_shows_it_whole(tmp_path, width):
    """Nothing runs, is asked for, or sticks out, on phones and wide windows, whatever names there are."""
    find_browser()
    layer = HOSTILE[0].replace("+", "-")  # no layer has a + in its name
    made = report(names=(layer, HOSTILE[4]), classes=HOSTILE[:2])
    write(tmp_path / "p.html", made, name=HOSTILE[2], commands=[(HOSTILE[1], "featx " * 60)])
    seen = look_at(tmp_path / "p.html", width=width)
    assert (seen.marks, seen.scripts, seen.asked, seen.refused, seen.outside) == (0, 0, [], [], [])
    assert seen.scrolled <= seen.width
    assert layer in seen.text
    assert HOSTILE[1] in seen.text


def test_light_and_dark_are_followed(tmp_path):
    """The page is bright on a light screen and dark on a dark one."""
    find_browser()
    write(tmp_path / "p.html")
    for dark in (False, True):
        take_picture(tmp_path / "p.html", tmp_path / "p.png", width=900, height=600, dark=dark)
        corner = np.asarray(Image.open(tmp_path / "p.png").convert("RGB"))[2, 2]
        assert (corner.max() < 40) == dark
