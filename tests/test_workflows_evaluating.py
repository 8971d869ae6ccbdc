"""The score on a source: labels matched by name, the right images scored, and what views of them gain."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from colour_bundle import NAMES, colour_bundle, colours_by_hand, write_halves
from fake_backbone import write_pictures
from gallery import NETWORK, run

from featx.errors import HeadError, SourceError, UsageError
from featx.heads import wilson_interval
from featx.images import list_images
from featx.store import FeatureStore
from featx.workflows.evaluating import evaluate_source
from featx.workflows.fitting import FitSettings, fit_classifier
from featx.workflows.paired_gains import paired_gain


@pytest.fixture
def mixed(tmp_path):
    """Pictures of two colours in folders of one of them, for which the views disagree."""
    random, folder = np.random.default_rng(1), tmp_path / "mixed"
    for name, colour in (("blue", (40, 60, 180)), ("red", (180, 60, 40))):
        for number in range(10):
            other = colour[::-1]
            frame = (colour, other)[number % 2]
            write_halves(folder / name / f"{number}.png", colour, other, random.uniform(0.3, 0.7), frame)
    return folder


def by_hand(folder, n_views, combine="mean"):
    """Return for each picture of a folder, in order, whether the colour that its views show is its class."""
    right = []
    for entry in list_images(folder).entries:
        shares = colours_by_hand(folder / entry.path, n_views)
        votes = np.array([(shares.argmax(axis=1) == label).mean() for label in range(3)])
        value = shares.mean(axis=0) + (1000 * votes if combine == "vote" else 0)
        right.append(NAMES[int(value.argmax())] == entry.path.split("/")[-2])
    return np.array(right)


def test_the_score_is_that_by_hand(mixed):
    """Accuracy, interval, confusion and class scores are those of a plain loop over the pictures."""
    result = evaluate_source(colour_bundle(), list_images(mixed))
    right = by_hand(mixed, 1)
    evaluation = result.evaluation
    assert 0 < right.mean() < 1
    assert evaluation.accuracy == pytest.approx(right.mean())
    assert evaluation.interval == pytest.approx(wilson_interval(int(right.sum()), 20))
    assert (evaluation.rows, evaluation.on, result.split) == (20, "all images", "all")
    assert [score.support for score in evaluation.per_class] == [10, 0, 10]
    assert evaluation.confusion.diagonal().tolist() == [right[:10].sum(), 0, right[10:].sum()]
    assert evaluation.balanced_accuracy == pytest.approx((right[:10].mean() + right[10:].mean()) / 2)
    assert (result.plain, result.gain, result.notes, result.failures) == (None, None, (), ())


@pytest.mark.parametrize("combine", ["mean", "vote"])
@pytest.mark.parametrize("tta", [5, 10])
def test_views_bring_the_plain_score_and_the_gain(tta, combine, mixed):
    """With views, the score is theirs, the plain one is what is scored without them, and the gain is from it."""
    plain = evaluate_source(colour_bundle(), list_images(mixed))
    result = evaluate_source(colour_bundle(), list_images(mixed), tta=tta, combine=combine)
    before, after = by_hand(mixed, 1), by_hand(mixed, tta, combine)
    assert (before != after).any()
    assert result.evaluation.accuracy == pytest.approx(after.mean())
    assert result.plain.to_json() == plain.evaluation.to_json()
    assert result.gain == paired_gain(before, after)
    assert (result.tta, result.combine) == (tta, combine)
    shown = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert shown["gain"]["difference"] == pytest.approx(after.mean() - before.mean())
    assert set(shown["gain"]) == {"difference", "interval", "p_value", "n_better", "n_worse"}
    assert shown["plain"]["accuracy"] == pytest.approx(before.mean())


def test_classes_are_matched_by_name(tmp_path):
    """A source with other classes, in another order, is scored by the names; what is unknown is left out and named."""
    folder = write_pictures(tmp_path / "pictures", n_each=4)
    (folder / "green").rename(folder / "apple")
    (folder / "blue").rename(folder / "zebra")
    write_pictures(folder, n_each=2)
    (folder / "loose.png").write_bytes((folder / "red" / "001.png").read_bytes())
    result = evaluate_source(colour_bundle(), list_images(folder))
    assert result.evaluation.accuracy == 1
    assert [(score.name, score.support) for score in result.evaluation.per_class] == [
        ("blue", 2), ("green", 2), ("red", 4),
    ]  # fmt: skip
    assert result.unknown == (("apple", 4), ("zebra", 4))
    assert result.n_unlabelled == 1
    assert result.notes == (
        "left out for a class that the classifier does not know: 8 images, apple (4), zebra (4)",
        "left out without a label: 1 image",
    )
    # The same with the names exchanged: now every red is called blue.
    other = evaluate_source(colour_bundle(("red", "green", "blue")), list_images(folder))
    assert other.evaluation.accuracy == pytest.approx(2 / 8)


def test_unreadable_images_are_left_out(mixed):
    """An image that cannot be read has its reason, is not scored, and no other image takes its label."""
    (mixed / "blue" / "3.png").write_text("no picture")
    (mixed / "red" / "9.png").write_text("")
    listing = list_images(mixed)
    result = evaluate_source(colour_bundle(), listing)
    right = [NAMES[int(colours_by_hand(mixed / entry.path, 1)[0].argmax())] == entry.path.split("/")[0]
             for entry in listing.entries if entry.path not in ("blue/3.png", "red/9.png")]  # fmt: skip
    assert result.evaluation.rows == 18
    assert result.evaluation.accuracy == pytest.approx(np.mean(right))
    assert [path for path, _ in result.failures] == ["blue/3.png", "red/9.png"]
    assert result.notes == ("left out because they cannot be read: 2 images",)


@pytest.fixture
def splits(tmp_path):
    """A folder with splits of different sizes: 9 train, 6 val, 3 test images."""
    for name, n_each in (("train", 3), ("valid", 2), ("test", 1)):
        write_pictures(tmp_path / "splits" / name, n_each=n_each)
    return tmp_path / "splits"


def test_which_images_are_scored(splits):
    """The test split if there is one, else val, else all; or what is asked for."""
    listing = list_images(splits)

    def scored(entries, **arguments):
        result = evaluate_source(colour_bundle(), replace(listing, entries=tuple(entries)), **arguments)
        return result.split, result.evaluation.on, result.evaluation.rows

    assert scored(listing.entries) == ("test", "test split", 3)
    assert scored(entry for entry in listing.entries if entry.split != 2) == ("val", "val split", 6)
    assert scored(entry for entry in listing.entries if entry.split == 0) == ("all", "all images", 9)
    unlabelled = [replace(entry, label=-1) if entry.split == 2 else entry for entry in listing.entries]
    assert scored(unlabelled) == ("val", "val split", 6)
    for split, n_rows in (("train", 9), ("val", 6), ("test", 3), ("all", 18)):
        assert scored(listing.entries, split=split)[::2] == (split, n_rows)


def test_what_cannot_be_scored(splits):
    """No such split, no labels, no known class and no readable image are errors that say what was found."""
    listing, bundle = list_images(splits), colour_bundle()
    with pytest.raises(UsageError, match="split 'dev' is unknown; use one of test, val, train, all"):
        evaluate_source(bundle, listing, split="dev")
    train = replace(listing, entries=tuple(entry for entry in listing.entries if entry.split == 0))
    with pytest.raises(UsageError, match=r"no test split; found: train \(9\); name another, or all"):
        evaluate_source(bundle, train, split="test")
    with pytest.raises(SourceError, match=r"none of the 3 images .* has a label to score against"):
        evaluate_source(bundle, replace(listing, entries=tuple(replace(e, label=-1) for e in listing.entries[:3])))
    with pytest.raises(HeadError, match="it knows one, two, three, found were blue, green, red"):
        evaluate_source(colour_bundle(("one", "two", "three")), listing)
    for entry in listing.entries:
        if entry.split == 2:
            (splits / entry.path).write_text("no picture")
    with pytest.raises(SourceError, match=r"none of the 3 labelled images .* could be read; the first, test/blue/000"):
        evaluate_source(bundle, listing)
    with pytest.raises(UsageError, match="7 views"):
        evaluate_source(bundle, listing, tta=7)
    assert len(bundle.computed) == 1  # only to find that nothing can be read


def test_the_baseline_is_the_largest_class_of_training(mixed):
    """The card's majority class is scored as an answer to everything; without a card there is no baseline."""
    listing = list_images(mixed)
    for card, expected in (
        ({"evaluation": {"majority_class": "red"}}, ("red", 0.5)),
        ({"evaluation": {"majority_class": "green"}}, ("green", 0.0)),
        ({"evaluation": {"majority_class": "unheard of"}}, (None, None)),
        ({"evaluation": ["something", "else"]}, (None, None)),
        ({}, (None, None)),
    ):
        evaluation = evaluate_source(colour_bundle(card=card), listing).evaluation
        assert (evaluation.majority_class, evaluation.majority_accuracy) == expected


