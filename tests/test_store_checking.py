"""Verification finds every change, and files that ask for more than data are refused before data is touched."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from featx.errors import StoreError, UnsafeFileError
from featx.store import FeatureStore, verify

ARCHIVE = Path(__file__).parent / "archives" / "format-1.h5"
DATASETS = [
    "/failures/path",
    "/failures/reason",
    "/features/blocks.0@avg",
    "/features/penultimate@avg",
    "/images/digest",
    "/images/group",
    "/images/label",
    "/images/path",
    "/images/phash",
    "/images/size",
    "/images/split",
    "/labels/names",
]
KEY = "/features/blocks.0@avg"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A copy of the archive that may be harmed."""
    return Path(shutil.copy(ARCHIVE, tmp_path / "store.h5"))


def flip(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 0x10
    path.write_bytes(content)


def chunk_offset(path: Path, name: str) -> int:
    with h5py.File(path) as file:
        return file[name].id.get_chunk_info(0).byte_offset


@pytest.mark.parametrize("name", DATASETS)
def test_a_flipped_byte_is_found(path: Path, name: str) -> None:
    """One changed byte in any dataset is reported, for that dataset alone; reading it is an error."""
    flip(path, chunk_offset(path, name))
    (problem,) = verify(path)
    assert problem.startswith(f"{name} is damaged")


@pytest.mark.parametrize("name", DATASETS)
def test_a_rewritten_dataset_is_found(path: Path, name: str) -> None:
    """Other values with a right checksum are reported by their digest."""
    with h5py.File(path, "r+") as file:
        values = file[name][...]
        file[name][...] = values[::-1] if len(values) > 1 else np.zeros_like(values)
    assert verify(path) == [f"{name} is not what was written: its digest differs"]


def unwritten(file: h5py.File, name: str, chunks: tuple[int, ...]) -> h5py.Dataset:
    """Replace a dataset by one that was made but never filled."""
    old, attributes = file[name], dict(file[name].attrs)
    del file[name]
    new = file.create_dataset(name, shape=old.shape, dtype=old.dtype, chunks=chunks, fletcher32=True)
    new.attrs.update(attributes)
    return new


@pytest.mark.parametrize("name", DATASETS)
def test_a_missing_chunk_is_found(path: Path, name: str) -> None:
    """A chunk that was never written, and would read as zeros, is reported, and such a store is not opened."""
    with h5py.File(path, "r+") as file:
        unwritten(file, name, file[name].chunks)
    assert verify(path) == [f"{name} lacks 1 of its chunks, which would read as zeros"]
    with pytest.raises(UnsafeFileError, match=f"{name} of shape .* bytes, but 0 are stored"):
        _ = FeatureStore(path).rows


def test_one_missing_chunk_of_several_is_found(path: Path) -> None:
    """A missing chunk is found even where the others are there and the values that it would hold are zeros."""
    with h5py.File(path, "r+") as file:
        unwritten(file, "/images/size", (2, 2))[:4] = 0
    assert verify(path) == ["/images/size lacks 1 of its chunks, which would read as zeros"]


def test_damaged_values_are_not_read(path: Path) -> None:
    """Features whose checksum is wrong are a StoreError that names them, not numbers."""
    flip(path, chunk_offset(path, KEY))
    with FeatureStore(path) as store:
        assert store["penultimate"][0, 1] == 0.125
        with pytest.raises(StoreError, match=f"{KEY} cannot be read .*damaged"):
            store["blocks.0"][0]


@pytest.mark.parametrize("text", [b"bicubic", b"photos", b'"first"', b"featx"])
def test_a_flipped_attribute_is_found(path: Path, text: bytes) -> None:
    """One changed byte in an attribute is reported."""
    flip(path, path.read_bytes().index(text) + 1)
    assert "the attributes are not what was written: their digest differs" in verify(path)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda file: file[KEY].attrs.modify("depth", 0.25), "the attributes are not what was written"),
        (lambda file: file.create_dataset("extra", data=[1]), "/extra has no digest in /digests"),
        (lambda file: file.create_dataset("extra", data=[1]), "/extra has no fletcher32 checksum"),
        (lambda file: file.pop("labels/names"), "/labels/names is missing"),
        (lambda file: file.pop("digests"), "/digests is missing"),
        (lambda file: file[KEY].resize(5, axis=0), f"{KEY} has the shape (5, 3), not 6 rows"),
        (lambda file: file.attrs.pop("complete"), "the file was not finished"),
    ],
)
def test_other_changes_are_found(path: Path, change: Callable[[h5py.File], object], problem: str) -> None:
    """Changed, added and removed parts are each reported by name."""
    with h5py.File(path, "r+") as file:
        change(file)
    assert any(line.startswith(problem) for line in verify(path))


def test_a_file_that_cannot_be_opened_is_a_problem(path: Path, tmp_path: Path) -> None:
    """A truncated file is reported, a missing one is an error."""
    path.write_bytes(path.read_bytes()[:-100])
    (problem,) = verify(path)
    assert "is truncated" in problem
    with pytest.raises(StoreError, match="There is no store"):
        verify(tmp_path / "none.h5")


def test_unknown_names_are_ignored(path: Path) -> None:
    """Parts of later formats do not disturb reading."""
    with h5py.File(path, "r+") as file:
        file["maps/blocks.0"] = np.zeros((6, 2, 2, 3), np.float16)
        file["reducers/pca/mean"] = np.zeros(3)
        file["features/notes"] = np.zeros(1)
        file["images/later"] = np.zeros(6)
        file.attrs["later"] = "x"
    with FeatureStore(path) as store:
        assert store.keys == ["blocks.0@avg", "penultimate@avg"]
        assert store["blocks.0"][5, 2] == np.float32(17 / 3)


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout(shape=(6, 3), dtype="f4")
    layout[:] = h5py.VirtualSource("elsewhere.h5", "x", shape=(6, 3))
    file.create_virtual_dataset("maps/x", layout)


