"""Image indexes: exact search, ties in order, and a file that comes back the same."""

import pickle
import zipfile

import numpy as np
import pytest

from featx.archive import write_archive
from featx.errors import StoreError, UsageError, WouldOverwriteError
from featx.retrieval import ImageIndex


def unit(rows):
    rows = np.asarray(rows, dtype=np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.where(lengths > 0, lengths, 1)).astype(np.float32).astype(np.float64)


def brute_force(vectors, queries, k):
    """An independent search: every score in float64, rounded to float32, sorted stably."""
    scores = np.array([[np.dot(q, v) for v in unit(vectors)] for q in unit(queries)]).astype(np.float32)
    ids = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return ids, np.take_along_axis(scores, ids, axis=1)


def assert_exact(vectors, queries, k):
    result = ImageIndex.build(vectors).search(queries, k=k)
    ids, scores = brute_force(vectors, queries, k)
    np.testing.assert_array_equal(result.ids, ids)
    np.testing.assert_allclose(result.scores, scores, rtol=0, atol=1e-7)


@pytest.mark.parametrize(("n", "width", "k"), [(1, 1, 1), (50, 3, 10), (300, 64, 10), (300, 17, 300)])
def test_search_equals_brute_force(n, width, k):
    """Ids and scores are those of a NumPy loop over all rows."""
    rng = np.random.default_rng(n)
    assert_exact(rng.normal(size=(n, width)).astype(np.float32), rng.normal(size=(30, width)), k)


@pytest.mark.parametrize("n_distinct", [1, 3, 20])
def test_ties_come_in_the_order_of_ids(n_distinct):
    """Among many copies of few vectors, those with the smallest ids are found, also across the k-th place."""
    rng = np.random.default_rng(n_distinct)
    distinct = rng.normal(size=(n_distinct, 33)).astype(np.float32)
    vectors = distinct[rng.integers(n_distinct, size=400)]
    assert_exact(vectors, np.concatenate([distinct, rng.normal(size=(25, 33))]), 10)


def test_copies_of_another_length_tie_too():
    """Only direction counts: powers of two times a vector are the same vector."""
    vector = np.random.default_rng(0).normal(size=33).astype(np.float32)
    result = ImageIndex.build(np.stack([vector * s for s in (4.0, 0.5, 1.0, 2.0)])).search(vector[None], k=3)
    assert result.ids.tolist() == [[0, 1, 2]]


def test_near_ties_beyond_the_first_candidates_are_found():
    """Scores closer together than float32 can tell apart, in hundreds of rows, are still ordered exactly."""
    rng = np.random.default_rng(1)
    centre = rng.normal(size=200)
    vectors = (centre + 1e-4 * rng.normal(size=(500, 200))).astype(np.float32)
    assert_exact(vectors, (centre + 1e-4 * rng.normal(size=(5, 200))).astype(np.float32), 7)


def test_values_computed_by_hand():
    """Cosines of simple angles, with paths and labels of the rows."""
    index = ImageIndex.build(
        [[[1, 0], [0, 2], [-3, 0], [1, 1]]], paths=["e", "n", "w", "ne"], labels=["x", None, "x", "y"]
    )
    result = index.search([[5.0, 0.0]], k=4)
    assert result.paths == [["e", "ne", "n", "w"]]
    assert result.labels == [["x", "y", None, "x"]]
    np.testing.assert_allclose(result.scores, [[1, 0.5**0.5, 0, -1]], atol=1e-7)
    assert result.ids.dtype == np.int64
    assert result.scores.dtype == np.float32


def test_zero_vectors_score_zero():
    """A zero vector is 0 away from everything, as row and as query, and never NaN."""
    index = ImageIndex.build(np.array([[1.0, 0], [0, 0], [-1, 0]]))
    result = index.search(np.array([[2.0, 0], [0, 0]]), k=3)
    assert result.ids.tolist() == [[0, 1, 2], [0, 1, 2]]
    assert result.scores.tolist() == [[1, 0, -1], [0, 0, 0]]


