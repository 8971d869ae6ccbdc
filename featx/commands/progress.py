"""Progress of an extraction on stderr: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from featx.extraction import ExtractionProgress

_SECONDS_BETWEEN_LINES = 15.0


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
