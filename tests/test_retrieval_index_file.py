"""Index files: all of an index comes back, and no damaged or foreign file gives a wrong answer or reaches FAISS."""

from __future__ import annotations

import contextlib
import zipfile

import faiss
import h5py
import numpy as np
import pytest
from PIL import Image
from structured_indexes import nearest_by_loop, structured, tuning, unit

from featx.archive import read_archive, write_archive
from featx.errors import FeatxError, StoreError, UnsafeFileError
from featx.retrieval import ImageIndex
from featx.retrieval.embedding import Embedding
from featx.retrieval.structures import Structure

N_ROWS, WIDTH = 320, 8
QUERIES = np.random.default_rng(7).normal(size=(3, WIDTH)).astype(np.float32)


def drawn(n=N_ROWS, seed=0, width=WIDTH):
    """Return vectors in all directions."""
    return np.random.default_rng(seed).normal(size=(n, width)).astype(np.float32)


def full_index(factory="IVF8,SQ8"):
    """Return an index of which everything is known, with gaps among its ids."""
    columns = {
        "paths": [f"ü/{number}%25.jpg" for number in range(N_ROWS)],
        "labels": [None if number % 5 == 0 else f"l{number % 3}" for number in range(N_ROWS)],
        "splits": [(None, "train", "test")[number % 3] for number in range(N_ROWS)],
        "digests": np.random.default_rng(1).integers(0, 256, (N_ROWS, 16), np.uint8),
        "thumbnails": [b"t" * (number % 4) for number in range(N_ROWS)],
        "fingerprint": {"model": "m", "transform": {"size": [8, 8]}},
        "metadata": {"source": "made"},
        "arrays": {"reducer/components": np.arange(6.0).reshape(2, 3)},
    }
    embedding = Embedding([3, 5], weights=[2, 1], whiten=6)
    vectors = drawn() + 0.5
    make = ImageIndex.build if factory is None else lambda *given, **named: structured(*given, factory, **named)
    index = make(vectors, embedding=embedding, **columns)
    index.add(drawn(4, 1), paths=["n0", "n1", "n2", "n3"])
    index.remove([0, 7, 100, 323])
    return index


def answers(index):
    """Return all that a file can get wrong, in a form that can be compared."""
    found = index.search(QUERIES, 8)
    return (
        found.ids.tolist(),
        found.scores.tolist(),
        found.paths,
        found.labels,
        index.images.splits,
        index.ids.tolist(),
        index.images.places.tolist(),
        index.images.digests.tolist(),
        [index.thumbnail(row) for row in range(len(index))],
        index.vectors.tolist(),
        index.embed(QUERIES).tolist(),
        index.fingerprint,
        index.metadata,
        {name: array.tolist() for name, array in index.arrays.items()},
        index.growth,
        index.tuning,
        index.next_id,
        len(index.vector_rows),
    )


@pytest.fixture(scope="module", params=["IVF8,SQ8", None], ids=["structure", "flat"])
def saved(request, tmp_path_factory):
    """The path of a saved index, with a structure and without, and what it answers; read only."""
    index = full_index(request.param)
    path = tmp_path_factory.mktemp("saved") / "a.index"
    index.save(path)
    return path, answers(index)


@pytest.mark.parametrize("factory", ["IVF8,SQ8", "HNSW16", "PCA4,IVF8,SQ8", None])
def test_everything_comes_back(factory, tmp_path):
    """Vectors, structure, tuning, embedding, ids with gaps and all that is known of images are as they were saved."""
    index = full_index(factory)
    index.save(tmp_path / "a.index")
    loaded = ImageIndex.load(tmp_path / "a.index")
    assert answers(loaded) == answers(index)
    assert (loaded.structure is None) == (factory is None)
    if factory is not None:
        assert loaded.structure.factory == factory
        assert loaded.tuning == tuning(factory=factory)
        assert loaded.structure.to_bytes() == index.structure.to_bytes()


def test_saving_what_was_loaded_gives_the_same_bytes(saved, tmp_path):
    """A second file, from a loaded index, is the first, searched in between or not."""
    path, _ = saved
    for searched in (False, True):
        loaded = ImageIndex.load(path)
        if searched:
            loaded.search(QUERIES)
        loaded.save(tmp_path / f"{searched}.index")
        assert (tmp_path / f"{searched}.index").read_bytes() == path.read_bytes()


def test_a_loaded_index_replaces_its_own_file(saved, tmp_path):
    """Loaded, grown and saved at the same place, vectors and structure are those of the grown index."""
    path = tmp_path / "own.index"
    path.write_bytes(saved[0].read_bytes())
    index = ImageIndex.load(path)
    index.add(drawn(5, 3))
    index.remove([1, 2])
    index.save(path, overwrite=True)
    expected = answers(index)
    assert answers(ImageIndex.load(path)) == expected
    other = ImageIndex.load(path)
    other.remove(index.ids[:5])
    other.save(path, overwrite=True)
    assert answers(index) == expected


