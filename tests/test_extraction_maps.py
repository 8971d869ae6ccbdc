"""Spatial maps: the places of a picture where they are, kept beside the features and computed in the same pass."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from extraction_runs import TORCH, count_images, make_extraction, segment_digests, stop_after, without
from fake_backbone import FAKE_TRANSFORM, FakeNetwork, fake_features, fake_maps, write_pictures

from featx.backbones import LayerInfo, Tap, make_tap, open_backbone
from featx.backbones.pooling import Layout, make_pool
from featx.errors import LayerError, StoreError
from featx.extraction import FeatureComputer, FeatureSpec, as_maps, map_shape, map_tap, select_maps
from featx.images import list_images, resize_and_crop, view_pixels, views_of
from featx.store import FeatureStore, MapInfo, verify


@pytest.fixture
def out(tmp_path):
    return tmp_path / "features.h5"


def keep(backbone, source, out, maps, layers="penultimate", **settings):
    """Run an extraction that keeps the maps of the layers named."""
    taps = select_maps(backbone, maps).taps if maps else ()
    return make_extraction(backbone, source, out, layers, map_taps=taps, **settings).run()


def pixels_of(entries):
    """The pixels of images as the fake network sees them, without the code under test."""
    geometry = {"size": FAKE_TRANSFORM.size, "resize_size": FAKE_TRANSFORM.resize_size}
    geometry |= {"crop_mode": FAKE_TRANSFORM.crop_mode, "interpolation": FAKE_TRANSFORM.interpolation}
    return np.stack([resize_and_crop(entry.read().decode(), **geometry) for entry in entries])


def assert_maps_by_hand(out, source, *layers):
    """Check that a store has the maps of just these layers, each image its own, rounded to float16."""
    expected = fake_maps(pixels_of(list_images(source).entries))
    with FeatureStore(out) as store:
        assert set(store.maps) == set(layers)
        for layer in layers:
            np.testing.assert_allclose(store.map(layer)[:], expected[layer], rtol=1e-3)
        np.testing.assert_allclose(store["penultimate"][:], expected["stages.4"].mean((1, 2)), rtol=1e-5)
    assert verify(out) == []


def layer_of(shape, layout):
    return LayerInfo("a.layer", shape, layout, 0, 0, 0.5, 3)


MAP = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)  # two images, 3 x 4 places, 5 channels
WITH_PREFIX = np.concatenate([np.full((2, 2, 5), -1, np.float32), MAP.reshape(2, 12, 5)], axis=1)


@pytest.mark.parametrize(
    ("output", "layout"),
    [
        (MAP.transpose(0, 3, 1, 2), Layout("nchw")),
        (MAP, Layout("nhwc")),
        (MAP.reshape(2, 12, 5), Layout("tokens", grid=(3, 4))),
        (WITH_PREFIX, Layout("tokens", n_prefix=2, has_class_token=True, grid=(3, 4))),
    ],
    ids=["channels first", "channels last", "tokens", "tokens after a prefix"],
)
def test_a_map_has_rows_columns_and_channels_in_this_order(output, layout):
    """Whatever the layout of the layer, each value stands at its row, column and channel; prefix tokens are none."""
    layer = layer_of(output.shape[1:], layout)
    tap = make_tap(layer, "flatten")
    rows = make_pool(tap.pool, layout)(torch.from_numpy(output.copy())).numpy()
    assert map_shape(tap) == (3, 4, 5)
    maps = as_maps(rows, tap)
    np.testing.assert_array_equal(maps, MAP, strict=True)
    assert maps.flags.c_contiguous
    views = np.stack([rows, rows + 1, rows + 2], axis=1)  # (2 images, 3 views, width)
    np.testing.assert_array_equal(as_maps(views, tap), np.stack([MAP, MAP + 1, MAP + 2], axis=1))


def test_a_tap_of_a_map_is_found_by_the_names_of_layers(fake_backbone):
    """A layer's own name and ``middle`` give its tap; several layers keep the names that the user had for them."""
    assert map_tap(fake_backbone, "stages.2").key == "stages.2@flatten"
    assert map_tap(fake_backbone, "middle") == map_tap(fake_backbone, "stages.2")
    selection = select_maps(fake_backbone, "stages.4, early,stages.4")
    assert [tap.layer.name for tap in selection.taps] == ["stages.1", "stages.4"]
    assert selection.aliases == {"early": "stages.1"}


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (
            "logits",
            r"'logits' gives a vector of 3 numbers, no spatial map; layers that have one: stages\.0, stages\.1,",
        ),
        ("stages.1@avg", "without a pooling; write stages.1"),
        ("stages.9", r"no layer 'stages\.9'; close: stages"),
        ("stages.*", "names 5 layers"),
        ("", "no layer given"),
    ],
)
def test_a_layer_without_a_map_is_refused(fake_backbone, layer, message):
    """The message says what was given and which layers have a map."""
    with pytest.raises(LayerError, match=message):
        map_tap(fake_backbone, layer)


