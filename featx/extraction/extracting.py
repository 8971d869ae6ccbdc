"""Extraction of a whole source into a store that can be interrupted at any moment and continued."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from featx.errors import ImageError, SourceError, StoreError, UsageError, WouldOverwriteError
from featx.extraction.computing import FeatureComputer, LoadedImage, load_images, stack_pixels
from featx.extraction.image_table import holds_exactly, make_image_table
from featx.extraction.known_rows import KnownRows, parts_folder
from featx.extraction.locking import locked
from featx.extraction.reports import ExtractionPlan, ExtractionProgress, ExtractionReport
from featx.extraction.segment_writer import SegmentWriter
from featx.store import FeatureInfo, as_row_source, merge, open_segments

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from featx.images import ImageEntry, ImageListing
    from featx.store import FeatureStore, ImageTable

DTYPES = ("float32", "float16")
_N_TIMED = 64  # images that a plan computes to estimate the time


class BadImageError(ImageError):
    """The first image that could not be read, under ``strict``."""


@dataclass
class Extraction:
    """One run: what to compute, from which images, into which store.

    Parameters
    ----------
    listing : ImageListing
        The images.
    computer : FeatureComputer
        The network with the taps wanted.
    out : Path
        The store; segments go to ``OUT.parts/`` beside it.
    aliases : mapping of str to str
        Names that the user had for layers.
    dtype : {"float32", "float16"}
        Of the features in the file.
    overwrite : bool
        Replace a store that was made in another way, or from another source.
    strict : bool
        Stop at the first image that cannot be read.
    progress : callable, optional
        Called with an `ExtractionProgress` after every image.
    max_segment_rows : int, optional
        Rows a segment at the most; by default bounded by bytes and time only.
    """

    listing: ImageListing
    computer: FeatureComputer
    out: Path
    aliases: Mapping[str, str] = field(default_factory=dict)
    dtype: str = "float32"
    overwrite: bool = False
    strict: bool = False
    progress: Callable[[ExtractionProgress], None] | None = None
    max_segment_rows: int | None = None

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise UsageError(f"dtype {self.dtype!r} is unknown; allowed: {', '.join(DTYPES)}")
        self.out = Path(self.out)
        if self.out.is_dir():
            raise UsageError(f"--out {self.out} is a folder; give the name of a file, such as features.h5")
        self._known = KnownRows.find(self.out, self.computer.fingerprint(), overwrite=self.overwrite)
        if self._known.store:
            self.aliases = {**self._known.store.aliases, **self.aliases}
        self._add_stored_taps()
        self.infos = self._describe_features()
        self._known.index(list(self.infos))
        self._digests: list[bytes] = []
        self._failures: dict[int, str] = {}
        self._n_computed = 0
        self._writer: SegmentWriter | None = None

    @property
    def n_known(self) -> int:
        """Images, whether listed or not, whose features are all there."""
        return self._known.count()

    def megabytes(self, info: FeatureInfo) -> float:
        """Return the size of one feature dataset for the whole listing, in MB."""
        return len(self.listing) * info.width * np.dtype(info.dtype).itemsize / 1e6

    def plan(self) -> ExtractionPlan:
        """Return what `run` would do; times a few images of the source, and writes nothing."""
        missing = self._missing_entries()
        seconds = self._timed(missing[:: max(1, len(missing) // _N_TIMED)][:_N_TIMED]) if missing else 0.0
        return ExtractionPlan(len(self.listing), len(missing), seconds * len(missing) / 60)

    def _missing_entries(self) -> list[ImageEntry]:
        if not self._known.sources:
            return list(self.listing.entries)
        missing = []
        for entry in self.listing.entries:
            try:
                known = self._known.is_complete(entry.read().digest)
            except ImageError:
                known = False
            if not known:
                missing.append(entry)
        return missing

    def _timed(self, sample: Sequence[ImageEntry]) -> float:
        """Return the seconds that one image takes, the network's start left out."""
        self.computer.features_of(sample)
        started = time.perf_counter()
        self.computer.features_of(sample)
        return (time.perf_counter() - started) / len(sample)

    def run(self) -> ExtractionReport:
        """Compute what is missing, write the store, and say what was done.

        Raises
        ------
        BadImageError
            Under `strict`, an image cannot be read; what was computed before it is kept.
        SourceError
            No image could be read.
        StoreError
            The disk is full or cannot be written; finished segments are kept.
        WouldOverwriteError
            Rows of another source would leave the store, or another run is writing it.
        """
        self._refuse_foreign_rows()
        folder = parts_folder(self.out)
        with locked(folder):
            self._check_disk(folder)
            try:
                self._compute()
            finally:
                self._close_writer()
            report = self._finish()
        shutil.rmtree(folder, ignore_errors=True)
        return report

    def _add_stored_taps(self) -> None:
        """Take in the features that the store has already: new images need them too."""
        present = {tap.key for tap in self.computer.taps}
        stored = [key for key in self._known.infos if key not in present]
        if stored:
            wanted = [*(tap.key for tap in self.computer.taps), *stored]
            self.computer.taps = self.computer.backbone.select(wanted).taps

    def _describe_features(self) -> dict[str, FeatureInfo]:
        stored = self._known.infos
        described = {}
        for tap in self.computer.taps:
            new = FeatureInfo(
                tap.key, tap.layer.name, tap.pool, tap.layer.depth, tap.layer.shape, tap.width, self.dtype
            )
            described[tap.key] = stored.get(tap.key, new)
        return described

    def _refuse_foreign_rows(self) -> None:
        """Refuse to drop rows because the source is another one; rows whose files are gone may leave."""
        store = self._known.store
        if store is None or store.source == self.listing.source:
            return
        leaving = len(set(store.paths.tolist()) - {entry.path for entry in self.listing.entries})
        if leaving:
            raise WouldOverwriteError(
                f"{self.out} holds features of {store.source}, and {leaving} of its {store.rows} rows are not in"
                f" {self.listing.source}; choose another --out, or give --overwrite to replace them"
            )

    def _check_disk(self, folder: Path) -> None:
        """Refuse at the start what would fill the disk hours later."""
        row_bytes = sum(info.width * np.dtype(info.dtype).itemsize for info in self.infos.values()) + 256
        n_new = max(len(self.listing.entries) - self._known.count(), 0)
        # Segments, and beside them the merged store.
        needed = n_new * row_bytes + len(self.listing.entries) * row_bytes
        free = shutil.disk_usage(folder).free
        if needed > free:
            raise StoreError(
                f"{self.out} needs about {needed / 1e6:.0f} MB while it is written, and {free / 1e6:.0f} MB are free;"
                " free some space, choose fewer layers, or give --dtype float16"
            )

    def _compute(self) -> None:
        entries = self.listing.entries
        computer = self.computer
        waiting: dict[tuple[str, ...], list[LoadedImage]] = {}
        batch_size = min(computer.batch_size, max(len(entries), 1))
        loading = load_images(
            entries,
            computer.backbone.transform,
            is_known=self._known.is_complete,
            n_threads=computer.options.n_threads,
            n_ahead=3 * batch_size,
        )
        for loaded in loading:
            self._digests.append(loaded.digest)
            if loaded.reason:
                self._note_failure(loaded)
            elif not self._known.is_complete(loaded.digest):
                keys = self._known.missing(loaded.digest)
                self._known.mark(loaded.digest)  # a second image of the same bytes needs no computing
                waiting.setdefault(keys, []).append(loaded)
                if len(waiting[keys]) == batch_size:
                    self._run_batch(keys, waiting.pop(keys), batch_size)
            if self.progress:
                self.progress(ExtractionProgress(loaded.index + 1, len(entries), self._n_computed))
        for keys, batch in waiting.items():
            self._run_batch(keys, batch, batch_size)

    def _run_batch(self, keys: tuple[str, ...], batch: list[LoadedImage], batch_size: int) -> None:
        engine = self.computer.engine_for(keys, batch_size)
        features = engine.run(stack_pixels(batch))
        if self._writer is None:
            self._writer = SegmentWriter(
                parts_folder(self.out), self.infos, self.computer.fingerprint(), max_rows=self.max_segment_rows
            )
        paths = [self.listing.entries[loaded.index].path for loaded in batch]
        self._writer.add(keys, paths, batch, features)
        self._n_computed += len(batch)

    def _note_failure(self, loaded: LoadedImage) -> None:
        self._failures[loaded.index] = loaded.reason
        if self.strict:
            path = self.listing.entries[loaded.index].path
            raise BadImageError(
                f"{path}: {loaded.reason}; stopped there because of --strict. What was computed is kept: mend or remove"
                " the image and run the same command again"
            )

    def _close_writer(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    def _finish(self) -> ExtractionReport:
        """Merge all rows into the store, unless it holds exactly them already."""
        kept = [index for index in range(len(self.listing.entries)) if index not in self._failures]
        failures = tuple((self.listing.entries[index].path, reason) for index, reason in self._failures.items())
        if not kept:
            path, reason = failures[0]
            raise SourceError(
                f"none of the {len(failures)} images of {self.listing.source} can be read; {path}: {reason}"
            )
        table = make_image_table(self.listing, kept, self._digests)
        before = self._known.store
        n_removed = len(set(before.paths.tolist()) - set(table.paths)) if before else 0
        if before is None or self._n_computed or not self._is_in(before, table, failures):
            self._merge(table, failures)
        return ExtractionReport(
            out=self.out,
            rows=len(kept),
            n_computed=self._n_computed,
            n_kept=len(kept) - self._n_computed,
            n_removed=n_removed,
            failures=failures,
            engine=self.computer.describe_engine(),
        )

    def _is_in(self, store: FeatureStore, table: ImageTable, failures: tuple[tuple[str, str], ...]) -> bool:
        return holds_exactly(store, table, self.infos, failures, self.listing.source, self.aliases)

    def _merge(self, table: ImageTable, failures: tuple[tuple[str, str], ...]) -> None:
        before = self._known.store
        fingerprint = self.computer.fingerprint() if self._n_computed or before is None else before.fingerprint
        sources = [as_row_source(before)] if before else []
        sources += open_segments(parts_folder(self.out))
        merge(
            self.out,
            table,
            list(self.infos.values()),
            sources,
            fingerprint=fingerprint,
            source=self.listing.source,
            aliases=dict(self.aliases),
            failures=failures,
        )
        if before is not None:
            before.close()
