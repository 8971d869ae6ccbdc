"""The advice that follows from evidence: a pure function, tried on evidence made up for each case."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest

from featx.advice.decision import QUADRANTS, decide
from featx.advice.layer_sweep import LayerEvidence, LayerSweep
from featx.advice.similarity import Similarity
from featx.advice.size import SetSize, measure_size

DEPTHS = {"blocks.4@avg": 0.6}  # the last layer, and what it is part of, are at 1


def similarity(value):
    """Return a similarity of a value, or an unknown one."""
    if value is None:
        return Similarity(None, None, "unknown", "", "the images are gone", 0, (), None)
    verdict = "similar" if value >= 2 / 3 else "between" if value > 1 / 3 else "different"
    return Similarity(value, (value - 0.05, value + 0.05), verdict, "batch-norm statistics", "measured", 96, (), None)


def size(per_class=50, n_classes=3, *, n_copies=0, smallest=None):
    """Return the size of a set of even classes, of which the first may be smaller."""
    counts = [per_class if smallest is None else smallest, *[per_class] * (n_classes - 1)]
    n_images = sum(counts) + n_copies
    return SetSize(n_images, n_images, n_copies, tuple((f"class {i}", n) for i, n in enumerate(counts)))


def sweep(late, early, joined=None, *, learned=True, sure=True, **more):
    """Return evidence of accuracies of the last layer, an earlier one and both; a lead may be sure or luck."""
    accuracies = {"blocks.4@avg": early, "penultimate@avg": late, "blocks.4@avg+penultimate@avg": joined}
    accuracies = {layer: accuracy for layer, accuracy in accuracies.items() if accuracy is not None}
    best = max(accuracies.values())
    layers = tuple(
        LayerEvidence(
            layer, DEPTHS.get(layer, 1.0), 120, accuracy, (accuracy - 0.05, accuracy + 0.05), best - accuracy,
            (best - accuracy - (0.001 if sure else 0.5), best - accuracy + 0.01), 0.1, 2.0,
        )
        for layer, accuracy in accuracies.items()
    )  # fmt: skip
    return LayerSweep(layers, "penultimate@avg", 0.34, learned, 100, 5, 3, **more)


@pytest.mark.parametrize(
    ("per_class", "value", "quadrant"),
    [
        (999, 0.9, "small-similar"),
        (50, 0.1, "small-different"),
        (1000, 0.9, "large-similar"),
        (5000, 0.1, "large-different"),
        (50, 0.51, "small-similar"),
        (50, 0.49, "small-different"),
    ],
)
def test_the_table_is_that_which_everybody_teaches(per_class, value, quadrant):
    """Without evidence by layer, size and similarity alone name the quadrant and its road."""
    advice = decide(size(per_class), similarity(value), no_sweep="no labels")
    assert (advice.quadrant, advice.strategy) == (quadrant, QUADRANTS[quadrant])
    assert advice.between == (1 / 3 < value < 2 / 3)
    assert advice.layer is None


@pytest.mark.parametrize(
    ("value", "late", "early", "joined", "sure", "strategy", "layer"),
    [
        (0.9, 0.95, 0.90, None, True, "late-linear", "penultimate@avg"),
        (0.1, 0.95, 0.90, None, True, "late-linear", "penultimate@avg"),
        (0.1, 0.950, 0.955, None, True, "late-linear", "penultimate@avg"),
        (0.1, 0.90, 0.95, None, True, "early-linear", "blocks.4@avg"),
        (0.1, 0.90, 0.95, None, False, "early-linear", "blocks.4@avg"),
        (0.9, 0.90, 0.95, None, True, "early-linear", "blocks.4@avg"),
        (0.9, 0.90, 0.95, None, False, "late-linear", "penultimate@avg"),
        (0.9, 0.90, 0.89, 0.95, True, "early-linear", "blocks.4@avg+penultimate@avg"),
        (None, 0.90, 0.95, None, False, "early-linear", "blocks.4@avg"),
        (None, 0.95, 0.90, None, True, "late-linear", "penultimate@avg"),
    ],
)
def test_measurement_overrules_the_table_on_small_sets(value, late, early, joined, sure, strategy, layer):
    """A tie or better is late; a lead is early, unless the set is similar and the lead may be luck."""
    advice = decide(size(), similarity(value), sweep(late, early, joined, sure=sure))
    assert (advice.strategy, advice.layer) == (strategy, layer)
    assert advice.layers == sweep(late, early, joined, sure=sure).layers


def test_disagreement_is_said_with_its_numbers():
    """The reasons name what theory says, what was measured, and that they disagree."""
    advice = decide(size(), similarity(0.1), sweep(0.95, 0.90))
    said = " ".join(advice.reasons)
    assert "Theory for a small and different set: a linear head on earlier features" in said
    assert "Theory and measurement disagree" in said
    assert "95.0 %" in said
    assert "90.0 %" in said
    assert "0.10 (95 % interval 0.05 to 0.15), different" in said
    agreed = " ".join(decide(size(), similarity(0.9), sweep(0.95, 0.90)).reasons)
    assert "Measurement agrees" in agreed
    assert "disagree" not in agreed


def test_an_unknown_similarity_leaves_the_layers_to_decide():
    """The reason why it is not known is passed on, and the layers say which side the set is on."""
    advice = decide(size(), similarity(None), sweep(0.90, 0.95))
    assert advice.quadrant == "small-different"
    assert "the images are gone" in advice.reasons[1]
    assert "counts as different" in advice.reasons[1]
    nothing = decide(size(), similarity(None), no_sweep="no labels")
    assert (nothing.quadrant, nothing.strategy) == (None, "late-linear")


@pytest.mark.parametrize(
    ("best", "roads"), [(0.90, ["partial", "late-linear"]), (0.985, ["late-linear"]), (1.0, ["late-linear"])]
)
def test_large_sets_are_trained_for_where_there_is_something_to_win(best, roads):
    """Frozen features that give nearly everything leave nothing to train for: only theory still speaks for it."""
    advice = decide(size(2000), similarity(0.9), sweep(best, 0.5))
    assert advice.quadrant == "large-similar"
    assert [advice.strategy, *(other.strategy for other in advice.also_worth)] == roads
    assert any("Theory for a large and similar set: fine-tuning" in reason for reason in advice.reasons)


def test_enough_is_what_the_advised_layer_gives():
    """Another layer that gives nearly everything, by what may be luck, is not the one that the head would stand on."""
    advice = decide(size(2000), similarity(0.9), sweep(0.97, 0.985, sure=False))
    assert advice.strategy == "partial"
    assert "Frozen features reach 97.0 %, which leaves 3.0 points" in " ".join(advice.reasons)


def test_small_sets_without_anything_to_win_are_not_trained_for():
    """Nobody is sent to win nothing."""
    assert decide(size(200), similarity(0.4), sweep(1.0, 1.0)).also_worth[-1].strategy == "early-linear"
    assert decide(size(200), similarity(0.4), sweep(0.95, 0.95)).also_worth[-1].strategy == "partial"


def test_balanced_accuracy_is_called_so():
    """Every sentence with an accuracy of weighed classes says which one it is."""
    uneven = sweep(0.95, 0.90, is_balanced=True)
    said = " ".join(decide(size(300, smallest=20), similarity(0.1), uneven).reasons)
    assert "penultimate has a balanced accuracy of 95.0 %; the best earlier layer, blocks.4, one of 90.0 %" in said
    assert "right on" not in said
    other = decide(size(300, smallest=20), similarity(0.1), uneven).also_worth[0]
    assert "blocks.4 has a balanced accuracy of 90.0 % here" in other.why
    large = " ".join(decide(size(3000, smallest=20), similarity(0.1), uneven).reasons)
    assert "Frozen features reach a balanced accuracy of 95.0 %" in large
    nothing = sweep(0.35, 0.30, learned=False, is_balanced=True)
    said = " ".join(decide(size(300, smallest=20), similarity(0.1), nothing).reasons)
    assert "a better balanced accuracy than always naming one class (34.0 %)" in said


def test_a_lead_is_that_of_the_layer_named():
    """The last of the nearly best layers is named, and how far that one is ahead."""
    (other,) = decide(size(), similarity(0.9), sweep(0.900, 0.950, 0.945, sure=False)).also_worth[:1]
    assert other.layer == "blocks.4@avg+penultimate@avg"
    assert "is 4.5 points ahead here" in other.why


def test_small_and_different_names_both_roads():
    """A head on earlier layers, and partial training with augmentation."""
    advice = decide(size(), similarity(0.1), sweep(0.8, 0.9))
    assert advice.strategy == "early-linear"
    (other,) = advice.also_worth
    assert other.strategy == "partial"
    assert "with augmentation" in other.why
    assert "10.0 points" in other.why


def test_what_theory_says_stays_worth_trying():
    """Where measurement overrules the table, the table's road is named with its layer and how good that is."""
    other = decide(size(), similarity(0.1), sweep(0.95, 0.90)).also_worth[0]
    assert (other.strategy, other.layer) == ("early-linear", "blocks.4@avg")
    assert "blocks.4 is right on 90.0 %" in other.why


