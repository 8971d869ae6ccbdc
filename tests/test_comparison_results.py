"""Ranking: who is best, who is tied, what is cheapest, and the same numbers in JSON, CSV and Markdown."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest

from featx.comparison import (
    Candidate,
    Comparison,
    Cost,
    FoldScore,
    accuracy_interval,
    corrected_test,
    describe_candidate,
    holm,
    rank_candidates,
)
from featx.comparison.statistics import least_difference_variance
from featx.errors import HeadError, UsageError

N_FOLDS, N_TEST = 10, 40
N_ROWS = N_FOLDS * N_TEST
SHARED = np.random.default_rng(0).integers(-2, 3, size=N_FOLDS)  # folds are easy or hard for everyone


def candidate(layer="late", scale="zscore", reduce="none", head="svm"):
    return Candidate(layer, scale, reduce, head)


def folds(hits, *, params=None, seconds=0.004, notes=()):
    """Return fold scores of a candidate from the rows it names correctly in each fold of 40."""
    return [
        FoldScore(h / N_TEST, h / N_TEST / 2, h / N_TEST / 4, N_ROWS - N_TEST, N_TEST, 0.5, seconds, chosen, notes)
        for h, chosen in zip(hits, params or [{"C": 1.0}] * len(hits), strict=True)
    ]


def made_up(seed=0):
    """Return scores and costs of a good layer, one as good, a bad one, and the baseline."""
    rng = np.random.default_rng(seed)
    means = {
        candidate("late"): 35,
        candidate("middle"): 34,
        candidate("early"): 20,
        candidate("early+late", reduce="pca:8"): 34,
        candidate("late", "none", "none", "majority"): 4,
    }
    scores = {
        c: folds((mean + SHARED + rng.integers(-1, 2, N_FOLDS)) if c.head == "svm" else [4] * N_FOLDS)
        for c, mean in means.items()
    }
    gmacs = {"early": 0.1, "middle": 0.2, "late": 0.4, "early+late": 0.4}
    costs = {c: Cost(32 if c.reduce == "pca:8" else 4000, gmacs[c.layer], 2 * gmacs[c.layer]) for c in means}
    return scores, costs


def compared(scores, costs, **changes):
    results = rank_candidates(scores, costs, n_rows=N_ROWS)
    return replace(Comparison(results, N_ROWS, 10, N_FOLDS, 1, 0, "training rows"), **changes)


@pytest.mark.parametrize("seed", range(5))
def test_ranking_invariants(seed):
    """Best first; the best is tied with itself at difference 0; differences are those of the means."""
    scores, costs = made_up(seed)
    results = rank_candidates(scores, costs, n_rows=N_ROWS)
    best = results[0]
    assert {r.candidate for r in results} == set(scores)
    assert (best.difference, best.difference_interval, best.p_value, best.tied) == (0.0, (0.0, 0.0), 1.0, True)
    assert [r.accuracy for r in results] == sorted((r.accuracy for r in results), reverse=True)
    for r in results:
        assert r.difference == pytest.approx(best.accuracy - r.accuracy, abs=1e-9)
        assert r.interval[0] <= r.accuracy <= r.interval[1]
        assert r.difference_interval[0] <= r.difference <= r.difference_interval[1]
        assert r.tied == (r.p_value > 0.05)
    assert {r.candidate.layer for r in results if r.tied} <= {"late", "middle", "early+late"}
    assert results[-1].is_baseline


@pytest.mark.parametrize("seed", range(5))
def test_order_of_the_candidates_does_not_matter(seed):
    """The same scores in another order give the same results."""
    scores, costs = made_up()
    order = np.random.default_rng(seed).permutation(len(scores))
    mixed = {list(scores)[i]: list(scores.values())[i] for i in order}
    assert rank_candidates(mixed, costs, n_rows=N_ROWS) == rank_candidates(scores, costs, n_rows=N_ROWS)


def test_numbers_are_means_over_the_folds():
    """Accuracy, F1, times and intervals are computed from the fold scores by their definitions."""
    scores, costs = made_up()
    (first, second, *_) = results = rank_candidates(scores, costs, n_rows=N_ROWS)
    accuracies = [fold.accuracy for fold in scores[second.candidate]]
    assert second.fold_accuracies == tuple(accuracies)
    assert second.accuracy == pytest.approx(np.mean(accuracies))
    assert second.balanced_accuracy == pytest.approx(np.mean(accuracies) / 2)
    assert second.macro_f1 == pytest.approx(np.mean(accuracies) / 4)
    assert second.fit_seconds == 0.5
    assert second.predict_ms == pytest.approx(0.1)
    assert second.interval == accuracy_interval(accuracies, 1 / 9, N_ROWS)
    raw = []
    for r in results[1:]:
        differences = np.subtract(first.fold_accuracies, r.fold_accuracies)
        floor = least_difference_variance(differences.mean(), N_ROWS, N_TEST)
        raw.append(corrected_test(differences, 1 / 9, least_variance=floor).p_value)
    assert [r.p_value for r in results[1:]] == pytest.approx(holm(raw))


def test_many_candidates_are_judged_more_carefully():
    """The same difference has a larger p among many: Holm's adjustment is applied."""
    a, b = candidate("a"), candidate("b")
    hits = np.array([30, 31, 29, 32, 30, 31, 28, 30, 33, 29])
    scores = {a: folds(hits), b: folds(hits - [2, 0, 1, 3, 1, 0, 2, 1, 2, 1])}
    alone = rank_candidates(scores, {c: Cost(1) for c in scores}, n_rows=N_ROWS)[1].p_value
    scores |= {candidate(f"c{i}"): folds(hits[::-1] - 2) for i in range(8)}
    among = next(r for r in rank_candidates(scores, {c: Cost(1) for c in scores}, n_rows=N_ROWS) if r.candidate == b)
    assert among.p_value > alone


