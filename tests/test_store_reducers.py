"""Reduced stores: codes and fitted reducers are written, digested, checked and read like everything else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from featx.errors import FeatureKeyError, StoreError, UnsafeFileError, UsageError
from featx.store import (
    FeatureInfo,
    FeatureStore,
    NewFeatures,
    StoredReducer,
    as_row_source,
    reducer_digest,
    rewrite,
    verify,
    write_segment,
)

ARCHIVE = Path(__file__).parent / "archives" / "format-1.h5"
VALUES = FeatureInfo("penultimate@avg", "penultimate", "avg", 1.0, (4,), 2, "float32")
CODES = FeatureInfo("blocks.0@avg", "blocks.0", "avg", 0.125, (3, 8, 8), 3, "uint8", "pq")
REDUCED = np.arange(12, dtype=np.float32).reshape(6, 2) / 7
CODED = np.arange(18, dtype=np.uint8).reshape(6, 3) * 15
PCA = StoredReducer("pca", {"n_components": 2, "whiten": False}, {"mean_": np.arange(4.0), "components_": np.eye(2, 4)})
PQ = StoredReducer(
    "pq",
    {"n_bits": 8, "rotation": "opq", "share": 0.5},
    {"codebooks_": np.arange(3 * 256 * 1, dtype=np.float32).reshape(3, 256, 1)},
)
FINGERPRINT = {"model": "m", "precision": "f32", "reduction": {"by": "mixed"}}
TABLE = ["images/path", "images/digest", "images/phash", "images/size", "images/label", "images/split", "images/group"]
NEW = ["/reducers/penultimate@avg/components_", "/reducers/blocks.0@avg/codebooks_", "/features/blocks.0@avg"]


def write(path: Path, features: list[NewFeatures] | None = None) -> Path:
    """Write the archive anew with reduced features, in several blocks."""
    if features is None:
        features = [NewFeatures(VALUES, [REDUCED[:4], REDUCED[4:]], PCA), NewFeatures(CODES, [CODED], PQ)]
    with FeatureStore(ARCHIVE) as store:
        rewrite(store, path, features, fingerprint=FINGERPRINT, aliases={"late": "penultimate@avg"})
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A reduced store that may be harmed."""
    return write(tmp_path / "reduced.h5")


def test_what_is_written_is_read(path: Path) -> None:
    """Features, codes, reducers, fingerprint and aliases come back as they went in, and the file verifies."""
    assert verify(path) == []
    with FeatureStore(path) as store:
        assert store.infos == {CODES.key: CODES, VALUES.key: VALUES}
        assert store.fingerprint == FINGERPRINT
        assert store.reducers == {"penultimate@avg": "pca", "blocks.0@avg": "pq"}
        np.testing.assert_array_equal(store["late"][:], REDUCED, strict=True)
        np.testing.assert_array_equal(store["blocks.0"][:], CODED, strict=True)
        for key, expected in ((VALUES.key, PCA), (CODES.key, PQ)):
            found = store.read_reducer(key)
            assert (found.kind, found.parameters) == (expected.kind, expected.parameters)
            assert [type(value) for value in found.parameters.values()] == [
                type(expected.parameters[name]) for name in found.parameters
            ]
            assert found.arrays.keys() == expected.arrays.keys()
            for name, array in expected.arrays.items():
                np.testing.assert_array_equal(found.arrays[name], array, strict=True)
        with pytest.raises(FeatureKeyError, match=r"no reducer for 'late'; it has: blocks\.0@avg, penultimate@avg"):
            store.read_reducer("late")


def test_the_images_are_copied_byte_by_byte(path: Path) -> None:
    """Everything that is said of the images has the same digest as in the store it came from."""
    with h5py.File(ARCHIVE) as old, h5py.File(path) as new:
        for name in (*TABLE, "labels/names", "failures/path", "failures/reason"):
            assert old["digests"].attrs[f"/{name}"] == new["digests"].attrs[f"/{name}"]
            np.testing.assert_array_equal(old[name][...], new[name][...], strict=True)
        assert old.attrs["source"] == new.attrs["source"]