def test_nothing_learned_decides_nothing():
    """Layers that are no better than the largest class are no evidence, and that is said."""
    advice = decide(size(), similarity(0.1), sweep(0.35, 0.30, learned=False))
    assert advice.strategy == "early-linear"
    assert any("more than luck" in reason for reason in advice.reasons)


@pytest.mark.parametrize(
    ("of_size", "value", "expected"),
    [
        (size(99), 0.1, {"Fine-tuning may not converge", "Overfitting", "Lost knowledge"}),
        (size(100), 0.9, {"Overfitting"}),
        (size(5000), 0.1, {"Lost knowledge"}),
        (size(300, smallest=20), 0.9, {"Imbalance", "Overfitting"}),
        (size(300, n_copies=4), 0.9, {"Duplicates", "Overfitting"}),
    ],
)
def test_risks_are_those_of_the_roads_named(of_size, value, expected):
    """Each risk is named where it is one: of few images, of training, of uneven classes, of copies."""
    advice = decide(of_size, similarity(value), sweep(0.95, 0.9))
    assert {risk.partition(":")[0] for risk in advice.risks} == expected


@pytest.mark.parametrize(("n_rows", "n_training", "is_said"), [(100, 119, True), (100, 120, False), (130, 0, False)])
def test_heads_learn_more_rows_than_were_measured(n_rows, n_training, is_said):
    """A head on 120 columns can learn by heart what it learns from, not what of it was drawn to measure layers."""
    found = LayerSweep(sweep(0.95, 0.9).layers, "penultimate@avg", 0.3, True, n_rows, 5, 1, n_training_rows=n_training)
    risks = " ".join(decide(size(200), similarity(0.9), found).risks)
    assert ("can learn fewer images than that (119 here) by heart" in risks) == is_said


