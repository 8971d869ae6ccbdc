"""Running taps with OpenVINO on the CPU, and keeping converted networks on disk."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import sys
import tempfile
import warnings
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from featx.backbones.cache_folder import cache_folder
from featx.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from featx.backbones.taps import Taps

_logger = logging.getLogger(__name__)

_PRECISION_HINTS = {"f32": "f32", "bf16": "bf16", "f16": "f16"}
_READ_BACK = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}
_EXAMPLE_BATCH = 2  # a traced batch of 64 takes ten times the seconds and memory, for the same graph
_TOLERANCE = 1e-3  # relative; eighteen architectures came within 2e-6
_MAX_CACHED = 24
_TELEMETRY = "openvino_telemetry"
_FIRST_USE = Lock()


class ConversionError(Exception):
    """OpenVINO cannot convert this network."""


def import_openvino() -> ModuleType:
    """Return the openvino module, imported so that its telemetry never loads.

    Notes
    -----
    ``import openvino`` loads ``openvino_telemetry``, which sends usage from forked children. A None in
    ``sys.modules`` makes that import fail, upon which openvino uses its own silent stand-in. This is the only
    place of featx that imports openvino.
    """
    if "openvino" in sys.modules:
        return sys.modules["openvino"]
    absent = object()
    before = sys.modules.get(_TELEMETRY, absent)
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
    try:
        import openvino
        import openvino.tools.ovc  # the converter, which asks for telemetry again
    finally:
        if before is absent:
            del sys.modules[_TELEMETRY]
        else:
            sys.modules[_TELEMETRY] = before  # type: ignore[assignment]
    return openvino


def shared_core() -> Any:
    """Return the only ``openvino.Core`` of this process.

    Notes
    -----
    A Core gives the thread in which it first compiles an alternate signal stack (AMX needs a large one), and unmaps it
    when it goes. Of two that go in the order in which they came, the second one hands the thread the stack of the
    first, which is unmapped by then: the next signal with a handler in Python, such as Ctrl-C, is a segmentation fault.
    One that never goes avoids this.
    """
    with _FIRST_USE:  # several threads may come at once
        return _core()


@cache
def _core() -> Any:
    return import_openvino().Core()


class OpenVINOEngine:
    """Taps compiled by OpenVINO for a fixed batch; shorter batches are padded.

    Parameters
    ----------
    taps : Taps
        What to run, on the CPU.
    size : (int, int)
        Height and width of the pictures in pixels.
    batch_size : int
        Images a run.
    precision : {"f32", "bf16", "f16"}
        Of the inference; read back after compiling.
    cache_key : str or None
        Identifies network, weights, taps and versions; None keeps the converted network out of the cache.

    Raises
    ------
    EngineError
        This processor cannot run the precision.
    ConversionError
        OpenVINO cannot convert the network.
    """

    name = "openvino"
    device = "cpu"

    def __init__(
        self,
        taps: Taps,
        size: tuple[int, int],
        *,
        batch_size: int,
        precision: str = "f32",
        cache_key: str | None = None,
    ) -> None:
        core = shared_core()
        openvino = import_openvino()
        self.precision = precision
        _check_capability(core, precision)
        model = _converted(openvino, core, taps, size, cache_key)
        compiled = _compile(core, model, (batch_size, *size, 3), precision)
        _check_precision(compiled, precision)
        self._request = compiled.create_infer_request()
        self._padded = np.zeros((batch_size, *size, 3), np.uint8)

    def run(self, pixels: np.ndarray) -> list[np.ndarray]:
        """Return one (batch, width) float32 array for each tap.

        Parameters
        ----------
        pixels : ndarray of uint8
            (batch, height, width, 3); any number of images.
        """
        parts = [
            self._run_one(pixels[start : start + len(self._padded)])
            for start in range(0, len(pixels), len(self._padded))
        ]
        return parts[0] if len(parts) == 1 else [np.concatenate(columns) for columns in zip(*parts, strict=True)]

    def _run_one(self, pixels: np.ndarray) -> list[np.ndarray]:
        if len(pixels) < len(self._padded):
            self._padded[: len(pixels)] = pixels
            pixels, n_images = self._padded, len(pixels)
        else:
            n_images = len(pixels)
        outputs = self._request.infer([np.ascontiguousarray(pixels)], share_inputs=True, share_outputs=True)
        return [np.array(output[:n_images], np.float32) for output in outputs.values()]


def _compile(core: Any, model: Any, shape: tuple[int, ...], precision: str) -> Any:
    hints = {"INFERENCE_PRECISION_HINT": _PRECISION_HINTS[precision], "PERFORMANCE_HINT": "LATENCY"}
    try:
        model.reshape(list(shape))
        return core.compile_model(model, "CPU", hints)
    except RuntimeError as error:  # such as a batch size that the network's code has fixed
        raise ConversionError(_first_line(error)) from error


def _check_capability(core: Any, precision: str) -> None:
    found = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    needed = {"f32": "FP32", "bf16": "BF16", "f16": "FP16"}[precision]
    if needed not in found:
        allowed = [
            name for name, capability in (("f32", "FP32"), ("bf16", "BF16"), ("f16", "FP16")) if capability in found
        ]
        raise EngineError(f"this processor does not run {precision} with openvino; allowed: {', '.join(allowed)}")


def _check_precision(compiled: Any, precision: str) -> None:
    actual = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    if actual not in (precision, _READ_BACK[precision]):
        raise EngineError(f"asked openvino for {precision}, but it compiled to {actual}; give --precision f32")


def _converted(openvino: ModuleType, core: Any, taps: Taps, size: tuple[int, int], cache_key: str | None) -> Any:
    """Return the network as an OpenVINO model with a free batch axis, from the cache where it is there."""
    try:
        folder = cache_folder() / "converted" / cache_key if cache_key else None
    except RuntimeError:  # a user without a home
        folder = None
    if folder is not None:
        cached = _read_cached(core, folder)
        if cached is not None:
            return cached
    model = _convert(openvino, taps, size)
    _check_conversion(core, model, taps, size)
    if folder is not None:
        _write_cached(openvino, model, folder)
        # Always the stored form: it rounds otherwise in the last bit, and features should not show which run made them.
        return _read_cached(core, folder) or model
    return model


def _convert(openvino: ModuleType, taps: Taps, size: tuple[int, int]) -> Any:
    example = torch.zeros((_EXAMPLE_BATCH, *size, 3), dtype=torch.uint8)
    try:
        from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

        with _quiet_conversion(), torch.no_grad():
            # The tracer's own check takes three times as long as tracing, and would only warn.
            traced = TorchScriptPythonDecoder(taps.eval(), example_input=example, trace_kwargs={"check_trace": False})
            return openvino.convert_model(traced, input=[-1, *size, 3])
    except Exception as error:  # the converter raises many types; each means the same to the caller
        raise ConversionError(_first_line(error.__cause__ or error)) from error


def _check_conversion(core: Any, model: Any, taps: Taps, size: tuple[int, int]) -> None:
    """Raise `ConversionError` where the converted network gives other numbers: a trace freezes what hangs on values."""
    pixels = np.random.default_rng(0).integers(0, 256, (_EXAMPLE_BATCH, *size, 3), np.uint8)
    compiled = _compile(core, model.clone(), pixels.shape, "f32")
    with torch.inference_mode():
        expected = [output.numpy() for output in taps(torch.from_numpy(pixels))]
    for tap, found, wanted in zip(taps.taps, compiled([pixels]).values(), expected, strict=True):
        if found.shape != wanted.shape:
            raise ConversionError(f"converted, {tap.key} has shape {found.shape}, not {wanted.shape}")
        if not np.linalg.norm(found - wanted) <= _TOLERANCE * np.linalg.norm(wanted) + 1e-6:
            raise ConversionError(f"converted, {tap.key} has other values than in torch")


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@contextmanager
def _quiet_conversion() -> Iterator[None]:
    """Silence the tracer's deprecation warnings, and undo what the converter does to the root logger.

    A conversion that fails leaves it at the level ERROR, where nobody would read that torch runs instead.
    """
    root = logging.getLogger()
    level, filters, handlers = root.level, root.filters[:], root.handlers[:]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.setLevel(level)
        root.filters[:], root.handlers[:] = filters, handlers


def _read_cached(core: Any, folder: Path) -> Any:
    """Return a cached network, or None where there is none or a byte of it is not what was written."""
    try:
        if (folder / "digest").read_text() != _digest(folder):
            _logger.warning("the converted network in %s is damaged; converting again", folder)
            return None
        os.utime(folder)  # the least recently used goes first
        return core.read_model(folder / "network.xml")
    except (OSError, RuntimeError):
        return None


def _write_cached(openvino: ModuleType, model: Any, folder: Path) -> None:
    """Keep a converted network; a cache that cannot be written costs time, not the work."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".draft-"))
        try:
            openvino.save_model(model, draft / "network.xml", compress_to_fp16=False)
            (draft / "digest").write_text(_digest(draft))
            shutil.rmtree(folder, ignore_errors=True)
            draft.rename(folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        _prune(folder.parent)
    except (OSError, RuntimeError) as error:
        _logger.warning("the converted network is not kept in %s: %s", folder, error)


def _digest(folder: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name in ("network.xml", "network.bin"):
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()


def _prune(root: Path) -> None:
    entries = sorted((path for path in root.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime)
    for stale in entries[:-_MAX_CACHED]:
        shutil.rmtree(stale, ignore_errors=True)
