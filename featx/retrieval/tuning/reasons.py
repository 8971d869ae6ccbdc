"""Why a tuning ended as it did, in words."""

from __future__ import annotations

from collections.abc import Sequence

from featx.retrieval.tuning.trials import Trial
from featx.retrieval.tuning.wishes import RecallWish


def why_flat(trials: Sequence[Trial], best: Trial | None, flat: Trial) -> str:
    """Return why exact search was chosen over the best structure, if there is one."""
    if best is None:
        return "exact search: nothing else that was tried meets the wish" if len(trials) > 1 else "exact search"
    ratio = best.queries_per_second_all / flat.queries_per_second_all
    return (
        f"exact search: the fastest structure that meets the wish, {best.factory}, answers {ratio:.1f} times as many "
        "queries a second, which is not worth what it may miss"
    )


def why_structure(best: Trial, flat: Trial | None) -> str:
    """Return why a structure was chosen."""
    if not best.meets:
        return f"the structure that was asked for, with the parameters that find most: {best.recall:.3f}"
    if flat is None:
        return "the structure that was asked for, with its fastest parameters that meet the wish"
    ratio = best.queries_per_second_all / flat.queries_per_second_all
    return f"the fastest of what meets the wish: {ratio:.1f} times as many queries a second as exact search"


def unreachable(
    wish: RecallWish,
    memory: int | None,
    trials: Sequence[Trial],
    skipped: Sequence[tuple[str, str]],
    shape: tuple[int, int],
    factory: str | None,
) -> str:
    """Return what came nearest to a wish that cannot be met, and what to change."""
    structures = [trial for trial in trials if trial.factory != "Flat"]
    fitting = [trial for trial in structures if trial.fits]
    if fitting:
        nearest = max(fitting, key=lambda trial: trial.recall)
        found = f"the best that was found is {nearest.recall:.4f} by {nearest.factory} ({nearest.parameters})"
    elif structures:
        least = min(structures, key=lambda trial: trial.bytes_per_vector)
        found = f"the smallest that was built, {least.factory}, takes {_megabytes(least.bytes_per_vector * shape[0])}"
    elif not skipped:
        found = "so few vectors are only searched exactly"
    else:
        found = "nothing could be tried: " + "; ".join(f"{name}: {why}" for name, why in skipped[:3])
        found += f"; and {len(skipped) - 3} more" if len(skipped) > 3 else ""
    bound = "" if memory is None else f" in {_megabytes(memory)}"
    advice = f"Wish for less, or allow more memory (exact search needs {_megabytes(4 * shape[0] * shape[1])})"
    advice += ", or leave the factory out" if factory else ""
    return f"a recall of {wish} was wished for{bound}; {found}. {advice}."


def _megabytes(n_bytes: float) -> str:
    return f"{n_bytes / 1e6:.3g} MB" if n_bytes < 1e8 else f"{n_bytes / 1e6:.0f} MB"
