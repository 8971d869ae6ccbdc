"""The honest comparison: every layer, scaler, reducer and head on the same folds, and what may be said about them.

``candidates`` says what is compared, ``budgets`` how much of it, and ``costs`` what it costs. ``running`` measures and
``journal`` remembers. ``statistics`` says what fold scores allow to say, ``results`` ranks, ``reports`` writes CSV,
JSON and Markdown, and ``plots`` draws. ``selecting`` chooses a layer for one head.
"""

from featx.comparison.budgets import BUDGETS, Budget, budget_named, chosen_ways, joined_layers, make_candidates
from featx.comparison.candidates import Candidate, FoldScore
from featx.comparison.costs import LayerCost
from featx.comparison.journal import Journal
from featx.comparison.plots import plot_by_bytes, plot_by_depth, save_plots
from featx.comparison.reports import describe_candidate
from featx.comparison.results import BASELINE, CandidateResult, Comparison, Cost, rank_candidates
from featx.comparison.running import ComparisonProgress, ComparisonSettings, compare_candidates
from featx.comparison.selecting import LayerChoice, LayerScore, select_layer
from featx.comparison.statistics import PairedTest, accuracy_interval, corrected_interval, corrected_test, holm

__all__ = [
    "BASELINE",
    "BUDGETS",
    "Budget",
    "Candidate",
    "CandidateResult",
    "Comparison",
    "ComparisonProgress",
    "ComparisonSettings",
    "Cost",
    "FoldScore",
    "Journal",
    "LayerChoice",
    "LayerCost",
    "LayerScore",
    "PairedTest",
    "accuracy_interval",
    "budget_named",
    "chosen_ways",
    "compare_candidates",
    "corrected_interval",
    "corrected_test",
    "describe_candidate",
    "holm",
    "joined_layers",
    "make_candidates",
    "plot_by_bytes",
    "plot_by_depth",
    "rank_candidates",
    "save_plots",
    "select_layer",
]
