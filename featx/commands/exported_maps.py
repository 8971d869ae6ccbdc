"""``featx export --maps``: activation maps of an image as a picture."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from featx.commands.outputs import check_output, make_folder_of
from featx.errors import UsageError

if TYPE_CHECKING:
    import argparse


def add_map_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what says which maps are drawn."""
    group = parser.add_argument_group("activation maps of an image")
    group.add_argument(
        "--maps", metavar="LAYER[,LAYER]",
        help="draw the maps of these layers: names, globs, all-stages, P%%, early, middle, late",
    )  # fmt: skip
    group.add_argument("--model", metavar="NAME", help="network (default: tf_efficientnet_lite0)")
    group.add_argument("--weights", metavar="FILE", help="weights file, or random:SEED (default: looked for)")
    group.add_argument(
        "--channels", type=int, metavar="N", help="maps of each layer, those that vary most (default: 64)"
    )


def refuse_map_options(**options: object) -> None:
    """Raise `UsageError` where an option that goes with ``--maps`` was given without it."""
    given = [f"--{name}" for name, value in options.items() if value is not None]
    if given:
        raise UsageError(
            f"{' and '.join(given)} given without --maps LAYER, which draws the activation maps of an image; a store's"
            " features are exported as they are"
        )


def export_maps(
    image: str,
    out: str,
    *,
    layers: str,
    model: str | None,
    weights: str | None,
    channels: int | None,
    overwrite: bool,
) -> int:
    """Draw the activation maps of an image and print what is in the picture.

    Raises
    ------
    UsageError
        What is given is no image, or the picture cannot be written there.
    """
    from featx.workflows.file_kinds import require_picture
    from featx.workflows.map_pictures import DEFAULT_CHANNELS, check_picture_name, read_picture, write_map_picture

    target = check_output(out, image, overwrite=overwrite)
    check_picture_name(target)
    n_channels = DEFAULT_CHANNELS if channels is None else channels
    if n_channels < 1:
        raise UsageError(f"--channels {channels} is below 1; give at least 1, or leave it out for {DEFAULT_CHANNELS}")
    require_picture(image)

    from featx.backbones import DEFAULT_MODEL, open_backbone
    from featx.extraction import ComputeOptions, FeatureComputer, select_maps
    from featx.images import ImageEntry

    entry = ImageEntry(image, location=os.path.abspath(image))
    read_picture(entry)  # a damaged one should not wait for the network
    backbone = open_backbone(model or DEFAULT_MODEL, weights=weights)
    # One image is not worth a conversion: torch answers at once.
    options = ComputeOptions(engine="torch", device="cpu", batch_size=1)
    computer = FeatureComputer(backbone, select_maps(backbone, layers).taps, options)
    make_folder_of(target)
    shown = write_map_picture(target, entry, computer, n_channels=n_channels, overwrite=overwrite)
    print(f"{out}: {os.path.basename(image)} in {backbone.name}, weights {backbone.weights.source}")
    print("\n".join(f"{maps.layer}: {maps}" for maps in shown))
    return 0
