"""From a store to a classifier with an honest score."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np
from sklearn.pipeline import Pipeline

from featx.bundle import Bundle
from featx.comparison import LayerChoice, select_layer
from featx.extraction import FeatureSpec
from featx.heads import Evaluation, FittedHead, RowSplit, evaluate_predictions, fit_head
from featx.heads.threads import MANY_VALUES
from featx.workflows.labelled_rows import LabelledRows, labelled_rows
from featx.workflows.learnable_features import (
    LearnableFeatures,
    features_by_layer,
    late_layer,
    layers_to_try,
    learnable_features,
    learnable_spec,
    reduction_notes,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from featx.store import FeatureStore

AUTO = "auto"  # for a layer: have it chosen


@dataclass(frozen=True)
class FitSettings:
    """How a classifier is fitted.

    Parameters
    ----------
    head : str
        A key of `featx.heads.HEADS`.
    scale, reduce : str
        See `featx.reducers`.
    cv : int
        Folds of the cross-validation that chooses hyper-parameters.
    seed : int
        Of folds, held-out rows and heads.
    held_out : float
        Fraction of rows to score on where the store has no test or val split.
    class_weight : str, optional
        ``"balanced"`` or None.
    n_jobs : int, optional
        Processes over folds; chosen from the amount of work when not given.
    refit_all : bool
        Fit again on all labelled rows after scoring.
    allow_random : bool
        Accept features of untrained weights.
    prefer : {"best", "cheap"}
        Which layer ``auto`` takes: the best, or the cheapest that cannot be told from it.
    group_column : str, optional
        A column of the store's CSV: images with the same text in it stay on one side.
    allow_duplicates : bool
        Do not look for copies and near-copies of images.
    """

    head: str = "svm"
    scale: str = "zscore"
    reduce: str = "none"
    cv: int = 5
    seed: int = 0
    held_out: float = 0.2
    class_weight: str | None = None
    n_jobs: int | None = None
    refit_all: bool = False
    allow_random: bool = False
    prefer: str = "best"
    group_column: str | None = None
    allow_duplicates: bool = False


@dataclass(frozen=True)
class FitResult:
    """A fitted classifier and how it did.

    Parameters
    ----------
    bundle : Bundle
        What is saved.
    fitted : FittedHead
        The head that was scored.
    evaluation : Evaluation
        Its score on rows that it never saw.
    without_copies : Evaluation or None
        The score on those of these rows of which no copy or near-copy was learned from; None where that is all of
        them, or none.
    predicted_rightly : ndarray of bool
        Which of the rows that it was scored on the head names rightly, in the order of ``RowSplit.held_out``.
    choice : LayerChoice or None
        How the layer was chosen, where that was asked for.
    n_unlabelled : int
        Rows without a label, which were left out.
    seconds : float
        Time of fitting and scoring.
    """

    bundle: Bundle
    fitted: FittedHead
    evaluation: Evaluation
    without_copies: Evaluation | None
    predicted_rightly: np.ndarray
    choice: LayerChoice | None
    n_unlabelled: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return the result in the stable shape of ``fit-* --json``."""
        return {
            "layer": self.bundle.spec.key,
            "params": {**self.fitted.params, "scale": self.fitted.scale, "reduce": self.fitted.reduce},
            "evaluation": self.evaluation.to_json(),
            "classes": list(self.bundle.class_names),
            "head": self.fitted.head,
            "cv_accuracy": self.fitted.cv_accuracy,
            "notes": list(self.fitted.notes),
            "evaluation_without_copies": None if self.without_copies is None else self.without_copies.to_json(),
            "layer_choice": None if self.choice is None else _choice_values(self.choice),
            "seconds": round(self.seconds, 3),
        }


def _choice_values(choice: LayerChoice) -> dict[str, Any]:
    """Return a choice as JSON-able values: null is the accuracy of what was never measured."""
    values = asdict(choice)
    for score in (*values["scores"], values["cheapest"]):
        score["accuracy"] = None if np.isnan(score["accuracy"]) else score["accuracy"]
    return values