def test_tokens_without_a_grid_are_no_map(fake_backbone):
    """Patches whose number is no product that is known have no places."""
    tokens = layer_of((7, 4), Layout("tokens", n_prefix=1))
    backbone = replace(fake_backbone)
    backbone.__dict__["layers"] = {"a.layer": tokens}
    with pytest.raises(LayerError, match="gives 7 tokens that form no grid, no spatial map; this network has none"):
        map_tap(backbone, "a.layer")


def test_rows_of_another_tap_are_no_maps(fake_backbone):
    """A tap that pools, and rows that are not the tap's, are refused."""
    with pytest.raises(LayerError, match=r"stages\.1@avg does not give a map; make its tap with map_tap"):
        as_maps(np.zeros((2, 4)), make_tap(fake_backbone.layers["stages.1"]))
    with pytest.raises(LayerError, match=r"rows of 63 values are not of stages\.1@flatten, which gives 64"):
        as_maps(np.zeros((2, 63)), map_tap(fake_backbone, "stages.1"))


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_maps_and_features_come_from_one_pass(fake_backbone, image_folder, engine, monkeypatch):
    """A computer of several layers and a map, given in any order, runs each image once and answers both."""
    counted = count_images(monkeypatch)
    tap = map_tap(fake_backbone, "stages.2")
    taps = [*fake_backbone.select("penultimate,stages.2@max").taps, tap, map_tap(fake_backbone, "stages.0")]
    computer = FeatureComputer(fake_backbone, taps, replace(TORCH, engine=engine))
    entries = list_images(image_folder).entries[:5]
    features, failures = computer.features_of(entries)
    expected, pixels = fake_maps(pixels_of(entries)), pixels_of(entries)
    np.testing.assert_allclose(as_maps(features[tap.key], tap), expected["stages.2"], rtol=1e-5)
    np.testing.assert_allclose(features["stages.2@max"], expected["stages.2"].max((1, 2)), rtol=1e-5)
    np.testing.assert_allclose(features["penultimate@avg"], fake_features(pixels)["penultimate"], rtol=1e-5)
    assert failures == {}
    assert set(counted) == {"penultimate@avg", "stages.2@max", "stages.2@flatten", "stages.0@flatten"}
    assert set(counted.values()) == {5}


def test_views_have_maps_of_their_own(fake_backbone, image_folder):
    """Of several views of each image, every one has its map, in the order of the views."""
    tap = map_tap(fake_backbone, "stages.1")
    computer = FeatureComputer(fake_backbone, [tap], TORCH)
    entries, views = list_images(image_folder).entries[:3], views_of(3)
    features, _ = computer.view_features_of(entries, views)
    maps = as_maps(features[tap.key], tap)
    assert maps.shape == (3, 3, 4, 4, 4)
    geometry = {"size": FAKE_TRANSFORM.size, "resize_size": FAKE_TRANSFORM.resize_size}
    geometry |= {"crop_mode": FAKE_TRANSFORM.crop_mode, "interpolation": FAKE_TRANSFORM.interpolation}
    for entry, found in zip(entries, maps, strict=True):
        pixels = view_pixels(entry.read().decode(), views, **geometry, fill=FAKE_TRANSFORM.fill)
        np.testing.assert_allclose(found, fake_maps(pixels)["stages.1"], rtol=1e-5)


def test_a_map_of_an_image_that_fails_is_not_a_number(fake_backbone, image_folder):
    """An image that cannot be read has a map of NaN, and its reason."""
    (image_folder / "blue" / "000.jpg").write_bytes(b"nothing")
    tap = map_tap(fake_backbone, "stages.1")
    entries = list_images(image_folder).entries[:2]
    features, failures = FeatureComputer(fake_backbone, [tap], TORCH).features_of(entries)
    maps = as_maps(features[tap.key], tap)
    assert list(failures) == [0]
    assert np.isnan(maps[0]).all()
    assert not np.isnan(maps[1]).any()


