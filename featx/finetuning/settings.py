"""How a network is tuned, as checked plain values."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from typing import Any

from featx.errors import UsageError

REGIMES = {
    "minimum": "a new head on the frozen network",
    "partial": "the new head and the last stages",
    "total": "everything",
}
HEADS = {
    "linear": "dropout and a softmax layer on the pooled features",
    "dense": "a dense layer of 1024 with ReLU in between",
}
# name -> timm's name, and the learning rate of the head where none is given
OPTIMIZERS = {
    "sgd": ("nesterov", 0.01),
    "adam": ("adam", 1e-3),
    "adamw": ("adamw", 1e-3),
    "adagrad": ("adagrad", 0.01),
}
SCHEDULES = ("cosine", "step", "constant")
AUGMENTATIONS = ("flip", "vflip", "crop", "rotation", "colour", "noise", "mixup")
NORM_STATISTICS = {
    "frozen": "normalisations keep the means and variances that they came with",
    "trained": "those of trained modules take means and variances of each batch, and follow them",
}
PRECISIONS = ("f32", "bf16", "f16")
DEFAULT_LAST = 2
DENSE_WIDTH = 1024
_HEAD_START_EPOCHS = 60  # of features: a second or two


@dataclass(frozen=True)
class TuningSettings:
    """How a network is tuned.

    Parameters
    ----------
    regime : {"minimum", "partial", "total"}
        What is trained; a key of `REGIMES`.
    unfreeze : tuple of str
        With ``partial``: names of the modules that are trained, and no others.
    last : int, optional
        With ``partial``: train that many stages from the end, and what comes after them; 2 where neither is given.
    head : {"linear", "dense"}
        A key of `HEADS`.
    epochs : int
        Passes over the training images, at the most.
    batch_size : int
        Images a step.
    optimizer : {"adamw", "adam", "sgd", "adagrad"}
        ``sgd`` has Nesterov's momentum of 0.9.
    learning_rate : float, optional
        Of the head; by default that of the optimizer in `OPTIMIZERS`.
    lr_scale : tuple of float
        Factors of the learning rate for the rest of the network, from its last layers to its first, each for an equal
        part of the modules that are trained.
    schedule : {"cosine", "step", "constant"}
        Of the learning rate; ``step`` divides it by ten after each third of the epochs.
    warmup_epochs : float
        During which the learning rate rises linearly.
    weight_decay : float
        Not applied to biases and the weights of normalisations.
    dropout : float
        In front of the softmax layer.
    label_smoothing : float
        Share of the target given to all classes alike.
    augment : tuple of str
        Of `AUGMENTATIONS`.
    patience : int
        Stop after that many epochs without a better one, see `Training.best_epoch`; 0 never does.
    ema : float, optional
        Decay of a moving average of the weights, which is then what is validated and kept.
    precision : {"f32", "bf16", "f16"}
        Of the passes, by autocast; the last only on CUDA. Weights stay in f32.
    norm_statistics : {"frozen", "trained"}
        Of batch normalisations; a key of `NORM_STATISTICS`. From random weights they must be trained; with few images
        and small batches, trained ones spoil a pretrained network.
    class_weight : {None, "balanced"}
        With ``balanced`` an image counts by the inverse of the size of its class, in the losses and accuracies of
        training and validation, and so in which epoch is the best.
    head_start : bool
        Train the head on the frozen features first, so that its first mistakes don't spoil them (Kumar et al. 2022); it
        concerns ``partial`` and ``total``.
    seed : int
        Of everything random.

    Raises
    ------
    UsageError
        A value is not among those allowed; the message names it and them.

    References
    ----------
    A. Kumar, A. Raghunathan, R. Jones, T. Ma, P. Liang: Fine-Tuning can Distort Pretrained Features and Underperform
    Out-of-Distribution. ICLR 2022.
    """

    regime: str = "partial"
    unfreeze: tuple[str, ...] = ()
    last: int | None = None
    head: str = "linear"
    epochs: int = 20
    batch_size: int = 32
    optimizer: str = "adamw"
    learning_rate: float | None = None
    lr_scale: tuple[float, ...] = (0.1,)
    schedule: str = "cosine"
    warmup_epochs: float = 1.0
    weight_decay: float = 0.01
    dropout: float = 0.2
    label_smoothing: float = 0.1
    augment: tuple[str, ...] = ("flip", "crop")
    patience: int = 5
    ema: float | None = None
    precision: str = "f32"
    norm_statistics: str = "frozen"
    class_weight: str | None = None
    head_start: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        """Check every value."""
        _check_name("regime", self.regime, REGIMES)
        _check_name("head", self.head, HEADS)
        _check_name("optimizer", self.optimizer, OPTIMIZERS)
        _check_name("schedule", self.schedule, SCHEDULES)
        _check_name("precision", self.precision, PRECISIONS)
        if self.class_weight is not None:
            _check_name("class_weight", self.class_weight, ("balanced",))
        _check_name("norm_statistics", self.norm_statistics, NORM_STATISTICS)
        for name in self.augment:
            _check_name("augment", name, AUGMENTATIONS)
        _check_at_least("epochs", self.epochs, 1)
        _check_at_least("batch_size", self.batch_size, 2)
        _check_at_least("patience", self.patience, 0)
        _check_at_least("seed", self.seed, 0)
        self._check_stages()
        self._check_numbers()

    def _check_stages(self) -> None:
        if self.regime != "partial" and (self.unfreeze or self.last is not None):
            raise UsageError(
                f"regime {self.regime} trains {REGIMES[self.regime]}; unfreeze and last belong to partial: leave them"
                " out, or give regime partial"
            )
        if self.unfreeze and self.last is not None:
            raise UsageError("unfreeze and last both say which stages are trained; give one of them")
        if self.last is not None:
            _check_at_least("last", self.last, 1)

    def _check_numbers(self) -> None:
        ranges = {
            "weight_decay": (self.weight_decay, 0, 1),
            "dropout": (self.dropout, 0, 0.95),
            "label_smoothing": (self.label_smoothing, 0, 0.9),
            "warmup_epochs": (self.warmup_epochs, 0, self.epochs),
        }
        if self.ema is not None:
            ranges["ema"] = (self.ema, 0, 0.99999)
        for name, (value, low, high) in ranges.items():
            if not low <= value <= high:
                raise UsageError(f"{name} {value} is out of its range; give {low} to {high}")
        if self.learning_rate is not None and not 0 < self.learning_rate <= 100:
            raise UsageError(f"learning rate {self.learning_rate} is out of its range; give more than 0, at most 100")
        if not self.lr_scale or not all(0 < factor <= 1 for factor in self.lr_scale):
            raise UsageError(f"lr_scale {self.lr_scale} is out of its range; give factors above 0, at most 1")

    @property
    def head_learning_rate(self) -> float:
        """The learning rate of the head."""
        return OPTIMIZERS[self.optimizer][1] if self.learning_rate is None else self.learning_rate

    @property
    def uses_features(self) -> bool:
        """Whether the network never changes what it sees of an image, so that features need computing only once."""
        return self.regime == "minimum" and not self.augment

    def of_head_start(self) -> TuningSettings:
        """Return how the head alone is trained, on features, before the network is."""
        return replace(
            self,
            regime="minimum",
            unfreeze=(),
            last=None,
            augment=(),
            ema=None,
            precision="f32",
            epochs=_HEAD_START_EPOCHS,
            patience=_HEAD_START_EPOCHS // 3,
            learning_rate=None,
            warmup_epochs=0.0,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON-able values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


def _check_name(what: str, given: str, allowed: Collection[str]) -> None:
    if given not in allowed:
        raise UsageError(f"{what} {given!r} is unknown; allowed: {', '.join(allowed)}")


def _check_at_least(what: str, given: int, least: int) -> None:
    if given < least:
        raise UsageError(f"{what} {given} is too small; give {least} or more")
