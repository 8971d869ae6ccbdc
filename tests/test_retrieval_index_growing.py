"""Indexes that grow and shrink: ids stay, answers are those of a plain loop over what is left, advice comes in time."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors
from structured_indexes import nearest_by_loop, structured, unit

from featx.errors import UsageError
from featx.retrieval import ImageIndex
from featx.retrieval.building import build_vectors
from featx.retrieval.embedding import Embedding
from featx.retrieval.growth import Growth
from featx.retrieval.structures import SearchParameters

WIDTH = 16
FACTORIES = [None, "IVF8,SQ8", "HNSW16"]


def drawn(n, seed=0, width=WIDTH):
    """Return vectors of several lengths in all directions."""
    return np.random.default_rng(seed).normal(size=(n, width)).astype(np.float32)


def make(vectors, factory, **columns):
    """Return an index of vectors, with a structure where a factory is given."""
    return ImageIndex.build(vectors, **columns) if factory is None else structured(vectors, factory, **columns)


def assert_finds(index, alive, queries, k=10, where=None):
    """Check answers against a loop over the living vectors, a mapping of id to vector."""
    ids = np.array(sorted(alive))
    assert index.ids.tolist() == ids.tolist()
    taking_part = ids if where is None else ids[where]
    expected, scores = nearest_by_loop(np.stack([alive[number] for number in taking_part]), queries, k, taking_part)
    found = index.search(queries, k, where=where)
    np.testing.assert_array_equal(found.ids, expected)
    np.testing.assert_allclose(found.scores, scores, rtol=0, atol=1e-7)
    np.testing.assert_array_equal(index.ids[found.rows], found.ids)


@pytest.mark.parametrize("factory", FACTORIES)
@pytest.mark.parametrize("seed", [0, 1])
def test_any_order_of_adding_and_removing(factory, seed, tmp_path):
    """After each of many random steps, saving and loading among them, answers are those of a loop over the living."""
    random = np.random.default_rng(seed)
    vectors = drawn(600, seed)
    index, alive = make(vectors, factory), dict(enumerate(vectors))
    for step in range(10):
        if step % 3 == 0:
            new = drawn(int(random.integers(1, 60)), 100 * seed + step + 10)
            ids = index.add(new)
            assert not set(ids.tolist()) & set(alive)
            alive |= dict(zip(ids.tolist(), new, strict=True))
        elif step == 5:
            index.save(tmp_path / "grown.index")
            index = ImageIndex.load(tmp_path / "grown.index")
        else:
            gone = random.choice(sorted(alive), int(random.integers(1, 80)), replace=False)
            index.remove(gone)
            alive = {number: vector for number, vector in alive.items() if number not in set(gone.tolist())}
        assert_finds(index, alive, drawn(5, 1000 + step))


@pytest.mark.parametrize("factory", FACTORIES)
def test_ids_are_never_given_twice(factory, tmp_path):
    """An id that was removed, the last one too, does not come back, not even after loading."""
    index = make(drawn(400), factory)
    assert index.add(drawn(3, 1)).tolist() == [400, 401, 402]
    index.remove([401, 402])
    assert index.add(drawn(1, 2)).tolist() == [403]
    index.remove(403)
    index.save(tmp_path / "a.index")
    loaded = ImageIndex.load(tmp_path / "a.index")
    assert loaded.add(drawn(2, 3)).tolist() == [404, 405]
    assert loaded.ids.tolist() == [*range(401), 404, 405]


@pytest.mark.parametrize("factory", FACTORIES)
def test_rows_move_up_with_all_that_is_known(factory, tmp_path):
    """Path, label, split, digest, thumbnail and vector of an image stay together through removing, adding, saving."""
    n_built, n_added = 400, 20
    vectors = drawn(n_built + n_added)
    digests = np.random.default_rng(1).integers(0, 256, (n_built + n_added, 16), np.uint8)
    columns = {
        "paths": [f"p{number}" for number in range(n_built + n_added)],
        "labels": [None if number % 5 == 0 else f"l{number}" for number in range(n_built + n_added)],
        "splits": [(None, "train", "test")[number % 3] for number in range(n_built + n_added)],
        "digests": digests,
        "thumbnails": [b"" if number % 7 == 0 else b"t%d" % number for number in range(n_built + n_added)],
    }
    index = make(vectors[:n_built], factory, **{name: values[:n_built] for name, values in columns.items()})
    gone = [0, 3, 17, 200, 399]
    index.remove(gone)
    index.add(vectors[n_built:], **{name: values[n_built:] for name, values in columns.items()})
    index.save(tmp_path / "a.index")
    for found in (index, ImageIndex.load(tmp_path / "a.index")):
        assert found.ids.tolist() == [number for number in range(n_built + n_added) if number not in gone]
        np.testing.assert_allclose(found.vectors, unit(vectors)[found.ids], atol=1e-7)
        np.testing.assert_array_equal(found.take(np.array([1, 100])), found.vectors[[1, 100]])
        assert found.images.digests.tolist() == digests[found.ids].tolist()
        for row, number in enumerate(found.ids.tolist()):
            assert found.paths[row] == columns["paths"][number]
            assert found.labels[row] == columns["labels"][number]
            assert found.images.splits[row] == columns["splits"][number]
            assert found.thumbnail(row) == (columns["thumbnails"][number] or None)
        answer = found.search(vectors[410][None], 1)
        assert (answer.paths, answer.labels) == ([["p410"]], [[columns["labels"][410]]])


def test_what_is_not_known_of_some_is_empty():
    """Where only the new or only the old images have paths, labels, digests or thumbnails, the others have none."""
    index = ImageIndex.build(drawn(2))
    digests = np.ones((1, 16), np.uint8)
    index.add(drawn(1, 1), paths=["new"], labels=["x"], digests=digests, thumbnails=[b"t"])
    index.add(drawn(1, 2))
    assert (index.paths, index.labels) == (("0", "1", "new", "3"), (None, None, "x", None))
    assert index.images.digests.any(axis=1).tolist() == [False, False, True, False]
    assert [index.thumbnail(row) for row in range(4)] == [None, None, b"t", None]


@pytest.mark.parametrize("factory", FACTORIES)
@pytest.mark.parametrize("removed", [(), range(0, 400, 3)])
def test_a_filtered_search_has_k_answers_whenever_they_exist(factory, removed):
    """Among few rows or many, answers are those of a loop over the subset, and as many as there are."""
    vectors = drawn(400)
    index, alive = make(vectors, factory), dict(enumerate(vectors))
    if len(removed):
        index.remove(np.array(removed))
        alive = {number: vector for number, vector in alive.items() if number not in removed}
    queries = drawn(4, 9)
    for share in (0.02, 0.3, 1.0):
        where = np.random.default_rng(1).random(len(alive)) < share
        assert_finds(index, alive, queries, k=12, where=where)
        assert index.search(queries, 500, where=where).ids.shape == (4, where.sum())
    only = np.arange(len(alive)) == 5
    assert index.search(queries, 10, where=only).ids.tolist() == [[sorted(alive)[5]]] * 4


@pytest.mark.parametrize("factory", FACTORIES)
def test_a_filter_that_holds_for_nothing_is_an_error(factory):
    """No row, a mask of another length and no neighbours are errors that say so."""
    index = make(drawn(400), factory)
    with pytest.raises(UsageError, match="0 of 400 rows"):
        index.search(drawn(1), where=np.zeros(400, bool))
    with pytest.raises(UsageError, match=r"shape \(399,\)"):
        index.search(drawn(1), where=np.ones(399, bool))
    with pytest.raises(UsageError, match="at least 1"):
        index.search(drawn(1), 0, where=np.ones(400, bool))


@pytest.mark.parametrize("factory", FACTORIES)
def test_all_rows_can_be_asked_for(factory):
    """More neighbours than images gives every living image once, ordered."""
    index = make(drawn(400), factory)
    index.remove(np.arange(0, 400, 2))
    found = index.search(drawn(3, 1), 1000)
    assert found.ids.shape == (3, 200)
    assert [sorted(ids) for ids in found.ids.tolist()] == [list(range(1, 400, 2))] * 3
    assert (np.diff(found.scores, axis=1) <= 0).all()


def test_a_query_whose_cell_has_been_emptied_finds_others():
    """Where all that a hasty structure would look at was removed, the nearest of the other images are found."""
    centres = 5 * np.eye(8, WIDTH)
    vectors = (np.repeat(centres, 60, axis=0) + 0.1 * np.random.default_rng(0).normal(size=(480, WIDTH))).astype("f4")
    index = structured(vectors, parameters=SearchParameters(nprobe=1, ef_search=None, n_candidates=20))
    index.remove(np.arange(60))
    alive = {number: vectors[number] for number in range(60, 480)}
    assert_finds(index, alive, centres[:1], k=5)


def state(index):
    """Return all that adding and removing may change."""
    vectors = index.vectors.copy()
    n_places = None if index.structure is None else index.structure.n_places
    return (index.ids.tolist(), index.paths, vectors.tolist(), index.growth, index.next_id, n_places)


@pytest.mark.parametrize("factory", FACTORIES)
def test_refused_changes_change_nothing(factory):
    """Unknown ids, all ids, wrong widths, lengths, digests and NaN are errors after which the index is as before."""
    index = make(drawn(400), factory)
    index.remove([7])
    before = state(index)
    for ids, said in (([7], "1 of 1 ids are not in the index: 7"), ([1, 400, -1], "400, -1"), (index.ids, "all 399")):
        with pytest.raises(UsageError, match=said):
            index.remove(ids)
        assert state(index) == before
    wrong = [
        (drawn(2, width=5), {}),
        (np.full((1, WIDTH), np.nan), {}),
        (np.empty((0, WIDTH)), {}),
        (drawn(2), {"paths": ["one"]}),
        (drawn(2), {"digests": np.zeros((2, 15), np.uint8)}),
        (drawn(2), {"digests": np.zeros((2, 16), np.int64)}),
    ]
    for vectors, columns in wrong:
        with pytest.raises(UsageError):
            index.add(vectors, **columns)
        assert state(index) == before


@pytest.mark.parametrize("ids", [[1.5], [True, False], np.array([False, True, True])])
def test_what_is_no_id_removes_nothing(ids):
    """Fractions and masks are not taken for ids."""
    index = ImageIndex.build(drawn(3))
    with pytest.raises(UsageError):
        index.remove(ids)
    assert len(index) == 3


def test_removing_nothing_is_no_error():
    """An empty list of ids leaves everything as it was."""
    index = ImageIndex.build(drawn(3))
    index.remove([])
    assert index.ids.tolist() == [0, 1, 2]
    index.remove([1, 1])
    assert index.ids.tolist() == [0, 2]


def test_advice_when_new_images_are_unlike_the_old():
    """Vectors of all directions, added to those of a few directions, ask for building again; alike ones do not."""
    random = np.random.default_rng(0)
    centres = random.normal(size=(8, WIDTH))

    def clustered(n, seed):
        chosen = np.random.default_rng(seed)
        return (centres[chosen.integers(8, size=n)] + 0.05 * chosen.normal(size=(n, WIDTH))).astype(np.float32)

    index = structured(clustered(600, 1))
    assert index.growth.advice() == ""
    index.add(clustered(60, 2))
    index.add(clustered(1, 3))
    assert index.growth.advice() == ""
    index.add(drawn(60, 4))
    assert "unlike those it was built from" in index.growth.advice()


def test_advice_when_much_was_added_or_removed():
    """More added than built, and more than a fifth removed, are said; as many, and a fifth, are not."""
    index = structured(drawn(400))
    index.remove(np.arange(80))
    assert index.growth.advice() == ""
    index.remove([80])
    assert "81 of 400 were removed" in index.growth.advice()
    index = structured(drawn(400))
    index.add(drawn(400, 1))
    assert index.growth.advice() == ""
    index.add(drawn(1, 2))
    assert "401 images were added to 400" in index.growth.advice()
    assert index.growth.advice().startswith("build the index again: ")


def test_a_plain_flat_index_needs_no_advice_to_be_built_again():
    """Where nothing was learned and no place stays taken, building again would give the same index."""
    index = ImageIndex.build(drawn(10))
    index.add(drawn(20, 1))
    index.remove(np.arange(15))
    assert index.rebuild_advice() == ""


def test_growth_is_the_mean_over_all_that_was_added():
    """Distortions of several batches count by their numbers of images."""
    growth = Growth(10, 1.0).with_added(1, 4.0).with_added(3, 2.0).with_removed(2)
    assert growth == Growth(10, 1.0, n_added=4, added_distortion=2.5, n_removed=2)
    assert "2.50 times" in growth.advice()
    assert Growth(10, 1.0).with_added(5, 1.25).advice() == ""


def test_neighbours_are_those_of_scikit_learn():
    """``kneighbors`` gives ids and distances of NearestNeighbors by cosine, also after removals by ids."""
    vectors, queries = drawn(300), drawn(20, 1)
    index = ImageIndex.build(vectors)
    distances, ids = index.kneighbors(queries, 7)
    reference = NearestNeighbors(n_neighbors=7, metric="cosine").fit(vectors)
    expected_distances, expected_ids = reference.kneighbors(queries)
    np.testing.assert_array_equal(ids, expected_ids)
    np.testing.assert_allclose(distances, expected_distances, atol=1e-6)
    np.testing.assert_array_equal(index.kneighbors(queries, 7, return_distance=False), expected_ids)
    found = index.search(queries, 7)
    np.testing.assert_array_equal(found.distances, 1 - found.scores)
    np.testing.assert_array_equal(distances, found.distances)


def test_scores_and_distances_stay_in_their_range():
    """A cosine is at most 1 and a distance at least 0, as they are said to be, for copies and opposites too."""
    for width in (2, 3, 33):
        vectors = drawn(500, width=width)
        found = ImageIndex.build(vectors).search(np.concatenate([vectors, -vectors]), 500)
        assert found.scores.max() <= 1
        assert found.scores.min() >= -1
        assert found.distances.min() >= 0
        assert found.distances.max() <= 2


SEARCH_ELSEWHERE = """
import pickle, sys
with open(sys.argv[1], "rb") as stream:
    index, queries = pickle.load(stream)
