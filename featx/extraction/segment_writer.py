"""Writing computed rows in the background, in segments that close by size and by time."""

from __future__ import annotations

import itertools
import queue
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.store import RowBlock, write_segment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from featx.extraction.loading import LoadedImage
    from featx.store import RowInfo

_SEGMENT_BYTES = 16 * 2**20  # five times that may be in memory: open, waiting, and twice being written
_SEGMENT_SECONDS = 15.0
_N_WAITING = 2  # finished segments that may wait for the disk


class SegmentWriter:
    """Collects rows and hands full segments to a thread that writes them.

    Parameters
    ----------
    folder : Path
        Where the segments go.
    infos : mapping of str to FeatureInfo or MapInfo
        Descriptions of all features and maps, by key.
    fingerprint : mapping
        Of the features.
    max_rows : int, optional
        Rows a segment at the most; by default bounded by bytes and time only.
    """

    def __init__(
        self,
        folder: Path,
        infos: Mapping[str, RowInfo],
        fingerprint: Mapping[str, Any],
        *,
        max_rows: int | None = None,
    ) -> None:
        self._folder, self._infos, self._fingerprint = folder, infos, fingerprint
        self._max_rows = max_rows or 10**9
        # Rows with different features missing go to segments of their own.
        self._open: dict[tuple[str, ...], _OpenSegment] = {}
        self._queue: queue.Queue[tuple[tuple[str, ...], _OpenSegment] | None] = queue.Queue(_N_WAITING)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="featx-write", daemon=True)
        self._thread.start()

    def add(
        self, keys: tuple[str, ...], paths: Sequence[str], rows: Sequence[LoadedImage], features: Sequence[np.ndarray]
    ) -> None:
        """Take one computed batch; raises the error of an earlier write, if there was one."""
        self._raise_error()
        segment = self._open.setdefault(keys, _OpenSegment())
        segment.add(paths, rows, features)
        is_old = time.monotonic() - segment.started > _SEGMENT_SECONDS
        if is_old or segment.n_bytes >= _SEGMENT_BYTES or segment.n_rows >= self._max_rows:
            self._hand_over(keys)

    def close(self) -> None:
        """Write everything that was taken, and wait for the disk; raises the error of any write."""
        try:
            for keys in list(self._open):
                self._hand_over(keys)
        finally:
            self._put(None)
            self._thread.join()
        self._raise_error()

    def _hand_over(self, keys: tuple[str, ...]) -> None:
        self._put((keys, self._open[keys]))
        del self._open[keys]

    def _put(self, item: tuple[tuple[str, ...], _OpenSegment] | None) -> None:
        """Queue an item; a dead thread must not be waited for."""
        while self._thread.is_alive():
            try:
                self._queue.put(item, timeout=0.5)
                return
            except queue.Full:
                continue

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        while True:
            item = self._queue.get()
            if item is None:
                return
            keys, segment = item
            try:
                infos = [self._infos[key] for key in keys]
                write_segment(self._folder, segment.block(keys), infos, self._fingerprint)
            except BaseException as error:  # kept for the caller's thread, which raises it
                self._error = error
                return


class _OpenSegment:
    """Rows of a segment that is not full yet."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.n_bytes = self.n_rows = 0
        self._batches: list[tuple[Sequence[str], list[tuple[bytes, bytes, tuple[int, int]]], Sequence[np.ndarray]]] = []

    def add(self, paths: Sequence[str], rows: Sequence[LoadedImage], features: Sequence[np.ndarray]) -> None:
        # One append, so that an interrupt leaves all columns of a batch or none; pixels are not kept.
        self._batches.append((paths, [(row.digest, row.phash, row.size) for row in rows], features))
        self.n_bytes += sum(array.nbytes for array in features)
        self.n_rows += len(rows)

    def block(self, keys: Sequence[str]) -> RowBlock:
        paths, rows, features = zip(*self._batches, strict=True)
        digests, phashes, sizes = zip(*itertools.chain.from_iterable(rows), strict=True)
        columns = [np.concatenate(parts) for parts in zip(*features, strict=True)]
        return RowBlock(
            paths=list(itertools.chain.from_iterable(paths)),
            digests=np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 16),
            phashes=np.frombuffer(b"".join(phashes), np.uint8).reshape(-1, 8),
            sizes=np.array(sizes, np.int32).reshape(-1, 2),
            features=dict(zip(keys, columns, strict=True)),
        )
