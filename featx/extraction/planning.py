"""What an extraction would have to compute, and how long that takes here."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from featx.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from featx.extraction.computing import FeatureComputer
    from featx.extraction.known_rows import KnownRows
    from featx.images import ImageEntry

_N_TIMED = 64
_BYTES_TIMED = 64e6  # of features and maps, which are all in memory at once


def missing_entries(entries: Sequence[ImageEntry], known: KnownRows) -> list[ImageEntry]:
    """Return the images that have to be read and computed; reads all files where anything is known."""
    if not known.sources:
        return list(entries)
    return [entry for entry in entries if not _is_known(entry, known)]


def _is_known(entry: ImageEntry, known: KnownRows) -> bool:
    try:
        return known.is_complete(entry.read().digest)
    except ImageError:
        return False


def seconds_per_image(entries: Sequence[ImageEntry], computer: FeatureComputer) -> float:
    """Return the seconds that one of these images takes, start of the network left out; 0.0 for no image."""
    n_timed = max(1, min(_N_TIMED, int(_BYTES_TIMED / (4 * sum(tap.width for tap in computer.taps)))))
    sample = entries[:: max(1, len(entries) // n_timed)][:n_timed]
    if not sample:
        return 0.0
    computer.features_of(sample)
    started = time.perf_counter()
    computer.features_of(sample)
    return (time.perf_counter() - started) / len(sample)