def test_no_damaged_byte_gives_another_answer(saved, tmp_path):
    """With one byte changed, loading or searching is refused, or the byte meant nothing and answers are as before."""
    path, expected = saved
    content, damaged = path.read_bytes(), tmp_path / "damaged.index"
    positions = np.random.default_rng(0).choice(len(content), 300, replace=False)
    messages = []
    for position in positions.tolist():
        changed = bytearray(content)
        changed[position] ^= 1 + position % 255
        damaged.write_bytes(changed)
        try:
            assert answers(ImageIndex.load(damaged)) == expected
        except (StoreError, UnsafeFileError) as error:
            messages.append(str(error))
    assert len(messages) > 280
    assert all(str(damaged) in message for message in messages)


def test_every_part_is_protected(saved, tmp_path):
    """A changed byte anywhere in the manifest or in any part is refused when the index is loaded."""
    path, _ = saved
    content, damaged = path.read_bytes(), tmp_path / "damaged.index"
    with zipfile.ZipFile(path) as zip_file:
        payloads = {name: zip_file.read(name) for name in zip_file.namelist()}
    assert {"manifest.json", "vectors.f32", "rows.json", "ids.i64", "places.i64", "digests.u8"} <= payloads.keys()
    random = np.random.default_rng(1)
    for name, payload in payloads.items():
        start = content.index(payload)
        for offset in [0, len(payload) - 1, *random.integers(0, len(payload), 6).tolist()]:
            changed = bytearray(content)
            changed[start + offset] ^= 0x20
            damaged.write_bytes(changed)
            with pytest.raises(StoreError, match="damaged"):
                ImageIndex.load(damaged)
            assert name


def test_no_truncated_file_is_loaded(saved, tmp_path):
    """A file that ends too soon is refused; one that goes on too long is refused or gives the same answers."""
    path, expected = saved
    content, damaged = path.read_bytes(), tmp_path / "damaged.index"
    for length in [0, 1, 100, len(content) - 1, *np.linspace(200, len(content) - 2, 60, dtype=int).tolist()]:
        damaged.write_bytes(content[:length])
        with pytest.raises(StoreError):
            ImageIndex.load(damaged)
    for more in (b"more", b"x" * 70_000):
        damaged.write_bytes(content + more)
        with contextlib.suppress(StoreError):
            assert answers(ImageIndex.load(damaged)) == expected


def forbid_faiss(monkeypatch):
    """Let every reader of FAISS fail the test."""

    def read(*_given):
        pytest.fail("FAISS was given bytes of a damaged file")

    for name in ("read_index", "deserialize_index"):
        monkeypatch.setattr(faiss, name, read)


def test_faiss_never_sees_a_damaged_structure(tmp_path, monkeypatch):
    """Its digest is compared first: when the index is loaded, and again when the structure is read."""
    full_index().save(tmp_path / "a.index")
    content = (tmp_path / "a.index").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.index") as zip_file:
        structure = zip_file.read("structure.faiss")
    start = content.index(structure)
    forbid_faiss(monkeypatch)
    for offset in np.random.default_rng(0).integers(0, len(structure), 30).tolist():
        (tmp_path / "a.index").write_bytes(content)
        loaded = ImageIndex.load(tmp_path / "a.index")
        changed = bytearray(content)
        changed[start + offset] ^= 0xFF
        (tmp_path / "a.index").write_bytes(changed)
        with pytest.raises(StoreError, match="damaged"):
            loaded.search(QUERIES)
        with pytest.raises(StoreError, match="damaged"):
            ImageIndex.load(tmp_path / "a.index")


def test_loading_alone_does_not_read_the_structure(saved, monkeypatch):
    """FAISS parses nothing before somebody searches, and exact or filtered searches do without it."""
    path, _ = saved
    forbid_faiss(monkeypatch)
    index = ImageIndex.load(path)
    where = np.arange(len(index)) < 50
    expected, _ = nearest_by_loop(index.vectors[:50], index.embed(QUERIES), 5, index.ids[:50])
    np.testing.assert_array_equal(index.search(QUERIES, 5, where=where).ids, expected)
    assert index.search_vectors(index.embed(QUERIES), 5, exact=True).ids.shape == (3, 5)


