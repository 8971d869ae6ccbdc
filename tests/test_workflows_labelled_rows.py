"""What is learned from and what is scored on have no picture in common, and the user is told what is left out."""

from __future__ import annotations

import numpy as np
import pytest
from layered_stores import LABELS, random_bytes, with_copies, write_layers, write_patients

from featx.errors import HeadError, SourceError, UsageError
from featx.heads import RowSplit, split_rows
from featx.store import FeatureStore
from featx.workflows.labelled_rows import _one_sided_notes, labelled_rows

N_ROWS = len(LABELS)
PAIRS = [(0, 5), (1, 9), (2, 17), (25, 30), (26, 41), (43, 50)]  # both of a pair are of one class
TEST_ROWS = np.arange(N_ROWS) % 4 == 0


def rows_of(store, **options):
    """Return the labelled rows of a store at a path."""
    with FeatureStore(store) as opened:
        return labelled_rows(opened, **options)


def sides(rows, pairs):
    """Return for each pair whether its rows are on the same side."""
    held_out = np.isin(np.arange(len(rows.labels)), rows.split.held_out)
    return [held_out[first] == held_out[second] for first, second in pairs]


def test_without_copies_and_groups_the_rows_are_divided_as_ever(tmp_path):
    """A store in which every image is its own is divided by `split_rows` alone; unlabelled rows are counted."""
    labels = np.array([*LABELS, -1, -1, -1])
    rows = rows_of(write_layers(tmp_path / "s.h5", labels), held_out=0.3, seed=5)
    expected = split_rows(labels, held_out=0.3, seed=5)
    np.testing.assert_array_equal(rows.labels, labels)
    np.testing.assert_array_equal(rows.split.train, expected.train)
    np.testing.assert_array_equal(rows.split.held_out, expected.held_out)
    assert (rows.split.on, rows.groups, rows.groups_of(expected.train)) == (expected.on, None, None)
    assert (rows.n_unlabelled, rows.repeated.tolist(), rows.notes, rows.one_sided_notes) == (3, [], (), ())


def test_copies_stay_on_one_side_whatever_the_seed(tmp_path):
    """No draw of held-out rows divides identical images, though plain draws would; the count is told."""
    store = write_layers(tmp_path / "s.h5", digests=with_copies(random_bytes(N_ROWS, 16), PAIRS))
    free, guarded = [], []
    with FeatureStore(store) as opened:
        for seed in range(10):
            rows = labelled_rows(opened, seed=seed)
            guarded += sides(rows, PAIRS)
            assert rows.repeated.tolist() == []
            free += sides(labelled_rows(opened, seed=seed, allow_duplicates=True), PAIRS)
    assert all(guarded)
    assert not all(free)
    (note,) = rows.notes
    assert note.startswith("6 of the labelled images repeat another one (6 identical, 0 nearly), in 6 groups")
    first, second = np.array(PAIRS).T
    np.testing.assert_array_equal(rows.groups_of(first), rows.groups_of(second))
    assert len(set(rows.groups_of(first))) == 6
    assert (rows.groups == -1).sum() == N_ROWS - 12


def test_copies_across_a_given_split_are_reported_and_stay(tmp_path):
    """A split that was given is kept even where copies cross it; the scored rows that have one are listed."""
    crossing = [(1, 4), (2, 8), (25, 40)]  # the second of each is a test row, the first is not
    within = [(0, 12), (3, 5)]
    digests = with_copies(random_bytes(N_ROWS, 16), [*crossing, *within])
    store = write_layers(tmp_path / "s.h5", digests=digests, splits=np.where(TEST_ROWS, 2, 0))
    rows = rows_of(store)
    np.testing.assert_array_equal(rows.split.held_out, np.flatnonzero(TEST_ROWS))
    assert rows.repeated.tolist() == [4, 8, 40]
    assert f"3 of the {TEST_ROWS.sum()} images of the test split have copies or near-copies in training" in rows.notes
    assert rows.groups[3] == rows.groups[5] >= 0


def test_copies_may_be_allowed(tmp_path):
    """With `allow_duplicates` nothing is looked for: no groups, no notes, nothing repeated."""
    digests = with_copies(random_bytes(N_ROWS, 16), [(1, 4)])
    store = write_layers(tmp_path / "s.h5", digests=digests, splits=np.where(TEST_ROWS, 2, 0))
    rows = rows_of(store, allow_duplicates=True)
    assert (rows.groups, rows.notes, rows.repeated.tolist()) == (None, (), [])
    assert rows_of(store).repeated.tolist() == [4]


def test_a_copy_without_a_label_does_not_count(tmp_path):
    """An unlabelled copy of a scored image is not learned from, so there is nothing to report."""
    labels = np.where(np.arange(N_ROWS) == 1, -1, LABELS)
    digests = with_copies(random_bytes(N_ROWS, 16), [(1, 4)])
    rows = rows_of(write_layers(tmp_path / "s.h5", labels, digests=digests, splits=np.where(TEST_ROWS, 2, 0)))
    assert (rows.repeated.tolist(), rows.notes, rows.n_unlabelled) == ([], (), 1)


