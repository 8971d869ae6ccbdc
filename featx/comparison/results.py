"""From fold scores to a ranked result: who is best, who cannot be told from it, and what each one costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import fsum, inf
from typing import Any

from featx.comparison.candidates import Candidate, FoldScore
from featx.comparison.reports import describe_findings, write_csv, write_json, write_markdown
from featx.comparison.statistics import (
    PairedTest,
    accuracy_interval,
    clearly_above,
    corrected_test,
    holm,
    least_difference_variance,
)
from featx.errors import HeadError, UsageError

BASELINE = "majority"  # the head that looks at no feature
LEVEL = 0.05
MAX_LOSS = 0.05  # of what is recommended as cheap: where few rows tell nothing apart, all are tied
_DIGITS = 12  # so that means that differ in the last bit only are equal


@dataclass(frozen=True)
class Cost:
    """What a candidate costs beside the time of its head.

    Parameters
    ----------
    bytes_per_image : int
        Of the reduced features, as they would be stored.
    gmacs : float or None
        Multiply-accumulate operations of the network up to the deepest layer, in thousand millions; None: not known.
    depth : float or None
        Of the deepest layer, from 0 to 1; None: not known.
    """

    bytes_per_image: int
    gmacs: float | None = None
    depth: float | None = None


@dataclass(frozen=True)
class CandidateResult:
    """How one candidate did, alone and against the best.

    Attributes
    ----------
    candidate : Candidate
        What was measured.
    accuracy, balanced_accuracy, macro_f1 : float
        Means over the folds.
    interval : tuple of float
        95 % interval of the accuracy, see `accuracy_interval`.
    fit_seconds : float
        Mean time of one fit.
    predict_ms : float
        Mean time of naming an image whose features are there, in milliseconds.
    cost : Cost
        What else it costs.
    params : dict
        The hyper-parameters chosen in most folds, the first chosen of equals.
    difference : float
        Mean accuracy of the best less this one's; 0 for the best. Below 0 only for a baseline that beats the best.
    difference_interval : tuple of float
        Its 95 % interval, not adjusted for many candidates.
    p_value : float
        Of no difference, adjusted by Holm over all candidates; 1 for the best.
    tied : bool
        Whether it cannot be told from the best at 5 %. True for the best.
    fold_accuracies : tuple of float
        In the order of the folds.
    notes : tuple of str
        What was lowered, or did not converge, in any fold.
    """

    candidate: Candidate
    accuracy: float
    interval: tuple[float, float]
    balanced_accuracy: float
    macro_f1: float
    fit_seconds: float
    predict_ms: float
    cost: Cost
    params: dict[str, Any]
    difference: float
    difference_interval: tuple[float, float]
    p_value: float
    tied: bool
    fold_accuracies: tuple[float, ...]
    notes: tuple[str, ...] = ()

    @property
    def is_baseline(self) -> bool:
        """Whether it looks at no feature: shown for comparison, never recommended."""
        return self.candidate.head == BASELINE


@dataclass(frozen=True)
class Comparison:
    """All candidates, measured on the same folds.

    Attributes
    ----------
    results : tuple of CandidateResult
        As `rank_candidates` returns them: best first, baselines last.
    n_rows, n_classes : int
        Rows that took part, each tested once a repeat, and their classes.
    n_folds, n_repeats : int
        Folds of one repeat, and repeats.
    seed : int
        Of the folds.
    rows : str
        Which rows they are, in words.
    notes : tuple of str
        What holds for the whole comparison.
    skipped : tuple of str
        What was not compared, and why.
    """

    results: tuple[CandidateResult, ...]
    n_rows: int
    n_classes: int
    n_folds: int
    n_repeats: int
    seed: int
    rows: str
    notes: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check that there is something to compare."""
        if not self.results:
            raise HeadError("no candidate was scored. Give at least one layer, scaler, reducer and head.")

    @property
    def best(self) -> CandidateResult:
        """The highest mean accuracy; of equal ones the cheapest. A baseline only if there is nothing else."""
        return self.results[0]

    @property
    def tied(self) -> tuple[CandidateResult, ...]:
        """The best and all that cannot be told from it, best first, without baselines."""
        return tuple(r for r in self.results if r.tied and not r.is_baseline) or (self.best,)

    @property
    def cheapest(self) -> CandidateResult:
        """Of those tied with the best, the least GMACs, then bytes, then time; then the most accurate.

        Only those count whose own `difference_interval` reaches 0, and that are at most 5 points behind. Adjusting for
        many candidates guards against telling apart what is equal; here the danger is the other one: among 500
        candidates on ten folds, Holm leaves some tied that are 19 points behind. Its ``difference`` is what taking it
        is expected to lose.
        """
        near = [r for r in self.tied if r.difference_interval[0] <= 0 and r.difference <= MAX_LOSS]
        # A network takes milliseconds an image: tenths count, less is noise and would make the choice differ by run.
        return min(near, key=lambda r: (_cost_order(r.cost), round(r.predict_ms, 1), -r.accuracy, r.candidate))

    @property
    def baseline(self) -> CandidateResult | None:
        """The most accurate candidate that looks at no feature; None where there is none."""
        return next((result for result in self.results if result.is_baseline), None)

    @property
    def learned(self) -> bool:
        """Whether the best is better than always naming the largest class, by more than luck at 5 %.

        The test is binomial, its level divided by the number of candidates that the best was picked from. The corrected
        t-test has too little power for it: five folds of few rows could not tell 70 % from 10 % among 100 candidates.
        True where no baseline took part; False where nothing else did.
        """
        if self.baseline is None:
            return True
        n_candidates = sum(not result.is_baseline for result in self.results)
        return clearly_above(self.best.accuracy, self.baseline.accuracy, self.n_rows, n_candidates, LEVEL)

    @property
    def findings(self) -> tuple[str, ...]:
        """What came out, in sentences: the best, the cheapest of the tied, and whether anything was learned."""
        return describe_findings(self)

    def to_json(self) -> dict[str, Any]:
        """Return plain numbers, texts and lists."""
        return write_json(self)

    def to_csv(self) -> str:
        """Return one line a candidate under a header; numbers in full."""
        return write_csv(self)

    def to_markdown(self) -> str:
        """Return a table for people, with the findings above and the notes below."""
        return write_markdown(self)


