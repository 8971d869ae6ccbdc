"""Measuring candidates: the same folds for all, everything fitted inside them, shared work done once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from joblib import Parallel, delayed

from featx.comparison.candidates import Candidate, FoldScore
from featx.comparison.costs import LayerCost, candidate_costs
from featx.comparison.journal import Journal, digest_of
from featx.comparison.results import Comparison, rank_candidates
from featx.errors import HeadError, UsageError
from featx.heads import ClassWeight
from featx.heads.fitting import Folds, check_classes, check_rows, head_kind, make_folds, plain_weights
from featx.heads.fold_rows import FoldRows
from featx.heads.scoring import evaluate_predictions
from featx.heads.searching import FoldSearch, best_candidate, fit_fold, mean_square_norm, search_fold
from featx.heads.threads import few_threads
from featx.reducers import make_reducer, make_scaler

_VERSION = 2  # of how scores come about: raise it with any change to solvers or heads, or journals give old scores


@dataclass(frozen=True)
class ComparisonSettings:
    """How candidates are measured.

    Parameters
    ----------
    n_folds : int
        Parts that the rows are divided into; lowered to the smallest class that has two rows.
    n_repeats : int
        Times that they are divided anew.
    n_inner_folds : int
        Parts that the training rows of a fold are divided into, to choose hyper-parameters.
    seed : int
        Of folds and heads.
    class_weight : None, "balanced" or mapping of int to float
        As in scikit-learn.
    n_jobs : int
        Processes; the result does not depend on it.
    """

    n_folds: int = 5
    n_repeats: int = 2
    n_inner_folds: int = 3
    seed: int = 0
    class_weight: ClassWeight = None
    n_jobs: int = 1

    def __post_init__(self) -> None:
        """Check the numbers."""
        least = {"n_folds": 2, "n_repeats": 1, "n_inner_folds": 2, "n_jobs": 1}
        for name, smallest in least.items():
            if getattr(self, name) < smallest:
                raise UsageError(f"{name}={getattr(self, name)} was given; give {smallest} or more.")


@dataclass(frozen=True)
class ComparisonProgress:
    """How far a comparison is.

    Attributes
    ----------
    n_done, n_total : int
        Scores, one a candidate and fold.
    seconds_left : float or None
        Estimated from what was measured so far; None where only the journal was read.
    """

    n_done: int
    n_total: int
    seconds_left: float | None


@dataclass(frozen=True)
class _Unit:
    """Candidates of one layer and scaler on one fold, which share scaling and decomposition."""

    candidates: tuple[Candidate, ...]
    fold: int
    train: np.ndarray
    test: np.ndarray
    widths: tuple[int, ...]

    def rows(self, train: np.ndarray, test: np.ndarray, seed: int) -> FoldRows:
        """Return features of the fold, or of a fold within it, that all candidates share."""
        reduces = [candidate.reduce for candidate in self.candidates]
        scale = self.candidates[0].scale
        return FoldRows(train, test, scale=scale, widths=self.widths, seed=seed, reduces=reduces)


def compare_candidates(
    features: Mapping[str, Any],
    y: Any,
    candidates: Sequence[Candidate],
    settings: ComparisonSettings | None = None,
    *,
    groups: Any = None,
    layer_costs: Mapping[str, LayerCost] | None = None,
    rows: str = "all rows",
    journal: Journal | None = None,
    on_progress: Callable[[ComparisonProgress], None] | None = None,
) -> Comparison:
    """Return how candidates did on the same folds.

    Parameters
    ----------
    features : mapping of str to array-like of shape (n, d)
        Features of each layer; read one layer at a time.
    y : array-like of int, shape (n,)
        Class of each row, 0 or more.
    candidates : sequence of Candidate
        What to compare.
    settings : ComparisonSettings, optional
        How.
    groups : array-like of int, shape (n,), optional
        Rows of one group (0 or more) are never split between folds.
    layer_costs : mapping of str to LayerCost, optional
        What the network costs up to each layer.
    rows : str
        Which rows these are, in words.
    journal : Journal, optional
        Remembers scores, so that an interrupted comparison goes on.
    on_progress : callable, optional
        Called after each fold of a layer and scaler, and where the journal knew something.

    Raises
    ------
    HeadError
        For fewer than two classes with two rows, values that are not finite, or shapes that do not fit.
    UsageError
        For an unknown name.

    Notes
    -----
    Scalers, reducers and heads are fitted on the training rows of a fold; hyper-parameters are chosen by inner folds
    within them. Of the features, one layer (or one concatenation) is in memory at a time.
    """
    settings, journal = settings or ComparisonSettings(), journal or Journal()
    y, groups = check_classes(y), None if groups is None else np.asarray(groups)
    candidates = tuple(dict.fromkeys(candidates))
    _check_names(candidates, features)
    settings = replace(settings, class_weight=plain_weights(settings.class_weight))
    folds, n_folds, notes = _all_folds(y, groups, settings)
    costs = candidate_costs(candidates, features, layer_costs or {})
    scores: dict[Candidate, dict[int, FoldScore]] = {candidate: {} for candidate in candidates}
    watch = _Watch(len(candidates) * len(folds), on_progress)
    for layer in dict.fromkeys(candidate.layer for candidate in candidates):
        of_layer = [candidate for candidate in candidates if candidate.layer == layer]
        X, _ = check_rows(joined_features(features, layer), y)
        widths = layer_widths(features, layer)
        keys = _keys(X, widths, y, groups, of_layer, settings)
        for candidate in of_layer:
            found = {fold: journal.find(keys[candidate.head], candidate, fold) for fold in range(len(folds))}
            scores[candidate] |= {fold: score for fold, score in found.items() if score is not None}
        watch.skip(sum(len(scores[candidate]) for candidate in of_layer))
        units = list(_units(of_layer, scores, folds, widths))
        for unit, unit_scores in _run(units, X, y, groups, settings):
            for candidate, score in unit_scores.items():
                journal.add(keys[candidate.head], [(candidate, unit.fold, score)])
                scores[candidate][unit.fold] = score
            watch.step(len(unit_scores))
        del X  # before the next layer is read
    ordered = {candidate: [found[fold] for fold in range(len(folds))] for candidate, found in scores.items()}
    tested = len(np.unique(np.concatenate([test for _, test in folds])))
    return Comparison(
        results=rank_candidates(ordered, costs, n_rows=tested),
        n_rows=tested,
        n_classes=len(np.unique(y)),
        n_folds=n_folds,
        n_repeats=len(folds) // n_folds,
        seed=settings.seed,
        rows=rows,
        notes=notes,
    )


def joined_features(features: Mapping[str, Any], layer: str, rows: Any = ...) -> np.ndarray:
    """Return the columns of a layer or, where names are joined by ``+``, of several side by side, as float32.

    Raises
    ------
    HeadError
        They are no matrices, or have different numbers of rows.
    UsageError
        There is no layer of that name.
    """
    names = layer.split("+")
    _check_layers(names, features)
    parts = [np.asarray(features[name][rows], np.float32) for name in names]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


def _check_layers(names: Sequence[str], features: Mapping[str, Any]) -> None:
    for name in names:
        if name not in features:
            raise UsageError(f"there are no features {name!r}; there are {', '.join(features)}. Name one of them.")
    shapes = [tuple(features[name].shape) for name in names]
    if any(len(shape) != 2 or shape[0] != shapes[0][0] for shape in shapes):
        raise HeadError(f"features {'+'.join(names)} of shapes {shapes}; needed is (n, d), with the same n for all.")


def _check_names(candidates: Sequence[Candidate], features: Mapping[str, Any]) -> None:
    """Find unknown names before hours were spent on known ones."""
    for candidate in candidates:
        _check_layers(candidate.layers, features)
        head_kind(candidate.head)
        make_scaler(candidate.scale)
        make_reducer(candidate.reduce)


def layer_widths(features: Mapping[str, Any], layer: str) -> tuple[int, ...]:
    """Return the number of columns of each layer that a name joins."""
    return tuple(int(features[name].shape[1]) for name in layer.split("+"))


def _all_folds(
    y: np.ndarray, groups: np.ndarray | None, settings: ComparisonSettings
) -> tuple[Folds, int, tuple[str, ...]]:
    """Return the folds of all repeats one after the other, how many each has, and the notes of the first.

    Groups may allow few divisions, or one only. A repeat that brings nothing new is left out: counted twice, the same
    folds would make every interval too narrow.
    """
    folds, notes = make_folds(y, groups, settings.n_folds, settings.seed)
    if not folds:
        raise HeadError(
            "nothing can be compared: fewer than two classes have two rows (or groups). Add images of each class."
        )
    everything = list(folds)
    seen = {test.tobytes() for _, test in folds}
    for repeat in range(1, settings.n_repeats):
        again, _ = make_folds(y, groups, len(folds), settings.seed + repeat)
        tests = {test.tobytes() for _, test in again}
        if len(again) == len(folds) and tests.isdisjoint(seen):
            everything += again
            seen |= tests
    n_repeats = len(everything) // len(folds)
    if n_repeats < settings.n_repeats:
        notes = (*notes, f"{n_repeats} of {settings.n_repeats} repeats: there are no more ways to divide the rows")
    return everything, len(folds), notes


def _keys(
    X: np.ndarray,
    widths: tuple[int, ...],
    y: np.ndarray,
    groups: np.ndarray | None,
    candidates: Sequence[Candidate],
    settings: ComparisonSettings,
) -> dict[str, str]:
    """Return, for each head, a digest of all that its scores depend on, but for the candidate and the fold."""
    values = (_VERSION, widths, settings.n_folds, settings.n_inner_folds, settings.seed, repr(settings.class_weight))
    shared = digest_of(X, y, np.empty(0) if groups is None else groups, values)
    return {head: digest_of(shared, repr(head_kind(head).grid)) for head in {c.head for c in candidates}}


def _units(
    candidates: Sequence[Candidate],
    scores: Mapping[Candidate, Mapping[int, FoldScore]],
    folds: Folds,
    widths: tuple[int, ...],
) -> Iterator[_Unit]:
    """Yield what is still to be measured of one layer."""
    for fold, (train, test) in enumerate(folds):
        missing = [candidate for candidate in candidates if fold not in scores[candidate]]
        for scale in dict.fromkeys(candidate.scale for candidate in missing):
            yield _Unit(tuple(c for c in missing if c.scale == scale), fold, train, test, widths)


def _run(
    units: Sequence[_Unit], X: np.ndarray, y: np.ndarray, groups: np.ndarray | None, settings: ComparisonSettings
) -> Iterator[tuple[_Unit, dict[Candidate, FoldScore]]]:
    """Yield units with their scores, as they are finished."""
    with few_threads(X.size):
        results = Parallel(n_jobs=min(settings.n_jobs, max(len(units), 1)), return_as="generator")(
            delayed(_score_unit)(unit, X, y, groups, settings) for unit in units
        )
        yield from zip(units, results, strict=True)


def _score_unit(
    unit: _Unit, X: np.ndarray, y: np.ndarray, groups: np.ndarray | None, settings: ComparisonSettings
) -> dict[Candidate, FoldScore]:
    """Return the scores of the candidates of a unit."""
    seed = settings.seed
    train, y_train, y_test = X[unit.train], y[unit.train], y[unit.test]
    rows = unit.rows(train, X[unit.test], seed)
    norm = mean_square_norm(rows.reduced("none").train)
    inner_groups = None if groups is None else groups[unit.train]
    inner, inner_notes = make_folds(y_train, inner_groups, settings.n_inner_folds, seed)
    chosen = _choose(unit, train, y_train, inner, norm, settings)
    labels = np.unique(y)
    names = [str(label) for label in labels]
    scores = {}
    for candidate in unit.candidates:
        fitted = fit_fold(
            candidate.head,
            head_kind(candidate.head),
            chosen[candidate],
            rows,
            y_train,
            reduce=candidate.reduce,
            seed=seed,
            class_weight=settings.class_weight,
        )
        evaluation = evaluate_predictions(
            np.searchsorted(labels, y_test), np.searchsorted(labels, fitted.classes), class_names=names, on="a fold"
        )
        scores[candidate] = FoldScore(
            accuracy=evaluation.accuracy,
            balanced_accuracy=evaluation.balanced_accuracy,
            macro_f1=evaluation.macro_f1,
            n_train=len(y_train),
            n_test=len(y_test),
            fit_seconds=fitted.fit_seconds,
            predict_seconds=fitted.predict_seconds,
            params=chosen[candidate],
            notes=fitted.notes if inner or not chosen[candidate] else (*fitted.notes, *inner_notes),
        )
    return scores


def _choose(
    unit: _Unit, X: np.ndarray, y: np.ndarray, inner: Folds, norm: float, settings: ComparisonSettings
) -> dict[Candidate, dict[str, Any]]:
    """Return the hyper-parameters of each candidate, chosen by inner folds of the training rows."""
    fewest = min((len(train) for train, _ in inner), default=0)
    grids = {candidate: head_kind(candidate.head).candidates(norm, fewest) for candidate in unit.candidates}
    chosen = {candidate: head_kind(candidate.head).defaults(norm) for candidate in unit.candidates}
    searched = [candidate for candidate in unit.candidates if len(grids[candidate]) > 1]
    results: dict[Candidate, list[FoldSearch]] = {candidate: [] for candidate in searched}
    for train, test in inner if searched else ():
        rows = unit.rows(X[train], X[test], settings.seed)
        for candidate in searched:
            results[candidate].append(
                search_fold(
                    candidate.head,
                    head_kind(candidate.head),
                    grids[candidate],
                    rows,
                    y[train],
                    y[test],
                    reduce=candidate.reduce,
                    seed=settings.seed,
                    class_weight=settings.class_weight,
                )
            )
    for candidate in searched if inner else ():
        chosen[candidate] = grids[candidate][best_candidate(results[candidate])[0]]
    return chosen


class _Watch:
    """Counts scores and says how long the rest will take, as if every score cost the same."""

    def __init__(self, n_total: int, on_progress: Callable[[ComparisonProgress], None] | None) -> None:
        self._n_total, self._n_done, self._n_measured = n_total, 0, 0
        self._on_progress = on_progress
        self._started = time.monotonic()

    def skip(self, n_scores: int) -> None:
        self._n_done += n_scores
        if n_scores:
            self._report()

    def step(self, n_scores: int) -> None:
        self._n_done += n_scores
        self._n_measured += n_scores
        self._report()

    def _report(self) -> None:
        if self._on_progress is None:
            return
        left = None
        if self._n_measured:
            left = (time.monotonic() - self._started) / self._n_measured * (self._n_total - self._n_done)
        self._on_progress(ComparisonProgress(self._n_done, self._n_total, left))
