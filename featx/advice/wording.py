"""The evidence in sentences, with its numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from featx.advice.size import SMALL, SetSize
from featx.comparison.selecting import NEAR_TIE

if TYPE_CHECKING:
    from featx.advice.evidence import LayerSweep
    from featx.advice.similarity import Similarity

ROADS = {
    "late-linear": "a linear head on late features",
    "early-linear": "a linear head on earlier features",
    "partial": "fine-tuning of the last stages, with augmentation",
    "total": "fine-tuning of the whole network, from its pretrained weights",
}


def percent(share: float) -> str:
    """Return an accuracy such as ``97.3 %``."""
    return f"{100 * share:.1f} %"


def points(share: float) -> str:
    """Return a difference of accuracies such as ``2.1 points``."""
    shown = f"{100 * share:.1f}"
    return f"{shown} point{'' if shown == '1.0' else 's'}"


def right_on(accuracy: float, *, is_balanced: bool = False) -> str:
    """Return what a layer does: ``is right on 97.3 %``, or ``has a balanced accuracy of 97.3 %``."""
    return f"{'has a balanced accuracy of' if is_balanced else 'is right on'} {percent(accuracy)}"


def counted(number: float, what: str) -> str:
    """Return a number and what it counts, such as ``1 image``, ``1,200 images``."""
    return f"{number:,.0f} {what}{'' if round(number) == 1 else 's'}"


def median_in_words(size: SetSize) -> str:
    """Return the median of images a class, and which one it is where there could be two."""
    return f"the {'lower ' if size.has_lower_median else ''}median {size.per_class:,.0f}"


def layer_in_words(layer: str) -> str:
    """Return the name of a layer without the usual pooling; of several side by side, the first and the last."""
    names = [name.removesuffix("@avg") for name in layer.split("+")]
    if len(names) == 1:
        return names[0]
    between = " and " if len(names) == 2 else " to "
    return f"{names[0]}{between}{names[-1]} side by side"


def describe_size(size: SetSize) -> str:
    """Return how many images a class has, and whether that is small."""
    if not size.classes or size.smallest is None or size.largest is None:
        said = f"small: not even two classes could have {SMALL:,} each" if size.is_small else (
            f"large if the classes are few: with more than {size.n_images // SMALL} it is small"
        )  # fmt: skip
        return f"Size: {counted(size.n_images, 'image')} without labels, {said}."
    copied = "1 copy" if size.n_copies == 1 else f"{size.n_copies:,} copies"
    copies = f" ({copied} of another image not counted)" if size.n_copies else ""
    verdict = f"small, for it is under {SMALL:,} a class" if size.is_small else f"large, {SMALL:,} a class or more"
    if len(size.classes) == 1:
        return f"Size: 1 class of {counted(size.per_class, 'image')}{copies}: {verdict}."
    counts = (
        f"{counted(size.per_class, 'image')} each"
        if size.smallest[1] == size.largest[1]
        else f"{size.smallest[1]:,} to {size.largest[1]:,} images, {median_in_words(size)}"
    )
    return f"Size: {len(size.classes):,} classes, {counts}{copies}: {verdict}."


def describe_similarity(similarity: Similarity, side: str | None, *, by_layers: bool) -> str:
    """Return how similar the images are to the network's own, and to which side that was counted.

    Parameters
    ----------
    similarity : Similarity
        As measured.
    side : str or None
        "similar", "different", or None where nothing says which.
    by_layers : bool
        Whether there is evidence by layer, which stands in where the similarity is not known.
    """
    if similarity.value is None:
        instead = {
            True: f" The layers stand in for it: as {'late' if side == 'similar' else 'earlier'} ones do best, the set"
            f" counts as {side}.",
            False: " Nothing stands in for it.",
        }[by_layers]
        return f"Similarity could not be measured: {similarity.reason}.{instead}"
    interval = ""
    if similarity.interval is not None:
        interval = f" (95 % interval {similarity.interval[0]:.2f} to {similarity.interval[1]:.2f})"
    verdict = f"between similar and different, nearer to {side}" if similarity.verdict == "between" else f"{side}"
    reason = similarity.reason[:1].lower() + similarity.reason[1:].rstrip(".")
    return f"Similarity to what the network was trained on: {similarity.value:.2f}{interval}, {verdict}; {reason}."


def describe_layers(sweep: LayerSweep) -> list[str]:
    """Return how the layers did, the last one against the earlier ones and those side by side."""
    latest, earlier, best = sweep.latest, sweep.best_earlier, sweep.best
    of = "one of" if sweep.is_balanced else "on"
    said = [f"{layer_in_words(latest.layer)} {right_on(latest.accuracy, is_balanced=sweep.is_balanced)}"]
    if earlier is not None:
        said.append(f"the best earlier layer, {layer_in_words(earlier.layer)}, {of} {percent(earlier.accuracy)}")
    if best.is_joined:
        said.append(f"{layer_in_words(best.layer)}, the best of all, {of} {percent(best.accuracy)}")
    weighed = ", each class counting the same" if sweep.is_balanced else ""
    sentences = [f"Cross-validated on {counted(sweep.n_rows, 'training image')}{weighed}, {'; '.join(said)}."]
    if earlier is None:
        sentences.append("There is no earlier layer, so that nothing says whether one would be better.")
    elif sweep.learned:
        sentences += _log_me_astray(sweep)
    if not sweep.learned:
        sentences.append(_nothing_learned(sweep))
    return sentences


def _log_me_astray(sweep: LayerSweep) -> list[str]:
    """Return that LogME speaks for a layer that accuracy does not speak for, where it does so."""
    single = [entry for entry in sweep.layers if not entry.is_joined]
    favoured, best = (max(single, key=key) for key in (lambda entry: entry.log_me, lambda entry: entry.accuracy))
    if favoured.accuracy + NEAR_TIE >= best.accuracy:
        return []
    measure = "balanced accuracy" if sweep.is_balanced else "accuracy"
    wide = "it favours wide layers, and " if favoured.width > best.width else ""
    return [
        f"LogME speaks for {layer_in_words(favoured.layer)}, which is {points(favoured.behind)} behind the best:"
        f" {wide}{measure} is what counts."
    ]


def _nothing_learned(sweep: LayerSweep) -> str:
    level = percent(sweep.majority_accuracy)
    better = (
        f"No layer has a better balanced accuracy than always naming one class ({level})"
        if sweep.is_balanced
        else f"No layer is better than always naming the largest class ({level})"
    )
    return (
        f"{better} by more than luck: the order of layers means nothing, and frozen features may not suit these classes"
        " at all."
    )


def describe_lead(sweep: LayerSweep) -> str:
    """Return whether earlier layers are ahead of the last one, and how sure that is."""
    behind, (low, high) = sweep.latest.behind, sweep.latest.behind_interval
    if sweep.lead <= 0:
        return "no earlier layer is ahead of the last one"
    if not sweep.is_behind:
        return f"the last layer is {points(sweep.lead)} behind the best, which counts as a tie"
    verb = "are" if sweep.preferred.is_joined else "is"
    luck = "" if sweep.is_surely_behind else ": it may be luck"
    return (
        f"{layer_in_words(sweep.preferred.layer)} {verb} ahead of the last layer, which is {points(behind)} behind the"
        f" best (95 % interval {100 * low:.1f} to {100 * high:.1f}{luck})"
    )
