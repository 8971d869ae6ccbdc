"""The rows of a store as a listing gives them, and whether a store has exactly them already."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from featx.store import ImageTable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from featx.images import ImageEntry, ImageListing
    from featx.store import FeatureStore, RowInfo


def make_image_table(listing: ImageListing, kept: Sequence[int], digests: Sequence[bytes]) -> ImageTable:
    """Return the rows of the listed images that have features.

    Parameters
    ----------
    listing : ImageListing
        All images.
    kept : sequence of int
        Places of those that could be read.
    digests : sequence of bytes
        Of all images, in listing order.
    """
    entries: list[ImageEntry] = [listing.entries[index] for index in kept]
    groups = np.array([entry.group for entry in entries], np.int32)
    return ImageTable(
        paths=[entry.path for entry in entries],
        digests=np.frombuffer(b"".join(digests[index] for index in kept), np.uint8).reshape(-1, 16),
        labels=np.array([entry.label for entry in entries], np.int32),
        label_names=list(listing.class_names),
        splits=np.array([entry.split for entry in entries], np.int8),
        groups=groups if (groups >= 0).any() else None,
    )


def holds_exactly(
    store: FeatureStore,
    table: ImageTable,
    infos: Mapping[str, RowInfo],
    failures: Sequence[tuple[str, str]],
    source: str,
    aliases: Mapping[str, str],
) -> bool:
    """Return whether a store holds just these rows, features, maps, failures and aliases: nothing need be written."""
    return bool(
        store.source == source
        and {*store.infos, *store.maps} == set(infos)
        and store.paths.tolist() == list(table.paths)
        and list(store.label_names) == list(table.label_names)
        and np.array_equal(store.digests, table.digests)
        and np.array_equal(store.labels, table.labels)
        and np.array_equal(store.splits, table.splits)
        and _as_list(store.groups) == _as_list(table.groups)
        and dict(store.aliases) == dict(aliases)
        and [tuple(failure) for failure in store.failures] == [tuple(failure) for failure in failures]
    )


def _as_list(groups: np.ndarray | None) -> list[int] | None:
    return None if groups is None else groups.tolist()