def test_extreme_lengths_are_normalised():
    """Vectors whose squares leave the range of float32 keep their direction."""
    index = ImageIndex.build(np.array([[1e30, 0], [0, 1e-30]], dtype=np.float32))
    np.testing.assert_array_equal(index.vectors, [[1, 0], [0, 1]])


def test_building_copies():
    """The caller's array is not changed, and later changes to it do not reach the index."""
    vectors = np.array([[3.0, 4.0]], dtype=np.float32)
    index = ImageIndex.build(vectors)
    assert vectors.tolist() == [[3, 4]]
    vectors[:] = 0
    np.testing.assert_allclose(index.vectors, [[0.6, 0.8]])
    with pytest.raises(ValueError, match="read-only"):
        index.vectors[0] = 1


def test_blocks_give_the_same_index_as_one_array():
    """An iterable of blocks, of any sizes and dtypes, is their concatenation."""
    vectors = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float16)
    blocks = ImageIndex.build(block for block in (vectors[:7], vectors[7:7], vectors[7:].astype(np.float64)))
    np.testing.assert_array_equal(blocks.vectors, ImageIndex.build(vectors).vectors)
    assert (len(blocks), blocks.width) == (30, 4)


def test_k_is_lowered_to_the_rows():
    """More neighbours than rows gives all rows."""
    assert ImageIndex.build(np.eye(3)).search(np.eye(3), k=10).ids.shape == (3, 3)


@pytest.mark.parametrize("thumbnails", [None, [b"jpeg-0", b"", b"jpeg-two"]])
def test_round_trip(tmp_path, thumbnails):
    """A saved index comes back with the same vectors, rows, pictures and answers."""
    vectors = np.random.default_rng(0).normal(size=(3, 5))
    index = ImageIndex.build(
        vectors,
        paths=["a.jpg", "ü/b.jpg", "c%FF.jpg"],
        labels=["x", None, "ÿ"],
        thumbnails=thumbnails,
        fingerprint={"model": "m"},
        metadata={"n": 1},
    )
    index.save(tmp_path / "i.index")
    loaded = ImageIndex.load(tmp_path / "i.index")
    np.testing.assert_array_equal(loaded.vectors, index.vectors)
    assert (loaded.paths, loaded.labels) == (index.paths, index.labels)
    assert (loaded.fingerprint, loaded.metadata, loaded.width, len(loaded)) == ({"model": "m"}, {"n": 1}, 5, 3)
    expected = [None, None, None] if thumbnails is None else [b"jpeg-0", None, b"jpeg-two"]
    assert [loaded.thumbnail(row) for row in range(3)] == expected
    np.testing.assert_array_equal(loaded.search(vectors).scores, index.search(vectors).scores)
    loaded.save(tmp_path / "again.index")
    assert (tmp_path / "again.index").read_bytes() == (tmp_path / "i.index").read_bytes()


def test_pickling():
    """An index travels to other processes."""
    index = pickle.loads(pickle.dumps(ImageIndex.build(np.eye(2), thumbnails=[b"a", b"b"])))
    assert index.thumbnail(1) == b"b"
    assert index.search(np.eye(2), k=1).ids.tolist() == [[0], [1]]


def test_file_is_plain_float32(tmp_path):
    """NumPy and a ZIP tool are enough to read the vectors."""
    index = ImageIndex.build(np.random.default_rng(0).normal(size=(4, 3)))
    index.save(tmp_path / "i.index")
    with zipfile.ZipFile(tmp_path / "i.index") as zip_file:
        raw = np.frombuffer(zip_file.read("vectors.f32"), dtype="<f4")
    np.testing.assert_array_equal(raw.reshape(4, 3), index.vectors)


def test_saving_overwrites_only_when_told(tmp_path):
    """An existing file is kept unless overwrite is given."""
    index = ImageIndex.build(np.eye(2))
    index.save(tmp_path / "i.index")
    with pytest.raises(WouldOverwriteError):
        index.save(tmp_path / "i.index")
    ImageIndex.build(np.eye(3)).save(tmp_path / "i.index", overwrite=True)
    assert len(ImageIndex.load(tmp_path / "i.index")) == 3


