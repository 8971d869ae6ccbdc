"""Which road of transfer to take with the images of a store: what is measured, and the advice that follows."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from featx.advice import LayerSweep, SetSize, Similarity, decide, measure_layers, measure_similarity, measure_size
from featx.advice.wording import counted
from featx.backbones import PENULTIMATE, open_backbone
from featx.errors import FeatxError, HeadError, ImageError
from featx.extraction import FeatureSpec
from featx.images import ImageEntry, list_images, unescape_path
from featx.images.torchvision_data import PREFIX
from featx.workflows.labelled_rows import LabelledRows, labelled_rows
from featx.workflows.leak_guard import guard_rows
from featx.workflows.learnable_features import features_by_layer, late_layer, layers_to_try, reduction_notes
from featx.workflows.moved_weights import moved_weights_explained
from featx.workflows.originals import original_location
from featx.workflows.stored_features import base_fingerprint

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from featx.advice import Advice
    from featx.backbones import Backbone
    from featx.comparison import ComparisonProgress
    from featx.extraction.loading import Readable
    from featx.store import FeatureStore

N_IMAGES = 96  # that are looked at again for the similarity


@dataclass(frozen=True)
class AdviseSettings:
    """What of a store is looked at.

    Parameters
    ----------
    held_out, seed, group_column, allow_duplicates
        As in `featx.workflows.fitting.FitSettings`: rows that a fit would be scored on take no part in the evidence by
        layer.
    allow_random : bool
        Accept features of untrained weights.
    weights : str, optional
        Where the network's weights are now, if they have moved.
    """

    held_out: float = 0.2
    seed: int = 0
    group_column: str | None = None
    allow_duplicates: bool = False
    allow_random: bool = False
    weights: str | None = None


@dataclass(frozen=True)
class AdviceReport:
    """An advice, and what it was made of.

    Attributes
    ----------
    advice : Advice
        With size, similarity and layers.
    sweep : LayerSweep or None
        Evidence by layer; None without labels.
    late : str
        Key of the last layer.
    keys : tuple of str
        Of all layers of the store.
    model : str
        Name of the network.
    rows : str
        Which rows the layers were measured on, in words.
    notes : tuple of str
        What else there is to know.
    """

    advice: Advice
    sweep: LayerSweep | None
    late: str
    keys: tuple[str, ...]
    model: str
    rows: str
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the advice in the stable shape of ``advise --json``, with more beside it."""
        advice, similarity = self.advice, self.advice.similarity
        return {
            "similarity": similarity.value,
            "size": advice.size.to_json(),
            "quadrant": advice.quadrant,
            "between": advice.between,
            "strategy": advice.strategy,
            "layer": advice.layer,
            "layers": [asdict(entry) for entry in advice.layers],
            "measured_similarity": {name: value for name, value in asdict(similarity).items() if name != "value"},
            "evidence": None if self.sweep is None else _evidence_values(self.sweep, self.rows),
            "reasons": list(advice.reasons),
            "risks": list(advice.risks),
            "also_worth": [asdict(other) for other in advice.also_worth],
            "notes": list(self.notes),
        }


def advise_store(
    store: FeatureStore,
    settings: AdviseSettings | None = None,
    *,
    backbone: Backbone | None = None,
    entries: Sequence[Readable] | None = None,
    on_progress: Callable[[ComparisonProgress], None] | None = None,
) -> AdviceReport:
    """Return which road to take with the images of a store.

    Parameters
    ----------
    store : FeatureStore
        Of one layer or, better, several.
    settings : AdviseSettings, optional
        What of it is looked at.
    backbone : Backbone, optional
        The network, where it is open; by default the one that the features came from is opened.
    entries : sequence of Readable, optional
        The images; by default the originals, where they were when the store was made.
    on_progress : callable, optional
        Called with a `ComparisonProgress` after each fold of a layer.

    Raises
    ------
    RefusedError
        The features come from untrained weights, and `settings` does not allow that.
    SourceError, UsageError
        There is no such column of groups.
    FeatureKeyError
        The store holds no features.
    """
    settings = settings or AdviseSettings()
    late = late_layer(store)
    FeatureSpec.of_store(store, late).refuse_random(allowed=settings.allow_random, what="advice from them")
    rows, sweep, missing = None, None, ""
    try:
        rows = labelled_rows(
            store,
            held_out=settings.held_out,
            seed=settings.seed,
            group_column=settings.group_column,
            allow_duplicates=settings.allow_duplicates,
        )
    except HeadError as error:
        missing = str(error)
    size = _measure_size(store, rows, settings)
    if rows is not None:
        try:
            sweep = _measure_layers(store, rows, late, settings.seed, size.is_uneven, on_progress)
        except HeadError as error:
            missing = str(error)
    similarity = _measure_similarity(store, settings, backbone, entries)
    return AdviceReport(
        advice=decide(size, similarity, sweep, no_sweep=missing),
        sweep=sweep,
        late=late,
        keys=tuple(store.keys),
        model=str(store.fingerprint.get("model", "")),
        rows="" if rows is None else f"the rows that fit is not scored on ({rows.split.on})",
        notes=tuple(_notes(store, rows, sweep)),
    )


