"""Tuning: exact neighbours are NumPy's, the recall that is told is the recall that is had, and wishes are kept."""

from __future__ import annotations

import json

import numpy as np
import pytest

from featx.errors import UsageError
from featx.retrieval.scanning import nearest_places, proposed_places
from featx.retrieval.structures import SearchParameters
from featx.retrieval.tuning import tune
from featx.retrieval.tuning.candidates import candidate_structures, n_cells
from featx.retrieval.tuning.sweeping import mean_interval, recall_by_candidates
from featx.retrieval.tuning.trials import Trial, Tuning, with_front
from featx.retrieval.tuning.wishes import RecallWish, parse_bytes, parse_recall
from featx.retrieval.vector_rows import VectorRows

WISH = RecallWish(0.9, 10)


def clustered(n_rows, width, seed):
    """Return vectors of length 1 in 100 clouds of falling variance; seeds share the clouds."""
    centres = np.random.default_rng(0).normal(size=(100, width))
    random = np.random.default_rng(seed)
    noise = random.normal(size=(n_rows, width)) * np.arange(1, width + 1) ** -0.4 * 2
    vectors = centres[random.integers(0, 100, n_rows)] + noise
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def brute_force(queries, vectors, k, without=()):
    """Return the k nearest rows by NumPy alone: scores as `nearest` defines them, ties by row."""
    scores = np.stack([(vectors * query.astype(np.float64)).sum(axis=1) for query in queries]).astype(np.float32)
    scores[:, list(without)] = -np.inf
    rows = np.stack([np.lexsort((np.arange(len(vectors)), -of_query))[:k] for of_query in scores])
    return rows, np.take_along_axis(scores, rows, axis=1)


@pytest.fixture(scope="module")
def vectors():
    """6000 of them."""
    return clustered(6000, 96, seed=1)


@pytest.fixture(scope="module")
def tuned(vectors):
    """What a tuning of these gives, and the steps that it told."""
    steps = []
    return *tune(VectorRows([vectors]), WISH, on_step=lambda *step: steps.append(step)), steps


@pytest.mark.parametrize(
    ("text", "recall", "k"),
    [("0.95@10", 0.95, 10), (" .9 @ 5 ", 0.9, 5), ("1@1", 1, 1), ("95%@20", 0.95, 20), ("0.5", 0.5, 10)],
)
def test_recalls_are_read(text, recall, k):
    """A recall, at a number of neighbours, which is 10 by default."""
    assert parse_recall(text) == RecallWish(recall, k)


@pytest.mark.parametrize(
    "text", ["", "x", "0@10", "1.1@10", "95@10", "0.9@0", "0.9@5000", "0.9@1.5", "-0.5@10", "nan@3"]
)
def test_other_recalls_are_refused(text):
    """The error shows how it is written, or what is allowed."""
    with pytest.raises(UsageError, match=r"0\.95@10|give 1 to 1000"):
        parse_recall(text)


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [("2GB", 2 * 10**9), ("512 MB", 512 * 10**6), ("1GiB", 2**30), ("1.5kb", 1500), ("4096", 4096), ("0.5MiB", 2**19)],
)
def test_bytes_are_read(text, n_bytes):
    """Decimal and binary units, in any case."""
    assert parse_bytes(text) == n_bytes


@pytest.mark.parametrize("text", ["", "GB", "2 XB", "-1GB", "0", "2GBs"])
def test_other_amounts_are_refused(text):
    """The error shows how they are written."""
    with pytest.raises(UsageError, match="2GB, 512MB or 1GiB"):
        parse_bytes(text)


def test_exact_neighbours_are_numpys(vectors, tmp_path):
    """Rows, scores and their order agree with brute force, from memory and from a file, with and without some rows."""
    vectors[:2000].tofile(tmp_path / "rows")
    rows = VectorRows([np.memmap(tmp_path / "rows", np.float32, "r", 0, (2000, 96)), vectors[2000:]])
    without = np.array([0, 1, 2, 1999, 2000, 5999])
    queries = vectors[without]
    for given in ((), without):
        found, scores = nearest_places(queries, rows, 25, np.delete(np.arange(len(rows)), given))
        expected, expected_scores = brute_force(queries, vectors, 25, given)
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(scores, expected_scores)


