"""From labelled images to a tuned network: training that can be continued, and a score beside the frozen features'."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from featx import backbones
from featx.errors import UsageError
from featx.extraction import ComputeOptions, FeatureComputer
from featx.finetuning import (
    FeatureRows,
    OverfitCheck,
    PictureRows,
    Training,
    TunableNetwork,
    learns_by_heart,
    linear_cka,
    make_head,
    trained_modules,
)
from featx.heads import fit_head
from featx.store import check_same
from featx.workflows.lost_knowledge import behind_note, check_note, is_behind
from featx.workflows.tensorboard_log import TensorBoardLog
from featx.workflows.training_curves import save_history
from featx.workflows.tuning_folder import TuningFolder
from featx.workflows.tuning_job import FEATURES, FinetuneSettings, TuningBeginning, TuningEvents, TuningJob
from featx.workflows.tuning_outcome import conclude, count_parameters
from featx.workflows.tuning_rows import tuning_rows

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from featx.backbones import Backbone
    from featx.finetuning import EpochRecord, SoftmaxHead, TuningSettings
    from featx.images import ImageListing
    from featx.store import FeatureStore
    from featx.workflows.fitting import FitResult
    from featx.workflows.tuning_results import TuningResult

_SECONDS_BETWEEN_STATES = 60.0
_MAX_WORKERS = 8


def finetune(
    store: FeatureStore,
    listing: ImageListing,
    backbone: Backbone,
    out: Path,
    settings: FinetuneSettings | None = None,
    *,
    options: ComputeOptions | None = None,
    events: TuningEvents | None = None,
    frozen: FitResult | None = None,
) -> TuningResult:
    """Tune a network on the images behind a store, save what came of it, and score it beside the frozen features.

    Parameters
    ----------
    store : FeatureStore
        ``penultimate`` features of the images by the network as it is: they say which images are copies of each other,
        and are what the tuned network is compared with.
    listing : ImageListing
        The images.
    backbone : Backbone
        The network, which stays as it is.
    out : Path
        A folder for what comes of it; an interrupted training in it goes on.
    settings : FinetuneSettings, optional
        How.
    options : ComputeOptions, optional
        Device, and threads that decode.
    events : TuningEvents, optional
        What is called meanwhile.
    frozen : FitResult, optional
        A linear SVM on the frozen features, where there is one already; see `featx.workflows.tuning_outcome.fit_svm`.

    Raises
    ------
    FingerprintMismatchError
        The store is of another network.
    HeadError
        There are no labels, or too few images.
    UsageError
        A module of the user's own is to be tuned.
    TuningError
        The loss was no number before an epoch was finished.
    WouldOverwriteError
        The folder holds another training, and `settings` does not allow to begin anew.
    """
    settings, events, options = settings or FinetuneSettings(), events or TuningEvents(), options or ComputeOptions()
    if not backbone.is_named and settings.tuning.regime != "minimum":
        raise UsageError(
            f"{backbone.name} is a module of your own, which cannot be opened again by its name for the tuned weights;"
            " give a network with a name, or regime minimum"
        )
    device = backbones.best_device() if options.device == "auto" else backbones.check_device(options.device)
    _refuse_what_cannot_be(settings, device)
    trained_modules(backbone, settings.tuning)  # names are checked before anything is removed
    _refuse_other_network(store, backbone, options)
    folder = TuningFolder(out)
    folder.check(overwrite=settings.overwrite)
    rows = tuning_rows(
        store,
        listing,
        held_out=settings.held_out,
        seed=settings.tuning.seed,
        group_column=settings.group_column,
        allow_duplicates=settings.allow_duplicates,
    )
    job = TuningJob(
        store, listing, backbone, folder, settings, options, rows, np.asarray(store[FEATURES][...], np.float32)
    )
    folder.begin(_described(job), overwrite=settings.overwrite)
    return _Finetuning(job, events, device).run(frozen)


def _refuse_what_cannot_be(settings: FinetuneSettings, device: str) -> None:
    if settings.classifier == "svm" and settings.tuning.regime == "minimum":
        raise UsageError(
            "regime minimum leaves the features as they are, so there is nothing to fit head svm on after it; run"
            " featx fit-svm, or give regime partial or total"
        )
    if settings.tuning.precision == "f16" and device == "cpu":
        raise UsageError("precision f16 trains on CUDA alone, and the device is cpu; give f32")


def _refuse_other_network(store: FeatureStore, backbone: Backbone, options: ComputeOptions) -> None:
    """Raise an error where features of another network would be taken for those of this one."""
    if backbone.weights.is_random:
        return  # training from scratch is compared with the features of the pretrained network
    options = replace(options, precision=str(store.fingerprint.get("precision", "f32")))
    computer = FeatureComputer(backbone, backbone.select(FEATURES).taps, options)
    check_same(store.fingerprint, computer.fingerprint(), what=f"the network {backbone.name} that is to be tuned")


def _described(job: TuningJob) -> dict[str, Any]:
    """Return all that a training depends on."""
    return {
        "settings": job.tuning.to_json(),
        "network": job.backbone.name,
        "weights": job.backbone.weights.digest,
        "transform": job.backbone.transform.to_json(),
        "images": job.rows.digest(job.store),
    }


@dataclass
class _Finetuning:
    """One fine-tuning, step by step."""

    job: TuningJob
    events: TuningEvents
    device: str
    notes: list[str] = field(default_factory=list)
    check: OverfitCheck | None = None
    _has_warned: bool = False

    def run(self, frozen: FitResult | None) -> TuningResult:
        """Train, and score what came of it."""
        self.frozen_validation = _frozen_validation(self.job)
        training = self._make_training()
        if self.job.settings.check and not training.progress[0]:
            self.check = self._check(training.network)
        self._train(training)
        return conclude(
            self.job, training, self.check, self.frozen_validation, self.notes, self.events.on_image, frozen
        )

    def _make_training(self) -> Training:
        job, n_classes, state = self.job, len(self.job.rows.classes), self.job.folder.load_state()
        if job.tuning.uses_features:
            network: nn.Module = _new_head(job, job.tuning).to(self.device)
        elif job.backbone.weights.is_random:
            network = TunableNetwork.of_backbone(job.backbone, n_classes, job.tuning)
        else:
            learned = job.frozen_features[job.rows.train]
            network = TunableNetwork.of_backbone(job.backbone, n_classes, job.tuning, learned)
            if job.tuning.head_start and state is None:
                network.head.load_state_dict(_head_on_features(job).state_dict())
        if isinstance(network, TunableNetwork):
            network.arrange(self.device)
        training = Training(
            network,
            self._inputs(job.rows.train, job.tuning.augment),
            self._inputs(job.rows.validation),
            n_classes,
            job.tuning,
            device=self.device,
        )
        if state is not None:
            training.restore(state["training"])
            self.notes, self._has_warned = state["notes"], state["has_warned"]
            self.check = None if state["check"] is None else OverfitCheck(**state["check"])
        return training

    def _save_state(self, training: Training) -> None:
        """Write all that a killed run goes on from: what was said before is said again in the result."""
        check = None if self.check is None else asdict(self.check)
        said = {"notes": list(self.notes), "has_warned": self._has_warned, "check": check}
        self.job.folder.save_state({"training": training.state(), **said})

    def _inputs(self, rows: np.ndarray, augment: tuple[str, ...] = ()) -> FeatureRows | PictureRows:
        job, labels = self.job, self.job.rows.labels[rows]
        if job.tuning.uses_features:
            return FeatureRows(job.frozen_features[rows], labels)
        # On the CPU the network is what takes time; an accelerator has to be fed by several processes.
        n_workers = 0 if self.device == "cpu" else min(_MAX_WORKERS, job.options.n_threads)
        return PictureRows(job.rows.entries_of(rows), labels, job.backbone.transform, augment, n_workers)

    def _check(self, network: nn.Module) -> OverfitCheck:
        tuning = self.job.tuning
        check = learns_by_heart(network, self._inputs(self.job.rows.train), tuning, device=self.device)
        self.events.on_check(check)
        if not check.passed:
            self._note(check_note(check, tuning))
        return check

    def _train(self, training: Training) -> None:
        trained = training.network.trained if isinstance(training.network, TunableNetwork) else ()
        counts = count_parameters(training.network, self.job.backbone)
        self.events.on_begin(TuningBeginning(self.job.rows, *counts, trained, len(training.records)))
        for record in training.records:
            self.events.on_epoch(record)
        saver = _StateSaver(self._save_state, training)
        with ExitStack() as stack:
            log = self._open_log(stack, training)

            def on_epoch(record: EpochRecord) -> None:
                self.events.on_epoch(record)
                if log is not None:
                    log.add_epoch(record)
                save_history(training.records, self.job.folder.history)
                self._warn(record, training.network)

            def on_step(running: Training) -> None:
                saver(running)
                self.events.on_step(*running.progress)

            training.run(on_step=on_step, on_epoch=on_epoch)
        saver.save(training)
        if training.stopped:
            self._note(f"stopped after epoch {len(training.records)}: {training.stopped}")

    def _open_log(self, stack: ExitStack, training: Training) -> TensorBoardLog | None:
        if not self.job.settings.tensorboard:
            return None
        folder, first = self.job.folder.tensorboard, len(training.records) + 1
        log = stack.enter_context(TensorBoardLog(folder, first_epoch=first))
        inputs = self._inputs(self.job.rows.validation)
        pixels, _ = next(iter(inputs.batches([np.arange(min(2, len(inputs.labels)))], (0, 0))))
        log.add_graph(training.network, pixels.to(self.device))
        return log

    def _warn(self, record: EpochRecord, network: nn.Module) -> None:
        """Say once, as soon as it shows, that the network has lost what it knew."""
        job = self.job
        if job.backbone.weights.is_random or self._has_warned:
            return  # it never knew anything, or that was said
        if is_behind(record, self.frozen_validation, job.validation_weights):
            self._has_warned = True
            self._note(behind_note(record, self.frozen_validation, self._likeness(network), job.tuning))

    def _likeness(self, network: nn.Module) -> float:
        """Return how much the features of validation images are still like those of the network as it was."""
        rows = self.job.rows.validation
        if not isinstance(network, TunableNetwork):
            return 1.0
        parts = np.array_split(np.arange(len(rows)), math.ceil(len(rows) / self.job.tuning.batch_size))
        pictures = self._inputs(rows).batches(parts, (0, 0))
        features = [network.eval().features(pixels.to(self.device)) for pixels, _ in pictures]
        return linear_cka(self.job.frozen_features[rows], np.concatenate(features))

    def _note(self, note: str) -> None:
        self.notes.append(note)
        self.events.on_note(note)


def _new_head(job: TuningJob, settings: TuningSettings) -> SoftmaxHead:
    learned = job.frozen_features[job.rows.train]
    return make_head(learned.shape[1], len(job.rows.classes), settings, learned)


def _head_on_features(job: TuningJob) -> nn.Module:
    """Return a head that was trained on the frozen features: a moment's work."""
    n_classes, settings = len(job.rows.classes), job.tuning.of_head_start()
    rows = [
        FeatureRows(job.frozen_features[part], job.rows.labels[part]) for part in (job.rows.train, job.rows.validation)
    ]
    training = Training(_new_head(job, settings), rows[0], rows[1], n_classes, settings)
    training.run()
    return training.best_network()


def _frozen_validation(job: TuningJob) -> float:
    """Return how a head on frozen features does on the images that choose the epoch."""
    X, y, train, validation = job.frozen_features, job.rows.labels, job.rows.train, job.rows.validation
    groups, tuning = job.rows.rows.groups_of(train), job.tuning
    fitted = fit_head(
        X[train], y[train], head="ridge", seed=tuning.seed, groups=groups, class_weight=tuning.class_weight
    )
    is_right = fitted.pipeline.predict(X[validation]) == y[validation]
    return float(np.average(is_right, weights=job.validation_weights))


class _StateSaver:
    """Saves the state of a training at the end of each epoch and once a minute."""

    def __init__(self, save: Callable[[Training], None], training: Training) -> None:
        self._save, self._saved, self._n_epochs = save, time.monotonic(), len(training.records)

    def __call__(self, training: Training) -> None:
        is_late = time.monotonic() - self._saved > _SECONDS_BETWEEN_STATES
        if is_late or len(training.records) != self._n_epochs:
            self.save(training)

    def save(self, training: Training) -> None:
        """Save it now."""
        self._save(training)
        self._saved, self._n_epochs = time.monotonic(), len(training.records)
