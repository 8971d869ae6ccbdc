"""Curves of a training: what they show, where they are written, and the table of the same numbers."""

from __future__ import annotations

import csv
import math
import subprocess
import sys
from dataclasses import astuple, replace

import numpy as np
import pytest

from featx.errors import StoreError, UsageError
from featx.finetuning.history import EpochRecord
from featx.workflows.training_curves import draw_curves, history_csv, save_curves, save_history

RECORDS = [
    EpochRecord(n, 2 / n, 1 - 0.7 / n, 2.2 / n + 0.02 * n, 0.9 - 0.5 / n, 1e-3 * (1 - n / 13), 1.5)
    for n in range(1, 13)
]


def drawn(axes):
    """Every line with points of its own, by its label: epochs and values."""
    lines = [line for line in axes.get_lines() if line.get_transform() == axes.transData and len(line.get_xdata()) > 0]
    return {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in lines}


def legend_texts(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_losses_and_accuracies_are_drawn_by_epoch():
    """Training and validation are a line each, through every epoch, and the learning rate has a panel of its own."""
    losses, accuracies, rates = draw_curves(RECORDS, best_epoch=4).axes
    epochs = list(range(1, 13))
    for axes, name in ((losses, "loss"), (accuracies, "accuracy")):
        lines = drawn(axes)
        for part, label in (("train", "training"), ("validation", "validation")):
            assert lines[label] == (epochs, [getattr(record, f"{part}_{name}") for record in RECORDS])
        assert axes.get_ylabel() == name
    assert (epochs, [record.learning_rate for record in RECORDS]) in drawn(rates).values()
    assert rates.get_ylabel() == "learning rate"


def test_the_best_epoch_is_marked_with_its_numbers():
    """A star stands on the validation curve at the best epoch, and the legend gives epoch and value."""
    losses, accuracies, _ = draw_curves(RECORDS, best_epoch=4).axes
    for axes, value in ((losses, RECORDS[3].validation_loss), (accuracies, RECORDS[3].validation_accuracy)):
        (star,) = axes.collections
        np.testing.assert_array_equal(star.get_offsets(), [[4, value]])
        assert f"best epoch, 4: {value:.3f}" in legend_texts(axes)


def test_the_frozen_features_are_a_dotted_line():
    """Their accuracy crosses the panel of accuracies and no other, and is left out where there is none."""
    losses, accuracies, _ = draw_curves(RECORDS, best_epoch=4, frozen_accuracy=0.861).axes
    (line,) = [line for line in accuracies.get_lines() if line.get_linestyle() == ":"]
    assert list(line.get_ydata()) == [0.861, 0.861]
    assert "frozen features: 0.861" in legend_texts(accuracies)
    assert not any("frozen" in text for text in legend_texts(losses))
    low, high = accuracies.get_ylim()
    assert low < 0.861 < high
    assert not any("frozen" in text for text in legend_texts(draw_curves(RECORDS, best_epoch=4).axes[1]))


def test_without_a_best_epoch_nothing_is_marked():
    """None of the panels has a star, and curves without a kept epoch can be drawn."""
    assert not any(len(axes.collections) for axes in draw_curves(RECORDS, best_epoch=None).axes)


def test_a_training_that_diverged_can_be_drawn(tmp_path):
    """Losses that are not finite leave a gap that the legend counts, and very large ones get a logarithmic axis."""
    diverged = [
        replace(r, train_loss=1e4 * r.epoch if r.epoch > 3 else r.train_loss, validation_loss=loss)
        for r, loss in zip(RECORDS, [2.0, 1.0, math.inf, *[math.nan] * 9], strict=True)
    ]
    losses = draw_curves(diverged, best_epoch=2).axes[0]
    assert "not finite in 10 epochs: not drawn" in legend_texts(losses)
    assert np.isnan(drawn(losses)["validation"][1]).sum() == 10
    assert (losses.get_yscale(), losses.get_ylabel()) == ("log", "loss (log)")
    save_curves(diverged, tmp_path / "a.png", best_epoch=None)
    nothing = [replace(r, train_loss=math.nan, validation_loss=math.nan) for r in RECORDS]
    save_curves(nothing, tmp_path / "b.png", best_epoch=1)
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "b.png"}


