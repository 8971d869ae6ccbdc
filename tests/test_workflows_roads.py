"""The roads of transfer learning: walked on one split, compared on the same images, each in a folder of its own."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from extraction_runs import TORCH, extract
from fake_backbone import write_pictures
from safetensors.torch import load_file, save_file

from featx.backbones import open_backbone
from featx.bundle import load_bundle
from featx.errors import UsageError, WouldOverwriteError
from featx.finetuning import TuningSettings
from featx.images import list_images
from featx.store import FeatureStore
from featx.workflows import finetuning, tuning_outcome
from featx.workflows.labelled_rows import labelled_rows
from featx.workflows.roads import ROADS, RoadsSettings, to_markdown, walk_roads
from featx.workflows.tuning_job import FinetuneSettings, TuningEvents
from featx.workflows.tuning_sources import TuningSource

SIZE = 32
QUICK = TuningSettings(regime="minimum", epochs=2, batch_size=8, augment=(), head_start=False)
TUNINGS = {
    "minimum": QUICK,
    "partial": replace(QUICK, regime="partial", last=1),
    "scratch": replace(QUICK, regime="total", lr_scale=(1.0,), norm_statistics="trained"),
}
SETTINGS = RoadsSettings(TUNINGS, around=FinetuneSettings(check=False))


@pytest.fixture(autouse=True, scope="module")
def _undrawn():
    """Leave out the drawing of curves, which takes longer than the training."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tuning_outcome, "save_curves", lambda *_args, **_named: None)
        yield


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """30 pictures of three classes and the features of a small network with weights from a file; read only."""
    folder = tmp_path_factory.mktemp("roads")
    photos = write_pictures(folder / "photos", n_each=10)
    save_file(open_backbone("test_resnet", weights="random:0").module.state_dict(), folder / "given.safetensors")
    backbone = open_backbone("test_resnet", weights=str(folder / "given.safetensors"), size=SIZE)
    extract(backbone, str(photos), folder / "features.h5", "layer1,layer4,penultimate")
    return TuningSource(folder / "features.h5", list_images(str(photos)), backbone, ())


@pytest.fixture(scope="module")
def walked(source, tmp_path_factory):
    """Four roads, walked to their ends; read only."""
    out, seen = tmp_path_factory.mktemp("walked") / "out", []
    roads = walk_roads(source, out, SETTINGS, seconds=5.0, options=TORCH, on_road=seen.append)
    return SimpleNamespace(out=out, roads=roads, seen=seen, by_name={road.name: road for road in roads})


def test_roads_come_in_order_and_are_told_as_they_end(walked):
    """From the frozen one to the one from scratch, each told once."""
    assert [road.name for road in walked.roads] == [name for name in ROADS if name != "total"]
    assert walked.seen == walked.roads


def test_all_are_scored_on_the_images_that_fit_svm_holds_out(source, walked):
    """Number and description of the scored images are those of `labelled_rows`, for every road."""
    with FeatureStore(source.store) as store:
        split = labelled_rows(store).split
    assert {(road.evaluation.rows, road.evaluation.on) for road in walked.roads} == {(len(split.held_out), split.on)}


def test_gains_are_differences_to_the_frozen_road(walked):
    """The gain of a road is its accuracy less that of the frozen one, on the same images; that one has none."""
    frozen = walked.by_name["frozen"]
    assert frozen.gain is None
    for road in walked.roads[1:]:
        difference = road.evaluation.accuracy - frozen.evaluation.accuracy
        assert road.gain.difference == pytest.approx(difference)
        n = road.evaluation.rows
        assert (road.gain.n_better - road.gain.n_worse) / n == pytest.approx(difference)


def test_saved_classifiers_score_as_reported(source, walked):
    """Each road's classifier.featx, applied to features of its own network, gives the reported accuracy."""
    with FeatureStore(source.store) as store:
        held_out, labels = labelled_rows(store).split.held_out, np.asarray(store.labels)
        entries = [entry for entry in source.listing.entries if entry.path in set(store.paths[held_out].tolist())]
    for road in walked.roads:
        bundle = load_bundle(road.folder / "classifier.featx")
        features, failures = bundle.open_features(TORCH).features_of(entries)
        assert not failures
        named = bundle.predict_proba(bundle.spec.join(features)).argmax(1)
        assert (named == [entry.label for entry in entries]).mean() == pytest.approx(road.evaluation.accuracy)
    assert len(labels) == 30


def test_scratch_begins_from_random_weights(source, walked):
    """No tensor of the road from scratch is one of the given network; the stem of the partial road is."""
    given = source.backbone.module.state_dict()
    scratch = load_file(walked.out / "scratch" / "tuned.safetensors")
    partial = load_file(walked.out / "partial" / "tuned.safetensors")
    kernels = [name for name, value in scratch.items() if value.ndim == 4]
    assert kernels
    assert not any((scratch[name] == given[name]).all() for name in kernels)
    assert (partial[kernels[0]] == given[kernels[0]]).all()


def test_frozen_features_count_for_the_roads_that_need_them(walked):
    """The five seconds of extraction are in the roads on features, and not in those on pictures alone."""
    assert walked.by_name["frozen"].seconds > 5.0
    assert walked.by_name["minimum"].seconds > 5.0
    for name in ("partial", "scratch"):
        trained = json.loads((walked.out / name / "result.json").read_text())["seconds"]
        assert walked.by_name[name].seconds == pytest.approx(trained, abs=1e-3)


def test_table_json_and_picture_are_saved(walked):
    """roads.json is what was returned, roads.md has a line a road, and there is a picture."""
    assert json.loads((walked.out / "roads.json").read_text()) == [road.to_json() for road in walked.roads]
    table = (walked.out / "roads.md").read_text()
    assert table == to_markdown(walked.roads)
    assert [line.split(" | ")[0] for line in table.splitlines()[2:]] == [f"| {road.name}" for road in walked.roads]
    assert (walked.out / "roads.png").read_bytes().startswith(b"\x89PNG")


def test_finished_roads_are_not_walked_again(source, walked, monkeypatch):
    """A repetition takes no step, and gives the same accuracies."""
    monkeypatch.setattr(finetuning.Training, "_train_epoch", lambda _training: pytest.fail("it trained again"))
    steps: list[int] = []
    events = TuningEvents(on_step=lambda n_done, _n_total: steps.append(n_done))
    again = walk_roads(source, walked.out, SETTINGS, options=TORCH, events_of=lambda *_: events)
    assert [road.evaluation.accuracy for road in again] == [road.evaluation.accuracy for road in walked.roads]
    assert steps == []


def test_other_settings_are_refused(source, walked):
    """A folder with trainings of other settings is not overwritten by itself."""
    other = RoadsSettings({"minimum": replace(QUICK, epochs=3)}, frozen=False, around=SETTINGS.around)
    with pytest.raises(WouldOverwriteError, match="epochs"):
        walk_roads(source, walked.out, other, options=TORCH)


def test_unknown_roads_are_refused():
    """A road that is none names those there are."""
    with pytest.raises(UsageError, match="'halfway' is unknown; allowed: frozen, minimum, partial, total, scratch"):
        RoadsSettings({"halfway": QUICK})
