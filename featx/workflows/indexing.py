"""An index of a store's features, and keeping it in step with the store."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.bundle import read_spec
from featx.errors import RefusedError, StoreError, UsageError
from featx.extraction import FeatureSpec
from featx.images import ImageEntry
from featx.retrieval import ImageIndex
from featx.retrieval.embedding import Embedding
from featx.store import check_same
from featx.workflows.indexed_reducers import reducers_for_index
from featx.workflows.kept_places import KeptPlaces, places_of_rows, places_of_store
from featx.workflows.originals import original_location
from featx.workflows.picture_places import PlaceComputer
from featx.workflows.stored_features import base_fingerprint, decoded, source_width
from featx.workflows.thumbnails import thumbnail_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from featx.extraction import ComputeOptions
    from featx.store import FeatureStore

_ROWS_AT_ONCE = 4096
NO_PLACES = "none"
_SPLITS = (None, "train", "val", "test")  # by number + 1


@dataclass(frozen=True)
class IndexUpdate:
    """What became of the rows of an index.

    Attributes
    ----------
    n_added, n_removed, n_kept : int
    advice : str
        Why the index should be built again; empty where it need not be.
    """

    n_added: int
    n_removed: int
    n_kept: int
    advice: str


def build_index(
    store: FeatureStore,
    layer: str | None = None,
    *,
    thumbnail_size: int = 0,
    allow_random: bool = False,
    layer_weights: Sequence[float] | None = None,
    whiten: int | None = None,
    whiten_power: float = 0.5,
    keep_places: str | None = None,
    compute: ComputeOptions | None = None,
    **options: Any,
) -> ImageIndex:
    """Return an index of some features of a store.

    Parameters
    ----------
    store : FeatureStore
        Where the features are.
    layer : str, optional
        Key, layer or alias, or several joined by ``+``; ``penultimate`` where it is there, else the deepest. Codes of
        a reduced store are decoded; its other reducers go into the index, for the queries.
    thumbnail_size : int
        Longest side in pixels of thumbnails to keep in the index; 0 for none.
    allow_random : bool
        Accept features of untrained weights.
    layer_weights : sequence of float, optional
        What each of several layers counts; all alike by default.
    whiten : int, optional
        Components of a PCA-whitening that is learned on the store.
    whiten_power : float
        Of the standard deviations that components are divided by: 1 is the usual whitening, 0.5 a softer one.
    keep_places : str, optional
        Layer whose map is kept, compressed, for re-ranking (see `featx.workflows.kept_places`): of the original
        pictures as a whole, for which the network runs, or as the store has it where these are gone. ``none`` for no
        layer; by default the map that the store has, if it has one, as it is.
    compute : ComputeOptions, optional
        How the network runs for that.
    **options
        ``augment``, ``recall``, ``memory``, ``factory``, ``seed``, ``folder`` and ``on_step`` of `ImageIndex.build`.

    Raises
    ------
    RefusedError
        The features come from untrained weights.
    UsageError
        A wish cannot be met, or weights do not go with the layers.
    StoreError
        Thumbnails are wanted, and none of the original images is there any more.
    """
    spec = FeatureSpec.of_store(store, layer)
    spec.refuse_random(allowed=allow_random, what="a search over them")
    reduction, arrays = reducers_for_index(store, spec.keys)
    features = JoinedFeatures(store, spec)
    width = sum(source_width(store, key) for key in spec.keys)
    original = FeatureSpec(spec.key, width, base_fingerprint(spec.fingerprint))
    places, place_arrays = _places(store, original, keep_places, compute)
    columns = _columns(store, np.arange(store.rows), thumbnail_size)
    if thumbnail_size and not any(columns["thumbnails"]):
        raise StoreError(f"none of the images of {store.source} is there any more; build the index without thumbnails")
    return ImageIndex.build(
        features,
        **columns,
        fingerprint=dict(store.fingerprint),
        metadata={
            "features": original.to_json(),
            "source": store.source,
            "thumbnail_size": thumbnail_size,
            **reduction,
            **places,
        },
        arrays=arrays | place_arrays,
        embedding=Embedding(features.widths, weights=layer_weights, whiten=whiten, whiten_power=whiten_power),
        **options,
    )


def update_index(index: ImageIndex, store: FeatureStore, compute: ComputeOptions | None = None) -> IndexUpdate:
    """Add what is new in a store to an index, and remove what has gone; labels and splits become the store's.

    Parameters
    ----------
    index : ImageIndex
        From `build_index`; is changed.
    store : FeatureStore
        The same store, later.
    compute : ComputeOptions, optional
        How the network runs where the index keeps places of pictures.

    Raises
    ------
    FingerprintMismatchError
        Its features were made in another way.
    RefusedError
        It is a store of another source.
    FeatureKeyError
        It has no more the features that the index holds.
    """
    spec = index_spec(index)
    check_same(index.fingerprint or {}, store.fingerprint, what=f"the store {store.path}")
    if store.source != index.metadata.get("source"):
        raise RefusedError(
            f"the index is of images from {index.metadata.get('source')}, {store.path} of images from {store.source};"
            " give the store that it was made from, or build an index of this one"
        )
    if index.images.digests is None:
        raise StoreError("the index does not know its image files; build it again")
    features = JoinedFeatures(store, FeatureSpec.of_store(store, spec.key))
    known = {key: row for row, key in enumerate(_identities(index.paths, index.images.digests))}
    rows = [known.get(key, -1) for key in _identities(store.paths.tolist(), store.digests)]
    kept, new = {row: place for place, row in enumerate(rows) if row >= 0}, [p for p, row in enumerate(rows) if row < 0]
    if not kept:
        raise UsageError(f"no image of the index is in {store.path} any more; build an index of it instead")
    gone = [row for row in range(len(index)) if row not in kept]
    if gone:
        index.remove(index.ids[gone])
    places = np.array([kept[row] for row in sorted(kept)])
    columns = _columns(store, places, 0)
    index.images = replace(index.images, labels=tuple(columns["labels"]), splits=tuple(columns["splits"]))
    size = int(index.metadata.get("thumbnail_size") or 0)
    first_id = index.next_id
    for start in range(0, len(new), _ROWS_AT_ONCE):
        block = np.array(new[start : start + _ROWS_AT_ONCE])
        index.add(features[block], **_columns(store, block, size))
    if new:
        _add_places(index, store, np.array(new), np.arange(first_id, index.next_id), compute)
    return IndexUpdate(len(new), len(gone), len(kept), index.rebuild_advice())


def index_spec(index: ImageIndex) -> FeatureSpec:
    """Return which features of the network an index was built on, before they were reduced.

    Raises
    ------
    StoreError
        It does not say.
    """
    values = index.metadata.get("features")
    if values is None:
        raise StoreError("this index does not say which features it holds; build it with featx index")
    return read_spec(values, "the index")


class JoinedFeatures:
    """Features of several layers side by side, (n, width) float32, read where and when they are indexed.

    Parameters
    ----------
    store : FeatureStore
        Codes are decoded.
    spec : FeatureSpec
        Which features.
    """

    def __init__(self, store: FeatureStore, spec: FeatureSpec) -> None:
        self._spec = spec
        self._features = {key: decoded(store, key) for key in spec.keys}
        self.widths = [int(self._features[key].shape[1]) for key in spec.keys]
        self.shape = (store.rows, sum(self.widths))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> np.ndarray:
        return self._spec.join(self._features, rows)


def _places(
    store: FeatureStore, spec: FeatureSpec, layer: str | None, compute: ComputeOptions | None
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return metadata and arrays of the places that the index is to keep."""
    if layer == NO_PLACES or (layer is None and not store.maps):
        return {}, {}
    if layer is None:
        return places_of_store(store, None, next(iter(store.maps))).to_parts()
    if not layer:
        raise UsageError("keep_places is an empty name; give a layer, or none")
    if not _is_there(store) and store.maps:
        return places_of_store(store, None, store.map(layer).layer).to_parts()
    return places_of_store(store, _place_computer(spec, layer, compute), layer).to_parts()


