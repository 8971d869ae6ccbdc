"""What is measured of an index is what scikit-learn, or counting by hand, measures; a query is no answer to itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from layered_stores import random_bytes, write_layers
from sklearn.metrics import average_precision_score
from structured_indexes import structured, unit

from featx.errors import FingerprintMismatchError, SourceError, UsageError
from featx.retrieval import ImageIndex
from featx.retrieval.ranking import RankingSteps
from featx.retrieval.structures import SearchParameters
from featx.store import FeatureStore
from featx.workflows.evaluating_index import evaluate_index
from featx.workflows.ground_truth import read_truth
from featx.workflows.indexing import build_index
from featx.workflows.query_sets import own_queries, stored_queries

N_ROWS, WIDTH = 300, 10
LABELS = [None if number % 10 == 9 else "abcd"[number % 4] for number in range(N_ROWS)]
CENTRES = {"a": 0, "b": 1, "c": 2, "d": 3, None: 4}
VECTORS = np.random.default_rng(0).normal(size=(N_ROWS, WIDTH)) + 1.5 * np.eye(WIDTH)[[CENTRES[x] for x in LABELS]]
SPLITS = ["test" if number % 3 == 0 else "train" for number in range(N_ROWS)]


def plain_index(**options):
    """Return an index of 300 labelled images without a structure."""
    return ImageIndex.build(VECTORS, labels=LABELS, splits=SPLITS, paths=[f"{n}.png" for n in range(N_ROWS)], **options)


def average_precisions(rows, allowed):
    """Return scikit-learn's average precision of each labelled row as a query, itself left out."""
    cosines = unit(VECTORS) @ unit(VECTORS).T
    found = []
    for row in rows:
        others = [number for number in np.flatnonzero(allowed) if number != row]
        relevant = [LABELS[number] is not None and LABELS[number] == LABELS[row] for number in others]
        if LABELS[row] is not None and any(relevant):
            found.append(average_precision_score(relevant, cosines[row, others]))
    return found


def test_mean_average_precision_is_that_of_scikit_learn():
    """Over whole rankings, each labelled image asking for the others of its label."""
    result = evaluate_index(plain_index(), own_queries(plain_index()))
    expected = average_precisions(range(N_ROWS), np.ones(N_ROWS, bool))
    (stage,) = result.stages
    assert stage.metrics.mean_average_precision == pytest.approx(np.mean(expected), abs=1e-6)
    assert (stage.metrics.n_queries, stage.metrics.n_without_answer) == (270, 0)
    assert (stage.ann_recall, result.depth, result.k, result.truth) == (1.0, 300, 10, "labels")
    assert stage.queries_per_second > 0


@pytest.mark.parametrize("seed", [None, 1, 2])
def test_queries_of_one_split_search_in_the_other(seed):
    """With queries and answers apart, whole rankings of all that may be found are measured."""
    index = plain_index()
    random = np.random.default_rng(seed)
    is_test = np.array(SPLITS) == "test" if seed is None else random.random(N_ROWS) < 0.4
    allowed = ~is_test if seed is None else ~is_test & (random.random(N_ROWS) < 0.1)
    result = evaluate_index(index, own_queries(index, is_test), where=allowed)
    expected = average_precisions(np.flatnonzero(is_test), allowed)
    assert result.stages[0].metrics.mean_average_precision == pytest.approx(np.mean(expected), abs=1e-6)
    assert result.stages[0].metrics.n_queries == len(expected)


def directions(degrees, **columns):
    """Return an index of directions in a plane."""
    angles = np.deg2rad(degrees)
    return ImageIndex.build(np.stack([np.cos(angles), np.sin(angles)], axis=1), **columns)


def test_metrics_of_a_tiny_index_by_hand():
    """Five directions in a plane, two labels: every number can be counted on the fingers."""
    # without the query: 0° y x y x, 10° x x y x, 25° y x y x, 60° x x y x, 100° y x y x
    index = directions([0, 10, 25, 60, 100], labels=["x", "y", "x", "y", "x"])
    result = evaluate_index(index, own_queries(index), k=2)
    metrics = result.stages[0].metrics
    assert metrics.mean_average_precision == pytest.approx((3 * (1 / 2 + 2 / 4) / 2 + 2 / 3) / 5)
    assert (metrics.top_1, metrics.n_queries, metrics.ns_score) == (0, 5, None)
    assert (result.k, result.depth) == (2, 5)
    cut = evaluate_index(index, own_queries(index), k=10, depth=2)
    # of the first two only: x has one of its two at the second place, y nothing
    assert cut.stages[0].metrics.mean_average_precision == pytest.approx(3 * (1 / 2) / 2 / 5)
    assert (cut.k, cut.depth) == (2, 2)


def test_groups_of_four_have_an_n_s_score():
    """Two objects with four pictures each, all found: 4 of 4, the query counted as found."""
    index = directions([0, 1, 2, 3, 90, 91, 92, 93], labels=list("aaaabbbb"))
    metrics = evaluate_index(index, own_queries(index)).stages[0].metrics
    assert (metrics.ns_score, metrics.mean_average_precision, metrics.top_1) == (4, 1, 1)


