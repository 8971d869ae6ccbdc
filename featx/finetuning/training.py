"""`Training`: the loop, which can stop at any step and go on from there as if nothing had happened."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from timm.utils import ModelEmaV3
from torch import nn
from torch.nn import functional

from featx.errors import TuningError
from featx.finetuning.augmentation import mix
from featx.finetuning.history import EpochRecord
from featx.finetuning.optimising import make_optimizer, make_scheduler
from featx.finetuning.randomness import seeded
from featx.finetuning.weighing import class_weights

if TYPE_CHECKING:
    from featx.finetuning.rows import TrainingRows
    from featx.finetuning.settings import TuningSettings

_DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16}
_STEPS = 1  # a place of `seeded` besides those of pictures, which have three numbers


class Training:
    """Trains a network on rows, validates after each epoch, and remembers its best state.

    Parameters
    ----------
    network : nn.Module
        From inputs of the rows to logits; on the device already, and changed by training.
    rows : TrainingRows
        To learn from.
    validation : TrainingRows
        To choose the epoch by.
    n_classes : int
        Of the logits.
    settings : TuningSettings
        How.
    device : str
        A torch device.

    Attributes
    ----------
    records : list of EpochRecord
        Of finished epochs.
    best_epoch : int or None
        The epoch with the highest validation accuracy; of several, the one with the lowest loss.
    stopped : str
        Why training ended before its last epoch; empty where it did not.

    Notes
    -----
    Everything random is drawn from generators seeded by epoch and step, so that a run that goes on from `state` draws
    what an undisturbed run would have drawn.
    """

    def __init__(
        self,
        network: nn.Module,
        rows: TrainingRows,
        validation: TrainingRows,
        n_classes: int,
        settings: TuningSettings,
        *,
        device: str = "cpu",
    ) -> None:
        self.network, self.settings, self.device = network, settings, device
        self.records: list[EpochRecord] = []
        self.best_epoch: int | None = None
        self.stopped = ""
        self._rows, self._validation, self._n_classes = rows, validation, n_classes
        n_rows = len(rows.labels)
        self._weights = torch.from_numpy(class_weights(rows.labels, n_classes, settings.class_weight)).to(device)
        self._validation_weights = torch.from_numpy(class_weights(validation.labels, n_classes, settings.class_weight))
        # A single image has no batch statistics: the rest of pairs makes one of them a group of three.
        self._n_steps = max(1, min(math.ceil(n_rows / settings.batch_size), n_rows // 2))
        self._optimizer = make_optimizer(network, settings)
        self._scheduler = make_scheduler(self._optimizer, settings, self._n_steps)
        self._ema = None if settings.ema is None else ModelEmaV3(network, decay=settings.ema, use_warmup=True)
        self._scaler = torch.amp.GradScaler(enabled=settings.precision == "f16")
        self._best: dict[str, torch.Tensor] = {}
        self._epoch, self._step = 1, 0  # what comes next
        self._sums = np.zeros(3)  # of this epoch so far: loss, images named rightly, images, weighted
        self._seconds = 0.0  # of this epoch before it was interrupted

    def run(
        self,
        *,
        on_step: Callable[[Training], None] = lambda _training: None,
        on_epoch: Callable[[EpochRecord], None] = lambda _record: None,
    ) -> None:
        """Train until the last epoch, or until nothing has become better for `patience` epochs.

        Parameters
        ----------
        on_step : callable
            Called after every step and every epoch, with this object: the place to save `state`.
        on_epoch : callable
            Called with the record of each epoch.

        Raises
        ------
        TuningError
            The loss is no number any more, and no epoch was finished before that.
        """
        while self._epoch <= self.settings.epochs and not self.stopped:
            started = time.perf_counter() - self._seconds
            for loss in self._train_epoch():
                self._seconds = time.perf_counter() - started
                if not math.isfinite(loss):
                    self._give_up()
                    return
                on_step(self)
            loss, accuracy = self._validate()
            if not math.isfinite(loss):  # the last step spoiled the weights
                self._give_up()
                return
            self._finish_epoch(started, loss, accuracy)
            on_epoch(self.records[-1])
            on_step(self)

    @property
    def progress(self) -> tuple[int, int]:
        """Steps done and steps in all, over all epochs."""
        return (self._epoch - 1) * self._n_steps + self._step, self.settings.epochs * self._n_steps

    def best_network(self) -> nn.Module:
        """Return the network with the weights of its best epoch, in evaluation mode."""
        self.network.load_state_dict(self._best)
        return self.network.eval()

    def state(self) -> dict[str, Any]:
        """Return all that an interrupted training needs to go on: tensors, numbers, texts, lists and dicts of them."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "ema": None if self._ema is None else self._ema.module.state_dict(),
            "scaler": self._scaler.state_dict(),
            "best": self._best,
            "best_epoch": self.best_epoch,
            "records": [asdict(record) for record in self.records],
            "epoch": self._epoch,
            "step": self._step,
            "sums": self._sums.tolist(),
            "seconds": self._seconds,
            "stopped": self.stopped,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned, of a training with the same rows and settings."""
        self.network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        if self._ema is not None:
            self._ema.module.load_state_dict(state["ema"])
        self._scaler.load_state_dict(state["scaler"])
        self._best, self.best_epoch = state["best"], state["best_epoch"]
        self.records = [EpochRecord(**values) for values in state["records"]]
        self._epoch, self._step, self.stopped = state["epoch"], state["step"], state["stopped"]
        self._sums, self._seconds = np.array(state["sums"]), state["seconds"]

    def _train_epoch(self) -> Iterator[float]:
        """Take the steps of an epoch that are left, and yield the loss of each."""
        seed, epoch = self.settings.seed, self._epoch
        order = np.random.default_rng((seed, epoch)).permutation(len(self._rows.labels))
        parts = np.array_split(order, self._n_steps)  # of nearly equal size, so that none has a single image
        self.network.train()
        for inputs, labels in self._rows.batches(parts[self._step :], (seed, epoch)):
            with seeded(seed, epoch, self._step, _STEPS, device=self.device):
                loss = self._take_step(inputs.to(self.device), labels.to(self.device))
            yield loss

    def _take_step(self, inputs: torch.Tensor, labels: torch.Tensor) -> float:
        targets: torch.Tensor | None = None
        self._scheduler.step_update(self.progress[0])
        if "mixup" in self.settings.augment:
            inputs, targets = mix(inputs, labels, self._n_classes, self.settings.label_smoothing)
        with self._precise():
            logits = self.network(inputs)
        logits = logits.float()
        if targets is None:
            smoothing = self.settings.label_smoothing
            loss = functional.cross_entropy(logits, labels, self._weights, reduction="sum", label_smoothing=smoothing)
        else:
            loss = functional.cross_entropy(logits, targets, self._weights, reduction="sum")
            labels = targets.argmax(1)
        # By images, not by their weights, as torch's mean would: a batch without the small class would count too much.
        loss = loss / len(labels)
        self._optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()
        self._scaler.step(self._optimizer)
        self._scaler.update()
        value = float(loss.detach())
        counts = self._weights[labels]
        n_right = float(counts[logits.detach().argmax(1) == labels].sum())
        self._sums += (value * len(labels), n_right, float(counts.sum()))
        self._step += 1
        if self._ema is not None:
            self._ema.update(self.network, step=self.progress[0])
        return value

    def _finish_epoch(self, started: float, loss: float, accuracy: float) -> None:
        record = EpochRecord(
            epoch=self._epoch,
            train_loss=float(self._sums[0] / len(self._rows.labels)),
            train_accuracy=float(self._sums[1] / self._sums[2]),
            validation_loss=loss,
            validation_accuracy=accuracy,
            learning_rate=float(self._optimizer.param_groups[0]["lr"]),
            seconds=time.perf_counter() - started,
        )
        if self.best_epoch is None or _score(record) > _score(self.records[self.best_epoch - 1]):
            self.best_epoch = record.epoch
            # Copies: the tensors of the network go on changing.
            self._best = {name: value.detach().cpu().clone() for name, value in self._kept().state_dict().items()}
        self.records.append(record)
        self._epoch, self._step, self._sums, self._seconds = self._epoch + 1, 0, np.zeros(3), 0.0
        n_waited = record.epoch - self.best_epoch
        if 0 < self.settings.patience <= n_waited and record.epoch < self.settings.epochs:
            self.stopped = f"nothing became better in {n_waited} epochs"

    def _validate(self) -> tuple[float, float]:
        """Return loss and accuracy on the validation rows."""
        network, labels = self._kept().eval(), self._validation.labels
        parts = np.array_split(np.arange(len(labels)), math.ceil(len(labels) / self.settings.batch_size))
        loss = n_right = n_seen = 0.0
        weights = self._validation_weights
        with torch.inference_mode():
            for inputs, true in self._validation.batches(parts, (self.settings.seed, 0)):
                with self._precise():
                    logits = network(inputs.to(self.device))
                logits, true = logits.float().cpu(), true.cpu()
                loss += float(functional.cross_entropy(logits, true, weights, reduction="sum"))
                n_right += float(weights[true][logits.argmax(1) == true].sum())
                n_seen += float(weights[true].sum())
        return loss / n_seen, n_right / n_seen

    def _kept(self) -> nn.Module:
        """Return what is validated and kept: the moving average where there is one."""
        return self.network if self._ema is None else self._ema.module

    def _precise(self) -> AbstractContextManager[Any]:
        dtype = _DTYPES.get(self.settings.precision)
        return nullcontext() if dtype is None else torch.autocast(torch.device(self.device).type, dtype=dtype)

    def _give_up(self) -> None:
        rate = self.settings.head_learning_rate
        said = f"the loss is no number any more in epoch {self._epoch}; learning rate {rate:g} is too high"
        if self.best_epoch is None:
            raise TuningError(f"{said}: nothing was learned. Give --lr {rate / 10:g}, or less")
        self.stopped = said


def _score(record: EpochRecord) -> tuple[float, float]:
    return record.validation_accuracy, -record.validation_loss
