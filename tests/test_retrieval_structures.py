"""Structures: proposals survive a file, removed places never come back, bytes and distances are what they say."""

from __future__ import annotations

import numpy as np
import pytest

from featx.errors import StoreError, UsageError
from featx.retrieval.structures import SearchParameters, Structure
from featx.retrieval.tuning.candidates import predicted_bytes
from featx.retrieval.vector_rows import VectorRows

FACTORIES = [
    "Flat",
    "SQ8",
    "PQ8x4fs",
    "HNSW16_SQ8",
    "IVF16,SQ8",
    "IVF16,PQ8x4fs",
    "PCA16,IVF16,PQ8x4fs",
    "PCA16,HNSW16_SQ8",
    "PCA16,OPQ8,IVF16,PQ8x4fs",
    "OPQ8_16,PQ8x4fs",
]
THOROUGH = SearchParameters(nprobe=16, ef_search=64, n_candidates=20)


@pytest.fixture(scope="module")
def vectors():
    """2000 vectors of length 1 in 40 clouds."""
    random = np.random.default_rng(1)
    clouds = random.normal(size=(40, 32))
    vectors = clouds[random.integers(0, 40, 2000)] + 0.5 * random.normal(size=(2000, 32))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def structures(vectors):
    """One structure of each kind, in which the last rows to be added are not the last places."""
    held = np.arange(100, 150)
    rows = np.delete(np.arange(2000), held)
    built = {}
    for factory in FACTORIES:
        built[factory] = Structure.build(factory, VectorRows([vectors]), rows)
        built[factory].add(vectors[held], held)
    return built


@pytest.mark.parametrize("factory", FACTORIES)
def test_proposals_hold_the_vector_itself(factory, structures, vectors):
    """The place of a vector is its row, whenever it was added."""
    queries = np.array([0, 99, 100, 149, 150, 1999])
    proposals = structures[factory].propose(vectors[queries], 20, THOROUGH)
    assert proposals.dtype == np.int64
    assert proposals.shape == (6, 20)
    assert all(row in found for row, found in zip(queries, proposals, strict=True))
    assert all(len(np.unique(found)) == 20 for found in proposals)


@pytest.mark.parametrize("factory", FACTORIES)
def test_a_structure_proposes_the_same_after_a_file(factory, structures, vectors, tmp_path):
    """Bytes and files give back the same proposals, factory and size."""
    structure = structures[factory]
    structure.write(tmp_path / "structure")
    content = structure.to_bytes()
    assert (tmp_path / "structure").read_bytes() == content
    expected = structure.propose(vectors[:50], 30, THOROUGH)
    for again in (Structure.from_bytes(content), Structure.read(tmp_path / "structure")):
        np.testing.assert_array_equal(again.propose(vectors[:50], 30, THOROUGH), expected)
        assert (again.factory, again.n_places, again.width) == (factory, 2000, 32)
        assert again.n_bytes == len(content)


@pytest.mark.parametrize("factory", FACTORIES)
def test_removed_places_are_never_proposed(factory, structures, vectors):
    """With most places removed, proposals come from the others alone, each once."""
    removed = np.ones(2000, bool)
    removed[::7] = False
    proposals = structures[factory].propose(vectors[:50], 40, THOROUGH, removed)
    proposed = proposals[proposals >= 0]
    assert len(proposed) > 1000
    assert not removed[proposed].any()
    for found in proposals:
        assert len(np.unique(found[found >= 0])) == (found >= 0).sum()


def test_flat_proposals_are_the_nearest_that_remain(structures, vectors):
    """A filtered structure that keeps everything agrees with NumPy."""
    removed = np.random.default_rng(0).random(2000) < 0.6
    scores = vectors[:30].astype(np.float64) @ vectors.astype(np.float64).T
    expected = np.argsort(-np.where(removed, -np.inf, scores), axis=1)[:, :15]
    np.testing.assert_array_equal(structures["Flat"].propose(vectors[:30], 15, THOROUGH, removed), expected)


def test_fewer_places_than_asked_for_leave_minus_one(vectors):
    """Where a structure holds fewer than are asked for, the rest is −1, behind the others."""
    for factory in ("Flat", "HNSW16_SQ8", "SQ8"):
        structure = Structure.build(factory, VectorRows([vectors[:10]]))
        removed = np.arange(10) < 4
        proposals = structure.propose(vectors[:3], 12, THOROUGH, removed)
        assert {tuple(sorted(found)) for found in proposals} == {(-1,) * 6 + tuple(range(4, 10))}
        assert (proposals[:, 6:] == -1).all()


def test_a_mask_of_another_length_is_refused(structures, vectors):
    """A mask speaks of every place."""
    with pytest.raises(UsageError, match="1999 places meets a structure of 2000"):
        structures["SQ8"].propose(vectors[:1], 5, THOROUGH, np.ones(1999, bool))


def test_places_continue(vectors):
    """What is added later gets the places behind the last."""
    structure = Structure.build("IVF16,SQ8", VectorRows([vectors[:1500]]))
    structure.add(vectors[1500:1700])
    structure.add(vectors[1700:])
    assert structure.n_places == 2000
    found = structure.propose(vectors[[1499, 1500, 1700, 1999]], 5, THOROUGH)[:, 0]
    np.testing.assert_array_equal(found, [1499, 1500, 1700, 1999])


