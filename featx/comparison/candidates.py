"""What is compared: a layer (or several), a scaler, a reducer and a head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, order=True)
class Candidate:
    """One way from features to classes.

    Parameters
    ----------
    layer : str
        Name of the features; several, whose columns are put side by side, are joined by ``+``.
    scale, reduce : str
        As in `featx.reducers`.
    head : str
        A key of `featx.heads.HEADS`.
    """

    layer: str
    scale: str
    reduce: str
    head: str

    @property
    def layers(self) -> tuple[str, ...]:
        """The features that it takes, one name each."""
        return tuple(self.layer.split("+"))


@dataclass(frozen=True)
class FoldScore:
    """How a candidate did on one fold, learned on its training rows with everything fitted there.

    Parameters
    ----------
    accuracy, balanced_accuracy, macro_f1 : float
        On the fold's test rows.
    n_train, n_test : int
        Rows learned from and scored on.
    fit_seconds : float
        Time of one fit with the chosen hyper-parameters: scaler, reducer and head.
    predict_seconds : float
        Time of scaling, reducing and naming all test rows.
    params : dict
        The hyper-parameters that inner folds chose.
    notes : tuple of str
        What was lowered, or did not converge.
    """

    accuracy: float
    balanced_accuracy: float
    macro_f1: float
    n_train: int
    n_test: int
    fit_seconds: float
    predict_seconds: float
    params: dict[str, Any]
    notes: tuple[str, ...] = ()