@pytest.mark.parametrize("n_epochs", [1, 2, 300])
def test_epochs_are_whole_numbers_within_the_picture(n_epochs):
    """From one epoch to many, ticks are epochs, and no label covers another or is cut off."""
    records = [replace(RECORDS[0], epoch=n) for n in range(1, n_epochs + 1)]
    figure = draw_curves(records, best_epoch=1, frozen_accuracy=0.5, title="partial, $5 each")
    figure.draw_without_rendering()
    for axes in figure.axes:
        ticks = [text for text in axes.get_xticklabels() if text.get_text()]
        shown = [t for t in ticks if axes.get_xlim()[0] <= t.get_position()[0] <= axes.get_xlim()[1]]
        assert shown
        assert all(text.get_text().isdigit() for text in shown)
        boxes = [text.get_window_extent() for text in shown]
        boxes += [axes.get_legend().get_window_extent()] if axes.get_legend() else []
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
        assert all(figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1 for box in boxes)
        assert all(figure.bbox.y0 <= box.y0 < box.y1 <= figure.bbox.y1 for box in boxes)


@pytest.mark.parametrize(("name", "start"), [("a.png", b"\x89PNG"), ("a.svg", b"<?xml"), ("a.PDF", b"%PDF")])
def test_save_writes_what_the_name_says(tmp_path, name, start):
    """The ending chooses the format, and the same records give the same bytes over what was there."""
    save_curves(RECORDS, tmp_path / name, best_epoch=4, title="a")
    first = (tmp_path / name).read_bytes()
    assert first.startswith(start)
    (tmp_path / name).write_bytes(b"older")
    save_curves(RECORDS, str(tmp_path / name), best_epoch=4, title="a")
    assert (tmp_path / name).read_bytes() == first
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_save_refuses_what_it_cannot_draw(tmp_path):
    """Another ending, a missing folder, no epochs and an unknown epoch are named, and nothing is written."""
    for records, path, best, message in (
        (RECORDS, "a.gif", 4, r"\.png, \.svg, \.pdf"),
        (RECORDS, "nowhere/a.png", 4, "no folder"),
        ([], "a.png", None, "no epochs"),
        (RECORDS, "a.png", 13, "the epochs are 1 to 12"),
    ):
        with pytest.raises(UsageError, match=message):
            save_curves(records, tmp_path / path, best_epoch=best)
    assert list(tmp_path.iterdir()) == []


def test_the_table_holds_every_number_exactly(tmp_path):
    """Read back, the CSV is the records."""
    save_history(RECORDS, tmp_path / "h.csv")
    text = (tmp_path / "h.csv").read_text()
    assert text == history_csv(RECORDS)
    names, *rows = csv.reader(text.splitlines())
    assert names[:2] == ["epoch", "train_loss"]
    assert [EpochRecord(int(row[0]), *map(float, row[1:])) for row in rows] == RECORDS
    assert len(rows[0]) == len(astuple(RECORDS[0]))


def test_the_table_replaces_the_older_one_in_one_step(tmp_path):
    """A longer history takes the place of a shorter one; a folder that is not there is an error."""
    for n in (1, 3):
        save_history(RECORDS[:n], tmp_path / "h.csv")
    assert len((tmp_path / "h.csv").read_text().splitlines()) == 4
    assert [path.name for path in tmp_path.iterdir()] == ["h.csv"]
    with pytest.raises(StoreError, match="cannot be written"):
        save_history(RECORDS, tmp_path / "nowhere" / "h.csv")


def test_pyplot_is_not_touched(tmp_path):
    """matplotlib waits until a picture is asked for, and no global figure is made."""
    code = "import sys, featx.workflows.training_curves; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    before = "matplotlib.pyplot" in sys.modules
    save_curves(RECORDS, tmp_path / "a.png", best_epoch=1)
    assert ("matplotlib.pyplot" in sys.modules) == before
