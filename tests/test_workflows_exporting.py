"""Features in other formats: block by block, whole or not at all."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch
from gallery import separable, write_store

from featx.errors import StoreError, UsageError, WouldOverwriteError
from featx.store import FeatureStore
from featx.workflows import exporting
from featx.workflows.exporting import check_format, export_features

LABELS = [0, 0, 1, 1, 2, 2, -1]
SPLITS = [0, 1, 2, 0, 0, -1, -1]


@pytest.fixture
def store(tmp_path):
    """An open store of seven rows, with labels and splits."""
    with FeatureStore(write_store(tmp_path / "s.h5", separable([0] * 7), LABELS, splits=SPLITS)) as opened:
        yield opened


@pytest.mark.parametrize("block", [1, 3, 7, 100])
def test_blocks_do_not_show(block, store, tmp_path, monkeypatch):
    """However many rows are in memory at a time, the file is the same."""
    monkeypatch.setattr(exporting, "_BLOCK", block)
    assert export_features(store, tmp_path / "f.npy") == "penultimate@avg"
    export_features(store, tmp_path / "f.csv")
    features = store["penultimate"][:]
    np.testing.assert_array_equal(np.load(tmp_path / "f.npy"), features)
    with (tmp_path / "f.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["path", "label", "split", *(f"penultimate@avg_{column}" for column in range(6))]
    assert [row[:3] for row in rows] == [
        ["0.png", "a", "train"],
        ["1.png", "a", "val"],
        ["2.png", "b", "test"],
        ["3.png", "b", "train"],
        ["4.png", "c", "train"],
        ["5.png", "c", ""],
        ["6.png", "", ""],
    ]
    np.testing.assert_array_equal(np.array([row[3:] for row in rows], np.float32), features)


def test_tensors_load_without_running_code(store, tmp_path):
    """A ``.pt`` file loads with ``weights_only=True`` and holds everything that a row has."""
    export_features(store, tmp_path / "f.pt", "penultimate")
    content = torch.load(tmp_path / "f.pt", weights_only=True)
    np.testing.assert_array_equal(content["features"].numpy(), store["penultimate"][:])
    assert content["labels"].tolist() == LABELS
    assert content["splits"].tolist() == SPLITS
    assert content["label_names"] == ["a", "b", "c"]
    assert content["paths"] == [f"{row}.png" for row in range(7)]
    assert content["key"] == "penultimate@avg"


def test_a_failure_leaves_nothing_behind(store, tmp_path, monkeypatch):
    """When writing fails half-way the old file is as it was, and no draft is left."""
    before = {path.name for path in tmp_path.iterdir()}
    (tmp_path / "f.csv").write_text("precious")

    def fail(out, *_):
        out.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exporting, "_write_rows", fail)
    with pytest.raises(StoreError, match="No space left on device"):
        export_features(store, tmp_path / "f.csv", overwrite=True)
    assert (tmp_path / "f.csv").read_text() == "precious"
    assert {path.name for path in tmp_path.iterdir()} == before | {"f.csv"}


def test_nothing_is_replaced_unasked(store, tmp_path):
    """An existing file, or CSV beside a matrix, is an error; nothing is written."""
    (tmp_path / "f.npy.csv").write_text("precious")
    with pytest.raises(WouldOverwriteError, match=r"f\.npy\.csv is already there"):
        export_features(store, tmp_path / "f.npy")
    assert not (tmp_path / "f.npy").exists()
    (tmp_path / "f.pt").write_text("precious")
    with pytest.raises(WouldOverwriteError, match=r"f\.pt is already there"):
        export_features(store, tmp_path / "f.pt")
    assert (tmp_path / "f.pt").read_text() == "precious"


def test_formats_are_known_by_extension(tmp_path, monkeypatch):
    """The extension says the format, in any case; parquet needs pyarrow and says so."""
    assert check_format(tmp_path / "f.CSV") == ".csv"
    with pytest.raises(UsageError, match=r"allowed: \.npy, \.csv, \.parquet, \.pt"):
        check_format(tmp_path / "f.xlsx")
    monkeypatch.setattr(exporting.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(UsageError, match="pip install pyarrow"):
        check_format(tmp_path / "f.parquet")