def test_equal_folds_do_not_prove_that_candidates_are_equal_or_different():
    """Where every fold agrees the interval has a width, and one row in each of two tiny folds proves nothing."""
    scores = {candidate("a"): folds([40] * N_FOLDS), candidate("b"): folds([40] * N_FOLDS)}
    _, second = rank_candidates(scores, {c: Cost(1) for c in scores}, n_rows=N_ROWS)
    assert second.p_value == 1.0
    assert second.difference_interval[0] < 0 < second.difference_interval[1]
    tiny = [FoldScore(1.0, 1.0, 1.0, 2, 2, 0.1, 0.1, {})] * 2
    worse = [FoldScore(0.5, 0.5, 0.5, 2, 2, 0.1, 0.1, {})] * 2
    scores = {candidate("a"): tiny, candidate("b"): worse}
    assert rank_candidates(scores, {c: Cost(1) for c in scores}, n_rows=4)[1].tied


def test_equal_means_go_to_the_cheaper():
    """Of equal means the least GMACs come first, then the fewest bytes; another order of folds is an equal mean."""
    hits = np.arange(25, 35)
    scores = {candidate(name): folds(np.roll(hits, i)) for i, name in enumerate(["far", "wide", "small", "unknown"])}
    costs = dict(zip(scores, [Cost(1, 0.4), Cost(90, 0.2), Cost(80, 0.2), Cost(1)], strict=True))
    found = [r.candidate.layer for r in rank_candidates(scores, costs, n_rows=N_ROWS)]
    assert found == ["small", "wide", "far", "unknown"]


def test_noise_in_the_time_does_not_choose():
    """No time changes the best; microseconds in naming an image do not change the cheapest, milliseconds do."""
    hits = [30] * N_FOLDS
    for seconds, expected in (((0.0040, 0.0041), "a"), ((0.0041, 0.0040), "a"), ((0.4, 0.1), "b")):
        scores = {candidate(n): folds(hits, seconds=s) for n, s in zip("ab", seconds, strict=True)}
        comparison = compared(scores, {c: Cost(8, 0.1) for c in scores})
        assert (comparison.best.candidate.layer, comparison.cheapest.candidate.layer) == ("a", expected)


def test_most_chosen_parameters():
    """The parameters of most folds are reported, the first seen of equals."""
    a, b = {"max_depth": None, "leaf": 1}, {"max_depth": 8, "leaf": 1}
    for chosen, expected in (([b, a, a, b, a], a), ([b, a, a, b], b)):
        scores = {candidate(): folds([30] * len(chosen), params=chosen)}
        (result,) = rank_candidates(scores, {candidate(): Cost(1)}, n_rows=N_ROWS)
        assert result.params == expected


def test_notes_of_the_folds_are_kept_once():
    """What any fold noted is noted, in the order seen."""
    scores = {candidate(): folds([30, 30], notes=("lowered",)) + folds([30], notes=("not converged", "lowered"))}
    (result,) = rank_candidates(scores, {candidate(): Cost(1)}, n_rows=N_ROWS)
    assert result.notes == ("lowered", "not converged")


