"""What a file is, by its content, so that a wrong one is answered by what it is and what was wanted."""

from __future__ import annotations

from pathlib import Path

from featx.archive import read_archive
from featx.errors import FeatxError, StoreError, UsageError
from featx.images import image_extensions

STORE, CLASSIFIER, INDEX = "store", "classifier", "index"

ARCHIVE_KINDS = {CLASSIFIER: "featx-bundle", INDEX: "featx-index"}
_SUFFIXES = {".h5": STORE, ".featx": CLASSIFIER, ".index": INDEX}
_NAMES = {
    STORE: "a store of features (.h5)",
    CLASSIFIER: "a classifier (.featx)",
    INDEX: "an image index (.index)",
    "picture": "a picture",
    "folder": "a folder",
}
_MADE_BY = {
    STORE: "featx extract SOURCE --out F.h5",
    CLASSIFIER: "featx fit-svm F.h5 --out C.featx",
    INDEX: "featx index F.h5 --out F.index",
}
_HDF5_SIGNATURE, _ZIP_SIGNATURE = b"\x89HDF\r\n\x1a\n", b"PK"


def kind_of(path: str) -> str | None:
    """Return ``store``, ``classifier``, ``index``, ``picture`` or ``folder``; None for what is nothing of that.

    What is too damaged to say, or missing, is taken for what its name says it is.
    """
    if Path(path).is_dir():
        return "folder"
    suffix = Path(path).suffix.lower()
    by_name = _SUFFIXES.get(suffix, "picture" if suffix in image_extensions() else None)
    try:
        with open(path, "rb") as file:
            start = file.read(len(_HDF5_SIGNATURE))
    except OSError:
        return by_name
    if start == _HDF5_SIGNATURE:
        return STORE
    return (_archive_kind(path) if start.startswith(_ZIP_SIGNATURE) else None) or by_name


def _archive_kind(path: str) -> str | None:
    for kind, name in ARCHIVE_KINDS.items():
        try:
            read_archive(path, name)
        except FeatxError:
            continue
        return kind
    return None


def require_kind(path: str, wanted: str, advice: str = "") -> None:
    """Raise an error where a file is known to be of another kind than wanted.

    Missing, damaged and unknown files pass: whoever reads them says more about them.

    Parameters
    ----------
    path : str
        The file.
    wanted : {"store", "classifier", "index"}
        What it should be.
    advice : str
        What else to do, added to the message.

    Raises
    ------
    UsageError
        It is of another kind; the message says which, and how to get the one wanted.
    """
    kind = kind_of(path)
    if kind in (wanted, None) or not Path(path).exists():
        return
    raise UsageError(f"{path} is {_NAMES[kind]}, not {_NAMES[wanted]}; make one with: {_MADE_BY[wanted]}{advice}")


def require_picture(path: str) -> None:
    """Raise an error where there is no file, or one that is known to be no picture.

    Raises
    ------
    UsageError
        The message says what it is.
    """
    if not Path(path).exists():
        raise UsageError(f"{path}: no such file; give one image, such as photos/one.jpg")
    kind = kind_of(path)
    if kind not in ("picture", None):
        raise UsageError(f"{path} is {_NAMES[kind]}, not a picture; give one image, such as photos/one.jpg")


def check_file(path: str) -> list[str]:
    """Return the problems of a store, classifier or index, one line each; none when every byte is what was written.

    Raises
    ------
    UsageError
        It is none of these.
    StoreError
        There is no such file.
    """
    if not Path(path).exists():
        raise StoreError(f"{path}: no such file; give a store, a classifier or an index ({', '.join(_SUFFIXES)})")
    kind = kind_of(path)
    if kind in ARCHIVE_KINDS:
        return _archive_problems(path, ARCHIVE_KINDS[kind])
    if kind != STORE:
        raise UsageError(f"{path} is {_NAMES.get(kind or '', 'no file of featx')}; give {', '.join(_SUFFIXES)}")

    from featx.store import verify

    return verify(Path(path))


def _archive_problems(path: str, name: str) -> list[str]:
    problems = []
    try:
        archive = read_archive(path, name)
    except FeatxError as error:
        return [str(error)]
    for part in archive.parts:
        try:
            archive.read(part)
        except FeatxError as error:
            problems.append(str(error))
    return problems
