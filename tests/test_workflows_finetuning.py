"""From pictures to a tuned network: what is saved belongs together, goes on after a kill, and warns of what is lost."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from extraction_runs import TORCH, extract
from fake_backbone import write_pictures
from safetensors.torch import load_file, save_file
from tiny_networks import tiny_backbone

from featx.backbones import open_backbone
from featx.bundle import load_bundle
from featx.errors import LayerError, TuningError, UsageError, WouldOverwriteError
from featx.extraction import FeatureSpec
from featx.finetuning import SoftmaxHead, Training, TuningSettings
from featx.images import TEST, list_images
from featx.store import FeatureStore
from featx.workflows import finetuning, tuning_outcome
from featx.workflows.finetuning import finetune
from featx.workflows.fitting import FitSettings, fit_classifier
from featx.workflows.labelled_rows import labelled_rows
from featx.workflows.tuning_job import FinetuneSettings, TuningEvents

NETWORK, SIZE = "test_resnet", 32
TUNING = TuningSettings(
    regime="partial",
    last=1,
    epochs=2,
    batch_size=8,
    learning_rate=0.01,
    augment=("flip", "crop", "mixup"),
    ema=0.5,
    warmup_epochs=0.5,
    head_start=False,  # for shorter tests
)


@pytest.fixture(autouse=True)
def _undrawn_curves(monkeypatch):
    """Leave out the drawing of curves, which takes longer than the training; those of `done` are drawn before that."""
    monkeypatch.setattr(tuning_outcome, "save_curves", lambda *_args, **_named: None)


class _KilledError(Exception):
    """Stands for a kill."""


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """36 pictures of three classes, a network that has learned them all by its weights, and its features; read only."""
    folder = tmp_path_factory.mktemp("finetuning")
    photos = write_pictures(folder / "photos", n_each=12)
    drawn = open_backbone(NETWORK, weights="random:0", size=SIZE)
    save_file(drawn.module.state_dict(), folder / "given.safetensors")
    backbone = open_backbone(NETWORK, weights=str(folder / "given.safetensors"), size=SIZE)
    extract(backbone, str(photos), folder / "f.h5")
    return SimpleNamespace(backbone=backbone, drawn=drawn, listing=list_images(str(photos)), store=folder / "f.h5")


def tune(source, out, tuning=TUNING, *, events=None, backbone=None, **settings):
    """Tune the network of a source."""
    with FeatureStore(source.store) as store:
        wanted = FinetuneSettings(tuning=tuning, **settings)
        opened = backbone or source.backbone
        return finetune(store, source.listing, opened, out, wanted, options=TORCH, events=events)


def told(result) -> dict:
    """Return a result as JSON, without what depends on the clock."""
    values = json.loads(json.dumps(result if isinstance(result, dict) else result.to_json()))
    values.pop("seconds")
    for record in values["epochs"]:
        record.pop("seconds")
    return values


@pytest.fixture(scope="module")
def done(source, tmp_path_factory):
    """A finished tuning of the last stage, with everything that was called meanwhile; read only."""
    out = tmp_path_factory.mktemp("done") / "run"
    called = []
    events = TuningEvents(
        on_begin=lambda beginning: called.append(("begin", beginning)),
        on_check=lambda check: called.append(("check", check)),
        on_step=lambda n_done, n_total: called.append(("step", (n_done, n_total))),
        on_epoch=lambda record: called.append(("epoch", record)),
        on_note=lambda note: called.append(("note", note)),
    )
    result = tune(source, out, events=events)
    return SimpleNamespace(out=out, result=result, called=called)


def test_a_mistake_leaves_a_finished_run_alone(source, done, tmp_path):
    """A name that is not there is found before --overwrite removes what an earlier command made."""
    out = tmp_path / "run"
    shutil.copytree(done.out, out)
    with pytest.raises(LayerError, match="typo"):
        tune(source, out, replace(TUNING, last=None, unfreeze=("typo",)), overwrite=True)
    assert {path.name for path in out.iterdir()} == {path.name for path in done.out.iterdir()}


@pytest.mark.parametrize(
    ("changes", "settings", "said"),
    [
        ({"regime": "minimum", "last": None}, {"classifier": "svm"}, "nothing to fit head svm on"),
        ({"precision": "f16"}, {}, "precision f16 trains on CUDA alone"),
    ],
)
def test_what_makes_no_sense_is_refused(source, tmp_path, changes, settings, said):
    """A linear SVM after a training that tunes no feature, and half precision on the CPU."""
    with pytest.raises(UsageError, match=said):
        tune(source, tmp_path / "run", replace(TUNING, **changes), **settings)
    assert not (tmp_path / "run").exists()


def test_a_class_that_has_come_since_changes_no_name(source, tmp_path):
    """Names and labels are those of the store, whatever the source says by now."""
    names = ("aaa", *source.listing.class_names)
    entries = tuple(replace(entry, label=entry.label + 1) for entry in source.listing.entries)
    now = SimpleNamespace(**{**vars(source), "listing": replace(source.listing, entries=entries, class_names=names)})
    tune(now, tmp_path / "run", replace(TUNING, epochs=1))
    with FeatureStore(source.store) as store, FeatureStore(tmp_path / "run" / "tuned.h5") as tuned:
        assert list(tuned.label_names) == list(store.label_names)
        np.testing.assert_array_equal(tuned.labels, store.labels)
        assert load_bundle(tmp_path / "run" / "classifier.featx").class_names == tuple(store.label_names)


def test_balanced_classes_reach_every_classifier(source, tmp_path, monkeypatch):
    """The head, the frozen features' head that it is watched by, and the linear SVM all weigh classes alike."""
    asked = []
    fit_head, fit_classifier = finetuning.fit_head, tuning_outcome.fit_classifier

    def watched_fit_head(*args, **options):
        asked.append(options["class_weight"])
        return fit_head(*args, **options)

    def watched_fit_classifier(store, layer, settings):
        asked.append(settings.class_weight)
        return fit_classifier(store, layer, settings)

    monkeypatch.setattr(finetuning, "fit_head", watched_fit_head)
    monkeypatch.setattr(tuning_outcome, "fit_classifier", watched_fit_classifier)
    tuning = replace(TUNING, regime="minimum", last=None, augment=(), class_weight="balanced")
    result = tune(source, tmp_path / "run", tuning)
    assert asked == ["balanced", "balanced"]
    assert result.to_json()["settings"]["class_weight"] == "balanced"