@pytest.mark.parametrize("missing", [1, N_FOLDS])
def test_missing_folds_are_an_error(missing):
    """A candidate that lacks folds is named, whichever place it has."""
    scores, costs = made_up()
    for lacking in scores:
        with pytest.raises(HeadError, match=rf"scored on {N_FOLDS - missing} folds"):
            rank_candidates({**scores, lacking: scores[lacking][missing:]}, costs, n_rows=N_ROWS)


def test_other_folds_are_an_error():
    """Folds of other sizes are not the same folds."""
    scores, costs = made_up()
    scores[candidate()] = [replace(fold, n_test=41) for fold in scores[candidate()]]
    with pytest.raises(HeadError, match="not on the same"):
        rank_candidates(scores, costs, n_rows=N_ROWS)


def test_nothing_to_rank_and_missing_costs_are_errors():
    """No candidate, no fold, empty folds, and a candidate without cost each have their message."""
    scores, costs = made_up()
    with pytest.raises(HeadError, match="no candidate"):
        rank_candidates({}, costs, n_rows=N_ROWS)
    with pytest.raises(HeadError, match="0 folds"):
        rank_candidates({candidate(): []}, costs, n_rows=N_ROWS)
    with pytest.raises(HeadError, match="at least one"):
        rank_candidates({candidate(): [replace(scores[candidate()][0], n_train=0)]}, costs, n_rows=N_ROWS)
    with pytest.raises(UsageError, match="5 candidates have no cost"):
        rank_candidates(scores, {}, n_rows=N_ROWS)
    with pytest.raises(HeadError, match="no candidate"):
        Comparison((), 1, 1, 1, 1, 0, "none")


def test_cheapest_is_tied_and_near():
    """The cheapest is the one of least GMACs among those that neither test tells from the best."""
    scores, costs = made_up()
    comparison = compared(scores, costs)
    assert comparison.best is comparison.results[0]
    assert comparison.best in comparison.tied
    assert comparison.cheapest.candidate.layer == "middle"
    assert all(r.cost.gmacs >= 0.2 for r in comparison.tied)


def test_cheapest_is_not_one_that_only_many_candidates_excuse():
    """A candidate that is tied after Holm alone, its own interval clear of 0, is marked but not recommended."""
    noise = np.array([2, -2, 1, -1, 3, -3, 0, 2, -2, 0])
    hits = 32 + SHARED
    scores = {candidate("best"): folds(hits), candidate("cheap"): folds(hits - 4 + noise)}
    scores |= {candidate(f"other{i:03d}"): folds(hits - 1 + np.roll(noise, i)) for i in range(300)}
    costs = {c: Cost(1, 0.1 if c.layer == "cheap" else 0.4) for c in scores}
    comparison = compared(scores, costs)
    cheap = next(r for r in comparison.results if r.candidate.layer == "cheap")
    assert cheap.tied
    assert cheap.difference_interval[0] > 0
    assert comparison.cheapest.candidate.layer != "cheap"


def test_unknown_gmacs_leave_the_choice_to_bytes():
    """Where no cost in GMACs is known the fewest bytes win."""
    scores, costs = made_up()
    comparison = compared(scores, {c: Cost(cost.bytes_per_image) for c, cost in costs.items()})
    assert comparison.cheapest.candidate.layer == "early+late"


def test_baseline_is_never_recommended():
    """A baseline that beats everything stays last, is neither best nor cheapest, and nothing was learned."""
    scores, costs = made_up()
    for c in scores:
        scores[c] = folds(7 + SHARED) if c.head == "svm" else folds([8] * N_FOLDS)
    comparison = compared(scores, costs)
    assert comparison.results[-1].is_baseline
    assert comparison.results[-1].difference < 0
    assert not any(r.is_baseline for r in (comparison.best, comparison.cheapest, *comparison.tied))
    assert not comparison.learned
    assert any("nothing was learned" in finding for finding in comparison.findings)


def test_baseline_alone():
    """With nothing but a baseline it is the best, and nothing was learned."""
    c = candidate(head="majority")
    comparison = compared({c: folds([8] * N_FOLDS)}, {c: Cost(1)})
    assert comparison.best.candidate == comparison.cheapest.candidate == c
    assert not comparison.learned


def test_learned():
    """Clearly better than the largest class is learned; without a baseline there is nothing to doubt it by."""
    scores, costs = made_up()
    assert compared(scores, costs).learned
    assert compared({c: s for c, s in scores.items() if c.head == "svm"}, costs).learned
    assert not any("nothing" in finding for finding in compared(scores, costs).findings)


