"""What was tried for a wish, how it did, and what was chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from featx.retrieval.structures import SearchParameters
from featx.retrieval.tuning.wishes import RecallWish


@dataclass(frozen=True)
class Trial:
    """One structure with one choice of search parameters.

    Attributes
    ----------
    factory : str
        As FAISS calls it; ``Flat`` is exact search without any structure.
    parameters : SearchParameters
    recall : float
        On held-out queries that had no part in choosing the parameters.
    interval : tuple of float
        95 % of it, low and high.
    queries_per_second : float
        On one thread, in batches, scoring included.
    queries_per_second_all : float
        On all threads.
    n_threads : int
        How many these are.
    bytes_per_vector : float
        That are kept in memory: of the structure, or of the vectors for ``Flat``.
    build_seconds : float
    on_front : bool
        No other is at least as good in recall, speed and bytes, and better in one.
    fits : bool
        In the memory wished for.
    meets : bool
        The recall wished for, on the queries that it was chosen with and on those that it is reported on.
    """

    factory: str
    parameters: SearchParameters
    recall: float
    interval: tuple[float, float]
    queries_per_second: float
    queries_per_second_all: float
    n_threads: int
    bytes_per_vector: float
    build_seconds: float
    on_front: bool
    fits: bool
    meets: bool

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {**asdict(self), "interval": list(self.interval)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Trial:
        """Return what `to_json` gave.

        Raises
        ------
        TypeError, ValueError, KeyError
            For other values.
        """
        low, high = values["interval"]
        parameters = SearchParameters(**values["parameters"])
        return cls(**{**values, "parameters": parameters, "interval": (float(low), float(high))})


@dataclass(frozen=True)
class Tuning:
    """How a structure was found for a wish.

    Attributes
    ----------
    wish : RecallWish
    memory : int or None
        Bytes that it may take.
    n_queries : int
        Queries that were held out; the recall of each trial is on a half of them.
    trials : tuple of Trial
    chosen : Trial
        Of these; ``Flat`` where exact search is the right answer.
    reason : str
        Why, in words.
    skipped : tuple of tuple of str
        Factory, and why it was not tried.
    """

    wish: RecallWish
    memory: int | None
    n_queries: int
    trials: tuple[Trial, ...]
    chosen: Trial
    reason: str
    skipped: tuple[tuple[str, str], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "wish": asdict(self.wish),
            "memory": self.memory,
            "n_queries": self.n_queries,
            "trials": [trial.to_json() for trial in self.trials],
            "chosen": self.chosen.to_json(),
            "reason": self.reason,
            "skipped": [list(each) for each in self.skipped],
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Tuning:
        """Return what `to_json` gave.

        Raises
        ------
        TypeError, ValueError, KeyError
            For other values.
        """
        return cls(
            wish=RecallWish(**values["wish"]),
            memory=values["memory"],
            n_queries=values["n_queries"],
            trials=tuple(Trial.from_json(each) for each in values["trials"]),
            chosen=Trial.from_json(values["chosen"]),
            reason=str(values["reason"]),
            skipped=tuple((str(factory), str(why)) for factory, why in values["skipped"]),
        )


def with_front(trials: Sequence[Trial]) -> list[Trial]:
    """Return the trials with those marked that lie on the Pareto front of recall, speed on all threads, and bytes."""
    merits = [(trial.recall, trial.queries_per_second_all, -trial.bytes_per_vector) for trial in trials]
    return [
        replace(trial, on_front=not any(_dominates(other, own) for other in merits))
        for trial, own in zip(trials, merits, strict=True)
    ]


def _dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a >= b for a, b in zip(one, other, strict=True))
