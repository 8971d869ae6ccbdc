"""Opening a frozen network, naming its layers, and running it up to the deepest one wanted."""

from featx.backbones.catalogue import ModelSummary, find_models
from featx.backbones.engines import ENGINES, PRECISIONS, Engine, choose_batch_size, open_engine
from featx.backbones.layers import LOGITS, PENULTIMATE, LayerInfo
from featx.backbones.opening import DEFAULT_MODEL, Backbone, open_backbone
from featx.backbones.selection import Selection, Tap, make_tap
from featx.backbones.stages import stage_names
from featx.backbones.taps import Taps
from featx.backbones.torch_engine import best_device
from featx.backbones.transform import TransformSpec
from featx.backbones.weights import WeightsInfo

__all__ = [
    "DEFAULT_MODEL",
    "ENGINES",
    "LOGITS",
    "PENULTIMATE",
    "PRECISIONS",
    "Backbone",
    "Engine",
    "LayerInfo",
    "ModelSummary",
    "Selection",
    "Tap",
    "Taps",
    "TransformSpec",
    "WeightsInfo",
    "best_device",
    "choose_batch_size",
    "find_models",
    "make_tap",
    "open_backbone",
    "open_engine",
    "stage_names",
]
