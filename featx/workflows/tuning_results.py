"""What a fine-tuning came to, beside the frozen features that it is to replace."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from featx.finetuning import EpochRecord, OverfitCheck, TuningSettings
    from featx.heads import Evaluation
    from featx.workflows.paired_gains import PairedGain


@dataclass(frozen=True)
class TuningResult:
    """What was trained, how it went, and what it gained.

    Attributes
    ----------
    settings : TuningSettings
        How it was trained.
    n_trained, n_parameters : int
        Parameters that were trained, and all of the network and its head.
    records : tuple of EpochRecord
        By epoch.
    best_epoch : int
        Whose weights were kept.
    stopped : str
        Why training ended early; empty where it did not.
    check : OverfitCheck or None
        Whether a handful of images could be learned by heart; None where that was not tried.
    frozen : Evaluation
        A linear SVM on the features of the network as it was.
    softmax : Evaluation
        The tuned network with the head that was trained with it.
    svm : Evaluation
        A linear SVM on the features of the tuned network. All three are of the same images, which none has seen.
    without_copies : Evaluation or None
        Of the classifier that is saved, on those of these images of which no copy was learned from; None where that is
        all of them, or none.
    gain : PairedGain
        Of `softmax`, or of `svm` where that is the classifier that is saved, over `frozen`.
    likeness : float
        Linear CKA of tuned and former features of the held-out images: 1 where nothing changed.
    frozen_validation : float
        Accuracy of a head on frozen features on the images that choose the epoch.
    predicted_rightly : ndarray of bool
        Whether the classifier that is saved names each held-out image rightly.
    notes : tuple of str
        What the user should know.
    seconds : float
        Of the training, over all runs that it took.
    """

    settings: TuningSettings
    n_trained: int
    n_parameters: int
    records: tuple[EpochRecord, ...]
    best_epoch: int
    stopped: str
    check: OverfitCheck | None
    frozen: Evaluation
    softmax: Evaluation
    svm: Evaluation
    without_copies: Evaluation | None
    gain: PairedGain
    likeness: float
    frozen_validation: float
    predicted_rightly: np.ndarray
    notes: tuple[str, ...]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON-able values."""
        return {
            "settings": self.settings.to_json(),
            "parameters": {"trained": self.n_trained, "all": self.n_parameters},
            "epochs": [asdict(record) for record in self.records],
            "best_epoch": self.best_epoch,
            "stopped": self.stopped,
            "check": None if self.check is None else {**asdict(self.check), "passed": self.check.passed},
            "frozen": self.frozen.to_json(),
            "softmax": self.softmax.to_json(),
            "svm": self.svm.to_json(),
            "evaluation_without_copies": None if self.without_copies is None else self.without_copies.to_json(),
            "gain": self.gain.to_json(),
            "likeness": self.likeness,
            "frozen_validation_accuracy": self.frozen_validation,
            "notes": list(self.notes),
            "seconds": round(self.seconds, 3),
        }


def number_in_words(number: int) -> str:
    """Return a number of parameters as people write it, such as ``3.8 k`` or ``2.67 M``."""
    for size, unit, digits in ((1e9, "G", 2), (1e6, "M", 2), (1e3, "k", 1)):
        if number >= size:
            return f"{number / size:.{digits}f} {unit}"
    return str(number)
