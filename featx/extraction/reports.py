"""What an extraction would do, where it stands, and what it did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class ExtractionReport:
    """What an extraction did.

    Parameters
    ----------
    out : Path
        The store.
    rows : int
        Rows in it.
    n_computed : int
        Images that went through the network.
    n_kept : int
        Images whose features were there already.
    n_removed : int
        Rows of an earlier store whose images are gone.
    failures : tuple of (str, str)
        Path and reason of every image without a row.
    engine : str
        What ran, such as ``openvino on cpu, f32``; empty where nothing had to be computed.
    """

    out: Path
    rows: int
    n_computed: int
    n_kept: int
    n_removed: int
    failures: tuple[tuple[str, str], ...]
    engine: str


@dataclass(frozen=True)
class ExtractionPlan:
    """What an extraction would do.

    Parameters
    ----------
    rows : int
        Images listed.
    n_missing : int
        Images that have to be read and computed.
    minutes : float
        Estimate, from a few images computed on this machine.
    """

    rows: int
    n_missing: int
    minutes: float


@dataclass(frozen=True)
class ExtractionProgress:
    """Where an extraction stands: images done, of how many, and how many of them were computed."""

    n_done: int
    n_total: int
    n_computed: int
