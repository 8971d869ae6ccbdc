"""The fastest structure that meets a wish for recall and memory."""

from featx.retrieval.tuning.trials import Trial, Tuning
from featx.retrieval.tuning.tune import tune
from featx.retrieval.tuning.wishes import RecallWish, parse_bytes, parse_recall

__all__ = ["RecallWish", "Trial", "Tuning", "parse_bytes", "parse_recall", "tune"]