def test_a_specification_opens_with_maps(tmp_path):
    """What was computed for a store is computed for a query, with a map in the same pass; others are refused."""
    photos = write_pictures(tmp_path / "photos", n_each=1)
    backbone = open_backbone("test_vit", weights="random:0")
    keep(backbone, photos, tmp_path / "f.h5", "blocks.1", "penultimate")
    with FeatureStore(tmp_path / "f.h5") as store:
        spec = FeatureSpec.of_store(store)
        assert store.maps == {"blocks.1": MapInfo("blocks.1", (10, 10, 64))}  # 160 pixels in patches of 16
        stored = store.map()[:].astype(np.float32)
    computer = spec.open(TORCH, maps=["blocks.1"])
    tap = map_tap(computer.backbone, "blocks.1")
    features, _ = computer.features_of(list_images(photos).entries)
    assert set(features) == {spec.key, tap.key}
    np.testing.assert_allclose(as_maps(features[tap.key], tap), stored, rtol=2e-3, atol=2e-3)
    with pytest.raises(LayerError, match="no spatial map"):
        spec.open(TORCH, maps=["penultimate"])


def test_maps_are_kept_beside_features(fake_backbone, image_folder, out):
    """A store has the maps asked for as float16, every image its own; the fingerprint does not know of them."""
    report = keep(fake_backbone, image_folder, out, "stages.1,stages.4")
    assert report.n_computed == 24
    assert_maps_by_hand(out, image_folder, "stages.1", "stages.4")
    with FeatureStore(out) as store:
        assert store.maps["stages.4"] == MapInfo("stages.4", (4, 4, 8))
        assert store.keys == ["penultimate@avg"]
        assert "maps" not in store.fingerprint
        assert store.fingerprint == make_extraction(fake_backbone, image_folder, out).computer.fingerprint()


def test_a_map_may_be_asked_for_as_features_too(fake_backbone, image_folder, out):
    """The flattened map as features and the same layer's map are one computation and two datasets."""
    keep(fake_backbone, image_folder, out, "stages.1", "penultimate,stages.1@flatten")
    assert_maps_by_hand(out, image_folder, "stages.1")
    with FeatureStore(out) as store:
        assert store.keys == ["stages.1@flatten", "penultimate@avg"]
        flat = store["stages.1"][:].reshape(24, 4, 4, 4)  # channels first
        np.testing.assert_allclose(flat.transpose(0, 2, 3, 1), store.map()[:], rtol=1e-3)


def test_a_map_is_added_later(fake_backbone, image_folder, out, monkeypatch):
    """Asking for a map of an existing store computes that alone, for all rows; features keep their bytes."""
    keep(fake_backbone, image_folder, out, "")
    with FeatureStore(out) as store:
        before = store["penultimate"][:]
    counted = count_images(monkeypatch)
    report = keep(fake_backbone, image_folder, out, "stages.1")
    assert counted == {"stages.1@flatten": 24}
    assert report.n_computed == 24
    keep(fake_backbone, image_folder, out, "stages.3")
    assert counted == {"stages.1@flatten": 24, "stages.3@flatten": 24}
    assert_maps_by_hand(out, image_folder, "stages.1", "stages.3")
    with FeatureStore(out) as store:
        np.testing.assert_array_equal(store["penultimate"][:], before)


def test_maps_stay_without_being_asked_for_again(fake_backbone, image_folder, out, monkeypatch):
    """A repeated command without the option computes and writes nothing; new images get their maps as well."""
    keep(fake_backbone, image_folder, out, "stages.1")
    before = out.read_bytes()
    counted = count_images(monkeypatch)
    assert keep(fake_backbone, image_folder, out, "").n_computed == 0
    assert out.read_bytes() == before
    write_pictures(image_folder / "green", n_each=1, seed=5)
    assert keep(fake_backbone, image_folder, out, "", "stages.0").rows == 27
    assert counted == {"penultimate@avg": 3, "stages.1@flatten": 3, "stages.0@avg": 27}
    assert_maps_by_hand(out, image_folder, "stages.1")