def test_everything_is_called_in_its_order(done):
    """The check comes first, then what is trained, then steps and epochs, up to the last."""
    kinds = [kind for kind, _ in done.called if kind != "note"]
    steps = ["step"] * 3
    assert kinds == ["check", "begin", *steps, "epoch", "step", *steps, "epoch", "step"]
    by_kind = {kind: [value for name, value in done.called if name == kind] for kind in kinds}
    (beginning,) = by_kind["begin"]
    assert beginning.n_epochs_done == 0
    assert all(name.startswith("layer4.") for name in beginning.trained)
    assert by_kind["step"][-1] == (6, 6)
    assert by_kind["epoch"] == list(done.result.records)
    assert by_kind["check"] == [done.result.check]


def test_the_saved_network_differs_where_it_was_trained(source, done):
    """Tensors of the last stage are others, all else is bit for bit what it was, and the classifier is not saved."""
    saved, given = load_file(done.out / "tuned.safetensors"), source.backbone.module.state_dict()
    assert given.keys() - saved.keys() == {"fc.weight", "fc.bias"}
    changed = {name for name in saved if not torch.equal(saved[name], given[name])}
    kernels = {name for name in saved if name.startswith("layer4.") and name.endswith("conv1.weight")}
    assert kernels
    assert kernels <= changed
    assert all(name.startswith("layer4.") and "running" not in name for name in changed)


