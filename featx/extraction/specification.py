"""`FeatureSpec`: exactly which features, so that a head or an index can ask for the same ones again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from featx import backbones
from featx.errors import RefusedError, UsageError
from featx.extraction.computing import ComputeOptions, FeatureComputer
from featx.extraction.maps import map_tap
from featx.store import check_same

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from featx.store import FeatureStore


JOINED_BY = "+"  # between the layers of a name; no module and no pooling has it in its name


@dataclass(frozen=True)
class FeatureSpec:
    """One layer and pooling of one network, or several side by side, with how their pictures are prepared.

    Parameters
    ----------
    key : str
        ``LAYER@POOL``; several, whose columns follow one another, are joined by ``+``.
    width : int
        Length of the feature vector.
    fingerprint : mapping
        Of the store that the features came from.
    """

    key: str
    width: int
    fingerprint: Mapping[str, Any]

    @classmethod
    def of_store(cls, store: FeatureStore, name: str | None = None) -> FeatureSpec:
        """Return the specification of some features of a store.

        Parameters
        ----------
        store : FeatureStore
            Where they are.
        name : str, optional
            See `FeatureStore.resolve`; several names, for layers side by side, are joined by ``+``.

        Raises
        ------
        FeatureKeyError
            Nothing is called so, or several are.
        UsageError
            A layer is named twice.
        """
        keys = [store.resolve(part) for part in (name.split(JOINED_BY) if name else [None])]
        if len(set(keys)) < len(keys):
            raise UsageError(f"{name} names the same features twice ({', '.join(keys)}); name each layer once")
        return cls(JOINED_BY.join(keys), sum(store.infos[key].width for key in keys), store.fingerprint)

    @property
    def keys(self) -> tuple[str, ...]:
        """The layers, ``LAYER@POOL`` each, in the order of their columns."""
        return tuple(self.key.split(JOINED_BY))

    def join(self, features: Mapping[str, Any] | FeatureStore, rows: Any = ...) -> np.ndarray:
        """Return the columns of all layers side by side, (n, width) float32.

        Parameters
        ----------
        features : mapping of str to array-like of shape (n, d)
            Key to features: a `FeatureStore`, or what `FeatureComputer.features_of` returns.
        rows : index, optional
            Which rows; all by default.
        """
        parts = [np.asarray(features[key][rows], np.float32) for key in self.keys]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def refuse_random(self, *, allowed: bool, what: str) -> None:
        """Raise `RefusedError` where the network's weights were drawn at random, unless that is allowed."""
        source = str(self.fingerprint.get("weights_source", ""))
        if source.startswith("random:") and not allowed:
            raise RefusedError(
                f"these features come from untrained weights ({source}), so {what} would mean nothing;"
                " give --allow-random if that is meant"
            )

    def open(
        self, options: ComputeOptions | None = None, *, weights: str | None = None, maps: Sequence[str] = ()
    ) -> FeatureComputer:
        """Return a computer of exactly these features.

        Parameters
        ----------
        options : ComputeOptions, optional
            How to run; the precision is always the specification's own.
        weights : str, optional
            A file of weights, where the one used before has moved.
        maps : sequence of str
            Layers whose spatial maps are computed in the same pass; their taps are those of
            ``map_tap(computer.backbone, layer)``, and `as_maps` makes maps of what they give.

        Raises
        ------
        LayerError
            A layer has no spatial map.
        WeightsNotFoundError
            The weights are not on this machine; the name comes from a file, so nothing is requested.
        FingerprintMismatchError
            The network that can be opened here is not the one the features came from.
        """
        source = str(self.fingerprint.get("weights_source", ""))
        if weights is None and source.startswith("file:"):
            weights = source.removeprefix("file:")
        elif weights is None and source.startswith("random:"):
            weights = source
        backbone = backbones.open_backbone(
            str(self.fingerprint["model"]), weights=weights, download=False, size=self._square_size()
        )
        taps = [*backbone.select(list(self.keys)).taps, *(map_tap(backbone, layer) for layer in maps)]
        options = replace(options or ComputeOptions(), precision=str(self.fingerprint["precision"]))
        computer = FeatureComputer(backbone, taps, options)
        check_same(self.fingerprint, computer.fingerprint(), what=f"the network {backbone.name} as it opens here")
        return computer

    def _square_size(self) -> int | None:
        """Return the side of the network's pictures; None where they are not square, or nothing is said of them."""
        transform = self.fingerprint.get("transform")
        size = transform.get("size") if isinstance(transform, dict) else None
        if not isinstance(size, list) or len(size) != 2 or size[0] != size[1]:
            return None
        return size[0] if isinstance(size[0], int) and size[0] > 0 else None

    def to_json(self) -> dict[str, Any]:
        """Return the specification as JSON-able values."""
        return {"key": self.key, "width": self.width, "fingerprint": dict(self.fingerprint)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> FeatureSpec:
        """Return the specification that `to_json` described."""
        return cls(values["key"], values["width"], values["fingerprint"])
