"""What is shown while a network is tuned: the images, what is trained, a line an epoch, and warnings."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from featx.commands.progress import ProgressBar, StepBar
from featx.commands.tables import count

if TYPE_CHECKING:
    from featx.backbones import Backbone
    from featx.extraction import ExtractionProgress
    from featx.finetuning import EpochRecord, OverfitCheck, TuningSettings
    from featx.images import ImageListing
    from featx.workflows.tuning_job import TuningBeginning, TuningEvents

_N_STAGES = 6
_EPOCHS = "{:>5}  {:>7}  {:>8}  {:>15}  {:>8}  {:>8}  {:>7}"


class FrozenFeaturesProgress:
    """Progress of computing the frozen features, with a line about images and network in front of it.

    Parameters
    ----------
    is_silent : bool
        Print no line.
    """

    def __init__(self, is_silent: bool) -> None:
        self._is_silent = is_silent
        self._bar: ProgressBar | None = None

    def __enter__(self) -> FrozenFeaturesProgress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.__exit__()

    def begin(self, listing: ImageListing, backbone: Backbone) -> None:
        """Say what is looked at."""
        self._bar = ProgressBar(len(listing))
        if not self._is_silent:
            sides = " x ".join(map(str, backbone.transform.size))
            print(
                f"{count(len(listing), 'image')}, {count(len(listing.class_names), 'class')}; {backbone.name} at"
                f" {sides} pixels, weights {backbone.weights.source}",
                file=sys.stderr,
            )

    def __call__(self, progress: ExtractionProgress) -> None:
        """Show where the extraction stands."""
        if self._bar is not None:
            self._bar(progress)


class TrainingPrinter:
    """Shows one training: lines on stdout, progress and warnings on stderr.

    Parameters
    ----------
    settings : TuningSettings
        How the network is trained.
    bar : StepBar
        For the steps.
    is_silent : bool
        Show progress alone.

    Attributes
    ----------
    said : set of str
        Notes that have been shown.
    """

    def __init__(self, settings: TuningSettings, bar: StepBar, *, is_silent: bool = False) -> None:
        self.said: set[str] = set()
        self._settings, self._bar, self._is_silent = settings, bar, is_silent
        self._started, self._n_done_before = time.monotonic(), -1
        self._images: ProgressBar | None = None

    def events(self) -> TuningEvents:
        """Return what a training calls."""
        from featx.workflows.tuning_job import TuningEvents

        if self._is_silent:
            return TuningEvents(on_step=self._show_step, on_image=self._show_image)
        return TuningEvents(
            on_begin=self._show_beginning,
            on_check=self._show_check,
            on_step=self._show_step,
            on_epoch=self._show_epoch,
            on_note=self._warn,
            on_image=self._show_image,
        )

    def _show_check(self, check: OverfitCheck) -> None:
        if check.passed:
            print(f"check: {check.n_images} images learned by heart in {count(check.n_steps, 'step')}", flush=True)

    def _show_beginning(self, beginning: TuningBeginning) -> None:
        self.said.update(beginning.rows.rows.notes)
        print("\n".join(_beginning_lines(beginning, self._settings)), flush=True)

    def _show_step(self, n_done: int, n_total: int) -> None:
        if self._n_done_before < 0:  # steps of an interrupted run say nothing about those that are left
            self._started, self._n_done_before = time.monotonic(), n_done
        n_here = n_done - self._n_done_before
        seconds = (time.monotonic() - self._started) / n_here * (n_total - n_done) if n_here else None
        self._bar(n_done, n_total, seconds)

    def _show_epoch(self, record: EpochRecord) -> None:
        print(
            _EPOCHS.format(
                record.epoch,
                f"{record.train_loss:.4f}",
                f"{record.train_accuracy:.3f}",
                f"{record.validation_loss:.4f}",
                f"{record.validation_accuracy:.3f}",
                f"{record.learning_rate:.2g}",
                f"{record.seconds:.1f}",
            ),
            flush=True,
        )

    def _show_image(self, progress: ExtractionProgress) -> None:
        self._images = self._images or ProgressBar(progress.n_total)
        self._images(progress)
        if progress.n_done == progress.n_total:
            self._images.__exit__()

    def _warn(self, note: str) -> None:
        self.said.add(note)
        print(f"warning: {note}", file=sys.stderr, flush=True)


def _beginning_lines(beginning: TuningBeginning, settings: TuningSettings) -> list[str]:
    from featx.workflows.tuning_results import number_in_words

    rows = beginning.rows
    share = f"{number_in_words(beginning.n_trained)} of {number_in_words(beginning.n_parameters)} parameters"
    lines = [
        f"{len(rows.train)} images to learn from, {len(rows.validation)} to choose the epoch by ({rows.chosen_by}),"
        f" {len(rows.held_out)} to score on ({rows.rows.split.on})",
        *(f"note: {note}" for note in rows.rows.notes),
        f"{settings.regime}: trains {share}{_modules(beginning.trained)}",
        *(["classes count alike in these losses and accuracies"] if settings.class_weight else []),
    ]
    if beginning.n_epochs_done:
        lines.append(f"going on after epoch {beginning.n_epochs_done}")
    return [*lines, "", _EPOCHS.format("", "", "training", "", "validation", "", "").rstrip(),
            _EPOCHS.format("epoch", "loss", "accuracy", "loss", "accuracy", "rate", "seconds")]  # fmt: skip


def _modules(trained: tuple[str, ...]) -> str:
    """Return what is trained, by stages."""
    if not trained:
        return ", those of the head"
    stages = list(dict.fromkeys(".".join(name.split(".")[:2]) or "embeddings" for name in trained))
    shown = stages if len(stages) <= _N_STAGES else [*stages[:2], "…", *stages[-2:]]
    return f": {', '.join(shown)} and the head"