def rank_candidates(
    scores: Mapping[Candidate, Sequence[FoldScore]],
    costs: Mapping[Candidate, Cost],
    *,
    n_rows: int,
    weight: float = 1.0,
) -> tuple[CandidateResult, ...]:
    """Return the candidates by mean accuracy, best first, each tested against the best.

    Parameters
    ----------
    scores : mapping of Candidate to sequence of FoldScore
        The same folds in the same order for all.
    costs : mapping of Candidate to Cost
        One for each candidate.
    n_rows : int
        Different rows that the folds tested, at least 1; repeats do not add any.
    weight : float
        Which part of these rows, and of those of each fold, counts: less than all where accuracies are means over
        classes, which are only as sure as their small classes let them be.

    Returns
    -------
    tuple of CandidateResult
        Equal means: the cheaper first. Baselines come last, so that the first is what can be recommended. The order
        of the mappings does not matter.

    Raises
    ------
    HeadError
        For no candidate, and where folds are missing or are not the same for all.
    UsageError
        For a candidate without a cost.

    Notes
    -----
    The best is picked by the folds that it is then tested on. That is meant for its purpose: the truly best candidate
    stays among the tied with about 95 %. It does not prove that everything else is worse.
    """
    folds = _same_folds(scores)
    missing = [candidate for candidate in scores if candidate not in costs]
    if missing:
        raise UsageError(f"{len(missing)} candidates have no cost, the first is {missing[0]}. Give one for each.")
    order = sorted(scores, key=lambda c: _rank(c, scores[c], costs[c]))
    n_test = weight * fsum(test for _, test in folds) / len(folds)
    n_rows = max(1, round(n_rows * weight))
    ratio = fsum(test / train for train, test in folds) / len(folds)
    best = _accuracies(scores[order[0]])
    tests = [_test_against(best, _accuracies(scores[c]), ratio, n_rows, n_test) for c in order[1:]]
    adjusted = holm([test.p_value for test in tests])
    first = PairedTest(0.0, (0.0, 0.0), 1.0)
    return tuple(
        _summary(candidate, scores[candidate], costs[candidate], test, p_value, ratio, n_rows)
        for candidate, test, p_value in zip(order, [first, *tests], [1.0, *adjusted], strict=True)
    )


