"""From what was measured to an advice: a table that everybody teaches, and measurement, which overrules it.

=======  ==========================================  ==============================================
         similar to the source domain                different from it
=======  ==========================================  ==============================================
small    late-linear: a linear head, late features   early-linear: a linear head, earlier features
large    partial: fine-tune the last stages          total: train everything, from these weights
=======  ==========================================  ==============================================

Small is a median of fewer than 1000 images a class. On a small set the cross-validated accuracy of the layers decides
between the two linear roads: it overrules the table where the last layer is a tie with the best, and where it is behind
by more than luck. On a large set it decides where it leaves nothing to win.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from featx.advice.risks import describe_risks
from featx.advice.size import FEW, SetSize
from featx.advice.wording import (
    ROADS,
    describe_layers,
    describe_lead,
    describe_similarity,
    describe_size,
    layer_in_words,
    percent,
    points,
    right_on,
)

if TYPE_CHECKING:
    from featx.advice.evidence import LayerEvidence, LayerSweep
    from featx.advice.similarity import Similarity

LATE, EARLY, PARTIAL, TOTAL = "late-linear", "early-linear", "partial", "total"
QUADRANTS = {"small-similar": LATE, "small-different": EARLY, "large-similar": PARTIAL, "large-different": TOTAL}
NEARLY_ALL = 0.98  # accuracy of frozen features, balanced in uneven classes, that leaves next to nothing to win
_MUCH_LEFT = 0.9  # below it there is something to win, where there are images for it
_MIDDLE = 0.5  # of the scale of similarity: which side of it is nearer


@dataclass(frozen=True)
class Alternative:
    """Another road that may be worth its time.

    Attributes
    ----------
    strategy : str
        As in `Advice`.
    why : str
        A sentence.
    layer : str or None
        As in `Advice`.
    """

    strategy: str
    why: str
    layer: str | None = None


@dataclass(frozen=True)
class Advice:
    """Which road to take, and why.

    Attributes
    ----------
    similarity : Similarity
        To what the network was trained on.
    size : SetSize
        Of the set.
    quadrant : str or None
        A key of `QUADRANTS`; None where neither images nor labels say anything about similarity.
    between : bool
        Whether the similarity is neither that of similar sets nor that of different ones.
    strategy : {"late-linear", "early-linear", "partial", "total"}
        The road.
    layer : str or None
        What the head of a linear road stands on, as far as that was measured; several are joined by ``+``.
    reasons, risks : tuple of str
        Sentences.
    also_worth : tuple of Alternative
        Other roads, the more likely first.
    layers : tuple of LayerEvidence
        As measured; empty without labels.
    """

    similarity: Similarity
    size: SetSize
    quadrant: str | None
    between: bool
    strategy: str
    layer: str | None
    reasons: tuple[str, ...]
    risks: tuple[str, ...]
    also_worth: tuple[Alternative, ...]
    layers: tuple[LayerEvidence, ...]


def decide(size: SetSize, similarity: Similarity, sweep: LayerSweep | None = None, *, no_sweep: str = "") -> Advice:
    """Return the advice that follows from the evidence; nothing else is looked at.

    Parameters
    ----------
    size : SetSize
        Of the set.
    similarity : Similarity
        Its value may be None.
    sweep : LayerSweep, optional
        Evidence by layer; None where there are no labels, or too few.
    no_sweep : str
        Why there is none.
    """
    found = _Findings(size, similarity, sweep)
    also_worth = tuple(_alternatives(found))
    taken = found.layer_for(found.strategy)
    return Advice(
        similarity=similarity,
        size=size,
        quadrant=found.quadrant,
        between=similarity.verdict == "between",
        strategy=found.strategy,
        layer=None if taken is None else taken.layer,
        reasons=(
            describe_size(size),
            describe_similarity(similarity, found.side, by_layers=found.measured is not None),
            *(
                describe_layers(sweep)
                if sweep
                else [f"There is no evidence by layer: {no_sweep.rstrip('.') or 'no labels'}."]
            ),
            *_verdict(found),
        ),
        risks=describe_risks(
            size,
            [found.strategy, *(other.strategy for other in also_worth)],
            taken,
            0 if sweep is None else max(sweep.n_rows, sweep.n_training_rows),
        ),
        also_worth=also_worth,
        layers=() if sweep is None else sweep.layers,
    )


class _Findings:
    """What the evidence comes to: the quadrant, what the table says to it, what the layers say, and who is heard."""

    def __init__(self, size: SetSize, similarity: Similarity, sweep: LayerSweep | None) -> None:
        self.size, self.similarity, self.sweep = size, similarity, sweep
        self.measured = _measured(sweep, is_similar=_is_similar(similarity))
        self.side = self._side()
        self.quadrant = None if self.side is None else f"{'small' if size.is_small else 'large'}-{self.side}"
        self.theory = QUADRANTS[self.quadrant] if self.quadrant else LATE if size.is_small else PARTIAL
        self.linear = self.measured or (EARLY if self.side == "different" else LATE)
        self.reached = self._reached()
        self.is_enough = self.reached is not None and self.reached >= NEARLY_ALL
        is_heard = self.measured is not None and (size.is_small or self.is_enough)
        self.strategy = self.measured if self.measured and is_heard else self.theory

    def _side(self) -> str | None:
        is_similar = _is_similar(self.similarity)
        if is_similar is None and self.measured is not None:
            is_similar = self.measured == LATE
        return None if is_similar is None else "similar" if is_similar else "different"

    def _reached(self) -> float | None:
        """Return the accuracy of the layer that the linear road would stand on; None where nothing was learned."""
        if self.sweep is None or not self.sweep.learned:
            return None
        return (self.layer_for(self.linear) or self.sweep.latest).accuracy

    @property
    def is_balanced(self) -> bool:
        """Whether accuracies are balanced ones."""
        return self.sweep is not None and self.sweep.is_balanced

    def layer_for(self, strategy: str) -> LayerEvidence | None:
        """Return what a linear head would stand on."""
        if self.sweep is None or strategy not in (LATE, EARLY):
            return None
        if strategy == LATE:
            return self.sweep.latest
        return self.sweep.preferred if self.sweep.is_behind else self.sweep.best_earlier

    def alternative(self, strategy: str, why: str) -> Alternative:
        """Return another road, with the layer that was measured for it."""
        entry = self.layer_for(strategy)
        return Alternative(strategy, why, None if entry is None else entry.layer)


def _is_similar(similarity: Similarity) -> bool | None:
    return None if similarity.value is None else similarity.value >= _MIDDLE


def _measured(sweep: LayerSweep | None, *, is_similar: bool | None) -> str | None:
    """Return the linear road that did best in cross-validation; None where nothing could be told.

    A lead of earlier layers that may be luck is not enough against the table, which says late for similar sets.
    """
    if sweep is None or not sweep.learned or sweep.best_earlier is None:
        return None
    if not sweep.is_behind or (is_similar and not sweep.is_surely_behind):
        return LATE
    return EARLY


def _verdict(found: _Findings) -> list[str]:
    """Return what the table says, what the layers say, and which of them is followed."""
    kind = f"a {found.quadrant.replace('-', ' and ')} set" if found.quadrant else "an unknown set of this size"
    table = f"Theory for {kind}: {ROADS[found.theory]}."
    if found.sweep is None or found.measured is None:
        return [table]
    return [table, _measured_said(found, found.sweep)]


def _measured_said(found: _Findings, sweep: LayerSweep) -> str:
    lead = describe_lead(sweep)
    if not found.size.is_small and found.reached is not None:
        reached = f"{'a balanced accuracy of ' if sweep.is_balanced else ''}{percent(found.reached)}"
        left = points(1 - found.reached)
        if not found.is_enough:
            return (
                f"Frozen features reach {reached}, which leaves {left} to win: the set is large enough to"
                " train for them."
            )
        return (
            f"But frozen features give nearly everything, {reached}: fine-tuning could win {left} at the"
            f" most, so that a linear head comes first; {lead}."
        )
    if found.similarity.value is None:
        return f"That was decided by the layers alone: {lead}."
    if found.measured == found.theory:
        return (
            f"Measurement {'does not contradict' if found.measured == LATE and sweep.is_behind else 'agrees'}: {lead}."
        )
    return f"Theory and measurement disagree, and measurement decides for {ROADS[found.measured or '']}: {lead}."


def _alternatives(found: _Findings) -> list[Alternative]:
    others = [*_linear_alternatives(found), *_tuning_alternatives(found)]
    return [other for place, other in enumerate(others) if other.strategy not in {o.strategy for o in others[:place]}]


def _linear_alternatives(found: _Findings) -> list[Alternative]:
    """Return linear roads: the cheap one beside fine-tuning, the table's, and the one that may be ahead by luck."""
    if found.strategy in (PARTIAL, TOTAL):
        road = found.measured or (EARLY if found.side == "different" else LATE)
        return [found.alternative(road, f"{_capital(ROADS[road])} costs minutes, and is what fine-tuning has to beat.")]
    if found.theory in (LATE, EARLY) and found.theory != found.strategy:
        entry = found.layer_for(found.theory)
        said = (
            ""
            if entry is None
            else f"; {layer_in_words(entry.layer)} {right_on(entry.accuracy, is_balanced=found.is_balanced)} here"
        )
        return [found.alternative(found.theory, f"{_capital(ROADS[found.theory])} is what theory says{said}.")]
    if found.strategy == LATE and found.sweep is not None and found.sweep.learned and found.sweep.is_behind:
        ahead = points(found.sweep.latest.behind - found.sweep.preferred.behind)
        return [found.alternative(EARLY, f"{_capital(ROADS[EARLY])} is {ahead} ahead here, which may be luck.")]
    return []


