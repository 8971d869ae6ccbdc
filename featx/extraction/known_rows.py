"""What is already computed: in the store at the output path, and in segments of runs that did not finish."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from featx.errors import FingerprintMismatchError, StoreError, WouldOverwriteError
from featx.store import FeatureStore, as_row_source, check_same, open_segments, verify

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from featx.store import RowInfo, RowSource


def parts_folder(out: Path) -> Path:
    """Return the folder of a store's segments."""
    return out.with_name(f"{out.name}.parts")


def remove_segments(folder: Path) -> None:
    """Remove all segments of a folder and drafts of them, and nothing else that may lie there."""
    for path in list(folder.glob("[0-9]*.h5*")):
        path.unlink(missing_ok=True)


def state_on_disk(out: Path) -> tuple[Any, ...]:
    """Return something that is equal only as long as nobody has written the store or its segments."""
    written: list[Any] = []
    with suppress(OSError):
        status = out.stat()
        written += [status.st_ino, status.st_size, status.st_mtime_ns]
    return (*written, *sorted(path.name for path in parts_folder(out).glob("*.h5")))


@dataclass
class KnownRows:
    """Which features and maps of which images are there, by digest.

    Parameters
    ----------
    out : Path
        The output path.
    store : FeatureStore or None
        The store there, if it is to be continued.
    sources : list of RowSource
        Where rows can be copied from, the store first.
    stale : list of Path
        Segments made in another way, which `remove_stale` removes.
    state : tuple
        `state_on_disk` before anything was read.
    """

    out: Path
    store: FeatureStore | None
    sources: list[RowSource]
    stale: list[Path]
    state: tuple[Any, ...]
    _keys: tuple[str, ...] = ()
    # digest -> bit i set where the i-th key is there
    _have: dict[bytes, int] = field(default_factory=dict)

    @classmethod
    def find(cls, out: Path, fingerprint: Mapping[str, Any], *, overwrite: bool) -> KnownRows:
        """Return what is there already; what was made in another way is refused, or left out with `overwrite`.

        Raises
        ------
        StoreError
            A byte of the store is not what was written.
        WouldOverwriteError
            The store or the segments have another fingerprint, and `overwrite` is not set.
        """
        state = state_on_disk(out)
        store = _sound_store(out) if out.exists() and not overwrite else None
        if store:
            _check(fingerprint, store.fingerprint, f"the store {out}")
        sources = [as_row_source(store)] if store else []
        stale = []
        for segment in open_segments(parts_folder(out)):
            try:
                _check(fingerprint, segment.fingerprint, f"the unfinished work in {parts_folder(out)}")
                sources.append(segment)
            except WouldOverwriteError:
                if not overwrite:
                    raise
                stale.append(segment.path)
        return cls(out, store, sources, stale, state)

    @property
    def infos(self) -> dict[str, RowInfo]:
        """Features and maps of the store at the output path, which stay."""
        return {**self.store.infos, **self.store.maps} if self.store else {}

    def index(self, infos: Mapping[str, RowInfo]) -> None:
        """Look up, for every known image, which of these features and maps are there."""
        self._keys = tuple(infos)
        self._have = {}
        self.sources = [source for source in self.sources if not _is_coarser(source, infos)]
        for source in self.sources:
            mask = sum(1 << bit for bit, key in enumerate(self._keys) if key in source.infos)
            for digest in map(bytes, source.digests):
                self._have[digest] = self._have.get(digest, 0) | mask

    def missing(self, digest: bytes) -> tuple[str, ...]:
        """Return the keys of what is still to be computed of an image."""
        have = self._have.get(digest, 0)
        return tuple(key for bit, key in enumerate(self._keys) if not have >> bit & 1)

    def is_complete(self, digest: bytes) -> bool:
        """Return whether nothing of an image is to be computed."""
        return self._have.get(digest, 0) == (1 << len(self._keys)) - 1

    def mark(self, digest: bytes) -> None:
        """Note that an image is taken care of."""
        self._have[digest] = (1 << len(self._keys)) - 1

    def count(self) -> int:
        """Return how many images need nothing."""
        return sum(self.is_complete(digest) for digest in self._have)

    def sources_now(self, infos: Mapping[str, RowInfo]) -> list[RowSource]:
        """Return where rows can be copied from, the segments written since `find` included."""
        stored = [as_row_source(self.store)] if self.store else []
        return stored + [source for source in open_segments(parts_folder(self.out)) if not _is_coarser(source, infos)]

    def remove_stale(self) -> None:
        """Remove the segments that were made in another way."""
        for path in self.stale:
            path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the store."""
        if self.store:
            self.store.close()


def _sound_store(out: Path) -> FeatureStore:
    """Return the store at the output path, after reading all of it: what is damaged must not be carried on."""
    problems = verify(out)
    if problems:
        raise StoreError(
            f"{out} cannot be continued: {problems[0]}; restore a copy of it, or give --overwrite to compute it anew"
        )
    return FeatureStore(out)


def _is_coarser(source: RowSource, infos: Mapping[str, RowInfo]) -> bool:
    """Return whether a source has rounded numbers of what is to be kept in full."""
    return any(
        source.infos[key].dtype == "float16" for key in infos if key in source.infos and infos[key].dtype == "float32"
    )


def _check(expected: Mapping[str, Any], found: Mapping[str, Any], what: str) -> None:
    try:
        check_same(expected, found, what=what)
    except FingerprintMismatchError as error:
        raise WouldOverwriteError(f"{error}\nOr choose another --out, or give --overwrite to replace it.") from error
