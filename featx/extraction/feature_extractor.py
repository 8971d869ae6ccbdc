"""`FeatureExtractor`: a frozen network as a scikit-learn transformer."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin

from featx import backbones
from featx.errors import ImageError, UsageError
from featx.extraction.computing import ComputeOptions, FeatureComputer
from featx.extraction.feature_cache import cached_features
from featx.extraction.memory_entries import MemoryEntry, memory_entry
from featx.images import ImageEntry, escape_path

if TYPE_CHECKING:
    from collections.abc import Iterable

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
        image once; processes that share it wait for each other.
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
            Paths of image files, or pictures; arrays are uint8 (height, width, 3). What `PIL.Image.open` gave is
            turned as its file says, other pictures are taken as they are.

        Returns
        -------
        ndarray of float32, shape (n_images, n_features_out_)

        Raises
        ------
        ImageError
            Images cannot be read, and `on_error` is ``"raise"``; names them.
        UsageError
            `X` is a single image, or no sequence of images.
        """
        self.fit()
        values = _as_list(X)
        entries = [_entry(value, place) for place, value in enumerate(values)]
        computer = self._open()
        if not entries:
            return np.empty((0, self.n_features_out_), np.float32)
        if self.cache is None:
            features, failures = computer.features_of(entries)
        else:
            features, failures = cached_features(Path(os.fsdecode(self.cache)), entries, computer)
        if failures and self.on_error == "raise":
            named = "; ".join(f"{entries[place].path}: {reason}" for place, reason in list(failures.items())[:5])
            raise ImageError(f"{len(failures)} of {len(entries)} images cannot be read ({named}); give on_error='nan'")
        return np.concatenate([features[tap.key] for tap in computer.taps], axis=1)

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
        """Return the open network, opened anew whenever a parameter that it depends on has changed since."""
        parameters = {
            name: value for name, value in self.get_params(deep=False).items() if name not in ("cache", "on_error")
        }
        if getattr(self, "_opened_with", None) != parameters:
            # Opening freezes a module and running hooks it, and a parameter is the user's.
            model = self.model if isinstance(self.model, str) else copy.deepcopy(self.model)
            backbone = backbones.open_backbone(model, weights=self.weights, transform=self.transform_spec)
            taps = backbone.select(self.layer, self.pool).taps
            options = ComputeOptions(self.engine, self.device, self.precision, self.batch_size, self.workers)
            self._opened = FeatureComputer(backbone, taps, options)
            self._opened_with = parameters
        return self._opened


def _as_list(X: Any) -> list[Any]:
    """Return the images one by one: arrays of pictures by their first axis, columns of paths as lists."""
    if isinstance(X, (str, bytes, os.PathLike)):
        raise UsageError(
            f"transform takes a sequence of images, not the single {X!r}; give [path], or list_images(folder)"
        )
    if not hasattr(X, "shape") or getattr(X, "dtype", None) == np.uint8:
        return list(X)
    column = np.asarray(X, dtype=object)
    if column.ndim != 1 and column.shape[1:] != (1,):
        raise UsageError(
            f"transform takes one image a row, not a table of shape {column.shape}; give one column of paths, or"
            " pictures as uint8 (n, height, width, 3)"
        )
    return column.ravel().tolist()


def _entry(value: Any, place: int) -> ImageEntry | MemoryEntry:
    if not isinstance(value, (str, os.PathLike)):
        return memory_entry(value, place)
    path = os.fsdecode(value)
    return ImageEntry(escape_path(path), location=os.path.abspath(path))
