"""How the score of a classifier is shown on a terminal: its classes, and what it takes for what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from featx.commands.tables import format_table

if TYPE_CHECKING:
    from featx.heads import Evaluation

_MAX_CONFUSION = 15  # classes; a wider matrix does not fit a terminal


def class_table(evaluation: Evaluation) -> str:
    """Return precision, recall, F1 and number of rows of each class."""
    rows: list[tuple[Any, ...]] = [
        (score.name, f"{score.precision:.3f}", f"{score.recall:.3f}", f"{score.f1:.3f}", score.support)
        for score in evaluation.per_class
    ]
    return format_table(("class", "precision", "recall", "F1", "rows"), rows)


def confusion_table(evaluation: Evaluation) -> str:
    """Return the confusion matrix or, for many classes, its largest errors."""
    names = [score.name for score in evaluation.per_class]
    matrix = evaluation.confusion
    if len(names) <= _MAX_CONFUSION:
        header = ("true \\ predicted", *(name[:12] for name in names))
        return format_table(header, [(name, *row) for name, row in zip(names, matrix.tolist(), strict=True)])
    errors = sorted(
        ((int(count), names[true], names[predicted]) for (true, predicted), count in _off_diagonal(matrix)),
        reverse=True,
    )
    rows = [(true, predicted, count) for count, true, predicted in errors[:10]]
    return format_table(("most confused: true", "predicted", "rows"), rows, left=(0, 1)) if rows else "no errors"


def _off_diagonal(matrix: Any) -> list[tuple[tuple[int, int], int]]:
    rows, columns = matrix.nonzero()
    return [((r, c), matrix[r, c]) for r, c in zip(rows.tolist(), columns.tolist(), strict=True) if r != c]
