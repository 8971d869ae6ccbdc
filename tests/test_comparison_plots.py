"""Pictures of a comparison: what they show, and where they are written."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from featx.comparison import Candidate, Comparison, Cost, FoldScore, rank_candidates, save_plots
from featx.comparison.plots import pareto_front, plot_by_bytes, plot_by_depth
from featx.errors import UsageError

LAYERS = {"blocks.0@avg": (16, 0.1, 10), "blocks.3@avg": (80, 0.4, 34), "blocks.3@max": (80, 0.4, 30)}
LAYERS |= {"penultimate@avg": (1280, 1.0, 32), "blocks.3@avg+penultimate@avg": (1360, 1.0, 35)}
BASELINE = Candidate("penultimate@avg", "none", "none", "majority")


def folds(hits):
    return [FoldScore(h / 40, h / 40, h / 40, 360, 40, 0.1, 0.01, {}) for h in hits]


@pytest.fixture(scope="module")
def comparison():
    rng = np.random.default_rng(0)
    scores, costs = {}, {}
    for layer, (width, depth, mean) in LAYERS.items():
        for head, loss in (("svm", 0), ("tree", 6)):
            for reduce, n_bytes in (("none", 4 * width), ("pq:8", 8)):
                candidate = Candidate(layer, "zscore", reduce, head)
                scores[candidate] = folds(mean - loss - 2 * (reduce != "none") + rng.integers(-2, 3, 10))
                costs[candidate] = Cost(n_bytes, 0.4 * depth, depth)
    scores[BASELINE], costs[BASELINE] = folds([4] * 10), Cost(5120, 0.4, 1.0)
    return Comparison(rank_candidates(scores, costs, n_rows=400), 400, 10, 10, 1, 0, "rows, $5 each")


def legend_texts(axes):
    from matplotlib.legend import Legend

    legends = [child for child in axes.get_children() if isinstance(child, Legend)]
    return [text.get_text() for legend in legends for text in legend.get_texts()]


def drawn_lines(axes):
    return [line for line in axes.get_lines() if len(line.get_xdata()) > 1 and line.get_linestyle() == "-"]


def test_depth_shows_the_best_of_each_head_at_each_layer(comparison):
    """One line a head, through the best accuracy over scalers, reducers and pools at each depth."""
    (axes,) = plot_by_depth(comparison).axes
    lines = drawn_lines(axes)
    expected = []
    for head in ("svm", "tree"):
        single = [r for r in comparison.results if r.candidate.head == head and "+" not in r.candidate.layer]
        expected.append([max(r.accuracy for r in single if r.cost.depth == depth) for depth in (0.1, 0.4, 1.0)])
    assert [list(line.get_ydata()) for line in lines] == expected
    np.testing.assert_allclose(np.mean([line.get_xdata() for line in lines], axis=0), [0.1, 0.4, 1.0])
    assert legend_texts(axes) == ["svm", "tree", "always the largest class: 0.100"]


def test_depth_names_layers_and_sets_concatenations_apart(comparison):
    """Ticks name each layer with its depth; several layers together stand right of the deepest."""
    (axes,) = plot_by_depth(comparison).axes
    ticks = dict(zip((t.get_text() for t in axes.get_xticklabels()), axes.get_xticks(), strict=True))
    assert ticks["blocks.3  40 %"] == 0.4
    assert ticks["penultimate  100 %"] == 1.0
    assert ticks["blocks.3 + penultimate"] > 1.05


def test_names_of_close_layers_are_left_out():
    """Where many layers crowd together only names with room are written, the best and the deepest among them."""
    scores, costs = {}, {}
    for i in range(60):
        candidate = Candidate(f"blocks.{i}", "none", "none", "svm")
        scores[candidate], costs[candidate] = folds([39 if i == 30 else 20] * 10), Cost(4, 1.0, (i + 1) / 60)
    comparison = Comparison(rank_candidates(scores, costs, n_rows=400), 400, 10, 10, 1, 0, "rows")
    (axes,) = plot_by_depth(comparison).axes
    names = [text.get_text().split()[0] for text in axes.get_xticklabels()]
    assert {"blocks.30", "blocks.59"} <= set(names)
    assert np.diff(sorted(axes.get_xticks())).min() > 0.028
    assert 20 < len(names) < 40


def test_bytes_marks_best_cheapest_and_front(comparison):
    """The legend says what best, cheapest and each point of the front are, with accuracy and bytes."""
    (axes,) = plot_by_bytes(comparison).axes
    texts = legend_texts(axes)
    best, front = comparison.best, pareto_front(comparison.results)
    assert any(text.startswith(f"best: {best.accuracy:.3f} in {best.cost.bytes_per_image:,} bytes") for text in texts)
    assert [t for t in texts if t.startswith("cheapest") and f"{comparison.cheapest.accuracy:.3f}" in t]
    for r in front:
        assert [t for t in texts if t.startswith(f"{r.accuracy:.3f} in {r.cost.bytes_per_image:,} bytes")]
    assert [note.get_text() for note in axes.texts] == [str(i + 1) for i in range(len(front))]
    assert axes.get_xscale() == "log"


def test_front_is_what_nothing_beats(comparison):
    """By brute force: a candidate is on the front if no other has as few bytes and more accuracy, or the reverse."""
    results = comparison.results
    front = pareto_front(results)
    for r in results:
        beaten = any(
            (o.cost.bytes_per_image <= r.cost.bytes_per_image and o.accuracy > r.accuracy)
            or (o.cost.bytes_per_image < r.cost.bytes_per_image and o.accuracy >= r.accuracy)
            for o in results
        )
        assert beaten != any(
            (f.cost.bytes_per_image, f.accuracy) == (r.cost.bytes_per_image, r.accuracy) for f in front
        )


@pytest.mark.parametrize("draw", [plot_by_depth, plot_by_bytes])
def test_nothing_is_written_over_anything_or_cut_off(comparison, draw):
    """Names under the axis do not overlap each other, and legends overlap neither the axes nor the figure's edge."""
    from matplotlib.legend import Legend

    figure = draw(comparison)
    figure.draw_without_rendering()
    (axes,) = figure.axes
    boxes = [text.get_window_extent() for text in axes.get_xticklabels() if text.get_text()]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    inside, whole = axes.get_window_extent(), figure.bbox
    for legend in (child for child in axes.get_children() if isinstance(child, Legend)):
        box = legend.get_window_extent()
        assert box.y0 >= inside.y1 - 5 or box.y1 <= inside.y0 + 5
        assert whole.x0 <= box.x0 < box.x1 <= whole.x1
        assert whole.y0 <= box.y0 < box.y1 <= whole.y1


