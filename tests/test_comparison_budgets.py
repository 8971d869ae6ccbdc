"""What is compared: every layer with every way, nothing twice, nothing that makes no sense; and what it costs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from featx.comparison import (
    BUDGETS,
    Candidate,
    Cost,
    LayerCost,
    budget_named,
    chosen_ways,
    joined_layers,
    make_candidates,
)
from featx.comparison.costs import candidate_costs
from featx.errors import UsageError
from featx.heads import HEADS
from featx.reducers import SCALERS, StreamingPCA, make_reducer

WIDTHS = {"early": 16, "middle": 100, "late": 1280}
LAYERS = [*WIDTHS, "middle+late", "early+middle+late"]


@pytest.mark.parametrize("budget", BUDGETS)
def test_ways_of_every_budget_exist(budget):
    """Every name of the table is known, no way is there twice, and folds are drawn at least once."""
    ways = budget_named(budget).ways
    assert len(set(ways)) == len(ways)
    assert budget_named(budget).n_repeats >= 1
    for scale, reduce, head in ways:
        assert scale in SCALERS
        assert head in HEADS
        assert make_reducer(reduce) is not None


def test_full_budget_contains_the_quick_ones_kind():
    """The full budget is larger in ways, heads and repeats."""
    quick, full = budget_named("quick"), budget_named("full")
    assert len(full.ways) > len(quick.ways)
    assert {way[2] for way in full.ways} == set(HEADS) - {"majority"}
    assert full.n_repeats > quick.n_repeats


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("n_train", [10, 80, 10_000])
def test_no_candidate_is_there_twice(budget, n_train):
    """Candidates differ, every layer has every head of the ways, and one baseline comes last."""
    ways = budget_named(budget).ways
    candidates = make_candidates(LAYERS, WIDTHS, ways, n_train)
    assert len(set(candidates)) == len(candidates)
    for layer in LAYERS:
        assert {c.head for c in candidates if c.layer == layer} - {"majority"} == {way[2] for way in ways}
    assert candidates[-1] == Candidate("early", "none", "none", "majority")
    assert [c.head for c in candidates].count("majority") == 1


@pytest.mark.parametrize(
    ("layer", "n_train", "reduce", "expected"),
    [
        ("late", 1000, "pca:128", "pca:128"),
        ("early", 1000, "pca:128", "none"),  # 16 columns
        ("early", 1000, "pca:16", "none"),  # as many as there are
        ("early", 1000, "pca:15", "pca:15"),
        ("late", 128, "pca:128", "none"),  # no more rows than that
        ("late", 129, "pca:128", "pca:128"),
        ("early+middle", 1000, "pca:110", "pca:110"),  # 116 columns side by side
        ("early+middle", 1000, "pca:116", "none"),
        ("early", 5, "pca:0.9", "pca:0.9"),  # a fraction can always reduce
        ("early", 5, "pq:32", "pq:32"),
    ],
)
def test_components_that_reduce_nothing_are_left_out(layer, n_train, reduce, expected):
    """pca:N becomes "none" from as many components as columns or rows on."""
    first, _ = make_candidates([layer], WIDTHS, [("zscore", reduce, "svm")], n_train)
    assert first == Candidate(layer, "zscore", expected, "svm")


def test_ways_that_become_the_same_are_one():
    """Two PCAs that reduce nothing, and none, are one candidate; the order is that of the ways."""
    ways = [("l2", reduce, "ridge") for reduce in ("pca:64", "none", "pca:256", "pca:8")]
    assert make_candidates(["early"], WIDTHS, ways, 1000) == (
        Candidate("early", "l2", "none", "ridge"),
        Candidate("early", "l2", "pca:8", "ridge"),
        Candidate("early", "none", "none", "majority"),
    )


def test_unknown_layers_and_no_layer_are_named():
    """Both are errors that say what there is or what to do."""
    ways = budget_named("quick").ways
    with pytest.raises(UsageError, match="no features 'lat'; there are early, middle, late"):
        make_candidates(["early+lat"], WIDTHS, ways, 100)
    with pytest.raises(UsageError, match="no layer to compare"):
        make_candidates([], WIDTHS, ways, 100)


@pytest.mark.parametrize(
    ("n_layers", "expected"),
    [(0, []), (1, []), (2, ["d+e"]), (3, ["d+e", "c+d+e"]), (4, ["d+e", "b+c+d+e"])],
)
def test_joined_layers(n_layers, expected):
    """The deepest two, the deepest four and all, in the order given and none twice."""
    assert joined_layers(list("abcde")[5 - n_layers :]) == expected


def test_joined_layers_of_many():
    """Of five, two, four and all."""
    assert joined_layers(list("abcde")) == ["d+e", "b+c+d+e", "a+b+c+d+e"]


def test_named_parts_replace_the_ways_by_all_combinations():
    """What is named is taken, what is not comes from the budget; without any name it is the budget itself."""
    quick = budget_named("quick")
    assert chosen_ways(quick) == quick.ways
    assert chosen_ways(quick, ["l2"], ["none", "pca:9"], ["knn"]) == (("l2", "none", "knn"), ("l2", "pca:9", "knn"))
    heads = chosen_ways(quick, heads=["tree"])
    assert set(heads) == set(itertools.product(["zscore"], ["none", "pca:128"], ["tree"]))
    assert len(heads) == 2


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"scales": ["l2", "robust"]}, "unknown scaler 'robust'; allowed are none, zscore"),
        ({"heads": ["perceptron"]}, "unknown head 'perceptron'; allowed are svm"),
        ({"reduces": ["pca"]}, "unknown reducer 'pca'"),
    ],
)
def test_unknown_names_are_named(names, message):
    """A name that does not exist is an error that lists those that do."""
    with pytest.raises(UsageError, match=message):
        chosen_ways(budget_named("quick"), **names)


def test_unknown_budget_is_named():
    """So is a budget."""
    with pytest.raises(UsageError, match="unknown budget 'huge'; allowed are quick, full"):
        budget_named("huge")


# --- costs -----------------------------------------------------------------------------------------------------------


def features(n_rows=60):
    rng = np.random.default_rng(0)
    # every layer varies in fewer directions than it has columns
    return {
        name: (rng.normal(size=(n_rows, 7)) @ rng.normal(size=(7, width))).astype(np.float32)
        for name, width in WIDTHS.items()
    }


@pytest.mark.parametrize(
    ("layer", "reduce", "n_bytes"),
    [
        ("late", "none", 4 * 1280),
        ("early+late", "none", 4 * 1296),
        ("late", "pca:32", 4 * 32),
        ("late", "pca:500", 4 * 60),  # no more than rows
        ("early", "pca:500", 4 * 16),  # nor than columns
        ("late", "pq:32", 32),
        ("early", "pq:32", 16),  # one byte a subspace, of which there are no more than columns
        ("late", "pq:100", 59),  # nor than centred rows have directions
    ],
)
def test_bytes_by_hand(layer, reduce, n_bytes):
    """Four bytes a number, one a code, of as many as the rows can have; the reducers agree."""
    rows = features()
    candidate = Candidate(layer, "none", reduce, "svm")
    assert candidate_costs([candidate], rows, {})[candidate] == Cost(n_bytes)
    if reduce.startswith("pq"):
        assert make_reducer(reduce).fit(rows[layer]).encode(rows[layer]).shape[1] == n_bytes


def test_bytes_of_a_fraction_are_in_the_data():
    """pca:F costs as many numbers as that PCA has components on the scaled rows."""
    rows = features()
    candidate = Candidate("middle", "none", "pca:0.9", "svm")
    n_components = StreamingPCA(0.9).fit(rows["middle"]).n_components_
    assert candidate_costs([candidate], rows, {})[candidate].bytes_per_image == 4 * n_components < 4 * 8


def test_network_costs_what_its_deepest_layer_costs():
    """Of several layers the largest work and depth count; what is not known for one is not known; a baseline reads
    nothing.
    """
    known = {"early": LayerCost(0.1, 0.2), "late": LayerCost(0.4, 1.0), "middle": LayerCost(None, 0.5)}
    joined, half = Candidate("early+late", "none", "none", "svm"), Candidate("early+middle", "none", "none", "svm")
    baseline = Candidate("late", "none", "none", "majority")
    costs = candidate_costs([joined, half, baseline], features(), known)
    assert costs[joined] == Cost(4 * 1296, 0.4, 1.0)
    assert costs[half] == Cost(4 * 116, None, 0.5)
    assert costs[baseline].bytes_per_image == 0
    assert candidate_costs([joined], features(), {})[joined] == Cost(4 * 1296, None, None)