print(index.search(queries, 5).ids.tolist())
"""


@pytest.mark.parametrize("loaded", [False, True])
def test_an_index_with_a_structure_travels_to_another_process(loaded, tmp_path):
    """Pickled, built or loaded from a file, it finds the same elsewhere, and goes on growing."""
    vectors, queries = drawn(400), drawn(3, 1)
    index = structured(vectors, thumbnails=[b"t%d" % number for number in range(400)])
    index.remove([2, 5])
    if loaded:
        index.save(tmp_path / "a.index")
        index = ImageIndex.load(tmp_path / "a.index")
    expected = index.search(queries, 5).ids.tolist()
    (tmp_path / "pickled").write_bytes(pickle.dumps((index, queries)))
    elsewhere = subprocess.run(
        [sys.executable, "-c", SEARCH_ELSEWHERE, tmp_path / "pickled"], capture_output=True, text=True, check=False
    )
    assert elsewhere.stdout.strip() == str(expected), elsewhere.stderr


@pytest.mark.parametrize("how", [lambda index: pickle.loads(pickle.dumps(index)), copy.deepcopy])
def test_a_copy_outlives_its_original(how, tmp_path):
    """A copy of an index from a file answers after the original is gone, and does not change with it."""
    vectors, queries = drawn(400), drawn(3, 1)
    structured(vectors, thumbnails=[b"t%d" % number for number in range(400)]).save(tmp_path / "a.index")
    index = ImageIndex.load(tmp_path / "a.index")
    expected = index.search(queries, 5).ids.tolist()
    copied = how(index)
    index.remove(np.arange(200))
    del index
    assert copied.search(queries, 5).ids.tolist() == expected
    assert copied.add(drawn(1, 2)).tolist() == [400]
    assert copied.thumbnail(3) == b"t3"


def test_vectors_that_lie_on_disk_grow_too(tmp_path):
    """An index whose vectors did not fit into its memory finds, adds, removes and saves like any other."""
    vectors = drawn(500)
    index = ImageIndex.build(vectors, memory=40_000, folder=tmp_path)
    assert not index.vector_rows.in_memory
    alive = dict(enumerate(vectors))
    assert_finds(index, alive, drawn(3, 1))
    new = drawn(30, 2)
    alive |= dict(zip(index.add(new).tolist(), new, strict=True))
    index.remove([0, 499, 501])
    alive = {number: vector for number, vector in alive.items() if number not in (0, 499, 501)}
    assert_finds(index, alive, drawn(3, 1))
    index.save(tmp_path / "a.index")
    assert_finds(ImageIndex.load(tmp_path / "a.index"), alive, drawn(3, 1))


def test_removing_leaves_vectors_on_disk(tmp_path):
    """What did not fit into memory when it was built does not come into it when one image is removed."""
    index = ImageIndex.build(drawn(500), memory=40_000, folder=tmp_path)
    index.remove([3])
    assert index.vector_rows.n_bytes_in_memory <= 40_000 // 4


def test_arrays_come_back_and_cannot_be_called_like_those_of_the_embedding(tmp_path):
    """What travels with an index is all there after loading; names that are the index's own are refused."""
    arrays = {"mean": np.ones(3), "axes": np.ones(2), "codes": np.ones(1)}
    ImageIndex.build(drawn(5) + 1, whiten=2, arrays=arrays).save(tmp_path / "a.index")
    assert ImageIndex.load(tmp_path / "a.index").arrays.keys() == arrays.keys()
    with pytest.raises(UsageError, match="index's own"):
        ImageIndex.build(drawn(5), arrays={"embedding/mean": np.ones(3)})