def test_rows_that_leave_take_their_maps(fake_backbone, image_folder, out):
    """Images that are gone leave, the maps of the others stay in line with their rows."""
    keep(fake_backbone, image_folder, out, "stages.1")
    (image_folder / "blue" / "003.png").unlink()
    assert keep(fake_backbone, image_folder, out, "").n_removed == 1
    assert_maps_by_hand(out, image_folder, "stages.1")


def test_an_interrupted_run_keeps_its_maps(fake_backbone, image_folder, out, monkeypatch):
    """After Ctrl-C the maps of finished batches are in segments, and the next run computes just the others."""
    counted = count_images(monkeypatch)
    interrupt = stop_after(14, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        keep(fake_backbone, image_folder, out, "stages.1", progress=interrupt, max_segment_rows=3)
    assert len(segment_digests(out)) == 12
    keep(fake_backbone, image_folder, out, "stages.1")
    assert counted == {"penultimate@avg": 24, "stages.1@flatten": 24}
    assert_maps_by_hand(out, image_folder, "stages.1")


def test_a_map_added_to_a_part_of_the_images_is_completed(fake_backbone, image_folder, out, monkeypatch):
    """Interrupted while a map is added, and continued with new images: nothing is computed twice."""
    listing = list_images(image_folder)
    keep(fake_backbone, without(listing, 0, 1), out, "")
    counted = count_images(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        keep(fake_backbone, image_folder, out, "stages.1", progress=stop_after(14, KeyboardInterrupt()))
    keep(fake_backbone, image_folder, out, "stages.1")
    assert counted == {"stages.1@flatten": 24, "penultimate@avg": 2}
    assert_maps_by_hand(out, image_folder, "stages.1")


def test_a_map_that_float16_cannot_hold_is_noticed(image_folder, out):
    """Values above 65504 are an error that names the layer, not infinities in the store."""
    network = FakeNetwork()
    with torch.no_grad():
        network.stages[2].weight.mul_(1000)
    backbone = open_backbone(network, transform=FAKE_TRANSFORM)
    with pytest.raises(
        StoreError, match=r"Map 'stages\.3': values reach .*; float16 holds at most 65504\. Keep the map"
    ):
        keep(backbone, image_folder, out, "stages.3")
    assert not out.exists()


def test_space_for_maps_is_looked_for_first(fake_backbone, image_folder, out, monkeypatch):
    """The bytes of maps count when the disk is checked, and in the size of a dataset."""
    extraction = make_extraction(
        fake_backbone, image_folder, out, map_taps=[map_tap(fake_backbone, "stages.0")], options=TORCH
    )
    (info,) = extraction.maps.values()
    assert extraction.megabytes(info) == 24 * 8 * 8 * 4 * 2 / 1e6
    usage = type("usage", (), {"free": 2 * 24 * (8 * 4 + 8 * 8 * 4 * 2 + 256) - 1})
    monkeypatch.setattr("featx.extraction.safeguards.shutil.disk_usage", lambda _folder: usage)
    with pytest.raises(StoreError, match="choose fewer layers or maps"):
        extraction.run()


def test_large_maps_come_in_small_batches():
    """What comes out of a batch stays near 32 MB, however small the network; an explicit batch size is obeyed."""
    transform = replace(FAKE_TRANSFORM, size=(512, 512), resize_size=(512, 512))
    backbone = open_backbone(FakeNetwork(), transform=transform)
    tap = map_tap(backbone, "stages.0")
    assert map_shape(tap) == (512, 512, 4)
    assert FeatureComputer(backbone, [tap]).batch_size == int(32e6 / (512 * 512 * 4 * 4)) == 7
    assert FeatureComputer(backbone, backbone.select("stages.0").taps).batch_size == 32
    assert FeatureComputer(backbone, [tap], TORCH).batch_size == 4


def test_taps_of_a_computer_are_in_the_order_of_the_network(fake_backbone):
    """Taps given in any order, one of them twice, are each run once, the deepest last."""
    taps = [*fake_backbone.select("logits,stages.0").taps[::-1], map_tap(fake_backbone, "stages.2")]
    computer = FeatureComputer(fake_backbone, [*taps, taps[0]], TORCH)
    assert [tap.key for tap in computer.taps] == ["stages.0@avg", "stages.2@flatten", "logits@avg"]
    assert all(isinstance(tap, Tap) for tap in computer.taps)