def test_findings_name_both_choices_and_the_loss():
    """The best with its interval, and the cheapest with what it is expected to lose, are said in words."""
    comparison = compared(*made_up())
    best, cheapest = comparison.findings
    assert describe_candidate(comparison.best.candidate) in best
    assert f"{comparison.best.accuracy:.3f}" in best
    assert "middle · zscore · svm" in cheapest
    assert f"expected loss {100 * comparison.cheapest.difference:.1f} points" in cheapest


def test_json_is_plain_and_complete():
    """JSON text read again equals the values, which are those of the results."""
    comparison = compared(*made_up(), notes=("a note",), skipped=("forest: too slow",))
    values = comparison.to_json()
    assert json.loads(json.dumps(values, allow_nan=False)) == values
    assert values["results"][values["best"]]["accuracy"] == comparison.best.accuracy
    assert values["results"][values["cheapest"]]["layer"] == comparison.cheapest.candidate.layer
    assert (values["n_rows"], values["n_folds"], values["notes"]) == (N_ROWS, N_FOLDS, ["a note"])
    for row, result in zip(values["results"], comparison.results, strict=True):
        assert Candidate(row["layer"], row["scale"], row["reduce"], row["head"]) == result.candidate
        assert Cost(row["bytes_per_image"], row["gmacs"], row["depth"]) == result.cost
        assert (tuple(row["interval"]), row["p_value"], row["tied"]) == (result.interval, result.p_value, result.tied)
        assert tuple(row["fold_accuracies"]) == result.fold_accuracies


def test_csv_round_trip():
    """CSV read by the standard library gives every number to the last digit, also beside awkward texts."""
    odd = candidate('x"y,z', reduce="pca:8")
    scores, costs = made_up()
    scores[odd] = folds(30 + SHARED, notes=("first,\nsecond",))
    comparison = compared(scores, {**costs, odd: Cost(7)})
    rows = list(csv.DictReader(io.StringIO(comparison.to_csv())))
    assert [int(row["rank"]) for row in rows] == list(range(1, len(rows) + 1))
    for row, r in zip(rows, comparison.results, strict=True):
        assert Candidate(row["layer"], row["scale"], row["reduce"], row["head"]) == r.candidate
        assert (float(row["accuracy"]), float(row["p_value"])) == (r.accuracy, r.p_value)
        assert (float(row["accuracy_low"]), float(row["accuracy_high"])) == r.interval
        assert (float(row["difference_low"]), float(row["difference_high"])) == r.difference_interval
        assert tuple(json.loads(row["fold_accuracies"])) == r.fold_accuracies
        assert json.loads(row["tied"]) is r.tied
        assert json.loads(row["params"]) == r.params
        assert tuple(json.loads(row["notes"])) == r.notes
        assert row["gmacs"] == ("" if r.cost.gmacs is None else str(r.cost.gmacs))


def test_csv_header_is_stable():
    """Programs may rely on the names and the order of the columns."""
    header = compared(*made_up()).to_csv().splitlines()[0]
    assert header == (
        "rank,layer,scale,reduce,head,accuracy,accuracy_low,accuracy_high,balanced_accuracy,macro_f1,difference,"
        "difference_low,difference_high,p_value,tied,fit_seconds,predict_ms,bytes_per_image,gmacs,depth,params,"
        "fold_accuracies,notes"
    )


def test_markdown_table():
    """Every row of the table has as many cells as its header; the choices are marked, notes follow."""
    scores, costs = made_up()
    comparison = compared(scores, costs, notes=("a|b",), skipped=("forest: too slow",))
    text = comparison.to_markdown()
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == len(comparison.results) + 2
    assert {line.count(" | ") for line in table} == {14}
    assert table[2].startswith("| best | ")
    assert [line for line in table if line.startswith("| cheapest | middle")]
    assert "- a\\|b" in text
    assert "- not compared: forest: too slow" in text


def test_markdown_shows_awkward_names_as_they_are():
    """A layer name with signs of Markdown neither breaks the row nor changes its look."""
    odd = candidate("a|b_*c")
    text = compared({odd: folds([30] * N_FOLDS)}, {odd: Cost(1)}).to_markdown()
    assert "| best | a\\|b\\_\\*c | zscore |" in text


def test_results_are_frozen():
    """Results cannot be changed after the fact."""
    comparison = compared(*made_up())
    with pytest.raises(FrozenInstanceError):
        comparison.best.accuracy = 1.0