def test_plain_h5py_reads_a_reduced_store(path: Path) -> None:
    """Codes say what they are, and reducers lie beside them with checksums and digests."""
    with h5py.File(path) as file:
        assert file["features/blocks.0@avg"].attrs["codec"] == "pq"
        assert file["features/blocks.0@avg"].dtype == np.uint8
        assert "codec" not in file["features/penultimate@avg"].attrs
        group = file["reducers/penultimate@avg"]
        assert (group.attrs["kind"], group.attrs["n_components"]) == ("pca", 2)
        np.testing.assert_array_equal(group["components_"][:], PCA.arrays["components_"], strict=True)
        for name in NEW:
            assert file[name].fletcher32
            assert file[name].chunks
            assert name in file["digests"].attrs


@pytest.mark.parametrize("name", NEW)
def test_a_flipped_byte_is_found(path: Path, name: str) -> None:
    """One changed byte of a reducer or of codes is reported for that dataset alone, and is not read."""
    with h5py.File(path) as file:
        offset = file[name].id.get_chunk_info(0).byte_offset
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)
    (problem,) = verify(path)
    assert problem.startswith(f"{name} is damaged")
    with FeatureStore(path) as store, pytest.raises(StoreError, match=r"cannot be read .*damaged"):
        _ = (store["blocks.0"][:], [store.read_reducer(key) for key in store.reducers])


def test_a_rewritten_reducer_is_found(path: Path) -> None:
    """Other values with right checksums, and another parameter, are reported by their digests."""
    with h5py.File(path, "r+") as file:
        file[NEW[0]][0, 0] = 5
        file["reducers/penultimate@avg"].attrs["whiten"] = True
    assert verify(path) == [
        f"{NEW[0]} is not what was written: its digest differs",
        "the attributes are not what was written: their digest differs",
    ]


def link(file: h5py.File) -> None:
    file["reducers/penultimate@avg/mean_"], file["x"] = h5py.SoftLink("/images/size"), 1


def unwritten(file: h5py.File) -> None:
    del file[NEW[0]]
    file.create_dataset(NEW[0], shape=(10**6, 10**6), dtype="f8", chunks=(1000, 1000), fletcher32=True)


UNSAFE: dict[str, tuple[Callable[[h5py.File], object], str]] = {
    "link": (lambda file: [file.pop("reducers/penultimate@avg/mean_"), link(file)], "/mean_ is a soft link"),
    "bomb": (unwritten, "components_ of shape .* promises"),
}


@pytest.mark.parametrize(("change", "message"), UNSAFE.values(), ids=UNSAFE.keys())
def test_unsafe_reducers_are_refused(path: Path, change: Callable[[h5py.File], object], message: str) -> None:
    """Links and promises of more than is stored are refused in /reducers as everywhere."""
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(UnsafeFileError, match=message), FeatureStore(path):
        pass


def set_codec(value: Any, name: str = "blocks.0@avg") -> Callable[[h5py.File], None]:
    return lambda file: file[f"features/{name}"].attrs.update(codec=value)


WRONG: dict[str, tuple[Callable[[h5py.File], object], str]] = {
    "unknown codec": (set_codec("rq"), r"codes of 'rq'; this featx knows pq\. Update featx"),
    "no codec": (lambda file: file["features/blocks.0@avg"].attrs.pop("codec"), "codes without an attribute 'codec'"),
    "codec of another type": (set_codec([1, 2]), "codes without an attribute 'codec'"),
    "codec of values": (set_codec("pq", "penultimate@avg"), r"has a codec \('pq'\), but holds float32"),
    "no codebooks": (lambda file: file.pop("reducers"), "/reducers/blocks.0@avg.* is missing"),
    "other codebooks": (
        lambda file: file["reducers/blocks.0@avg"].attrs.update(kind="pca"),
        "/reducers/blocks.0@avg.* is pca",
    ),
}


@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG.keys())
def test_codes_that_cannot_be_understood_are_an_error(
    path: Path, change: Callable[[h5py.File], object], message: str
) -> None:
    """Codes of an unknown kind, or without what they stand for, are a StoreError when the store is opened."""
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(StoreError, match=message), FeatureStore(path):
        pass


def test_reducers_that_are_not_numbers_are_an_error(path: Path) -> None:
    """An array of texts in the place of numbers is a StoreError, and names of later formats are passed over."""
    with h5py.File(path, "r+") as file:
        file["reducers/penultimate@avg"].create_group("later")
        file["reducers"].create_group("without kind")
        file["reducers/penultimate@avg"].attrs["list"] = [1, 2]
        file["reducers/blocks.0@avg/names"] = np.array([b"a"])
    with FeatureStore(path) as store:
        assert set(store.reducers) == {"penultimate@avg", "blocks.0@avg"}
        assert store.read_reducer("penultimate@avg").parameters == PCA.parameters
        with pytest.raises(StoreError, match=r"names is \|S1, not numbers"):
            store.read_reducer("blocks.0@avg")


