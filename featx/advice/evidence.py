"""Evidence by layer: every layer, and several side by side, on the same folds, with LogME and H-score beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from featx.advice.balanced_scores import KeptScores, LayerScore, balanced_scores, is_learned, weight_of_rows
from featx.advice.layer_sweep import LayerEvidence, LayerSweep
from featx.advice.transferability import h_score, log_me
from featx.comparison import BASELINE, Candidate, Comparison, ComparisonProgress, ComparisonSettings
from featx.comparison import compare_candidates as compared

MOST_ROWS = 1500  # that take part: more make the order of layers hardly surer, and the decompositions take minutes
_FEW_COPIES = 0.02  # share of rows that is left out as copies: folds that keep groups whole are far slower to draw
_FEW_ROWS = 500  # below it the folds are drawn several times: one draw of few rows decides little
_REPEATS_OF_FEW = 3
_N_INNER_FOLDS = 2
_SAME = 1e-3  # columns that differ by less, relative to the largest, are the same ones
_LEAST_H_SCORE = 0.005  # below it, shrinkage has taken all: the covariance is a multiple of the identity already


def measure_layers(
    features: Mapping[str, Any],
    labels: Any,
    layers: Sequence[str],
    *,
    late: str,
    depths: Mapping[str, float] | None = None,
    rows: Any = None,
    groups: Any = None,
    balanced: bool = False,
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
    balanced : bool
        Weigh classes by the inverse of their size, and measure balanced accuracy.
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
    layers, y = _each_column_once(layers, used), labels[drawn]
    settings = ComparisonSettings(
        n_repeats=_REPEATS_OF_FEW if len(drawn) < _FEW_ROWS else 1,
        n_inner_folds=_N_INNER_FOLDS,
        seed=seed,
        class_weight="balanced" if balanced else None,
    )
    candidates = [Candidate(layer, "zscore", "none", "ridge") for layer in layers]
    candidates.append(Candidate(layers[0], "none", "none", BASELINE))
    kept = KeptScores()
    # Of so few rows, threads of linear algebra wait for each other: beside other work, two took three times as long.
    with threadpool_limits(limits=1):
        result = compared(used, y, candidates, settings, groups=of_rows, on_progress=on_progress, journal=kept)
        scores, majority, learned = _balanced(kept, candidates, y, result) if balanced else _plain(result)
        measured = tuple(_evidence(layer, scores[layer], used, y, depths or {}) for layer in layers)
    return LayerSweep(
        layers=measured,
        late=late,
        majority_accuracy=majority,
        learned=learned,
        n_rows=result.n_rows,
        n_folds=result.n_folds,
        n_repeats=result.n_repeats,
        notes=(*notes, *result.notes),
        is_balanced=balanced,
        n_training_rows=len(labels),
    )


def _plain(result: Comparison) -> tuple[dict[str, LayerScore], float, bool]:
    """Return how each layer did by accuracy, what the largest class has, and whether the best is above that."""
    scores = {
        entry.candidate.layer: LayerScore(entry.accuracy, entry.interval, entry.difference, entry.difference_interval)
        for entry in result.results
        if not entry.is_baseline
    }
    return scores, 0.0 if result.baseline is None else result.baseline.accuracy, result.learned


def _balanced(
    kept: KeptScores, candidates: Sequence[Candidate], labels: np.ndarray, result: Comparison
) -> tuple[dict[str, LayerScore], float, bool]:
    """Return the same by balanced accuracy."""
    *of_layers, baseline = candidates
    weight = weight_of_rows(labels)
    scores = balanced_scores({entry.layer: kept.of(entry) for entry in of_layers}, result.n_rows, weight)
    majority = 0.0 if result.baseline is None else result.baseline.balanced_accuracy
    return scores, majority, is_learned(scores, kept.of(baseline), result.n_rows, weight)


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


def _each_column_once(layers: Sequence[str], features: Mapping[str, np.ndarray]) -> list[str]:
    """Return the layers without columns that stand side by side twice, as the last stage and what only pools it."""
    found = []
    for layer in layers:
        keys = layer.split("+")
        own = [
            key
            for place, key in enumerate(keys)
            if not any(_are_same(features[key], features[other]) for other in keys[place + 1 :])
        ]
        if own == keys or len(own) > 1:
            found.append("+".join(own))
    return list(dict.fromkeys(found))


def _are_same(columns: np.ndarray, others: np.ndarray) -> bool:
    if columns.shape != others.shape or not columns.size:
        return False
    return bool(np.abs(columns - others).max() <= _SAME * np.abs(others).max())


def _evidence(
    layer: str,
    score: LayerScore,
    features: Mapping[str, np.ndarray],
    labels: np.ndarray,
    depths: Mapping[str, float],
) -> LayerEvidence:
    keys = layer.split("+")
    columns = np.concatenate([features[key] for key in keys], axis=1)
    known = [depths[key] for key in keys if key in depths]
    h = h_score(columns, labels)
    return LayerEvidence(
        layer=layer,
        depth=max(known, default=None),
        width=columns.shape[1],
        accuracy=score.accuracy,
        interval=score.interval,
        behind=score.behind,
        behind_interval=score.behind_interval,
        log_me=log_me(columns, labels),
        h_score=h if h >= _LEAST_H_SCORE else None,
    )