def test_exact_neighbours_break_ties_by_row():
    """Copies of a vector, more than are looked at, come in the order of their rows; so do all for a zero query."""
    random = np.random.default_rng(0)
    few = random.normal(size=(5, 8)).astype(np.float32)
    few /= np.linalg.norm(few, axis=1, keepdims=True)
    vectors = few[random.integers(0, 5, 3000)]
    queries = np.concatenate([few, np.zeros((1, 8), np.float32)])
    found, scores = nearest_places(queries, VectorRows([vectors]), 60)
    expected, expected_scores = brute_force(queries, vectors, 60)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(scores, expected_scores)


def test_exact_neighbours_can_be_all_rows(vectors):
    """As many as there are can be asked for."""
    found, _ = nearest_places(vectors[:3], VectorRows([vectors[:50]]), 48, np.delete(np.arange(50), [4, 7]))
    np.testing.assert_array_equal(found, brute_force(vectors[:3], vectors[:50], 48, [4, 7])[0])


def test_recall_counts_true_neighbours_among_proposals():
    """Worked out by hand for two queries."""
    proposals = np.array([[5, 3, 9, -1], [0, 1, 2, 3]])
    neighbours = np.array([[3, 5], [7, 2]])
    np.testing.assert_allclose(recall_by_candidates(proposals, neighbours), [[0.5, 1, 1, 1], [0, 0, 0.5, 0.5]])


def test_intervals_cover_the_true_mean():
    """Of 2000 samples of recalls, about 95 % have the true mean in their interval."""
    random = np.random.default_rng(0)
    samples = random.binomial(10, 0.9, size=(2000, 200)) / 10
    covered = [low <= 0.9 <= high for low, high in map(mean_interval, samples)]
    assert 0.93 < np.mean(covered) < 0.97
    low, high = mean_interval(np.ones(100))
    assert (low, high) == (pytest.approx(1 - 3.8416 / 103.8416), 1.0)


def test_the_recall_that_is_told_is_had_by_fresh_queries(tuned, vectors):
    """On 500 queries that nobody has seen, the search with the chosen parameters is as good as promised."""
    structure, tuning, _ = tuned
    queries = clustered(500, 96, seed=2)
    found, _ = proposed_places(structure, tuning, queries, VectorRows([vectors]), 10)
    expected, _ = brute_force(queries, vectors, 10)
    recalls = np.array([np.isin(true, own).mean() for true, own in zip(expected, found, strict=True)])
    low, high = mean_interval(recalls)
    assert tuning.chosen.recall >= WISH.recall
    # two independent 95 % intervals around the same value nearly always meet
    assert low <= tuning.chosen.interval[1] + 0.005
    assert high >= tuning.chosen.interval[0] - 0.005


def test_every_row_has_its_place(tuned, vectors):
    """Rows that were held out are in the structure too, each at its own place."""
    structure, tuning, _ = tuned
    assert structure.n_places == 6000
    thorough = SearchParameters(64, 256, 20)
    first = structure.propose(vectors, 3, thorough)
    assert np.mean((first == np.arange(6000)[:, None]).any(axis=1)) > 0.97
    assert tuning.n_queries == 300


def test_a_tuning_tells_what_it_does(tuned):
    """Steps are numbered, trials have all their numbers, and what was chosen is on the front of what meets the wish."""
    structure, tuning, steps = tuned
    assert steps[0][0] == "exact neighbours"
    assert structure.factory in [name for name, _, _ in steps]
    assert all(0 <= number < of for _, number, of in steps)
    assert tuning.chosen in tuning.trials
    assert tuning.chosen.factory == structure.factory
    meeting = [trial for trial in tuning.trials if trial.meets and trial.fits]
    assert tuning.chosen.queries_per_second_all == max(trial.queries_per_second_all for trial in meeting)
    assert {"Flat", structure.factory} < {trial.factory for trial in tuning.trials}
    for trial in tuning.trials:
        assert 0 <= trial.interval[0] <= trial.recall <= trial.interval[1] <= 1
        assert min(trial.queries_per_second, trial.queries_per_second_all, trial.bytes_per_vector) > 0
    assert "times as many queries" in tuning.reason


def test_a_tuning_survives_json(tuned):
    """What goes into the index file comes back equal."""
    _, tuning, _ = tuned
    assert Tuning.from_json(json.loads(json.dumps(tuning.to_json()))) == tuning


def test_few_vectors_are_searched_exactly():
    """Nothing is tried where exact search takes no time, and the reason says so."""
    structure, tuning = tune(VectorRows([clustered(500, 16, seed=3)]), WISH)
    assert structure is None
    assert (tuning.chosen.factory, tuning.chosen.recall, tuning.chosen.meets) == ("Flat", 1.0, True)
    assert "too few" in tuning.reason


