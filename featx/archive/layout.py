"""What both writer and reader of archives keep to: names, digests and kinds."""

from __future__ import annotations

import hashlib
import re
import struct
import zipfile

from featx.errors import UsageError

FORMAT_VERSION = 1
KINDS = {"featx-bundle": "a featx classifier (.featx)", "featx-index": "a featx image index (.index)"}

MANIFEST = "manifest.json"
COMMENT_PREFIX = b"featx manifest blake2b:"
PART_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
BLOCK_BYTES = 2**20
LOCAL_HEADER = struct.Struct("<4s22xHH")  # of a ZIP entry: signature, …, lengths of name and extra field
# What zipfile and json raise on bytes that are not theirs.
DAMAGE = (zipfile.BadZipFile, struct.error, OSError, EOFError, ValueError, OverflowError, RuntimeError)


def describe(kind: str) -> str:
    """Return a kind in words; `UsageError` where there is no such kind."""
    if kind not in KINDS:
        raise UsageError(f"unknown kind of archive {kind!r}; allowed are {', '.join(KINDS)}.")
    return KINDS[kind]


def digest_of(data: bytes | bytearray | memoryview) -> str:
    """Return the BLAKE2b-128 digest in hexadecimal digits."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()
