"""Reading an archive without trusting it."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from featx.archive.layout import (
    BLOCK_BYTES,
    COMMENT_PREFIX,
    DAMAGE,
    FORMAT_VERSION,
    KINDS,
    LOCAL_HEADER,
    MANIFEST,
    PART_NAME,
    describe,
    digest_of,
)
from featx.errors import StoreError, UnsafeFileError, UsageError

_MANIFEST_MAX_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Archive:
    """An archive whose manifest and directory have been checked; parts are read, and checked, when asked for.

    Attributes
    ----------
    path : Path
        The file. It is opened anew for every part, so that nothing has to be closed.
    kind : str
        A key of ``KINDS``.
    content : dict
        What the writer put in, as read from JSON.
    parts : dict of str to int
        The name and size in bytes of each part.
    """

    path: Path
    kind: str
    content: dict[str, Any]
    parts: dict[str, int]
    _digests: dict[str, str] = field(repr=False)

    def read(self, name: str) -> bytes:
        """Return the bytes of one part, after comparing them with their digest.

        Raises
        ------
        UsageError
            When the archive has no such part.
        StoreError
            When the bytes are not those that were written.
        """
        return b"".join(self._checked_blocks(name))

    def map(self, name: str) -> np.ndarray:
        """Return the bytes of one part as they lie in the file, uint8, after comparing them with their digest.

        They are read from the disk when they are used, so that a large part takes no memory of its own; the file must
        stay as it is for so long.

        Raises
        ------
        UsageError
            When the archive has no such part.
        StoreError
            When the bytes are not those that were written.
        """
        n_bytes = self.check(name)
        try:
            with zipfile.ZipFile(self.path) as zip_file:
                start = zip_file.getinfo(name).header_offset
            with open(self.path, "rb") as stream:
                stream.seek(start)
                _, n_name, n_extra = LOCAL_HEADER.unpack(stream.read(LOCAL_HEADER.size))
            first = start + LOCAL_HEADER.size + n_name + n_extra
            return np.memmap(self.path, np.uint8, "r", offset=first, shape=(n_bytes,))
        except DAMAGE as error:
            raise _damaged(self.path, f"part {name!r} cannot be read ({error})") from error

    def check(self, name: str) -> int:
        """Return the size of one part in bytes, after comparing all of them with their digest.

        Raises
        ------
        UsageError
            When the archive has no such part.
        StoreError
            When the bytes are not those that were written.
        """
        return sum(len(block) for block in self._checked_blocks(name))

    def _checked_blocks(self, name: str) -> Iterator[bytes]:
        """Yield the bytes of a part, and raise at the end where they are not those that were written."""
        if name not in self.parts:
            raise UsageError(
                f"{self.path} has no part {name!r}; it has {', '.join(self.parts) or 'none'}. Ask for one of those."
            )
        digest, n_bytes = hashlib.blake2b(digest_size=16), 0
        try:
            with zipfile.ZipFile(self.path) as zip_file, zip_file.open(name) as stream:
                while block := stream.read(BLOCK_BYTES):
                    digest.update(block)
                    n_bytes += len(block)
                    yield block
        except DAMAGE as error:
            raise _damaged(self.path, f"part {name!r} cannot be read ({error})") from error
        if n_bytes != self.parts[name] or digest.hexdigest() != self._digests[name]:
            raise _damaged(self.path, f"part {name!r} does not match its digest")


def read_archive(path: str | Path, kind: str) -> Archive:
    """Return an archive of one kind, after checking its directory and its manifest but before reading any part.

    Raises
    ------
    StoreError
        When the file is missing, truncated, damaged, foreign, of another kind or of a newer version.
    UnsafeFileError
        When the file was not written by featx and asks for more than data: compressed or encrypted entries, odd
        names, sizes that the file cannot hold.
    """
    path = Path(path)
    if not path.is_file():
        raise StoreError(f"{path}: no such file. Give the path of {describe(kind)}.")
    with _open_zip(path) as zip_file:
        entries = zip_file.infolist()
        _check_entries(path, entries)
        manifest = _read_manifest(path, zip_file)
    _check_format(path, manifest, kind)
    parts, digests = _part_table(path, manifest, entries)
    return Archive(path=path, kind=kind, content=manifest["content"], parts=parts, _digests=digests)


def _damaged(path: Path, what: str) -> StoreError:
    return StoreError(f"{path} is damaged or was not written by featx: {what}. Make it again or fetch a fresh copy.")


def _crafted(path: Path, what: str) -> UnsafeFileError:
    return UnsafeFileError(
        f"{path} is refused: {what}, which featx never writes. Use only files from a source you trust."
    )


@contextmanager
def _open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open the file as a ZIP, turning whatever zipfile says about its bytes into a StoreError."""
    try:
        with zipfile.ZipFile(path) as zip_file:
            yield zip_file
    except (StoreError, UnsafeFileError):
        raise
    except DAMAGE as error:
        raise _damaged(path, str(error)) from error


