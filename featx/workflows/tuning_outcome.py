"""What comes of a training: the tuned network, a classifier, and scores beside those of the frozen features."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from featx import backbones
from featx.bundle import Bundle
from featx.errors import UsageError
from featx.extraction import Extraction, FeatureComputer, FeatureSpec
from featx.finetuning import TunableNetwork, classifier_modules, linear_cka
from featx.heads import evaluate_head, softmax_pipeline
from featx.store import FeatureStore
from featx.workflows.fitting import FitResult, FitSettings, fit_classifier, network_weights
from featx.workflows.lost_knowledge import result_notes
from featx.workflows.one_step_files import draft_of
from featx.workflows.paired_gains import paired_gain
from featx.workflows.training_curves import save_curves
from featx.workflows.tuning_job import FEATURES, FinetuneSettings, TuningJob
from featx.workflows.tuning_results import TuningResult

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline
    from torch import nn

    from featx.backbones import Backbone
    from featx.extraction import ExtractionProgress
    from featx.finetuning import OverfitCheck, Training
    from featx.heads import Evaluation
    from featx.workflows.paired_gains import PairedGain


def conclude(
    job: TuningJob,
    training: Training,
    check: OverfitCheck | None,
    frozen_validation: float,
    notes: Sequence[str],
    on_image: Callable[[ExtractionProgress], None],
    frozen: FitResult | None = None,
) -> TuningResult:
    """Save the tuned network, its features, a classifier and the curves, and return how good they are.

    Parameters
    ----------
    job : TuningJob
        What was worked on.
    training : Training
        Finished.
    check : OverfitCheck or None
        Of a handful of images.
    frozen_validation : float
        Accuracy of a head on frozen features on the images that choose the epoch.
    notes : sequence of str
        What was said meanwhile.
    on_image : callable
        Called for every image whose features the tuned network computes.
    frozen : FitResult, optional
        What `fit_svm` gives for the frozen features, where it is known already.
    """
    network, best = training.best_network(), training.best_epoch or 1
    save_curves(
        training.records,
        job.folder.curves,
        best_epoch=best,
        frozen_accuracy=frozen_validation,
        title=f"{job.backbone.name}, {job.tuning.regime}",
    )
    frozen = frozen or fit_svm(job.store, job.settings)
    if isinstance(network, TunableNetwork) and network.trained:
        _save_weights(job, network)
        _extract_tuned(job, on_image)
        with FeatureStore(job.folder.tuned) as tuned:
            scores = _score(job, network, tuned, frozen, fit_svm(tuned, job.settings))
    else:  # the network is as it was, and so are its features
        scores = _score(job, network, job.store, frozen, frozen)
    train_loss = training.records[best - 1].train_loss
    found = result_notes(job.tuning, scores.gain, _images_a_class(job), scores.likeness, train_loss)
    n_trained, n_parameters = count_parameters(training.network, job.backbone)
    result = TuningResult(
        settings=job.tuning,
        n_trained=n_trained,
        n_parameters=n_parameters,
        records=tuple(training.records),
        best_epoch=best,
        stopped=training.stopped,
        check=check,
        frozen=frozen.evaluation,
        softmax=scores.softmax,
        svm=scores.svm,
        without_copies=scores.without_copies,
        gain=scores.gain,
        likeness=scores.likeness,
        frozen_validation=frozen_validation,
        predicted_rightly=scores.predicted_rightly,
        notes=(*job.rows.rows.notes, *job.rows.rows.one_sided_notes, *notes, *found),
        seconds=sum(record.seconds for record in training.records),
    )
    _save_classifier(job, scores.bundle, result)
    with draft_of(job.folder.result, overwrite=True) as draft:
        draft.write_text(json.dumps(result.to_json(), indent=1), encoding="utf-8")
    return result


def count_parameters(network: nn.Module, backbone: Backbone) -> tuple[int, int]:
    """Return how many parameters are trained, and how many there are in network and head.

    Parameters
    ----------
    network : nn.Module
        A `TunableNetwork`, or a head alone.
    backbone : Backbone
        The network as it was.
    """
    n_trained = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    if isinstance(network, TunableNetwork):
        return n_trained, network.n_parameters
    former = classifier_modules(backbone)
    parameters = backbone.module.named_parameters()
    return n_trained, n_trained + sum(
        parameter.numel() for name, parameter in parameters if name.rpartition(".")[0] not in former
    )


def fit_svm(store: FeatureStore, settings: FinetuneSettings, layer: str = FEATURES) -> FitResult:
    """Return a linear SVM on features of a store, learned from all images that are not held out.

    Parameters
    ----------
    store : FeatureStore
        Of the frozen or of the tuned network.
    settings : FinetuneSettings
        Say which images are held out.
    layer : str
        As in `featx.workflows.fitting.fit_classifier`.
    """
    how = FitSettings(
        seed=settings.tuning.seed,
        held_out=settings.held_out,
        class_weight=settings.tuning.class_weight,
        group_column=settings.group_column,
        allow_duplicates=settings.allow_duplicates,
        allow_random=True,
    )
    return fit_classifier(store, layer, how)


@dataclass(frozen=True)
class _Scores:
    """How two classifiers on the tuned network do, and the one that is saved."""

    softmax: Evaluation
    svm: Evaluation
    without_copies: Evaluation | None
    predicted_rightly: np.ndarray
    gain: PairedGain
    likeness: float
    bundle: Bundle


def _save_weights(job: TuningJob, network: TunableNetwork) -> None:
    from safetensors.torch import save

    described = {"format": "pt", "featx": json.dumps({"model": job.backbone.name, "regime": job.tuning.regime})}
    with draft_of(job.folder.weights, overwrite=True) as draft:
        draft.write_bytes(save(network.body_state(), metadata=described))


def _extract_tuned(job: TuningJob, on_image: Callable[[ExtractionProgress], None]) -> None:
    """Compute features of all images by the tuned network; the parts become splits, which nothing may draw anew."""
    weights, size = str(job.folder.weights), job.backbone.transform.side
    opened = backbones.open_backbone(job.backbone.name, weights=weights, size=size)
    computer = FeatureComputer(opened, opened.select(FEATURES).taps, job.options)
    Extraction(
        job.rows.as_told(job.listing, job.store), computer, job.folder.tuned, overwrite=True, progress=on_image
    ).run()


def _score(job: TuningJob, network: nn.Module, tuned: FeatureStore, frozen: FitResult, svm: FitResult) -> _Scores:
    head: Any = network.head if isinstance(network, TunableNetwork) else network
    pipeline = softmax_pipeline(head.arrays(), job.rows.classes)
    held_out, labels = job.rows.held_out, job.rows.rows.labels
    features = np.asarray(tuned[FEATURES][...], np.float32)[_rows_of(tuned, job.store, held_out)]
    before, true = job.frozen_features[held_out], labels[held_out]
    on = job.rows.rows.split.on
    softmax = _evaluate(job, pipeline, features, true, on)
    is_svm = job.settings.classifier == "svm"
    chosen = svm.fitted.pipeline if is_svm else pipeline
    kept = ~np.isin(held_out, job.rows.rows.repeated)
    without = None
    if kept.any() and not kept.all():
        said = f"{on} without copies of training images"
        without = _evaluate(job, chosen, features[kept], true[kept], said)
    is_right = np.asarray(chosen.predict(features) == true)
    gain = paired_gain(frozen.predicted_rightly, is_right)
    bundle = svm.bundle if is_svm else _bundle(job, tuned, pipeline, softmax)
    return _Scores(softmax, svm.evaluation, without, is_right, gain, linear_cka(before, features), bundle)


def _evaluate(job: TuningJob, pipeline: Pipeline, features: np.ndarray, true: np.ndarray, on: str) -> Evaluation:
    y_train = job.rows.rows.labels[job.rows.train]
    return evaluate_head(pipeline, features, true, class_names=job.store.label_names, y_train=y_train, on=on)


def _bundle(job: TuningJob, tuned: FeatureStore, pipeline: Pipeline, softmax: Evaluation) -> Bundle:
    card = {
        "head": f"softmax ({job.tuning.head})",
        "source": tuned.source,
        "tuning": job.tuning.to_json(),
        "evaluation": softmax.to_json(),
    }
    return Bundle(FeatureSpec.of_store(tuned, FEATURES), pipeline, tuple(tuned.label_names), card)


def _save_classifier(job: TuningJob, bundle: Bundle, result: TuningResult) -> None:
    bundle = replace(bundle, card={**bundle.card, "notes": list(result.notes)})
    if job.settings.embed_weights:
        bundle = replace(bundle, weights=network_weights(bundle.spec))
    bundle.save(job.folder.classifier, overwrite=True)


def _images_a_class(job: TuningJob) -> float:
    return float(np.median(np.bincount(job.rows.labels[job.rows.train])))


def _rows_of(store: FeatureStore, other: FeatureStore, rows: np.ndarray) -> np.ndarray:
    """Return the rows of a store whose images are those of some rows of another one."""
    place = {path: row for row, path in enumerate(store.paths.tolist())}
    paths = other.paths[rows].tolist()
    missing = [path for path in paths if path not in place]
    if missing:
        raise UsageError(f"{missing[0]} could be read before the training, and cannot be read now; put it back")
    return np.array([place[path] for path in paths], np.int64)
