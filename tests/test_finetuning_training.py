"""The loop gives what it promises: the same curve after a kill, rates as written, the best epoch, and no surprises."""

from __future__ import annotations

import io
import math
import random
from dataclasses import asdict, replace
from itertools import chain

import numpy as np
import pytest
import torch
from fake_backbone import write_pictures
from sklearn.metrics import log_loss
from tiny_networks import (
    BODY,
    LIVELY,
    Recorded,
    copied,
    differing,
    pictures_of,
    tiny_network,
    watched_generators,
)
from torch import nn
from torch.nn import functional

from featx.errors import TuningError
from featx.finetuning import FeatureRows, Training, TuningSettings, make_head
from featx.finetuning.trained_parts import rate_factors

RNG = np.random.default_rng(0)
FEATURES = FeatureRows(RNG.normal(size=(21, 5)).astype(np.float32), np.arange(21) % 3)
OTHERS = FeatureRows(RNG.normal(size=(10, 5)).astype(np.float32), np.arange(10) % 3)
PLAIN = TuningSettings(
    regime="minimum",
    epochs=3,
    batch_size=8,
    optimizer="sgd",
    learning_rate=0.1,
    schedule="constant",
    warmup_epochs=0,
    weight_decay=0.0,
    dropout=0.0,
    label_smoothing=0.0,
    augment=(),
)


class _KilledError(Exception):
    """Stands for a kill."""


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Three classes of six pictures; read only."""
    return write_pictures(tmp_path_factory.mktemp("training") / "photos", n_each=6)


def lively(photos, settings=LIVELY, n_workers=0) -> Training:
    """Return a training of the tiny network with everything random that there is."""
    rows = pictures_of(photos, settings.augment, n_workers)
    return Training(tiny_network(settings), rows, pictures_of(photos), 3, settings)


def on_features(settings=PLAIN, rows=FEATURES, validation=OTHERS) -> Training:
    """Return a training of a head on features."""
    return Training(make_head(5, 3, settings), rows, validation, 3, settings)


def curve(training: Training) -> list[dict]:
    """Return the records without their seconds."""
    return [{k: v for k, v in asdict(record).items() if k != "seconds"} for record in training.records]


def through_a_file(state: dict) -> dict:
    """Return a state as it comes back from a file that may hold nothing but tensors and plain values."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def interrupted(photos, n_calls: int, settings=LIVELY) -> Training:
    """Return a training that was killed after some calls of `on_step`, and went on as another object to its end."""
    calls, states = 0, []

    def kill(training: Training) -> None:
        nonlocal calls
        calls += 1
        if calls == n_calls:
            states.append(through_a_file(training.state()))
            raise _KilledError

    with pytest.raises(_KilledError):
        lively(photos, settings).run(on_step=kill)
    resumed = lively(photos, settings)
    resumed.restore(states[0])
    resumed.run()
    return resumed


@pytest.fixture(scope="module")
def undisturbed(photos):
    """A lively training that nobody interrupted; read only."""
    training = lively(photos)
    training.run()
    assert training.progress == (6, 6)
    return training


@pytest.mark.parametrize("n_calls", range(1, 9))  # three steps and the end of an epoch, twice
def test_a_killed_training_goes_on_as_if_nothing_had_happened(photos, undisturbed, n_calls):
    """Killed at any step, at the end of an epoch or of the training, it has the same curve and weights, bit for bit."""
    resumed = interrupted(photos, n_calls)
    assert curve(resumed) == curve(undisturbed)
    assert resumed.best_epoch == undisturbed.best_epoch
    assert differing(resumed.network.state_dict(), undisturbed.network.state_dict()) == set()
    one, other = resumed.state(), undisturbed.state()
    assert differing(one["best"], other["best"]) == set()
    assert differing(one["ema"], other["ema"]) == set()
    assert one["epoch"] == other["epoch"] == 3


@pytest.mark.parametrize("optimizer", ["adamw", "adagrad"])
def test_other_optimizers_go_on_too(photos, optimizer):
    """What an optimizer remembers of earlier steps is part of the state."""
    settings = replace(LIVELY, optimizer=optimizer, learning_rate=0.01, ema=None, schedule="step")
    whole = lively(photos, settings)
    whole.run()
    resumed = interrupted(photos, 2, settings)
    assert curve(resumed) == curve(whole)
    assert differing(resumed.network.state_dict(), whole.network.state_dict()) == set()


