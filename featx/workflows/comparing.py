"""Comparing layers, scalers, reducers and heads on the rows of a store that a classifier would learn from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np

from featx.comparison import (
    Comparison,
    ComparisonSettings,
    Journal,
    LayerCost,
    budget_named,
    chosen_ways,
    compare_candidates,
    joined_layers,
    make_candidates,
)
from featx.errors import FeatxError, UsageError
from featx.heads.threads import MANY_VALUES
from featx.store import FeatureStore
from featx.workflows.labelled_rows import LabelledRows, labelled_rows
from featx.workflows.learnable_features import (
    features_by_layer,
    late_layer,
    layers_to_try,
    learnable_spec,
    reduction_notes,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from featx.comparison import ComparisonProgress

_MANY_CLASSES = 50


@dataclass(frozen=True)
class CompareSettings:
    """What is compared, and how.

    Parameters
    ----------
    budget : {"quick", "full"}
        A row of `featx.comparison.BUDGETS`.
    layers : sequence of str, optional
        Names in the store, joined by ``+`` where several stand side by side; by default all, and the deepest two, the
        deepest four and all side by side.
    scales, reduces, heads : sequence of str, optional
        Where one of them is given, all combinations are compared instead of the budget's own.
    n_repeats : int, optional
        Times that the rows are divided into folds anew; the budget's by default.
    n_folds, n_inner_folds : int
        See `featx.comparison.ComparisonSettings`.
    seed : int
        Of folds, heads, and held-out rows.
    held_out : float
        As in `featx.workflows.fitting.FitSettings`: rows that a fit would be scored on take no part.
    all_rows : bool
        Let them take part.
    class_weight : str, optional
        ``"balanced"`` or None.
    n_jobs : int, optional
        Processes; by default one, or one a processor where the work pays for starting them.
    group_column : str, optional
        A column of the store's CSV: images with the same text in it stay on one side.
    allow_duplicates : bool
        Do not look for copies and near-copies of images.
    allow_random : bool
        Accept features of untrained weights.

    Raises
    ------
    UsageError
        For an unknown budget, scaler, reducer or head, or a number out of its range.
    """

    budget: str = "quick"
    layers: Sequence[str] | None = None
    scales: Sequence[str] | None = None
    reduces: Sequence[str] | None = None
    heads: Sequence[str] | None = None
    n_repeats: int | None = None
    n_folds: int = 5
    n_inner_folds: int = 3
    seed: int = 0
    held_out: float = 0.2
    all_rows: bool = False
    class_weight: str | None = None
    n_jobs: int | None = None
    group_column: str | None = None
    allow_duplicates: bool = False
    allow_random: bool = False

    def __post_init__(self) -> None:
        """Check names and numbers, so that nobody waits for an error."""
        for name in ("layers", "scales", "reduces", "heads"):
            if isinstance(getattr(self, name), str):
                raise UsageError(f"{name}={getattr(self, name)!r} is a text, not a list; give a list of names")
        self.ways()
        self.of_folds()

    def ways(self) -> tuple[tuple[str, str, str], ...]:
        """Return the scalers, reducers and heads that are compared."""
        return chosen_ways(budget_named(self.budget), self.scales, self.reduces, self.heads)

    def of_folds(self) -> ComparisonSettings:
        """Return the part that says how candidates are measured."""
        repeats = budget_named(self.budget).n_repeats if self.n_repeats is None else self.n_repeats
        return ComparisonSettings(
            n_folds=self.n_folds,
            n_repeats=repeats,
            n_inner_folds=self.n_inner_folds,
            seed=self.seed,
            class_weight=self.class_weight,
            n_jobs=1 if self.n_jobs is None else self.n_jobs,
        )


def compare(
    source: str | Path | FeatureStore | Mapping[str, Any] | Any,
    y: Any = None,
    *,
    groups: Any = None,
    journal: str | Path | None = None,
    on_progress: Callable[[ComparisonProgress], None] | None = None,
    **settings: Any,
) -> Comparison:
    """Return how layers, scalers, reducers and heads do on the same folds.

    Parameters
    ----------
    source : str, Path, FeatureStore, mapping of str to array, or array
        A store with labels; or features (n, d) by layer, from the shallowest to the deepest; or one array of them.
    y : array-like of int, shape (n,), optional
        Class of each row, for arrays only.
    groups : array-like of int, shape (n,), optional
        For arrays only: rows of one group (0 or more) are never split between folds.
    journal : str or Path, optional
        A file that remembers scores, so that an interrupted comparison goes on.
    on_progress : callable, optional
        Called with a `ComparisonProgress` now and then.
    **settings
        Fields of `CompareSettings`: ``budget="full"``, ``layers=[...]``, ``heads=[...]``, ``n_jobs=2`` …

    Returns
    -------
    Comparison
        ``.best``, ``.cheapest``, ``.results``, ``.to_markdown()``.

    Raises
    ------
    HeadError
        Fewer than two classes have two rows.
    UsageError
        For an unknown name or setting, or where classes are missing beside arrays or given beside a store.

    Examples
    --------
    >>> from featx import compare
    >>> result = compare("flowers.h5")  # doctest: +SKIP
    >>> print(result.to_markdown())  # doctest: +SKIP
    """
    unknown = sorted(settings.keys() - CompareSettings.__dataclass_fields__.keys())
    if unknown:
        raise UsageError(
            f"unknown setting {unknown[0]!r}; allowed are {', '.join(CompareSettings.__dataclass_fields__)}."
            " Name one of them."
        )
    chosen = CompareSettings(**settings)
    if isinstance(source, (str, Path, FeatureStore)) and not (y is None and groups is None):
        raise UsageError("y or groups were given beside a store, which has its own; leave them out")
    if isinstance(source, (str, Path)):
        with FeatureStore(source) as store:
            return compare_store(store, chosen, journal=journal, on_progress=on_progress)
    if isinstance(source, FeatureStore):
        return compare_store(source, chosen, journal=journal, on_progress=on_progress)
    return _compare_arrays(_given_rows(source, y, groups), chosen, journal, on_progress)


def compare_store(
    store: FeatureStore,
    settings: CompareSettings | None = None,
    *,
    journal: str | Path | None = None,
    on_progress: Callable[[ComparisonProgress], None] | None = None,
) -> Comparison:
    """Return how candidates do on the rows of a store that a classifier would learn from.

    The rows that ``fit-…`` is scored on take no part, so that the score of the recommended classifier stays one on rows
    that nothing was chosen by.

    Parameters
    ----------
    store : FeatureStore
        With labels.
    settings : CompareSettings, optional
        What is compared, and how.
    journal, on_progress
        As in `compare`.

    Raises
    ------
    HeadError
        There are no labels, only one class, or fewer than two classes with two rows.
    RefusedError
        The features come from untrained weights, and `settings` does not allow that.
    UsageError
        For an unknown name.
    """
    settings = settings or CompareSettings()
    spec = learnable_spec(store, late_layer(store))
    spec.refuse_random(allowed=settings.allow_random, what="a comparison of them")
    asked = settings.layers
    layers = layers_to_try(store) if asked is None else [learnable_spec(store, name).key for name in asked]
    rows = labelled_rows(
        store,
        held_out=settings.held_out,
        seed=settings.seed,
        group_column=settings.group_column,
        allow_duplicates=settings.allow_duplicates,
    )
    taken = np.flatnonzero(rows.labels >= 0) if settings.all_rows else rows.split.train
    left = 0 if settings.all_rows else len(rows.split.held_out)
    said = f"all but the {left} rows that fit is scored on ({rows.split.on})" if left else "all labelled rows"
    features = features_by_layer(store, layers)
    part = _Rows(
        {key: _RowsOf(array, taken) for key, array in features.items()},
        rows.labels[taken],
        rows.groups_of(taken),
        said,
        (*rows.notes, *_notes_of_rows(rows, settings), *reduction_notes(store)),
        layer_costs(store),
    )
    return _compare_arrays(part, replace(settings, layers=layers), journal, on_progress)


def _notes_of_rows(rows: LabelledRows, settings: CompareSettings) -> list[str]:
    notes = [f"{rows.n_unlabelled} rows without a label left out"] if rows.n_unlabelled else []
    if settings.all_rows:
        notes.append(
            "the rows that fit is scored on took part in this choice: its score will be no score on unseen rows"
        )
    return notes


class _RowsOf:
    """Some rows of features on disk, read when they are indexed with all rows."""

    def __init__(self, features: Any, rows: np.ndarray) -> None:
        self._features, self._rows = features, rows
        self.shape = (len(rows), features.shape[1])

    def __getitem__(self, index: Any) -> np.ndarray:
        return self._features[self._rows[index]]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[...], dtype)


@dataclass(frozen=True)
class _Rows:
    """What takes part in a comparison."""

    features: Mapping[str, Any]
    labels: np.ndarray
    groups: Any = None
    said: str = "all rows"
    notes: tuple[str, ...] = ()
    costs: Mapping[str, LayerCost] = field(default_factory=dict)


def _given_rows(source: Any, y: Any, groups: Any) -> _Rows:
    """Return features and classes that were given as arrays, after checking what the measuring would stumble over."""
    if y is None:
        raise UsageError("features were given without classes; give y, one class a row")
    named = dict(source) if isinstance(source, Mapping) else {"features": source}
    features = {
        name: np.asarray(array) if hasattr(array, "iloc") or not hasattr(array, "shape") else array
        for name, array in named.items()
    }
    for name, array in features.items():
        if len(array.shape) != 2:
            raise UsageError(f"the features {name!r} are of shape {tuple(array.shape)}; give (n, d), a row an image")
        if "+" in name:
            raise UsageError(f"features are called {name!r}; + joins names, so give them a name without it")
    labels = np.asarray(y)
    if labels.dtype.kind not in "iu":
        raise UsageError(
            f"classes of type {labels.dtype} were given; give whole numbers from 0, such as"
            " np.unique(y, return_inverse=True)[1]"
        )
    if groups is not None and np.asarray(groups).dtype.kind not in "iu":
        raise UsageError(
            f"groups of type {np.asarray(groups).dtype} were given; give whole numbers, such as"
            " np.unique(groups, return_inverse=True)[1]"
        )
    return _Rows(features, labels, groups)


def _compare_arrays(
    rows: _Rows,
    settings: CompareSettings,
    journal: str | Path | None,
    on_progress: Callable[[ComparisonProgress], None] | None,
) -> Comparison:
    names = list(rows.features)
    layers = [*names, *joined_layers(names)] if settings.layers is None else settings.layers
    if not layers:
        raise UsageError("there is no layer to compare; name one or more")
    unknown = [part for layer in layers for part in layer.split("+") if part not in rows.features]
    if unknown:
        raise UsageError(f"there are no features {unknown[0]!r}; there are {', '.join(names)}. Name one of them.")
    widths = {name: int(array.shape[1]) for name, array in rows.features.items()}
    n_train = len(rows.labels) * (settings.n_folds - 1) // settings.n_folds
    ways, skipped = _affordable(settings, len(np.unique(rows.labels)))
    candidates = make_candidates(layers, widths, ways, n_train)
    if settings.n_jobs is None:
        widest = max(sum(widths[part] for part in layer.split("+")) for layer in layers)
        settings = replace(settings, n_jobs=joblib.cpu_count() if n_train * widest > MANY_VALUES else 1)
    result = compare_candidates(
        rows.features,
        rows.labels,
        candidates,
        settings.of_folds(),
        groups=rows.groups,
        layer_costs=rows.costs,
        rows=rows.said,
        journal=Journal(journal),
        on_progress=on_progress,
    )
    return replace(result, notes=(*rows.notes, *result.notes), skipped=skipped)


def _affordable(settings: CompareSettings, n_classes: int) -> tuple[tuple[tuple[str, str, str], ...], tuple[str, ...]]:
    """Return the ways to compare, and what was left out: for a quick look, machines that are fitted once a class."""
    ways = settings.ways()
    is_own = settings.scales or settings.reduces or settings.heads
    if settings.budget != "quick" or is_own or n_classes <= _MANY_CLASSES:
        return ways, ()
    skipped = f"svm, which takes as many fits as there are classes, {n_classes}; name it with --heads to have it"
    return tuple(way for way in ways if way[2] != "svm"), (skipped,)


def layer_costs(store: FeatureStore) -> dict[str, LayerCost]:
    """Return what the network of a store costs up to each of its layers; only the depth where it cannot be opened.

    Nothing is downloaded: the work of a network does not depend on its weights.
    """
    from featx import backbones

    model = str(store.fingerprint.get("model", ""))
    macs: dict[str, float] = {}
    if not model.startswith(("hf-hub:", "local-dir:")):  # those would have to be fetched or read to be built
        try:
            backbone = backbones.open_backbone(model, weights="random:0")
        except FeatxError:
            backbone = None
        layers = {} if backbone is None else backbone.layers
        macs = {key: layers[info.layer].macs / 1e9 for key, info in store.infos.items() if info.layer in layers}
    return {
        key: LayerCost(macs.get(key), info.depth, info.width if info.codec else None)
        for key, info in store.infos.items()
    }
