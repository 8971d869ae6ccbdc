"""What a fine-tuning is asked to do, what it works on, and what it calls meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from featx.extraction import ComputeOptions
from featx.finetuning import TuningSettings, class_weights

if TYPE_CHECKING:
    from featx.backbones import Backbone
    from featx.extraction import ExtractionProgress
    from featx.finetuning import EpochRecord, OverfitCheck
    from featx.images import ImageListing
    from featx.store import FeatureStore
    from featx.workflows.tuning_folder import TuningFolder
    from featx.workflows.tuning_rows import TuningRows

FEATURES = "penultimate@avg"  # what a classifier receives


@dataclass(frozen=True)
class FinetuneSettings:
    """What is done around a training.

    Parameters
    ----------
    tuning : TuningSettings
        The training itself.
    classifier : {"softmax", "svm"}
        What is saved: the head that was trained with the network, or a linear SVM on the tuned features.
    held_out : float
        Share of images to score on where the source has no test or val split.
    group_column : str, optional
        A column of the source's CSV: images with the same text in it stay on one side.
    allow_duplicates : bool
        Do not look for copies and near-copies of images.
    check : bool
        Try first whether a handful of images can be learned by heart.
    tensorboard : bool
        Write events for TensorBoard.
    embed_weights : bool
        Put the tuned network into the classifier's file.
    overwrite : bool
        Begin anew where the folder holds another training.
    """

    tuning: TuningSettings = field(default_factory=TuningSettings)
    classifier: str = "softmax"
    held_out: float = 0.2
    group_column: str | None = None
    allow_duplicates: bool = False
    check: bool = True
    tensorboard: bool = False
    embed_weights: bool = False
    overwrite: bool = False


@dataclass(frozen=True)
class TuningEvents:
    """What is called while a training runs; each may be left out.

    Parameters
    ----------
    on_begin : callable
        Called with `TuningBeginning` before the first step.
    on_check : callable
        Called with the `OverfitCheck`.
    on_step : callable
        Called with steps done and steps in all.
    on_epoch : callable
        Called with each `EpochRecord`; those of an interrupted run come first.
    on_note : callable
        Called with a warning as soon as there is reason for it.
    on_image : callable
        Called with an `ExtractionProgress` for every image whose features the tuned network computes.
    """

    on_begin: Callable[[TuningBeginning], None] = lambda _beginning: None
    on_check: Callable[[OverfitCheck], None] = lambda _check: None
    on_step: Callable[[int, int], None] = lambda _done, _total: None
    on_epoch: Callable[[EpochRecord], None] = lambda _record: None
    on_note: Callable[[str], None] = lambda _note: None
    on_image: Callable[[ExtractionProgress], None] = lambda _progress: None


@dataclass(frozen=True)
class TuningBeginning:
    """What is about to be trained, and on what.

    Attributes
    ----------
    rows : TuningRows
        The images in three parts.
    n_trained, n_parameters : int
        Parameters that are trained, and all of network and head.
    trained : tuple of str
        Modules that are trained, in execution order.
    n_epochs_done : int
        Of an interrupted run that goes on.
    """

    rows: TuningRows
    n_trained: int
    n_parameters: int
    trained: tuple[str, ...]
    n_epochs_done: int


@dataclass(frozen=True)
class TuningJob:
    """Everything that a fine-tuning works on.

    Attributes
    ----------
    store : FeatureStore
        Features of the images by the network as it was.
    listing : ImageListing
        The images.
    backbone : Backbone
        The network as it was.
    folder : TuningFolder
        Where everything goes.
    settings : FinetuneSettings
        How.
    options : ComputeOptions
        Device, and threads that decode.
    rows : TuningRows
        The images in three parts.
    frozen_features : ndarray of shape (n, d), float32
        ``penultimate`` of every row of the store.
    """

    store: FeatureStore
    listing: ImageListing
    backbone: Backbone
    folder: TuningFolder
    settings: FinetuneSettings
    options: ComputeOptions
    rows: TuningRows
    frozen_features: np.ndarray

    @property
    def tuning(self) -> TuningSettings:
        """How the network is trained."""
        return self.settings.tuning

    @property
    def validation_weights(self) -> np.ndarray:
        """What each validation image counts, by its class."""
        labels = self.rows.labels[self.rows.validation]
        return class_weights(labels, len(self.rows.classes), self.tuning.class_weight)[labels]
