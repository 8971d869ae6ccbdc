"""Search parameters of one structure: how recall and speed depend on them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from featx.retrieval.faiss_library import n_search_threads
from featx.retrieval.scanning import best_proposed
from featx.retrieval.structures import SearchParameters, Structure
from featx.retrieval.tuning.trials import Trial
from featx.retrieval.tuning.wishes import RecallWish
from featx.retrieval.vector_rows import VectorRows

_CANDIDATES_PER_NEIGHBOUR = (1, 1.3, 1.6, 2, 2.5, 3, 4, 5, 6, 8, 10, 13, 16, 20, 25, 32)
_STEPS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)
_MOST_CELLS_SHARE = 0.5  # looking into more of them takes longer than comparing with everything
_SHORTEST_EF, _LONGEST_EF = 16, 1024
_MARGIN = 1.5  # standard errors that parameters must be above the wish on the queries they are chosen with
_SLOWER = 0.7  # of the best speed that met the wish: beyond, more thoroughness only costs more
_SATURATED = 5e-4
_QUERIES_PER_BATCH = 256


@dataclass(frozen=True)
class HeldOut:
    """Queries that a structure has not seen, and their true neighbours among what it has.

    Attributes
    ----------
    queries : ndarray of float32, shape (n_queries, d)
        The first half chooses parameters, the second half tells how good they are.
    neighbours : ndarray of int64, shape (n_queries, k)
    """

    queries: np.ndarray
    neighbours: np.ndarray

    @property
    def n_choosing(self) -> int:
        """How many of the queries choose parameters."""
        return len(self.queries) // 2


def sweep(
    structure: Structure,
    vectors: VectorRows,
    held_out: HeldOut,
    wish: RecallWish,
    *,
    seconds: float,
    memory: int | None,
    build_seconds: float,
) -> Iterator[Trial]:
    """Yield trials of a structure, from hasty to thorough, until more thoroughness does not pay.

    Parameters
    ----------
    structure : Structure
        Of all rows but those held out.
    vectors : VectorRows
        That candidates are scored with.
    held_out : HeldOut
        Queries, and their neighbours among the rows of the structure.
    wish : RecallWish
        What parameters are chosen for.
    seconds : float
        That one timing lasts, at least.
    memory, build_seconds
        As the trials say them.

    Notes
    -----
    Scored exactly, a true neighbour that is among the candidates is among the k best. So the recall is the share of
    true neighbours that were proposed, and one search gives the recall for every number of candidates. The number is
    the smallest with which the first half of the queries meets the wish, with 1.5 standard errors to spare.
    """
    n_bytes = structure.n_bytes
    fastest, last_recall = 0.0, -1.0
    for nprobe, ef_search in _settings(structure):
        n_most = min(_most_candidates(wish.k, ef_search), structure.n_places)
        parameters = SearchParameters(nprobe, ef_search, n_most)
        found = recall_by_candidates(structure.propose(held_out.queries, n_most, parameters), held_out.neighbours)
        n_candidates, chosen_meets = _fewest_candidates(found[: held_out.n_choosing], wish, n_most)
        reported = found[held_out.n_choosing :, n_candidates - 1]
        parameters = SearchParameters(nprobe, ef_search, n_candidates)
        one, every = _speeds(structure, parameters, vectors, held_out.queries, wish.k, seconds)
        yield Trial(
            factory=structure.factory,
            parameters=parameters,
            recall=float(reported.mean()),
            interval=mean_interval(reported),
            queries_per_second=one,
            queries_per_second_all=every,
            n_threads=n_search_threads(),
            bytes_per_vector=n_bytes / structure.n_places,
            build_seconds=build_seconds,
            on_front=False,
            fits=memory is None or n_bytes <= memory,
            meets=bool(chosen_meets and reported.mean() >= wish.recall),
        )
        recall = float(found[: held_out.n_choosing, -1].mean())
        fastest = max(fastest, every) if chosen_meets else fastest
        if every < _SLOWER * fastest or ((nprobe or ef_search or 0) >= 8 and recall - last_recall < _SATURATED):
            return
        last_recall = recall


def _settings(structure: Structure) -> Iterator[tuple[int | None, int | None]]:
    """Yield nprobe and efSearch, more thorough each time."""
    if structure.n_cells is not None:
        most = max(1, int(structure.n_cells * _MOST_CELLS_SHARE))
        yield from ((step, None) for step in _STEPS if step <= most)
    elif structure.is_graph:
        yield from ((None, step) for step in _STEPS if _SHORTEST_EF <= step <= _LONGEST_EF)
    else:
        yield None, None


def _most_candidates(k: int, ef_search: int | None) -> int:
    """Return the largest number of candidates to try. A graph proposes no more than it keeps in its list."""
    most = int(_CANDIDATES_PER_NEIGHBOUR[-1] * k)
    return most if ef_search is None else max(min(most, ef_search), k)


def recall_by_candidates(proposals: np.ndarray, neighbours: np.ndarray) -> np.ndarray:
    """Return the recall of each query with only its first m proposals, for every m.

    Parameters
    ----------
    proposals : ndarray of int64, shape (n_queries, n)
        Most promising first; −1 is none.
    neighbours : ndarray of int64, shape (n_queries, k)
        The true ones.

    Returns
    -------
    ndarray of float, shape (n_queries, n)
    """
    hits = np.stack([np.isin(found, true) for found, true in zip(proposals, neighbours, strict=True)])
    return hits.cumsum(axis=1) / neighbours.shape[1]


def _fewest_candidates(recalls: np.ndarray, wish: RecallWish, n_most: int) -> tuple[int, bool]:
    """Return how many candidates to score, and whether they meet the wish.

    Where none do: as many as hold nearly all of the neighbours that are proposed at all.
    """
    numbers = [round(wish.k * factor) for factor in _CANDIDATES_PER_NEIGHBOUR]
    numbers = [*(number for number in numbers if number < n_most), n_most]
    for number in numbers:
        chosen = recalls[:, number - 1]
        if chosen.mean() - _MARGIN * standard_error(chosen) >= wish.recall:
            return number, True
    best = recalls[:, n_most - 1].mean()
    return next(number for number in numbers if recalls[:, number - 1].mean() >= 0.99 * best), False


def standard_error(values: np.ndarray) -> float:
    """Return the standard error of a mean; 0 for a single value."""
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0


def mean_interval(recalls: np.ndarray) -> tuple[float, float]:
    """Return the 95 % interval of a mean recall over queries: normal; where all are perfect, Wilson's.

    Parameters
    ----------
    recalls : ndarray of float, shape (n_queries,)
        0 to 1.
    """
    mean, error = float(recalls.mean()), standard_error(recalls)
    if mean in (0.0, 1.0) or error == 0.0:
        # no query failed: how often might one (Wilson 1927), as if each failed wholly or not at all
        doubt = 1.96**2 / (len(recalls) + 1.96**2)
        return max(mean - doubt, 0.0), min(mean + (doubt if mean < 1 else 0.0), 1.0)
    return max(mean - 1.96 * error, 0.0), min(mean + 1.96 * error, 1.0)


def _speeds(
    structure: Structure, parameters: SearchParameters, vectors: VectorRows, queries: np.ndarray, k: int, seconds: float
) -> tuple[float, float]:
    """Return queries a second on one thread and on all, scoring included."""

    def search(batch: np.ndarray) -> None:
        proposals = structure.propose(batch, parameters.n_candidates, parameters)
        best_proposed(batch, vectors, proposals, k)

    return speeds(search, queries, seconds)


def speeds(search: Callable[[np.ndarray], object], queries: np.ndarray, seconds: float) -> tuple[float, float]:
    """Return queries a second of a search by batches of 256, on one thread and on all.

    Parameters
    ----------
    search : callable
        Takes queries, as ndarray of float32.
    queries : ndarray of float32, shape (n_queries, d)
        Taken in turn.
    seconds : float
        That each timing lasts, and at least one batch.
    """
    with threadpool_limits(limits=1):
        one = _speed(search, queries, seconds)
    return one, (_speed(search, queries, seconds) if n_search_threads() > 1 else one)


def _speed(search: Callable[[np.ndarray], object], queries: np.ndarray, seconds: float) -> float:
    """Return queries a second of the faster half of the batches: other work on a machine only slows down."""
    durations: list[float] = []  # of one query
    passed, start = 0.0, 0
    while passed < seconds or not durations:
        batch = queries[start : start + _QUERIES_PER_BATCH]
        begun = time.perf_counter()
        search(batch)
        took = time.perf_counter() - begun
        durations.append(took / len(batch))
        passed += took
        start = (start + len(batch)) % len(queries)
    faster_half = sorted(durations)[: (len(durations) + 1) // 2]
    return float(1 / np.median(faster_half))