def test_places_continue_behind_rows_that_were_held_out(structures, vectors):
    """The same holds where places are not in the order in which they were added."""
    structure = Structure.from_bytes(structures["IVF16,SQ8"].to_bytes())
    structure.add(-vectors[:3])
    np.testing.assert_array_equal(structure.propose(-vectors[:3], 5, THOROUGH)[:, 0], [2000, 2001, 2002])


@pytest.mark.parametrize("factory", ["Flat", "SQ8", "HNSW32_SQ8", "IVF64,SQ8", "IVF64,PQ16x4fs", "PCA16,IVF64,SQ8"])
def test_bytes_are_foreseen(factory):
    """The bytes that a structure will take are known before it is built, to 15 %."""
    vectors = np.random.default_rng(0).normal(size=(8000, 32)).astype(np.float32)
    structure = Structure.build(factory, VectorRows([vectors]), np.arange(8000)[::-1])
    assert structure.n_bytes == pytest.approx(predicted_bytes(factory, 8000, 32), rel=0.15)


def test_equal_seeds_give_equal_structures(vectors):
    """Sample, k-means and a graph of few rows are determined by the seed."""
    for factory in ("IVF16,PQ8x4fs", "HNSW16_SQ8", "PCA16,OPQ8,PQ8x4fs"):
        first, second = (Structure.build(factory, VectorRows([vectors]), seed=3).to_bytes() for _ in range(2))
        assert first == second


def test_distortion_is_the_distance_to_what_is_kept():
    """With two cells of known centroids, the distortion is computed by hand."""
    pairs = np.zeros((200, 4), np.float32)
    pairs[:100, 0], pairs[100:, 1] = 1, 1
    structure = Structure.build("IVF2,Flat", VectorRows([pairs]))
    assert structure.distortion(pairs) == pytest.approx(0, abs=1e-9)
    far = np.array([[0, 0, 1, 0], [0.6, 0, 0.8, 0]], np.float32)  # squared distances 2 and 0.4² + 0.8²
    assert structure.distortion(far) == pytest.approx((2 + 0.8) / 2, rel=1e-5)


def test_distortion_of_principal_components_is_the_variance_left_out(vectors):
    """What a PCA in front of a graph leaves out is the sum of the other eigenvalues of NumPy's covariance."""
    structure = Structure.build("PCA16,HNSW16", VectorRows([vectors]))
    eigenvalues = np.linalg.eigvalsh(np.cov(vectors.T.astype(np.float64), bias=True))
    assert structure.distortion(vectors) == pytest.approx(eigenvalues[:16].sum(), rel=1e-3)


@pytest.mark.parametrize("factory", ["SQ8", "IVF16,SQ8", "PCA16,HNSW16_SQ8", "OPQ8_16,PQ8x4fs"])
def test_distortion_grows_with_unlike_vectors(factory, vectors):
    """Vectors from elsewhere lie farther from what is kept."""
    structure = Structure.build(factory, VectorRows([vectors]))
    other = np.random.default_rng(9).normal(size=(500, 32))
    other = (other / np.linalg.norm(other, axis=1, keepdims=True)).astype(np.float32)
    assert structure.distortion(other) > 1.25 * structure.distortion(vectors)


def test_nothing_trained_has_no_distortion(vectors):
    """Structures that keep vectors as they are cannot drift."""
    for factory in ("Flat", "HNSW16"):
        assert Structure.build(factory, VectorRows([vectors])).distortion(vectors) is None


@pytest.mark.parametrize("factory", ["IVFx", "PCA64,SQ8", "PCA0,SQ8", "PQ7x4fs", ""])
def test_factories_that_make_nothing_are_refused(factory, vectors):
    """The error names the factory."""
    with pytest.raises(UsageError, match=repr(factory)):
        Structure.build(factory, VectorRows([vectors]))


@pytest.mark.parametrize("factory", ["IVF300,SQ8", "PQ8", "OPQ8,PQ8x4fs"])
def test_too_few_vectors_to_train_are_refused(factory, vectors):
    """FAISS would end the process or print warnings; here it is an error."""
    few = vectors[:200] if factory != "OPQ8,PQ8x4fs" else vectors[:20]
    with pytest.raises(UsageError, match="must be trained on"):
        Structure.build(factory, VectorRows([few]))


def test_training_prints_nothing(vectors, capfd):
    """FAISS' warnings about few points for each centroid do not reach the user."""
    Structure.build("IVF64,PQ8x4fs", VectorRows([vectors[:300]]))
    assert capfd.readouterr() == ("", "")


def test_vectors_of_another_width_are_refused(structures, vectors):
    """Adding says both widths."""
    with pytest.raises(UsageError, match="width 32"):
        structures["SQ8"].add(vectors[:, :16])


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:0],
        lambda content: b"x" + content,
        lambda content: content[:20],
        lambda content: content[:60],
        lambda content: content[: len(content) // 2],
        lambda content: content[:16] + b"\xff" * 8 + content[24:],
        lambda content: content[:41] + content[41:49] * 2000 + content[41 + 16000 :],
    ],
)
def test_damaged_bytes_are_refused(damage, structures):
    """What is no structure, or only a part of one, is an error of ours."""
    content = structures["IVF16,SQ8"].to_bytes()
    assert content[32:41] == b"IVF16,SQ8"
    with pytest.raises(StoreError, match="Build the index again"):
        Structure.from_bytes(damage(content))
