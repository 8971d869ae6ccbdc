"""Fixed-length UTF-8 strings: filters and checksums do not apply to HDF5's variable-length ones."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

# A byte that is not UTF-8 reaches Python's str as a lone surrogate U+DC80..U+DCFF (PEP 383).
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def escape_bytes(text: str) -> str:
    """Return `text` with NUL and bytes that are not UTF-8 percent-escaped, everything else as it is."""
    return _UNSTORABLE.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    code = ord(match.group())
    if 0xDC80 <= code <= 0xDCFF:
        return f"%{code - 0xDC00:02X}"
    return "".join(f"%{byte:02X}" for byte in match.group().encode("utf-8", "surrogatepass"))


def encoded_length(texts: Sequence[str]) -> int:
    """Return the bytes of the longest text once escaped and encoded, at least 1 (HDF5 has no strings of length 0)."""
    return max((len(escape_bytes(text).encode()) for text in texts), default=0) or 1


def encode_strings(texts: Sequence[str], length: int) -> np.ndarray:
    """Return `texts` as an array of shape (n,) of dtype ``S{length}``, escaped, UTF-8, padded with NUL."""
    return np.array([escape_bytes(text).encode() for text in texts], dtype=f"S{length}")


def decode_strings(stored: np.ndarray) -> np.ndarray:
    """Return fixed-length strings as an array of shape (n,) of Python ``str`` (dtype object), escapes left as they are.

    Notes
    -----
    Objects, not numpy's ``U``: one very long path would make each of a million others as long.
    """
    texts = np.empty(len(stored), dtype=object)
    texts[:] = [text.decode("utf-8", "backslashreplace") for text in stored.tolist()]
    return texts
