"""The journal: what was measured is found again, by what it depends on, after any kill, and nothing else is."""

from __future__ import annotations

import json

import numpy as np
import pytest

from featx.comparison import Candidate, FoldScore, Journal
from featx.comparison.journal import digest_of
from featx.errors import UsageError

CANDIDATE = Candidate("blocks.3@avg+späť", "zscore", "pca:8", "svm")
OTHER = Candidate("late", "none", "none", "tree")


def score(accuracy=1 / 3, params=None, notes=()):
    return FoldScore(accuracy, 0.1, 1e-17, 40, 10, 0.25, 1 / 7, params or {"C": 0.001}, notes)


def filled(path):
    """Return a journal of three scores in a file."""
    journal = Journal(path)
    journal.add("k", [(CANDIDATE, 0, score()), (CANDIDATE, 1, score(0.5, notes=("lowered „so“", "two")))])
    journal.add("k", [(OTHER, 0, score(1.0, {"max_depth": None, "min_samples_leaf": 5}))])
    return journal


def test_round_trip(tmp_path):
    """Scores come back exactly, down to the last bit, the notes and a parameter that is None."""
    filled(tmp_path / "j")
    again = Journal(tmp_path / "j")
    assert again.find("k", CANDIDATE, 0) == score()
    assert again.find("k", CANDIDATE, 1) == score(0.5, notes=("lowered „so“", "two"))
    assert again.find("k", OTHER, 0).params == {"max_depth": None, "min_samples_leaf": 5}


@pytest.mark.parametrize(
    ("key", "candidate", "fold"),
    [("l", CANDIDATE, 0), ("k", OTHER, 1), ("k", CANDIDATE, 2), ("k", Candidate("late", "none", "none", "svm"), 0)],
)
def test_other_keys_candidates_and_folds_are_not_found(tmp_path, key, candidate, fold):
    """All three must be the same, before and after reading it again."""
    for journal in (filled(tmp_path / "j"), Journal(tmp_path / "j")):
        assert journal.find("k", CANDIDATE, 0) is not None
        assert journal.find(key, candidate, fold) is None


def test_without_a_file_it_remembers_for_itself():
    """A journal without a path finds what it was given; another one does not."""
    assert filled(None).find("k", OTHER, 0) is not None
    assert Journal().find("k", OTHER, 0) is None


def test_every_cut_leaves_what_was_whole(tmp_path):
    """Cut off anywhere, about line ends above all, the whole lines are known, and what is added afterwards is too."""
    filled(tmp_path / "whole")
    content = (tmp_path / "whole").read_bytes()
    header, *lines = content.splitlines(keepends=True)
    places = [(CANDIDATE, 0), (CANDIDATE, 1), (OTHER, 0)]
    path = tmp_path / "cut"
    # a line whose line feed alone is missing is whole
    ends = np.cumsum([len(header), *map(len, lines)])[1:] - 1
    near_ends = {size + step for size in (0, len(header), *ends) for step in range(-2, 3)}
    sizes = near_ends | set(range(0, len(content), 11))
    for size in sorted(size for size in sizes if 0 <= size <= len(content)):
        path.write_bytes(content[:size])
        journal = Journal(path)
        known = [journal.find("k", *place) is not None for place in places]
        assert known == [bool(end <= size) for end in ends], size
        journal.add("k", [(OTHER, 7, score())])
        reopened = Journal(path)
        assert reopened.find("k", OTHER, 7) == score()
        assert [reopened.find("k", *place) is not None for place in places] == known


@pytest.mark.parametrize(
    "line",
    [
        "not JSON",
        "[1, 2]",
        "{}",
        json.dumps({"key": "k", "fold": 0, "layer": "a", "scale": "none", "reduce": "none", "head": "svm", "score": 3}),
        json.dumps(
            {"key": "k", "fold": 0, "layer": "a", "scale": "none", "reduce": "none", "head": "svm", "score": {"x": 1}}
        ),
        "\x00\xff",
    ],
)
def test_lines_of_no_use_are_passed_over(tmp_path, line):
    """A line that cannot be read, or has other fields, is measured again; the lines around it are known."""
    filled(tmp_path / "j")
    first, second, *rest = (tmp_path / "j").read_text().splitlines()
    (tmp_path / "j").write_text("\n".join([first, line, second, line, *rest]) + "\n")
    journal = Journal(tmp_path / "j")
    assert [journal.find("k", *place) is None for place in ((CANDIDATE, 0), (CANDIDATE, 1), (OTHER, 0))] == [False] * 3
    assert journal.find("k", Candidate("a", "none", "none", "svm"), 0) is None


@pytest.mark.parametrize("content", [b"{}\n", b"path,label\na,b\n", b"\x89HDF\r\n\x1a\n", b'{"format": "featx-com'])
def test_other_files_are_refused_and_left_alone(tmp_path, content):
    """What is no journal is an error, and keeps every byte; only the torn first line of one is begun anew."""
    path = tmp_path / "j"
    path.write_bytes(content)
    if content.startswith(b'{"format": "featx-com'):
        Journal(path).add("k", [(OTHER, 0, score())])
        assert Journal(path).find("k", OTHER, 0) == score()
        return
    with pytest.raises(UsageError, match="is not a journal of featx compare"):
        Journal(path)
    assert path.read_bytes() == content


def test_unusable_places_are_named(tmp_path):
    """A folder, and a folder that is not there, are errors that say why."""
    with pytest.raises(UsageError, match=r"cannot be used \(Is a directory\)"):
        Journal(tmp_path)
    with pytest.raises(UsageError, match=r"cannot be used \(No such file or directory\)"):
        Journal(tmp_path / "missing" / "j")


def test_nothing_is_left_where_nothing_was_measured(tmp_path):
    """A journal makes its file with the first score."""
    path = tmp_path / "j.jsonl"
    assert Journal(path).find("key", Candidate("a", "none", "none", "ridge"), 0) is None
    assert list(tmp_path.iterdir()) == []


def test_two_states_live_in_one_file(tmp_path):
    """Scores of several keys do not disturb each other; of one place the later score counts."""
    journal = filled(tmp_path / "j")
    journal.add("other", [(CANDIDATE, 0, score(0.9))])
    journal.add("k", [(CANDIDATE, 1, score(0.8))])
    again = Journal(tmp_path / "j")
    assert [again.find(key, CANDIDATE, 0).accuracy for key in ("k", "other")] == [1 / 3, 0.9]
    assert again.find("k", CANDIDATE, 1).accuracy == 0.8


def test_digest_sees_every_change():
    """Values, types, shapes, order and the place of the border between parts all count; memory order does not."""
    X = np.arange(6, dtype=np.float32).reshape(2, 3)
    changed = X.copy()
    changed[1, 2] = np.nextafter(np.float32(5), np.float32(6))
    different = [
        (X,),
        (changed,),
        (X.astype(np.float64),),
        (X.reshape(3, 2),),
        (X, X),
        (X, 1),
        (X, "1"),
        (X, [1]),
        (X[:, ::-1],),
        ("a", "bc"),
        ("ab", "c"),
        (np.empty(0),),
        (),
    ]
    digests = [digest_of(*parts) for parts in different]
    assert len(set(digests)) == len(different)
    assert digest_of(np.asfortranarray(X)) == digest_of(X) == digest_of(X.copy())
    assert all(len(digest) == 32 for digest in digests)