def whitened(features, learned_from, n_components, power=0.5):
    """Return whitened unit vectors, by a singular value decomposition in float64."""
    rows = unit(learned_from)
    mean = rows.mean(axis=0)
    _, singular, axes = np.linalg.svd(rows - mean, full_matrices=False)
    scales = (singular[:n_components] / np.sqrt(len(rows) - 1)) ** power
    turned = (unit(features) - mean) @ axes[:n_components].T / scales
    return turned / np.linalg.norm(turned, axis=1, keepdims=True)


def test_whitened_search_is_whitening_and_then_search(tmp_path):
    """Queries take the way of the rows; what is added later is whitened by what was learned at first."""
    rows, queries, late = drawn(300) + 1, drawn(8, 1) + 1, drawn(20, 2) + 1
    index = ImageIndex.build(rows, whiten=6)
    assert (index.width, index.vectors.shape) == (WIDTH, (300, 6))
    index.add(late)
    expected = whitened(queries, rows, 6) @ whitened(np.concatenate([rows, late]), rows, 6).T
    index.save(tmp_path / "a.index")
    for found in (index.search(queries, 320), ImageIndex.load(tmp_path / "a.index").search(queries, 320)):
        np.testing.assert_allclose(found.scores, np.take_along_axis(expected, found.ids, axis=1), atol=2e-5)
        assert (np.diff(np.take_along_axis(expected, found.ids, axis=1), axis=1) < 4e-5).all()