def _place_computer(spec: FeatureSpec, layer: str, compute: ComputeOptions | None) -> PlaceComputer:
    opened = spec.open(compute)
    return PlaceComputer(opened.backbone, layer, opened.options)


def _add_places(
    index: ImageIndex, store: FeatureStore, rows: np.ndarray, ids: np.ndarray, compute: ComputeOptions | None
) -> None:
    """Keep the places of images that were added, where the index keeps places."""
    kept = KeptPlaces.of_index(index)
    if kept is None:
        return
    computer = _place_computer(index_spec(index), kept.layer, compute) if kept.views == "whole" else None
    codes, sizes = places_of_rows(store, computer, kept.encoder, kept.layer, rows)
    index.arrays |= kept.extended(ids, codes, sizes).to_parts()[1]


def _is_there(store: FeatureStore) -> bool:
    """Return whether any original can be found."""
    return any(os.path.exists(original_location(store.source, path)) for path in store.paths.tolist())


def _columns(store: FeatureStore, rows: np.ndarray, thumbnail_size: int) -> dict[str, Any]:
    """Return what an index keeps of some rows beside their vectors."""
    names, paths = store.label_names, store.paths[rows].tolist()
    return {
        "paths": paths,
        "labels": [names[label] if label >= 0 else None for label in store.labels[rows]],
        "splits": [_SPLITS[split + 1] for split in store.splits[rows]],
        "digests": np.asarray(store.digests)[rows],
        "thumbnails": _thumbnails(store.source, paths, thumbnail_size) if thumbnail_size else None,
    }


def _identities(paths: Iterable[str], digests: np.ndarray) -> list[tuple[str, bytes]]:
    return [(path, digest.tobytes()) for path, digest in zip(paths, digests, strict=True)]


def _thumbnails(source: str, paths: Sequence[str], size: int) -> list[bytes]:
    """Return a JPEG for each path, empty where the original is gone."""
    entries = [ImageEntry(path, location=original_location(source, path)) for path in paths]
    return [thumbnail_of(entry, size) or b"" for entry in entries]
