"""A search in several steps is its steps, one after the other; queries of several images are computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
from structured_indexes import structured, unit

from featx.errors import UsageError
from featx.retrieval import ImageIndex
from featx.retrieval.ranking import RankingSteps, combined, rank
from featx.retrieval.reciprocal import reciprocal_scores

WIDTH, N_ROWS = 10, 400
VECTORS = (np.random.default_rng(0).normal(size=(N_ROWS, WIDTH)) + 0.4).astype(np.float32)
QUERIES = unit(np.random.default_rng(1).normal(size=(4, WIDTH)) + 0.4).astype(np.float32)


@pytest.fixture(params=[None, "IVF8,SQ8"], ids=["flat", "structure"])
def index(request):
    """An index of 390 images with gaps among its places or ids."""
    made = ImageIndex.build(VECTORS) if request.param is None else structured(VECTORS, request.param)
    made.remove(np.arange(5, 15))
    return made


ALIVE = unit(np.delete(VECTORS, np.arange(5, 15), axis=0))


def by_cosine(queries, allowed=None):
    """Return all rows of each query by falling cosine, and these, with NumPy alone."""
    scores = unit(queries) @ ALIVE.T
    if allowed is not None:
        scores[:, ~allowed] = -np.inf
    order = np.argsort(-scores, axis=1)[:, : None if allowed is None else allowed.sum()]
    return order, np.take_along_axis(scores, order, axis=1)


def expanded(queries, n, alpha, allowed=None):
    """Return queries moved to their first n neighbours, with NumPy alone."""
    order, scores = by_cosine(queries, allowed)
    weights = np.maximum(scores[:, :n], 0) ** alpha
    return unit(queries + (weights[:, :, None] * ALIVE[order[:, :n]]).sum(axis=1))


def test_without_steps_ranking_is_searching(index):
    """Rows are positions in the index, not ids; scores are cosines; k is lowered to what there is."""
    rows, scores = rank(index, QUERIES, 1000, RankingSteps())
    order, cosines = by_cosine(QUERIES)
    np.testing.assert_array_equal(rows, order)
    np.testing.assert_allclose(scores, cosines, atol=1e-6)


@pytest.mark.parametrize("alpha", [0.0, 3.0])
@pytest.mark.parametrize("allowed", [None, np.arange(390) % 3 > 0])
def test_expansion_searches_again_with_the_mean(index, alpha, allowed):
    """The second search is with the query and its first neighbours, be they ones that may be found or not."""
    rows, scores = rank(index, QUERIES, 20, RankingSteps(expand=5, alpha=alpha), where=allowed)
    order, cosines = by_cosine(expanded(QUERIES, 5, alpha, None), allowed)
    np.testing.assert_array_equal(rows, order[:, :20])
    np.testing.assert_allclose(scores, cosines[:, :20], atol=1e-6)


@pytest.mark.parametrize(("k", "n_candidates"), [(10, 60), (60, 60), (80, 30)])
def test_reciprocal_orders_the_first_candidates_anew(index, k, n_candidates):
    """The first candidates are in the order of their new scores, and those behind them keep place and cosine."""
    rows, scores = rank(index, QUERIES, k, RankingSteps(reciprocal=True, n_candidates=n_candidates))
    order, cosines = by_cosine(QUERIES)
    for number, query in enumerate(QUERIES):
        candidates = order[number, :n_candidates]
        new = reciprocal_scores(query, ALIVE[candidates].astype(np.float32))
        again = np.argsort(-new, kind="stable")
        expected = np.concatenate([candidates[again], order[number, n_candidates:k]])[:k]
        expected_scores = np.concatenate([new[again], cosines[number, n_candidates:k]])[:k]
        np.testing.assert_allclose(scores[number], expected_scores, atol=1e-5)
        assert sorted(rows[number, :n_candidates]) == sorted(expected[:n_candidates])
        differs = rows[number] != expected
        assert len(np.unique(expected_scores[differs].round(4))) <= differs.sum() // 2  # only ties change places
        assert (rows[number] != order[number, :k]).any()


def test_both_steps_follow_each_other(index):
    """With expansion, the new order is that around the moved query."""
    steps = RankingSteps(expand=4, reciprocal=True, n_candidates=50)
    rows, scores = rank(index, QUERIES, 10, steps)
    for number, moved in enumerate(expanded(QUERIES, 4, 3.0)):
        candidates = by_cosine(moved[None])[0][0, :50]
        new = reciprocal_scores(moved.astype(np.float32), ALIVE[candidates].astype(np.float32))
        np.testing.assert_allclose(scores[number], -np.sort(-new)[:10], atol=1e-5)
        assert set(rows[number]) <= set(candidates)


def test_exact_ranking_does_without_the_structure():
    """Asked for exactness, no structure is asked for proposals."""
    index = structured(VECTORS)
    index.structure.propose = None
    with pytest.raises(TypeError):
        rank(index, QUERIES, 5, RankingSteps())
    rows, _ = rank(index, QUERIES, 5, RankingSteps(expand=2, reciprocal=True), exact=True)
    assert rows.shape == (4, 5)


def test_more_candidates_than_images_are_all_images():
    """A small index, more neighbours and candidates than it has: everything is ranked once."""
    index = ImageIndex.build(VECTORS[:6])
    rows, _ = rank(index, QUERIES, 50, RankingSteps(expand=20, reciprocal=True))
    assert [sorted(found) for found in rows.tolist()] == [list(range(6))] * 4


@pytest.mark.parametrize("wrong", [{"expand": -1}, {"alpha": -0.1}, {"alpha": np.nan}, {"n_candidates": 0}])
def test_steps_out_of_range_are_refused(wrong):
    """Negative numbers, no number and no candidates are errors that name them."""
    with pytest.raises(UsageError, match=next(iter(wrong))):
        RankingSteps(**wrong)


def test_one_image_is_itself():
    """A query of one image is its vector, bit for bit."""
    np.testing.assert_array_equal(combined([QUERIES[0]]), QUERIES[0])


def test_several_images_are_their_mean():
    """Of two directions, the one between them; by hand."""
    between = combined([np.array([1, 0], np.float32), np.array([0, 1], np.float32)])
    np.testing.assert_allclose(between, [0.5**0.5, 0.5**0.5], atol=1e-7)
    assert between.dtype == np.float32


def test_images_to_be_unlike_count_half():
    """Rocchio's formula by hand: the mean of the ones, less half the mean of the others, at length 1."""
    like = [np.array([1, 0, 0], np.float32), np.array([0, 1, 0], np.float32)]
    unlike = [np.array([0, 0, 1], np.float32), np.array([0, 1, 0], np.float32)]
    expected = np.array([0.5, 0.5 - 0.25, -0.25])
    np.testing.assert_allclose(combined(like, unlike), expected / np.linalg.norm(expected), atol=1e-7)
    random = np.random.default_rng(0).normal(size=(5, 7))
    like, unlike = unit(random[:3]).astype(np.float32), unit(random[3:]).astype(np.float32)
    rocchio = like.mean(axis=0) - 0.5 * unlike.mean(axis=0)
    np.testing.assert_allclose(combined(list(like), list(unlike)), rocchio / np.linalg.norm(rocchio), atol=1e-6)


def test_opposites_cancel_out_to_zero():
    """Two opposite images leave no direction: zero, which has score 0 with everything."""
    vector = QUERIES[0]
    query = combined([vector, -vector])
    assert query.tolist() == [0.0] * WIDTH
    assert ImageIndex.build(VECTORS[:5]).search_vectors(query[None], 5).scores.tolist() == [[0.0] * 5]
