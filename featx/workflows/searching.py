"""Search by image: an index from a store, and queries by image files."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from featx.bundle import read_spec
from featx.errors import ImageError, StoreError
from featx.extraction import ComputeOptions, FeatureSpec
from featx.images import ImageEntry, image_extensions, unescape_path
from featx.retrieval import ImageIndex
from featx.workflows.indexed_reducers import reducers_for_index, reducers_of_index
from featx.workflows.moved_weights import moved_weights_explained
from featx.workflows.stored_features import base_fingerprint, decoded, source_width

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy as np

    from featx.store import FeatureStore
    from featx.workflows.fitted_reducers import Reducer

_BLOCK = 256  # images in memory at a time
_ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class Hit:
    """One neighbour of a query."""

    rank: int
    path: str
    score: float
    label: str | None


@dataclass(frozen=True)
class QueryResult:
    """The neighbours of one image, nearest first.

    Parameters
    ----------
    query : str
        The image.
    hits : tuple of Hit
        With cosine similarities as scores.
    reason : str
        Why the image could not be read.
    """

    query: str
    hits: tuple[Hit, ...] = ()
    reason: str = ""


def build_index(
    store: FeatureStore, layer: str | None = None, *, thumbnail_size: int = 0, allow_random: bool = False
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

    Raises
    ------
    RefusedError
        The features come from untrained weights.
    StoreError
        Thumbnails are wanted, and none of the original images is there any more.
    """
    spec = FeatureSpec.of_store(store, layer)
    spec.refuse_random(allowed=allow_random, what="a search over them")
    names = store.label_names
    reduction, arrays = reducers_for_index(store, spec.keys)
    width = sum(source_width(store, key) for key in spec.keys)
    original = FeatureSpec(spec.key, width, base_fingerprint(spec.fingerprint))
    return ImageIndex.build(
        _blocks(store, spec),
        paths=store.paths.tolist(),
        labels=[names[label] if label >= 0 else None for label in store.labels],
        thumbnails=_thumbnails(store, thumbnail_size) if thumbnail_size else None,
        fingerprint=dict(store.fingerprint),
        metadata={"features": original.to_json(), "source": store.source, **reduction},
        arrays=arrays,
    )


def _blocks(store: FeatureStore, spec: FeatureSpec) -> Iterator[np.ndarray]:
    features = {key: decoded(store, key) for key in spec.keys}
    for start in range(0, store.rows, _ROWS_AT_ONCE):
        yield spec.join(features, slice(start, start + _ROWS_AT_ONCE))


def query_images(
    index: ImageIndex,
    entries: Sequence[ImageEntry],
    k: int = 10,
    options: ComputeOptions | None = None,
    *,
    weights: str | None = None,
) -> Iterator[QueryResult]:
    """Yield the neighbours of each image, in order.

    Parameters
    ----------
    index : ImageIndex
        From `build_index`.
    entries : sequence of ImageEntry
        Queries.
    k : int
        Neighbours a query.
    options : ComputeOptions, optional
        How to run the network.
    weights : str, optional
        A file of weights, where the one used for the index has moved.

    Raises
    ------
    StoreError
        The index was made from plain vectors and does not say how images become features.
    WeightsNotFoundError
        The network's weights are in none of the places where they could be.
    FingerprintMismatchError
        The network that can be opened here is not the one that the index was made with.
    """
    spec = index_spec(index)
    with moved_weights_explained(spec, weights):
        computer = spec.open(options, weights=weights)
    reducers = reducers_of_index(index, {tap.key: tap.width for tap in computer.taps})
    for start in range(0, len(entries), _BLOCK):
        block = entries[start : start + _BLOCK]
        features, failures = computer.features_of(block)
        readable = [row for row in range(len(block)) if row not in failures]
        found = index.search(_query_vectors(spec, features, readable, reducers), k) if readable else None
        place = {row: position for position, row in enumerate(readable)}
        for row, entry in enumerate(block):
            if found is None or row in failures:
                yield QueryResult(entry.path, reason=failures[row])
            else:
                yield QueryResult(entry.path, _hits(found, place[row]))


def _query_vectors(
    spec: FeatureSpec, features: Mapping[str, np.ndarray], rows: Sequence[int], reducers: Mapping[str, Reducer]
) -> np.ndarray:
    chosen = {key: features[key][rows] for key in spec.keys}
    return spec.join(
        {key: reducers[key].transform(found) if key in reducers else found for key, found in chosen.items()}
    )


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


def _hits(found: Any, row: int) -> tuple[Hit, ...]:
    columns = zip(found.paths[row], found.scores[row].tolist(), found.labels[row], strict=True)
    return tuple(Hit(rank, path, score, label) for rank, (path, score, label) in enumerate(columns, start=1))


def original_location(source: str, path: str) -> str:
    """Return where the original of a stored path lies.

    Paths count from a source folder; from the folder of a CSV or of a single picture; and from the working folder
    where a list or standard input named them.

    Parameters
    ----------
    source, path : str
        As the store has them.
    """
    path, source = unescape_path(path), unescape_path(source)
    if os.path.isabs(path):
        return path
    if os.path.isdir(source):
        return os.path.join(source, path)
    beside_source = os.path.splitext(source)[1].lower() in {".csv", *image_extensions()}
    return os.path.join(os.path.dirname(source), path) if beside_source else path


def _thumbnails(store: FeatureStore, size: int) -> list[bytes]:
    """Return a JPEG for each row, empty where the original is gone."""
    thumbnails = []
    for path in store.paths.tolist():
        try:
            entry = ImageEntry(path, location=original_location(store.source, path))
            picture = entry.read().decode()
        except ImageError:
            thumbnails.append(b"")
            continue
        picture.thumbnail((size, size))
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=80)
        thumbnails.append(buffer.getvalue())
    if not any(thumbnails):
        raise StoreError(f"none of the images of {store.source} is there any more; build the index without thumbnails")
    return thumbnails
