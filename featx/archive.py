"""One safe file made of named parts: what classifier bundles and image indexes are written in.

An archive is a ZIP file whose entries are stored, not compressed, so that any ZIP tool can open it::

    manifest.json    {"format", "format_version", "parts": {name: {"bytes", "blake2b"}}, "content"}
    NAME ...         the parts, in the order in which they were given
    (ZIP comment)    the BLAKE2b digest of manifest.json

Every byte that is handed out has been compared with a digest: the comment protects the manifest, the manifest
protects the parts. Digests find damage, not forgery: whoever may rewrite the file may rewrite them as well. A reader
of parts must therefore still distrust what they contain.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import struct
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from featx.errors import StoreError, UnsafeFileError, UsageError, WouldOverwriteError

FORMAT_VERSION = 1
KINDS = {"featx-bundle": "a featx classifier (.featx)", "featx-index": "a featx image index (.index)"}

_MANIFEST = "manifest.json"
_MANIFEST_MAX_BYTES = 64 * 2**20
_COMMENT_PREFIX = b"featx manifest blake2b:"
_PART_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_BLOCK_BYTES = 2**20
# What zipfile and json raise on bytes that are not theirs.
_DAMAGE = (zipfile.BadZipFile, struct.error, OSError, EOFError, ValueError, OverflowError, RuntimeError)

Part = bytes | bytearray | memoryview | Path


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
        if name not in self.parts:
            raise UsageError(
                f"{self.path} has no part {name!r}; it has {', '.join(self.parts) or 'none'}. Ask for one of those."
            )
        try:
            with zipfile.ZipFile(self.path) as zip_file:
                data = zip_file.read(name)
        except _DAMAGE as error:
            raise _damaged(self.path, f"part {name!r} cannot be read ({error})") from error
        if len(data) != self.parts[name] or _digest(data) != self._digests[name]:
            raise _damaged(self.path, f"part {name!r} does not match its digest")
        return data


def write_archive(
    path: str | Path, kind: str, content: Mapping[str, Any], parts: Mapping[str, Part], *, overwrite: bool = False
) -> None:
    """Write an archive in one step: after a crash there is the whole new file, or what was there before.

    Parameters
    ----------
    path : str or Path
        Where to write; the folder must exist.
    kind : str
        A key of ``KINDS``.
    content : mapping
        Anything that JSON can hold (no NaN).
    parts : mapping of str to bytes, memoryview or Path
        The parts in writing order. A Path is a file that is copied without being held in memory.
    overwrite : bool
        Replace a file that is already there.

    Raises
    ------
    WouldOverwriteError
        When ``path`` exists and ``overwrite`` is false.
    UsageError
        For an unknown kind, an odd part name, or content that JSON cannot hold.
    StoreError
        When the file cannot be written.

    Notes
    -----
    The same arguments give the same bytes: entries carry no date. A part that is a Path is read twice, since the
    manifest with its digest comes first.
    """
    path = Path(path)
    _refuse_existing(path, overwrite)
    manifest = _manifest_bytes(kind, content, parts)
    # A name of its own in the same folder: os.replace is atomic only within one file system.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        with open(temporary, "xb") as stream:
            _write_zip(stream, manifest, parts)
            stream.flush()
            os.fsync(stream.fileno())
        _refuse_existing(path, overwrite)
        os.replace(temporary, path)
    except WouldOverwriteError:
        raise
    except OSError as error:
        raise StoreError(
            f"{path} cannot be written: {error}. Check the folder, its permissions and its space."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


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
        raise StoreError(f"{path}: no such file. Give the path of {_describe(kind)}.")
    with _open_zip(path) as zip_file:
        entries = zip_file.infolist()
        _check_entries(path, entries)
        manifest = _read_manifest(path, zip_file)
    _check_format(path, manifest, kind)
    parts, digests = _part_table(path, manifest, entries)
    return Archive(path=path, kind=kind, content=manifest["content"], parts=parts, _digests=digests)


def _describe(kind: str) -> str:
    if kind not in KINDS:
        raise UsageError(f"unknown kind of archive {kind!r}; allowed are {', '.join(KINDS)}.")
    return KINDS[kind]


def _damaged(path: Path, what: str) -> StoreError:
    return StoreError(f"{path} is damaged or was not written by featx: {what}. Make it again or fetch a fresh copy.")


def _crafted(path: Path, what: str) -> UnsafeFileError:
    return UnsafeFileError(
        f"{path} is refused: {what}, which featx never writes. Use only files from a source you trust."
    )


def _digest(data: bytes | bytearray | memoryview) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


# --- writing ---------------------------------------------------------------------------------------------------------


def _refuse_existing(path: Path, overwrite: bool) -> None:
    if path.exists() and not overwrite:
        raise WouldOverwriteError(f"{path} is already there. Choose another name, or allow it to be overwritten.")
    if path.is_dir():
        raise WouldOverwriteError(f"{path} is a folder. Choose the name of a file.")


def _blocks(part: Part) -> Iterator[bytes | memoryview]:
    """Yield the bytes of a part, a block at a time."""
    if isinstance(part, Path):
        with open(part, "rb") as stream:
            while block := stream.read(_BLOCK_BYTES):
                yield block
        return
    view = memoryview(part).cast("B")
    for start in range(0, len(view), _BLOCK_BYTES):
        yield view[start : start + _BLOCK_BYTES]


def _measure(part: Part) -> dict[str, Any]:
    """Return the size and digest of a part."""
    digest, n_bytes = hashlib.blake2b(digest_size=16), 0
    for block in _blocks(part):
        digest.update(block)
        n_bytes += len(block)
    return {"bytes": n_bytes, "blake2b": digest.hexdigest()}


def _manifest_bytes(kind: str, content: Mapping[str, Any], parts: Mapping[str, Part]) -> bytes:
    _describe(kind)
    for name in parts:
        if not _PART_NAME.fullmatch(name) or name == _MANIFEST:
            raise UsageError(f"{name!r} cannot name a part; use letters, digits, '_', '-' and '.', at most 100.")
    try:
        table = {name: _measure(part) for name, part in parts.items()}
        manifest = {"format": kind, "format_version": FORMAT_VERSION, "parts": table, "content": dict(content)}
        return json.dumps(manifest, allow_nan=False, indent=1).encode()
    except OSError as error:
        raise StoreError(f"a part cannot be read: {error}. Check the file it comes from.") from error
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"the content cannot be written as JSON: {error}. Use plain numbers, texts and lists."
        ) from error


def _write_zip(stream: BinaryIO, manifest: bytes, parts: Mapping[str, Part]) -> None:
    table = json.loads(manifest)["parts"]
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as zip_file:
        _write_entry(zip_file, _MANIFEST, manifest, len(manifest))
        for name, part in parts.items():
            _write_entry(zip_file, name, part, table[name]["bytes"])
        zip_file.comment = _COMMENT_PREFIX + _digest(manifest).encode()


def _write_entry(zip_file: zipfile.ZipFile, name: str, part: Part, n_bytes: int) -> None:
    entry = zipfile.ZipInfo(name)  # dated 1980, so that the same parts give the same file
    entry.file_size = n_bytes  # tells zipfile when it needs ZIP64
    entry.external_attr = 0o644 << 16
    with zip_file.open(entry, "w") as target:
        for block in _blocks(part):
            target.write(block)


# --- reading ---------------------------------------------------------------------------------------------------------


@contextmanager
def _open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open the file as a ZIP, turning whatever zipfile says about its bytes into a StoreError."""
    try:
        with zipfile.ZipFile(path) as zip_file:
            yield zip_file
    except (StoreError, UnsafeFileError):
        raise
    except _DAMAGE as error:
        raise _damaged(path, str(error)) from error


