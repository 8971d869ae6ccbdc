"""Warnings come when chance does not explain it, and say what is wrong and what to try."""

from __future__ import annotations

import numpy as np
import pytest

from featx.finetuning import EpochRecord, OverfitCheck, TuningSettings
from featx.workflows.lost_knowledge import behind_note, check_note, is_behind, result_notes
from featx.workflows.paired_gains import paired_gain

SETTINGS = TuningSettings(regime="partial", learning_rate=0.5)


def record(accuracy: float, *, epoch: int = 2, train_loss: float = 1.0) -> EpochRecord:
    """Return a record of an epoch."""
    return EpochRecord(epoch, train_loss, 0.5, 1.0, accuracy, 0.01, 1.0)


@pytest.mark.parametrize(
    ("accuracy", "frozen", "n_validation", "expected"),
    [
        (0.79, 0.9, 64, False),  # one standard error is 0.0375: three are 0.1125
        (0.78, 0.9, 64, True),
        (0.95, 0.9, 64, False),
        (0.6, 0.9, 4, False),  # so few images say nothing
        (0.0, 1.0, 1, False),
        (0.86, 1.0, 25, True),  # where the frozen features make no error, one in 25 is taken: 3 errors are 0.1176
        (0.89, 1.0, 25, False),
        (0.0, 0.02, 50, False),
    ],
)
def test_behind_is_three_standard_errors(accuracy, frozen, n_validation, expected):
    """Only a distance that validation images of this number do not show by chance counts."""
    assert is_behind(record(accuracy), frozen, np.ones(n_validation)) is expected


def test_weighted_images_are_worth_fewer():
    """One image that counts as much as 63 others leaves an effective number of 4, which says nothing."""
    weights = np.ones(64)
    assert is_behind(record(0.6), 0.9, weights)
    weights[0] = 63.0
    assert not is_behind(record(0.6), 0.9, weights)


def test_the_first_epoch_is_never_behind():
    """It begins with a head that has never seen an image."""
    assert not is_behind(record(0.1, epoch=1), 0.9, np.ones(1000))
    assert is_behind(record(0.1, epoch=2), 0.9, np.ones(1000))


def test_features_that_are_still_alike_blame_the_head():
    """Where features are much like before, more epochs or another rate are proposed, and nothing is called lost."""
    note = behind_note(record(0.5), 0.9, 0.93, SETTINGS)
    assert note.startswith("after epoch 2 it names 50.0 % of the validation images rightly")
    assert "a head on the frozen features 90.0 %" in note
    assert "still much like before (likeness 0.93 of 1)" in note
    assert "more epochs, or another --lr than 0.5" in note
    assert "lost" not in note


@pytest.mark.parametrize(
    ("likeness", "train_loss", "why"),
    [
        (0.08, 1.0, "has lost what it knew (likeness of its features to those before 0.08 of 1)"),
        (0.9, 2.5e4, "the training loss has risen to 2.5e+04"),
    ],
)
def test_a_rate_that_is_too_high_is_said_to_be(likeness, train_loss, why):
    """Features unlike those before, or a loss beyond any guess, are the rate's fault; a tenth of it is proposed."""
    note = behind_note(record(0.3, train_loss=train_loss), 0.9, likeness, SETTINGS)
    assert why in note
    assert "The learning rate is too high: try --lr 0.05, a smaller --lr-scale" in note


WORSE = paired_gain([True] * 40, [False] * 20 + [True] * 20)
EQUAL = paired_gain([True, False] * 20, [True, False] * 20)


@pytest.mark.parametrize(
    ("gain", "images", "likeness", "train_loss", "said"),
    [
        (EQUAL, 100.0, 0.1, 1.0, []),
        (EQUAL, 99.0, 0.9, 1.0, ["99 images a class (median): under 100"]),
        (WORSE, 500.0, 0.1, 1.0, ["it has lost what it knew (likeness of the features to those before 0.10); use"]),
        (WORSE, 500.0, 0.9, 50.0, ["it has lost what it knew"]),
        (WORSE, 500.0, 0.9, 1.0, ["its head has not learned enough"]),
        (WORSE, 20.0, 0.1, 1.0, ["20 images a class", "worse than the frozen features"]),
    ],
)
def test_notes_on_a_result(gain, images, likeness, train_loss, said):
    """Few images and a loss that is beyond chance are told, each with what to do; a good result needs no words."""
    notes = result_notes(SETTINGS, gain, images, likeness, train_loss)
    assert len(notes) == len(said)
    assert all(part in note for part, note in zip(said, notes, strict=True))


def test_a_frozen_network_loses_nothing():
    """A new head alone gets none of these notes."""
    assert result_notes(TuningSettings(regime="minimum"), WORSE, 5.0, 1.0, 1.0) == []


def test_images_that_were_not_learned_by_heart():
    """The note has the numbers of the check, and the reasons that come to mind."""
    note = check_note(OverfitCheck(16, 60, 0.625), SETTINGS)
    assert note.startswith("16 images were not learned by heart in 60 steps (62 % named rightly)")
    assert "learning rate 0.5 may be too low or far too high" in note
    assert "the same picture has several labels" in note
