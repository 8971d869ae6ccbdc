"""Scores of finished folds in a file, so that an interrupted comparison goes on where it stopped."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from featx.comparison.candidates import Candidate, FoldScore
from featx.errors import UsageError

_logger = logging.getLogger(__name__)
_HEADER = {"format": "featx-comparison", "format_version": 1}

_HEADER_LINE = json.dumps(_HEADER) + "\n"

Place = tuple[Candidate, int]  # a candidate and the number of the fold, counted through all repeats


class Journal:
    """Scores that are known already, found again by what they depend on.

    Parameters
    ----------
    path : str or os.PathLike, optional
        A file of JSON lines, made where it does not exist; without it, nothing is remembered.

    Raises
    ------
    UsageError
        The file is something else, or cannot be written.

    Notes
    -----
    A line has a digest of everything that its score depends on: features, classes, groups, folds and grids. So a
    journal may hold scores of several states of a store; those of other states are never found. A line that was cut
    off by a kill is passed over.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self._path = None if path is None else Path(path)
        self._known: dict[tuple[str, Place], FoldScore] = {}
        if self._path is None:
            return
        try:
            self._read(self._path)
        except OSError as error:
            raise UsageError(
                f"the journal {self._path} cannot be used ({error.strerror}); name another file, or none"
            ) from error

    def find(self, key: str, candidate: Candidate, fold: int) -> FoldScore | None:
        """Return the score of a candidate on a fold; `key` is the digest of what it depends on."""
        return self._known.get((key, (candidate, fold)))

    def add(self, key: str, scores: Iterable[tuple[Candidate, int, FoldScore]]) -> None:
        """Remember scores, in the file at once."""
        lines = []
        for candidate, fold, score in scores:
            self._known[key, (candidate, fold)] = score
            content = {"key": key, "fold": fold, **dataclasses.asdict(candidate), "score": dataclasses.asdict(score)}
            lines.append(json.dumps(content) + "\n")
        if self._path is not None and lines:
            try:
                with open(self._path, "a", encoding="utf-8") as file:
                    file.write("".join(lines if file.tell() else [_HEADER_LINE, *lines]))
            except OSError as error:
                # The scores are what was asked for; only going on after an interruption is lost.
                _logger.warning("%s cannot be written any more (%s); no scores are kept", self._path, error.strerror)
                self._path = None

    def _read(self, path: Path) -> None:
        content = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
        if _HEADER_LINE.startswith(content):  # new, or cut off before there was anything in it
            path.write_text("", encoding="utf-8")
            if not content:
                path.unlink()  # it can be written; the first score begins it
            return
        lines = content.split("\n")
        if _parsed(lines[0]) != _HEADER:
            raise UsageError(f"{path} is not a journal of featx compare; name another file")
        for line in lines[1:]:
            values = _parsed(line)
            if values is not None:
                self._remember(values)
        if not content.endswith("\n"):
            with open(path, "a", encoding="utf-8") as file:
                file.write("\n")  # what comes next must not be glued to a line that was cut off

    def _remember(self, values: dict[str, Any]) -> None:
        try:
            candidate = Candidate(values["layer"], values["scale"], values["reduce"], values["head"])
            score = FoldScore(**{**values["score"], "notes": tuple(values["score"]["notes"])})
            self._known[values["key"], (candidate, values["fold"])] = score
        except (KeyError, TypeError):
            return  # a line of another version: its score is measured again


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        values = json.loads(line)
    except ValueError:
        return None
    return values if isinstance(values, dict) else None


def digest_of(*parts: Any) -> str:
    """Return a BLAKE2b digest of arrays and of values that JSON can hold, as 32 hex digits."""
    state = blake2b(digest_size=16)
    for part in parts:
        if isinstance(part, np.ndarray):
            state.update(f"{part.dtype.str}{part.shape}".encode())
            state.update(np.ascontiguousarray(part).view(np.uint8).data if part.size else b"")
        else:
            state.update(json.dumps(part, sort_keys=True).encode())
        state.update(b"\0")
    return state.hexdigest()