def test_stores_without_reducers_read_as_ever() -> None:
    """A file of the first release has no reducers, and its features no codec."""
    with FeatureStore(ARCHIVE) as store:
        assert store.reducers == {}
        assert {info.codec for info in store.infos.values()} == {""}


def test_the_digest_of_a_reducer_is_of_all_that_it_is(path: Path) -> None:
    """It is the same before writing and after reading, and changes with kind, parameters, values, dtype and shape."""
    with FeatureStore(path) as store:
        assert reducer_digest(store.read_reducer(VALUES.key)) == reducer_digest(PCA)
    mean = PCA.arrays["mean_"]
    others = [
        replace(PCA, kind="pq"),
        replace(PCA, parameters={**PCA.parameters, "n_components": 3}),
        *(
            replace(PCA, arrays={**PCA.arrays, "mean_": array})
            for array in (mean + 1, mean.astype(np.float32), mean.reshape(2, 2), mean.astype(np.int64))
        ),
        replace(PCA, arrays={"components_": PCA.arrays["components_"]}),
    ]
    digests = {reducer_digest(reducer) for reducer in [PCA, *others]}
    assert len(digests) == len(others) + 1
    assert all(len(digest) == 32 and int(digest, 16) >= 0 for digest in digests)
    big = replace(PCA, arrays={name: array.astype(">f8") for name, array in PCA.arrays.items()})
    assert reducer_digest(big) == reducer_digest(PCA)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ([NewFeatures(VALUES, [REDUCED[:5]])], r"must have the shape \(6, 2\)"),
        ([NewFeatures(VALUES, [REDUCED, REDUCED])], r"must have the shape \(6, 2\)"),
        ([NewFeatures(VALUES, [REDUCED[:, :1]])], r"must have the shape \(6, 2\)"),
        ([NewFeatures(replace(CODES, codec="rq"), [CODED])], "dtype must be .*'uint8' with codec 'pq', got 'uint8'"),
        ([NewFeatures(replace(CODES, codec=""), [CODED])], "dtype must be .*, got 'uint8'"),
        ([NewFeatures(replace(VALUES, codec="pq"), [REDUCED])], "got 'float32' with codec 'pq'"),
        ([NewFeatures(VALUES, [REDUCED], replace(PCA, arrays={"a": np.array(["x"])}))], "a is <U1"),
        ([NewFeatures(VALUES, [REDUCED], replace(PCA, arrays={"a": np.zeros((0, 2))}))], r"shape \(0, 2\)"),
        ([NewFeatures(VALUES, [REDUCED], replace(PCA, parameters={"a": None}))], "the parameter a is None"),
        ([NewFeatures(VALUES, [REDUCED], replace(PCA, parameters={"kind": "x"}))], "the parameter kind"),
    ],
)
def test_what_cannot_be_stored_leaves_nothing(tmp_path: Path, features: list[NewFeatures], message: str) -> None:
    """Rows that do not fit, unknown codes and reducers of other things than numbers are an error; no file is left."""
    with pytest.raises(UsageError, match=message):
        write(tmp_path / "reduced.h5", features)
    assert list(tmp_path.iterdir()) == []


def test_an_error_while_rows_are_made_leaves_the_old_file(path: Path) -> None:
    """The file that was there before is untouched, and no temporary one is left."""
    before = path.read_bytes()

    def failing() -> Any:
        yield REDUCED[:3]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(path, [NewFeatures(VALUES, failing())])
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_codes_are_never_merged_as_values(path: Path, tmp_path: Path) -> None:
    """Segments take no codes, and a reduced store is no source of values for another."""
    with FeatureStore(path) as store:
        assert as_row_source(store).infos[CODES.key].codec == "pq"
    with pytest.raises(UsageError, match="dtype must be 'float32' or 'float16', got 'uint8' with codec 'pq'"):
        write_segment(tmp_path / "parts", None, [CODES], FINGERPRINT)  # type: ignore[arg-type]