def _same_folds(scores: Mapping[Candidate, Sequence[FoldScore]]) -> list[tuple[int, int]]:
    """Return training and test rows of each fold, after checking that all candidates have them."""
    if not scores:
        raise HeadError("no candidate was scored. Give at least one layer, scaler, reducer and head.")
    expected = [(fold.n_train, fold.n_test) for fold in max(scores.values(), key=len)]
    for candidate, folds in scores.items():
        if [(fold.n_train, fold.n_test) for fold in folds] != expected or not expected:
            raise HeadError(
                f"{candidate} was scored on {len(folds)} folds, not on the same {len(expected)} as the others. "
                "Score every candidate on every fold, in one order."
            )
    if min(min(sizes) for sizes in expected) < 1:
        raise HeadError(f"training and test rows of the folds are {expected}; every fold needs at least one of each.")
    return expected


def _rank(candidate: Candidate, folds: Sequence[FoldScore], cost: Cost) -> tuple[Any, ...]:
    mean = round(_mean(_accuracies(folds)), _DIGITS)
    return (candidate.head == BASELINE, -mean, _cost_order(cost), candidate)


def _cost_order(cost: Cost) -> tuple[float, float]:
    return (inf if cost.gmacs is None else cost.gmacs, cost.bytes_per_image)


def _test_against(
    best: Sequence[float], other: Sequence[float], ratio: float, n_rows: int, n_test: float
) -> PairedTest:
    differences = [a - b for a, b in zip(best, other, strict=True)]
    least = least_difference_variance(_mean(differences), n_rows, n_test)
    test = corrected_test(differences, ratio, least_variance=least)
    low, high = test.interval
    # + 0.0: no −0.0
    return PairedTest(round(test.mean, _DIGITS) + 0.0, (max(-1.0, low), min(1.0, high)), test.p_value)


def _summary(
    candidate: Candidate,
    folds: Sequence[FoldScore],
    cost: Cost,
    test: PairedTest,
    p_value: float,
    ratio: float,
    n_rows: int,
) -> CandidateResult:
    accuracies = _accuracies(folds)
    return CandidateResult(
        candidate=candidate,
        accuracy=_mean(accuracies),
        interval=accuracy_interval(accuracies, ratio, n_rows),
        balanced_accuracy=_mean([fold.balanced_accuracy for fold in folds]),
        macro_f1=_mean([fold.macro_f1 for fold in folds]),
        fit_seconds=_mean([fold.fit_seconds for fold in folds]),
        predict_ms=_predict_ms(folds),
        cost=cost,
        params=_most_chosen(folds),
        difference=test.mean,
        difference_interval=test.interval,
        p_value=p_value,
        tied=p_value > LEVEL,
        fold_accuracies=accuracies,
        notes=tuple(dict.fromkeys(note for fold in folds for note in fold.notes)),
    )


def _accuracies(folds: Sequence[FoldScore]) -> tuple[float, ...]:
    return tuple(fold.accuracy for fold in folds)


def _mean(values: Sequence[float]) -> float:
    return fsum(values) / len(values)


def _predict_ms(folds: Sequence[FoldScore]) -> float:
    return 1000 * fsum(fold.predict_seconds for fold in folds) / sum(fold.n_test for fold in folds)


def _most_chosen(folds: Sequence[FoldScore]) -> dict[str, Any]:
    # repr: values may be of any type, and 1 is not True. A Counter lists equals in the order seen.
    keys = [repr(sorted(fold.params.items())) for fold in folds]
    ((winner, _),) = Counter(keys).most_common(1)
    return dict(folds[keys.index(winner)].params)
