"""Vectors moved towards their neighbours, of queries and of whole databases."""

import numpy as np
import pytest

from featx.errors import UsageError
from featx.retrieval.expansion import augment_blocks, expand_queries


def unit_rows(n, width, seed=0):
    rows = np.random.default_rng(seed).normal(size=(n, width)) + 0.5
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def search_in(vectors):
    """An exact search by brute force, in ties the first row first."""

    def search(queries, k):
        scores = queries @ vectors.T
        found = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return found, np.take_along_axis(scores, found, axis=1)

    return search


def taking(vectors, asked=None):
    def take(rows):
        if asked is not None:
            asked.append(len(rows))
        return vectors[rows]

    return take


@pytest.mark.parametrize("alpha", [0, 1, 3.5])
def test_expansion_is_the_weighted_sum(alpha):
    """The result is what a loop over neighbours gives, those of negative score left out."""
    queries, rows = unit_rows(4, 5), unit_rows(12, 5, seed=1)
    neighbours = rows.reshape(4, 3, 5)
    scores = np.einsum("qd,qmd->qm", queries, neighbours)
    scores[1, 2], scores[2, 0] = -0.3, 0.0
    expected = []
    for query in range(4):
        total = queries[query].astype(np.float64)
        for rank in range(3):
            if scores[query, rank] > 0:
                total = total + float(scores[query, rank]) ** alpha * neighbours[query, rank]
        expected.append(total / np.linalg.norm(total))
    result = expand_queries(queries, neighbours, scores, alpha=alpha)
    np.testing.assert_allclose(result, expected, atol=1e-6)
    assert result.dtype == np.float32


def test_places_without_a_neighbour_do_not_count():
    """A score of -inf leaves its place out, even when NaN stands in it; no neighbours at all change nothing."""
    queries = unit_rows(2, 5)
    nothing = np.full((2, 3, 5), np.nan, np.float32)
    np.testing.assert_allclose(expand_queries(queries, nothing, np.full((2, 3), -np.inf)), queries, atol=1e-7)
    np.testing.assert_allclose(expand_queries(queries, nothing[:, :0], np.empty((2, 0))), queries, atol=1e-7)


@pytest.mark.parametrize("block_rows", [1, 7, 100])
def test_augmented_rows_equal_a_loop(block_rows):
    """Each row moves towards its nearest others, however the database is divided into blocks."""
    rows = unit_rows(20, 6)
    result = list(augment_blocks(taking(rows), 20, search_in(rows), n_neighbours=3, alpha=2, block_rows=block_rows))
    expected = []
    for number, row in enumerate(rows.astype(np.float64)):
        scores = rows.astype(np.float64) @ row
        others = [other for other in np.argsort(-scores) if other != number][:3]
        total = row + sum(max(scores[other], 0) ** 2 * rows[other] for other in others)
        expected.append(total / np.linalg.norm(total))
    np.testing.assert_allclose(np.concatenate(result), expected, atol=1e-6)
    assert max(map(len, result)) <= block_rows


def test_copies_do_not_hide_the_row_itself():
    """Among more copies than neighbours are asked for, a row that its own search misses has no neighbour too many."""
    copies = np.repeat(unit_rows(1, 4), 6, axis=0)
    result = np.concatenate(list(augment_blocks(taking(copies), 6, search_in(copies), n_neighbours=2)))
    np.testing.assert_allclose(result, copies, atol=1e-6)


@pytest.mark.parametrize("n_rows", [1, 2])
def test_fewer_others_than_neighbours(n_rows):
    """A database of one row stays as it is, one of two rows averages both."""
    rows = unit_rows(2, 4)[:n_rows]
    result = np.concatenate(list(augment_blocks(taking(rows), n_rows, search_in(rows), n_neighbours=9, alpha=0)))
    total = rows.sum(axis=0)
    np.testing.assert_allclose(result, np.repeat(total[None] / np.linalg.norm(total), n_rows, axis=0), atol=1e-6)


def test_a_search_that_finds_too_few():
    """Places that a search could not fill are left out, and what it did find still counts."""
    rows = unit_rows(5, 4)

    def search(queries, k):
        found, scores = search_in(rows)(queries, k)
        found[:, 2:], scores[:, 2:] = -1, -np.inf
        return found, scores

    short = np.concatenate(list(augment_blocks(taking(rows), 5, search, n_neighbours=3)))
    one = np.concatenate(list(augment_blocks(taking(rows), 5, search_in(rows), n_neighbours=1)))
    np.testing.assert_allclose(short, one, atol=1e-6)


def test_memory_is_bounded_by_the_block():
    """No more rows are taken at once than a block and its neighbours have."""
    rows, asked = unit_rows(50, 4), []
    list(augment_blocks(taking(rows, asked), 50, search_in(rows), n_neighbours=3, block_rows=8))
    assert max(asked) == 8 * 3
    assert sum(asked) == 50 * 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"alpha": -1}, "alpha=-1"),
        ({"alpha": float("nan")}, "alpha=nan"),
        ({"scores": np.full((2, 3), np.nan)}, "NaN"),
        ({"scores": np.zeros((2, 2))}, "do not fit"),
        ({"neighbours": np.zeros((2, 3, 4))}, "do not fit"),
        ({"queries": np.zeros(5)}, "do not fit"),
    ],
)
def test_arguments_that_do_not_fit(changes, message):
    """Each is refused with what is needed."""
    arguments = {"queries": unit_rows(2, 5), "neighbours": np.zeros((2, 3, 5)), "scores": np.zeros((2, 3))}
    with pytest.raises(UsageError, match=message):
        expand_queries(**{**arguments, **changes})


def test_augmenting_with_no_neighbour_is_refused():
    """It would be a costly way to change nothing."""
    rows = unit_rows(3, 4)
    with pytest.raises(UsageError, match="0 neighbours"):
        list(augment_blocks(taking(rows), 3, search_in(rows), n_neighbours=0))
