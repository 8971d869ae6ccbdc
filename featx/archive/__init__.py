"""One safe file made of named parts: what classifier bundles and image indexes are written in.

An archive is a ZIP file whose entries are stored, not compressed, so that any ZIP tool can open it::

    manifest.json    {"format", "format_version", "parts": {name: {"bytes", "blake2b"}}, "content"}
    NAME ...         the parts, in the order in which they were given
    (ZIP comment)    the BLAKE2b digest of manifest.json

Every byte that is handed out has been compared with a digest: the comment protects the manifest, the manifest
protects the parts. Digests find damage, not forgery: whoever may rewrite the file may rewrite them as well. A reader
of parts must therefore still distrust what they contain.
"""

from featx.archive.layout import FORMAT_VERSION, KINDS
from featx.archive.reading import Archive, read_archive
from featx.archive.writing import Part, StreamedPart, write_archive

__all__ = ["FORMAT_VERSION", "KINDS", "Archive", "Part", "StreamedPart", "read_archive", "write_archive"]
