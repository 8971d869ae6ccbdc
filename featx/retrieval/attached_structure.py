"""The part of an index file that FAISS reads: the structure that proposes candidates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from featx.errors import StoreError

if TYPE_CHECKING:
    from featx.archive import Archive
    from featx.retrieval.structures import Structure

PART = "structure.faiss"


def read_structure(archive: Archive) -> Structure | None:
    """Return the structure of an index file; None where it has none.

    Its bytes are compared with their digest before FAISS sees them. A digest finds damage, not forgery: FAISS parses
    them in C++, so an index with a structure should come from somebody who is trusted. One without holds plain numbers.

    Raises
    ------
    StoreError
        The bytes are damaged, not FAISS', or of another number of vectors than the index has.
    """
    if PART not in archive.parts:
        return None

    from featx.retrieval.structures import Structure

    try:
        structure = Structure.from_bytes(archive.read(PART))
    except (RuntimeError, ValueError) as error:  # FAISS' own
        raise StoreError(f"{archive.path}: FAISS cannot read its structure ({error}); build the index again") from error
    found = (structure.n_places, structure.width)
    told = (archive.content.get("places"), archive.content.get("width"))
    if found != told or not structure.has_every_place:
        raise StoreError(
            f"{archive.path}: its structure is of {found[0]} vectors of width {found[1]}, the index says {told[0]} of"
            f" width {told[1]}, or it does not have each once; build it again"
        )
    return structure