def test_foreign_files_are_told_apart(tmp_path):
    """Pictures, texts, stores, other archives, folders and nothing at all are errors that name the file."""
    Image.new("RGB", (9, 9)).save(tmp_path / "picture.png")
    (tmp_path / "text.index").write_text("an index, really\n" * 100)
    with h5py.File(tmp_path / "store.h5", "w") as store:
        store["x"] = np.arange(10)
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as zip_file:
        zip_file.writestr("vectors.f32", b"0" * 64)
    faiss.write_index(faiss.IndexFlatIP(4), str(tmp_path / "faiss.index"))
    (tmp_path / "folder").mkdir()
    for name in ("picture.png", "text.index", "store.h5", "other.zip", "faiss.index", "folder", "missing.index"):
        with pytest.raises(StoreError, match=name):
            ImageIndex.load(tmp_path / name)
    write_archive(tmp_path / "b.featx", "featx-bundle", {}, {"head": b"1"})
    with pytest.raises(StoreError, match=r"is a featx classifier \(.featx\), not a featx image index"):
        ImageIndex.load(tmp_path / "b.featx")


def rewrite(path, *, content=None, parts=None, without=()):
    """Replace some of an index file, with digests that are right."""
    archive = read_archive(path, "featx-index")
    kept = {name: archive.read(name) for name in archive.parts if name not in without}
    kept |= parts or {}
    write_archive(path, "featx-index", {**archive.content, **(content or {})}, kept, overwrite=True)


@pytest.mark.parametrize("difference", [-1, 1])
def test_a_structure_of_another_number_of_vectors_is_refused(difference, tmp_path):
    """A structure of an index with one image more or less is an error, not a wrong neighbour."""
    structured(drawn()).save(tmp_path / "a.index")
    other = Structure.build("IVF8,SQ8", ImageIndex.build(drawn(N_ROWS + difference)).vector_rows)
    rewrite(tmp_path / "a.index", parts={"structure.faiss": other.to_bytes()})
    with pytest.raises(StoreError, match=f"is of {N_ROWS + difference} vectors of width .*the index says {N_ROWS}"):
        ImageIndex.load(tmp_path / "a.index").search(QUERIES)


def test_a_structure_of_another_width_is_refused(tmp_path):
    """A structure of vectors of another width is an error that says so."""
    structured(drawn()).save(tmp_path / "a.index")
    other = Structure.build("IVF8,SQ8", ImageIndex.build(drawn(width=WIDTH + 2)).vector_rows)
    rewrite(tmp_path / "a.index", parts={"structure.faiss": other.to_bytes()})
    with pytest.raises(StoreError):
        ImageIndex.load(tmp_path / "a.index").search(QUERIES)


def test_a_structure_that_names_places_there_are_not_is_refused(tmp_path):
    """Places beyond the vectors, or one twice, are errors."""
    index = structured(drawn())
    index.save(tmp_path / "a.index")
    for places in (np.arange(N_ROWS) + 1, np.zeros(N_ROWS, np.int64)):
        odd = Structure(index.structure.factory, index.structure._index, places)
        rewrite(tmp_path / "a.index", parts={"structure.faiss": odd.to_bytes()})
        with pytest.raises(StoreError):
            ImageIndex.load(tmp_path / "a.index").search(QUERIES)


@pytest.mark.parametrize("odd", [b"", b"text" * 100, b"featx-structure1" + b"\xff" * 200])
def test_what_faiss_cannot_read_is_a_clear_error(odd, tmp_path):
    """Bytes with the right digest that are no structure are an error that asks for building again."""
    structured(drawn()).save(tmp_path / "a.index")
    rewrite(tmp_path / "a.index", parts={"structure.faiss": odd})
    with pytest.raises(StoreError, match="uild the index again"):
        ImageIndex.load(tmp_path / "a.index").search(QUERIES)


ODD_CONTENT = [
    {"tuning": None},
    {"tuning": "text"},
    {"tuning": {"wish": {}}},
    {"tuning": {**tuning().to_json(), "wish": {"recall": 2, "k": 10}}},
    {"growth": {"n_grown": 3}},
    {"growth": "text"},
    {"growth": {"n_built": "many", "distortion": []}},
    {"next_id": "next"},
    {"next_id": N_ROWS - 1},
    {"next_id": None},
    {"places": N_ROWS + 1},
    {"places": "all"},
    {"rows": N_ROWS - 1},
    {"width": WIDTH + 1},
    {"embedding": {"widths": [WIDTH + 1], "weights": [1], "whiten": None, "whiten_power": 0.5}},
    {"embedding": {"widths": [WIDTH], "weights": [1], "whiten": 8, "whiten_power": 0.5}},
    {"embedding": []},
    {"embedding": "plain"},
    {"fingerprint": 3},
    {"metadata": [1]},
]


@pytest.mark.parametrize("content", ODD_CONTENT, ids=lambda content: "-".join(content))
def test_nonsense_in_the_manifest_is_an_error(content, tmp_path):
    """A manifest with a right digest that does not describe the parts is a StoreError, at the latest at a search."""
    structured(drawn()).save(tmp_path / "a.index")
    rewrite(tmp_path / "a.index", content=content)

    def use():
        index = ImageIndex.load(tmp_path / "a.index")
        index.search(QUERIES)
        index.growth.advice()

    with pytest.raises(StoreError):
        use()


