"""From a store to a classifier with an honest score."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np

from featx.bundle import Bundle
from featx.errors import HeadError
from featx.extraction import FeatureSpec
from featx.heads import Evaluation, FittedHead, RowSplit, evaluate_head, fit_head, split_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from featx.store import FeatureStore


_MANY_VALUES = 2_000_000  # numbers in the training rows; a grid over 5 million took 107 s on one busy processor


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
    n_unlabelled : int
        Rows without a label, which were left out.
    seconds : float
        Time of fitting and scoring.
    """

    bundle: Bundle
    fitted: FittedHead
    evaluation: Evaluation
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
            "seconds": round(self.seconds, 3),
        }


def fit_classifier(store: FeatureStore, layer: str | None = None, settings: FitSettings | None = None) -> FitResult:
    """Return a classifier fitted on features of a store, scored on rows that the fit never saw.

    Parameters
    ----------
    store : FeatureStore
        Features with labels.
    layer : str, optional
        Key, layer or alias; ``penultimate`` where it is there, else the deepest.
    settings : FitSettings, optional
        How to fit.

    Raises
    ------
    HeadError
        There are no labels, or only one class.
    RefusedError
        The features come from untrained weights, and `settings` does not allow that.
    """
    settings = settings or FitSettings()
    started = time.perf_counter()
    spec = FeatureSpec.of_store(store, layer)
    spec.refuse_random(allowed=settings.allow_random, what="a classifier fitted on them")
    labels = np.asarray(store.labels)
    if (labels < 0).all():
        raise HeadError(
            f"none of the {store.rows} rows of {store.path} has a label; put the images of each class in a folder of"
            " its own, or give extract a CSV with a label column, and run extract again"
        )
    _refuse_one_class(store, labels)
    split = split_rows(labels, store.splits, groups=store.groups, held_out=settings.held_out, seed=settings.seed)
    features = np.asarray(store[spec.key], np.float32)
    fitted = _fit(features, labels, split.train, store.groups, settings)
    fitted = replace(fitted, notes=(*fitted.notes, *_one_sided_notes(store.label_names, labels, split)))
    evaluation = evaluate_head(
        fitted.pipeline,
        features[split.held_out],
        labels[split.held_out],
        class_names=store.label_names,
        y_train=labels[split.train],
        on=split.on,
    )
    saved = fitted
    if settings.refit_all:
        saved = _fit(features, labels, np.flatnonzero(labels >= 0), store.groups, settings)
    card = _card(store, settings, fitted, evaluation, split, saved.n_rows)
    bundle = Bundle(spec, saved.pipeline, tuple(store.label_names), card)
    return FitResult(bundle, fitted, evaluation, int((labels < 0).sum()), time.perf_counter() - started)


def _refuse_one_class(store: FeatureStore, labels: np.ndarray) -> None:
    present = np.unique(labels[labels >= 0])
    if len(present) == 1:
        raise HeadError(
            f"all labelled rows of {store.path} are of the class {store.label_names[present[0]]!r}; a classifier needs"
            " two classes or more: add images of another, and run extract again"
        )


def _one_sided_notes(names: Sequence[str], labels: np.ndarray, split: RowSplit) -> list[str]:
    """Return notes on classes that are scored on but were never learned, or learned but never scored on."""
    unlearned = np.setdiff1d(labels[split.held_out], labels[split.train])
    unscored = np.setdiff1d(labels[split.train], labels[split.held_out])
    notes = []
    if len(unlearned):
        notes.append(f"no training rows of {_listed(names, unlearned)}: every one of them counts as an error")
    if len(unscored):
        notes.append(f"no rows to score {_listed(names, unscored)} on: the score says nothing about them")
    return notes


def _listed(names: Sequence[str], labels: np.ndarray) -> str:
    shown = ", ".join(names[label] for label in labels[:10])
    return shown + (f" and {len(labels) - 10} more classes" if len(labels) > 10 else "")


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


def _fit(
    features: np.ndarray, labels: np.ndarray, rows: np.ndarray, groups: np.ndarray | None, settings: FitSettings
) -> FittedHead:
    return fit_head(
        features[rows],
        labels[rows],
        head=settings.head,
        scale=settings.scale,
        reduce=settings.reduce,
        cv=settings.cv,
        seed=settings.seed,
        class_weight=settings.class_weight,
        groups=None if groups is None else groups[rows],
        n_jobs=settings.n_jobs or _choose_jobs(len(rows) * features.shape[1], settings.cv),
    )


def _choose_jobs(n_values: int, n_folds: int) -> int:
    """Return processes over folds: starting them takes seconds, which small work does not pay back."""
    return min(n_folds, joblib.cpu_count()) if n_values > _MANY_VALUES else 1


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