def test_a_wish_for_everything_is_met_exactly():
    """A recall of 1 that no structure reaches is what exact search is for."""
    random = np.random.default_rng(0).normal(size=(2500, 48)).astype(np.float32)
    random /= np.linalg.norm(random, axis=1, keepdims=True)
    structure, tuning = tune(VectorRows([random]), RecallWish(1.0, 10), max_seconds=2)
    assert (structure is None) == (tuning.chosen.factory == "Flat")
    assert tuning.chosen.recall == 1.0


def test_memory_bounds_what_is_kept(vectors):
    """Where vectors do not fit, a structure that does is taken, and those that do not are named."""
    memory = 800_000  # the vectors take 2.3 MB
    structure, tuning = tune(VectorRows([vectors]), WISH, memory=memory)
    assert structure is not None
    assert structure.n_bytes <= memory
    assert not next(trial for trial in tuning.trials if trial.factory == "Flat").fits
    assert any("would take" in why for _, why in tuning.skipped)


def test_a_wish_that_cannot_be_met_says_what_can():
    """In hardly any memory, the error says what was tried, and how much exact search needs."""
    rows = VectorRows([clustered(3000, 96, seed=4)])
    with pytest.raises(UsageError, match=r"0\.9@10 was wished for in 0\.02 MB; .*exact search needs 1\.15 MB"):
        tune(rows, WISH, memory=20_000)


def test_a_recall_out_of_reach_names_the_best(vectors):
    """The structure that was asked for cannot do it: its best is told."""
    with pytest.raises(UsageError, match=r"the best that was found is 0\.\d+ by PQ2x4fs \(candidates \d+\)"):
        tune(VectorRows([vectors]), RecallWish(0.999, 10), factory="PQ2x4fs")


def test_one_factory_is_tuned_alone(vectors):
    """Only what was asked for is built, and gets its parameters."""
    structure, tuning = tune(VectorRows([vectors]), WISH, factory="PCA32,IVF32,SQ8")
    assert structure is not None
    assert {trial.factory for trial in tuning.trials} == {"PCA32,IVF32,SQ8"}
    assert tuning.chosen.meets
    assert 1 <= tuning.chosen.parameters.nprobe <= 16
    assert tune(VectorRows([vectors]), WISH, factory="Flat")[0] is None


@pytest.mark.parametrize(("n_rows", "factory", "match"), [(6000, "IVFx", "'IVFx'"), (30, "SQ8", "30 vectors")])
def test_factories_that_cannot_be_are_refused_first(n_rows, factory, match, vectors):
    """Nothing is computed for a factory that is none, or with hardly any vectors."""
    steps = []
    with pytest.raises(UsageError, match=match):
        tune(VectorRows([vectors[:n_rows]]), WISH, factory=factory, on_step=lambda *step: steps.append(step))
    assert steps == []


def test_no_time_leaves_exact_search(vectors):
    """What there is no time for is skipped, and said so."""
    structure, tuning = tune(VectorRows([vectors]), WISH, max_seconds=0.0)
    assert structure is None
    assert tuning.skipped
    assert all("are over" in why for _, why in tuning.skipped)


def test_the_front_is_what_nothing_beats():
    """Recall, speed and bytes decide; of four trials worked out by hand, one is beaten."""

    def trial(recall, speed, n_bytes):
        parameters = SearchParameters(1, None, 10)
        return Trial("x", parameters, recall, (0, 1), speed, speed, 2, n_bytes, 1.0, False, True, True)

    trials = [trial(0.9, 100, 10), trial(0.9, 90, 10), trial(0.8, 200, 10), trial(0.7, 50, 5)]
    assert [each.on_front for each in with_front(trials)] == [True, False, True, True]


def test_candidates_suit_the_vectors():
    """Narrow vectors are kept whole, wide ones reduced; many rows get many cells, each of 39 rows at least."""
    narrow = [each.factory for each in candidate_structures(100_000, np.ones(32))]
    assert narrow
    assert not any("PCA" in factory for factory in narrow)
    wide = [each.factory for each in candidate_structures(1_000_000, 1.0 / np.arange(1, 1281))]
    assert wide
    assert all(factory.startswith("PCA") for factory in wide)
    assert [n_cells(n_rows) for n_rows in (100, 20_000, 1_000_000)] == [2, 256, 2048]
