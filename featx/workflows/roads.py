"""The frozen road and those that it replaces, walked on the same images: one table, one picture."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featx import backbones
from featx.errors import UsageError
from featx.extraction import ComputeOptions
from featx.store import FeatureStore
from featx.workflows.finetuning import finetune
from featx.workflows.fitting import AUTO
from featx.workflows.one_step_files import draft_of
from featx.workflows.paired_gains import paired_gain
from featx.workflows.road_plots import RoadPoint, save_road_plot
from featx.workflows.tuning_folder import check_folder
from featx.workflows.tuning_job import FEATURES, FinetuneSettings, TuningEvents
from featx.workflows.tuning_outcome import fit_svm
from featx.workflows.tuning_results import number_in_words

if TYPE_CHECKING:
    from featx.finetuning import TuningSettings
    from featx.heads import Evaluation
    from featx.workflows.fitting import FitResult
    from featx.workflows.paired_gains import PairedGain
    from featx.workflows.tuning_results import TuningResult
    from featx.workflows.tuning_sources import TuningSource

FROZEN, SCRATCH = "frozen", "scratch"
ROADS = (FROZEN, "minimum", "partial", "total", SCRATCH)
_FEATURES, _TABLE = "features.h5", "roads"


@dataclass(frozen=True)
class Road:
    """One way from images to a classifier, and where it led.

    Attributes
    ----------
    name : str
        Of `ROADS`.
    what : str
        Was done, in a few words.
    layer : str
        That features were taken of.
    evaluation : Evaluation
        Of the classifier that is kept, on images that none of the roads has seen.
    svm_accuracy : float or None
        Of a linear SVM on the tuned features, where the network was tuned.
    gain : PairedGain or None
        Over the frozen road, on the same images; None for that one itself, and without it.
    seconds : float
        From images to classifier; frozen features, which several roads need, count for each that needs them.
    folder : Path
        Where its files lie.
    notes : tuple of str
        What the user should know.
    """

    name: str
    what: str
    layer: str
    evaluation: Evaluation
    svm_accuracy: float | None
    gain: PairedGain | None
    seconds: float
    folder: Path
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the road as JSON-able values."""
        return {
            "road": self.name,
            "what": self.what,
            "layer": self.layer,
            "evaluation": self.evaluation.to_json(),
            "svm_accuracy": self.svm_accuracy,
            "gain": None if self.gain is None else self.gain.to_json(),
            "seconds": round(self.seconds, 3),
            "folder": str(self.folder),
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class RoadsSettings:
    """Which roads are walked, and how.

    Parameters
    ----------
    tunings : dict of str to TuningSettings
        How the network is trained on each road but the frozen one; those that are not in it are not walked.
    frozen : bool
        Walk the frozen road: the best layer by cross-validation with a linear SVM.
    around : FinetuneSettings
        What is done around each training; its own `tuning` counts where there is no other.
    """

    tunings: dict[str, TuningSettings]
    frozen: bool = True
    around: FinetuneSettings = field(default_factory=FinetuneSettings)

    def __post_init__(self) -> None:
        """Check the names."""
        for name in self.tunings:
            if name not in ROADS[1:]:
                raise UsageError(f"road {name!r} is unknown; allowed: {', '.join(ROADS)}")


def features_file(out: Path, *, overwrite: bool = False) -> Path:
    """Return where frozen features go in a folder of roads, after checking that it may become one.

    Parameters
    ----------
    out : Path
        The folder; it need not exist.
    overwrite : bool
        Other things may be in it.

    Raises
    ------
    UsageError
        It is a file.
    WouldOverwriteError
        It holds other things.
    """
    tables = {f"{_TABLE}.{ending}" for ending in ("json", "md", "png")}
    check_folder(out, {*ROADS, *tables, _FEATURES}, allowed=overwrite)
    return out / _FEATURES


def seconds_note(source: TuningSource) -> str:
    """Return what the seconds leave out; empty where they are whole."""
    return "seconds leave out features that were there already" if source.has_kept else ""


def walk_roads(
    source: TuningSource,
    out: Path,
    settings: RoadsSettings,
    *,
    seconds: float = 0.0,
    options: ComputeOptions | None = None,
    events_of: Callable[[str, TuningSettings], TuningEvents] = lambda _name, _tuning: TuningEvents(),
    on_road: Callable[[Road], None] = lambda _road: None,
) -> list[Road]:
    """Return what each road came to on the same split, after saving a table and a picture of it.

    Parameters
    ----------
    source : TuningSource
        Images, network, and its frozen features of all layers that the frozen road may choose from.
    out : Path
        A folder; each road gets one inside it. Interrupted trainings in it go on, finished ones are not repeated.
    settings : RoadsSettings
        Which roads, and how.
    seconds : float
        That computing the frozen features took in this run.
    options : ComputeOptions, optional
        Device, and threads that decode.
    events_of : callable
        Road and its settings → what its training calls.
    on_road : callable
        Called with each road when its end is reached.

    Raises
    ------
    HeadError
        There are no labels, or too few images.
    TuningError
        A training came to nothing.
    WouldOverwriteError
        The folder of a road holds a training with other settings.
    """
    roads: list[Road] = []
    with FeatureStore(source.store) as store:
        seen = _Walk(source, store, Path(out), settings, options or ComputeOptions(), seconds)
        frozen = seen.frozen() if settings.frozen else None
        if frozen is not None:
            roads.append(frozen)
            on_road(frozen)
        for name in ROADS[1:]:
            if name in settings.tunings:
                roads.append(seen.tuned(name, events_of(name, settings.tunings[name])))
                on_road(roads[-1])
    _save(roads, Path(out), f"{source.backbone.name}: roads of transfer learning", seconds_note(source))
    return roads


@dataclass
class _Walk:
    """What all roads have in common."""

    source: TuningSource
    store: FeatureStore
    out: Path
    settings: RoadsSettings
    options: ComputeOptions
    seconds: float
    _right: np.ndarray | None = None  # which held-out images the frozen road names rightly
    _last_layer: FitResult | None = None  # a linear SVM on frozen features, which every training is compared with

    @property
    def _around(self) -> FinetuneSettings:
        """What is done around each training, with the seed of all of them."""
        tuning = next(iter(self.settings.tunings.values()), self.settings.around.tuning)
        return replace(self.settings.around, tuning=tuning)

    def frozen(self) -> Road:
        """Walk the road without training."""
        started = time.perf_counter()
        result = fit_svm(self.store, self._around, AUTO)
        folder = self.out / FROZEN
        folder.mkdir(parents=True, exist_ok=True)
        result.bundle.save(folder / "classifier.featx", overwrite=True)
        self._right = result.predicted_rightly
        if result.bundle.spec.key == FEATURES:
            self._last_layer = result
        key = result.bundle.spec.key
        seconds = self.seconds + time.perf_counter() - started
        return Road(FROZEN, "linear SVM", key, result.evaluation, None, None, seconds, folder, result.fitted.notes)

    def tuned(self, name: str, events: TuningEvents) -> Road:
        """Walk a road on which something is trained."""
        tuning = self.settings.tunings[name]
        backbone = self.source.backbone
        if name == SCRATCH:
            weights, size = f"random:{tuning.seed}", backbone.transform.side
            backbone = backbones.open_backbone(backbone.name, weights=weights, size=size)
        around = self.settings.around
        # Without tuned features a linear SVM after the training would be the frozen road again.
        classifier = "softmax" if name == "minimum" else around.classifier
        settings = replace(around, tuning=tuning, classifier=classifier)
        self._last_layer = self._last_layer or fit_svm(self.store, settings)
        folder = self.out / name
        result = finetune(
            self.store,
            self.source.listing,
            backbone,
            folder,
            settings,
            options=self.options,
            events=events,
            frozen=self._last_layer,
        )
        is_svm = settings.classifier == "svm"
        needs_features = tuning.uses_features or (tuning.head_start and name != SCRATCH)
        return Road(
            name=name,
            what=f"{number_in_words(result.n_trained)} parameters, epoch {result.best_epoch} of {len(result.records)}",
            layer=FEATURES,
            evaluation=result.svm if is_svm else result.softmax,
            svm_accuracy=None if tuning.regime == "minimum" else result.svm.accuracy,
            gain=self._gain(result),
            seconds=result.seconds + (self.seconds if needs_features else 0.0),
            folder=folder,
            notes=result.notes,
        )

    def _gain(self, result: TuningResult) -> PairedGain | None:
        return None if self._right is None else paired_gain(self._right, result.predicted_rightly)


def _save(roads: Sequence[Road], out: Path, title: str, note: str) -> None:
    out.mkdir(parents=True, exist_ok=True)
    with draft_of(out / f"{_TABLE}.json", overwrite=True) as draft:
        draft.write_text(json.dumps([road.to_json() for road in roads], indent=1), encoding="utf-8")
    with draft_of(out / f"{_TABLE}.md", overwrite=True) as draft:
        draft.write_text(to_markdown(roads) + (f"\n{note}\n" if note else ""), encoding="utf-8")
    points = [RoadPoint(road.name, road.evaluation.accuracy, road.evaluation.interval, road.seconds) for road in roads]
    save_road_plot(points, out / f"{_TABLE}.png", title=title, baseline=roads[0].evaluation.majority_accuracy)


def to_markdown(roads: Sequence[Road]) -> str:
    """Return the roads as a table."""
    lines = [
        "| road | features | what | accuracy | 95 % | balanced | SVM on its features | gain over frozen | seconds |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for road in roads:
        score, gain = road.evaluation, road.gain
        cells = [
            road.name,
            road.layer,
            road.what,
            f"{score.accuracy:.3f}",
            "{:.3f} to {:.3f}".format(*score.interval),
            f"{score.balanced_accuracy:.3f}",
            "" if road.svm_accuracy is None else f"{road.svm_accuracy:.3f}",
            "" if gain is None else "{:+.3f} [{:+.3f}, {:+.3f}]".format(gain.difference, *gain.interval),
            f"{road.seconds:.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
