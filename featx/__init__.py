"""featx: frozen vision networks as a feature factory.

Public names are resolved when first used, so that ``import featx`` loads neither torch nor faiss.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from featx.backbones import TransformSpec, open_backbone
    from featx.bundle import Bundle, load_bundle
    from featx.errors import FeatxError
    from featx.extraction import FeatureExtractor
    from featx.images import list_images
    from featx.reducers import ProductQuantizer, StreamingPCA
    from featx.retrieval import ImageIndex
    from featx.store import FeatureStore
    from featx.workflows.comparing import compare

__version__ = "0.1.0"

_ROOMS = {
    "Bundle": "featx.bundle",
    "FeatureExtractor": "featx.extraction",
    "FeatureStore": "featx.store",
    "FeatxError": "featx.errors",
    "ImageIndex": "featx.retrieval",
    "ProductQuantizer": "featx.reducers",
    "StreamingPCA": "featx.reducers",
    "TransformSpec": "featx.backbones",
    "compare": "featx.workflows.comparing",
    "list_images": "featx.images",
    "load_bundle": "featx.bundle",
    "open_backbone": "featx.backbones",
}

__all__ = [
    "Bundle",
    "FeatureExtractor",
    "FeatureStore",
    "FeatxError",
    "ImageIndex",
    "ProductQuantizer",
    "StreamingPCA",
    "TransformSpec",
    "compare",
    "list_images",
    "load_bundle",
    "open_backbone",
]


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module 'featx' has no attribute {name!r}; public names: {', '.join(__all__)}")
    value = getattr(importlib.import_module(_ROOMS[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
