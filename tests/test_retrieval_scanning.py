"""Search over vectors in memory and in files: exact, and exact among what is proposed."""

from __future__ import annotations

import numpy as np
import pytest
from structured_indexes import nearest_by_loop, tuning, unit

from featx.retrieval import scanning
from featx.retrieval.scanning import best_proposed, nearest_places, proposed_places
from featx.retrieval.structures import SearchParameters
from featx.retrieval.vector_rows import VectorRows

WIDTH = 12


def drawn(n, seed=0):
    """Return vectors of length 1."""
    return unit(np.random.default_rng(seed).normal(size=(n, WIDTH))).astype(np.float32)


def with_ties(n=300, n_distinct=20, seed=0):
    """Return vectors of which many are equal, far apart from each other, and a few are zero."""
    vectors = drawn(n_distinct, seed)[np.random.default_rng(seed).integers(n_distinct, size=n)]
    vectors[[3, n // 2, n - 1]] = 0
    return vectors


def kinds_of_rows(vectors, folder):
    """Return the same vectors in memory, in a file, and in several pieces of both."""
    grown = VectorRows.spooled([vectors[:100]], memory=0, folder=folder)
    grown.append(vectors[100:107])
    grown.append(vectors[107:])
    return {
        "memory": VectorRows([vectors]),
        "pieces": VectorRows([vectors[:50], vectors[50:]]),
        "file": VectorRows.spooled([vectors[:7], vectors[7:]], memory=1000, folder=folder),
        "grown": grown,
    }


@pytest.fixture
def small_blocks(monkeypatch):
    """Let vectors be scanned seven at a time."""
    monkeypatch.setattr(scanning, "_BLOCK_BYTES", 7 * 4 * WIDTH)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("kind", ["memory", "pieces", "file", "grown"])
@pytest.mark.parametrize("k", [1, 10, 300])
def test_nearest_places_are_those_of_a_loop(kind, k, tmp_path):
    """Places and scores over many blocks are those of NumPy, equal scores in the order of places across blocks."""
    vectors = with_ties()
    queries = np.concatenate([vectors[:5], drawn(5, 1), np.zeros((1, WIDTH), np.float32)])
    rows = kinds_of_rows(vectors, tmp_path)[kind]
    places, scores = nearest_places(queries, rows, k)
    expected, expected_scores = nearest_by_loop(vectors, queries, k)
    np.testing.assert_array_equal(places, expected)
    np.testing.assert_allclose(scores, expected_scores, rtol=0, atol=1e-7)
    assert (places.dtype, scores.dtype) == (np.int64, np.float32)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("kind", ["memory", "pieces", "file", "grown"])
def test_only_some_places_take_part(kind, tmp_path):
    """With places given, answers are those of a loop over these alone."""
    vectors, queries = with_ties(), drawn(6, 1)
    rows = kinds_of_rows(vectors, tmp_path)[kind]
    for places in (np.arange(0, 300, 3), np.array([299]), np.arange(300)):
        k = min(20, len(places))
        found, scores = nearest_places(queries, rows, k, places)
        expected, expected_scores = nearest_by_loop(vectors[places], queries, k, places)
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_allclose(scores, expected_scores, rtol=0, atol=1e-7)


def test_the_size_of_blocks_does_not_matter(tmp_path, monkeypatch):
    """Vectors that are wider than a block, or all in one, give the same places and the same bits of scores."""
    vectors, queries = with_ties(), drawn(6, 1)
    rows = VectorRows.spooled([vectors], memory=0, folder=tmp_path)
    found = []
    for n_bytes in (1, 500, 2**26):
        monkeypatch.setattr(scanning, "_BLOCK_BYTES", n_bytes)
        found.append(nearest_places(queries, rows, 9))
    for places, scores in found[1:]:
        np.testing.assert_array_equal(places, found[0][0])
        np.testing.assert_array_equal(scores, found[0][1])


@pytest.mark.parametrize("n_threads", [1, 16])
def test_the_best_of_what_is_proposed(n_threads, tmp_path, monkeypatch):
    """The best of each query's own proposals come first, what is missing is −1 and −infinity, on any threads."""
    monkeypatch.setattr(scanning, "n_search_threads", lambda: n_threads)
    vectors, queries = with_ties(), drawn(8, 1)
    random = np.random.default_rng(2)
    proposals = np.stack([random.permutation(300)[:12] for _ in queries])
    proposals[2, 5:] = -1
    proposals[3, ::2] = -1
    for rows in kinds_of_rows(vectors, tmp_path).values():
        places, scores = best_proposed(queries, rows, proposals, 8)
        for number, query in enumerate(queries):
            own = np.sort(proposals[number][proposals[number] >= 0])
            expected, expected_scores = nearest_by_loop(vectors[own], query[None], 8, own)
            n_found = min(8, len(own))
            np.testing.assert_array_equal(places[number, :n_found], expected[0])
            np.testing.assert_allclose(scores[number, :n_found], expected_scores[0], rtol=0, atol=1e-7)
            assert (places[number, n_found:] == -1).all()
            assert np.isneginf(scores[number, n_found:]).all()


def test_nothing_proposed_is_nothing_found():
    """A query for which nothing is proposed finds nothing, and the others do."""
    vectors = drawn(20)
    places, scores = best_proposed(vectors[:2], VectorRows([vectors]), np.array([[-1, -1], [4, 1]]), 2)
    assert places.tolist() == [[-1, -1], [1, 4]]
    assert np.isneginf(scores[0]).all()


class Proposer:
    """A structure that proposes what it is told to, and notes what it was asked for."""

    def __init__(self, proposals):
        self.proposals = np.asarray(proposals)
        self.asked = []

    def propose(self, queries, n, parameters, removed=None):
        """Return the first n of the proposals."""
        self.asked.append((len(queries), n, parameters, removed))
        return self.proposals[:, :n]


@pytest.mark.parametrize("allowed", [None, np.arange(0, 50, 2)])
def test_too_few_proposals_are_made_good_by_exact_search(allowed):
    """Where some proposals are missing or all of them, a query is searched exactly; the others keep their proposals."""
    vectors, queries = drawn(50), drawn(3, 1)
    proposals = np.full((3, 40), -1)
    proposals[0, :2] = [4, 8]
    proposals[2, :20] = np.arange(0, 40, 2)
    taking_part = np.arange(50) if allowed is None else allowed
    places, scores = proposed_places(Proposer(proposals), tuning(), queries, VectorRows([vectors]), 5, allowed)
    expected, expected_scores = nearest_by_loop(vectors[taking_part], queries, 5, taking_part)
    np.testing.assert_array_equal(places[:2], expected[:2])
    own = np.arange(0, 40, 2)
    np.testing.assert_array_equal(places[2], nearest_by_loop(vectors[own], queries[2:], 5, own)[0][0])
    np.testing.assert_allclose(scores[:2], expected_scores[:2], rtol=0, atol=1e-7)


def test_more_neighbours_ask_for_more_proposals():
    """As many candidates as were tuned for the k of the wish, more in proportion for more, never fewer than k."""
    vectors = drawn(200)
    proposer = Proposer(np.arange(200)[None])
    wanted = tuning(SearchParameters(3, None, 15), k=10)
    for k in (1, 4, 10, 20, 200):
        proposed_places(proposer, wanted, vectors[:1], VectorRows([vectors]), k)
    numbers = [n for _, n, _, _ in proposer.asked]
    assert numbers == [2, 6, 15, 30, 200]
    assert {parameters for _, _, parameters, _ in proposer.asked} == {wanted.chosen.parameters}


def test_removed_places_are_named_to_the_structure():
    """What may not be found is told as a mask over all places; nothing is where all may be."""
    vectors = drawn(10)
    proposer = Proposer([[1, 2, 3, 5, 7]])
    proposed_places(proposer, tuning(), vectors[:1], VectorRows([vectors]), 2, np.array([1, 2, 3, 5, 7]))
    proposed_places(proposer, tuning(), vectors[:1], VectorRows([vectors]), 2)
    assert np.flatnonzero(~proposer.asked[0][3]).tolist() == [1, 2, 3, 5, 7]
    assert proposer.asked[1][3] is None