def test_parameters_are_counted(source, done):
    """Trained are those of the last stage and the head; all are those of the network without its classifier."""
    sizes = {name: parameter.numel() for name, parameter in source.backbone.module.named_parameters()}
    head = sizes["fc.weight"] // 1000 * 3 + 3
    body = sum(size for name, size in sizes.items() if not name.startswith("fc."))
    stage = sum(size for name, size in sizes.items() if name.startswith("layer4."))
    assert (done.result.n_trained, done.result.n_parameters) == (stage + head, body + head)


def test_the_tuned_store_is_of_the_tuned_network(source, done):
    """Its rows are what the saved weights give; its splits are the three parts, so that held-out rows stay the same."""
    with FeatureStore(source.store) as store:
        rows = labelled_rows(store)
        held_out = {str(store.paths[row]) for row in rows.split.held_out}
        learned = {str(store.paths[row]) for row in rows.split.train}
    with FeatureStore(done.out / "tuned.h5") as tuned:
        again = labelled_rows(tuned, seed=5)
        assert {str(tuned.paths[row]) for row in again.split.held_out} == held_out
        assert {str(tuned.paths[row]) for row in again.split.train} == learned
        assert {
            path for path, split in zip(tuned.paths.tolist(), tuned.splits, strict=True) if split == TEST
        } == held_out
        computer = FeatureSpec.of_store(tuned).open(TORCH)
        features, _ = computer.features_of(source.listing.entries[:5])
        np.testing.assert_allclose(features["penultimate@avg"], tuned["penultimate"][:5], rtol=1e-4, atol=1e-5)
        with FeatureStore(source.store) as store:
            assert not np.allclose(store["penultimate"][:5], tuned["penultimate"][:5])


def test_scores_are_those_of_the_files(source, done):
    """The saved classifier names held-out images as the result says; the SVMs are those of `fit-svm` on both stores."""
    result = done.result
    with FeatureStore(done.out / "tuned.h5") as tuned, FeatureStore(source.store) as store:
        settings = FitSettings(allow_random=True)
        frozen, svm = (fit_classifier(opened, "penultimate@avg", settings).evaluation for opened in (store, tuned))
        assert frozen.to_json() == result.frozen.to_json()
        assert svm.to_json() == result.svm.to_json()
        held_out = labelled_rows(tuned).split.held_out
        bundle = load_bundle(done.out / "classifier.featx")
        named = bundle.pipeline.predict(np.asarray(tuned["penultimate"][:])[held_out])
        right = named == np.asarray(tuned.labels)[held_out]
    assert right.mean() == pytest.approx(result.softmax.accuracy)
    assert right.mean() - result.frozen.accuracy == pytest.approx(result.gain.difference)
    assert result.softmax.rows == result.frozen.rows == result.svm.rows == len(held_out) == 6
    assert bundle.class_names == ("blue", "green", "red")
    assert bundle.card["notes"] == list(result.notes)
    assert 0 < result.likeness < 1


def test_the_network_and_its_classifier_agree(done):
    """Probabilities of the saved classifier are the softmax of the tuned network with its head, to rounding."""
    state = torch.load(done.out / "state.pt", weights_only=True)["training"]["best"]
    bundle = load_bundle(done.out / "classifier.featx")
    with FeatureStore(done.out / "tuned.h5") as tuned:
        features = np.asarray(tuned["penultimate"][:])
    head = SoftmaxHead(features.shape[1], 3).eval()
    head.load_state_dict({n.removeprefix("head."): value for n, value in state.items() if n.startswith("head.")})
    with torch.inference_mode():
        expected = head(torch.from_numpy(features)).softmax(1)
    np.testing.assert_allclose(bundle.pipeline.predict_proba(features), expected, rtol=1e-4, atol=1e-6)


