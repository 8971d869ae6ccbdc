"""Progress on stderr: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from featx.extraction import ExtractionProgress

_SECONDS_BETWEEN_LINES = 15.0
_STEPS = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{unit}{postfix}"


class ProgressBar:
    """A bar with images a second and the time left; a context manager and a callback.

    Parameters
    ----------
    n_total : int
        Images.
    """

    def __init__(self, n_total: int) -> None:
        from tqdm import tqdm

        self._started = self._shown = time.monotonic()
        self._n_done = 0
        self._bar = tqdm(total=n_total, unit=" images", file=sys.stderr, smoothing=0.1) if sys.stderr.isatty() else None

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def __call__(self, progress: ExtractionProgress) -> None:
        """Show where the extraction stands."""
        if self._bar is not None:
            self._bar.update(progress.n_done - self._n_done)
        elif time.monotonic() - self._shown > _SECONDS_BETWEEN_LINES:
            self._shown = time.monotonic()
            # Images that were there already cost nothing, and say nothing about those that are left.
            rate = max(progress.n_computed, 1) / (self._shown - self._started)
            left = (progress.n_total - progress.n_done) / rate
            print(
                f"{progress.n_done}/{progress.n_total} images, {rate:.0f} images/s, {left / 60:.1f} minutes left",
                file=sys.stderr,
                flush=True,
            )
        self._n_done = progress.n_done


class StepBar:
    """A bar over steps with an estimate of its own; a context manager and a callback.

    Parameters
    ----------
    unit : str
        What a step is, in the plural.
    """

    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._bar: Any = None
        self._shown = time.monotonic()

    def __enter__(self) -> StepBar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def __call__(self, n_done: int, n_total: int, seconds_left: float | None) -> None:
        """Show how many steps are done, and how long the others are thought to take."""
        left = "" if seconds_left is None else f"{seconds_left / 60:.1f} minutes left"
        if sys.stderr.isatty():
            from tqdm import tqdm

            if self._bar is None:
                self._bar = tqdm(total=n_total, unit=f" {self._unit}", file=sys.stderr, bar_format=_STEPS)
            self._bar.set_postfix_str(left, refresh=False)
            self._bar.update(n_done - self._bar.n)
        elif time.monotonic() - self._shown > _SECONDS_BETWEEN_LINES:
            self._shown = time.monotonic()
            print(f"{n_done}/{n_total} {self._unit}, {left}", file=sys.stderr, flush=True)
