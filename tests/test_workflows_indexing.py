"""An index keeps in step with its store: images keep their ids, new ones are found, gone ones are not."""

from __future__ import annotations

import numpy as np
import pytest
from fake_backbone import COLOURS, write_pictures
from gallery import TRAINED
from layered_stores import random_bytes, write_layers
from structured_indexes import unit, with_structure

from featx.errors import FeatureKeyError, FingerprintMismatchError, RefusedError, StoreError, UsageError
from featx.retrieval import ImageIndex
from featx.retrieval.embedding import Embedding
from featx.store import FeatureStore
from featx.workflows.indexing import JoinedFeatures, build_index, index_spec, update_index

KEY = "penultimate@avg"
N_ROWS = 400
ALL_FEATURES = np.random.default_rng(0).normal(size=(N_ROWS + 50, 12)).astype(np.float32)
ALL_DIGESTS = random_bytes(N_ROWS + 50, 16)
GONE, CHANGED, RELABELLED = (0, 17, 399), (5, 200), (1, 2, 390)


def label_of(number):
    """Return the class of an image in the first store."""
    return number % 3


def first_store(folder, **options):
    """Write a store of 400 images; without a split, every fourth without a label."""
    labels = [-1 if number % 4 == 0 else label_of(number) for number in range(N_ROWS)]
    features = {KEY: ALL_FEATURES[:N_ROWS]}
    return write_layers(folder / "first.h5", labels, features, digests=ALL_DIGESTS[:N_ROWS], **options)


def later_images():
    """Return the numbers of the images of the later store, in another order than before, the new ones in front."""
    kept = [number for number in range(N_ROWS) if number not in GONE]
    return [*range(N_ROWS, N_ROWS + 20), *kept[::-1]]


def later_store(folder, name="later.h5", **options):
    """Write what became of the store: 3 images gone, 2 changed, 3 relabelled, 20 new, all in the train split."""
    numbers = np.array(later_images())
    labels = [-1 if n % 4 == 0 else label_of(n) + (n in RELABELLED) for n in numbers.tolist()]
    features, digests = ALL_FEATURES.copy(), ALL_DIGESTS.copy()
    for number in CHANGED:
        features[number], digests[number] = -features[number], digests[number] ^ 1
    given = {
        "paths": [f"{number}.png" for number in numbers],
        "digests": digests[numbers],
        "splits": np.zeros(len(numbers), int),
        **options,
    }
    return write_layers(folder / name, labels, {KEY: features[numbers]}, **given)


def assert_in_step(index, store):
    """Check that an index has just the images of a store, each with its own vector, label, split and digest."""
    paths = store.paths.tolist()
    assert sorted(index.paths) == sorted(paths)
    places = np.array([paths.index(path) for path in index.paths])
    np.testing.assert_allclose(index.vectors, unit(store[KEY][:][places]), atol=1e-6)
    names = store.label_names
    assert list(index.labels) == [names[label] if label >= 0 else None for label in store.labels[places]]
    assert list(index.images.splits) == [(None, "train", "val", "test")[split + 1] for split in store.splits[places]]
    assert index.images.digests.tolist() == np.asarray(store.digests)[places].tolist()


@pytest.mark.parametrize("factory", [None, "IVF8,SQ8", "HNSW16"])
def test_an_index_follows_its_store(factory, tmp_path):
    """Kept images have their ids, new and changed ones new ids and are found, gone ones are not; twice is as once."""
    with FeatureStore(first_store(tmp_path)) as store:
        index = build_index(store)
    if factory is not None:
        index = with_structure(index, factory)
    index.save(tmp_path / "a.index")
    index = ImageIndex.load(tmp_path / "a.index")
    with FeatureStore(later_store(tmp_path)) as store:
        done = update_index(index, store)
        assert (done.n_added, done.n_removed, done.n_kept, done.advice) == (22, 5, 395, "")
        assert_in_step(index, store)
        index.save(tmp_path / "b.index")
        index = ImageIndex.load(tmp_path / "b.index")
        assert_in_step(index, store)
        again = update_index(index, store)
    assert (again.n_added, again.n_removed, again.n_kept) == (0, 0, 417)
    id_of = dict(zip(index.paths, index.ids.tolist(), strict=True))
    replaced = {*GONE, *CHANGED}
    assert all(id_of[f"{number}.png"] == number for number in range(N_ROWS) if number not in replaced)
    assert sorted(set(index.ids.tolist()) - set(range(N_ROWS))) == list(range(400, 422))
    queries = np.stack([ALL_FEATURES[410], -ALL_FEATURES[5], ALL_FEATURES[17]])
    found = index.search(queries, 3)
    assert [paths[0] for paths in found.paths[:2]] == ["410.png", "5.png"]
    np.testing.assert_allclose(found.scores[:2, 0], 1, atol=1e-6)
    assert found.scores[2, 0] < 0.99
    np.testing.assert_array_equal(index.search(queries[:1], 400).ids[0], exact_ids(index, queries[:1], 400))


