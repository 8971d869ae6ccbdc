"""Settings of a tuning are checked once, and say what is allowed."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError

import pytest

from featx.errors import UsageError
from featx.finetuning import AUGMENTATIONS, HEADS, OPTIMIZERS, REGIMES, SCHEDULES, TuningSettings


def test_the_defaults_are_allowed_and_stay():
    """Nothing needs to be given, and nothing can be changed afterwards."""
    settings = TuningSettings()
    assert (settings.regime, settings.head, settings.optimizer) == ("partial", "linear", "adamw")
    with pytest.raises(FrozenInstanceError):
        settings.epochs = 3


@pytest.mark.parametrize(
    ("name", "allowed"),
    [("regime", REGIMES), ("head", HEADS), ("optimizer", OPTIMIZERS), ("schedule", SCHEDULES)],
)
def test_every_name_listed_is_allowed_and_no_other(name, allowed):
    """A name that is not in the list is an error that repeats it and gives the list."""
    for value in allowed:
        assert getattr(TuningSettings(**{name: value}), name) == value
    with pytest.raises(UsageError, match=f"{name} 'nonsense' is unknown; allowed: {', '.join(allowed)}"):
        TuningSettings(**{name: "nonsense"})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"augment": ("flip", "blur")}, f"augment 'blur' is unknown; allowed: {', '.join(AUGMENTATIONS)}"),
        ({"precision": "f64"}, "precision 'f64' is unknown; allowed: f32, bf16, f16"),
        ({"norm_statistics": "mine"}, "norm_statistics 'mine' is unknown; allowed: frozen, trained"),
        ({"epochs": 0}, "epochs 0 is too small; give 1 or more"),
        ({"batch_size": 1}, "batch_size 1 is too small; give 2 or more"),
        ({"patience": -1}, "patience -1 is too small; give 0 or more"),
        ({"seed": -1}, "seed -1 is too small; give 0 or more"),
        ({"last": 0}, "last 0 is too small; give 1 or more"),
        ({"weight_decay": 1.5}, "weight_decay 1.5 is out of its range; give 0 to 1"),
        ({"dropout": 1.0}, "dropout 1.0 is out of its range; give 0 to 0.95"),
        ({"label_smoothing": -0.1}, "label_smoothing -0.1 is out of its range; give 0 to 0.9"),
        ({"warmup_epochs": 4, "epochs": 3}, "warmup_epochs 4 is out of its range; give 0 to 3"),
        ({"ema": 1.0}, "ema 1.0 is out of its range; give 0 to 0.99999"),
        ({"ema": float("nan")}, "ema nan is out of its range"),
        ({"learning_rate": 0.0}, "learning rate 0.0 is out of its range; give more than 0, at most 100"),
        ({"learning_rate": float("nan")}, "learning rate nan is out of its range"),
        ({"learning_rate": 101}, "learning rate 101 is out of its range"),
        ({"lr_scale": ()}, r"lr_scale \(\) is out of its range; give factors above 0, at most 1"),
        ({"lr_scale": (0.1, 0.0)}, r"lr_scale \(0.1, 0.0\) is out of its range"),
        ({"lr_scale": (2.0,)}, r"lr_scale \(2.0,\) is out of its range"),
        ({"unfreeze": ("a",), "last": 1}, "unfreeze and last both say which stages are trained; give one of them"),
        ({"regime": "total", "last": 1}, "regime total trains everything; unfreeze and last belong to partial"),
        ({"regime": "minimum", "unfreeze": ("a",)}, "regime minimum trains a new head on the frozen network; unfreeze"),
    ],
)
def test_what_is_not_allowed(values, message):
    """A value out of its range is an error that names it and what is allowed."""
    with pytest.raises(UsageError, match=message):
        TuningSettings(**values)


def test_the_learning_rate_is_the_optimizers_unless_given():
    """Adam and AdamW take 0.001, SGD and Adagrad 0.01; what is given is taken."""
    rates = {name: TuningSettings(optimizer=name).head_learning_rate for name in OPTIMIZERS}
    assert rates == {"sgd": 0.01, "adam": 1e-3, "adamw": 1e-3, "adagrad": 0.01}
    assert TuningSettings(optimizer="sgd", learning_rate=0.5).head_learning_rate == 0.5


def test_features_are_enough_for_a_head_without_augmentation():
    """Only a frozen network that sees the same pictures in every epoch can be replaced by its features."""
    assert TuningSettings(regime="minimum", augment=()).uses_features
    assert not TuningSettings(regime="minimum", augment=("flip",)).uses_features
    assert not TuningSettings(regime="partial", augment=()).uses_features


def test_the_head_start_is_a_training_on_features():
    """It has the head, the optimizer and the seed of the training, and its own rate and epochs."""
    given = TuningSettings(
        regime="partial",
        last=1,
        head="dense",
        optimizer="sgd",
        learning_rate=9.0,
        epochs=3,
        warmup_epochs=3,
        ema=0.9,
        precision="bf16",
        seed=5,
    )
    start = given.of_head_start()
    assert start.uses_features
    assert (start.head, start.optimizer, start.seed, start.dropout) == ("dense", "sgd", 5, given.dropout)
    assert (start.head_learning_rate, start.ema, start.precision, start.last) == (0.01, None, "f32", None)


def test_json_brings_them_back():
    """A trip through JSON, with lists as tuples again, loses nothing."""
    settings = TuningSettings(unfreeze=("a", "b"), lr_scale=(0.5, 0.1), ema=0.9)
    values = json.loads(json.dumps(settings.to_json()))
    assert TuningSettings(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}) == settings
