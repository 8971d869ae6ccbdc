"""Extraction of a whole source into a store that can be interrupted at any moment and continued."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from featx import backbones
from featx.errors import ImageError, SourceError, UsageError
from featx.extraction.computing import FeatureComputer
from featx.extraction.image_table import holds_exactly, make_image_table
from featx.extraction.known_rows import KnownRows, parts_folder, remove_segments, state_on_disk
from featx.extraction.loading import LoadedImage, load_images, n_images_ahead, stack_pixels
from featx.extraction.locking import locked
from featx.extraction.maps import as_maps, map_shape, map_tap
from featx.extraction.planning import missing_entries, seconds_per_image
from featx.extraction.reports import ExtractionPlan, ExtractionProgress, ExtractionReport
from featx.extraction.safeguards import check_free_space, refuse_dropping_rows
from featx.extraction.segment_writer import SegmentWriter
from featx.store import FeatureInfo, MapInfo, merge

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np

    from featx.backbones import Tap
    from featx.images import ImageListing
    from featx.store import FeatureStore, ImageTable, RowInfo

DTYPES = ("float32", "float16")


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
        The network with the taps wanted as features.
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
    map_taps : sequence of Tap
        Spatial maps to keep as well, from `featx.extraction.map_tap`; those that the store has already stay.

    Attributes
    ----------
    infos : dict of str to FeatureInfo
        Features of the store that is to be, by key.
    maps : dict of str to MapInfo
        Its maps, by layer.
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
    map_taps: Sequence[Tap] = ()

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise UsageError(f"dtype {self.dtype!r} is unknown; allowed: {', '.join(DTYPES)}")
        self.out = Path(self.out)
        if self.out.is_dir():
            raise UsageError(f"--out {self.out} is a folder; give the name of a file, such as features.h5")
        self._asked_for = tuple(self.computer.taps)
        self._look()
        self._begin()

    @property
    def n_known(self) -> int:
        """Images, whether listed or not, whose features are all there."""
        return self._known.count()

    def megabytes(self, info: RowInfo) -> float:
        """Return the size of one dataset of features or maps for the whole listing, in MB."""
        return len(self.listing) * info.bytes_per_image / 1e6

    def plan(self) -> ExtractionPlan:
        """Return what `run` would do; times a few images of the source, and writes nothing."""
        missing = missing_entries(self.listing.entries, self._known)
        minutes = seconds_per_image(missing, self.computer) * len(missing) / 60
        return ExtractionPlan(len(self.listing), len(missing), minutes)

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
            Rows would leave the store although their images are there, or another run is writing it.
        """
        folder = parts_folder(self.out)
        with locked(folder):
            if self._known.state != state_on_disk(self.out):
                self._look()  # another run has been here since
            self._begin()
            try:
                self._check(folder)
                report = self._compute_and_merge()
            finally:
                self._known.close()
            remove_segments(folder)
        return report

    def _look(self) -> None:
        """Find what is there already; features and maps of the store stay, so new images need them too."""
        self._known = KnownRows.find(self.out, self.computer.fingerprint(), overwrite=self.overwrite)
        if self._known.store:
            self.aliases = {**self._known.store.aliases, **self.aliases}
        self._take_taps()
        self._known.index(self._row_infos)

    def _begin(self) -> None:
        self._digests: list[bytes] = []
        self._failures: dict[int, str] = {}
        self._n_computed = 0
        self._writer: SegmentWriter | None = None

    @property
    def _row_infos(self) -> dict[str, RowInfo]:
        return {**self.infos, **self.maps}

    def _check(self, folder: Path) -> None:
        if self._known.store:
            refuse_dropping_rows(self._known.store, self.listing, self.out)
        n_rows = len(self.listing)
        check_free_space(folder, self._row_infos.values(), n_new=max(n_rows - self.n_known, 0), n_rows=n_rows)

    def _compute_and_merge(self) -> ExtractionReport:
        self._known.remove_stale()
        try:
            self._compute()
        finally:
            self._close_writer()
        return self._finish()

    def _take_taps(self) -> None:
        """Have the network compute what was asked for and what the store has, features and maps in one pass."""
        backbone, stored = self.computer.backbone, self._known.infos
        stored_keys = [key for key, info in stored.items() if isinstance(info, FeatureInfo)]
        stored_layers = [key for key, info in stored.items() if isinstance(info, MapInfo)]
        stored_taps = backbone.select(stored_keys).taps if stored_keys else ()
        in_order = backbones.in_execution_order
        features = in_order([*self._asked_for, *stored_taps])
        map_taps = in_order([*self.map_taps, *(map_tap(backbone, layer) for layer in stored_layers)])
        self.computer.taps = in_order([*features, *map_taps])
        self.infos = {tap.key: self._describe(tap) for tap in features}
        self.maps = {tap.layer.name: MapInfo(tap.layer.name, map_shape(tap)) for tap in map_taps}
        # Features may be flattened maps themselves: one tap then gives both.
        self._map_taps = {tap.layer.name: tap for tap in map_taps}

    def _describe(self, tap: Tap) -> FeatureInfo:
        stored = self._known.infos.get(tap.key)
        if isinstance(stored, FeatureInfo):
            return stored
        layer = tap.layer
        return FeatureInfo(tap.key, layer.name, tap.pool, layer.depth, layer.shape, tap.width, self.dtype)

    def _compute(self) -> None:
        entries, computer = self.listing.entries, self.computer
        waiting: dict[tuple[str, ...], list[LoadedImage]] = {}
        batch_size = min(computer.batch_size, max(len(entries), 1))
        n_threads = computer.options.n_threads
        loading = load_images(
            entries,
            computer.backbone.transform,
            is_known=self._known.is_complete,
            n_threads=n_threads,
            n_ahead=n_images_ahead(batch_size, n_threads, computer.backbone.transform),
        )
        with closing(loading):
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
        tap_keys = [self._map_taps[key].key if key in self._map_taps else key for key in keys]
        outputs = self.computer.run(tap_keys, stack_pixels(batch), batch_size)
        if self._writer is None:
            self._writer = SegmentWriter(
                parts_folder(self.out), self._row_infos, self.computer.fingerprint(), max_rows=self.max_segment_rows
            )
        paths = [self.listing.entries[loaded.index].path for loaded in batch]
        self._writer.add(keys, paths, batch, [self._rows_of(key, outputs) for key in keys])
        self._n_computed += len(batch)

    def _rows_of(self, key: str, outputs: Mapping[str, np.ndarray]) -> np.ndarray:
        tap = self._map_taps.get(key)
        return outputs[key] if tap is None else as_maps(outputs[tap.key], tap)

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
        return holds_exactly(store, table, self._row_infos, failures, self.listing.source, self.aliases)

    def _merge(self, table: ImageTable, failures: tuple[tuple[str, str], ...]) -> None:
        # Where nothing was computed, those who computed the rows know best what they ran.
        fingerprint = self.computer.fingerprint() if self._n_computed else self._known.sources[0].fingerprint
        sources = self._known.sources_now(self._row_infos)
        self._known.close()  # the file is about to be replaced
        merge(
            self.out,
            table,
            list(self._row_infos.values()),
            sources,
            fingerprint=fingerprint,
            source=self.listing.source,
            aliases=dict(self.aliases),
            failures=failures,
        )
