"""The second stage of a search: candidates ordered anew by what is seen where on the pictures.

A picture of the gallery is seen as a whole; a query by several views, closer ones among them, and turned to both
sides. What is matched, and how, is in `featx.retrieval.local.matching`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from featx.errors import StoreError
from featx.images import ImageEntry, View
from featx.retrieval.local.matching import score_candidates
from featx.retrieval.local.places import LocalPlaces
from featx.workflows.indexing import index_spec
from featx.workflows.kept_places import KeptPlaces
from featx.workflows.moved_weights import moved_weights_explained
from featx.workflows.originals import original_location
from featx.workflows.picture_places import OWN, WHOLE, PlaceComputer, encoded, learned_encoder

if TYPE_CHECKING:
    from featx.backbones import Backbone
    from featx.extraction import ComputeOptions
    from featx.retrieval import ImageIndex
    from featx.retrieval.local.descriptors import LocalEncoder

_PLACES = (0.0, 0.5, 1.0)
_CLOSER = tuple(View(span=0.6, place=(down, across)) for down in _PLACES for across in _PLACES)
_QUERY_VIEWS = (*OWN, *_CLOSER)
_TURNS = (0, 1, 3)  # quarter turns of a query; nobody photographs things upside down


def open_second_stage(
    index: ImageIndex, options: ComputeOptions | None = None, *, weights: str | None = None
) -> SecondStage:
    """Return the second stage of an index, with the network that the index was made with.

    Raises
    ------
    StoreError, WeightsNotFoundError, FingerprintMismatchError
        As `featx.workflows.searching.query_images` does.
    """
    spec = index_spec(index)
    with moved_weights_explained(spec, weights):
        opened = spec.open(options, weights=weights)
    return SecondStage(index, opened.backbone, opened.options)


class SecondStage:
    """Orders the candidates of a query anew by matching places of the pictures.

    Parameters
    ----------
    index : ImageIndex
        With the places of its pictures, or with originals that can be read.
    backbone : Backbone
        The network that the index was made with.
    options : ComputeOptions, optional
        How to run it.

    Raises
    ------
    LayerError
        The network has no map to match.
    StoreError
        The places that the index keeps are damaged.
    """

    def __init__(self, index: ImageIndex, backbone: Backbone, options: ComputeOptions | None = None) -> None:
        self._index = index
        self._kept = KeptPlaces.of_index(index)
        self._computer = PlaceComputer(backbone, self._kept.layer if self._kept else None, options)
        n_rows, n_columns, n_channels = self._computer.map_shape
        kept = self._kept
        if kept and (kept.codes.shape[1] != n_rows * n_columns or len(kept.encoder.mean) != n_channels):
            raise StoreError(
                f"the index keeps {kept.codes.shape[1]} places a picture of {len(kept.encoder.mean)} channels;"
                f" {kept.layer} of this network gives {n_rows} x {n_columns} of {n_channels}. Build the index again."
            )

    def order(
        self, images: Sequence[ImageEntry | int], rows: np.ndarray, n_candidates: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the first rows of a ranking in their new order, and their scores, which fall.

        Parameters
        ----------
        images : sequence of ImageEntry or int
            What is asked for; an int is a row of the index. Of several, the mean score counts.
        rows : ndarray of int64, shape (m,)
            Rows of the index, best first.
        n_candidates : int
            How many are looked at.
        """
        rows = rows[:n_candidates]
        if not len(rows):
            return rows, np.empty(0, np.float32)
        encoder, vectors, positions, is_read = self._candidates(rows)
        turned = [self._query(image, encoder) for image in images]
        found = [score_candidates(turns, vectors[is_read], positions[is_read]).scores for turns in turned if turns]
        # Where no picture of the query can be read any more, the order stays as it is.
        known = np.mean(found, axis=0) if found else np.zeros(int(is_read.sum()), np.float32)
        scores = np.full(len(rows), known.min(initial=0.0) - 1, np.float32)  # behind all that could be compared
        scores[is_read] = known
        order = np.argsort(-scores, kind="stable")
        return rows[order], scores[order]

    def _candidates(self, rows: np.ndarray) -> tuple[LocalEncoder, np.ndarray, np.ndarray, np.ndarray]:
        """Return an encoder, vectors and positions of the places of candidates, and which of these can be read."""
        kept, ids = self._kept, self._index.ids[rows]
        if kept is not None and (ids < len(kept.codes)).all():
            return kept.encoder, *self._decoded(kept.encoder, kept.codes[ids], kept.sizes[ids], kept.seen)
        entries = [self._original(int(row)) for row in rows]
        encoder = kept.encoder if kept is not None else learned_encoder(self._computer, entries)
        return encoder, *self._decoded(encoder, *encoded(self._computer, encoder, entries, WHOLE), WHOLE)

    def _decoded(
        self, encoder: LocalEncoder, codes: np.ndarray, sizes: np.ndarray, views: Sequence[View]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        positions = [self._computer.positions(np.maximum(size, 1), views) for size in sizes]
        return encoder.decode(codes), np.stack(positions), np.asarray(sizes.any(axis=1))

    def _original(self, row: int) -> ImageEntry:
        path = self._index.paths[row]
        return ImageEntry(path, location=original_location(str(self._index.metadata.get("source", "")), path))

    def _query(self, image: ImageEntry | int, encoder: LocalEncoder) -> list[LocalPlaces]:
        """Return the places of a picture that is asked for, in its turns; none where it cannot be read."""
        entry = image if isinstance(image, ImageEntry) else self._original(image)
        turns = _TURNS if self._computer.is_square else _TURNS[:1]
        views = [replace(view, quarter_turns=turn) for turn in turns for view in _QUERY_VIEWS]
        maps, sizes, failures = self._computer.maps_of([entry], views)
        if failures:
            return [] if isinstance(image, ImageEntry) else self._kept_query(image)
        by_turn = maps[0].reshape(len(turns), len(_QUERY_VIEWS), *maps.shape[2:])
        return [
            LocalPlaces(encoder.describe(seen[None])[0], self._turned_positions(sizes[0], turn))
            for turn, seen in zip(turns, by_turn, strict=True)
        ]

    def _kept_query(self, row: int) -> list[LocalPlaces]:
        """Return the places that the index keeps of a picture that is gone; none where it keeps none."""
        number = int(self._index.ids[row])
        kept = self._kept
        if kept is None or number >= len(kept.codes) or not kept.sizes[number].any():
            return []
        positions = self._computer.positions(kept.sizes[number], kept.seen)
        return [LocalPlaces(kept.encoder.decode(kept.codes[number][None])[0], positions)]

    def _turned_positions(self, size: np.ndarray, turn: int) -> np.ndarray:
        """Return where the places of the query's views lie on the picture after it was turned counter-clockwise.

        A view that is turned shows what the same view of the turned picture would: cell (i, j) of its map is cell
        (i, j) of the turned one.
        """
        n_rows, n_columns, _ = self._computer.map_shape
        upright = self._computer.positions(size, _QUERY_VIEWS).reshape(len(_QUERY_VIEWS), n_rows, n_columns, 2)
        cells = np.rot90(upright, turn, axes=(1, 2)).reshape(-1, 2)
        width, height = size[0] / max(size), size[1] / max(size)
        x, y = cells.T
        for _ in range(turn):  # (x, y) of a picture that is width wide goes to (y, width − x)
            x, y, width, height = y, width - x, height, width
        return np.stack([x, y], axis=1).astype(np.float32)
