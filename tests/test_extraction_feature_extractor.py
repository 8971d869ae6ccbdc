"""`FeatureExtractor` follows scikit-learn to the letter, and gives features computed by hand."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import joblib
import numpy as np
import pytest
from extraction_runs import by_hand, count_images
from fake_backbone import FAKE_TRANSFORM, FakeNetwork, fake_features, fake_pixels
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted

from featx.errors import ImageError, LayerError, UsageError
from featx.extraction import FeatureExtractor
from featx.images import list_images


def make(**parameters) -> FeatureExtractor:
    """Return an extractor of the fake network."""
    settings = {"transform_spec": FAKE_TRANSFORM, "engine": "torch", "batch_size": 4, **parameters}
    return FeatureExtractor(FakeNetwork(), **settings)


@pytest.fixture
def entries(image_folder):
    return list(list_images(image_folder).entries)


def paths_of(entries) -> list[str]:
    return [entry.location for entry in entries]


def test_features_of_paths_equal_those_by_hand(entries):
    """Paths as text or as Path, in any order, give the features computed by hand, as float32."""
    backwards = entries[::-1]
    features = make().fit_transform([Path(path) for path in paths_of(backwards)])
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, by_hand(backwards)["penultimate"], rtol=1e-5)
    np.testing.assert_array_equal(make().transform(paths_of(backwards)), features)
    np.testing.assert_array_equal(make().transform(np.array(paths_of(backwards))), features)
    np.testing.assert_array_equal(make().transform(np.array(paths_of(backwards), object)[:, None]), features)
    np.testing.assert_array_equal(make().transform(iter(paths_of(backwards))), features)


def test_features_of_pictures_equal_those_by_hand(entries):
    """PIL images and arrays need no file; one array of many pictures is many pictures."""
    pixels = fake_pixels(5)
    expected = fake_features(pixels)["penultimate"]
    extractor = make()
    np.testing.assert_allclose(extractor.transform(pixels), expected, rtol=1e-5)
    np.testing.assert_allclose(extractor.transform(list(pixels)), expected, rtol=1e-5)
    np.testing.assert_allclose(extractor.transform([Image.fromarray(one) for one in pixels]), expected, rtol=1e-5)
    mixed = [pixels[0], entries[3].location, Image.fromarray(pixels[1])]
    features = extractor.transform(mixed)
    np.testing.assert_allclose(features[[0, 2]], expected[:2], rtol=1e-5)
    np.testing.assert_allclose(features[1], by_hand(entries[3:4])["penultimate"][0], rtol=1e-5)


def test_an_opened_file_equals_its_path(tmp_path):
    """An image that PIL opened gives the features of its file: turned by its EXIF, transparent on white, 16 bits."""
    random = np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x0112] = 6
    gray = random.integers(0, 65536, (12, 9), np.uint16)
    pictures = {
        "turned.jpg": (Image.fromarray(random.integers(0, 256, (12, 9, 3), np.uint8)), {"exif": exif}),
        "transparent.png": (Image.fromarray(random.integers(0, 256, (12, 9, 4), np.uint8)), {}),
        "deep.png": (Image.fromarray(gray), {}),
    }
    for name, (picture, options) in pictures.items():
        picture.save(tmp_path / name, **options)
    paths = [tmp_path / name for name in pictures]
    extractor = make(pool="flatten", layer="stages.1")
    opened = [Image.open(path) for path in paths]
    np.testing.assert_array_equal(extractor.transform(opened), extractor.transform(paths))


def test_several_layers_stand_side_by_side(entries):
    """Columns are those of the layers in the order of the network, and their names say so."""
    extractor = make(layer="penultimate,early").fit()
    features = extractor.transform(paths_of(entries))
    expected = by_hand(entries)
    np.testing.assert_allclose(features, np.hstack([expected["stages.1"], expected["penultimate"]]), rtol=1e-5)
    assert extractor.n_features_out_ == 12
    names = extractor.get_feature_names_out()
    assert names.dtype == object
    assert names.tolist() == [f"stages.1@avg_{n}" for n in range(4)] + [f"penultimate@avg_{n}" for n in range(8)]


def test_init_only_stores_its_arguments(monkeypatch):
    """Making, cloning and setting parameters open no network, and an unknown layer is named at fit."""
    with monkeypatch.context() as patch:
        patch.setattr("featx.backbones.open_backbone", None)  # would fail where called
        extractor = FeatureExtractor("no such network", layer="nowhere", batch_size=-3, on_error="?")
        assert clone(extractor).get_params() == extractor.get_params()
        extractor.set_params(layer="early", batch_size=2)
        assert vars(extractor).keys() == extractor.get_params().keys()
        assert "no such network" in repr(extractor)
    with pytest.raises(LayerError, match="nowhere"):
        make(layer="nowhere").fit()
    with pytest.raises(UsageError, match="allowed: 'raise', 'nan'"):
        make(on_error="?").fit()
    with pytest.raises(UsageError, match="batch_size -3 is not at least 1"):
        make(batch_size=-3).fit()


def test_the_users_module_is_left_alone(entries):
    """A module of one's own stays in training mode, with gradients and without hooks."""
    module = FakeNetwork().train()
    extractor = FeatureExtractor(module, transform_spec=FAKE_TRANSFORM, engine="torch")
    extractor.fit_transform(paths_of(entries)[:2])
    assert module.training
    assert all(parameter.requires_grad for parameter in module.parameters())
    assert not any(child._forward_hooks or child._forward_pre_hooks for child in module.modules())


