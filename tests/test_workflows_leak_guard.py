"""Copies of one picture are kept on one side, and the user is told about them."""

from __future__ import annotations

import numpy as np
import pytest
from fake_backbone import write_pictures
from gallery import TRAINED, separable, write_store
from PIL import Image

from featx.errors import SourceError, UsageError
from featx.extraction import ComputeOptions, Extraction, FeatureComputer
from featx.images import list_images
from featx.store import FeatureStore
from featx.workflows.leak_guard import guard_rows
from featx.workflows.manifest_groups import column_groups

LABELS = np.repeat([0, 1, 2], 8)
ALONE = np.full(24, -1)


class Rows:
    """What `guard_rows` reads of a store, with hashes and digests as given."""

    def __init__(self, *, key="penultimate@avg", dtype=np.float32, **fingerprint):
        random = np.random.default_rng(0)
        self.rows = 24
        self.digests = random.integers(0, 256, (24, 16), np.uint8)
        self.phashes = random.integers(1, 256, (24, 8), np.uint8)
        self.paths = np.array([f"{row}.png" for row in range(24)], object)
        self.fingerprint = {**TRAINED, **fingerprint}
        self._key = key
        self._features = random.normal(size=(24, 100)).astype(dtype)

    def __getitem__(self, name):
        from featx.store.key_names import resolve_key
        from featx.store.layout import FeatureInfo

        info = FeatureInfo(self._key, self._key.partition("@")[0], "avg", 1.0, (100,), 100, "float32")
        resolve_key(name, {self._key: info}, {})
        return self._features

    def copy(self, row, of, *, bits=0, identical=False):
        """Make a row the near-copy of another, or its copy."""
        self._features[row] = self._features[of] * 2
        self.phashes[row] = self.phashes[of]
        self.phashes[row, 0] ^= (1 << bits) - 1
        if identical:
            self.digests[row] = self.digests[of]
        return self


def test_nothing_to_guard():
    """A store without duplicates and without groups has no groups and no notes."""
    guard = guard_rows(Rows(), LABELS, ALONE, None)
    assert guard.groups is None
    assert guard.notes == ()
    assert (guard.near_groups == -1).all()
    assert guard.crossing(np.arange(12), np.arange(12, 24)).tolist() == []


