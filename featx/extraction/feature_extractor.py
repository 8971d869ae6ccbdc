"""`FeatureExtractor`: a frozen network as a scikit-learn transformer."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin

from featx import backbones
from featx.errors import ImageError, UsageError
from featx.extraction.computing import ComputeOptions, FeatureComputer
from featx.extraction.extracting import Extraction
from featx.extraction.memory_entries import CachedEntry, memory_entry
from featx.images import ImageEntry, ImageListing, escape_path
from featx.store import FeatureStore

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sklearn.utils import Tags
    from torch import nn


class FeatureExtractor(TransformerMixin, BaseEstimator):
    """Images to feature vectors by a frozen network.

    Parameters
    ----------
    model : str or nn.Module, default="tf_efficientnet_lite0"
        A timm name, ``hf-hub:ID``, ``local-dir:FOLDER``, ``torchvision:NAME``, or a module of your own.
    layer : str, default="penultimate"
        A dotted layer name, or ``early``, ``middle``, ``late``, ``P%``; several, comma-separated, are put side by
        side.
    pool : str, default="avg"
        Pooling of spatial maps and tokens.
    weights : str, optional
        A file of weights, or ``random:SEED``.
    transform_spec : TransformSpec, optional
        For a module of your own.
    engine, device, precision : str
        See `featx.extraction.ComputeOptions`.
    batch_size, workers : int, optional
        Images a run, and threads that decode.
    cache : str or path, optional
        An HDF5 store in which features are kept by the content of the images, so that a grid search computes each
        image once.
    on_error : {"raise", "nan"}, default="raise"
        What to do with images that cannot be read: raise an `ImageError` that names them, or give rows of NaN.

    Attributes
    ----------
    n_features_out_ : int
        Width of the features.

    Notes
    -----
    There is nothing to learn: `fit` opens the network to find the width. The open network is dropped on pickling
    and on ``clone``, and opened again at the next use.
    """

    def __init__(
        self,
        model: str | nn.Module = backbones.DEFAULT_MODEL,
        *,
        layer: str = backbones.PENULTIMATE,
        pool: str = "avg",
        weights: str | None = None,
        transform_spec: backbones.TransformSpec | None = None,
        engine: str = "auto",
        device: str = "auto",
        precision: str = "f32",
        batch_size: int | None = None,
        workers: int | None = None,
        cache: str | os.PathLike[str] | None = None,
        on_error: str = "raise",
    ) -> None:
        self.model = model
        self.layer = layer
        self.pool = pool
        self.weights = weights
        self.transform_spec = transform_spec
        self.engine = engine
        self.device = device
        self.precision = precision
        self.batch_size = batch_size
        self.workers = workers
        self.cache = cache
        self.on_error = on_error

    def fit(self, X: Any = None, y: Any = None) -> FeatureExtractor:  # noqa: ARG002 - scikit-learn's signature
        """Open the network; the images are not looked at.

        Parameters
        ----------
        X : ignored
            Images.
        y : ignored
            Labels.

        Raises
        ------
        BackboneError
            The network, layer or pooling is unknown.
        """
        if self.on_error not in ("raise", "nan"):
            raise UsageError(f"on_error={self.on_error!r} is unknown; allowed: 'raise', 'nan'")
        self.n_features_out_ = sum(tap.width for tap in self._open().taps)
        return self

    def transform(self, X: Iterable[Any]) -> np.ndarray:
        """Return the features of images.

        Parameters
        ----------
        X : iterable of str, path, PIL.Image or ndarray
            Paths of image files, or pictures; arrays are uint8 (height, width, 3).

        Returns
        -------
        ndarray of float32, shape (n_images, n_features_out_)

        Raises
        ------
        ImageError
            Images cannot be read, and `on_error` is ``"raise"``; names them.
        """
        self.fit()
        entries = [self._entry(value) for value in _as_list(X)]
        computer = self._open()
        if self.cache is None:
            features, failures = computer.features_of(entries)
            columns = [features[tap.key] for tap in computer.taps]
        else:
            columns, failures = self._through_cache(entries, computer)
        if failures and self.on_error == "raise":
            named = "; ".join(f"{entries[index].path}: {reason}" for index, reason in list(failures.items())[:5])
            raise ImageError(f"{len(failures)} of {len(entries)} images cannot be read ({named}); give on_error='nan'")
        return np.concatenate(columns, axis=1) if entries else np.empty((0, self.n_features_out_), np.float32)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:  # noqa: ARG002
        """Return names such as ``penultimate@avg_0``, as an array of n_features_out_ objects."""
        names = [f"{tap.key}_{column}" for tap in self._open().taps for column in range(tap.width)]
        return np.array(names, dtype=object)

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.no_validation = True
        tags.input_tags.two_d_array = False
        tags.input_tags.string = True
        return tags

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        return {name: value for name, value in state.items() if not name.startswith("_opened")}

    def _open(self) -> FeatureComputer:
        """Return the open network, opened anew whenever a parameter has changed since."""
        parameters = self.get_params(deep=False)
        if getattr(self, "_opened_with", None) != parameters:
            backbone = backbones.open_backbone(self.model, weights=self.weights, transform=self.transform_spec)
            taps = backbone.select(self.layer, self.pool).taps
            options = ComputeOptions(self.engine, self.device, self.precision, self.batch_size, self.workers)
            self._opened = FeatureComputer(backbone, taps, options)
            self._opened_with = parameters
        return self._opened

    def _entry(self, value: Any) -> Any:
        if not isinstance(value, (str, os.PathLike)):
            return memory_entry(value)
        location = os.path.abspath(os.fspath(value))
        return ImageEntry(escape_path(os.fspath(value)), location=location)

    def _through_cache(
        self, entries: Sequence[Any], computer: FeatureComputer
    ) -> tuple[list[np.ndarray], dict[int, str]]:
        """Return the features of images from the cache, after adding to it what it lacks."""
        path = Path(os.fspath(self.cache))  # type: ignore[arg-type]
        keys = [tap.key for tap in computer.taps]
        new = {entry.path: entry for entry in (_with_absolute_path(entry) for entry in entries)}
        entries_of_cache: tuple[Any, ...] = (*_cached_entries(path, new), *new.values())
        listing = ImageListing(source="featx cache", entries=entries_of_cache)
        # The computer is copied: an extraction takes in the features that the store has already.
        report = Extraction(listing, replace(computer), path).run() if new else None
        reasons = dict(report.failures) if report else {}
        store = FeatureStore(path)
        row_of = {name: row for row, name in enumerate(store.paths.tolist())}
        rows = [row_of.get(_with_absolute_path(entry).path, -1) for entry in entries]
        failures = {
            index: reasons.get(_with_absolute_path(entry).path, "not in the cache")
            for index, (entry, row) in enumerate(zip(entries, rows, strict=True))
            if row < 0
        }
        columns = [np.asarray(store[key][np.maximum(rows, 0)], np.float32) for key in keys]
        for column in columns:
            column[[index for index, row in enumerate(rows) if row < 0]] = np.nan
        store.close()
        return columns, failures


def _as_list(X: Any) -> list[Any]:
    if isinstance(X, (str, bytes, os.PathLike)):
        raise UsageError(
            f"transform takes a sequence of images, not the single {X!r}; give [path], or list_images(folder)"
        )
    return np.asarray(X, dtype=object).ravel().tolist() if hasattr(X, "dtype") and X.dtype != np.uint8 else list(X)


def _with_absolute_path(entry: Any) -> Any:
    return replace(entry, path=escape_path(entry.location)) if isinstance(entry, ImageEntry) else entry


def _cached_entries(path: Path, new: dict[str, Any]) -> list[CachedEntry]:
    """Return the rows of a cache that are not asked for now, so that they stay."""
    if not path.exists():
        return []
    with FeatureStore(path) as store:
        pairs = zip(store.paths.tolist(), store.digests, strict=True)
        return [CachedEntry(name, bytes(digest)) for name, digest in pairs if name not in new]
