"""A structure as bytes: a header of ours, where each vector belongs, and FAISS' own serialisation."""

from __future__ import annotations

import struct
from typing import Any, BinaryIO

import numpy as np

from featx.errors import StoreError
from featx.retrieval.faiss_library import import_faiss

_MAGIC = b"featx-structure1"
_COUNTS = "<qq"  # bytes of the factory's name, and places that follow it
_LONGEST_NAME = 1000


def write_parts(file: Any, factory: str, index: Any, places: np.ndarray | None) -> None:
    """Write a structure to whatever has a method ``write``, bit by bit.

    Parameters
    ----------
    file : file-like
        Open for bytes.
    factory : str
        What FAISS calls the index.
    index : faiss.Index
        Trained.
    places : ndarray of int64, shape (n,), or None
        Place of each vector; None where they are in order.
    """
    faiss = import_faiss()
    name = factory.encode()
    content = np.empty(0, "<i8") if places is None else places.astype("<i8")
    file.write(_MAGIC + struct.pack(_COUNTS, len(name), len(content)) + name)
    file.write(content.tobytes())
    faiss.write_index(index, faiss.PyCallbackIOWriter(file.write))


def read_parts(file: BinaryIO) -> tuple[str, Any, np.ndarray | None]:
    """Return factory, FAISS index and places.

    Raises
    ------
    StoreError
        When these bytes are something else, or damaged as far as can be seen.
    """
    faiss = import_faiss()
    head = file.read(len(_MAGIC) + struct.calcsize(_COUNTS))
    if len(head) < len(_MAGIC) + struct.calcsize(_COUNTS) or not head.startswith(_MAGIC):
        raise _damaged("these bytes are no structure that featx wrote")
    n_name, n_places = struct.unpack(_COUNTS, head[len(_MAGIC) :])
    if not (0 <= n_name <= _LONGEST_NAME and 0 <= n_places < 2**40):
        raise _damaged("the header of a structure is damaged")
    name, content = file.read(n_name), file.read(8 * n_places)
    if len(content) != 8 * n_places:
        raise _damaged("a structure ends before it says where each vector belongs")
    places = np.frombuffer(content, "<i8").astype(np.int64, copy=False)
    try:
        index = faiss.read_index(faiss.PyCallbackIOReader(file.read))
    except RuntimeError as error:
        raise _damaged(f"FAISS cannot read a structure ({error})") from error
    is_whole = not n_places or n_places == index.ntotal
    if not is_whole or len(np.unique(places)) != n_places or (places < 0).any():
        raise _damaged("a structure does not say where each vector belongs")
    return name.decode(errors="replace"), index, places if n_places else None


def _damaged(what: str) -> StoreError:
    return StoreError(f"{what}. Build the index again.")


class ByteCounter:
    """A file that only counts what is written to it."""

    def __init__(self) -> None:
        self.n_bytes = 0

    def write(self, content: bytes) -> int:
        """Count, and forget."""
        self.n_bytes += len(content)
        return len(content)