@pytest.mark.parametrize(("name", "start"), [("a.png", b"\x89PNG"), ("a.svg", b"<?xml"), ("a.PDF", b"%PDF")])
def test_save_writes_what_the_name_says(comparison, tmp_path, name, start):
    """The ending chooses the format, and the same comparison gives the same bytes."""
    save_plots(comparison, tmp_path / name)
    first = (tmp_path / name).read_bytes()
    assert first.startswith(start)
    save_plots(comparison, str(tmp_path / name))
    assert (tmp_path / name).read_bytes() == first


def test_save_refuses_what_it_cannot_write(comparison, tmp_path):
    """Another ending and a folder that is not there are named before anything is drawn."""
    with pytest.raises(UsageError, match=r"\.png, \.svg, \.pdf"):
        save_plots(comparison, tmp_path / "a.gif")
    with pytest.raises(UsageError, match="no folder"):
        save_plots(comparison, tmp_path / "nowhere" / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_little_can_be_drawn_too(tmp_path):
    """One candidate of unknown depth and no bytes, or a baseline alone, still makes a picture that says so."""
    for head in ("svm", "majority"):
        scores = {Candidate("a", "none", "none", head): folds([40, 40])}
        results = rank_candidates(scores, {c: Cost(0) for c in scores}, n_rows=80)
        comparison = Comparison(results, 80, 2, 2, 1, 0, "rows")
        save_plots(comparison, tmp_path / f"{head}.svg")
        assert (tmp_path / f"{head}.svg").stat().st_size > 1000
        (axes,) = plot_by_depth(comparison).axes
        assert "no layer of known depth" in [text.get_text() for text in axes.texts]


def test_pyplot_is_not_touched(comparison, tmp_path):
    """No global figure is made: pyplot, which would keep one, is not even imported."""
    import subprocess

    code = "import sys, featx.comparison; assert not {'matplotlib', 'torch', 'h5py'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    before = "matplotlib.pyplot" in sys.modules
    save_plots(comparison, tmp_path / "a.png")
    assert ("matplotlib.pyplot" in sys.modules) == before