def test_no_fit_is_needed(entries):
    """There is nothing to learn, so transform works at once, and scikit-learn's check agrees."""
    extractor = make()
    try:
        check_is_fitted(extractor)
    except NotFittedError:  # pragma: no cover
        pytest.fail("an extractor needs no fit")
    assert extractor.transform(paths_of(entries)[:2]).shape == (2, 8)
    assert not extractor.__sklearn_tags__().requires_fit


def test_the_open_network_is_dropped_on_pickling_and_cloning(entries):
    """Pickles and clones are small and hold no network, and compute the same."""
    extractor = FeatureExtractor("test_efficientnet", weights="random:0", engine="torch")
    expected = extractor.fit_transform(paths_of(entries)[:3])
    content = pickle.dumps(extractor)
    assert len(content) < 2000
    np.testing.assert_array_equal(pickle.loads(content).transform(paths_of(entries)[:3]), expected)
    assert not any(name.startswith("_opened") for name in vars(clone(extractor)))
    own = make()
    own.transform(paths_of(entries)[:3])
    np.testing.assert_array_equal(
        pickle.loads(pickle.dumps(own)).transform(paths_of(entries)[:3]), own.transform(paths_of(entries)[:3])
    )


def test_a_changed_parameter_is_seen_and_others_do_not_reopen(entries, monkeypatch):
    """After set_params the next transform uses the new layer; what does not matter to the network keeps it open."""
    opened = []
    from featx import backbones

    open_backbone = backbones.open_backbone
    monkeypatch.setattr(backbones, "open_backbone", lambda *a, **k: opened.append(1) or open_backbone(*a, **k))
    extractor = make()
    paths = paths_of(entries)[:2]
    assert extractor.fit(paths).transform(paths).shape == (2, 8)
    assert extractor.set_params(on_error="nan").transform(paths).shape == (2, 8)
    assert len(opened) == 1
    assert extractor.set_params(layer="early").transform(paths).shape == (2, 4)
    assert extractor.n_features_out_ == 4
    assert len(opened) == 2


def test_it_works_in_a_pipeline_and_a_grid_search(entries, tmp_path, monkeypatch):
    """A grid over layers with a cache scores well, and runs each image once for each layer."""
    counted = count_images(monkeypatch)
    labels = [entry.label for entry in entries]
    pipeline = make_pipeline(make(cache=tmp_path / "cache.h5"), StandardScaler(), LogisticRegression())
    search = GridSearchCV(pipeline, {"featureextractor__layer": ["early", "stages.2", "penultimate"]}, cv=4)
    search.fit(paths_of(entries), labels)
    assert counted == {"stages.1@avg": 24, "stages.2@avg": 24, "penultimate@avg": 24}
    assert search.best_score_ == 1.0
    assert search.predict(paths_of(entries)).tolist() == labels
    assert counted.total() == 72