def _check_entries(path: Path, entries: list[zipfile.ZipInfo]) -> None:
    """Refuse a directory that promises more than plain bytes which lie in this file."""
    names = [entry.filename for entry in entries]
    if not names or names[0] != MANIFEST or entries[0].header_offset != 0:
        raise _damaged(path, f"its first entry is not {MANIFEST}")
    if len(set(names)) != len(names):
        raise _crafted(path, "two entries have the same name")
    for entry in entries:
        if not PART_NAME.fullmatch(entry.filename):
            raise _crafted(path, f"it has an entry named {entry.filename[:100]!r}")
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            raise _crafted(path, f"entry {entry.filename!r} is compressed")
        if entry.flag_bits & 0x1:
            raise _crafted(path, f"entry {entry.filename!r} is encrypted")
    if sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise _crafted(path, "its entries claim more bytes than the file has")
    if entries[0].file_size > _MANIFEST_MAX_BYTES:
        raise _crafted(path, f"its {MANIFEST} is larger than {_MANIFEST_MAX_BYTES} bytes")


def _read_manifest(path: Path, zip_file: zipfile.ZipFile) -> dict[str, Any]:
    data = zip_file.read(MANIFEST)
    if zip_file.comment != COMMENT_PREFIX + digest_of(data).encode():
        raise _damaged(path, f"{MANIFEST} does not match its digest")
    try:
        manifest = json.loads(data)
    except RecursionError as error:
        raise _crafted(path, f"{MANIFEST} is nested too deeply") from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("content"), dict):
        raise _damaged(path, f"{MANIFEST} does not describe an archive")
    return manifest


def _check_format(path: Path, manifest: dict[str, Any], kind: str) -> None:
    wanted, found, version = describe(kind), manifest.get("format"), manifest.get("format_version")
    if found != kind:
        described = KINDS.get(str(found), f"a file of format {found!r}")
        raise StoreError(f"{path} is {described}, not {wanted}. Give the path of {wanted}.")
    if not isinstance(version, int) or version < 1:
        raise _damaged(path, f"its format version is {version!r}")
    if version > FORMAT_VERSION:
        raise StoreError(
            f"{path} has format version {version}; this featx reads up to {FORMAT_VERSION}. Install a newer featx."
        )


def _part_table(
    path: Path, manifest: dict[str, Any], entries: list[zipfile.ZipInfo]
) -> tuple[dict[str, int], dict[str, str]]:
    """Return size and digest of each part, once manifest and ZIP directory agree about them."""
    table = manifest.get("parts")
    if not isinstance(table, dict) or not all(isinstance(row, dict) for row in table.values()):
        raise _damaged(path, f"{MANIFEST} has no table of parts")
    stored = {entry.filename: entry.file_size for entry in entries[1:]}
    listed = {name: row.get("bytes") for name, row in table.items()}
    if stored != listed:
        raise _damaged(path, f"{MANIFEST} lists other parts or sizes than the file has")
    return stored, {name: str(row.get("blake2b")) for name, row in table.items()}
