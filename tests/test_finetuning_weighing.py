"""With balanced weights every class counts alike: in the loss, in the accuracy, and in what is learned."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, log_loss, recall_score
from sklearn.utils.class_weight import compute_sample_weight
from torch.nn import functional

from featx.errors import UsageError
from featx.finetuning import FeatureRows, Training, TuningSettings, class_weights, make_head

UNEVEN = np.repeat([0, 1, 2], [600, 90, 30])
BALANCED = TuningSettings(
    regime="minimum",
    epochs=1,
    batch_size=1000,
    optimizer="sgd",
    learning_rate=0.1,
    warmup_epochs=0,
    weight_decay=0.0,
    dropout=0.0,
    label_smoothing=0.0,
    augment=(),
    class_weight="balanced",
)


def overlapping(labels: np.ndarray, seed: int) -> FeatureRows:
    """Return features of three classes that overlap, so that the largest wins where all images count alike."""
    features = np.random.default_rng(seed).normal(size=(len(labels), 4))
    features[np.arange(len(labels)), labels] += 1.0
    return FeatureRows(features.astype(np.float32), labels)


def trained(settings: TuningSettings) -> Training:
    """Return a finished training on uneven classes, and validated on others in the same proportion."""
    training = Training(make_head(4, 3, settings), overlapping(UNEVEN, 1), overlapping(UNEVEN, 2), 3, settings)
    training.run()
    return training


def test_weights_by_hand():
    """n / (classes · images of the class); 1 where nothing is asked for, and for a class without images."""
    labels = np.array([0, 0, 0, 1])
    np.testing.assert_allclose(class_weights(labels, 2, "balanced"), [4 / 6, 2])
    np.testing.assert_array_equal(class_weights(labels, 2, None), [1, 1])
    np.testing.assert_allclose(class_weights(labels, 3, "balanced"), [4 / 6, 2, 1])


def test_loss_and_accuracy_are_scikit_learns():
    """The first loss, and the validation's loss and accuracy, are those of scikit-learn with balanced weights."""
    head = make_head(4, 3, BALANCED)
    rows, others = overlapping(UNEVEN, 1), overlapping(UNEVEN, 2)
    with torch.inference_mode():
        before = functional.softmax(head(torch.from_numpy(rows.features)).double(), 1).numpy()
    training = Training(head, rows, others, 3, BALANCED)
    training.run()
    with torch.inference_mode():
        after = functional.softmax(head(torch.from_numpy(others.features)).double(), 1).numpy()
    weights = compute_sample_weight("balanced", UNEVEN)
    record = training.records[0]
    assert record.train_loss == pytest.approx(log_loss(UNEVEN, before, sample_weight=weights), rel=1e-5)
    assert record.train_accuracy == pytest.approx(balanced_accuracy_score(UNEVEN, before.argmax(1)))
    assert record.validation_loss == pytest.approx(log_loss(UNEVEN, after, sample_weight=weights), rel=1e-5)
    assert record.validation_accuracy == pytest.approx(balanced_accuracy_score(UNEVEN, after.argmax(1)))


@pytest.mark.parametrize("batch_size", [7, 1000])
def test_batches_change_no_weight(batch_size):
    """The loss of an epoch at a rate of nearly nothing is that of all images, however they are divided."""
    settings = replace(BALANCED, batch_size=batch_size, learning_rate=1e-12)
    head, rows = make_head(4, 3, settings), overlapping(UNEVEN, 1)
    with torch.inference_mode():
        before = functional.softmax(head(torch.from_numpy(rows.features)).double(), 1).numpy()
    training = Training(head, rows, rows, 3, settings)
    training.run()
    weights = compute_sample_weight("balanced", UNEVEN)
    assert training.records[0].train_loss == pytest.approx(log_loss(UNEVEN, before, sample_weight=weights), rel=1e-5)


def test_validation_is_weighed_by_its_own_classes():
    """Where a val split has other proportions than the training images, its classes count alike all the same."""
    other = overlapping(np.repeat([0, 1, 2], [5, 40, 60]), 2)
    training = Training(make_head(4, 3, BALANCED), overlapping(UNEVEN, 1), other, 3, BALANCED)
    training.run()
    with torch.inference_mode():
        predicted = training.best_network()(torch.from_numpy(other.features)).argmax(1).numpy()
    expected = balanced_accuracy_score(other.labels, predicted)
    assert training.records[0].validation_accuracy == pytest.approx(expected)


@pytest.mark.parametrize("augment", [(), ("mixup",)])
def test_small_classes_are_found(augment):
    """Where classes overlap, weights raise the recall of the smallest class and the balanced accuracy."""
    settings = {
        "epochs": 10,
        "patience": 0,
        "augment": augment,
        "regime": "minimum",
        "batch_size": 100,
        "learning_rate": 0.1,
    }
    recalls, scores = [], []
    for class_weight in (None, "balanced"):
        network = trained(TuningSettings(class_weight=class_weight, **settings)).best_network()
        rows = overlapping(np.repeat([0, 1, 2], 200), 3)
        with torch.inference_mode():
            predicted = network(torch.from_numpy(rows.features)).argmax(1).numpy()
        recalls.append(recall_score(rows.labels, predicted, average=None)[2])
        scores.append(balanced_accuracy_score(rows.labels, predicted))
    assert recalls[1] > recalls[0] + 0.2
    assert scores[1] > scores[0] + 0.05


def test_other_weights_are_refused():
    """Only balanced is known."""
    with pytest.raises(UsageError, match="class_weight 'equal' is unknown; allowed: balanced"):
        TuningSettings(class_weight="equal")