def test_groups_given_are_kept_and_joined_by_copies():
    """Groups that share a copy become one; the near-duplicates alone are kept beside them."""
    groups = np.where(np.arange(24) < 6, np.arange(24) // 2, -1)
    alone = guard_rows(Rows(), LABELS, ALONE, groups)
    assert alone.groups.tolist() == groups.tolist()
    # 0 1 | 2 3 | 4 5 are given; 9 is a copy of 1, 2 of 9 through nothing else, 11 and 20 only of each other.
    rows = Rows().copy(9, 1, identical=True).copy(4, 9, bits=2).copy(20, 11)
    guard = guard_rows(rows, LABELS, ALONE, groups)
    assert guard.groups.tolist() == [0, 0, 1, 1, 0, 0, -1, -1, -1, 0, -1, 2, *[-1] * 8, 2, -1, -1, -1]
    assert np.flatnonzero(guard.near_groups == 0).tolist() == [1, 4, 9]
    assert np.flatnonzero(guard.near_groups == 1).tolist() == [11, 20]
    assert (guard.n_identical, guard.n_near) == (1, 2)
    assert groups.tolist()[:6] == [0, 0, 1, 1, 2, 2]


def test_looking_for_copies_can_be_left_out():
    """Without detection only the groups given are passed on."""
    rows = Rows().copy(9, 1, identical=True)
    guard = guard_rows(rows, LABELS, ALONE, None, detect=False)
    assert guard.groups is None
    assert guard.notes == ()


def test_crossing_rows_are_those_with_a_copy_in_training():
    """Held-out rows are named if training has a copy, however far, and not for a group that the user gave."""
    groups = np.where(np.isin(np.arange(24), [2, 23]), 0, -1)
    rows = Rows().copy(20, 3, bits=1).copy(21, 3, bits=2).copy(23, 22)
    guard = guard_rows(rows, LABELS, ALONE, groups)
    assert guard.crossing(np.arange(16), np.array([23, 21, 20, 16])).tolist() == [21, 20]
    assert guard.crossing(np.array([20]), np.arange(16)).tolist() == [3]
    assert guard.crossing(np.arange(20), np.array([], int)).tolist() == []


def test_notes_count_and_name():
    """Copies, conflicts of labels and copies across the splits are counted, and a conflict is named."""
    splits = np.where(np.arange(24) % 8 == 7, 2, 0)
    rows = Rows().copy(1, 0, identical=True).copy(15, 2).copy(23, 16, bits=3).copy(18, 17)
    assert guard_rows(rows, LABELS, splits).notes == (
        "4 of the labelled images repeat another one (1 identical, 3 nearly), in 4 groups: folds keep each group whole",
        "1 group of identical or near-duplicate images has more than one class: look at the labels of 2.png, 15.png",
        "2 of the 3 images of the test split have copies or near-copies in training",
    )


def test_val_split_is_scored_on_where_there_is_no_test_split():
    """Copies are counted in the split that is scored on, as `split_rows` takes it."""
    splits = np.where(np.arange(24) % 8 == 7, 1, 0)
    assert "1 of the 3 images of the val split has a copy" in guard_rows(Rows().copy(7, 0), LABELS, splits).notes[-1]
    splits[3] = 2
    assert len(guard_rows(Rows().copy(7, 0), LABELS, splits).notes) == 1


def test_rows_without_label_do_not_matter():
    """An unlabelled row neither has a group nor joins two others."""
    labels = LABELS.copy()
    labels[5] = -1
    rows = Rows().copy(5, 0, identical=True).copy(11, 8, identical=True)
    guard = guard_rows(rows, labels, ALONE)
    assert np.flatnonzero(guard.near_groups >= 0).tolist() == [8, 11]
    assert guard.n_identical == 1


@pytest.mark.parametrize(
    "kind",
    [{"key": "blocks.2@avg"}, {"weights_source": "random:0"}, {"reduction": {"kind": "pca"}}, {"dtype": np.uint8}],
)
def test_features_of_another_kind_are_not_trusted(kind):
    """Where likeness was not calibrated, pictures must have the same hash: two bits keep them apart."""
    near = guard_rows(Rows(**kind).copy(9, 0, bits=2).copy(20, 11), LABELS).near_groups
    assert np.flatnonzero(near >= 0).tolist() == [11, 20]


def test_pictures_all_alike_are_said_to_be():
    """A group that was split up is told of, with what to do."""
    rows = Rows()
    for row in range(1, 20):
        rows.copy(row, 0)
    guard = guard_rows(rows, LABELS)
    assert guard.groups is None
    assert "grew too large" in guard.notes[0]
    assert "column of groups" in guard.notes[0]


def test_real_store_of_written_pictures(tmp_path, fake_backbone):
    """In a store that extraction made, a file that is there twice is found, under both of its classes."""
    folder = write_pictures(tmp_path / "pictures")
    twice = (folder / "blue" / "001.png").read_bytes()
    (folder / "red" / "copy.png").write_bytes(twice)
    Image.open(folder / "blue" / "001.png").save(folder / "green" / "other.bmp")
    extract(fake_backbone, folder, tmp_path / "f.h5")
    with FeatureStore(tmp_path / "f.h5") as store:
        guard = guard_rows(store, store.labels, store.splits, store.groups)
        paths = store.paths[guard.near_groups == 0].tolist()
    assert paths == ["blue/001.png", "green/other.bmp", "red/copy.png"]
    assert (guard.n_identical, guard.n_near) == (1, 1)
    assert "blue/001.png" in guard.notes[1]


def extract(backbone, source, out):
    """Write the store of a source."""
    selection = backbone.select("penultimate", "avg")
    computer = FeatureComputer(backbone, selection.taps, ComputeOptions(engine="torch", batch_size=4, workers=1))
    Extraction(list_images(source), computer, out, aliases=selection.aliases).run()


@pytest.fixture
def from_csv(tmp_path, fake_backbone):
    """A CSV of six pictures and the store that was made from it."""
    folder = write_pictures(tmp_path / "pictures", n_each=2)
    rows = ["path,label,Tree", *(f"{path.relative_to(folder)},x," for path in sorted(folder.rglob("0*")))]
    trees = ["b", "a", "", " b", "c", ""]
    rows[1:] = [row + tree for row, tree in zip(rows[1:], trees, strict=True)]
    (folder / "set.csv").write_text("\n".join(rows))
    extract(fake_backbone, folder / "set.csv", tmp_path / "c.h5")
    return folder / "set.csv", FeatureStore(tmp_path / "c.h5")


def test_groups_of_a_column(from_csv):
    """Rows with the same text are one group in code-point order, an empty field is none; columns go by any case."""
    _, store = from_csv
    for name in ("Tree", "tree"):
        groups = column_groups(store, name)
        assert groups.dtype == np.int32
        assert groups.tolist() == [1, 0, -1, 1, 2, -1]


def test_groups_follow_the_paths_not_the_order(from_csv):
    """A CSV whose rows were moved and added to since gives the same groups."""
    file, store = from_csv
    header, *rows = file.read_text().splitlines()
    file.write_text("\n".join([header, "new.png,x,zz", *rows[::-1]]))
    assert column_groups(store, "tree").tolist() == [1, 0, -1, 1, 2, -1]


def test_column_groups_say_what_is_wrong(from_csv, tmp_path):
    """A column, an image or a CSV that is not there, and a store of another source, are named with what to do."""
    file, store = from_csv
    with pytest.raises(SourceError, match="no column 'plant'; found: path, label, tree"):
        column_groups(store, "plant")
    lines = file.read_text().splitlines()
    file.write_text("\n".join(lines[:-1]))
    with pytest.raises(UsageError, match=r"no longer names 1 of the 6 images .*'red/001.png'.*run extract again"):
        column_groups(store, "tree")
    file.unlink()
    with pytest.raises(UsageError, match="is not there any more; put it back"):
        column_groups(store, "tree")
    other = FeatureStore(write_store(tmp_path / "s.h5", separable([0, 1]), [0, 1]))
    with pytest.raises(UsageError, match="was made from made, which is no CSV"):
        column_groups(other, "tree")