def test_whitening_reads_blocks_that_come_but_once():
    """A generator of blocks gives the index that one array gives."""
    rows = drawn(300) + 1
    blocks = ImageIndex.build((block for block in (rows[:100], rows[100:])), whiten=6)
    cosines = np.abs((blocks.vectors * ImageIndex.build(rows, whiten=6).vectors).sum(axis=1))
    np.testing.assert_allclose(cosines, 1, atol=1e-5)


@pytest.mark.parametrize("factory", [None, "IVF8,SQ8"])
def test_layers_side_by_side_count_as_they_are_weighed(factory, tmp_path):
    """A score is the weighted mean of the layers' cosines, whatever the length of their features."""
    rows, queries = drawn(400), drawn(6, 1)
    rows[:, :4] *= 1000
    queries[:, :4] *= 0.01
    index = make(rows, factory, embedding=Embedding([4, 12], weights=[3, 1]))
    first, second = unit(queries[:, :4]) @ unit(rows[:, :4]).T, unit(queries[:, 4:]) @ unit(rows[:, 4:]).T
    expected = 0.75 * first + 0.25 * second
    index.save(tmp_path / "a.index")
    for found in (index.search(queries, 10), ImageIndex.load(tmp_path / "a.index").search(queries, 10)):
        np.testing.assert_array_equal(found.ids, np.argsort(-expected, axis=1)[:, :10])
        np.testing.assert_allclose(found.scores, -np.sort(-expected, axis=1)[:, :10], atol=1e-6)