def _check_entries(path: Path, entries: list[zipfile.ZipInfo]) -> None:
    """Refuse a directory that promises more than plain bytes which lie in this file."""
    names = [entry.filename for entry in entries]
    if not names or names[0] != _MANIFEST or entries[0].header_offset != 0:
        raise _damaged(path, f"its first entry is not {_MANIFEST}")
    if len(set(names)) != len(names):
        raise _crafted(path, "two entries have the same name")
    for entry in entries:
        if not _PART_NAME.fullmatch(entry.filename):
            raise _crafted(path, f"it has an entry named {entry.filename[:100]!r}")
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            raise _crafted(path, f"entry {entry.filename!r} is compressed")
        if entry.flag_bits & 0x1:
            raise _crafted(path, f"entry {entry.filename!r} is encrypted")
    if sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise _crafted(path, "its entries claim more bytes than the file has")
    if entries[0].file_size > _MANIFEST_MAX_BYTES:
        raise _crafted(path, f"its {_MANIFEST} is larger than {_MANIFEST_MAX_BYTES} bytes")


def _read_manifest(path: Path, zip_file: zipfile.ZipFile) -> dict[str, Any]:
    data = zip_file.read(_MANIFEST)
    if zip_file.comment != _COMMENT_PREFIX + _digest(data).encode():
        raise _damaged(path, f"{_MANIFEST} does not match its digest")
    try:
        manifest = json.loads(data)
    except RecursionError as error:
        raise _crafted(path, f"{_MANIFEST} is nested too deeply") from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("content"), dict):
        raise _damaged(path, f"{_MANIFEST} does not describe an archive")
    return manifest


def _check_format(path: Path, manifest: dict[str, Any], kind: str) -> None:
    wanted, found, version = _describe(kind), manifest.get("format"), manifest.get("format_version")
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
        raise _damaged(path, f"{_MANIFEST} has no table of parts")
    stored = {entry.filename: entry.file_size for entry in entries[1:]}
    listed = {name: row.get("bytes") for name, row in table.items()}
    if stored != listed:
        raise _damaged(path, f"{_MANIFEST} lists other parts or sizes than the file has")
    return stored, {name: str(row.get("blake2b")) for name, row in table.items()}
