"""FAISS, loaded when it is first needed: it takes a second, and must not be loaded before a process forks."""

from __future__ import annotations

import warnings
from typing import Any


def import_faiss() -> Any:
    """Return the module ``faiss``."""
    with warnings.catch_warnings():
        # SWIG's own types warn on import from Python 3.12 on.
        warnings.simplefilter("ignore", DeprecationWarning)
        import faiss
    return faiss


def n_search_threads() -> int:
    """Return how many threads a search takes, which threadpoolctl and OMP_NUM_THREADS can limit."""
    return int(import_faiss().omp_get_max_threads())