def test_bad_queries_are_named_by_their_rows():
    """NaN in queries is named by the rows of the whole batch, through an embedding of several layers too."""
    queries = drawn(2000)
    queries[[5, 1999]] = np.nan
    for index in (ImageIndex.build(drawn(20)), ImageIndex.build(drawn(20), embedding=Embedding([4, 12]))):
        with pytest.raises(UsageError, match=r"2 rows \(5, 1999\)"):
            index.search(queries)


def test_augmented_vectors_are_means_with_their_neighbours():
    """With ``augment``, each row is itself and its nearest by cosines, brought to length 1."""
    rows = drawn(120) + 0.5
    index = ImageIndex.build(rows, augment=4)
    given = unit(rows)
    cosines = given @ given.T
    np.fill_diagonal(cosines, -2)
    nearest = np.argsort(-cosines, axis=1)[:, :4]
    weights = np.maximum(np.take_along_axis(cosines, nearest, axis=1), 0)
    moved = given + (weights[:, :, None] * given[nearest]).sum(axis=1)
    np.testing.assert_allclose(index.vectors, unit(moved), atol=1e-6)
    late = index.add(rows[:1])
    np.testing.assert_allclose(index.vectors[late[0]], given[0], atol=1e-7)


def test_augmented_on_disk_is_augmented_in_memory(tmp_path):
    """Vectors that do not fit into the memory allowed are moved in the same way."""
    rows = drawn(1500) + 0.5
    _, on_disk = build_vectors(rows, augment=3, memory=50_000, folder=tmp_path)
    assert not on_disk.in_memory
    np.testing.assert_allclose(on_disk.as_array(), ImageIndex.build(rows, augment=3).vectors, atol=1e-6)
    with pytest.raises(UsageError, match="so few vectors are only searched exactly"):
        ImageIndex.build(rows, memory=50_000)


