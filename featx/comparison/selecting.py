"""Choosing the layer for one head by cross-validation inside the training rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from joblib import Parallel, delayed

from featx.comparison.running import joined_features, layer_widths
from featx.errors import UsageError
from featx.heads import ClassWeight
from featx.heads.fitting import Folds, check_classes, check_rows, head_kind, make_folds, plain_weights
from featx.heads.fold_rows import FoldRows, Widths
from featx.heads.searching import FoldSearch, best_candidate, mean_square_norm, search_fold
from featx.heads.threads import few_threads
from featx.reducers import make_scaler

# Behind the best by less than this is as good as the best; measured in accuracy. Chosen on draws of 5 to 20 images a
# class from the training splits of seven sets: 0.005 to 0.015 gained 2.8 to 3.0 points over the last layer.
NEAR_TIE = 0.01
_FEW_ROWS = 500  # below it the folds are drawn five times: one draw of few rows decides little
_REPEATS_OF_FEW = 5
PREFERENCES = ("best", "cheap")


@dataclass(frozen=True)
class LayerScore:
    """How a layer did in cross-validation.

    Attributes
    ----------
    layer : str
        Its name.
    accuracy : float
        Mean over all folds, with the best hyper-parameters; it chose them, so it is a little optimistic.
    loss : float
        Mean accuracy of the best layer less this one's.
    loss_error : float
        Standard error of the loss, over the folds as if they were independent.
    """

    layer: str
    accuracy: float
    loss: float
    loss_error: float


@dataclass(frozen=True)
class LayerChoice:
    """Which layer was chosen, and why.

    Attributes
    ----------
    layer : str
        The chosen one.
    reason : str
        In a few words.
    scores : tuple of LayerScore
        Of all layers, in the order given.
    cheapest : LayerScore
        The first (shallowest) that is behind the best by less than its standard error, or a point.
    """

    layer: str
    reason: str
    scores: tuple[LayerScore, ...]
    cheapest: LayerScore


def select_layer(
    features: Mapping[str, Any],
    y: Any,
    *,
    layers: Sequence[str] | None = None,
    rows: Any = ...,
    late: str | None = None,
    head: str = "svm",
    scale: str = "zscore",
    reduce: str = "none",
    cv: int = 5,
    seed: int = 0,
    class_weight: ClassWeight = None,
    groups: Any = None,
    prefer: str = "best",
    n_jobs: int = 1,
) -> LayerChoice:
    """Return the layer whose features suit a head best, by cross-validation on the given rows alone.

    The best mean is taken. Of layers that are behind it by less than a point, `late` is taken, the safer choice; where
    it is not among them, the last of them in the order of `layers`: of a few images, many layers are named without an
    error, and then several side by side do better on new images than a single early one. For the linear heads (svm,
    logistic, ridge) the mean is that of a ridge, which ranks layers alike and needs one decomposition a fold where they
    need minutes.

    Parameters
    ----------
    features : mapping of str to array-like of shape (n, d)
        Features of each layer, from the shallowest to the deepest.
    y : array-like of int, shape (n_rows,)
        Class of each of the rows.
    layers : sequence of str, optional
        Which to try, joined by ``+`` where several stand side by side; all single ones by default.
    rows : index, optional
        Rows of the features to use: the training rows.
    late : str, optional
        The layer that near-ties go to; the last one by default.
    head, scale, reduce, cv, seed, class_weight, groups, n_jobs
        As in `featx.heads.fit_head`.
    prefer : {"best", "cheap"}
        ``cheap``: the first layer that is behind the best by less than its standard error, or a point.

    Raises
    ------
    HeadError
        For fewer than two classes, values that are not finite, or shapes that do not fit.
    UsageError
        For an unknown name, fewer than two folds, or no layer.
    """
    if cv < 2:
        raise UsageError(f"cv={cv} was given; at least 2 folds are needed. Give 2 or more.")
    if prefer not in PREFERENCES:
        raise UsageError(f"prefer={prefer!r} is unknown; allowed are {' and '.join(PREFERENCES)}. Choose one of them.")
    layers = list(features) if layers is None else list(layers)
    if not layers:
        raise UsageError("there is no layer to choose from; extract one or more")
    late = layers[-1] if late is None else late
    y = check_classes(y)
    folds = _folds(y, groups, cv, seed)
    if not folds or len(layers) == 1:
        only = LayerScore(late if late in layers else layers[-1], float("nan"), 0.0, 0.0)
        reason = "it is the only one" if len(layers) == 1 else "there are too few rows for cross-validation"
        return LayerChoice(only.layer, reason, (only,), only)
    work = _Work("ridge" if head_kind(head).is_linear else head, scale, reduce, seed, plain_weights(class_weight))
    accuracy = {}
    for layer in layers:
        X, labels = check_rows(joined_features(features, layer, rows), y)
        accuracy[layer] = work.fold_accuracies(X, labels, layer_widths(features, layer), folds, n_jobs)
        del X  # before the next layer is read
    best = max(layers, key=lambda layer: accuracy[layer].mean())
    scores = tuple(_score(layer, accuracy[layer], accuracy[best]) for layer in layers)
    cheapest = next(score for score in scores if score.loss < NEAR_TIE or score.loss <= score.loss_error)
    by_name = {score.layer: score for score in scores}
    if prefer == "cheap":
        reason = f"the cheapest that cannot be told from the best, expected loss {100 * cheapest.loss:.1f} points"
        return LayerChoice(cheapest.layer, reason, scores, cheapest)
    near = [score.layer for score in scores if score.loss < NEAR_TIE]
    taken = late if late in near else near[-1]
    reason = "as good as the best in cross-validation" if by_name[taken].loss else "the best in cross-validation"
    return LayerChoice(taken, reason, scores, cheapest)


def _folds(y: np.ndarray, groups: Any, cv: int, seed: int) -> Folds:
    """Return the folds of all repeats; none where nothing can be divided."""
    n_repeats = _REPEATS_OF_FEW if len(y) < _FEW_ROWS else 1
    return [fold for repeat in range(n_repeats) for fold in make_folds(y, groups, cv, seed + repeat)[0]]


@dataclass(frozen=True)
class _Work:
    """What is fitted on every fold of every layer."""

    head: str
    scale: str
    reduce: str
    seed: int
    class_weight: ClassWeight

    def fold_accuracies(self, X: np.ndarray, y: np.ndarray, widths: Widths, folds: Folds, n_jobs: int) -> np.ndarray:
        """Return the accuracy on each fold with the hyper-parameters that are best over all."""
        norm = mean_square_norm(make_scaler(self.scale, widths).fit_transform(X))
        candidates = head_kind(self.head).candidates(norm, min(len(train) for train, _ in folds))

        with few_threads(X.size):
            results = Parallel(n_jobs=n_jobs)(
                delayed(self._on_fold)(candidates, X, y, widths, train, test) for train, test in folds
            )
        best, _ = best_candidate(results)
        return np.array([result.accuracy[best] for result in results])

    def _on_fold(
        self,
        candidates: list[dict[str, Any]],
        X: np.ndarray,
        y: np.ndarray,
        widths: Widths,
        train: np.ndarray,
        test: np.ndarray,
    ) -> FoldSearch:
        return search_fold(
            self.head,
            head_kind(self.head),
            candidates,
            FoldRows(X[train], X[test], scale=self.scale, widths=widths, seed=self.seed, reduces=[self.reduce]),
            y[train],
            y[test],
            reduce=self.reduce,
            seed=self.seed,
            class_weight=self.class_weight,
        )


def _score(layer: str, accuracy: np.ndarray, best: np.ndarray) -> LayerScore:
    losses = best - accuracy
    error = losses.std(ddof=1) / np.sqrt(len(losses)) if len(losses) > 1 else 0.0
    return LayerScore(layer, float(accuracy.mean()), float(losses.mean()), float(error))
