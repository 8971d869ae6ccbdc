"""Opening a frozen network, naming its layers, and running it up to the deepest one wanted.

Names are resolved when first used: whoever only reads features never loads torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from featx.backbones.names import DEFAULT_MODEL, LOGITS, PENULTIMATE

if TYPE_CHECKING:
    from featx.backbones.catalogue import ModelSummary, find_models
    from featx.backbones.classic_networks import ClassicTable, find_classic_networks, measure_classic_networks
    from featx.backbones.engines import ENGINES, PRECISIONS, Engine, choose_batch_size, open_engine
    from featx.backbones.layers import LayerInfo
    from featx.backbones.opening import Backbone, open_backbone
    from featx.backbones.selection import Selection, Tap, in_execution_order, make_tap
    from featx.backbones.stages import stage_names
    from featx.backbones.taps import Taps
    from featx.backbones.torch_engine import best_device, check_device
    from featx.backbones.transform import TransformSpec
    from featx.backbones.weights import WeightsInfo

_MODULES = {
    "ENGINES": "engines",
    "PRECISIONS": "engines",
    "Backbone": "opening",
    "ClassicTable": "classic_networks",
    "Engine": "engines",
    "LayerInfo": "layers",
    "ModelSummary": "catalogue",
    "Selection": "selection",
    "Tap": "selection",
    "Taps": "taps",
    "TransformSpec": "transform",
    "WeightsInfo": "weights",
    "best_device": "torch_engine",
    "check_device": "torch_engine",
    "choose_batch_size": "engines",
    "find_classic_networks": "classic_networks",
    "find_models": "catalogue",
    "in_execution_order": "selection",
    "make_tap": "selection",
    "measure_classic_networks": "classic_networks",
    "open_backbone": "opening",
    "open_engine": "engines",
    "stage_names": "stages",
}

__all__ = [
    "DEFAULT_MODEL",
    "ENGINES",
    "LOGITS",
    "PENULTIMATE",
    "PRECISIONS",
    "Backbone",
    "ClassicTable",
    "Engine",
    "LayerInfo",
    "ModelSummary",
    "Selection",
    "Tap",
    "Taps",
    "TransformSpec",
    "WeightsInfo",
    "best_device",
    "check_device",
    "choose_batch_size",
    "find_classic_networks",
    "find_models",
    "in_execution_order",
    "make_tap",
    "measure_classic_networks",
    "open_backbone",
    "open_engine",
    "stage_names",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'featx.backbones' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"featx.backbones.{_MODULES[name]}"), name)
    globals()[name] = value
    return value
