"""Running taps with torch: on CUDA and MPS, and on the CPU where OpenVINO cannot."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from featx.errors import EngineError

if TYPE_CHECKING:
    from featx.backbones.taps import Taps

DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16}


class TorchEngine:
    """Taps run by torch in inference mode.

    Parameters
    ----------
    taps : Taps
        What to run; moved to the device.
    device : str
        A torch device, such as ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``.
    precision : {"f32", "bf16", "f16"}
        The last two by autocast; f16 is not for the CPU.
    compiled : bool
        Whether to run through ``torch.compile``.

    Raises
    ------
    EngineError
        The device is not there, or cannot run the precision.
    """

    name = "torch"

    def __init__(self, taps: Taps, *, device: str = "cpu", precision: str = "f32", compiled: bool = False) -> None:
        self.device = check_device(device)
        self.precision = precision
        self._kind = kind = torch.device(self.device).type
        if precision == "f16" and kind == "cpu":
            raise EngineError("precision f16 is not for torch on the CPU; allowed there: f32, bf16")
        if precision == "bf16" and kind == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
            raise EngineError(f"{torch.cuda.get_device_name()} has no bf16; allowed: f32, f16")
        self._taps = taps.to(self.device).eval()
        self._arrange(torch.channels_last)
        self._run: Any = torch.compile(self._taps) if compiled else self._taps

    def run(self, pixels: np.ndarray) -> list[np.ndarray]:
        """Return one (batch, width) float32 array for each tap.

        Parameters
        ----------
        pixels : ndarray of uint8
            (batch, height, width, 3).
        """
        dtype = DTYPES.get(self.precision)
        precise = torch.autocast(self._kind, dtype=dtype) if dtype else nullcontext()
        try:
            with torch.inference_mode(), precise, _full_f32(self._kind):
                # torch shares memory only with arrays that are contiguous and writable.
                shared = torch.from_numpy(np.require(pixels, requirements=("C", "W")))
                outputs = self._computed(shared.to(self.device))
                return [output.float().cpu().numpy() for output in outputs]
        except torch.OutOfMemoryError as error:
            raise EngineError(
                f"{self.device} has too little memory for batches of {len(pixels)}; give a smaller --batch-size"
            ) from error

    def _computed(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        try:
            return self._run(pixels)
        except RuntimeError as error:
            if self._taps.memory_format is torch.contiguous_format or "view size is not compatible" not in str(error):
                raise
            self._arrange(torch.contiguous_format)  # the network's code calls `view`, which wants this order
            return self._run(pixels)

    def _arrange(self, memory_format: torch.memory_format) -> None:
        """Lay out pictures, and on CUDA weights, with channels last (faster) or first."""
        self._taps.memory_format = memory_format
        if self._kind == "cuda":
            self._taps.to(memory_format=memory_format)


class _full_f32:  # noqa: N801 - a context manager, read like a function
    """No TF32 in convolutions while it lasts: what is called f32 is f32."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def __enter__(self) -> None:
        if self._kind == "cuda":
            self._before = (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32)
            torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False

    def __exit__(self, *_: object) -> None:
        if self._kind == "cuda":
            torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = self._before


def check_device(device: str) -> str:
    """Return the device, or raise what this machine has instead."""
    available = ["cpu"]
    if torch.cuda.is_available():
        available += ["cuda", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        available.append("mps")
    if device not in available:
        raise EngineError(f"device {device!r} is not on this machine; found: {', '.join(available)}")
    return device


def best_device() -> str:
    """Return ``cuda`` or ``mps`` where there is one, else ``cpu``."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
