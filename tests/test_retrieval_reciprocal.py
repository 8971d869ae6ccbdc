"""k-reciprocal re-ranking against the paper, written out with sets."""

import math
import time

import numpy as np
import pytest

from featx.errors import UsageError
from featx.retrieval.reciprocal import reciprocal_scores


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def clustered(n, width, n_clusters, seed=0):
    """Unit rows around a few centres; row 0 is the query."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(n_clusters, width))
    return unit(centres[rng.integers(n_clusters, size=n)] + rng.normal(size=(n, width)))


def by_the_paper(pool, k1, k2, share):
    """Zhong et al. 2017, equations 2 to 12, one image and one set at a time; returns the scores of all but image 0."""
    images = range(len(pool))
    distance = [[1 - float(np.dot(pool[p].astype(float), pool[g].astype(float))) for g in images] for p in images]

    def nearest(p, k):
        others = sorted((g for g in images if g != p), key=lambda g: (distance[p][g], g))
        return [p, *others[:k]]

    def reciprocal(p, k):
        return {g for g in nearest(p, k) if p in nearest(g, k)}

    def expanded(p):
        result = reciprocal(p, k1)
        for q in reciprocal(p, k1):
            its = reciprocal(q, round(k1 / 2))
            if len(reciprocal(p, k1) & its) >= 2 / 3 * len(its):
                result = result | its
        return result

    def encoding(p):
        members = expanded(p)
        values = [math.exp(-distance[p][g]) if g in members else 0.0 for g in images]
        return [value / sum(values) for value in values]

    encodings = [encoding(p) for p in images]
    averaged = [[sum(encodings[q][g] for q in nearest(p, k2 - 1)) / k2 for g in images] for p in images]

    def jaccard_distance(g):
        pairs = list(zip(averaged[0], averaged[g], strict=True))
        return 1 - sum(min(pair) for pair in pairs) / sum(max(pair) for pair in pairs)

    return [1 - ((1 - share) * jaccard_distance(g) + share * distance[0][g]) for g in images[1:]]


@pytest.mark.parametrize(("k1", "k2", "share"), [(6, 3, 0.3), (5, 1, 0.0), (3, 4, 0.5), (1, 2, 0.1), (24, 6, 0.3)])
@pytest.mark.parametrize("seed", [0, 1])
def test_scores_equal_the_paper(k1, k2, share, seed):
    """Every score is that of the paper's formulas, for several sizes of neighbourhoods."""
    pool = clustered(25, 8, 4, seed)
    scores = reciprocal_scores(pool[0], pool[1:], k1=k1, k2=k2, lambda_value=share)
    np.testing.assert_allclose(scores, by_the_paper(pool, k1, k2, share), atol=1e-6)
    assert scores.dtype == np.float32


def test_only_cosine_is_left_at_one():
    """With λ = 1 the scores are the cosines."""
    pool = clustered(30, 6, 3)
    np.testing.assert_allclose(reciprocal_scores(pool[0], pool[1:], lambda_value=1), pool[1:] @ pool[0], atol=1e-6)


def test_the_order_of_candidates_does_not_matter():
    """A candidate has its score wherever it stands."""
    pool, order = clustered(40, 6, 3), np.random.default_rng(0).permutation(39)
    scores = reciprocal_scores(pool[0], pool[1:], k1=8)
    np.testing.assert_allclose(reciprocal_scores(pool[0], pool[1:][order], k1=8), scores[order], atol=1e-6)


def test_it_finds_the_cluster_that_cosine_mixes_up():
    """A query between its own ring of images and a stray closer one prefers those that have it among their own."""
    # On a circle: the query at 0°, its kin every 8° to the left, and to the right a dense group that has no room for it
    kin = [-8, -16, -24, -32, -40]
    strangers = [7, 7.5, 8.2, 8.9, 9.6, 10.3]
    angles = np.deg2rad([0, *kin, *strangers])
    pool = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    cosines, scores = pool[1:] @ pool[0], reciprocal_scores(pool[0], pool[1:], k1=3, k2=1, lambda_value=0.0)
    assert cosines.argmax() >= len(kin)
    assert scores.argmax() < len(kin)


@pytest.mark.parametrize("n", [0, 1, 2])
def test_small_pools(n):
    """Fewer candidates than k1 are no error."""
    pool = clustered(n + 1, 6, 1)
    scores = reciprocal_scores(pool[0], pool[1:])
    assert scores.shape == (n,)
    assert np.isfinite(scores).all()


def test_copies_and_zeros_have_scores():
    """Copies of the query come first, alike; a vector of zeros is not an error."""
    pool = clustered(30, 6, 3)
    pool[4] = pool[9] = pool[0]
    pool[7] = 0
    scores = reciprocal_scores(pool[0], pool[1:], k1=5)
    assert np.isfinite(scores).all()
    assert set(np.argsort(-scores)[:2]) == {3, 8}


def test_it_is_fast():
    """Two hundred candidates take a few milliseconds: here not a hundred, for machines that are busy."""
    pool = clustered(201, 256, 8)
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        reciprocal_scores(pool[0], pool[1:])
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < 0.1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"query": np.zeros((1, 6))}, "One query|one query"),
        ({"candidates": np.zeros((4, 5))}, "do not fit"),
        ({"candidates": np.full((4, 6), np.nan)}, "NaN"),
        ({"k1": 0}, "k1=0"),
        ({"k2": 0}, "k2=0"),
        ({"lambda_value": 1.5}, "lambda=1.5"),
    ],
)
def test_arguments_that_do_not_fit(changes, message):
    """Each is refused with what is allowed."""
    arguments = {"query": np.ones(6), "candidates": np.ones((4, 6))}
    with pytest.raises(UsageError, match=message):
        reciprocal_scores(**{**arguments, **changes})