def test_a_training_interrupted_twice(photos, undisturbed):
    """A state of a resumed training is as good as any."""
    training, n_lives = lively(photos), 0
    state = None
    while not training.records or training.records[-1].epoch < 2:
        training, n_lives = lively(photos), n_lives + 1
        if state is not None:
            training.restore(state)
        steps = []

        def kill(running: Training, steps=steps) -> None:
            nonlocal state
            steps.append(1)
            state = through_a_file(running.state())
            if len(steps) == 2:
                raise _KilledError

        try:
            training.run(on_step=kill)
        except _KilledError:
            continue
    assert n_lives == 4
    assert curve(training) == curve(undisturbed)


def test_seconds_go_on_where_they_stopped(photos):
    """The seconds of an interrupted epoch are those before and after the kill."""
    training = lively(photos)
    with pytest.raises(_KilledError):
        training.run(on_step=lambda _: (_ for _ in ()).throw(_KilledError))
    state = training.state()
    assert 0 < state["seconds"] < 60
    state["seconds"] = 1000.0
    resumed = lively(photos)
    resumed.restore(state)
    resumed.run()
    first, second = (record.seconds for record in resumed.records)
    assert 1000 < first < 1060
    assert second < 60


def test_random_numbers_of_the_caller_neither_count_nor_change(photos, undisturbed):
    """A training draws from its own seed: other numbers before it change nothing, and the caller's stay."""
    with torch.random.fork_rng(devices=[]):
        random.seed(99)
        np.random.seed(99)  # noqa: NPY002 - the legacy generator is one of those that must not count
        torch.manual_seed(99)
        untouched = watched_generators()
        training = lively(photos)
        training.run()
        assert untouched()
    assert curve(training) == curve(undisturbed)
    other = lively(photos, replace(LIVELY, seed=4))
    other.run()
    assert curve(other) != curve(undisturbed)


class _Steps:
    """Learning rates of every group at every step."""

    def __init__(self) -> None:
        self.rates: list[list[float]] = []

    def __call__(self, training: Training) -> None:
        if len(self.rates) < training.progress[0]:
            self.rates.append([group["lr"] for group in training._optimizer.param_groups])


def by_hand(settings: TuningSettings, n_steps: int) -> list[float]:
    """Return the learning rate of the head at every step, by the formulas."""
    rate, rates = settings.head_learning_rate, []
    for step in range(settings.epochs * n_steps):
        epoch = step / n_steps
        if epoch < settings.warmup_epochs:
            share = 0.01 + 0.99 * epoch / settings.warmup_epochs
        elif settings.schedule == "cosine":
            share = (1 + math.cos(math.pi * epoch / settings.epochs)) / 2
        elif settings.schedule == "step":
            share = 0.1 ** math.floor(3 * epoch / settings.epochs + 1e-9)
        else:
            share = 1.0
        rates.append(rate * share)
    return rates


@pytest.mark.parametrize("schedule", ["cosine", "step", "constant"])
@pytest.mark.parametrize("warmup", [0.0, 1.0, 1.5])
def test_rates_follow_their_schedule(schedule, warmup):
    """Cosine, step and constant are as by hand, after a linear warm-up from a hundredth; records have the last rate."""
    settings = replace(PLAIN, epochs=6, schedule=schedule, warmup_epochs=warmup, patience=0, learning_rate=0.05)
    training, steps = on_features(settings), _Steps()
    training.run(on_step=steps)
    expected = by_hand(settings, 3)
    np.testing.assert_allclose([rates[0] for rates in steps.rates], expected, rtol=1e-6)
    np.testing.assert_allclose([record.learning_rate for record in training.records], expected[2::3], rtol=1e-6)


def test_the_first_step_is_as_by_hand(photos):
    """Every parameter moves against its gradient by its own rate; Nesterov's first step is 1.9 times that."""
    settings = replace(
        LIVELY,
        epochs=1,
        batch_size=18,
        lr_scale=(0.5, 0.1),
        schedule="constant",
        warmup_epochs=0,
        weight_decay=0.0,
        dropout=0.0,
        label_smoothing=0.2,
        augment=(),
        ema=None,
    )
    training = lively(photos, settings)
    network = training.network
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    ((pixels, labels),) = pictures_of(photos).batches([np.arange(18)], (0, 0))
    network.train()
    functional.cross_entropy(network(pixels), labels, label_smoothing=0.2).backward()
    gradients = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
    training.run()
    factors = {f"_taps.module.{name}": factor for name, factor in rate_factors(BODY, (0.5, 0.1)).items()}
    for name, parameter in network.named_parameters():
        if name not in gradients:
            assert torch.equal(parameter, before[name])
            continue
        step = 1.9 * 0.05 * factors.get(name.rpartition(".")[0], 1.0) * gradients[name]
        np.testing.assert_allclose(parameter.detach() - before[name], -step, rtol=2e-3, atol=2e-6, err_msg=name)


