"""Arrays that travel with an index come back as they were, and nonsense in their place is an error."""

from __future__ import annotations

import numpy as np
import pytest

from featx.archive import read_archive, write_archive
from featx.errors import StoreError, UsageError
from featx.retrieval import ImageIndex

ARRAYS = {
    "a@avg/components_": np.arange(6.0).reshape(2, 3),
    "codes": np.array([[1, 255]], np.uint8),
    "halves": np.arange(3, dtype=np.float32)[::-1],
}


@pytest.fixture
def path(tmp_path):
    """A saved index with arrays."""
    ImageIndex.build(np.eye(3), arrays=ARRAYS).save(tmp_path / "a.index")
    return tmp_path / "a.index"


def test_arrays_come_back(path, tmp_path):
    """Names, values, types and shapes are the same after saving once and twice; an index without has none."""
    ImageIndex.load(path).save(tmp_path / "b.index")
    for name in ("a.index", "b.index"):
        found = ImageIndex.load(tmp_path / name).arrays
        assert found.keys() == ARRAYS.keys()
        for key, array in ARRAYS.items():
            np.testing.assert_array_equal(found[key], array, strict=True)
    ImageIndex.build(np.eye(3)).save(tmp_path / "c.index")
    assert ImageIndex.load(tmp_path / "c.index").arrays == {}


@pytest.mark.parametrize("array", [np.array(["x"]), np.zeros((0, 2)), np.array([1 + 2j])])
def test_other_things_are_not_saved(array, tmp_path):
    """Only arrays of plain numbers with at least one value are."""
    with pytest.raises(UsageError, match="the array 'x' is"):
        ImageIndex.build(np.eye(3), arrays={"x": array}).save(tmp_path / "a.index")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "table",
    [
        "text",
        [3],
        [{"name": "x"}],
        [{"name": "x", "dtype": "object", "shape": [6]}],
        [{"name": "x", "dtype": "float64", "shape": [2, 4]}],
        [{"name": "x", "dtype": "float64", "shape": [-2, -3]}],
        [{"name": "x", "dtype": "float64", "shape": [10**30, 10**30]}],
        [{"name": "x", "dtype": [], "shape": 3}],
        [{"name": [], "dtype": "float64", "shape": [2, 3]}],
        [{"name": str(number), "dtype": "float64", "shape": [2, 3]} for number in range(9)],
    ],
)
def test_nonsense_is_an_error(table, path):
    """A table that does not describe the parts is a StoreError when the arrays are asked for."""
    archive = read_archive(path, "featx-index")
    parts = {name: archive.read(name) for name in archive.parts}
    write_archive(path, "featx-index", {**archive.content, "arrays": table}, parts, overwrite=True)
    with pytest.raises(StoreError, match="its arrays cannot be read"):
        _ = ImageIndex.load(path).arrays
