"""One tuning from the first exact neighbour to the structure that is kept."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from featx.errors import StoreError, UsageError
from featx.retrieval.faiss_library import n_search_threads
from featx.retrieval.scanning import nearest_places
from featx.retrieval.structures import SearchParameters, Structure, TooSlowError
from featx.retrieval.structures.principal_components import PrincipalComponents, fit_components
from featx.retrieval.tuning.candidates import Candidate, candidate_structures
from featx.retrieval.tuning.reasons import unreachable, why_flat, why_structure
from featx.retrieval.tuning.sweeping import HeldOut, speeds, sweep
from featx.retrieval.tuning.trials import Trial, Tuning, with_front
from featx.retrieval.tuning.wishes import RecallWish
from featx.retrieval.vector_rows import VectorRows

_LOGGER = logging.getLogger(__name__)
_SHARE_HELD_OUT = 20  # at most one row in so many
_WORTH_IT = 1.5  # times the speed of exact search, for what an approximation may miss
_SHARE_OF_TIME = 0.6  # that one structure may take of what is left
_GROWTH = 2.0  # memory while a structure grows, as a multiple of what it takes at last
_FLAT_SAMPLE = 20_000  # rows that exact search is timed on with one thread
_TIMING_SECONDS = ((10_000, 0.02), (50_000, 0.05), (float("inf"), 0.25))  # rows at most, seconds of one timing
_PROCESS_BYTES = 250_000_000  # of an interpreter with these libraries; of a smaller wish, an eighth is put aside
_BELIEVED_SECONDS = 1.0  # a search that took less is timed again


def flat_trial(vectors: VectorRows, wish: RecallWish, memory: int | None, one: float, every: float) -> Trial:
    """Return the trial of exact search, of which only the speed had to be measured."""
    return Trial(
        factory="Flat",
        parameters=SearchParameters(None, None, wish.k),
        recall=1.0,
        interval=(1.0, 1.0),
        queries_per_second=one,
        queries_per_second_all=every,
        n_threads=n_search_threads(),
        bytes_per_vector=4.0 * vectors.width,
        build_seconds=0.0,
        on_front=True,
        fits=memory is None or 4 * vectors.width * len(vectors) <= memory,
        meets=True,
    )


def _is_worth_it(best: Trial | None, flat: Trial) -> bool:
    return best is not None and best.queries_per_second_all >= _WORTH_IT * flat.queries_per_second_all


@dataclass
class TuningRun:
    """One tuning while it goes on: rows held out, structures tried, the best of them kept in a file."""

    vectors: VectorRows
    wish: RecallWish
    memory: int | None
    max_seconds: float
    seed: int
    on_step: Callable[[str, int, int], None] | None
    path: Path  # of the best structure so far, but for the one in memory

    trials: list[Trial] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    best: Trial | None = None
    components: PrincipalComponents | None = None
    components_seconds: float = 0.0
    started: float = field(default_factory=time.monotonic)

    def step(self, name: str, number: int, of: int) -> None:
        """Tell that something begins."""
        _LOGGER.debug("%s (%d of %d)", name, number, of)
        if self.on_step is not None:
            self.on_step(name, number, of)

    @property
    def room(self) -> int | None:
        """Bytes for a structure and its making; None where there is no bound."""
        if self.memory is None:
            return None
        held = self.vectors.n_bytes_in_memory
        return self.memory - held if 2 * held <= self.memory else self.memory

    def hold_out(self, n_queries: int) -> None:
        """Draw queries and find their neighbours among the other rows."""
        n_rows = len(self.vectors)
        n_queries = max(2, min(n_queries, n_rows // _SHARE_HELD_OUT))
        self.step("exact neighbours", 0, 1)
        shuffled = np.random.default_rng(self.seed).permutation(n_rows)
        drawn = shuffled[:n_queries]  # in no order, so that both halves are alike
        self.held = np.sort(drawn)
        self.rows = np.sort(shuffled[n_queries:])
        queries = self.vectors.take(self.held)[np.argsort(np.argsort(drawn))]
        begun = time.perf_counter()
        neighbours, _ = nearest_places(queries, self.vectors, self.wish.k, self.rows)
        self.exact_seconds = time.perf_counter() - begun
        self.held_out = HeldOut(queries, neighbours)

    @property
    def timing_seconds(self) -> float:
        """How long one timing lasts: long enough to be told apart, short beside building."""
        return next(seconds for most, seconds in _TIMING_SECONDS if len(self.vectors) <= most)

    def try_flat(self) -> None:
        """Time exact search, which is always right."""
        few = VectorRows([self.vectors.take(np.arange(min(_FLAT_SAMPLE, len(self.vectors))))])
        share = len(few) / len(self.vectors)
        queries = self.held_out.queries
        k = min(self.wish.k, len(few))
        with threadpool_limits(limits=1):
            begun = time.perf_counter()
            nearest_places(queries[:64], few, k)
            one = share * len(queries[:64]) / (time.perf_counter() - begun)
        every = len(queries) / self.exact_seconds
        if self.exact_seconds < _BELIEVED_SECONDS:
            one, every = speeds(lambda batch: nearest_places(batch, self.vectors, k), queries, self.timing_seconds)
        flat = flat_trial(self.vectors, self.wish, self.memory, one, every)
        self.trials.append(flat)
        self.flat = flat

    def try_all(self) -> None:
        """Try structures, from cheap to dear."""
        self.step("principal components", 0, 1)
        self._fit_components()
        candidates = candidate_structures(len(self.rows), self._variances(), flat_fits=self.flat.fits)
        for number, candidate in enumerate(candidates):
            left = self.started + self.max_seconds - time.monotonic()
            reason = self._why_not(candidate, left)
            if reason:
                self.skipped.append((candidate.factory, reason))
                continue
            self.step(candidate.factory, number, len(candidates))
            try:
                self.try_one(candidate.factory, time.monotonic() + _SHARE_OF_TIME * left)
            except TooSlowError as error:
                self.skipped.append(
                    (candidate.factory, f"{error}, and {left:.0f} s of {self.max_seconds:.0f} are left")
                )
            except UsageError as error:  # too few vectors to train it
                self.skipped.append((candidate.factory, str(error)))

    def _fit_components(self) -> None:
        begun = time.perf_counter()
        self.components = fit_components(self.vectors, np.random.default_rng(self.seed).permutation(self.rows))
        self.components_seconds = time.perf_counter() - begun

    def _variances(self) -> np.ndarray:
        return np.ones(self.vectors.width) if self.components is None else self.components.variances

    def _why_not(self, candidate: Candidate, seconds_left: float) -> str:
        """Return why a candidate is not tried; empty where it is."""
        if seconds_left <= 0:
            return f"{self.max_seconds:.0f} s are over"
        if self.room is not None:
            needed = _GROWTH * candidate.n_bytes + min(_PROCESS_BYTES, self.room // 8)
            if needed > self.room:
                return f"building it would take about {needed / 1e6:.3g} MB of {self.room / 1e6:.3g} MB"
        return ""

    def try_one(self, factory: str, deadline: float | None = None) -> None:
        """Build one structure and try its search parameters; keep it where it is the best so far."""
        begun = time.perf_counter()
        structure = Structure.build(
            factory,
            self.vectors,
            self.rows,
            memory=self.room,
            seed=self.seed,
            components=self.components,
            deadline=deadline,
        )
        seconds = time.perf_counter() - begun + (self.components_seconds if "PCA" in factory else 0.0)
        is_best = False
        for trial in sweep(
            structure,
            self.vectors,
            self.held_out,
            self.wish,
            seconds=self.timing_seconds,
            memory=self.memory,
            build_seconds=seconds,
        ):
            self.trials.append(trial)
            faster = self.best is None or trial.queries_per_second_all > self.best.queries_per_second_all
            if trial.fits and trial.meets and faster:
                self.best, is_best = trial, True
        if is_best or self.best is None:
            self._keep(structure)

    def _keep(self, structure: Structure) -> None:
        try:
            structure.write(self.path)
        except OSError as error:
            raise StoreError(
                f"a structure cannot be written to {self.path.parent}: {error.strerror or error}. Free disk space "
                "there, or choose another folder (TMPDIR)."
            ) from error

    def result(self, factory: str | None = None, *, at_any_recall: bool = False) -> tuple[Structure | None, Tuning]:
        """Return the best structure with all rows in it, and how it was found; None where exact search is best.

        Parameters
        ----------
        factory : str, optional
            The only one that was to be tried.
        at_any_recall : bool
            Take it also where it does not meet the wish.

        Raises
        ------
        UsageError
            When nothing that fits meets the wish.
        """
        flat = next((trial for trial in self.trials if trial.factory == "Flat"), None)
        best = self.best
        if flat is not None and (flat.fits or factory is not None) and not _is_worth_it(best, flat):
            return None, self._tuning(flat, why_flat(self.trials, best, flat))
        if best is None and at_any_recall:
            best = max((trial for trial in self.trials if trial.fits), key=lambda trial: trial.recall, default=None)
        if best is None:
            raise UsageError(
                unreachable(self.wish, self.memory, self.trials, self.skipped, self.vectors.shape, factory)
            )
        structure = Structure.read(self.path)
        structure.add(self.vectors.take(self.held), self.held)
        return structure, self._tuning(best, why_structure(best, flat))

    def _tuning(self, chosen: Trial, reason: str) -> Tuning:
        trials = with_front(self.trials)
        chosen = trials[self.trials.index(chosen)]
        n_queries = len(self.held_out.queries)
        return Tuning(self.wish, self.memory, n_queries, tuple(trials), chosen, reason, tuple(self.skipped))