def test_parallel_folds_share_a_cache(entries, tmp_path):
    """Workers that use one cache at once wait for each other, and none loses what another added."""
    pipeline = make_pipeline(make(cache=tmp_path / "cache.h5"), StandardScaler(), LogisticRegression())
    grid = {"featureextractor__layer": ["early", "penultimate"]}
    search = GridSearchCV(pipeline, grid, cv=3, n_jobs=3, error_score="raise")
    with joblib.parallel_config("threading"):  # locks are held by open files, so threads stand for processes here
        search.fit(paths_of(entries), [entry.label for entry in entries])
    assert search.best_score_ == 1.0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache.h5", "pictures"]


def test_pandas_output(entries):
    """With pandas there, set_output gives a frame with the names of the features."""
    pandas = pytest.importorskip("pandas")
    frame = make().set_output(transform="pandas").fit_transform(pandas.Series(paths_of(entries)))
    assert list(frame.columns) == [f"penultimate@avg_{n}" for n in range(8)]


def test_names_for_set_output(entries):
    """set_output is offered, and there are as many names as columns."""
    extractor = make().set_output(transform="default")
    assert len(extractor.get_feature_names_out()) == extractor.transform(paths_of(entries)[:1]).shape[1]


def test_unreadable_images_are_named(entries, tmp_path):
    """By default images that cannot be read are an error that names them with their reasons."""
    (tmp_path / "bad.jpg").write_bytes(b"nothing")
    paths = [entries[0].location, str(tmp_path / "bad.jpg"), str(tmp_path / "missing.jpg")]
    with pytest.raises(ImageError, match=r"2 of 3 images cannot be read .*bad\.jpg: not an image.*missing\.jpg: No"):
        make().transform(paths)


@pytest.mark.parametrize("cached", [False, True])
def test_unreadable_images_are_rows_of_nan(entries, tmp_path, cached):
    """With on_error="nan" they are rows of NaN, and every other row is its own image's."""
    extractor = make(on_error="nan", cache=tmp_path / "cache.h5" if cached else None)
    (tmp_path / "bad.jpg").write_bytes(b"nothing")
    truncated = Path(entries[5].location).read_bytes()[:300]
    (tmp_path / "half.png").write_bytes(truncated)
    with Image.open(tmp_path / "half.png") as half:
        bad = [str(tmp_path / "bad.jpg"), half]
        features = extractor.transform([entries[2].location, bad[0], entries[0].location, bad[1], entries[2].location])
        nothing = extractor.transform(bad)
    assert np.isnan(features).all(axis=1).tolist() == [False, True, False, True, False]
    expected = by_hand([entries[2], entries[0], entries[2]])["penultimate"]
    np.testing.assert_allclose(features[[0, 2, 4]], expected, rtol=1e-5)
    assert np.isnan(nothing).all()


def test_no_image_can_be_read_at_all(tmp_path):
    """Where not one image can be read the answer is the same with a new cache as without."""
    for cache in (None, tmp_path / "cache.h5"):
        assert np.isnan(make(on_error="nan", cache=cache).transform([tmp_path / "missing.jpg"])).all()
        with pytest.raises(ImageError, match="1 of 1 images cannot be read"):
            make(cache=cache).transform([tmp_path / "missing.jpg"])


def test_no_images(tmp_path):
    """No images give no rows of the right width."""
    for cache in (None, tmp_path / "cache.h5"):
        assert make(cache=cache).transform([]).shape == (0, 8)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("one.jpg", r"not the single 'one\.jpg'; give \[path\]"),
        (Path("one.jpg"), "not the single"),
        ([3.5], "float is no image"),
        (np.zeros((2, 8, 8, 3)), r"not a table of shape \(2, 8, 8, 3\)"),
        (np.array([["a.jpg", "b.jpg"]]), r"not a table of shape \(1, 2\)"),
        (np.zeros((8, 8, 3), np.uint8), r"dtype uint8 and shape \(8, 3\)"),
        ([np.zeros((8, 8), np.uint8)], r"shape \(8, 8\); give RGB"),
    ],
)
def test_what_is_no_sequence_of_images(value, message):
    """A single path, numbers, and tables are refused with what to give instead."""
    with pytest.raises(UsageError, match=message):
        make().transform(value)


def test_a_transform_spec_counts(entries):
    """Features follow the transform given for a module of one's own."""
    spec = replace(FAKE_TRANSFORM, resize_size=(16, 16))
    features = make(transform_spec=spec).transform(paths_of(entries))
    np.testing.assert_allclose(features, by_hand(entries, spec)["penultimate"], rtol=1e-5)