def _evidence_values(sweep: LayerSweep, rows: str) -> dict[str, Any]:
    return {
        "rows": sweep.n_rows,
        "on": rows,
        "folds": sweep.n_folds,
        "repeats": sweep.n_repeats,
        "balanced": sweep.is_balanced,
        "majority_accuracy": sweep.majority_accuracy,
        "learned": sweep.learned,
    }


def _measure_layers(
    store: FeatureStore,
    rows: LabelledRows,
    late: str,
    seed: int,
    balanced: bool,
    on_progress: Callable[[ComparisonProgress], None] | None,
) -> LayerSweep:
    """Return the evidence of every layer, on the rows that a classifier would learn from."""
    train = rows.split.train
    return measure_layers(
        features_by_layer(store),
        rows.labels[train],
        layers_to_try(store),
        late=late,
        depths={key: info.depth for key, info in store.infos.items()},
        rows=train,
        groups=rows.groups_of(train),
        balanced=balanced,
        seed=seed,
        on_progress=on_progress,
    )


def _measure_size(store: FeatureStore, rows: LabelledRows | None, settings: AdviseSettings) -> SetSize:
    labels = np.asarray(store.labels)
    groups = None
    if not settings.allow_duplicates and (labels >= 0).any():
        # Where the user named no groups, those of the rows are of copies alone, and need not be looked for again.
        has_own = store.groups is not None or settings.group_column is not None
        groups = guard_rows(store, labels).near_groups if rows is None or has_own else rows.groups
    return measure_size(labels, store.label_names, groups)


def _measure_similarity(
    store: FeatureStore, settings: AdviseSettings, backbone: Backbone | None, entries: Sequence[Readable] | None
) -> Similarity:
    """Return the similarity of the originals; of no value, and with the reason, where it cannot be had."""
    try:
        opened = _open_network(store, settings.weights) if backbone is None else backbone
        network = _at_own_size(opened, settings.weights)
        found = measure_similarity(network, _originals(store) if entries is None else entries, n_images=N_IMAGES)
    except FeatxError as error:
        return _not_measured(str(error))
    if found.value is None and not found.n_images and not network.weights.is_random:
        is_told = entries is not None
        where = "" if is_told else f", where they were when the store was made ({unescape_path(store.source)})"
        return _not_measured(f"{found.reason}{where}")
    if found.value is not None and network is not opened:
        own, other = (" x ".join(map(str, one.transform.size)) for one in (network, opened))
        return replace(
            found, reason=f"{found.reason}; at the network's own {own} pixels, though features are of {other}"
        )
    return found


def _not_measured(reason: str) -> Similarity:
    return Similarity(None, None, "unknown", "", reason.rstrip("."), 0, (), None)


def _open_network(store: FeatureStore, weights: str | None) -> Backbone:
    """Return the network that the features came from, before they were reduced."""
    key = store.keys[0]
    spec = FeatureSpec(key, store.infos[key].width, base_fingerprint(store.fingerprint))
    with moved_weights_explained(spec, weights):
        return spec.open(weights=weights).backbone


def _at_own_size(backbone: Backbone, weights: str | None) -> Backbone:
    """Return the network for pictures of its own size, for which alone it is known what a similarity means.

    That size is known only once it is opened again, which takes a tenth of a second for the default network.
    """
    if backbone.weights.is_random or not backbone.is_named:
        return backbone
    source = backbone.weights.source
    if weights is None and source.startswith("file:"):
        weights = source.removeprefix("file:")
    own = open_backbone(backbone.name, weights=weights, download=False)
    return backbone if own.transform.size == backbone.transform.size else own


@dataclass(frozen=True)
class _Original:
    """The image of a row, as long as it is still the one that the features were made of."""

    entry: ImageEntry
    digest: bytes

    @property
    def path(self) -> str:
        return self.entry.path

    def read(self) -> Any:
        image = self.entry.read()
        if image.digest != self.digest:
            raise ImageError(f"{self.path} is another image than the one in the store")
        return image


def _originals(store: FeatureStore) -> list[_Original]:
    digests = store.digests
    paths = store.paths.tolist()
    if store.source.startswith(PREFIX):
        by_path = {entry.path: entry for entry in list_images(unescape_path(store.source)).entries}
        found = [by_path.get(path, ImageEntry(path)) for path in paths]
    else:
        found = [ImageEntry(path, location=original_location(store.source, path)) for path in paths]
    return [_Original(entry, bytes(digest)) for entry, digest in zip(found, digests, strict=True)]


def _notes(store: FeatureStore, rows: LabelledRows | None, sweep: LayerSweep | None) -> list[str]:
    notes = []
    if len(store.keys) == 1:
        other = "an earlier" if store.infos[store.keys[0]].layer == PENULTIMATE else "another"
        notes.append(
            f"the store holds one layer, {store.keys[0]}: evidence by layer is thin, and {other} layer might do better;"
            " featx extract adds layers to it"
        )
    if rows is not None:
        notes += [
            *rows.notes,
            *([f"{counted(rows.n_unlabelled, 'row')} without a label left out"] if rows.n_unlabelled else []),
        ]
    return [*notes, *(sweep.notes if sweep else ()), *reduction_notes(store)]
