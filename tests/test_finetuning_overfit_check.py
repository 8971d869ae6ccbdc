"""A handful of images that cannot be learned by heart shows that something is wrong."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fake_backbone import write_pictures
from tiny_networks import copied, differing, pictures_of, tiny_network, watched_generators

from featx.finetuning import FeatureRows, TuningSettings, learns_by_heart, make_head
from featx.finetuning.overfit_check import _handful

SETTINGS = TuningSettings(regime="total", dropout=0.0, learning_rate=0.02, optimizer="adam", lr_scale=(1.0,))


def test_pictures_of_different_colours_are_learned(tmp_path):
    """Red, green and blue pictures are told apart after some steps; the network itself does not change."""
    rows = pictures_of(write_pictures(tmp_path / "photos"))
    network = tiny_network(SETTINGS)
    state, untouched = copied(network.state_dict()), watched_generators()
    check = learns_by_heart(network, rows, SETTINGS)
    assert (check.passed, check.accuracy, check.n_images) == (True, 1.0, 16)
    assert 0 < check.n_steps < 60
    assert differing(state, network.state_dict()) == set()
    assert not network.training
    assert all(parameter.grad is None for parameter in network.parameters())
    assert untouched()
    assert learns_by_heart(network, rows, SETTINGS) == check


def test_a_picture_with_two_labels_cannot_be_learned():
    """Equal features under different labels are never all named rightly: the check is given up after 60 steps."""
    rows = FeatureRows(np.ones((8, 4), np.float32), np.arange(8) % 2)
    check = learns_by_heart(make_head(4, 2, SETTINGS), rows, SETTINGS)
    assert (check.passed, check.accuracy, check.n_steps, check.n_images) == (False, 0.5, 60, 8)


@pytest.mark.parametrize("rate", [1e-7, 100.0])
def test_a_learning_rate_far_from_right_shows(rate):
    """Features that a good rate learns in a few steps are not learned with one that is far too low or too high."""
    rng = np.random.default_rng(0)
    rows = FeatureRows(rng.normal(size=(16, 40)).astype(np.float32), rng.integers(0, 4, 16))
    good, bad = (
        TuningSettings(regime="minimum", optimizer="sgd", learning_rate=lr, dropout=0.5 if lr > 1 else 0.0, augment=())
        for lr in (0.1, rate)
    )
    assert learns_by_heart(make_head(40, 4, good), rows, good).passed
    assert not learns_by_heart(make_head(40, 4, bad), rows, bad).passed


def test_a_head_that_knows_the_images_shows_a_rate_that_is_too_high():
    """Images that are named rightly from the start pass only when some steps at the learning rate leave them so."""
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(16, 40)).astype(np.float32), rng.integers(0, 4, 16)
    rows = FeatureRows(features, labels)
    known = torch.from_numpy(np.linalg.lstsq(features, np.eye(4)[labels], rcond=None)[0].T.copy())
    checks = []
    for rate, dropout in ((0.01, 0.0), (100.0, 0.5)):
        settings = TuningSettings(regime="minimum", optimizer="sgd", learning_rate=rate, dropout=dropout, augment=())
        head = make_head(40, 4, settings)
        head.linear.load_state_dict({"weight": known, "bias": torch.zeros(4)})
        checks.append(learns_by_heart(head, rows, settings))
    assert (checks[0].passed, checks[0].n_steps) == (True, 5)
    assert not checks[1].passed


def test_it_does_not_take_longer_than_it_may(monkeypatch):
    """When the time is up it ends with what it has."""
    monkeypatch.setattr("featx.finetuning.overfit_check._MAX_SECONDS", -1.0)
    rows = FeatureRows(torch.randn(4, 3).numpy(), np.array([0, 1, 0, 1]))
    check = learns_by_heart(make_head(3, 2, SETTINGS), rows, SETTINGS)
    assert (check.n_steps, check.passed) == (0, False)


def test_every_class_is_among_the_handful():
    """The first images of each class come first: all classes take part where there are 16 at the most."""
    labels = np.repeat([0, 1, 2], [30, 5, 1])
    chosen = _handful(labels)
    assert len(chosen) == 16
    assert np.bincount(labels[chosen]).tolist() == [10, 5, 1]
    assert chosen[:3].tolist() == [0, 30, 35]
    many = np.repeat(np.arange(40), 2)
    assert len(np.unique(many[_handful(many)])) == 16
    assert sorted(_handful(np.array([1, 0, 1]))) == [0, 1, 2]
