"""Which road of transfer to take, from what was measured: size, similarity, and evidence by layer.

``size`` counts, ``similarity`` compares images with what a network was trained on, ``evidence`` measures every layer on
the same folds, with the LogME and H-score of ``transferability``. ``layer_sweep`` is what comes of it, by
balanced accuracy in uneven classes (``balanced_scores``). ``decision`` makes an advice of all that, without looking at
anything else; ``wording`` and ``risks`` put it in sentences.
"""

from featx.advice.decision import QUADRANTS, Advice, Alternative, decide
from featx.advice.evidence import measure_layers
from featx.advice.layer_sweep import LayerEvidence, LayerSweep
from featx.advice.similarity import ClassifierEvidence, LayerShift, Similarity, measure_similarity
from featx.advice.size import SetSize, measure_size
from featx.advice.transferability import h_score, log_me

__all__ = [
    "QUADRANTS",
    "Advice",
    "Alternative",
    "ClassifierEvidence",
    "LayerEvidence",
    "LayerShift",
    "LayerSweep",
    "SetSize",
    "Similarity",
    "decide",
    "h_score",
    "log_me",
    "measure_layers",
    "measure_similarity",
    "measure_size",
]
