"""Images to learn from, to choose the epoch by and to be scored on: three parts that never mix."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from layered_stores import LABELS, random_bytes, with_copies, write_layers, write_patients

from featx.errors import HeadError, SourceError
from featx.images import TEST, TRAIN, VAL, ImageEntry, ImageListing
from featx.store import FeatureStore
from featx.workflows.labelled_rows import labelled_rows
from featx.workflows.tuning_rows import tuning_rows

N_ROWS = len(LABELS)
PAIRS = [(0, 5), (1, 9), (2, 17), (25, 30), (26, 41), (43, 50)]  # both of a pair are of one class


def listing_of(store: FeatureStore) -> ImageListing:
    """Return a listing of the images of a store, with an unreadable one that has no row in it."""
    columns = zip(store.paths.tolist(), store.labels, store.splits, strict=True)
    entries = [ImageEntry(path, int(label), int(split)) for path, label, split in columns]
    return ImageListing(store.source, (ImageEntry("broken.png", 0), *reversed(entries)), tuple(store.label_names))


def rows_of(path, **options):
    """Return the three parts of a store at a path."""
    with FeatureStore(path) as store:
        return tuning_rows(store, listing_of(store), **options)


def parts_of(rows):
    """Return for each row which part it is in: 0, 1, 2, or −1 for none; they must not overlap."""
    part = np.full(len(rows.labels), -1)
    for number, members in enumerate((rows.train, rows.validation, rows.held_out)):
        assert (part[members] == -1).all()
        part[members] = number
    return part


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_the_held_out_rows_are_those_of_a_classifier_on_features(tmp_path, seed):
    """With the same seed they are the rows of `fit-svm`; the other two parts are its training rows."""
    path = write_layers(tmp_path / "s.h5", [*LABELS, -1, -1])
    with FeatureStore(path) as store:
        expected = labelled_rows(store, held_out=0.3, seed=seed)
    rows = rows_of(path, held_out=0.3, seed=seed)
    np.testing.assert_array_equal(rows.held_out, expected.split.held_out)
    np.testing.assert_array_equal(np.union1d(rows.train, rows.validation), expected.split.train)
    part = parts_of(rows)
    assert part.tolist().count(-1) == 2  # those without a label
    assert set(rows.labels[rows.validation]) == {0, 1, 2}
    n_learned = len(rows.train) + len(rows.validation)
    assert len(rows.validation) == pytest.approx(0.15 * n_learned, abs=2)
    assert rows.chosen_by == "15 % of the others"


def test_other_seeds_choose_other_rows(tmp_path):
    """The seed decides on both draws, and a repeated one repeats them."""
    path = write_layers(tmp_path / "s.h5")
    one, again, other = rows_of(path, seed=1), rows_of(path, seed=1), rows_of(path, seed=2)
    np.testing.assert_array_equal(parts_of(one), parts_of(again))
    assert (parts_of(one) != parts_of(other)).any()


def test_images_and_classes_belong_to_their_rows(tmp_path):
    """Entries are found by path, in the order of the store, whatever that of the listing; classes count from 0."""
    rows = rows_of(write_layers(tmp_path / "s.h5"))
    assert [entry.path for entry in rows.entries] == [f"{row}.png" for row in range(N_ROWS)]
    assert [entry.path for entry in rows.entries_of(np.array([3, 1]))] == ["3.png", "1.png"]
    np.testing.assert_array_equal(rows.labels, LABELS)
    assert rows.classes.tolist() == [0, 1, 2]


def test_copies_and_groups_stay_in_one_part(tmp_path):
    """Identical images, and images of one patient, are never divided between the parts."""
    digests = with_copies(random_bytes(N_ROWS, 16), PAIRS)
    copies = write_layers(tmp_path / "copies.h5", digests=digests)
    _, patients = write_patients(tmp_path)
    first, second = np.array(PAIRS).T
    for seed in range(6):
        part = parts_of(rows_of(copies, seed=seed))
        np.testing.assert_array_equal(part[first], part[second])
        part = parts_of(rows_of(patients, seed=seed, group_column="patient"))
        assert (part.reshape(-1, 3) == part[::3, None]).all()
        assert set(part) == {0, 1, 2}
    free = [parts_of(rows_of(copies, seed=seed, allow_duplicates=True)) for seed in range(6)]
    assert any((part[first] != part[second]).any() for part in free)


def test_a_val_split_chooses_the_epoch_where_there_is_a_test_split(tmp_path):
    """Splits that were given are kept: nothing is drawn."""
    splits = np.tile([TRAIN, TRAIN, VAL, TEST], N_ROWS // 4 + 1)[:N_ROWS]
    rows = rows_of(write_layers(tmp_path / "s.h5", splits=splits))
    np.testing.assert_array_equal(rows.held_out, np.flatnonzero(splits == TEST))
    np.testing.assert_array_equal(rows.validation, np.flatnonzero(splits == VAL))
    np.testing.assert_array_equal(rows.train, np.flatnonzero(splits == TRAIN))
    assert rows.chosen_by == "val split"


@pytest.mark.parametrize("held_out", [TEST, VAL])
def test_with_one_split_alone_a_part_of_the_others_is_drawn(tmp_path, held_out):
    """A test split, or else a val split, is scored on; the epoch is chosen by a part of what is left."""
    splits = np.where(np.arange(N_ROWS) % 4 == 0, held_out, TRAIN)
    rows = rows_of(write_layers(tmp_path / "s.h5", splits=splits))
    np.testing.assert_array_equal(rows.held_out, np.flatnonzero(splits == held_out))
    assert rows.chosen_by == "15 % of the others"
    assert set(parts_of(rows)) == {0, 1, 2}


def test_classes_without_images_to_learn_from_are_left_out(tmp_path):
    """A class that is only scored on has no output, and one that is only in the val split chooses nothing."""
    labels = np.repeat([0, 1, 2, 3], 10)
    splits = np.tile([TRAIN, TRAIN, TRAIN, VAL, TEST], 8)
    splits[labels == 1] = TEST
    splits[labels == 3] = VAL
    features = {"penultimate@avg": np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)}
    rows = rows_of(write_layers(tmp_path / "s.h5", labels, features, splits=splits))
    assert rows.classes.tolist() == [0, 2]
    np.testing.assert_array_equal(rows.labels, np.repeat([0, -1, 1, -1], 10))
    assert set(rows.labels[rows.train]) == set(rows.labels[rows.validation]) == {0, 1}
    assert (rows.labels[rows.held_out] == -1).sum() == 10  # errors, whatever is answered


def test_nothing_to_choose_by_or_to_learn(tmp_path):
    """A val split of classes that are not learned, and a single class to learn, are errors that say what to add."""
    labels = np.repeat([0, 1, 2], 8)
    features = {"penultimate@avg": np.random.default_rng(0).normal(size=(24, 4)).astype(np.float32)}
    splits = np.where(labels == 2, VAL, np.tile([TRAIN, TRAIN, TRAIN, TEST], 6))
    with pytest.raises(HeadError, match="left to choose the epoch by; add images to the val split"):
        rows_of(write_layers(tmp_path / "a.h5", labels, features, splits=splits))
    splits = np.where(labels == 0, TRAIN, TEST)
    with pytest.raises(HeadError, match="fewer than two classes have images to learn from"):
        rows_of(write_layers(tmp_path / "b.h5", labels, features, splits=splits))
    with pytest.raises(HeadError, match="are of the class 'a'"):
        rows_of(write_layers(tmp_path / "c.h5", np.zeros(24, int), features))


def test_images_that_are_gone(tmp_path):
    """An image of the store that the source no longer has is named."""
    with FeatureStore(write_layers(tmp_path / "s.h5")) as store:
        listing = listing_of(store)
        fewer = replace(listing, entries=tuple(entry for entry in listing.entries if entry.path != "7.png"))
        with pytest.raises(SourceError, match=rf"1 of the {N_ROWS} images of .*the first is 7\.png"):
            tuning_rows(store, fewer)


def test_the_parts_become_splits(tmp_path):
    """A store of the listing `as_told` is divided into just these parts again, whatever the seed."""
    digests = with_copies(random_bytes(N_ROWS, 16), PAIRS)
    path = write_layers(tmp_path / "s.h5", digests=digests)
    with FeatureStore(path) as store:
        listing = listing_of(store)
        rows = tuning_rows(store, listing, seed=3)
        told = rows.as_told(listing, store)
    assert [entry.path for entry in told.entries] == [f"{row}.png" for row in range(N_ROWS)]
    splits = np.array([entry.split for entry in told.entries])
    np.testing.assert_array_equal(splits, parts_of(rows))
    for seed in (0, 1):
        again = rows_of(write_layers(tmp_path / f"told{seed}.h5", digests=digests, splits=splits), seed=seed)
        np.testing.assert_array_equal(parts_of(again), parts_of(rows))


def test_labels_are_those_of_the_store(tmp_path):
    """A class that has come since, and labels that have changed, do not give the images of the store other names."""
    with FeatureStore(write_layers(tmp_path / "s.h5")) as store:
        before = listing_of(store)
        names = ("aaa", *store.label_names)
        entries = [replace(entry, label=entry.label + 1) for entry in before.entries]
        entries[3] = replace(entries[3], label=0)
        now = replace(before, entries=(*entries, ImageEntry("new.png", 0)), class_names=names)
        told = tuning_rows(store, now).as_told(now, store)
        assert told.class_names == tuple(store.label_names)
        assert [entry.label for entry in told.entries] == store.labels.tolist()


def test_the_digest_notices_what_changes_a_training(tmp_path):
    """Other images, labels or parts have another digest; the same ones have the same."""
    digests = random_bytes(N_ROWS, 16)
    changed = digests.copy()
    changed[3, 0] ^= 1
    swapped = LABELS.copy()
    swapped[[0, 30]] = swapped[[30, 0]]
    found = []
    for number, (given, labels, seed) in enumerate(
        [(digests, LABELS, 0), (digests, LABELS, 0), (changed, LABELS, 0), (digests, swapped, 0), (digests, LABELS, 1)]
    ):
        path = write_layers(tmp_path / f"{number}.h5", labels, digests=given)
        with FeatureStore(path) as store:
            found.append(tuning_rows(store, listing_of(store), seed=seed).digest(store))
    assert found[0] == found[1]
    assert len(set(found)) == 4
