"""Features of images in one HDF5 file: the format, segments, merging, verification and lazy reading.

The format itself is written down in `featx.store.layout`. This room knows arrays and names, nothing of images or
networks: the fingerprint and the digests are made elsewhere and only carried and compared here.
"""

from featx.store.feature_array import FeatureArray
from featx.store.feature_store import FeatureStore
from featx.store.fingerprint import COMPARED_FIELDS, check_same, differences
from featx.store.layout import FORMAT_VERSION, FeatureInfo, ImageTable, MapInfo, RowBlock, RowInfo, StoredReducer
from featx.store.map_array import MapArray
from featx.store.merging import merge
from featx.store.reducer_arrays import reducer_digest
from featx.store.rewriting import NewFeatures, rewrite
from featx.store.row_source import RowSource, as_row_source
from featx.store.segments import open_segments, write_segment
from featx.store.verification import verify

__all__ = [
    "COMPARED_FIELDS",
    "FORMAT_VERSION",
    "FeatureArray",
    "FeatureInfo",
    "FeatureStore",
    "ImageTable",
    "MapArray",
    "MapInfo",
    "NewFeatures",
    "RowBlock",
    "RowInfo",
    "RowSource",
    "StoredReducer",
    "as_row_source",
    "check_same",
    "differences",
    "merge",
    "open_segments",
    "reducer_digest",
    "rewrite",
    "verify",
    "write_segment",
]
