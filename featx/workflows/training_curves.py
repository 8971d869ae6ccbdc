"""How a training went, epoch by epoch: as a picture of its curves, and as a table."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import astuple, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featx.errors import UsageError
from featx.finetuning.history import EpochRecord
from featx.workflows.one_step_files import draft_of
from featx.workflows.picture_files import (
    COLOURS,
    GREY,
    LEGEND_STYLE,
    new_figure,
    picture_path,
    plain_text,
    save_figure,
    tidy_axes,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TRAINING, _VALIDATION, _FROZEN = COLOURS[1], COLOURS[0], COLOURS[2]
_MOST_MARKED = 40  # epochs; more points would be a smear
_WIDEST_LINEAR = 30.0  # largest by smallest loss; beyond it only the largest would be seen


def save_curves(
    records: Sequence[EpochRecord],
    path: str | Path,
    *,
    best_epoch: int | None,
    frozen_accuracy: float | None = None,
    title: str = "",
) -> None:
    """Write a picture of loss, accuracy and learning rate by epoch.

    Parameters
    ----------
    records : sequence of EpochRecord
        At least one. Losses that are not finite leave a gap, and the legend counts them.
    path : str or Path
        Ends in .png, .svg or .pdf; replaced if it exists. Equal input gives equal bytes.
    best_epoch : int or None
        Which is marked as the one that was kept.
    frozen_accuracy : float, optional
        Of a classifier on the frozen features, on the same validation images.
    title : str
        Above the picture.

    Raises
    ------
    UsageError
        No records, a best epoch that is not among them, another ending, or a folder that does not exist.
    StoreError
        The picture cannot be written.
    """
    path = picture_path(path)
    save_figure(draw_curves(records, best_epoch=best_epoch, frozen_accuracy=frozen_accuracy, title=title), path)


def draw_curves(
    records: Sequence[EpochRecord], *, best_epoch: int | None, frozen_accuracy: float | None = None, title: str = ""
) -> Figure:
    """Return the picture that `save_curves` writes; its axes are loss, accuracy and learning rate."""
    if not records:
        raise UsageError("curves of no epochs were asked for; train at least one.")
    best = next((record for record in records if record.epoch == best_epoch), None)
    if best_epoch is not None and best is None:
        raise UsageError(
            f"best epoch {best_epoch} was given; the epochs are {records[0].epoch} to {records[-1].epoch}. Give one "
            "of them."
        )
    figure = new_figure(12.8, 4.4)
    losses, accuracies, rates = figure.subplots(1, 3, width_ratios=(4, 4, 2.2))
    _draw_losses(losses, records, best)
    _draw_accuracies(accuracies, records, best, frozen_accuracy)
    _draw_rates(rates, records)
    for axes in (losses, accuracies, rates):
        _draw_epochs(axes, records, best)
    if title:
        figure.suptitle(plain_text(title), fontsize=11)
    return figure


def history_csv(records: Sequence[EpochRecord]) -> str:
    """Return the records as CSV, one line an epoch under a line of names; numbers are exact."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([field.name for field in fields(EpochRecord)])
    writer.writerows(astuple(record) for record in records)
    return text.getvalue()


def save_history(records: Sequence[EpochRecord], path: str | Path) -> None:
    """Write `history_csv` in one step; a file that is there is replaced.

    Raises
    ------
    StoreError
        It cannot be written.
    """
    with draft_of(path, overwrite=True) as draft:
        draft.write_bytes(history_csv(records).encode())


def _draw_losses(axes: Axes, records: Sequence[EpochRecord], best: EpochRecord | None) -> None:
    training = [_finite(record.train_loss) for record in records]
    validation = [_finite(record.validation_loss) for record in records]
    _draw_line(axes, records, training, _TRAINING, "training")
    _draw_line(axes, records, validation, _VALIDATION, "validation")
    if best is not None:
        _mark_best(axes, best, _finite(best.validation_loss))
    n_missing = sum(math.isnan(value) or math.isnan(other) for value, other in zip(training, validation, strict=True))
    if n_missing:
        epochs = "1 epoch" if n_missing == 1 else f"{n_missing} epochs"
        axes.plot([], [], linestyle="none", label=f"not finite in {epochs}: not drawn")
    shown = [value for value in (*training, *validation) if not math.isnan(value)]
    if shown and min(shown) > 0 and max(shown) > _WIDEST_LINEAR * min(shown):
        axes.set_yscale("log")
    _finish(axes, "loss (log)" if axes.get_yscale() == "log" else "loss")


def _draw_accuracies(
    axes: Axes, records: Sequence[EpochRecord], best: EpochRecord | None, frozen_accuracy: float | None
) -> None:
    _draw_line(axes, records, [_finite(record.train_accuracy) for record in records], _TRAINING, "training")
    _draw_line(axes, records, [_finite(record.validation_accuracy) for record in records], _VALIDATION, "validation")
    if best is not None:
        _mark_best(axes, best, _finite(best.validation_accuracy))
    if frozen_accuracy is not None:
        label = f"frozen features: {frozen_accuracy:.3f}"
        axes.axhline(frozen_accuracy, color=_FROZEN, linestyle=":", linewidth=1.6, label=label, zorder=1.5)
    _finish(axes, "accuracy")


def _draw_rates(axes: Axes, records: Sequence[EpochRecord]) -> None:
    axes.plot([r.epoch for r in records], [r.learning_rate for r in records], color=GREY, linewidth=1.0, marker=".")
    axes.set_ylim(0, 1.08 * max(r.learning_rate for r in records) or None)
    axes.yaxis.set_major_formatter(lambda rate, _: f"{rate:.3g}")
    _finish(axes, "learning rate")


def _draw_line(axes: Axes, records: Sequence[EpochRecord], values: Sequence[float], colour: str, label: str) -> None:
    shape = "o" if label == "validation" else "s"
    marker = shape if len(records) <= _MOST_MARKED else ""
    epochs = [record.epoch for record in records]
    axes.plot(epochs, values, color=colour, marker=marker, markersize=3.5, linewidth=1.6, label=label)


def _mark_best(axes: Axes, best: EpochRecord, value: float) -> None:
    label = f"best epoch, {best.epoch}: {value:.3f}"
    style: dict[str, Any] = {"marker": "*", "s": 170, "facecolor": "#FFD92F", "edgecolor": "#000000", "linewidth": 0.9}
    axes.scatter([best.epoch], [value], zorder=4, label=label, **style)


def _draw_epochs(axes: Axes, records: Sequence[EpochRecord], best: EpochRecord | None) -> None:
    """Set the axis of epochs, with a line through the best."""
    from matplotlib.ticker import MaxNLocator

    first, last = records[0].epoch, records[-1].epoch
    margin = max(0.5, 0.03 * (last - first))
    axes.set_xlim(first - margin, last + margin)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True, min_n_ticks=1))
    axes.set_xlabel("epoch")
    if best is not None:
        axes.axvline(best.epoch, color=GREY, linestyle="--", linewidth=0.8, alpha=0.7, zorder=1)


def _finish(axes: Axes, name: str) -> None:
    tidy_axes(axes)
    axes.set_ylabel(name)
    axes.tick_params(labelsize=9)
    if axes.get_legend_handles_labels()[1]:  # above the lines, where it hides none
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2, **LEGEND_STYLE)


def _finite(value: float) -> float:
    """Return a value that can be drawn; infinity, like NaN, leaves a gap."""
    return value if math.isfinite(value) else math.nan