def test_loss_and_accuracy_are_as_by_hand():
    """With a rate of almost nothing, both parts of a record are those of the first weights on all rows."""
    training = on_features(replace(PLAIN, epochs=1, learning_rate=1e-30))
    weight, bias = training.network.arrays()[0]
    training.run()
    (record,) = training.records
    for rows, loss, accuracy in (
        (FEATURES, record.train_loss, record.train_accuracy),
        (OTHERS, record.validation_loss, record.validation_accuracy),
    ):
        logits = rows.features @ weight.T + bias
        shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        assert loss == pytest.approx(log_loss(rows.labels, shares), rel=1e-5)
        assert accuracy == pytest.approx((logits.argmax(1) == rows.labels).mean())
    assert record.epoch == 1


@pytest.mark.parametrize(("n_rows", "sizes"), [(21, [7, 7, 7]), (17, [6, 6, 5]), (8, [8]), (9, [5, 4]), (1, [1])])
def test_batches_of_an_epoch_are_nearly_equal(n_rows, sizes):
    """Every row is seen once an epoch, in another order each time, in batches of nearly the same size."""
    rows = Recorded(FeatureRows(FEATURES.features[:n_rows], FEATURES.labels[:n_rows]))
    on_features(replace(PLAIN, epochs=2), rows).run()
    first, second = rows.asked[: len(sizes)], rows.asked[len(sizes) :]
    assert [len(batch) for batch in first] == [len(batch) for batch in second] == sizes
    assert sorted(chain(*first)) == sorted(chain(*second)) == list(range(n_rows))
    assert n_rows == 1 or first != second


@pytest.mark.parametrize("n_rows", [3, 5, 7])
def test_no_batch_has_a_single_image(n_rows):
    """Pairs of an odd number of images are made up with a group of three: one image has no batch statistics."""
    rows = Recorded(FeatureRows(FEATURES.features[:n_rows], FEATURES.labels[:n_rows]))
    on_features(replace(PLAIN, epochs=1, batch_size=2), rows).run()
    assert sorted(map(len, rows.asked))[0] >= 2


def scripted(monkeypatch, validations, **changes) -> Training:
    """Return a training whose validations come to what is given, one (loss, accuracy) an epoch."""
    training = on_features(replace(PLAIN, epochs=len(validations), **changes))
    results = iter(validations)
    monkeypatch.setattr(training, "_validate", lambda: next(results))
    return training


@pytest.mark.parametrize(
    ("validations", "best"),
    [
        ([(1.0, 0.5), (0.9, 0.7), (0.1, 0.6)], 2),  # accuracy counts before loss
        ([(1.0, 0.5), (0.8, 0.5), (0.9, 0.5)], 2),  # of equal accuracies the lowest loss
        ([(1.0, 0.5), (1.0, 0.5), (1.0, 0.5)], 1),  # of equal epochs the first
        ([(1.0, 0.5), (1.1, 0.5), (2.0, 0.9)], 3),
    ],
)
def test_the_best_epoch_is_kept(monkeypatch, validations, best):
    """The highest validation accuracy wins, ties by loss; the network comes back with the weights of that epoch."""
    training = scripted(monkeypatch, validations)
    weights = []
    training.run(on_epoch=lambda _: weights.append(copied(training.network.state_dict())))
    assert training.best_epoch == best
    assert training.stopped == ""
    network = training.best_network()
    assert differing(network.state_dict(), weights[best - 1]) == set()
    assert best == 3 or differing(network.state_dict(), weights[2]) != set()
    assert not network.training


@pytest.mark.parametrize(
    ("patience", "n_epochs", "stopped"), [(2, 4, "nothing became better in 2 epochs"), (3, 5, "3 epochs"), (0, 8, "")]
)
def test_patience(monkeypatch, patience, n_epochs, stopped):
    """Training stops after so many epochs without a better one; with 0 it never does."""
    validations = [(1.0, 0.5), (1.0, 0.6)] + [(1.0, 0.55)] * 6
    training = scripted(monkeypatch, validations, patience=patience)
    training.run()
    assert (len(training.records), training.best_epoch) == (n_epochs, 2)
    assert stopped in training.stopped
    assert bool(training.stopped) == bool(stopped)
    again = on_features(training.settings)
    again.restore(through_a_file(training.state()))
    again.run()
    assert (len(again.records), again.stopped) == (n_epochs, training.stopped)


def test_patience_that_ends_with_the_last_epoch_stops_nothing(monkeypatch):
    """A training that came to its last epoch was not stopped."""
    training = scripted(monkeypatch, [(1.0, 0.5), (1.0, 0.4), (1.0, 0.4)], patience=2)
    training.run()
    assert (len(training.records), training.stopped) == (3, "")