def test_risks_have_their_numbers():
    """Imbalance names the classes and the ratio, duplicates how many."""
    risks = " ".join(decide(size(300, n_copies=4, smallest=20), similarity(0.9), sweep(0.95, 0.9)).risks)
    assert "'class 1' has 15 times the images of 'class 0' (300 to 20)" in risks
    assert "4 of 624 labelled images" in risks


@pytest.mark.parametrize(("n_images", "strategy"), [(400, "late-linear"), (1999, "late-linear"), (90_000, "partial")])
def test_without_labels_the_images_in_all_are_what_is_known(n_images, strategy):
    """Two classes are the fewest: under 2000 images no two classes have 1000 each."""
    advice = decide(SetSize(n_images, 0, 0, ()), similarity(0.9), no_sweep="there are no labels")
    assert advice.strategy == strategy
    assert "without labels" in advice.reasons[0]
    assert any("there are no labels" in reason for reason in advice.reasons)


def test_every_case_gives_a_road_and_whole_sentences():
    """Whatever is known and unknown, there is a road of the four, no road twice, and reasons end with a full stop."""
    sweeps = [None, sweep(0.95, 0.9), sweep(0.9, 0.95), sweep(0.9, 0.95, sure=False), sweep(0.3, 0.3, learned=False)]
    sweeps += [sweep(0.99, None), sweep(0.9, 0.9, 0.99)]
    sweeps += [sweep(0.3, 0.8, is_balanced=True)]
    sizes = [size(5), size(500), size(5000), size(1), SetSize(30, 0, 0, ()), size(40, 1), size(3, 2, smallest=1)]
    for of_size, value, found in itertools.product(sizes, (None, 0.1, 0.4, 0.6, 0.9), sweeps):
        advice = decide(of_size, similarity(value), found, no_sweep="too few.")
        roads = [advice.strategy, *(other.strategy for other in advice.also_worth)]
        assert set(roads) <= set(QUADRANTS.values())
        assert len(set(roads)) == len(roads)
        sentences = [*advice.reasons, *advice.risks, *(other.why for other in advice.also_worth)]
        assert all(sentence.endswith(".") and sentence[0].isupper() for sentence in sentences)
        assert not any(".." in sentence or "None" in sentence for sentence in sentences)
        assert not any(re.search(r"\b1 (images|classes|points)\b", sentence) for sentence in sentences)


