"""How good a classifier is on images with known classes, and what test-time augmentation does to that."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.errors import HeadError, SourceError, UsageError
from featx.extraction import ExtractionProgress
from featx.heads import Evaluation, evaluate_predictions
from featx.images import SPLIT_NAMES, TEST, VAL
from featx.workflows.paired_gains import PairedGain, paired_gain
from featx.workflows.predicting import check_combination, rank_classes, score_views

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from featx.bundle import Bundle
    from featx.extraction import ComputeOptions
    from featx.images import ImageEntry, ImageListing

ALL = "all"
SPLIT_CHOICES = ("test", "val", "train", ALL)
_MAX_NAMED = 10  # classes in a message


@dataclass(frozen=True)
class SourceEvaluation:
    """The score of a classifier on the labelled images of a source.

    Attributes
    ----------
    source : str
        Where the images are.
    split : {"test", "val", "train", "all"}
        Which of them were scored.
    evaluation : Evaluation
        The score.
    tta, combine
        Views an image, and how they were combined.
    plain : Evaluation or None
        The score on the network's own view alone; None where that is what `evaluation` is.
    gain : PairedGain or None
        From `plain` to `evaluation`.
    n_unlabelled : int
        Images of the split without a class, which were not read.
    unknown : tuple of (str, int)
        Classes that the classifier does not know, and how many images they have: left out of the score.
    failures : tuple of (str, str)
        Path and reason of every image that could not be read: left out as well.
    notes : tuple of str
        What the reader of the score has to know.
    seconds : float
        Time taken.
    """

    source: str
    split: str
    evaluation: Evaluation
    tta: int
    combine: str
    plain: Evaluation | None
    gain: PairedGain | None
    n_unlabelled: int
    unknown: tuple[tuple[str, int], ...]
    failures: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return the evaluation as JSON-able values."""
        return {
            "source": self.source,
            "split": self.split,
            "evaluation": self.evaluation.to_json(),
            "tta": self.tta,
            "combine": self.combine,
            "plain": self.plain and self.plain.to_json(),
            "gain": self.gain and self.gain.to_json(),
            "unlabelled": self.n_unlabelled,
            "unknown": dict(self.unknown),
            "failures": [{"path": path, "reason": reason} for path, reason in self.failures],
            "notes": list(self.notes),
            "seconds": round(self.seconds, 3),
        }


@dataclass(frozen=True)
class _Rows:
    """The images to score."""

    split: str
    entries: tuple[ImageEntry, ...]
    labels: tuple[int, ...]  # classes of the classifier
    n_unlabelled: int
    unknown: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class _Answers:
    """What the classifier said, image after image of those that could be read."""

    truth: list[int] = field(default_factory=list)
    combined: list[int] = field(default_factory=list)
    plain: list[int] = field(default_factory=list)
    failures: list[tuple[str, str]] = field(default_factory=list)


def evaluate_source(
    bundle: Bundle,
    listing: ImageListing,
    options: ComputeOptions | None = None,
    *,
    weights: str | None = None,
    split: str | None = None,
    tta: int = 1,
    combine: str = "mean",
    progress: Callable[[ExtractionProgress], None] | None = None,
) -> SourceEvaluation:
    """Return how good a classifier is on the labelled images of a source.

    Classes are matched by name. Images of classes that the classifier does not know are left out and counted, for no
    answer of it could be right; images of a class that it knows by name but never learned are errors.

    Parameters
    ----------
    bundle : Bundle
        The classifier.
    listing : ImageListing
        Images with labels.
    options : ComputeOptions, optional
        How to run the network.
    weights : str, optional
        A file of weights, where the one used for fitting has moved.
    split : {"test", "val", "train", "all"}, optional
        Which images; by default those of the test split, else of the val split, else all.
    tta : int
        Views an image, see `predict_images`. With more than one, the score without them and the gain come too; each
        image is read once for both.
    combine : {"mean", "vote"}
        See `featx.workflows.predicting.rank_classes`.
    progress : callable, optional
        Told after every image where the work stands.

    Raises
    ------
    UsageError
        There are no such views or no such split.
    SourceError
        No image to score has a label, or none of them can be read.
    HeadError
        The classifier knows none of the classes.
    WeightsNotFoundError, FingerprintMismatchError
        As in `predict_images`.
    """
    started = time.perf_counter()
    check_combination(tta, combine)
    rows = _choose_rows(listing, bundle.class_names, split)
    answers = _ask(bundle, rows, options, weights, tta, combine, progress)
    if not answers.truth:
        path, reason = answers.failures[0]
        raise SourceError(
            f"none of the {len(answers.failures)} labelled images of {listing.source} could be read; the first,"
            f" {path}: {reason}"
        )
    truth = np.array(answers.truth)
    with_views, plain = np.array(answers.combined), np.array(answers.plain)
    return SourceEvaluation(
        source=listing.source,
        split=rows.split,
        evaluation=_evaluate(bundle, truth, with_views, rows.split),
        tta=tta,
        combine=combine,
        plain=_evaluate(bundle, truth, plain, rows.split) if tta > 1 else None,
        gain=paired_gain(truth == plain, truth == with_views) if tta > 1 else None,
        n_unlabelled=rows.n_unlabelled,
        unknown=rows.unknown,
        failures=tuple(answers.failures),
        notes=_notes(bundle, listing, rows, len(answers.failures)),
        seconds=time.perf_counter() - started,
    )