def test_a_wish_for_a_structure_is_kept_through_growing(tmp_path):
    """An index built by a factory, as anybody would, still finds what a loop finds when it has grown."""
    vectors = drawn(600)
    index = ImageIndex.build(vectors, factory="HNSW32", recall="0.99@10")
    assert index.structure is not None
    assert index.tuning.chosen.factory == "HNSW32"
    new, queries = drawn(50, 1), drawn(40, 2)
    index.add(new)
    index.remove(np.arange(0, 100, 2))
    index.save(tmp_path / "a.index")
    loaded = ImageIndex.load(tmp_path / "a.index")
    alive = np.array([number for number in range(650) if number >= 100 or number % 2])
    expected, _ = nearest_by_loop(np.concatenate([vectors, new])[alive], queries, 10, alive)
    found = loaded.search(queries, 10).ids
    shared = np.mean([len(np.intersect1d(a, b)) for a, b in zip(found, expected, strict=True)]) / 10
    assert shared >= 0.97
    assert not set(found.ravel().tolist()) - set(alive.tolist())


def test_numbers_as_labels_are_refused():
    """Labels that are no texts, such as scikit-learn's numbers, are named at once and not when a file is read."""
    with pytest.raises(UsageError, match="labels"):
        ImageIndex.build(drawn(2), labels=[1, 2])
