"""What may go wrong on a road, for a set of this size."""

from __future__ import annotations

from typing import TYPE_CHECKING

from featx.advice.size import FEW, SetSize
from featx.advice.wording import counted

if TYPE_CHECKING:
    from collections.abc import Collection

    from featx.advice.evidence import LayerEvidence

_FINE_TUNING = ("partial", "total")


def describe_risks(
    size: SetSize, strategies: Collection[str], taken: LayerEvidence | None = None, n_rows: int = 0
) -> tuple[str, ...]:
    """Return the risks of some roads, a sentence or two each.

    Parameters
    ----------
    size : SetSize
        Of the set.
    strategies : collection of str
        The road advised, and others that are named beside it.
    taken : LayerEvidence, optional
        What a linear head would stand on.
    n_rows : int
        Images that a head would learn from.
    """
    tunes = any(strategy in _FINE_TUNING for strategy in strategies)
    return tuple(
        risk
        for risk in (
            *_few_images(size, tunes),
            *_overfitting(size, tunes, taken, n_rows),
            *_lost_knowledge(tunes),
            *_imbalance(size),
            *_copies(size),
        )
        if risk
    )


def _few_images(size: SetSize, tunes: bool) -> list[str]:
    if not size.classes or size.per_class >= FEW:
        return []
    where = "compare it with frozen features" if tunes else "keep to frozen features"
    median = "lower of the two median classes" if size.has_lower_median else "median class"
    return [
        f"Fine-tuning may not converge: the {median} has {counted(size.per_class, 'image')}, fewer than {FEW}; {where}."
    ]


def _overfitting(size: SetSize, tunes: bool, taken: LayerEvidence | None, n_rows: int) -> list[str]:
    said = []
    if taken is not None and taken.width > n_rows:
        said.append(f"a head on {taken.width:,} columns can learn fewer images than that ({n_rows:,} here) by heart")
    if tunes and size.is_small:
        said.append("a fine-tuned network can learn a small set by heart; augmentation and early stopping help")
    if not said:
        return []
    return [f"Overfitting: {'; '.join(said)}. Believe only the score on images never seen."]


def _lost_knowledge(tunes: bool) -> list[str]:
    if not tunes:
        return []
    return [
        "Lost knowledge: a high learning rate overwrites what the network knew. Keep that of its own layers at 1e-4 or"
        " less (Adam), the early ones lowest, as featx finetune does unless told otherwise."
    ]


def _imbalance(size: SetSize) -> list[str]:
    if not size.is_uneven or size.imbalance is None or size.smallest is None or size.largest is None:
        return []
    return [
        f"Imbalance: {size.largest[0]!r} has {size.imbalance:,.0f} times the images of {size.smallest[0]!r}"
        f" ({size.largest[1]:,} to {size.smallest[1]:,}). Learn with --balanced, and read balanced accuracy."
    ]


def _copies(size: SetSize) -> list[str]:
    if not size.n_copies:
        return []
    verb = "repeats" if size.n_copies == 1 else "repeat"
    return [
        f"Duplicates: {size.n_copies:,} of {size.n_labelled:,} labelled images {verb} another one. On both sides of a"
        " split copies flatter every score; featx keeps them on one side, other tools do not."
    ]
