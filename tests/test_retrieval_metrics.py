"""Metrics of rankings against scikit-learn and numbers worked out by hand."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from featx.errors import UsageError
from featx.retrieval.metrics import average_precision, measure_rankings


@pytest.mark.parametrize("seed", range(5))
def test_full_rankings_equal_scikit_learn(seed):
    """On a ranking of the whole database, average precision is scikit-learn's."""
    rng = np.random.default_rng(seed)
    relevant = rng.random(60) < 0.2
    relevant[seed] = True
    ranked = rng.permutation(60)
    scores = np.empty(60)
    scores[ranked] = -np.arange(60)
    ours = average_precision(ranked, np.flatnonzero(relevant))
    assert ours == pytest.approx(average_precision_score(relevant, scores), abs=1e-12)


@pytest.mark.parametrize(
    ("ranked", "relevant", "expected"),
    [
        ([3, 5, 1, 2], [3], 1),
        ([5, 1, 3, 2], [3], 1 / 3),
        ([7, 3, 9, 5], [3, 5], (1 / 2 + 2 / 4) / 2),
        ([1, 2], [1, 2, 3, 4, 5], 1),  # cut off after two, both relevant: no better ranking of two rows
        ([1, 9], [1, 2, 3, 4, 5], 1 / 2),
        ([9, 8], [1], 0),
        ([], [1], 0),
        ([1, -1, -1, -1], [1, 2], 1 / 2),  # places that were not filled are misses
        ([9, 1, 2], [1, 1, 2], (1 / 2 + 2 / 3) / 2),  # a relevant row named twice is one row
    ],
)
def test_average_precision_by_hand(ranked, relevant, expected):
    """Short rankings, full and cut off."""
    assert average_precision(ranked, relevant) == pytest.approx(expected)


def test_means_by_hand():
    """All metrics of three queries, one of them without an answer, worked out on paper."""
    rankings = [([0, 9, 1, 8, 2], [0, 1]), ([9, 3, 8, 7, 6], [3, 4, 5]), ([1, 2, 3, 4, 5], [])]
    metrics = measure_rankings(iter(rankings), ks=(1, 3, 5, 6))
    assert metrics.mean_average_precision == pytest.approx(((1 + 2 / 3) / 2 + (1 / 2) / 3) / 2)
    assert metrics.top_1 == 0.5
    assert metrics.recall_at == pytest.approx({1: (1 / 2 + 0) / 2, 3: (1 + 1 / 3) / 2, 5: (1 + 1 / 3) / 2})
    assert metrics.precision_at == pytest.approx({1: 1 / 2, 3: (2 / 3 + 1 / 3) / 2, 5: (2 / 5 + 1 / 5) / 2})
    assert metrics.found_at == {1: 0.5, 3: 1.0, 5: 1.0}
    assert metrics.ns_score is None
    assert (metrics.n_queries, metrics.n_without_answer) == (2, 1)


def test_ns_score_counts_the_query():
    """In groups of four, the query counts as found, whether it is in the ranking or was taken out of it."""
    within = [([0, 1, 9, 2, 3], [0, 1, 2, 3]), ([4, 5, 6, 7, 0], [4, 5, 6, 7])]
    without = [(ranked[1:], relevant[1:]) for ranked, relevant in within]
    assert measure_rankings(within).ns_score == pytest.approx(3.5)
    assert measure_rankings(without, query_left_out=True).ns_score == pytest.approx(3.5)
    assert measure_rankings(without).ns_score is None
    assert measure_rankings([*within, ([1, 2, 3, 4], [1])]).ns_score is None


def test_interval_covers_the_true_mean():
    """Of many samples of 40 queries, about 95 % have the mean of all queries in their interval."""
    rng = np.random.default_rng(0)
    places = 1 + rng.geometric(0.4, size=4000)  # where the only relevant row stands
    true_mean = np.mean(1 / places)
    hits = 0
    for _ in range(300):
        sample = rng.choice(places, size=40)
        low, high = measure_rankings(([*range(1, p), 0], [0]) for p in sample).interval
        hits += low <= true_mean <= high
    assert 0.92 <= hits / 300 <= 1


def test_perfect_queries_are_not_certain():
    """A few queries of 1.0 leave room below; many leave little."""
    few, many = (measure_rankings([([0, 1], [0])] * n).interval for n in (3, 300))
    assert few[1] == many[1] == 1.0
    assert few[0] < 0.6 < 0.98 < many[0]


def test_single_query_has_an_interval():
    """One query says little, but nothing outside of 0 to 1."""
    low, high = measure_rankings([([1, 0], [0])]).interval
    assert (low, high) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: average_precision([1, 2, 1], [1]), "row 1 stands more than once"),
        (lambda: average_precision([1, 2], []), "no row is relevant"),
        (lambda: measure_rankings([([1], []), ([2], [])]), "none of 2 queries"),
        (lambda: measure_rankings([]), "none of 0 queries"),
        (lambda: measure_rankings([([1], [1])], ks=(0,)), "1 and more"),
    ],
)
def test_what_cannot_be_measured(call, message):
    """Each is refused with a reason."""
    with pytest.raises(UsageError, match=message):
        call()
