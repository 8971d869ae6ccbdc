"""The fastest structure that finds as many of the true neighbours as somebody wishes, in the memory there is."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from featx.errors import UsageError
from featx.retrieval.scanning import nearest_places
from featx.retrieval.structures import Structure
from featx.retrieval.structures.training import check_factory
from featx.retrieval.tuning.reasons import unreachable
from featx.retrieval.tuning.run import TuningRun, flat_trial
from featx.retrieval.tuning.sweeping import speeds
from featx.retrieval.tuning.trials import Tuning
from featx.retrieval.tuning.wishes import RecallWish
from featx.retrieval.vector_rows import VectorRows

_FEW_ROWS = 2000  # exact search of so few takes less than a millisecond, whatever else is tried
_FEWEST_ROWS = 40  # that some can be held out of


def tune(
    vectors: VectorRows,
    wish: RecallWish,
    *,
    memory: int | None = None,
    factory: str | None = None,
    n_queries: int = 2000,
    max_seconds: float = 900.0,
    seed: int = 0,
    on_step: Callable[[str, int, int], None] | None = None,
    at_any_recall: bool = False,
) -> tuple[Structure | None, Tuning]:
    """Return the fastest structure of all rows that meets a wish, and how it was found; None where exact search wins.

    Parameters
    ----------
    vectors : VectorRows
        Of length 1, or 0; shape (n, d). Row i gets place i.
    wish : RecallWish
        The recall, at k.
    memory : int, optional
        Bytes that bound what is kept, the vectors included where they lie in memory, and what building takes on top.
        Vectors that alone take more than half of it are not counted: they are the caller's.
    factory : str, optional
        Only this structure is built (as for ``faiss.index_factory``), and its search parameters are chosen.
    n_queries : int
        Rows to hold out as queries, at most; one row in 20 at most. Those are added to the structure at the end.
    max_seconds : float
        After which nothing more is begun; structures that would be built too late are skipped, and listed so.
    seed : int
        Of the rows held out, of samples and of k-means. What is chosen depends on timings too, and the links of a
        graph of more than 20,000 rows on the order in which threads get to them.
    on_step : callable, optional
        Called with what begins, its number, and how many there are.
    at_any_recall : bool
        With a factory: where it does not meet the wish, take it with the parameters that find most.

    Raises
    ------
    UsageError
        When nothing that fits meets the wish (the message says what came nearest), or FAISS does not know the factory.
    StoreError
        When vectors cannot be read, or the disk is full.

    Notes
    -----
    Held-out rows are queries that no structure has seen. Their exact neighbours among the other rows come from one
    pass by blocks. A half of them chooses the parameters of each structure, with a margin, and the recall that is told
    is that of the other half, so that it is not too good because it was chosen. Only where that half falls short of
    the wish is the next fastest taken.
    """
    if factory is None and len(vectors) < max(_FEW_ROWS, 20 * wish.k):
        return None, _flat_only(vectors, wish, memory)
    if len(vectors) < max(_FEWEST_ROWS, 2 * wish.k):
        raise UsageError(
            f"{factory!r} was asked for with {len(vectors)} vectors, too few to hold some out. Leave the factory "
            "out: so few are searched exactly in no time."
        )
    if factory is not None:
        check_factory(factory, vectors.width)
    with tempfile.TemporaryDirectory(prefix="featx-") as folder:
        run = TuningRun(vectors, wish, memory, max_seconds, seed, on_step, Path(folder) / "best")
        run.hold_out(n_queries)
        if factory is None:
            run.try_flat()
            run.try_all()
        elif factory == "Flat":
            run.try_flat()
        else:
            run.step(factory, 0, 1)
            run.try_one(factory)
        return run.result(factory, at_any_recall=at_any_recall and factory is not None)


def _flat_only(vectors: VectorRows, wish: RecallWish, memory: int | None) -> Tuning:
    """Return the tuning of so few vectors that nothing else is tried."""
    queries = vectors.take(np.arange(min(256, len(vectors))))
    k = min(wish.k, len(vectors))
    one, every = speeds(lambda batch: nearest_places(batch, vectors, k), queries, 0.05)
    trial = flat_trial(vectors, wish, memory, one, every)
    if not trial.fits:
        raise UsageError(unreachable(wish, memory, [trial], [], vectors.shape, None))
    reason = f"exact search: {len(vectors)} vectors are too few for anything else to be worth while"
    return Tuning(wish, memory, 0, (trial,), trial, reason)
