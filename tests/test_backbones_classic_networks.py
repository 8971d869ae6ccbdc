"""The classic networks: the table that is printed, and how it is joined with what timm and this machine say."""

from __future__ import annotations

import json

import pytest
import timm
import torch

from featx.backbones import classic_networks, find_classic_networks, measure_classic_networks
from featx.backbones.classic_networks import CLASSIC_NETWORKS
from featx.backbones.timing import Timing, describe_machine, read_timings
from featx.errors import BackboneError

# Parameters as `keras.applications` counts them with `count_params()`, the statistics of batch norm among them.
KERAS_COUNTS = {
    "Xception": 22_910_480,
    "VGG16": 138_357_544,
    "VGG19": 143_667_240,
    "ResNet50": 25_636_712,
    "ResNet101": 44_707_176,
    "ResNet152": 60_419_944,
    "ResNet50V2": 25_613_800,
    "ResNet101V2": 44_675_560,
    "ResNet152V2": 60_380_648,
    "InceptionV3": 23_851_784,
    "InceptionResNetV2": 55_873_736,
}
BY_NAME = {network.name: network for network in CLASSIC_NETWORKS}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A cache folder of the test's own."""
    monkeypatch.setenv("FEATX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Timer:
    """Says that a network takes as many milliseconds as its name has letters; some cannot be run."""

    def __init__(self, *broken):
        self.broken, self.asked = broken, []

    def __call__(self, name):
        self.asked.append(name)
        if name in self.broken:
            raise RuntimeError("out of luck\nand more")
        return Timing(float(len(name)), "abacus on table, f32", 8, 3)


def test_the_table_is_about_the_networks_that_it_names():
    """Keras' counts, rounded as its page has them, are those of the table, and megabytes four bytes a parameter."""
    assert set(KERAS_COUNTS) == set(BY_NAME) - {"EfficientNet-Lite0"}
    for name, exact in KERAS_COUNTS.items():
        network = BY_NAME[name]
        assert network.parameters == pytest.approx(exact / 1e6, abs=0.051)
        assert network.megabytes == pytest.approx(4 * exact / 2**20, rel=0.015)
        assert network.top1 < network.top5 < 100


def test_timm_has_every_network_and_the_weights_that_are_named():
    """Each name is one of timm's today; what has an accuracy has weights, and ResNet152V2 has neither."""
    for network in CLASSIC_NETWORKS:
        architecture, _, tag = network.model.partition(".")
        assert architecture in timm.list_models()
        pretrained = timm.list_pretrained(architecture)
        if network.timm_top1 is None:
            assert pretrained == []
        elif tag:
            assert network.model in pretrained
    assert [network.name for network in CLASSIC_NETWORKS if network.timm_top1 is None] == ["ResNet152V2"]


@pytest.mark.parametrize(
    ("name", "extra_per_channel"),
    [("Xception", 0), ("ResNet50", 1), ("InceptionV3", -1)],
)
def test_the_notes_on_architectures_can_be_counted(name, extra_per_channel):
    """Keras' count is timm's with statistics, and a bias more, or a scale less, for each channel that is normalised."""
    with torch.device("meta"):
        module = timm.create_model(BY_NAME[name].model.partition(".")[0])
    statistics = sum(value.numel() for key, value in module.named_buffers() if key.endswith(("_mean", "_var")))
    count = sum(parameter.numel() for parameter in module.parameters()) + statistics
    assert KERAS_COUNTS[name] == count + extra_per_channel * statistics // 2


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("vgg", ["VGG16", "VGG19"]),
        ("ResNet*V2", ["ResNet50V2", "ResNet101V2", "ResNet152V2"]),
        ("*tf_in1k", ["Xception", "InceptionV3", "InceptionResNetV2"]),
        ("RESNET50.", ["ResNet50"]),
        ("*", list(BY_NAME)),
    ],
)
def test_rows_are_found_by_either_name(pattern, expected):
    """A pattern fits Keras' name or timm's, in upper or lower case, in the order of the table."""
    assert [network.name for network in find_classic_networks(pattern)] == expected


def test_local_networks_need_no_connection():
    """The default network is on this machine; what is not there is an error that names what there is."""
    assert "EfficientNet-Lite0" in [network.name for network in find_classic_networks(local=True)]
    with pytest.raises(BackboneError, match="no classic network fits 'alexnet'; there are Xception, VGG16"):
        find_classic_networks("alexnet")
    with pytest.raises(BackboneError, match="with weights on this machine fits 'ResNet152V2'"):
        find_classic_networks("ResNet152V2", local=True)


def test_a_row_is_what_is_known_built_and_measured():
    """timm's parameters are counted, the place of weights is named, and the time is that of the architecture."""
    timer = Timer()
    steps = []
    table = measure_classic_networks(
        find_classic_networks("*_50*") + find_classic_networks("lite0"),
        timer=timer,
        on_progress=lambda *step: steps.append(step),
    )
    resnet, default = table.rows
    assert resnet.network is BY_NAME["ResNet50V2"]
    assert (resnet.summary.n_parameters, resnet.summary.size) == (25_549_352, (224, 224))
    assert (default.summary.n_parameters, default.summary.weights) == (4_652_008, "bundled")
    assert timer.asked == ["resnetv2_50", "tf_efficientnet_lite0"]
    assert [row.timing.milliseconds for row in table.rows] == [11, 21]
    assert (table.n_measured, table.not_kept) == (2, "")
    assert steps == [(0, 2), (1, 2), (2, 2)]
    described = json.loads(json.dumps(table.to_json()))
    assert described["machine"] == describe_machine()
    assert described["networks"][0]["timing"]["milliseconds"] == 11
    assert described["networks"][1]["megabytes"] is None


def test_times_are_measured_once():
    """What was measured is remembered, at once after each network; ``measure_again`` measures anew."""
    networks = find_classic_networks("resnet50")[:1]
    first, again = Timer(), Timer()
    measured = measure_classic_networks(networks, timer=first)
    assert set(read_timings(describe_machine())) == {"resnet50"}
    remembered = measure_classic_networks(networks, timer=again)
    assert again.asked == []
    assert remembered.n_measured == 0
    assert remembered.rows == measured.rows
    assert measure_classic_networks(networks, timer=again, measure_again=True).n_measured == 1
    assert again.asked == ["resnet50"]


def test_one_network_that_cannot_be_run_leaves_the_others(monkeypatch):
    """What cannot be run, or be built, has a reason in one line and no time; it is tried again the next time."""
    networks = find_classic_networks("lite0") + find_classic_networks("legacy_xception")
    table = measure_classic_networks(networks, timer=Timer("tf_efficientnet_lite0"))
    assert [(row.timing is None, row.reason) for row in table.rows] == [(True, "out of luck"), (False, "")]
    assert table.rows[0].summary.n_parameters == 4_652_008
    assert set(read_timings(describe_machine())) == {"legacy_xception"}

    def gone(_name):
        raise RuntimeError("Unknown model")

    monkeypatch.setattr(classic_networks, "summarise_model", gone)
    table = measure_classic_networks(networks, timer=Timer())
    assert [(row.summary, row.reason) for row in table.rows] == [(None, "Unknown model")] * 2
    assert table.rows[1].timing is not None


def test_a_cache_that_cannot_be_written_costs_only_the_memory(folder):
    """Times are there all the same, and the table says why they will not be there the next time."""
    folder.write_text("a file where a folder should be")
    table = measure_classic_networks(find_classic_networks("lite0"), timer=Timer())
    assert table.rows[0].timing.milliseconds == 21
    assert table.not_kept
    assert folder.read_text() == "a file where a folder should be"
