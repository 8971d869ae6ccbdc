"""The one room that joins images, backbones and the store: from pictures to features on disk."""

from featx.extraction.computing import ComputeOptions, FeatureComputer
from featx.extraction.extracting import DTYPES, BadImageError, Extraction
from featx.extraction.feature_extractor import FeatureExtractor
from featx.extraction.reports import ExtractionPlan, ExtractionProgress, ExtractionReport
from featx.extraction.specification import FeatureSpec

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
]