def test_images_that_were_learned_from_are_pointed_out(splits):
    """Where the source is the one of the fit, only the split that was held out at the fit goes without a note."""
    listing = list_images(splits)

    def noted(split, **card):
        bundle = colour_bundle(card={"source": listing.source, "evaluation": {"on": "test split"}, **card})
        return [note for note in evaluate_source(bundle, listing, split=split).notes if "flatters" in note]

    assert noted("test") == []
    assert [len(noted(split)) for split in ("train", "val", "all")] == [1, 1, 1]
    assert len(noted("test", rows_scored_were_learned_from_afterwards=True)) == 1
    assert noted("train", source="/elsewhere") == []
    assert len(noted("all", evaluation={"on": "held-out 20 % of the labelled rows, stratified, seed 0"})) == 1


def test_progress_counts_what_is_scored(splits):
    """Progress is told after every image, out of those that are scored."""
    told = []
    evaluate_source(colour_bundle(), list_images(splits), split="val", tta=2, progress=told.append)
    assert [(state.n_done, state.n_total) for state in told] == [(number, 6) for number in range(1, 7)]


def test_the_score_is_that_of_the_fit(tmp_path):
    """On the test split, the score read from image files is the one that the fit reported from its store."""
    for name, n_each in (("train", 6), ("test", 4)):
        write_pictures(tmp_path / "photos" / name, n_each=n_each, size=(24, 18))
    # Labels that mean nothing, so that the score is neither 0 nor 1.
    for number, path in enumerate(sorted((tmp_path / "photos" / "test").glob("*/*"))):
        if number % 3 == 0:
            path.rename(tmp_path / "photos" / "test" / "blue" / f"moved-{path.parent.name}-{path.name}")
    assert run("extract", tmp_path / "photos", "--out", tmp_path / "f.h5", *NETWORK) == 0
    with FeatureStore(tmp_path / "f.h5") as store:
        fitted = fit_classifier(store, None, FitSettings(allow_random=True, cv=2))
    result = evaluate_source(fitted.bundle, list_images(tmp_path / "photos"))
    assert 0 < fitted.evaluation.accuracy < 1
    assert result.evaluation.to_json() == fitted.evaluation.to_json()
    assert result.notes == ()
