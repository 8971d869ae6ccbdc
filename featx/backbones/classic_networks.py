"""The classic networks that everybody compares with, and what timm has in their place today.

Size, accuracy, parameters and depth are printed as Keras Applications has them (https://keras.io/api/applications/):
figures of Keras' own weights, single centre crops, megabytes of 2**20 bytes; its depth counts, but for VGG, more than
the layers that are in a network's name. ``timm_top1`` is timm's own validation of the weights that are named here
(``results/results-imagenet.csv`` of huggingface/pytorch-image-models, commit 0173a139).

The notes on architectures were checked by counting: Keras' exact counts (it counts the statistics of batch norm among
the parameters) differ from timm's by nothing (Xception, VGG), by just one bias for each channel that is normalised
(ResNet) or that the stem, shortcuts and last convolutions of blocks give (ResNetV2), or by just one scale for each
channel that is normalised (Inception).
"""

from __future__ import annotations

import fnmatch
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from featx.backbones.catalogue import ModelSummary, summarise_model, weights_place, whole_pattern
from featx.backbones.names import DEFAULT_MODEL
from featx.backbones.timing import Timing, current_load, describe_machine, keep_timing, read_timings, time_network
from featx.errors import BackboneError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass(frozen=True)
class ClassicNetwork:
    """One network as Keras has it, and the nearest that timm has.

    Parameters
    ----------
    name : str
        As Keras calls it.
    megabytes : int or None
        Of Keras' weights; None, like the next four, where Keras has no such network.
    top1, top5 : float or None
        Accuracy of Keras' weights on ImageNet's validation images, %.
    parameters : float or None
        Keras' count, millions.
    depth : int or None
        Keras' count of layers.
    model : str
        timm's name.
    timm_top1 : float or None
        Accuracy of the weights of that name, %; None where there are none.
    note : str
        Where timm's network or weights are not the very same.
    """

    name: str
    megabytes: int | None
    top1: float | None
    top5: float | None
    parameters: float | None
    depth: int | None
    model: str
    timm_top1: float | None
    note: str = ""


_VGG = "same architecture; torchvision's training, where Keras has the authors' weights"
_RESNET = (
    "strides in the 3x3 convolutions, and no biases before batch norm, other than Keras; torchvision's training"
    " (the names without .tv_in1k have newer, more accurate weights)"
)
_RESNETV2 = "stages shrink the map at their first block, Keras' at their last; a newer training"
_AT_288 = "; its top-1 is at 288 pixels, the time at 224"
_INCEPTION = "batch norm with a scale, which Keras leaves out; TensorFlow's weights, as timm carried them over"

CLASSIC_NETWORKS = (
    ClassicNetwork("Xception", 88, 79.0, 94.5, 22.9, 81, "legacy_xception.tf_in1k", 79.0, "same architecture"),
    ClassicNetwork("VGG16", 528, 71.3, 90.1, 138.4, 16, "vgg16.tv_in1k", 71.6, _VGG),
    ClassicNetwork("VGG19", 549, 71.3, 90.0, 143.7, 19, "vgg19.tv_in1k", 72.4, _VGG),
    ClassicNetwork("ResNet50", 98, 74.9, 92.1, 25.6, 107, "resnet50.tv_in1k", 76.1, _RESNET),
    ClassicNetwork("ResNet101", 171, 76.4, 92.8, 44.7, 209, "resnet101.tv_in1k", 77.4, _RESNET),
    ClassicNetwork("ResNet152", 232, 76.6, 93.1, 60.4, 311, "resnet152.tv_in1k", 78.3, _RESNET),
    ClassicNetwork("ResNet50V2", 98, 76.0, 93.0, 25.6, 103, "resnetv2_50.a1h_in1k", 81.4, _RESNETV2 + _AT_288),
    ClassicNetwork("ResNet101V2", 171, 77.2, 93.8, 44.7, 205, "resnetv2_101.a1h_in1k", 83.0, _RESNETV2 + _AT_288),
    ClassicNetwork(
        "ResNet152V2", 232, 78.0, 94.2, 60.4, 307, "resnetv2_152", None,
        "timm has the architecture without weights: take resnetv2_101.a1h_in1k, or resnet152",
    ),
    ClassicNetwork("InceptionV3", 92, 77.9, 93.7, 23.9, 189, "inception_v3.tf_in1k", 77.9, _INCEPTION),
    ClassicNetwork("InceptionResNetV2", 215, 80.3, 95.3, 55.9, 449, "inception_resnet_v2.tf_in1k", 80.5, _INCEPTION),
    ClassicNetwork("EfficientNet-Lite0", None, None, None, None, None, DEFAULT_MODEL, 74.8, "featx' default"),
)  # fmt: skip


