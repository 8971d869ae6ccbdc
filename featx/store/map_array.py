"""The spatial maps of one layer, which stay on disk until they are indexed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from featx.store.layout import MapInfo
from featx.store.row_numbers import as_index, is_mask, mask_numbers, wrapped
from featx.store.stored_rows import StoredRows

if TYPE_CHECKING:
    from featx.store.feature_store import FeatureStore


class MapArray(StoredRows):
    """Spatial maps of one layer, shape (n, h, w, c), float16, read where and when they are indexed.

    The first axis is indexed as in numpy: by a number, a slice, a mask or an array of numbers in any order with
    repeats. Only the maps asked for are read, with the few that share a chunk with them. It pickles as the path and
    the layer.

    Parameters
    ----------
    store : FeatureStore
    info : MapInfo
    """

    ndim = 4
    _plural = "Maps"

    def __init__(self, store: FeatureStore, info: MapInfo) -> None:
        super().__init__(store, info)
        self.info = info

    @property
    def layer(self) -> str:
        """Name of the layer."""
        return self.info.layer

    def __repr__(self) -> str:
        return f"MapArray({self.layer!r}, shape={self.shape}, dtype={self.dtype})"

    def __getitem__(self, index: Any) -> Any:
        """Return what ``numpy.asarray(self)[index]`` would for an index of images.

        Raises
        ------
        IndexError
            Out of range, or an index of more than the first axis.
        StoreError
            The file is damaged.
        """
        if isinstance(index, tuple):
            raise IndexError(f"maps on disk are indexed by images only; got the index {index!r}: index what it returns")
        rows = as_index(index)
        if rows is Ellipsis:
            rows = slice(None)
        if isinstance(rows, slice):
            return self._read_slice(rows)
        if is_mask(rows):
            (rows,) = mask_numbers(rows, self.shape[:1])
        rows = wrapped(rows, len(self))
        return self._read(rows.reshape(-1)).reshape(*rows.shape, *self.shape[1:])