def _ask(
    bundle: Bundle,
    rows: _Rows,
    options: ComputeOptions | None,
    weights: str | None,
    tta: int,
    combine: str,
    progress: Callable[[ExtractionProgress], None] | None,
) -> _Answers:
    answers = _Answers()
    for index, scores in enumerate(score_views(bundle, rows.entries, options, weights=weights, tta=tta)):
        if scores.probabilities is None:
            answers.failures.append((scores.path, scores.reason))
        else:
            answers.truth.append(rows.labels[index])
            answers.combined.append(int(rank_classes(scores.probabilities, combine)[0][0]))
            answers.plain.append(int(rank_classes(scores.probabilities[:1])[0][0]))
        if progress is not None:
            progress(ExtractionProgress(index + 1, len(rows.entries), len(answers.truth)))
    return answers


def _choose_rows(listing: ImageListing, class_names: Sequence[str], split: str | None) -> _Rows:
    chosen = _choose_split(listing, split)
    entries = _entries_of(listing, chosen)
    labelled = [entry for entry in entries if entry.label >= 0]
    if not labelled:
        raise SourceError(
            f"none of the {len(entries)} images of {listing.source} ({_in_words(chosen)}) has a label to score against;"
            " put the images of each class in a folder of its own, or give a CSV with a label column"
        )
    index = {name: label for label, name in enumerate(class_names)}
    named = [(entry, listing.class_names[entry.label]) for entry in labelled]
    unknown = Counter(name for _, name in named if name not in index)
    known = [(entry, index[name]) for entry, name in named if name in index]
    if not known:
        raise HeadError(
            f"the classifier knows none of the classes of {listing.source}: it knows {_listed(class_names)}, found"
            f" were {_listed(sorted(unknown))}; call the class folders, or labels, as the classifier does"
        )
    kept, labels = zip(*known, strict=True)
    return _Rows(chosen, kept, labels, len(entries) - len(labelled), tuple(sorted(unknown.items())))


def _choose_split(listing: ImageListing, split: str | None) -> str:
    """Return the name of the images to score: the split asked for, else the one that ``fit-*`` would score on."""
    if split is not None and split not in SPLIT_CHOICES:
        raise UsageError(f"split {split!r} is unknown; use one of {', '.join(SPLIT_CHOICES)}")
    if split is None:
        labelled = {entry.split for entry in listing.entries if entry.label >= 0}
        return "test" if TEST in labelled else "val" if VAL in labelled else ALL
    if not _entries_of(listing, split):
        counts = Counter(SPLIT_NAMES[entry.split] for entry in listing.entries if entry.split >= 0)
        found = ", ".join(f"{name} ({n_images})" for name, n_images in counts.items()) or "no splits at all"
        raise UsageError(f"{listing.source} has no {split} split; found: {found}; name another, or all")
    return split


def _entries_of(listing: ImageListing, split: str) -> list[ImageEntry]:
    return [entry for entry in listing.entries if split == ALL or entry.split == SPLIT_NAMES.index(split)]


def _in_words(split: str) -> str:
    return "all images" if split == ALL else f"{split} split"


def _evaluate(bundle: Bundle, truth: np.ndarray, answers: np.ndarray, split: str) -> Evaluation:
    """Return the score; the baseline is the class that the card says was the largest in training."""
    name = _scored_at_fit(bundle).get("majority_class")
    majority = bundle.class_names.index(name) if name in bundle.class_names else None
    return evaluate_predictions(truth, answers, class_names=bundle.class_names, on=_in_words(split), majority=majority)


def _notes(bundle: Bundle, listing: ImageListing, rows: _Rows, n_failed: int) -> tuple[str, ...]:
    notes = []
    if rows.unknown:
        n_images = sum(count for _, count in rows.unknown)
        names = _listed([f"{name} ({count})" for name, count in rows.unknown])
        notes.append(f"left out for a class that the classifier does not know: {_images(n_images)}, {names}")
    if rows.n_unlabelled:
        notes.append(f"left out without a label: {_images(rows.n_unlabelled)}")
    if n_failed:
        notes.append(f"left out because they cannot be read: {_images(n_failed)}")
    if _has_learned_from(bundle, listing, rows.split):
        notes.append(
            "the classifier was fitted on images of this very source, and these include some of them: this score"
            " flatters it; featx info shows the score on images that it had never seen"
        )
    return tuple(notes)


def _has_learned_from(bundle: Bundle, listing: ImageListing, split: str) -> bool:
    """Return whether the classifier is known to have learned from some of the images that are scored."""
    if bundle.card.get("source") != listing.source:
        return False  # which images it learned from is not kept
    refitted = bool(bundle.card.get("rows_scored_were_learned_from_afterwards"))
    return refitted or _scored_at_fit(bundle).get("on") != _in_words(split)


def _scored_at_fit(bundle: Bundle) -> dict[str, Any]:
    """Return what the card says about the score at fitting, empty where it says nothing; it comes from a file."""
    scored = bundle.card.get("evaluation")
    return scored if isinstance(scored, dict) else {}


def _images(number: int) -> str:
    return f"{number} image{'' if number == 1 else 's'}"


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_MAX_NAMED])
    return shown + (f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else "")