def test_groups_of_the_store_and_copies_are_joined(tmp_path):
    """A group of the user and a copy of one of its images are one group, and stay on one side."""
    groups = np.arange(N_ROWS) // 2
    store = write_layers(tmp_path / "s.h5", digests=with_copies(random_bytes(N_ROWS, 16), [(0, 20)]), groups=groups)
    for seed in range(5):
        rows = rows_of(store, seed=seed)
        assert all(sides(rows, [(0, 1), (0, 20), (20, 21), *((row, row + 1) for row in range(0, N_ROWS, 2))]))
    assert len(set(rows.groups_of(np.array([0, 1, 20, 21])))) == 1


def test_a_column_of_the_csv_keeps_patients_on_one_side(tmp_path):
    """The images of a patient, by a column of the store's CSV in any case, are never divided."""
    _, store = write_patients(tmp_path)
    pairs = [(row, row + 1) for row in range(N_ROWS - 1) if row % 3 != 2]
    for seed in range(5):
        rows = rows_of(store, group_column="patient", seed=seed)
        assert all(sides(rows, pairs))
        assert len(rows.split.held_out)
    assert not all(sides(rows_of(store), pairs))
    assert len(np.unique(rows.groups)) == N_ROWS // 3


def test_a_column_takes_the_place_of_the_groups_of_the_store(tmp_path):
    """Where a column is named, the store's own groups no longer hold."""
    table, _ = write_patients(tmp_path)
    store = write_layers(tmp_path / "s.h5", groups=np.full(N_ROWS, 1), source=table)
    with pytest.raises(HeadError, match="two groups"):
        rows_of(store)
    assert len(np.unique(rows_of(store, group_column="Patient").groups)) == N_ROWS // 3


def test_columns_that_cannot_be_had(tmp_path):
    """A wrong column lists those there are; a source without a CSV, a CSV that is gone or changed are named."""
    table, store = write_patients(tmp_path)
    with pytest.raises(SourceError, match=r"doctor.*path, label, patient"):
        rows_of(store, group_column="doctor")
    with pytest.raises(UsageError, match="is no CSV"):
        rows_of(write_layers(tmp_path / "s.h5"), group_column="patient")
    table.write_text("path,label,patient\n0.png,x,p\n")
    with pytest.raises(UsageError, match=f"no longer names {N_ROWS - 1} of the {N_ROWS} images"):
        rows_of(store, group_column="patient")
    table.unlink()
    with pytest.raises(UsageError, match="is not there any more"):
        rows_of(store, group_column="patient")


def test_a_split_that_cuts_through_a_group_of_the_user_is_refused(tmp_path):
    """Groups of the user that lie on both sides of a given split are a contradiction, unlike copies."""
    store = write_layers(tmp_path / "s.h5", groups=np.arange(N_ROWS) // 4, splits=np.where(TEST_ROWS, 2, 0))
    with pytest.raises(HeadError, match="have rows both in the test split and in training"):
        rows_of(store)


def test_stores_that_nothing_can_be_learned_from(tmp_path):
    """No labels, or only one class, say so with the path of the store and what to do."""
    for labels, said in (([-1] * 6, "none of the 6 rows"), ([1] * 5 + [-1], "are of the class 'b'")):
        store = write_layers(tmp_path / f"{labels[0]}.h5", labels)
        with pytest.raises(HeadError, match=said) as caught:
            rows_of(store)
        assert str(store) in str(caught.value)


def test_classes_on_one_side_only_are_named():
    """A class that is never scored, or never learned, is in the notes."""
    labels = np.array([0] * 10 + [1] * 10 + [2])
    split = RowSplit(train=np.r_[0:8, 20], held_out=np.r_[8:20], on="test split")
    learned, scored = _one_sided_notes(["a", "b", "c"], labels, split)
    assert learned == "no training rows of b: every one of them counts as an error"
    assert scored == "no rows to score c on: the score says nothing about them"


def test_of_many_one_sided_classes_ten_are_named():
    """Two hundred class names would bury the score: ten are named, the others counted."""
    labels = np.arange(14)
    split = RowSplit(train=np.array([0]), held_out=np.arange(14), on="test split")
    (note,) = _one_sided_notes([f"k{label}" for label in labels], labels, split)
    assert note.startswith("no training rows of k1, k2, ")
    assert "k10 and 3 more classes: every one" in note


def test_one_sided_classes_of_a_store_are_told(tmp_path):
    """The notes of a store whose test split misses a class name it."""
    splits = np.where(TEST_ROWS & (LABELS != 2), 2, 0)
    rows = rows_of(write_layers(tmp_path / "s.h5", splits=splits))
    assert rows.one_sided_notes == ("no rows to score c on: the score says nothing about them",)