def test_a_query_is_no_answer_to_itself():
    """Where each image is alone with its label, or a copy is of another label, nothing right is found."""
    index = ImageIndex.build(np.repeat(np.eye(3), 2, axis=0), labels=["a", "b", "b", "c", "c", "a"])
    metrics = evaluate_index(index, own_queries(index)).stages[0].metrics
    assert metrics.top_1 == 0
    index = ImageIndex.build(np.eye(3), labels=["a", "b", "b"])
    metrics = evaluate_index(index, own_queries(index)).stages[0].metrics
    assert (metrics.n_queries, metrics.n_without_answer) == (2, 1)


def test_chosen_rows_are_queries():
    """With a choice, only these rows ask, also without a label where a ground truth says what is right."""
    index = plain_index()
    queries = own_queries(index, np.arange(N_ROWS) == 9)
    assert (queries.paths, queries.labels, queries.rows.tolist()) == (("9.png",), (None,), [9])
    order = np.argsort(-(unit(VECTORS) @ unit(VECTORS)[9]))
    third = order[order != 9][2]
    result = evaluate_index(index, queries, truth=[("9.png", f"{third}.png")])
    assert result.stages[0].metrics.mean_average_precision == pytest.approx(1 / 3)
    assert result.truth == "the ground truth"


def test_rows_are_counted_after_removal():
    """After images were removed, labels, paths and answers are still those of the right rows."""
    index = plain_index()
    index.remove(np.arange(0, 30))
    left = np.arange(N_ROWS) >= 30
    result = evaluate_index(index, own_queries(index))
    expected = average_precisions(np.flatnonzero(left), left)
    assert result.stages[0].metrics.mean_average_precision == pytest.approx(np.mean(expected), abs=1e-6)


def test_a_ground_truth_names_what_is_right():
    """Pairs of paths replace labels; queries without a pair are counted as having nothing to find."""
    index = directions([0, 10, 25, 60, 100], paths=list("pqrst"), labels=["x"] * 5)
    pairs = [("p", "r"), ("p", "s"), ("t", "p"), ("p", "r"), ("not asked", "q")]
    metrics = evaluate_index(index, own_queries(index), truth=pairs).stages[0].metrics
    # p finds q r s t: r and s at 2 and 3; t finds s r q p: p at 4
    assert metrics.mean_average_precision == pytest.approx(((1 / 2 + 2 / 3) / 2 + 1 / 4) / 2)
    assert (metrics.n_queries, metrics.n_without_answer) == (2, 3)


def test_a_filter_counts_for_the_ground_truth_too():
    """What may not be found is not missed, by ground truth as by label."""
    index = directions([0, 10, 25, 60, 100], paths=list("pqrst"), labels=["x"] * 5)
    where = np.array([True, True, True, False, True])
    queries = own_queries(index, np.array([True, False, False, False, False]))
    by_label = evaluate_index(index, queries, where=where).stages[0].metrics
    by_truth = evaluate_index(index, queries, truth=[("p", path) for path in "qrst"], where=where).stages[0].metrics
    assert by_label.mean_average_precision == 1
    assert by_truth.mean_average_precision == 1
    assert by_truth.recall_at == by_label.recall_at


@pytest.mark.parametrize(
    ("pairs", "said"),
    [([("p", "nobody")], "'nobody' is not in the index"), ([("nobody", "p")], "no query is called 'nobody'")],
)
def test_strangers_in_the_ground_truth_are_named(pairs, said):
    """A ground truth that names other images than the index and the queries have is an error."""
    index = directions([0, 10], paths=["p", "q"])
    with pytest.raises(UsageError, match=said):
        evaluate_index(index, own_queries(index, np.ones(2, bool)), truth=pairs)


def test_nothing_to_measure_is_an_error():
    """Without labels, and where no label comes twice, there is nothing to be found."""
    index = directions([0, 10])
    with pytest.raises(UsageError, match="no image of the index has a label"):
        own_queries(index)
    index = directions([0, 10], labels=["a", "b"])
    with pytest.raises(UsageError):
        evaluate_index(index, own_queries(index))


def test_a_hasty_structure_is_measured_against_exact_search():
    """The recall of the index is the share of the exact neighbours among its own, and that of exact search is 1."""
    hasty = structured(VECTORS, labels=LABELS, parameters=SearchParameters(1, None, 12))
    result = evaluate_index(hasty, own_queries(hasty), k=10, depth=10)
    assert [stage.name for stage in result.stages] == ["exact search", "the index"]
    exact, approximate = result.stages
    assert (exact.ann_recall, exact.ann_interval[1]) == (1, 1)
    rows = np.flatnonzero([label is not None for label in LABELS])
    cosines = unit(VECTORS) @ unit(VECTORS).T
    np.fill_diagonal(cosines, -2)
    true = np.argsort(-cosines[rows], axis=1)[:, :10]
    found = hasty.search_vectors(hasty.take(rows), 11).rows
    shared = [len(set(a) & set(b[b != row][:10])) / 10 for row, a, b in zip(rows, true, found, strict=True)]
    assert approximate.ann_recall == pytest.approx(np.mean(shared), abs=0.002)
    assert approximate.ann_recall < 0.95
    low, high = approximate.ann_interval
    assert low < approximate.ann_recall < high


