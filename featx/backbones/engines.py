"""Choosing what runs a network: OpenVINO on the CPU, torch elsewhere and where OpenVINO cannot."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import math
from importlib.metadata import version
from typing import TYPE_CHECKING, Protocol

from featx.backbones.openvino_engine import ConversionError, OpenVINOEngine
from featx.backbones.taps import Taps
from featx.backbones.torch_engine import TorchEngine, best_device, check_device
from featx.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from featx.backbones.opening import Backbone
    from featx.backbones.selection import Tap

_logger = logging.getLogger(__name__)

ENGINES = ("auto", "openvino", "torch")
PRECISIONS = ("f32", "bf16", "f16")
_BYTES_OUT = 32e6
_GRAPH_VERSION = 1  # raised whenever `Taps` computes something else from the same taps


class Engine(Protocol):
    """Something that turns batches of pixels into features."""

    name: str
    device: str
    precision: str

    def run(self, pixels: np.ndarray) -> list[np.ndarray]:
        """Return one (batch, width) float32 array for each tap, of (batch, height, width, 3) uint8."""


def open_engine(
    backbone: Backbone,
    taps: Sequence[Tap],
    *,
    engine: str = "auto",
    device: str = "auto",
    precision: str = "f32",
    batch_size: int = 32,
    compiled: bool = False,
) -> Engine:
    """Return an engine that computes the taps of a network.

    Parameters
    ----------
    backbone : Backbone
        The network.
    taps : sequence of Tap
        In execution order.
    engine : {"auto", "openvino", "torch"}
        ``auto`` is OpenVINO on the CPU, with torch where a network cannot be converted (logged as a warning).
        An explicit ``openvino`` never falls back.
    device : str
        ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
    precision : {"f32", "bf16", "f16"}
        Of the computation; what comes out is float32.
    batch_size : int
        Images a run; OpenVINO pads shorter ones.
    compiled : bool
        Use ``torch.compile`` (torch only).

    Raises
    ------
    EngineError
        The engine, device or precision is unknown or not to be had on this machine.
    """
    _check_choice("precision", precision, PRECISIONS)
    if batch_size < 1:
        raise EngineError(f"batch size {batch_size} is not at least 1")
    device = _device_for(engine, device, compiled)
    # A copy goes to an accelerator: the backbone stays on the CPU for whoever else uses it.
    module = backbone.module if device == "cpu" else copy.deepcopy(backbone.module)
    network = Taps(module, backbone.transform, taps)
    try:
        if engine == "torch" or device != "cpu" or compiled:
            return TorchEngine(network, device=device, precision=precision, compiled=compiled)
        return _open_openvino(backbone, network, engine, precision, batch_size)
    except BaseException:
        network.close()
        raise


def _device_for(engine: str, device: str, compiled: bool) -> str:
    """Return the device that an engine is to run on, or raise what does not go together."""
    _check_choice("engine", engine, ENGINES)
    if device == "auto":
        device = "cpu" if engine == "openvino" else best_device()
    if engine == "openvino" and (device != "cpu" or compiled):
        given = "--compile" if compiled else f"device {device!r}"
        raise EngineError(f"{given} does not go with engine openvino, which runs on the CPU; give --engine torch")
    return check_device(device)


def _open_openvino(backbone: Backbone, network: Taps, engine: str, precision: str, batch_size: int) -> Engine:
    size = backbone.transform.size
    try:
        key = _cache_key(backbone, network.taps)
        opened = OpenVINOEngine(network, size, batch_size=batch_size, precision=precision, cache_key=key)
    except (ConversionError, ImportError) as error:
        if engine == "openvino":
            raise EngineError(f"openvino cannot run {backbone.name}: {error}; give --engine torch") from error
        _logger.warning("openvino cannot run %s (%s): running it with torch, which is slower", backbone.name, error)
        return TorchEngine(network, precision=precision)
    network.close()
    return opened


def _cache_key(backbone: Backbone, taps: Sequence[Tap]) -> str | None:
    """Return a key of all that shapes a converted graph, or None for a module whose code has no name."""
    if not backbone.is_named:
        return None
    described = {
        "graph": _GRAPH_VERSION,
        "model": backbone.name,
        "weights": backbone.weights.digest,
        "transform": backbone.transform.to_json(),
        "taps": [tap.key for tap in taps],
        "versions": {name: version(name) for name in ("openvino", "torch", "timm", "torchvision")},
    }
    return hashlib.blake2b(json.dumps(described, sort_keys=True).encode(), digest_size=16).hexdigest()


def choose_batch_size(backbone: Backbone, taps: Sequence[Tap], *, device: str = "auto") -> int:
    """Return a batch size whose largest activation stays near 256 MB on the CPU and 1 GB on an accelerator.

    What comes out, which waits in memory until it is written, stays near 32 MB; only flattened maps come near that.
    """
    on_cpu = (best_device() if device == "auto" else device) == "cpu"
    deepest = max(tap.layer.order for tap in taps)
    largest = max(math.prod(layer.shape) for layer in backbone.layers.values() if layer.order <= deepest)
    n_bytes, limit = (256e6, 32) if on_cpu else (1e9, 256)
    fitting = int(n_bytes / (4 * max(largest, 3 * math.prod(backbone.transform.size))))
    fitting_out = int(_BYTES_OUT / (4 * sum(tap.width for tap in taps)))
    return max(1, min(limit, fitting, fitting_out))


def _check_choice(what: str, given: str, allowed: Sequence[str]) -> None:
    if given not in allowed:
        raise EngineError(f"{what} {given!r} is unknown; allowed: {', '.join(allowed)}")
