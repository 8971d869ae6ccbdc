"""Figures that are drawn in memory and written in one step; equal figures give equal files.

Figures are made without pyplot, so that nothing global is changed and no window opens. matplotlib is imported when a
picture is asked for.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from featx.errors import UsageError
from featx.workflows.one_step_files import draft_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours that most colour-blind people can tell apart (M. Okabe, K. Ito 2008, and two more); shapes help the others.
# First those that text can be written in.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#5D3A9B", "#8C564B", "#CC79A7", "#E69F00", "#56B4E9")
SHAPES = ("o", "s", "^", "v", "D", "P", "X", "<")
GREY = "#777777"
LEGEND_STYLE: dict[str, Any] = {"fontsize": 8.5, "frameon": False}
_METADATA: dict[str, dict[str, None]] = {".png": {}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}  # no date


def picture_path(path: str | Path) -> Path:
    """Return the path of a picture after checking that it can be written there.

    Raises
    ------
    UsageError
        It does not end in .png, .svg or .pdf, or its folder does not exist.
    """
    path = Path(path)
    if path.suffix.lower() not in _METADATA:
        raise UsageError(f"a picture {path.name!r} was asked for; allowed endings are {', '.join(_METADATA)}.")
    if not path.parent.is_dir():
        raise UsageError(f"there is no folder {path.parent} for the picture. Make it, or choose another.")
    return path


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure that is drawn in memory; sizes in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure where `picture_path` said; a file that is there is replaced.

    Raises
    ------
    StoreError
        It cannot be written.
    """
    import matplotlib as mpl

    with draft_of(path, overwrite=True) as draft, mpl.rc_context({"svg.hashsalt": "featx"}):
        figure.savefig(draft, dpi=150, metadata=_METADATA[path.suffix.lower()])


def tidy_axes(axes: Axes) -> None:
    """Leave a pale grid behind the lines, and only the left and lower edges."""
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def plain_text(text: str) -> str:
    """Return a text in which no dollar sign starts a formula."""
    return text.replace("$", r"\$")
