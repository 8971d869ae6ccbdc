"""How many threads linear algebra may use on small problems."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from threadpoolctl import threadpool_limits

MANY_VALUES = 2_000_000  # numbers in the training rows; below it, threads and processes cost more than they save


def few_threads(n_values: int) -> AbstractContextManager:
    """Return a context in which small problems run on one thread.

    BLAS threads wait for each other by spinning: on 160 rows of 3344 columns, beside other work on the machine, an
    eigendecomposition took ten times as long on two threads as on one.

    Parameters
    ----------
    n_values : int
        Numbers in the training rows.
    """
    return nullcontext() if n_values > MANY_VALUES else threadpool_limits(limits=1)
