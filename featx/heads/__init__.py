"""Classifiers on features: name → scikit-learn pipeline with a small grid, fitted, scored, and kept safely.

``table`` lists the heads, ``splitting`` says which rows are learned from and which scored on, ``fitting`` fits with
hyper-parameters that ``searching`` finds on ``fold_rows``, which share their decomposition;
``softmax`` takes the trained head of a tuned network instead. ``scoring`` scores, ``persistence`` turns a fitted
pipeline into bytes and back, and ``safety`` checks what came back.
"""

from featx.heads.fitting import FittedHead, fit_head
from featx.heads.persistence import dump_head, load_head
from featx.heads.scoring import ClassScore, Evaluation, evaluate_head, evaluate_predictions, wilson_interval
from featx.heads.softmax import softmax_pipeline
from featx.heads.splitting import RowSplit, split_rows
from featx.heads.table import HEADS, ClassWeight, HeadKind

__all__ = [
    "HEADS",
    "ClassScore",
    "ClassWeight",
    "Evaluation",
    "FittedHead",
    "HeadKind",
    "RowSplit",
    "dump_head",
    "evaluate_head",
    "evaluate_predictions",
    "fit_head",
    "load_head",
    "softmax_pipeline",
    "split_rows",
    "wilson_interval",
]
