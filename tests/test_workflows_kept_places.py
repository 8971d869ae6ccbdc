"""Places that an index keeps: from originals or maps of a store, through files, over updates, and damaged."""

from __future__ import annotations

import numpy as np
import pytest
from extraction_runs import TORCH, make_extraction
from fake_backbone import FAKE_TRANSFORM, fake_maps
from PIL import Image

from featx.errors import StoreError
from featx.extraction import select_maps
from featx.images import list_images, resize_and_crop, view_pixels
from featx.retrieval import ImageIndex
from featx.retrieval.local.descriptors import fit_local_encoder
from featx.store import FeatureStore
from featx.workflows.kept_places import PLACES, KeptPlaces, places_of_rows, places_of_store
from featx.workflows.picture_places import OWN, WHOLE, PlaceComputer

LAYER = "stages.1"
GEOMETRY = {
    "size": FAKE_TRANSFORM.size,
    "resize_size": FAKE_TRANSFORM.resize_size,
    "crop_mode": FAKE_TRANSFORM.crop_mode,
    "interpolation": FAKE_TRANSFORM.interpolation,
}
SIZES = [(24, 18), (18, 24), (20, 20)]


@pytest.fixture
def photos(tmp_path):
    """Nine pictures of random colours, of three shapes, in file formats without loss."""
    folder = tmp_path / "photos"
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(9):
        width, height = SIZES[number % 3]
        Image.fromarray(random.integers(0, 256, (height, width, 3), np.uint8)).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def store(fake_backbone, photos, tmp_path):
    """A store of the pictures that keeps the map of stages.1."""
    taps = select_maps(fake_backbone, LAYER).taps
    make_extraction(fake_backbone, photos, tmp_path / "f.h5", map_taps=taps).run()
    with FeatureStore(tmp_path / "f.h5") as opened:
        yield opened


@pytest.fixture
def computer(fake_backbone):
    return PlaceComputer(fake_backbone, LAYER, TORCH)


def made_up(n=5, *, views="whole", seed=0):
    """Return places of n pictures that never were."""
    random = np.random.default_rng(seed)
    encoder = fit_local_encoder([random.normal(size=(n, 16, 6))], n_components=4, bits=4)
    codes = encoder.encode(random.normal(size=(n, 16, 6)))
    return KeptPlaces("blocks.9", views, encoder, codes, random.integers(1, 900, (n, 2)).astype(np.int32))


def index_with(kept, **changed):
    """Return an index with places; metadata and arrays of these names are put in their stead."""
    metadata, arrays = kept.to_parts()
    metadata[PLACES] |= {name: value for name, value in changed.items() if not name.startswith("array_")}
    arrays |= {
        f"{PLACES}/{name.removeprefix('array_')}": value for name, value in changed.items() if name.startswith("array_")
    }
    return ImageIndex.build(np.eye(len(kept.codes)), metadata=metadata, arrays=arrays)


def assert_decodes_to(kept, row, encoder, maps):
    """Check that the code of a row is that of a map computed by hand, but for numbers at the edge of rounding."""
    wanted = encoder.decode(encoder.encode(maps.astype(np.float32)))[0]
    found = encoder.decode(kept.codes[row])
    apart = np.abs(found - wanted)
    assert apart.max() <= encoder.step * 1.01
    assert (apart > 1e-6).mean() < 0.1


def test_places_of_whole_pictures(store, computer, photos):
    """With the originals at hand, codes are those of the whole pictures, stretched; sizes are theirs."""
    kept = places_of_store(store, computer, LAYER)
    assert (kept.layer, kept.views, kept.seen) == (LAYER, "whole", WHOLE)
    assert kept.codes.shape == (9, 16, kept.encoder.n_bytes)
    assert kept.bytes_per_image == 16 * kept.encoder.n_bytes
    for row, path in enumerate(store.paths.tolist()):
        picture = Image.open(photos / path)
        assert tuple(kept.sizes[row]) == picture.size == SIZES[int(path[0]) % 3]
        pixels = view_pixels(picture, WHOLE, **GEOMETRY)
        squashed = resize_and_crop(picture, **GEOMETRY | {"crop_mode": "squash"}).astype(int)
        assert np.abs(pixels[0] - squashed).max() <= 2  # whole is what another way of resizing makes of it
        assert_decodes_to(kept, row, kept.encoder, fake_maps(pixels)[LAYER])


def test_places_of_stored_maps(store, photos, monkeypatch):
    """Without the originals, codes are those of the maps that the store keeps, of the network's own view."""
    pictures = {path: Image.open(photos / path).convert("RGB") for path in store.paths.tolist()}
    for path in store.paths.tolist():
        (photos / path).unlink()
    monkeypatch.setattr("featx.workflows.kept_places.IMAGES_AT_ONCE", 4)  # several blocks
    kept = places_of_store(store, None, LAYER)
    assert (kept.layer, kept.views, kept.seen) == (LAYER, "own", OWN)
    assert kept.codes.shape == (9, 16, kept.encoder.n_bytes)
    for row, (path, picture) in enumerate(pictures.items()):
        assert tuple(kept.sizes[row]) == SIZES[int(path[0]) % 3]
        assert_decodes_to(kept, row, kept.encoder, fake_maps(resize_and_crop(picture, **GEOMETRY)[None])[LAYER])