@dataclass(frozen=True)
class ClassicRow:
    """One classic network, as it is on this machine.

    Parameters
    ----------
    network : ClassicNetwork
        What is known of it.
    summary : ModelSummary or None
        What timm builds; None where it cannot.
    timing : Timing or None
        How long it takes; None where it could not be run.
    reason : str
        Why something is missing; empty where nothing is.
    """

    network: ClassicNetwork
    summary: ModelSummary | None
    timing: Timing | None
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the row as JSON-able values."""
        return {
            **asdict(self.network),
            "weights": None if self.summary is None else self.summary.weights,
            "n_parameters": None if self.summary is None else self.summary.n_parameters,
            "size": None if self.summary is None else self.summary.size,
            "timing": None if self.timing is None else asdict(self.timing),
            "reason": self.reason,
        }


@dataclass(frozen=True)
class ClassicTable:
    """All rows, and the machine that they were measured on.

    Parameters
    ----------
    rows : tuple of ClassicRow
        In the order asked for.
    machine : dict
        See `describe_machine`.
    n_measured : int
        Rows that were measured now; the others were remembered.
    not_kept : str
        Why new times could not be remembered; empty where they were.
    """

    rows: tuple[ClassicRow, ...]
    machine: dict[str, Any]
    n_measured: int
    not_kept: str

    def to_json(self) -> dict[str, Any]:
        """Return the table as JSON-able values."""
        return {"machine": self.machine, "networks": [row.to_json() for row in self.rows]}


def find_classic_networks(pattern: str = "*", *, local: bool = False) -> tuple[ClassicNetwork, ...]:
    """Return the classic networks whose name, Keras' or timm's, fits a pattern; upper and lower case are the same.

    Parameters
    ----------
    pattern : str
        With shell wildcards; without any it matches anywhere in the name.
    local : bool
        Only networks whose weights are on this machine.

    Raises
    ------
    BackboneError
        No name fits.
    """
    wanted = whole_pattern(pattern).lower()
    found = tuple(
        network
        for network in CLASSIC_NETWORKS
        if any(fnmatch.fnmatchcase(name.lower(), wanted) for name in (network.name, network.model))
        and (not local or weights_place(network.model) in ("bundled", "cache"))
    )
    if not found:
        where = " with weights on this machine" if local else ""
        names = ", ".join(network.name for network in CLASSIC_NETWORKS)
        raise BackboneError(f"no classic network{where} fits {pattern!r}; there are {names}")
    return found


def measure_classic_networks(
    networks: Sequence[ClassicNetwork],
    *,
    measure_again: bool = False,
    timer: Callable[[str], Timing] | None = None,
    on_progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> ClassicTable:
    """Return what the networks are, and how long each takes on this machine; times are measured once.

    Parameters
    ----------
    networks : sequence of ClassicNetwork
        From `find_classic_networks`.
    measure_again : bool
        Measure what is remembered, too.
    timer : callable, optional
        Name of a network to its time; `time_network` by default. What it raises becomes the row's reason.
    on_progress : callable
        Told how many networks are done, and how many there are.
    """
    timer = timer or time_network
    machine, load = describe_machine(), current_load()
    known = {} if measure_again else read_timings(machine)
    rows, n_measured, not_kept = [], 0, ""
    for number, network in enumerate(networks):
        on_progress(number, len(networks))
        architecture = network.model.partition(".")[0]  # speed does not depend on the weights
        summary, timing, reason = None, known.get(architecture), ""
        try:
            summary = summarise_model(network.model)
            if timing is None:
                timing = replace(timer(architecture), load=load)
                n_measured += 1
                not_kept = keep_timing(machine, architecture, timing) or not_kept
        except Exception as error:  # timm, torch and openvino have their own; other rows are still worth having
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        rows.append(ClassicRow(network, summary, timing, reason))
    on_progress(len(networks), len(networks))
    return ClassicTable(tuple(rows), machine, n_measured, not_kept)
