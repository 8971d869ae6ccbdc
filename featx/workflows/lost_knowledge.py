"""Words of warning: a training that forgets what the network knew, or cannot learn what it is shown."""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from featx.finetuning import EpochRecord, OverfitCheck, TuningSettings
    from featx.workflows.paired_gains import PairedGain

_FEW = 100  # images a class
_SURE = 3.0  # standard errors
_ALIKE = 0.5  # linear CKA; at a rate far too high it falls to 0.1 and below
_DIVERGED = 10.0  # training loss; guessing among 20,000 classes has less
_FIRST_EPOCH = 2  # the first one trains a head that has never seen an image


def is_behind(record: EpochRecord, frozen_accuracy: float, weights: np.ndarray) -> bool:
    """Return whether a training is so far behind the frozen features that chance does not explain it.

    Parameters
    ----------
    record : EpochRecord
        Of the last epoch.
    frozen_accuracy : float
        Of a head on frozen features, on the same validation images.
    weights : ndarray of shape (n,)
        What each of these images counts.

    Notes
    -----
    Weighted images are worth (Σw)² / Σw² that count alike (Kish's effective sample size).
    """
    n = float(weights.sum() ** 2 / (weights**2).sum())
    share = min(max(frozen_accuracy, 1 / n), 1 - 1 / n) if n > 1 else 0.5
    error = sqrt(share * (1 - share) / n)
    return record.epoch >= _FIRST_EPOCH and record.validation_accuracy < frozen_accuracy - _SURE * error


def behind_note(record: EpochRecord, frozen_accuracy: float, likeness: float, settings: TuningSettings) -> str:
    """Return the warning for a training that is behind, with what to try.

    Parameters
    ----------
    record : EpochRecord
        Of the last epoch.
    frozen_accuracy : float
        Of a head on frozen features, on the same validation images.
    likeness : float
        Of the features of these images to what they were before, by linear CKA.
    settings : TuningSettings
        How it is trained.
    """
    rate = settings.head_learning_rate
    said = (
        f"after epoch {record.epoch} it names {record.validation_accuracy:.1%} of the validation images rightly, a head"
        f" on the frozen features {frozen_accuracy:.1%}"
    ).replace("%", " %")
    if likeness > _ALIKE and record.train_loss < _DIVERGED:
        return (
            f"{said}; the features are still much like before (likeness {likeness:.2f} of 1), so the head has not"
            f" learned enough yet: give it more epochs, or another --lr than {rate:g}"
        )
    how = (
        f"the training loss has risen to {record.train_loss:.3g}"
        if likeness > _ALIKE
        else f"the network has lost what it knew (likeness of its features to those before {likeness:.2f} of 1)"
    )
    return (
        f"{said}; {how}. The learning rate is too high: try --lr {rate / 10:g}, a smaller --lr-scale such as 0.1,0.01,"
        " or --regime minimum"
    )


def result_notes(
    settings: TuningSettings, gain: PairedGain, images_a_class: float, likeness: float, train_loss: float
) -> list[str]:
    """Return what to know about a finished training.

    Parameters
    ----------
    settings : TuningSettings
        How it was trained.
    gain : PairedGain
        Over the frozen features, on held-out images.
    images_a_class : float
        Learned from, the median over classes.
    likeness : float
        Of tuned and former features, by linear CKA.
    train_loss : float
        Of the epoch that was kept.
    """
    notes = []
    if images_a_class < _FEW and settings.regime != "minimum":
        notes.append(
            f"{images_a_class:.0f} images a class (median): under {_FEW}, fine-tuning may not converge; a classifier on"
            " frozen features often does as well"
        )
    if settings.regime != "minimum" and gain.interval[1] < 0:
        why, what = (
            ("its head has not learned enough", "more epochs or another --lr")
            if likeness > _ALIKE and train_loss < _DIVERGED
            else ("it has lost what it knew", "a smaller --lr")
        )
        notes.append(
            f"the tuned network is worse than the frozen features: {why} (likeness of the features to those before"
            f" {likeness:.2f}); use the frozen ones, or {what} than {settings.head_learning_rate:g}"
        )
    return notes


def check_note(check: OverfitCheck, settings: TuningSettings) -> str:
    """Return the warning for a network that could not learn a handful of images by heart."""
    return (
        f"{check.n_images} images were not learned by heart in {check.n_steps} steps ({check.accuracy:.0%} named"
        f" rightly): the learning rate {settings.head_learning_rate:g} may be too low or far too high, or the same"
        " picture has several labels"
    ).replace("%", " %")
