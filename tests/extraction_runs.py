"""Short runs of an extraction over the fake network, and the same features by a plain loop."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_backbone import FAKE_TRANSFORM, fake_features

from featx import backbones
from featx.extraction import ComputeOptions, Extraction, ExtractionReport, FeatureComputer
from featx.images import ImageEntry, list_images, resize_and_crop
from featx.store import FeatureStore, open_segments

TORCH = ComputeOptions(engine="torch", batch_size=4, workers=2)


def make_extraction(
    backbone, source, out, layers="penultimate", *, pool="avg", options=TORCH, **settings
) -> Extraction:
    """Return an extraction of a source, or of a listing, with what is not given set for short runs."""
    listing = source if hasattr(source, "entries") else list_images(source)
    selection = backbone.select(layers, pool)
    computer = FeatureComputer(backbone, selection.taps, options)
    return Extraction(listing, computer, Path(out), aliases=selection.aliases, **settings)


def extract(backbone, source, out, layers="penultimate", **settings) -> ExtractionReport:
    """Make an extraction and run it."""
    return make_extraction(backbone, source, out, layers, **settings).run()


def by_hand(entries: list[ImageEntry], transform=FAKE_TRANSFORM) -> dict[str, np.ndarray]:
    """Return the averaged features of the fake network by layer, image after image, with numpy alone."""
    pixels = [
        resize_and_crop(
            entry.read().decode(),
            size=transform.size,
            resize_size=transform.resize_size,
            crop_mode=transform.crop_mode,
            interpolation=transform.interpolation,
        )
        for entry in entries
    ]
    return fake_features(np.stack(pixels))


def assert_rows_by_hand(store_path: Path, source, layer: str = "penultimate") -> None:
    """Check that a store has just the readable images of a source, each with its own features and label."""
    listing = list_images(source)
    with FeatureStore(store_path) as store:
        paths = store.paths.tolist()
        entries = [entry for entry in listing.entries if entry.path in set(paths)]
        assert paths == [entry.path for entry in entries]
        names = [listing.class_names[entry.label] for entry in entries]
        assert [store.label_names[label] for label in store.labels] == names
        np.testing.assert_allclose(store[layer][:], by_hand(entries)[layer], rtol=1e-5)
        digests = [hashlib.blake2b(Path(entry.location).read_bytes(), digest_size=16).digest() for entry in entries]
        assert [bytes(digest) for digest in store.digests] == digests


def count_images(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Return a counter of the images that any engine opened from now on runs, by feature key."""
    counted: Counter[str] = Counter()
    open_engine = backbones.open_engine

    def open_counting(backbone, taps, **options):
        engine = open_engine(backbone, taps, **options)
        run = engine.run

        def run_counting(pixels):
            counted.update({tap.key: len(pixels) for tap in taps})
            return run(pixels)

        engine.run = run_counting
        return engine

    monkeypatch.setattr(backbones, "open_engine", open_counting)
    return counted


def segment_digests(out: Path) -> list[bytes]:
    """Return the digests of all rows in the segments of a store, in order, repeats included."""
    segments = open_segments(out.with_name(f"{out.name}.parts"))
    return [bytes(digest) for segment in segments for digest in segment.digests]


def without(listing, *places: int):
    """Return a listing without some of its entries."""
    kept = tuple(entry for place, entry in enumerate(listing.entries) if place not in places)
    return replace(listing, entries=kept)


def stop_after(n_images: int, error: BaseException):
    """Return a progress callback that raises once so many images are done."""

    def progress(state) -> None:
        if state.n_done >= n_images:
            raise error

    return progress
