"""What was measured of layers on the same folds, and which of them that speaks for."""

from __future__ import annotations

from dataclasses import dataclass

from featx.comparison.selecting import NEAR_TIE


@dataclass(frozen=True)
class LayerEvidence:
    """What was measured of a layer, or of several side by side.

    Attributes
    ----------
    layer : str
        Its key; several are joined by ``+``.
    depth : float or None
        From 0 to 1, of the deepest; None where it is not known.
    width : int
        Columns.
    accuracy : float
        Of a ridge classifier, mean over the folds, its penalty chosen inside them; balanced accuracy where the sweep
        is balanced.
    interval : tuple of float
        95 % interval of it.
    behind : float
        Accuracy of the best less this one.
    behind_interval : tuple of float
        95 % interval of that, from the same folds.
    log_me : float
        See `featx.advice.transferability`.
    h_score : float or None
        As well; None where its shrunk covariance leaves nothing of it, as on whitened features.
    """

    layer: str
    depth: float | None
    width: int
    accuracy: float
    interval: tuple[float, float]
    behind: float
    behind_interval: tuple[float, float]
    log_me: float
    h_score: float | None

    @property
    def is_joined(self) -> bool:
        """Whether several layers stand side by side."""
        return "+" in self.layer


@dataclass(frozen=True)
class LayerSweep:
    """All layers, measured on the same folds.

    Attributes
    ----------
    layers : tuple of LayerEvidence
        From the shallowest to the deepest, then those side by side.
    late : str
        The last layer, that the others are earlier than.
    majority_accuracy : float
        Of always naming the largest class, in the measure of the layers.
    learned : bool
        Whether the best is above that by more than luck.
    n_rows, n_folds, n_repeats : int
        Rows that took part, parts that they were divided into, and how often.
    notes : tuple of str
        What was lowered or left out.
    is_balanced : bool
        Whether classes were weighed, and accuracies are means over classes.
    n_training_rows : int
        Rows that a classifier would learn from, of which no more than `n_rows` took part.
    """

    layers: tuple[LayerEvidence, ...]
    late: str
    majority_accuracy: float
    learned: bool
    n_rows: int
    n_folds: int
    n_repeats: int
    notes: tuple[str, ...] = ()
    is_balanced: bool = False
    n_training_rows: int = 0

    @property
    def best(self) -> LayerEvidence:
        """The highest accuracy; of equal ones the first."""
        return max(self.layers, key=lambda entry: entry.accuracy)

    @property
    def latest(self) -> LayerEvidence:
        """The evidence of the last layer."""
        return next(entry for entry in self.layers if entry.layer == self.late)

    @property
    def best_earlier(self) -> LayerEvidence | None:
        """The best single layer before the last one; None where there is none."""
        earlier = [entry for entry in self.layers if self._is_earlier(entry)]
        return max(earlier, key=lambda entry: entry.accuracy, default=None)

    @property
    def lead(self) -> float:
        """Accuracy of the best of earlier layers, and of those side by side, less that of the last; 0 for none."""
        return max(self.latest.behind - self._least_behind, 0.0)

    @property
    def is_behind(self) -> bool:
        """Whether the last layer is no tie with the best: a point behind it, or more."""
        return self.lead >= NEAR_TIE

    @property
    def is_surely_behind(self) -> bool:
        """Whether it is so by more than luck: the interval of how far does not reach 0."""
        return self.is_behind and self.latest.behind_interval[0] > 0

    @property
    def preferred(self) -> LayerEvidence:
        """The one to take, by the rule of ``--layer auto``.

        Of those that are behind the best by less than a point, the last layer; where it is not among them, the last
        of them in the order of `layers`. Another pool of the last layer, or what is computed beside it, does not count.
        """
        near = [entry for entry in self._rivals if entry.behind - self._least_behind < NEAR_TIE]
        return next((entry for entry in near if entry.layer == self.late), near[-1])

    @property
    def _rivals(self) -> list[LayerEvidence]:
        return [entry for entry in self.layers if entry is self.latest or entry.is_joined or self._is_earlier(entry)]

    @property
    def _least_behind(self) -> float:
        return min(entry.behind for entry in self._rivals)

    def _is_earlier(self, entry: LayerEvidence) -> bool:
        if entry.is_joined or entry.layer == self.late:
            return False
        last = self.latest.depth
        return last is None or entry.depth is None or entry.depth < last