@pytest.mark.parametrize("views", ["whole", "own"])
def test_places_of_some_rows(store, computer, views, monkeypatch):
    """Places of chosen rows are those rows of the places of all."""
    monkeypatch.setattr("featx.workflows.kept_places.IMAGES_AT_ONCE", 2)
    used = computer if views == "whole" else None
    kept = places_of_store(store, used, LAYER)
    rows = np.array([1, 4, 5, 7, 8])
    codes, sizes = places_of_rows(store, used, kept.encoder, LAYER, rows)
    np.testing.assert_array_equal(codes, kept.codes[rows])
    np.testing.assert_array_equal(sizes, kept.sizes[rows])
    assert sizes.dtype == np.int32


def test_what_cannot_be_read_is_zero(store, computer, photos):
    """A picture that is gone, and one that is none any more, have zeros; where all are gone, that is an error."""
    (photos / "3.png").unlink()
    (photos / "5.png").write_text("no picture")
    kept = places_of_store(store, computer, LAYER)
    gone = [store.paths.tolist().index(path) for path in ("3.png", "5.png")]
    assert not kept.codes[gone].any()
    assert np.flatnonzero(~kept.sizes.any(axis=1)).tolist() == sorted(gone)
    for entry in list_images(photos).entries:
        (photos / entry.path).unlink()
    with pytest.raises(StoreError, match="none of 9 original images can be read"):
        places_of_store(store, computer, LAYER)


@pytest.mark.parametrize("views", ["whole", "own"])
def test_places_survive_the_file(tmp_path, views):
    """What an index keeps of places is read back as it was."""
    kept = made_up(views=views)
    index_with(kept).save(tmp_path / "k.index")
    found = KeptPlaces.of_index(ImageIndex.load(tmp_path / "k.index"))
    assert (found.layer, found.views, found.encoder.bits) == (kept.layer, views, 4)
    for name in ("codes", "sizes"):
        np.testing.assert_array_equal(getattr(found, name), getattr(kept, name), strict=True)
    np.testing.assert_array_equal(found.encoder.decode(found.codes), kept.encoder.decode(kept.codes))
    assert KeptPlaces.of_index(ImageIndex.build(np.eye(3))) is None


def test_more_ids():
    """Places of later ids stand at these; ids in between are as if unreadable; the first ones stay."""
    kept, more = made_up(5), made_up(2, seed=1)
    found = kept.extended(np.array([6, 9]), more.codes, more.sizes)
    assert (found.layer, found.views, found.encoder) == (kept.layer, kept.views, kept.encoder)
    assert found.codes.shape == (10, *kept.codes.shape[1:])
    assert (found.codes.dtype, found.sizes.dtype) == (np.uint8, np.int32)
    for name in ("codes", "sizes"):
        whole = getattr(found, name)
        np.testing.assert_array_equal(whole[:5], getattr(kept, name))
        np.testing.assert_array_equal(whole[[6, 9]], getattr(more, name))
        assert not whole[[5, 7, 8]].any()
    assert len(kept.codes) == 5


DAMAGES = {
    "no layer": {"layer": None},
    "no encoder": {"encoder": {}},
    "an encoder that is none": {"encoder": 3},
    "other bits": {"encoder": {"own_mean": 0.5, "bits": 5}},
    "views of another name": {"views": "sideways"},
    "views that are a list": {"views": ["whole"]},
    "codes of another type": {"array_codes": np.zeros((5, 16, 2), np.float32)},
    "codes of another width": {"array_codes": np.zeros((5, 16, 3), np.uint8)},
    "codes without places": {"array_codes": np.zeros((5, 2), np.uint8)},
    "sizes of other pictures": {"array_sizes": np.ones((4, 2), np.int32)},
    "sizes that are no numbers of pixels": {"array_sizes": np.full((5, 2), np.nan)},
    "an encoder's mean of another width": {"array_encoder/mean": np.zeros(3, np.float32)},
    "an encoder of infinities": {"array_encoder/projection": np.full((6, 4), np.inf, np.float32)},
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_places_are_refused(damage):
    """Parts that do not fit each other are an error that says to build the index again."""
    index = index_with(made_up(), **DAMAGES[damage])
    if damage == "no layer":
        del index.metadata[PLACES]["layer"]
    with pytest.raises(StoreError, match=r"(?i)build (it|the index) again"):
        KeptPlaces.of_index(index)


@pytest.mark.parametrize("described", ["places", 3, ["layer"], {}])
def test_places_described_otherwise_are_refused(described):
    """Another thing in the place of the description is an error, not a crash."""
    index = index_with(made_up())
    index.metadata[PLACES] = described
    with pytest.raises(StoreError, match="build it again"):
        KeptPlaces.of_index(index)


@pytest.mark.parametrize("name", ["codes", "sizes", "encoder/mean", "encoder/projection"])
def test_missing_arrays_are_refused(name):
    """Each array is needed."""
    index = index_with(made_up())
    del index.arrays[f"{PLACES}/{name}"]
    with pytest.raises(StoreError, match=r"(?i)build (it|the index) again"):
        KeptPlaces.of_index(index)


@pytest.mark.parametrize("kind", ["another map", "another layer's channels"])
def test_places_of_another_network_are_refused(store, computer, fake_backbone, kind):
    """Places whose number, or whose channels, are not those of the network's map are an error, not nonsense."""
    from featx.workflows.second_stage import SecondStage

    kept = places_of_store(store, computer, LAYER)
    metadata, arrays = kept.to_parts()
    if kind == "another map":
        arrays[f"{PLACES}/codes"] = np.tile(kept.codes, (1, 2, 1))
    else:
        metadata[PLACES]["layer"] = "stages.2"  # twice the channels
    index = ImageIndex.build(
        np.eye(9), paths=store.paths.tolist(), metadata={"source": store.source, **metadata}, arrays=arrays
    )
    with pytest.raises(StoreError):
        SecondStage(index, fake_backbone, TORCH).order([0], np.arange(9), 100)