def test_what_is_written_is_what_is_returned(done):
    """result.json is the result, history.csv its epochs."""
    assert json.loads((done.out / "result.json").read_text()) == json.loads(json.dumps(done.result.to_json()))
    with open(done.out / "history.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [{name: float(value) for name, value in line.items()} for line in lines] == [
        asdict(record) for record in done.result.records
    ]
    assert (done.out / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_repeated_command_trains_nothing(source, done, monkeypatch):
    """The result of a finished folder comes again, notes and check included, without a step."""
    monkeypatch.setattr(Training, "_take_step", lambda *_: pytest.fail("took a step"))
    epochs = []
    again = tune(source, done.out, events=TuningEvents(on_epoch=epochs.append))
    assert told(again) == told(done.result)
    assert epochs == list(done.result.records)
    assert again.seconds == done.result.seconds


@pytest.mark.parametrize(("step", "hasty"), [(2, True), (4, False)])
@pytest.mark.usefixtures("_undrawn_curves")
def test_an_interrupted_run_goes_on(source, done, tmp_path, monkeypatch, step, hasty):
    """Stopped in an epoch or at its end, with states at every step or every epoch, it comes to the same result."""
    if hasty:
        monkeypatch.setattr(finetuning, "_SECONDS_BETWEEN_STATES", -1.0)

    def stop(n_done: int, _total: int) -> None:
        if n_done == step:
            raise _KilledError

    with pytest.raises(_KilledError):
        tune(source, tmp_path / "run", events=TuningEvents(on_step=stop))
    assert not (tmp_path / "run" / "result.json").exists()
    n_steps = []
    monkeypatch.setattr(Training, "_give_up", lambda *_: pytest.fail("gave up"))
    result = tune(source, tmp_path / "run", events=TuningEvents(on_step=lambda *progress: n_steps.append(progress)))
    assert n_steps[0][0] == {2: 3, 4: 4}[step]  # the step after the one that was saved last
    assert told(result) == told(done.result)
    one, other = (load_file(folder / "tuned.safetensors") for folder in (done.out, tmp_path / "run"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_another_training_in_the_folder_is_refused(source, done):
    """Other settings at the same place are an error that names them; nothing is changed."""
    before = (done.out / "state.pt").read_bytes()
    with pytest.raises(WouldOverwriteError, match=r"with other epochs \(2\)"):
        tune(source, done.out, replace(TUNING, epochs=3))
    with pytest.raises(WouldOverwriteError, match="with other images"):
        tune(source, done.out, held_out=0.4)
    assert (done.out / "state.pt").read_bytes() == before


def test_a_new_head_on_the_frozen_network(source, tmp_path):
    """The minimum needs no picture: the network is as it was, and so are its features; no tuned files are written."""
    tuning = replace(TUNING, regime="minimum", last=None, augment=(), epochs=5, ema=None)
    result = tune(source, tmp_path / "run", tuning)
    assert result.likeness == pytest.approx(1.0)
    assert result.svm is result.frozen
    assert not (tmp_path / "run" / "tuned.h5").exists()
    assert not (tmp_path / "run" / "tuned.safetensors").exists()
    bundle = load_bundle(tmp_path / "run" / "classifier.featx")
    with FeatureStore(source.store) as store:
        assert bundle.spec == FeatureSpec.of_store(store)
        held_out = labelled_rows(store).split.held_out
        right = bundle.pipeline.predict(store["penultimate"][:][held_out]) == np.asarray(store.labels)[held_out]
    assert right.mean() == result.softmax.accuracy == 1.0
    sizes = [parameter.numel() for parameter in source.backbone.module.parameters()]
    classifier = source.backbone.module.fc
    assert result.n_trained == classifier.in_features * 3 + 3
    assert result.n_parameters == sum(sizes) - 1000 * (classifier.in_features + 1) + result.n_trained


def test_a_new_head_on_changed_pictures(source, tmp_path):
    """With augmentation the frozen network sees every picture anew, and still stays as it was."""
    tuning = replace(TUNING, regime="minimum", last=None, epochs=1, ema=None)
    result = tune(source, tmp_path / "run", tuning, check=False)
    assert result.check is None
    assert result.svm is result.frozen
    assert not (tmp_path / "run" / "tuned.safetensors").exists()


def test_a_linear_svm_on_the_tuned_features(source, done):
    """With `classifier="svm"` the finished training gets an SVM instead of its softmax, without another step."""
    result = tune(source, done.out, classifier="svm")
    bundle = load_bundle(done.out / "classifier.featx")
    with FeatureStore(done.out / "tuned.h5") as tuned:
        held_out = labelled_rows(tuned).split.held_out
        right = bundle.pipeline.predict(tuned["penultimate"][:][held_out]) == np.asarray(tuned.labels)[held_out]
    assert right.mean() == result.svm.accuracy
    assert result.gain.difference == pytest.approx(result.svm.accuracy - result.frozen.accuracy)
    assert told(tune(source, done.out)) == told(done.result)  # and back


@pytest.fixture(scope="module")
def divided(tmp_path_factory):
    """Pictures in three splits, with enough of them to choose the epoch by that a loss of knowledge shows."""
    folder = tmp_path_factory.mktemp("divided")
    for split, n_each in (("train", 8), ("val", 8), ("test", 4)):
        write_pictures(folder / "photos" / split, n_each=n_each, seed=n_each + len(split))
    drawn = open_backbone(NETWORK, weights="random:0", size=SIZE)
    save_file(drawn.module.state_dict(), folder / "given.safetensors")
    backbone = open_backbone(NETWORK, weights=str(folder / "given.safetensors"), size=SIZE)
    extract(backbone, str(folder / "photos"), folder / "f.h5")
    listing = list_images(str(folder / "photos"))
    return SimpleNamespace(backbone=backbone, drawn=drawn, listing=listing, store=folder / "f.h5")


def test_a_rate_far_too_high_loses_what_the_network_knew_and_is_warned_about(divided, tmp_path):
    """On frozen features a head knows all; at a rate of 10 the network soon knows nothing, and a warning says so."""
    said = []
    tuning = TuningSettings(learning_rate=10, lr_scale=(1.0,), epochs=3, batch_size=8, augment=(), warmup_epochs=0)
    result = tune(divided, tmp_path / "high", tuning, events=TuningEvents(on_note=said.append), check=False)
    assert result.frozen_validation == result.frozen.accuracy == 1.0
    assert result.softmax.accuracy < 0.7
    (warning,) = [note for note in said if "rightly, a head on the frozen features 100.0 %" in note]
    assert "The learning rate is too high: try --lr 1" in warning
    assert warning in result.notes
    modest = tune(divided, tmp_path / "modest", replace(tuning, learning_rate=1e-4), check=False)
    assert modest.softmax.accuracy == 1.0
    assert not any("head on the frozen features" in note for note in modest.notes)


def test_a_network_that_never_knew_anything_loses_nothing(divided, tmp_path):
    """Random weights get neither a head start nor that warning."""
    tuning = TuningSettings(learning_rate=10, lr_scale=(1.0,), epochs=2, batch_size=8, augment=(), warmup_epochs=0)
    result = tune(divided, tmp_path / "run", tuning, backbone=divided.drawn, check=False)
    assert not any("head on the frozen features" in note for note in result.notes)


def test_a_rate_at_which_nothing_can_be_learned(divided, tmp_path):
    """A loss that is no number in the first epoch is an error, and no result is written."""
    tuning = TuningSettings(
        regime="total", optimizer="sgd", learning_rate=100, lr_scale=(1.0,), batch_size=8, augment=(), warmup_epochs=0
    )
    with pytest.raises(
        TuningError, match=r"learning rate 100 is too high: nothing was learned\. Give --lr 10, or less"
    ):
        tune(divided, tmp_path / "run", tuning, check=False)
    assert not (tmp_path / "run" / "result.json").exists()
    modest = replace(
        tuning, regime="minimum", learning_rate=1e-3, epochs=1
    )  # as it says; nothing is lost, so that it may go there
    assert tune(divided, tmp_path / "run", modest, check=False).records


def test_a_module_of_ones_own_cannot_be_opened_again(source, tmp_path):
    """A network without a name is refused before any work, unless it stays as it is."""
    with pytest.raises(UsageError, match="TinyNetwork is a module of your own, which cannot be opened again"):
        tune(source, tmp_path / "run", backbone=tiny_backbone())
    assert not (tmp_path / "run").exists()