def exact_ids(index, queries, k):
    """Return the ids that a plain loop finds for one query."""
    return index.ids[np.argsort(-(unit(queries) @ index.vectors.astype(np.float64).T)[0], kind="stable")][:k]


def test_nothing_new_changes_nothing(tmp_path):
    """An update from the same store leaves the same bytes."""
    with FeatureStore(first_store(tmp_path)) as store:
        index = build_index(store)
        index.save(tmp_path / "a.index")
        done = update_index(index, store)
    assert (done.n_added, done.n_removed, done.n_kept, done.advice) == (0, 0, N_ROWS, "")
    index.save(tmp_path / "b.index")
    assert (tmp_path / "a.index").read_bytes() == (tmp_path / "b.index").read_bytes()


def test_labels_alone_are_brought_up_to_date(tmp_path):
    """With the same images in another order, only labels and splits change."""
    with FeatureStore(first_store(tmp_path)) as store:
        index = build_index(store)
    vectors = index.vectors.copy()
    order = np.random.default_rng(1).permutation(N_ROWS)
    path = write_layers(
        tmp_path / "relabelled.h5",
        (order % 5).tolist(),
        {KEY: ALL_FEATURES[order]},
        paths=[f"{number}.png" for number in order],
        digests=ALL_DIGESTS[order],
        splits=order % 3,
    )
    with FeatureStore(path) as store:
        done = update_index(index, store)
        assert_in_step(index, store)
    assert (done.n_added, done.n_removed) == (0, 0)
    assert index.ids.tolist() == list(range(N_ROWS))
    assert index.labels[:6] == ("a", "b", "c", "d", "e", "a")
    np.testing.assert_array_equal(index.vectors, vectors)


def test_a_moved_image_is_another(tmp_path):
    """The same file under another path is a new image; a path with another file too."""
    with FeatureStore(first_store(tmp_path)) as store:
        index = build_index(store)
    paths = [f"{number}.png" for number in range(N_ROWS)]
    paths[3], paths[4], paths[9] = "moved.png", paths[3], paths[4]
    path = write_layers(
        tmp_path / "moved.h5", [0] * N_ROWS, {KEY: ALL_FEATURES[:N_ROWS]}, paths=paths, digests=ALL_DIGESTS[:N_ROWS]
    )
    with FeatureStore(path) as store:
        done = update_index(index, store)
        assert (done.n_added, done.n_removed) == (3, 3)
        assert_in_step(index, store)


def test_new_images_go_the_way_of_the_first(tmp_path):
    """Whitening and weights learned from the first store are applied to what is new, and not learned again."""
    labels = [0] * 60
    features = {"blocks.2@avg": ALL_FEATURES[:60, :5], KEY: ALL_FEATURES[:60, 5:]}
    first = write_layers(tmp_path / "a.h5", labels, features, digests=ALL_DIGESTS[:60])
    both = f"blocks.2+{KEY}"
    with FeatureStore(first) as store:
        index = build_index(store, both, layer_weights=[1, 4], whiten=6)
        embedding = Embedding([5, 7], weights=[1, 4], whiten=6).fit(ALL_FEATURES[:60])
    np.testing.assert_allclose(index.vectors, embedding.transform(ALL_FEATURES[:60]), atol=1e-6)
    more = {"blocks.2@avg": ALL_FEATURES[:80, :5], KEY: ALL_FEATURES[:80, 5:]}
    with FeatureStore(write_layers(tmp_path / "b.h5", [0] * 80, more, digests=ALL_DIGESTS[:80])) as store:
        update_index(index, store)
    np.testing.assert_allclose(index.vectors, embedding.transform(ALL_FEATURES[:80]), atol=1e-6)


def test_layers_weigh_as_they_are_told_to(tmp_path):
    """A score is the weighted mean of the layers' cosines; without weights all layers count alike."""
    features = {"blocks.2@avg": 100 * ALL_FEATURES[:60, :5], KEY: ALL_FEATURES[:60, 5:]}
    cosines = [unit(part) @ unit(part).T for part in features.values()]
    with FeatureStore(write_layers(tmp_path / "a.h5", [0] * 60, features)) as store:
        for weights, shares in ((None, (0.5, 0.5)), ([3, 1], (0.75, 0.25))):
            index = build_index(store, "blocks.2+penultimate", layer_weights=weights)
            expected = shares[0] * cosines[0] + shares[1] * cosines[1]
            found = index.search(store_rows(store, ("blocks.2@avg", KEY)), 60)
            np.testing.assert_allclose(found.scores, np.take_along_axis(expected, found.rows, axis=1), atol=1e-6)
            assert index_spec(index).keys == ("blocks.2@avg", KEY)
            np.testing.assert_allclose(
                index.vectors, Embedding([5, 7], weights=weights).transform(store_rows(store, index_spec(index).keys))
            )
        with pytest.raises(UsageError, match="for 2 layers"):
            build_index(store, "blocks.2+penultimate", layer_weights=[1, 2, 3])
        with pytest.raises(UsageError, match="allowed are 1 to 12"):
            build_index(store, "blocks.2+penultimate", whiten=13)


