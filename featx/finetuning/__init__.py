"""The three training regimes: a new head, the last stages, or everything.

``settings`` says how, ``trained_parts`` what, ``network`` puts a new head on a pretrained network, ``rows`` and
``augmentation`` feed it, ``weighing`` says what each image counts, ``optimising`` and ``training`` train it, in a
way that can be interrupted and continued. Nothing here writes a file. Names are resolved when first used, because torch
takes seconds to load.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from featx.finetuning.history import EpochRecord
from featx.finetuning.settings import AUGMENTATIONS, HEADS, OPTIMIZERS, REGIMES, SCHEDULES, TuningSettings

if TYPE_CHECKING:
    from featx.finetuning.forgetting import linear_cka
    from featx.finetuning.network import SoftmaxHead, TunableNetwork, make_head
    from featx.finetuning.overfit_check import OverfitCheck, learns_by_heart
    from featx.finetuning.rows import FeatureRows, PictureRows
    from featx.finetuning.trained_parts import classifier_modules, trained_modules
    from featx.finetuning.training import Training
    from featx.finetuning.weighing import class_weights

_MODULES = {
    "FeatureRows": "rows",
    "OverfitCheck": "overfit_check",
    "PictureRows": "rows",
    "SoftmaxHead": "network",
    "Training": "training",
    "TunableNetwork": "network",
    "class_weights": "weighing",
    "classifier_modules": "trained_parts",
    "learns_by_heart": "overfit_check",
    "linear_cka": "forgetting",
    "make_head": "network",
    "trained_modules": "trained_parts",
}

__all__ = [
    "AUGMENTATIONS",
    "HEADS",
    "OPTIMIZERS",
    "REGIMES",
    "SCHEDULES",
    "EpochRecord",
    "FeatureRows",
    "OverfitCheck",
    "PictureRows",
    "SoftmaxHead",
    "Training",
    "TunableNetwork",
    "TuningSettings",
    "class_weights",
    "classifier_modules",
    "learns_by_heart",
    "linear_cka",
    "make_head",
    "trained_modules",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'featx.finetuning' has no attribute {name!r}; public names: {', '.join(__all__)}")
    value = getattr(importlib.import_module(f"featx.finetuning.{_MODULES[name]}"), name)
    globals()[name] = value
    return value