def _tuning_alternatives(found: _Findings) -> list[Alternative]:
    """Return fine-tuning where the table, or what is left to win, speaks for it; none where hardly anything is left."""
    left = ""
    if found.reached is not None:
        if found.is_enough:  # so that no win of under two points is promised
            return []
        left = f" It could win {points(1 - found.reached)} over frozen features at the most."
    if found.strategy == TOTAL:
        return [Alternative(PARTIAL, "Fine-tuning of the last stages takes less time, and less data.")]
    if found.strategy == PARTIAL:
        is_near = found.similarity.verdict == "between" or found.side is None
        return [Alternative(TOTAL, f"{_capital(ROADS[TOTAL])}, is for what is different.")] if is_near else []
    if not found.size.is_small:
        return [Alternative(found.theory, f"{_capital(ROADS[found.theory])}, is what theory says.{left}")]
    if found.side == "different" or found.similarity.verdict == "between":
        why = "is the other road for a small set that is different from the source."
        return [Alternative(PARTIAL, f"{_capital(ROADS[PARTIAL])}, {why}{left}")]
    is_left = found.sweep is not None and (found.reached is None or found.reached < _MUCH_LEFT)
    if is_left and found.size.per_class >= FEW:
        return [Alternative(PARTIAL, f"{_capital(ROADS[PARTIAL])}, may pay: there are images for it.{left}")]
    return []


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
