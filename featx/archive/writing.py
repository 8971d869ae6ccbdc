"""Writing an archive in one step."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from featx.archive.layout import (
    BLOCK_BYTES,
    COMMENT_PREFIX,
    FORMAT_VERSION,
    LOCAL_HEADER,
    MANIFEST,
    PART_NAME,
    describe,
    digest_of,
)
from featx.errors import StoreError, UsageError, WouldOverwriteError

_ALIGNMENT = 64  # where parts begin, so that numbers in a mapped part lie as processors like them
_PADDING = 0x4658  # an extra field of this number is ours and means nothing; others skip it


@dataclass(frozen=True)
class StreamedPart:
    """A part that is never in memory as a whole.

    Attributes
    ----------
    n_bytes : int
        Its size.
    blocks : callable
        Gives its bytes from the beginning each time it is called, for they are read twice.
    """

    n_bytes: int
    blocks: Callable[[], Iterator[bytes | memoryview]]


Part = bytes | bytearray | memoryview | Path | StreamedPart


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
    parts : mapping of str to bytes, memoryview, Path or StreamedPart
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
    The same arguments give the same bytes: entries carry no date. A part that is not in memory is read twice, since
    the manifest with its digest comes first. Parts begin at multiples of 64 bytes, so that they can be mapped.
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


def _refuse_existing(path: Path, overwrite: bool) -> None:
    if path.exists() and not overwrite:
        raise WouldOverwriteError(f"{path} is already there. Choose another name, or allow it to be overwritten.")
    if path.is_dir():
        raise WouldOverwriteError(f"{path} is a folder. Choose the name of a file.")


def _blocks(part: Part) -> Iterator[bytes | memoryview]:
    """Yield the bytes of a part, a block at a time."""
    if isinstance(part, Path):
        with open(part, "rb") as stream:
            while block := stream.read(BLOCK_BYTES):
                yield block
        return
    if isinstance(part, StreamedPart):
        yield from part.blocks()
        return
    view = memoryview(part).cast("B")
    for start in range(0, len(view), BLOCK_BYTES):
        yield view[start : start + BLOCK_BYTES]


def _measure(part: Part) -> dict[str, Any]:
    """Return the size and digest of a part."""
    digest, n_bytes = hashlib.blake2b(digest_size=16), 0
    for block in _blocks(part):
        digest.update(block)
        n_bytes += len(block)
    return {"bytes": n_bytes, "blake2b": digest.hexdigest()}


def _manifest_bytes(kind: str, content: Mapping[str, Any], parts: Mapping[str, Part]) -> bytes:
    describe(kind)
    for name in parts:
        if not PART_NAME.fullmatch(name) or name == MANIFEST:
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
        _write_entry(zip_file, MANIFEST, manifest, len(manifest))
        for name, part in parts.items():
            _write_entry(zip_file, name, part, table[name]["bytes"])
        zip_file.comment = COMMENT_PREFIX + digest_of(manifest).encode()


def _write_entry(zip_file: zipfile.ZipFile, name: str, part: Part, n_bytes: int) -> None:
    entry = zipfile.ZipInfo(name)  # dated 1980, so that the same parts give the same file
    entry.file_size = n_bytes  # tells zipfile when it needs ZIP64
    entry.external_attr = 0o644 << 16
    entry.extra = _padding(zip_file, entry)
    with zip_file.open(entry, "w", force_zip64=_is_large(entry)) as target:
        for block in _blocks(part):
            target.write(block)


def _is_large(entry: zipfile.ZipInfo) -> bool:
    """Return whether an entry is written with ZIP64 sizes: decided here, well below where zipfile would have to."""
    return entry.file_size > 2**30


def _padding(zip_file: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """Return an extra field after which the bytes of an entry begin at a multiple of `_ALIGNMENT`."""
    zip64_bytes = 20 if _is_large(entry) else 0
    stream: Any = zip_file.fp
    start = stream.tell() + LOCAL_HEADER.size + len(entry.filename) + zip64_bytes + 4
    n_bytes = -start % _ALIGNMENT
    return struct.pack(f"<HH{n_bytes}x", _PADDING, n_bytes)