def test_copies_count_once():
    """A class has as many images as it has different pictures; copies in another class count there too."""
    labels = np.array([0, 0, 0, 1, 1, -1, 2])
    found = measure_size(labels, ["a", "b", "c", "unused"], np.array([5, 5, -1, 5, -1, -1, -1]))
    assert found.classes == (("a", 2), ("b", 2), ("c", 1))
    assert (found.n_images, found.n_labelled, found.n_copies) == (7, 6, 1)
    assert (found.per_class, found.imbalance, found.smallest) == (2, 2, ("c", 1))
    assert found.to_json()["verdict"] == "small"


@pytest.mark.parametrize(
    ("counts", "median", "said"),
    [
        ((20, 1990), 20, "the lower median 20"),
        ((20, 30, 1990), 30, "the median 30"),
        ((20, 30, 30, 1990), 30, "the median 30"),
        ((7,), 7, "1 class of 7 images"),
        ((1, 1), 1, "2 classes, 1 image each"),
    ],
)
def test_the_median_is_the_size_of_a_class(counts, median, said):
    """Of two classes in the middle the smaller one counts, and that is said."""
    of_size = SetSize(sum(counts), sum(counts), 0, tuple((f"class {n}", count) for n, count in enumerate(counts)))
    assert (of_size.per_class, of_size.is_small) == (median, True)
    assert said in decide(of_size, similarity(0.9)).reasons[0]


@pytest.mark.parametrize(("widths", "is_wide"), [((64, 120), False), ((120, 64), True)])
def test_log_me_favours_wide_layers_only_where_it_did(widths, is_wide):
    """The earlier layer has the higher LogME; that it is the wider one is said only where it is."""
    early, late = (
        LayerEvidence(layer, depth, width, accuracy, (0.8, 1.0), 0.95 - accuracy, (0.0, 0.1), log_me, 1.0)
        for layer, depth, width, accuracy, log_me in (
            ("blocks.4@avg", 0.5, widths[0], 0.8, 0.4), ("penultimate@avg", 1.0, widths[1], 0.95, 0.1),
        )
    )  # fmt: skip
    reasons = decide(size(), similarity(0.9), LayerSweep((early, late), late.layer, 0.3, True, 100, 5, 1)).reasons
    (said,) = [reason for reason in reasons if reason.startswith("LogME")]
    assert "accuracy is what counts" in said
    assert ("favours wide layers" in said) == is_wide
