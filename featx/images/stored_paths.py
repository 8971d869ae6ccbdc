"""How the path of an image is written down: POSIX slashes, valid UTF-8, and a way back to the file's real name.

File names on POSIX are bytes. Each byte that is not part of valid UTF-8 is written as ``%`` and two upper-case hex
digits (``%80`` to ``%FF``). A literal ``%`` stays as it is, unless what follows it would make it look like such an
escape: only then it is written ``%25``. So ``100%.jpg`` stays, ``caf%E9.jpg`` is either the Latin-1 name ``café.jpg``
or, written ``caf%25E9.jpg``, a name that really contains a percent sign: never both.
"""

from __future__ import annotations

import os
import re

# In the text that Python gives for a file name, a byte b that is not UTF-8 is the lone surrogate U+DC00 + b.
_NEEDS_ESCAPE = re.compile(r"[\udc80-\udcff]|%(?=25|[89A-F][0-9A-F])")
_ESCAPE = re.compile(r"%(25|[89A-F][0-9A-F])")


def escape_path(path: str) -> str:
    """Path as it is stored: valid UTF-8, POSIX slashes.

    Parameters
    ----------
    path : str
        A path as Python's ``os`` gives it (bytes that are not UTF-8 as surrogate escapes).
    """
    if os.sep != "/":
        path = path.replace(os.sep, "/")
    return _NEEDS_ESCAPE.sub(lambda match: f"%{ord(match[0]) & 0xFF:02X}", path)


def unescape_path(path: str) -> str:
    """Path as ``os`` functions take it, from its stored form: the inverse of :func:`escape_path`.

    Parameters
    ----------
    path : str
        A stored path.
    """
    return _ESCAPE.sub(lambda match: "%" if match[1] == "25" else chr(0xDC00 + int(match[1], 16)), path)


def stored_path(location: str, folder: str) -> str:
    """Stored path of the file `location`: relative to `folder` where it lies inside, else absolute.

    Parameters
    ----------
    location, folder : str
        Absolute paths. ``.`` and ``..`` in them are resolved as text, without following links.
    """
    location = os.path.normpath(location)
    prefix = os.path.join(os.path.normpath(folder), "")  # ends in exactly one slash
    return escape_path(location[len(prefix) :] if location.startswith(prefix) else location)