def test_each_step_is_measured_on_top_of_those_before():
    """Expansion and re-ranking have stages of their own, which are those of a plain and a structured index alike."""
    steps = RankingSteps(expand=3, reciprocal=True, n_candidates=40)
    names = ["exact search", "+ expand 3", "+ reciprocal"]
    flat = plain_index()
    result = evaluate_index(flat, own_queries(flat), steps=steps, depth=50)
    assert [stage.name for stage in result.stages] == names
    thorough = structured(VECTORS, labels=LABELS)
    same = evaluate_index(thorough, own_queries(thorough), steps=steps, depth=50)
    assert [stage.name for stage in same.stages] == [names[0], "the index", *names[1:]]
    for one, other in zip(result.stages, [same.stages[0], *same.stages[2:]], strict=True):
        assert one.metrics.mean_average_precision == pytest.approx(other.metrics.mean_average_precision, abs=0.002)
    only_expanded = evaluate_index(flat, own_queries(flat), steps=RankingSteps(expand=3), depth=50)
    assert only_expanded.stages[1].metrics == result.stages[1].metrics


def test_a_query_does_not_expand_to_itself():
    """With one neighbour, a query of the index moves to the nearest other image and not to itself."""
    index = plain_index()
    result = evaluate_index(index, own_queries(index), steps=RankingSteps(expand=1))
    assert result.stages[1].metrics != result.stages[0].metrics


def test_images_of_another_store_are_queries(tmp_path):
    """Rows of a store ask by their labels, and find the images of the index of the same name."""
    is_query = np.arange(N_ROWS) % 3 == 0
    features = {"penultimate@avg": VECTORS.astype(np.float32)}
    numbers = np.array(["abcd".index(label) if label else -1 for label in LABELS])
    stores = {
        name: write_layers(
            tmp_path / f"{name}.h5", numbers[chosen].tolist(), {key: part[chosen] for key, part in features.items()}
        )
        for name, chosen in (("queries", is_query), ("gallery", ~is_query))
    }
    with FeatureStore(stores["gallery"]) as gallery, FeatureStore(stores["queries"]) as asking:
        index = build_index(gallery)
        queries = stored_queries(index, asking)
        assert queries.failures == ()
        # files are recognised by digests, which are row numbers in these stores
        queries = replace(queries, rows=np.full(len(queries.rows), -1))
        result = evaluate_index(index, queries)
    expected = average_precisions(np.flatnonzero(is_query), ~is_query)
    assert result.stages[0].metrics.mean_average_precision == pytest.approx(np.mean(expected), abs=1e-6)
    assert result.depth == (~is_query).sum()


def test_a_store_made_otherwise_cannot_ask(tmp_path):
    """Queries of another network are refused."""
    features = {"penultimate@avg": VECTORS[:20].astype(np.float32)}
    first = write_layers(tmp_path / "a.h5", [0] * 20, features)
    digests = random_bytes(20, 16, seed=1)
    other = write_layers(tmp_path / "b.h5", [0] * 20, features, digests=digests, fingerprint={"model": "other"})
    with FeatureStore(first) as store:
        index = build_index(store)
    with FeatureStore(other) as store, pytest.raises(FingerprintMismatchError, match="model"):
        stored_queries(index, store)


def test_a_ground_truth_is_read(tmp_path):
    """Pairs come in the order of the file; other columns and a byte order mark do not matter."""
    (tmp_path / "t.csv").write_text('\ufeffpath,comment,query\nä.png,x,q1\n"b, c.png",,q1\n', encoding="utf-8")
    assert read_truth(str(tmp_path / "t.csv")) == [("q1", "ä.png"), ("q1", "b, c.png")]


@pytest.mark.parametrize(
    ("content", "error", "said"),
    [
        (b"query,path\n", UsageError, "no row"),
        (b"", UsageError, "no column query and no column path"),
        (b"query,file\na,b\n", UsageError, "no column path"),
        (b"query,path\na,b\na\n", UsageError, "row 3, has no query or no path"),
        (b"query,path\n,b\n", UsageError, "row 2"),
        (b"query,path\na,\xff\n", SourceError, "cannot be read as a ground truth"),
        (b'query,path\na,"b\n', SourceError, "cannot be read as a ground truth"),
    ],
)
def test_a_ground_truth_that_cannot_be_read(content, error, said, tmp_path):
    """Missing columns, rows, values and broken text are named with the file."""
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(error, match=said) as raised:
        read_truth(str(tmp_path / "t.csv"))
    assert "t.csv" in str(raised.value)


def test_a_missing_ground_truth_is_named(tmp_path):
    """No such file is an error of the source, with what it should hold."""
    with pytest.raises(SourceError, match=r"none\.csv cannot be read.*query,path"):
        read_truth(str(tmp_path / "none.csv"))
