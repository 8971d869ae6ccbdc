"""What an epoch of training came to."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EpochRecord:
    """One pass over the training images.

    Attributes
    ----------
    epoch : int
        From 1.
    train_loss, train_accuracy : float
        Means over the pass while the network changed, with augmentation and dropout; with mixup, an image counts for
        the class that it shows most of.
    validation_loss, validation_accuracy : float
        Of the network (or its moving average) at the end of the pass.
    learning_rate : float
        Of the head in the last step.
    seconds : float
        Of the pass, validation included.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float
    learning_rate: float
    seconds: float