def external(file: h5py.File) -> None:
    file.create_dataset("maps/x", shape=(6,), dtype="u1", external=[("/etc/hostname", 0, 6)])


def bomb(file: h5py.File) -> None:
    attributes = dict(file[KEY].attrs)
    del file[KEY]
    file.create_dataset(KEY, shape=(6, 10**12), dtype="f4", chunks=(1, 10**6), fletcher32=True).attrs.update(attributes)


def compressed_bomb(file: h5py.File) -> None:
    file.create_dataset("maps/x", shape=(10**12,), dtype="u1", chunks=(10**6,), compression="gzip")[:3] = 1


def add(path: str, item: object) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        file[path] = item

    return change


def deep(file: h5py.File) -> None:
    file.create_group("/".join("abcdefghijkl"))


UNSAFE = {
    "external link": (add("maps/x", h5py.ExternalLink("/etc/passwd", "/")), "/maps/x is a link to another file"),
    "external link on top": (add("x", h5py.ExternalLink("other.h5", "/")), "/x is a link to another file"),
    "soft link": (add("maps/x", h5py.SoftLink(KEY)), "/maps/x is a soft link"),
    "virtual": (virtual, "/maps/x is a virtual dataset"),
    "external storage": (external, "/maps/x keeps its data in another file"),
    "bomb": (bomb, f"{KEY} of shape .* promises 24000000000000 bytes"),
    "compressed bomb": (compressed_bomb, "/maps/x of shape .* promises 1000000000000 bytes"),
    "filter": (lambda file: file.create_dataset("maps/x", data=np.ones(99), compression="lzf"), "/maps/x needs HDF5"),
    "cycle": (lambda file: add("images/again", file["/"])(file), "group /images/again nests"),
    "depth": (deep, "nests without end"),
}


@pytest.mark.parametrize(("change", "message"), UNSAFE.values(), ids=UNSAFE.keys())
def test_unsafe_files_are_refused(path: Path, change: Callable[[h5py.File], object], message: str) -> None:
    """Whatever reaches outside of the file or promises more than it holds is refused by name, exit code 3."""
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(UnsafeFileError, match=message) as caught:
        _ = FeatureStore(path).rows
    assert caught.value.exit_code == 3
    assert "Do not trust this file" in str(caught.value)


def set_root(**attributes: object) -> Callable[[h5py.File], None]:
    return lambda file: file.attrs.update(attributes)


def replace_dataset(name: str, values: object) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[name]
        file[name] = values

    return change


WRONG = {
    "newer": (set_root(format_version=2), "has format 2; this featx reads up to 1. Update featx"),
    "other format": (set_root(format="anndata"), "not a store: its attribute 'format' is 'anndata', not featx"),
    "no format": (lambda file: file.attrs.pop("format"), "'format' is None"),
    "array as format": (set_root(format=["featx"]), "'format' is None"),
    "version as text": (set_root(format_version="1"), "format_version is '1'"),
    "rows": (set_root(rows=-1), "'rows' is -1"),
    "other rows": (set_root(rows=7), "/features/.* does not fit format 1 with 7 rows"),
    "fingerprint": (set_root(fingerprint="{"), "'fingerprint' is missing or not a JSON object"),
    "aliases": (set_root(aliases='{"a": 1}'), "'aliases' maps to something"),
    "incomplete": (lambda file: file.attrs.pop("complete"), "is not complete.*allow_incomplete=True"),
    "complete is false": (set_root(complete=False), "is not complete"),
    "no column": (lambda file: file.pop("images/phash"), "has no dataset /images/phash"),
    "column's dtype": (replace_dataset("images/label", np.zeros(6)), "/images/label is float64"),
    "column's shape": (replace_dataset("images/group", np.zeros(5, "i4")), r"/images/group is int32 of shape \(5,\)"),
    "any length": (replace_dataset("images/path", ["x"] * 6), "/images/path is object"),
    "no features": (lambda file: file.pop("features"), "has no group /features"),
    "feature's name": (lambda file: file.move(KEY, "/features/x@avg"), "layer 'blocks.0', pool 'avg'"),
    "feature's dtype": (replace_dataset(KEY, np.zeros((6, 2))), "float64, shape"),
}


@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG.keys())
def test_wrong_files_are_store_errors(path: Path, change: Callable[[h5py.File], object], message: str) -> None:
    """Files that do not keep to the format are a StoreError that says where."""
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(StoreError, match=message), FeatureStore(path):
        pass


def test_an_incomplete_store_reads_when_asked(path: Path) -> None:
    """`allow_incomplete` reads what an interrupted writer left."""
    with h5py.File(path, "r+") as file:
        del file.attrs["complete"]
    with FeatureStore(path, allow_incomplete=True) as store:
        assert store.rows == 6


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "is empty"), (b"PK\3\4 something else", "is not an HDF5 file"), (None, "is truncated: its end is missing")],
)
def test_other_files_are_store_errors(path: Path, content: bytes | None, message: str) -> None:
    """An empty file, another kind of file and a cut one are each told apart."""
    path.write_bytes(path.read_bytes()[:8000] if content is None else content)
    with pytest.raises(StoreError, match=message):
        _ = FeatureStore(path).keys


def test_a_folder_is_a_store_error(tmp_path: Path) -> None:
    """A folder in place of a file is named as such."""
    with pytest.raises(StoreError, match="is not a file"):
        _ = FeatureStore(tmp_path).keys
