"""Evidence by layer: every layer, and several side by side, on the same folds, with LogME and H-score beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from featx.advice.transferability import h_score, log_me
from featx.comparison import BASELINE, Candidate, CandidateResult, ComparisonProgress, ComparisonSettings
from featx.comparison import compare_candidates as compared
from featx.comparison.selecting import NEAR_TIE

MOST_ROWS = 1500  # that take part: more make the order of layers hardly surer, and the decompositions take minutes
_FEW_COPIES = 0.02  # share of rows that is left out as copies: folds that keep groups whole are far slower to draw
_FEW_ROWS = 500  # below it the folds are drawn several times: one draw of few rows decides little
_REPEATS_OF_FEW = 3
_N_INNER_FOLDS = 2


@dataclass(frozen=True)
class LayerEvidence:
    """What was measured of a layer, or of several side by side.

    Attributes
    ----------
    layer : str
        Its key; several are joined by ``+``.
    depth : float or None
        From 0 to 1, of the deepest; None where it is not known.
    width : int
        Columns.
    accuracy : float
        Of a ridge classifier, mean over the folds, its penalty chosen inside them.
    interval : tuple of float
        95 % interval of it.
    behind : float
        Accuracy of the best less this one.
    behind_interval : tuple of float
        95 % interval of that, from the same folds.
    log_me, h_score : float
        See `featx.advice.transferability`.
    """

    layer: str
    depth: float | None
    width: int
    accuracy: float
    interval: tuple[float, float]
    behind: float
    behind_interval: tuple[float, float]
    log_me: float
    h_score: float

    @property
    def is_joined(self) -> bool:
        """Whether several layers stand side by side."""
        return "+" in self.layer


@dataclass(frozen=True)
class LayerSweep:
    """All layers, measured on the same folds.

    Attributes
    ----------
    layers : tuple of LayerEvidence
        From the shallowest to the deepest, then those side by side.
    late : str
        The last layer, that the others are earlier than.
    majority_accuracy : float
        Of always naming the largest class.
    learned : bool
        Whether the best is above that by more than luck.
    n_rows, n_folds, n_repeats : int
        Rows that took part, parts that they were divided into, and how often.
    notes : tuple of str
        What was lowered or left out.
    """

    layers: tuple[LayerEvidence, ...]
    late: str
    majority_accuracy: float
    learned: bool
    n_rows: int
    n_folds: int
    n_repeats: int
    notes: tuple[str, ...] = ()

    @property
    def best(self) -> LayerEvidence:
        """The highest accuracy; of equal ones the first."""
        return max(self.layers, key=lambda entry: entry.accuracy)

    @property
    def latest(self) -> LayerEvidence:
        """The evidence of the last layer."""
        return next(entry for entry in self.layers if entry.layer == self.late)

    @property
    def best_earlier(self) -> LayerEvidence | None:
        """The best single layer before the last one; None where there is none."""
        earlier = [entry for entry in self.layers if not entry.is_joined and entry.layer != self.late]
        return max(earlier, key=lambda entry: entry.accuracy, default=None)

    @property
    def is_behind(self) -> bool:
        """Whether the last layer is no tie with the best: a point behind it, or more."""
        return self.latest.behind >= NEAR_TIE

    @property
    def is_surely_behind(self) -> bool:
        """Whether it is so by more than luck: the interval of how far does not reach 0."""
        return self.is_behind and self.latest.behind_interval[0] > 0

    @property
    def preferred(self) -> LayerEvidence:
        """The one to take, by the rule of ``--layer auto``.

        Of those that are behind the best by less than a point, the last layer; where it is not among them, the last
        of them in the order of `layers`.
        """
        near = [entry for entry in self.layers if entry.behind < NEAR_TIE]
        return next((entry for entry in near if entry.layer == self.late), near[-1])


def measure_layers(
    features: Mapping[str, Any],
    labels: Any,
    layers: Sequence[str],
    *,
    late: str,
    depths: Mapping[str, float] | None = None,
    rows: Any = None,
    groups: Any = None,
    seed: int = 0,
    on_progress: Callable[[ComparisonProgress], None] | None = None,
) -> LayerSweep:
    """Return how well each layer tells classes apart.

    Parameters
    ----------
    features : mapping of str to array-like of shape (n, d)
        By key; read one layer at a time, and only the rows that take part.
    labels : array-like of int, shape (n_rows,)
        Class of each of the rows, 0 or more.
    layers : sequence of str
        Keys, joined by ``+`` where several stand side by side.
    late : str
        One of `layers`, the last one.
    depths : mapping of str to float, optional
        Of each key, from 0 to 1.
    rows : array-like of int, shape (n_rows,), optional
        Rows of the features to use, ascending: those that are learned from. All by default.
    groups : array-like of int, shape (n_rows,), optional
        Rows of one group (0 or more) are never split between folds.
    seed : int
        Of the folds, and of the rows that take part where there are many.
    on_progress : callable, optional
        Called after each fold of a layer.

    Raises
    ------
    HeadError
        Fewer than two classes have two rows, values are not finite, or shapes do not fit.

    Notes
    -----
    At most 1500 rows take part, drawn from each class in proportion, so that the time does not grow without end. Their
    accuracy is a little lower than that of all rows; the order of layers is what they are for.
    """
    labels = np.asarray(labels)
    drawn, of_rows = _one_of_few_copies(draw_rows(labels, MOST_ROWS, seed), groups)
    notes = []
    if len(labels) > MOST_ROWS:
        notes.append(f"{len(drawn):,} of {len(labels):,} training images, drawn from each class, took part")
    taken = drawn if rows is None else np.asarray(rows)[drawn]
    used = {key: np.asarray(features[key][taken], np.float32) for key in _keys(layers)}
    y = labels[drawn]
    settings = ComparisonSettings(
        n_repeats=_REPEATS_OF_FEW if len(drawn) < _FEW_ROWS else 1, n_inner_folds=_N_INNER_FOLDS, seed=seed
    )
    candidates = [Candidate(layer, "zscore", "none", "ridge") for layer in layers]
    candidates.append(Candidate(layers[0], "none", "none", BASELINE))
    # Of so few rows, threads of linear algebra wait for each other: beside other work, two took three times as long.
    with threadpool_limits(limits=1):
        result = compared(used, y, candidates, settings, groups=of_rows, on_progress=on_progress)
        by_layer = {entry.candidate.layer: entry for entry in result.results if not entry.is_baseline}
        measured = tuple(_evidence(by_layer[layer], used, y, depths or {}) for layer in layers)
    return LayerSweep(
        layers=measured,
        late=late,
        majority_accuracy=0.0 if result.baseline is None else result.baseline.accuracy,
        learned=result.learned,
        n_rows=result.n_rows,
        n_folds=result.n_folds,
        n_repeats=result.n_repeats,
        notes=(*notes, *result.notes),
    )


def draw_rows(labels: np.ndarray, n_most: int, seed: int = 0) -> np.ndarray:
    """Return numbers of rows in their order: all, or about `n_most` of them, the same share of every class.

    Of a class that has two rows, two are taken at least.
    """
    if len(labels) <= n_most:
        return np.arange(len(labels))
    random = np.random.default_rng(seed)
    taken = []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        taken.append(random.permutation(rows)[: max(2, len(rows) * n_most // len(labels))])
    return np.sort(np.concatenate(taken))


def _one_of_few_copies(rows: np.ndarray, groups: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the rows and their groups; where hardly any share one, the first of each group, and no groups."""
    if groups is None:
        return rows, None
    of_rows = np.asarray(groups)[rows]
    places = np.arange(len(rows))
    _, first = np.unique(np.where(of_rows < 0, -1 - places, of_rows), return_index=True)
    if len(rows) - len(first) > _FEW_COPIES * len(rows):
        return rows, of_rows
    return rows[np.sort(first)], None


def _keys(layers: Sequence[str]) -> list[str]:
    """Return every layer once, also those that only stand beside others."""
    return list(dict.fromkeys(key for layer in layers for key in layer.split("+")))


def _evidence(
    result: CandidateResult,
    features: Mapping[str, np.ndarray],
    labels: np.ndarray,
    depths: Mapping[str, float],
) -> LayerEvidence:
    keys = result.candidate.layers
    columns = np.concatenate([features[key] for key in keys], axis=1)
    known = [depths[key] for key in keys if key in depths]
    return LayerEvidence(
        layer=result.candidate.layer,
        depth=max(known, default=None),
        width=columns.shape[1],
        accuracy=result.accuracy,
        interval=result.interval,
        behind=result.difference,
        behind_interval=result.difference_interval,
        log_me=log_me(columns, labels),
        h_score=h_score(columns, labels),
    )
