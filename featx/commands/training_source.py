"""Images, network and frozen features for the verbs that train, opened while a progress bar runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from featx.commands.training_progress import FrozenFeaturesProgress

if TYPE_CHECKING:
    from pathlib import Path

    from featx.extraction import ComputeOptions
    from featx.workflows.tuning_sources import TuningSource


def open_with_progress(
    source: str, frozen: Path, values: dict[str, Any], *, options: ComputeOptions, is_silent: bool, **others: Any
) -> TuningSource:
    """Return what is trained on.

    Parameters
    ----------
    source, frozen
        As in `featx.workflows.tuning_sources.open_tuning_source`.
    values : dict
        The options of `featx.commands.training_options.add_network_arguments`.
    options : ComputeOptions
        How features are computed.
    is_silent : bool
        Show the progress bar alone.
    **others
        ``layers`` and ``overwrite`` of `open_tuning_source`.
    """
    from featx.workflows.tuning_sources import open_tuning_source

    with FrozenFeaturesProgress(is_silent) as shown:
        return open_tuning_source(
            source,
            frozen,
            model=values["model"],
            weights=values["weights"],
            size=values["size"],
            options=options,
            on_begin=shown.begin,
            progress=shown,
            **others,
        )
