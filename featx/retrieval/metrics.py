"""How good rankings are, measured against the rows that should have been found."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
from scipy.special import stdtrit

from featx.errors import UsageError

_GROUP = 4  # images of one object in the benchmark that the N-S score was made for


@dataclass(frozen=True)
class RankingMetrics:
    """How good the rankings of many queries are: means over the queries that have anything to find.

    Attributes
    ----------
    mean_average_precision : float
        Mean of `average_precision`, 0 to 1.
    interval : tuple of float
        95 % interval of that mean, for other queries of the same kind: Student's, its spread taken with one query of 0
        and one of 1 added, so that a few perfect queries do not pass for certainty.
    top_1 : float
        Share of queries whose first row is relevant.
    recall_at : dict of int to float
        k → relevant rows among the first k, divided by all that are relevant.
    precision_at : dict of int to float
        k → relevant rows among the first k, divided by k.
    found_at : dict of int to float
        k → share of queries with a relevant row among the first k; what metric learning calls recall@k.
    ns_score : float or None
        Mean number of relevant rows among the first four, 0 to 4, where images come in groups of four and the query is
        one of the group (Nistér and Stewénius 2006). The query counts: found like any row when it is in the database,
        and as one that was found when it was left out of the ranking. None unless every query has a group of four.
    n_queries : int
        Queries that were measured.
    n_without_answer : int
        Queries that were left out, because no row is relevant to them.

    Notes
    -----
    A k beyond the longest ranking is not in the dictionaries: nothing is known there.
    """

    mean_average_precision: float
    interval: tuple[float, float]
    top_1: float
    recall_at: dict[int, float]
    precision_at: dict[int, float]
    found_at: dict[int, float]
    ns_score: float | None
    n_queries: int
    n_without_answer: int


def average_precision(ranked: Any, relevant: Any) -> float:
    """Return the average precision of one ranking: the mean, over relevant rows, of the precision where each stands.

    Parameters
    ----------
    ranked : array-like of int, shape (n,)
        Rows, best first, each once; a negative number is a place that the search could not fill.
    relevant : array-like of int, shape (r,)
        Rows that should be found, at least one.

    Returns
    -------
    float
        0 to 1. On a ranking of the whole database it is that of ``sklearn.metrics.average_precision_score``, ties in
        the order given. Of a ranking cut off after n rows, relevant rows that were not reached count 0, and the mean is
        over min(r, n): 1 is what the best ranking of n rows has.

    Raises
    ------
    UsageError
        For a row that stands twice in the ranking, and where nothing is relevant.

    Notes
    -----
    The mean over min(r, n) is that of the Google Landmarks benchmark (Weyand et al. 2020, mAP@100); trec_eval divides
    by r, which no ranking of n < r rows can bring to 1. Philbin et al. 2007 take the area under the same curve with
    trapezoids, which gives slightly more, or less.

    Examples
    --------
    >>> average_precision([7, 3, 9, 5], [3, 5])
    0.5
    """
    hits, n_relevant = _hits(ranked, relevant)
    if not n_relevant:
        raise UsageError("no row is relevant to the query. Leave such queries out, as measure_rankings does.")
    return _average_precision(hits, n_relevant)


def measure_rankings(
    rankings: Iterable[tuple[Any, Any]], ks: Sequence[int] = (1, 5, 10, 100), *, query_left_out: bool = False
) -> RankingMetrics:
    """Return how good rankings are.

    Parameters
    ----------
    rankings : iterable of (ranked, relevant)
        A pair a query, as in `average_precision`, read once. Without relevant rows a query is left out, and counted.
    ks : sequence of int
        Depths of recall and precision, 1 or more.
    query_left_out : bool
        Whether each query is a row of the database and was taken out of its own ranking and relevant rows. Only the
        N-S score needs to know: its groups of four then show as three relevant rows.

    Raises
    ------
    UsageError
        When no query has a relevant row, and as in `average_precision`.
    """
    if any(k < 1 for k in ks):
        raise UsageError(f"depths {tuple(ks)} were given; allowed are 1 and more, such as 1, 5, 10.")
    precisions: list[float] = []
    counts: list[np.ndarray] = []  # of each query: hits among the first 1, the first _GROUP (without itself), each k
    numbers: list[int] = []
    n_without_answer = longest = 0
    n_others = _GROUP - query_left_out
    for ranked, relevant in rankings:
        hits, n_relevant = _hits(ranked, relevant)
        if not n_relevant:
            n_without_answer += 1
            continue
        longest = max(longest, len(hits))
        precisions.append(_average_precision(hits, n_relevant))
        counts.append(np.array([hits[:depth].sum() for depth in (1, n_others, *ks)]))
        numbers.append(n_relevant)
    if not precisions:
        raise UsageError(
            f"none of {n_without_answer} queries has a relevant row; at least one is needed. Check labels or ground "
            "truth."
        )
    found, n_relevant_rows = np.array(counts), np.array(numbers)
    depths = {k: found[:, 2 + number] for number, k in enumerate(ks) if k <= longest}
    return RankingMetrics(
        mean_average_precision=float(np.mean(precisions)),
        interval=_interval(np.array(precisions)),
        top_1=float(found[:, 0].mean()),
        recall_at={k: float((hits / n_relevant_rows).mean()) for k, hits in depths.items()},
        precision_at={k: float(hits.mean() / k) for k, hits in depths.items()},
        found_at={k: float((hits > 0).mean()) for k, hits in depths.items()},
        ns_score=float(found[:, 1].mean()) + query_left_out if (n_relevant_rows == n_others).all() else None,
        n_queries=len(precisions),
        n_without_answer=n_without_answer,
    )


def _hits(ranked: Any, relevant: Any) -> tuple[np.ndarray, int]:
    """Return which places of the ranking hold a relevant row, and how many rows are relevant."""
    places, wanted = np.asarray(ranked).reshape(-1), np.unique(np.asarray(relevant).reshape(-1))
    filled = places[places >= 0]
    if len(np.unique(filled)) < len(filled):
        rows, times = np.unique(filled, return_counts=True)
        raise UsageError(f"row {rows[times > 1][0]} stands more than once in a ranking. Rank every row once.")
    return np.isin(places, wanted) & (places >= 0), len(wanted)


def _average_precision(hits: np.ndarray, n_relevant: int) -> float:
    if not len(hits):
        return 0.0
    places = np.flatnonzero(hits) + 1
    precision_at_hits = np.arange(1, len(places) + 1) / places
    return float(precision_at_hits.sum() / min(n_relevant, len(hits)))


def _interval(values: np.ndarray) -> tuple[float, float]:
    """Return the 95 % interval of the mean of values from 0 to 1."""
    spread = np.concatenate([values, [0.0, 1.0]])
    half_width = float(stdtrit(len(spread) - 1, 0.975)) * float(np.std(spread, ddof=1)) / sqrt(len(spread))
    mean = float(np.mean(values))
    return (max(0.0, mean - half_width), min(1.0, mean + half_width))