class _Failing(nn.Module):
    """A head whose logits are no numbers after some calls in training."""

    def __init__(self, n_good: int) -> None:
        super().__init__()
        self.linear, self.n_left = nn.Linear(5, 3), n_good

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.n_left -= 1
        return self.linear(features) * (1.0 if self.n_left >= 0 else float("nan"))


@pytest.mark.parametrize("n_good", [0, 2])
def test_a_loss_that_is_no_number_in_the_first_epoch(n_good):
    """Nothing was learned: an error that names the rate and proposes another."""
    training = Training(_Failing(n_good), FEATURES, OTHERS, 3, PLAIN)
    with pytest.raises(TuningError, match=r"in epoch 1; learning rate 0.1 is too high: .*Give --lr 0.01, or less"):
        training.run()
    assert training.records == []


@pytest.mark.parametrize("n_good", [3, 4, 8])
def test_a_loss_that_is_no_number_later(n_good):
    """Training stops with the reason, and the best epoch before is kept; going on does not begin it again."""
    training = Training(_Failing(n_good), FEATURES, OTHERS, 3, PLAIN)
    training.run()
    n_epochs = n_good // 3
    assert len(training.records) == n_epochs
    assert f"the loss is no number any more in epoch {n_epochs + 1}; learning rate 0.1 is too high" in training.stopped
    assert all(torch.isfinite(value).all() for value in training.best_network().state_dict().values())
    again = Training(_Failing(99), FEATURES, OTHERS, 3, PLAIN)
    again.restore(through_a_file(training.state()))
    again.run()
    assert (len(again.records), again.stopped) == (n_epochs, training.stopped)


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_last_step_that_spoils_the_weights_is_noticed(monkeypatch, loss):
    """A validation loss that is no number counts as one in training: such an epoch is never the best."""
    with pytest.raises(TuningError, match="in epoch 1"):
        scripted(monkeypatch, [(loss, 0.9)]).run()
    training = scripted(monkeypatch, [(1.0, 0.5), (loss, 0.9), (1.0, 0.6)])
    training.run()
    assert (len(training.records), training.best_epoch) == (1, 1)
    assert "in epoch 2" in training.stopped


def test_a_moving_average_is_what_is_validated_and_kept(photos):
    """With a decay of 0 the average is the network itself; with another one it lags behind, and is what is kept."""
    settings = replace(LIVELY, epochs=1)
    without, zero, slow = (lively(photos, replace(settings, ema=ema)) for ema in (None, 0.0, 0.9))
    for training in (without, zero, slow):
        training.run()
    assert curve(zero) == curve(without)
    assert differing(zero.best_network().state_dict(), without.best_network().state_dict()) == set()
    trained, fresh = copied(slow.network.state_dict()), tiny_network(settings).state_dict()
    assert differing(trained, without.network.state_dict()) == set()
    name = "head.linear.weight"
    kept = slow.best_network().state_dict()[name]
    assert not torch.equal(kept, trained[name])
    assert torch.linalg.norm(kept - fresh[name]) < torch.linalg.norm(trained[name] - fresh[name])


def test_dropout_and_augmentation_are_for_training_alone(photos):
    """Validation of untrained weights is the same with and without everything random."""
    settings = replace(LIVELY, epochs=1, learning_rate=1e-30, ema=None, norm_statistics="frozen")
    random_one, plain = lively(photos, settings), lively(photos, replace(settings, augment=(), dropout=0.0))
    random_one.run()
    plain.run()
    (one,), (other,) = random_one.records, plain.records
    assert (one.validation_loss, one.validation_accuracy) == (other.validation_loss, other.validation_accuracy)
    assert one.train_loss != other.train_loss


def test_half_precision_on_the_cpu(photos):
    """With bf16 the passes are coarser, the weights stay in f32, and the curve is nearly the same."""
    settings = replace(LIVELY, epochs=1, ema=None)
    whole, half = lively(photos, settings), lively(photos, replace(settings, precision="bf16"))
    whole.run()
    half.run()
    assert half.records[0].train_loss != whole.records[0].train_loss
    assert half.records[0].train_loss == pytest.approx(whole.records[0].train_loss, rel=0.05)
    assert {value.dtype for value in half.network.state_dict().values()} == {torch.float32, torch.int64}


def test_separable_features_are_learned():
    """A head finds what there is to find."""
    labels = np.arange(60) % 3
    rows = FeatureRows((np.eye(5)[labels] + RNG.normal(0, 0.1, (60, 5))).astype(np.float32), labels)
    training = on_features(replace(PLAIN, epochs=10, label_smoothing=0.1, dropout=0.2, weight_decay=0.01), rows, rows)
    training.run()
    assert training.records[-1].validation_accuracy == 1.0
    assert training.records[-1].train_loss < training.records[0].train_loss
