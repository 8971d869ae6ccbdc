"""The one room that joins images, backbones and the store: from pictures to features on disk.

`FeatureExtractor` is resolved when first used: scikit-learn, which it needs, takes a second to load, and most commands
do without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from featx.extraction.computing import ComputeOptions, FeatureComputer
from featx.extraction.extracting import DTYPES, BadImageError, Extraction
from featx.extraction.maps import as_maps, map_shape, map_tap, select_maps
from featx.extraction.reports import ExtractionPlan, ExtractionProgress, ExtractionReport
from featx.extraction.specification import FeatureSpec

if TYPE_CHECKING:
    from featx.extraction.feature_extractor import FeatureExtractor

__all__ = [
    "DTYPES",
    "BadImageError",
    "ComputeOptions",
    "Extraction",
    "ExtractionPlan",
    "ExtractionProgress",
    "ExtractionReport",
    "FeatureComputer",
    "FeatureExtractor",
    "FeatureSpec",
    "as_maps",
    "map_shape",
    "map_tap",
    "select_maps",
]


def __getattr__(name: str) -> Any:
    if name != "FeatureExtractor":
        raise AttributeError(f"module 'featx.extraction' has no attribute {name!r}; public names: {', '.join(__all__)}")
    from featx.extraction.feature_extractor import FeatureExtractor

    return FeatureExtractor