def store_rows(store, keys):
    """Return features of a store side by side."""
    return np.concatenate([store[key][:] for key in keys], axis=1)


def test_joined_features_read_what_is_asked_for(tmp_path):
    """Slices and numbers of rows give the columns of all layers, in the order of the layers."""
    features = {"blocks.2@avg": ALL_FEATURES[:60, :5], KEY: ALL_FEATURES[:60, 5:]}
    with FeatureStore(write_layers(tmp_path / "a.h5", [0] * 60, features)) as store:
        spec = index_spec(build_index(store, f"{KEY}+blocks.2"))
        joined = JoinedFeatures(store, spec)
        assert (joined.shape, joined.widths, len(joined)) == ((60, 12), [7, 5], 60)
        expected = np.concatenate([ALL_FEATURES[:60, 5:], ALL_FEATURES[:60, :5]], axis=1)
        np.testing.assert_array_equal(joined[3:9], expected[3:9])
        np.testing.assert_array_equal(joined[np.array([50, 2, 2])], expected[[50, 2, 2]])


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"fingerprint": {**TRAINED, "model": "another"}}, FingerprintMismatchError, "model"),
        ({"fingerprint": {**TRAINED, "transform": {"size": [224, 224]}}}, FingerprintMismatchError, "transform.size"),
        ({"source": "elsewhere"}, RefusedError, "images from elsewhere"),
        ({"digests": random_bytes(417, 16, seed=5)}, UsageError, "no image of the index"),
    ],
)
def test_another_store_is_refused(options, error, said, tmp_path):
    """Features made otherwise, another source, and images that have nothing in common are refused; nothing changes."""
    with FeatureStore(first_store(tmp_path, fingerprint=TRAINED)) as store:
        index = build_index(store)
    before = (index.ids.tolist(), index.labels, index.vectors.tolist(), index.growth)
    with (
        FeatureStore(later_store(tmp_path, **{"fingerprint": TRAINED, **options})) as store,
        pytest.raises(error, match=said),
    ):
        update_index(index, store)
    assert (index.ids.tolist(), index.labels, index.vectors.tolist(), index.growth) == before


def test_a_store_without_the_layer_is_refused(tmp_path):
    """A store of the same source that no longer has the features of the index is an error that names them."""
    with FeatureStore(first_store(tmp_path)) as store:
        index = build_index(store)
    path = write_layers(tmp_path / "b.h5", [0] * 400, {"blocks.2@avg": ALL_FEATURES[:400]}, digests=ALL_DIGESTS[:400])
    with FeatureStore(path) as store, pytest.raises(FeatureKeyError, match="penultimate"):
        update_index(index, store)


def test_an_index_of_vectors_has_no_store(tmp_path):
    """What was not made from a store, or does not know its files, is told to be built again."""
    with FeatureStore(first_store(tmp_path)) as store:
        with pytest.raises(StoreError, match="build it with featx index"):
            update_index(ImageIndex.build(np.eye(3)), store)
        index = build_index(store)
        blind = ImageIndex.build(ALL_FEATURES[:5], fingerprint=index.fingerprint, metadata=index.metadata)
        with pytest.raises(StoreError, match="build it again"):
            update_index(blind, store)


def test_new_images_whose_originals_are_gone_are_added_too(tmp_path):
    """An index with thumbnails takes new images without a picture: their thumbnails are empty, the others stay."""
    photos = write_pictures(tmp_path / "photos", n_each=2)
    paths = [f"{colour}/{number:03d}.{kind}" for colour in COLOURS for number, kind in enumerate(("jpg", "png"))]
    given = {"source": photos, "digests": ALL_DIGESTS[:6], "paths": paths}
    with FeatureStore(write_layers(tmp_path / "a.h5", [0] * 6, {KEY: ALL_FEATURES[:6]}, **given)) as store:
        index = build_index(store, thumbnail_size=8)
    later = {"source": photos, "digests": ALL_DIGESTS[:7], "paths": [*paths, "red/gone.png"]}
    with FeatureStore(write_layers(tmp_path / "b.h5", [0] * 7, {KEY: ALL_FEATURES[:7]}, **later)) as store:
        assert update_index(index, store).n_added == 1
    assert [index.thumbnail(row) is None for row in range(7)] == [False] * 6 + [True]


def test_advice_comes_with_the_update(tmp_path):
    """When most images are new, the update says that the index should be built again."""
    with FeatureStore(
        write_layers(tmp_path / "a.h5", [0] * 20, {KEY: ALL_FEATURES[:20]}, digests=ALL_DIGESTS[:20])
    ) as s:
        index = build_index(s, whiten=5)
    with FeatureStore(
        write_layers(tmp_path / "b.h5", [0] * 60, {KEY: ALL_FEATURES[:60]}, digests=ALL_DIGESTS[:60])
    ) as s:
        assert "40 images were added to 20" in update_index(index, s).advice