@pytest.mark.parametrize(
    ("changes", "part_changes"),
    [
        ({"rows": 3}, {}),
        ({"rows": -1, "width": -2}, {}),
        ({"width": 2**40}, {}),
        ({"metadata": None}, {}),
        ({"fingerprint": "text"}, {}),
        ({}, {"vectors.f32": np.array([np.nan, 1, 0, 1], "<f4").tobytes()}),
        ({}, {"vectors.f32": np.array([2, 2, 2, 2], "<f4").tobytes()}),
        ({}, {"rows.json": b'{"paths": ["a"], "labels": [null, null]}'}),
        ({}, {"rows.json": b'{"paths": ["a", 1], "labels": [null, null]}'}),
        ({}, {"rows.json": b"["}),
        ({}, {"rows.json": None}),
    ],
)
def test_inconsistent_files_are_refused(tmp_path, changes, part_changes):
    """A file with right digests and wrong content is an error, never a wrong answer."""
    content = {"rows": 2, "width": 2, "metric": "cosine", "fingerprint": None, "metadata": {}} | changes
    parts = {
        "vectors.f32": np.eye(2, dtype="<f4").tobytes(),
        "rows.json": b'{"paths": ["a", "b"], "labels": [null, "x"]}',
    } | part_changes
    write_archive(
        tmp_path / "i.index", "featx-index", content, {name: part for name, part in parts.items() if part is not None}
    )
    with pytest.raises(StoreError, match="cannot be an index"):
        ImageIndex.load(tmp_path / "i.index")


@pytest.mark.parametrize("ends", [[1, 99], [2, 1], [-1, 3], [3]])
def test_thumbnails_outside_of_their_part_are_refused(tmp_path, ends):
    """Offsets must rise and end where the pictures end."""
    index = ImageIndex.build(np.eye(2), thumbnails=[b"a", b"bc"])
    index.save(tmp_path / "good.index")
    with zipfile.ZipFile(tmp_path / "good.index") as zip_file:
        parts = {name: zip_file.read(name) for name in zip_file.namelist()[1:]}
    parts["thumbnails.ends.i64"] = np.array(ends, "<i8").tobytes()
    content = {"rows": 2, "width": 2, "fingerprint": None, "metadata": {}}
    write_archive(tmp_path / "bad.index", "featx-index", content, parts)
    with pytest.raises(StoreError, match="thumbnails"):
        ImageIndex.load(tmp_path / "bad.index")


def test_nan_is_named_by_row():
    """NaN and infinity are refused, and the message names the rows over all blocks."""
    vectors = np.eye(5000, 2)
    vectors[[7, 4999]] = np.nan, np.inf
    with pytest.raises(UsageError, match=r"in 2 rows \(7, 4999\)"):
        ImageIndex.build(vectors)
    with pytest.raises(UsageError, match="queries hold NaN"):
        ImageIndex.build(np.eye(2)).search(np.full((1, 2), np.nan))


def test_wrong_shapes_are_named():
    """No vectors, other widths, other dimensions and other lengths are errors that say both sides."""
    index = ImageIndex.build(np.eye(3))
    with pytest.raises(UsageError, match="queries of width 4 meet an index of width 3"):
        index.search(np.eye(4))
    with pytest.raises(UsageError, match=r"shape \(3,\)"):
        index.search(np.zeros(3))
    with pytest.raises(UsageError, match="Ask for at least 1"):
        index.search(np.eye(3), k=0)
    for nothing in (np.empty((0, 3)), np.empty((3, 0)), []):
        with pytest.raises(UsageError, match="no vectors"):
            ImageIndex.build(nothing)
    with pytest.raises(UsageError, match="width 2 follow vectors of width 3"):
        ImageIndex.build([np.eye(3), np.eye(2)])
    with pytest.raises(UsageError, match="2 labels were given for 3 vectors"):
        ImageIndex.build(np.eye(3), labels=["a", "b"])
    with pytest.raises(UsageError, match="row 3 of 3"):
        index.thumbnail(3)