def int64(*numbers):
    """Return numbers as a part holds them."""
    return np.array(numbers, "<i8").tobytes()


ODD_PARTS = {
    "ids fall": {"ids.i64": int64(0, 2, 1)},
    "an id twice": {"ids.i64": int64(0, 1, 1)},
    "few ids": {"ids.i64": int64(0, 1)},
    "half an id": {"ids.i64": b"1234567"},
    "a place beyond": {"places.i64": int64(0, 1, 3)},
    "a place before": {"places.i64": int64(-1, 0, 1)},
    "places fall": {"places.i64": int64(2, 1, 0)},
    "few digests": {"digests.u8": b"1" * 32},
    "half a digest": {"digests.u8": b"1" * 47},
    "splits are numbers": {
        "rows.json": b'{"paths": ["a", "b", "c"], "labels": [null, null, null], "splits": [1, 2, 3]}'
    },
    "few splits": {"rows.json": b'{"paths": ["a", "b", "c"], "labels": [null, null, null], "splits": [null]}'},
    "paths are a text": {"rows.json": b'{"paths": "abc", "labels": [null, null, null]}'},
    "labels are a text": {"rows.json": b'{"paths": ["a", "b", "c"], "labels": "abc"}'},
    "a list": {"rows.json": b"[1, 2, 3]"},
    "deep": {"rows.json": b"[" * 200_000},
    "no JSON": {"rows.json": b"\xff\xfe"},
}


@pytest.mark.parametrize("parts", ODD_PARTS.values(), ids=ODD_PARTS)
def test_nonsense_in_a_part_is_an_error(parts, tmp_path):
    """Parts with right digests that do not fit together are a StoreError that names the file."""
    ImageIndex.build(np.eye(3), digests=np.zeros((3, 16), np.uint8)).save(tmp_path / "a.index")
    rewrite(tmp_path / "a.index", parts=parts)
    with pytest.raises(StoreError, match=r"a\.index"):
        ImageIndex.load(tmp_path / "a.index")


def test_files_of_before_are_still_read(tmp_path):
    """A file of vectors, paths and labels alone is an index whose ids are its rows, and it grows."""
    vectors = drawn(30)
    content = {"rows": 30, "width": WIDTH, "metric": "cosine", "fingerprint": {"model": "m"}, "metadata": {"n": 1}}
    labels = ", ".join(['"x"', "null"] * 15)
    paths = ", ".join(f'"{number}.png"' for number in range(30))
    parts = {
        "vectors.f32": unit(vectors).astype("<f4").tobytes(),
        "rows.json": f'{{"paths": [{paths}], "labels": [{labels}]}}'.encode(),
    }
    write_archive(tmp_path / "old.index", "featx-index", content, parts)
    index = ImageIndex.load(tmp_path / "old.index")
    assert (index.ids.tolist(), index.paths[3], index.labels[:2]) == (list(range(30)), "3.png", ("x", None))
    assert (index.fingerprint, index.metadata, index.width, index.images.digests) == ({"model": "m"}, {"n": 1}, 8, None)
    expected, _ = nearest_by_loop(vectors, QUERIES, 6)
    np.testing.assert_array_equal(index.search(QUERIES, 6).ids, expected)
    assert index.growth.advice() == ""
    assert index.add(drawn(2, 1)).tolist() == [30, 31]
    index.remove([0])
    index.save(tmp_path / "new.index")
    assert ImageIndex.load(tmp_path / "new.index").ids.tolist() == list(range(1, 32))


def test_large_parts_stay_in_the_file(tmp_path):
    """With a structure, vectors and arrays are not read into memory; without, vectors are."""
    arrays = {"codes": np.arange(400, dtype=np.uint8)}
    structured(drawn(), arrays=arrays).save(tmp_path / "structured.index")
    index = ImageIndex.load(tmp_path / "structured.index")
    assert not index.vector_rows.in_memory
    assert index.vector_rows.n_bytes_in_memory == 0
    assert isinstance(index.arrays["codes"].base, np.memmap) or isinstance(index.arrays["codes"], np.memmap)
    index.add(drawn(3, 1))
    assert index.vector_rows.n_bytes_in_memory == 3 * WIDTH * 4
    ImageIndex.build(drawn()).save(tmp_path / "flat.index")
    assert ImageIndex.load(tmp_path / "flat.index").vector_rows.in_memory


def test_a_failed_saving_leaves_no_trace(tmp_path):
    """What cannot be written as JSON is an error, and neither a file nor half of one is left."""
    index = ImageIndex.build(drawn(5), metadata={"odd": {1, 2}})
    with pytest.raises(FeatxError, match="JSON"):
        index.save(tmp_path / "a.index")
    assert list(tmp_path.iterdir()) == []
