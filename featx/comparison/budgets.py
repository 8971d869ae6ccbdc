"""How much is compared: candidates and repeats for those in a hurry, and for those who want to know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from featx.comparison.candidates import Candidate
from featx.errors import UsageError
from featx.heads import HEADS
from featx.reducers import SCALERS, make_reducer

_JOINED = (2, 4)  # the deepest so many layers, side by side; and all


@dataclass(frozen=True)
class Budget:
    """A set of ways from features to classes, and how often they are measured.

    Parameters
    ----------
    ways : tuple of (str, str, str)
        Scaler, reducer and head.
    n_repeats : int
        Times that all rows are divided into folds anew.
    """

    ways: tuple[tuple[str, str, str], ...]
    n_repeats: int


def _full_ways() -> tuple[tuple[str, str, str], ...]:
    linear = [
        (scale, reduce, head)
        for scale in ("zscore", "l2", "sqrt")
        for reduce in ("none", "pca:64", "pca:256")
        for head in ("ridge", "svm", "logistic")
    ]
    other = [
        ("zscore", "pq:32", "ridge"),
        ("zscore", "pq:32", "svm"),
        ("l2", "none", "knn"),
        ("zscore", "pca:64", "knn"),
        ("zscore", "pca:64", "svm-rbf"),
        ("none", "none", "tree"),  # trees do not care how single columns are scaled
        ("none", "none", "forest"),
        ("none", "pca:64", "boosting"),
    ]
    return (*linear, *other)


BUDGETS: dict[str, Budget] = {
    "quick": Budget((("zscore", "none", "ridge"), ("zscore", "pca:128", "svm")), n_repeats=2),
    "full": Budget(_full_ways(), n_repeats=5),
}


def budget_named(name: str) -> Budget:
    """Return a row of ``BUDGETS``.

    Raises
    ------
    UsageError
        There is none of that name.
    """
    if name not in BUDGETS:
        raise UsageError(f"unknown budget {name!r}; allowed are {', '.join(BUDGETS)}. Choose one of them.")
    return BUDGETS[name]


def chosen_ways(
    budget: Budget,
    scales: Sequence[str] | None = None,
    reduces: Sequence[str] | None = None,
    heads: Sequence[str] | None = None,
) -> tuple[tuple[str, str, str], ...]:
    """Return the ways of a budget or, where scalers, reducers or heads are named, all combinations of these.

    Parameters
    ----------
    budget : Budget
        Gives the values of what is not named: all that occur in it.
    scales, reduces, heads : sequence of str, optional
        Names.

    Raises
    ------
    UsageError
        For an unknown name.
    """
    for given, allowed, what in ((scales, SCALERS, "scaler"), (heads, HEADS, "head")):
        unknown = [name for name in given or () if name not in allowed]
        if unknown:
            raise UsageError(f"unknown {what} {unknown[0]!r}; allowed are {', '.join(allowed)}. Choose among them.")
    for reduce in reduces or ():
        make_reducer(reduce)
    if not (scales or reduces or heads):
        return budget.ways
    asked = (scales, reduces, heads)
    columns = [given or dict.fromkeys(way[place] for way in budget.ways) for place, given in enumerate(asked)]
    return tuple((scale, reduce, head) for scale in columns[0] for reduce in columns[1] for head in columns[2])


def joined_layers(layers: Sequence[str]) -> list[str]:
    """Return names of the deepest two, the deepest four and all layers side by side.

    Parameters
    ----------
    layers : sequence of str
        From the shallowest to the deepest.
    """
    counts = {n for n in (*_JOINED, len(layers)) if 2 <= n <= len(layers)}
    return ["+".join(layers[-n:]) for n in sorted(counts)]


def make_candidates(
    layers: Sequence[str], widths: Mapping[str, int], ways: Sequence[tuple[str, str, str]], n_train: int
) -> tuple[Candidate, ...]:
    """Return every layer with every way, without those that would be the same, and with a baseline.

    A PCA to as many components as there are columns, or training rows, only turns the rows: heads that do not notice
    have "none" instead, the others are measured without the PCA.

    Parameters
    ----------
    layers : sequence of str
        Names of features, joined by ``+`` where several stand side by side.
    widths : mapping of str to int
        Columns of each single layer.
    ways : sequence of (str, str, str)
        Scaler, reducer and head.
    n_train : int
        Rows of the smallest training part of a fold.

    Raises
    ------
    UsageError
        For no layer, or one without a width.
    """
    if not layers:
        raise UsageError("there is no layer to compare; name one or more")
    unknown = [part for layer in layers for part in layer.split("+") if part not in widths]
    if unknown:
        raise UsageError(f"there are no features {unknown[0]!r}; there are {', '.join(widths)}. Name one of them.")
    candidates = [
        Candidate(layer, scale, _needed(reduce, sum(widths[part] for part in layer.split("+")), n_train), head)
        for layer in layers
        for scale, reduce, head in ways
        if head != "majority"
    ]
    return (*dict.fromkeys(candidates), Candidate(layers[0], "none", "none", "majority"))


def _needed(reduce: str, width: int, n_train: int) -> str:
    size = getattr(make_reducer(reduce), "n_components", None)
    return "none" if isinstance(size, int) and size >= min(width, n_train) else reduce