def fit_classifier(store: FeatureStore, layer: str | None = None, settings: FitSettings | None = None) -> FitResult:
    """Return a classifier fitted on features of a store, scored on rows that the fit never saw.

    Parameters
    ----------
    store : FeatureStore
        Features with labels.
    layer : str, optional
        Key, layer or alias; several, to stand side by side, are joined by ``+``; ``auto`` chooses one by
        cross-validation in the training rows; by default ``penultimate`` where it is there, else the deepest.
    settings : FitSettings, optional
        How to fit.

    Raises
    ------
    HeadError
        There are no labels, or only one class.
    FeatureKeyError
        The store holds no such layer, or several.
    RefusedError
        The features come from untrained weights, and `settings` does not allow that.
    UsageError
        For an unknown name in `settings`, a layer named twice, or several layers of a reduced store.
    """
    settings = settings or FitSettings()
    started = time.perf_counter()
    spec = learnable_spec(store, late_layer(store) if layer == AUTO else layer)
    spec.refuse_random(allowed=settings.allow_random, what="a classifier fitted on them")
    rows = labelled_rows(
        store,
        held_out=settings.held_out,
        seed=settings.seed,
        group_column=settings.group_column,
        allow_duplicates=settings.allow_duplicates,
    )
    choice = _choose_layer(store, rows, settings) if layer == AUTO else None
    features = learnable_features(store, layer if choice is None else choice.layer)
    fitted = _fit(features, rows, rows.split.train, settings)
    fitted = replace(fitted, notes=(*fitted.notes, *rows.notes, *rows.one_sided_notes, *reduction_notes(store)))
    held_out, on = rows.split.held_out, rows.split.on
    predicted = fitted.pipeline.predict(features.matrix[held_out])
    evaluation = _score(predicted, held_out, rows, store, on)
    is_kept = ~np.isin(held_out, rows.repeated)
    without = None
    if is_kept.any() and not is_kept.all():
        without = _score(predicted[is_kept], held_out[is_kept], rows, store, f"{on} without copies of training images")
    saved = fitted
    if settings.refit_all:
        saved = _fit(features, rows, np.flatnonzero(rows.labels >= 0), settings)
        fitted = replace(fitted, notes=(*fitted.notes, *_refit_notes(fitted, saved)))
    pipeline = saved.pipeline
    if features.reducer is not None:
        pipeline = Pipeline([("stored", features.reducer), *pipeline.steps])
    card = _card(store, settings, fitted, evaluation, rows.split, saved.n_rows)
    bundle = Bundle(features.spec, pipeline, tuple(store.label_names), card)
    is_right = np.asarray(predicted == rows.labels[held_out])
    seconds = time.perf_counter() - started
    return FitResult(bundle, fitted, evaluation, without, is_right, choice, rows.n_unlabelled, seconds)


def _refit_notes(scored: FittedHead, saved: FittedHead) -> list[str]:
    """Return how the head that is saved differs from the one that was scored."""
    notes = [f"fitted again on all rows: {note}" for note in saved.notes if note not in scored.notes]
    if saved.params != scored.params:
        params = ", ".join(f"{name} {value}" for name, value in saved.params.items())
        notes.append(f"fitted again on all rows: {params}, chosen anew")
    return notes


def _choose_layer(store: FeatureStore, rows: LabelledRows, settings: FitSettings) -> LayerChoice:
    """Return the layer, or the layers side by side, that suit the head best in the training rows."""
    features = features_by_layer(store)
    train = rows.split.train
    return select_layer(
        features,
        rows.labels[train],
        layers=layers_to_try(store),
        rows=train,
        late=late_layer(store),
        head=settings.head,
        scale=settings.scale,
        reduce=settings.reduce,
        cv=settings.cv,
        seed=settings.seed,
        class_weight=settings.class_weight,
        groups=rows.groups_of(train),
        prefer=settings.prefer,
        n_jobs=_jobs(settings, len(train) * max(array.shape[1] for array in features.values())),
    )


def _score(predicted: np.ndarray, scored: np.ndarray, rows: LabelledRows, store: FeatureStore, on: str) -> Evaluation:
    """Return how good the predictions for some rows of the store are."""
    majority = int(np.bincount(rows.labels[rows.split.train]).argmax())
    return evaluate_predictions(rows.labels[scored], predicted, class_names=store.label_names, on=on, majority=majority)


def network_weights(spec: FeatureSpec) -> bytes:
    """Return the weights of the network behind some features, as the bytes of a safetensors file.

    A classifier that had no weights is left out, as it was in the file that the network was opened from.
    """
    from safetensors.torch import save

    backbone = spec.open().backbone
    tensors = backbone.module.state_dict().items()
    # Copies, because safetensors refuses tensors that share memory.
    return save(
        {name: value.clone() for name, value in tensors if not name.startswith(_prefixes(backbone.weights.absent))}
    )


def _prefixes(modules: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{name}." for name in modules)


def _fit(features: LearnableFeatures, rows: LabelledRows, learned: np.ndarray, settings: FitSettings) -> FittedHead:
    return fit_head(
        features.matrix[learned],
        rows.labels[learned],
        head=settings.head,
        scale=settings.scale,
        reduce=settings.reduce,
        cv=settings.cv,
        seed=settings.seed,
        class_weight=settings.class_weight,
        groups=rows.groups_of(learned),
        widths=features.widths,
        n_jobs=_jobs(settings, len(learned) * features.matrix.shape[1]),
    )


def _jobs(settings: FitSettings, n_values: int) -> int:
    """Return processes over folds: starting them takes seconds, which small work does not pay back."""
    return settings.n_jobs or (min(settings.cv, joblib.cpu_count()) if n_values > MANY_VALUES else 1)


def _card(
    store: FeatureStore,
    settings: FitSettings,
    fitted: FittedHead,
    evaluation: Evaluation,
    split: RowSplit,
    n_fitted: int,
) -> dict[str, Any]:
    """Return what a later reader of the file wants to know about it."""
    return {
        "head": fitted.head,
        "scale": fitted.scale,
        "reduce": fitted.reduce,
        "params": fitted.params,
        "seed": settings.seed,
        "cv_folds": fitted.cv_folds,
        "cv_accuracy": fitted.cv_accuracy,
        "notes": list(fitted.notes),
        "source": store.source,
        "rows_learned_from": n_fitted,
        "rows_scored_were_learned_from_afterwards": settings.refit_all,
        "training_rows": len(split.train),
        "evaluation": evaluation.to_json(),
    }
