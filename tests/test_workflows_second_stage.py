"""The second stage: where the places of views lie, what is turned, and how candidates are ordered anew."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
from extraction_runs import TORCH
from fake_backbone import FAKE_TRANSFORM, FakeNetwork, write_pictures
from PIL import Image

from featx.backbones import open_backbone
from featx.errors import LayerError, StoreError
from featx.extraction import FeatureComputer, map_tap
from featx.images import ImageEntry, View, list_images, view_pixels
from featx.retrieval import ImageIndex
from featx.retrieval.local.matching import score_candidates
from featx.retrieval.local.places import LocalPlaces
from featx.workflows.kept_places import KeptPlaces
from featx.workflows.picture_places import OWN, WHOLE, PlaceComputer, deepest_fine_layer, encoded, learned_encoder
from featx.workflows.searching import Query, query_images
from featx.workflows.second_stage import SecondStage, open_second_stage

# Maps of 16 x 16 cells whose channels 1 and 2 are the mean red and green of the cell.
LARGER = replace(FAKE_TRANSFORM, size=(32, 32), resize_size=(36, 36))
SIZES = [(240, 160), (150, 250), (200, 200), (31, 255)]
PLACES = [(down, across) for down in (0.0, 0.5, 1.0) for across in (0.0, 0.5, 1.0)]
CLOSER = tuple(View(span=0.6, place=place) for place in PLACES)
N_PICTURES = 6


@pytest.fixture(scope="module")
def backbone():
    """The network computed by hand, for pictures of 32 x 32."""
    return open_backbone(FakeNetwork(), transform=LARGER)


def coordinates(width, height):
    """Return a picture whose red is the column and whose green is the row of each pixel."""
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([x, y, 0 * x + 100], axis=-1).astype(np.uint8))


def entry_of(path, picture):
    """Write a picture as PNG; return it as an entry."""
    picture.save(path)
    return ImageEntry(path.name, location=str(path))


def patchwork(seed, size=(64, 64), n_patches=8):
    """Return a picture of random colours in squares, smoothly joined."""
    colours = np.random.default_rng(seed).integers(0, 256, (n_patches, n_patches, 3), np.uint8)
    return Image.fromarray(colours).resize(size, Image.Resampling.BILINEAR)


@pytest.fixture
def photos(tmp_path):
    """Six pictures of random colours, of several shapes."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(N_PICTURES):
        patchwork(number, [(64, 64), (96, 64), (64, 90)][number % 3]).save(folder / f"{number}.png")
    return folder


def index_of(photos, **metadata):
    """Return an index of six pictures, whose vectors say nothing."""
    paths = [f"{number}.png" for number in range(N_PICTURES)]
    return ImageIndex.build(np.eye(N_PICTURES), paths=paths, metadata={"source": str(photos), **metadata})


def keeping(index, backbone):
    """Return an index that keeps the places of its pictures."""
    computer = PlaceComputer(backbone, "stages.3", TORCH)
    entries = entries_of(index)
    encoder = learned_encoder(computer, entries)
    kept = KeptPlaces("stages.3", "whole", encoder, *encoded(computer, encoder, entries, WHOLE))
    metadata, arrays = kept.to_parts()
    return ImageIndex.build(
        index.vectors, paths=index.paths, metadata={"source": index.metadata["source"], **metadata}, arrays=arrays
    )


def entries_of(index):
    """Return the pictures of an index."""
    return [ImageEntry(path, location=f"{index.metadata['source']}/{path}") for path in index.paths]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_positions_are_where_the_map_says(backbone, tmp_path, size):
    """On a picture of its own coordinates, the position of every place of every view is the colour that is there."""
    computer = PlaceComputer(backbone, "stages.1", TORCH)
    entry, views = entry_of(tmp_path / "c.png", coordinates(*size)), (*OWN, *CLOSER, *WHOLE)
    maps, sizes, failures = computer.maps_of([entry], views)
    assert (maps.shape, sizes.tolist(), failures) == ((1, len(views), 16, 16, 4), [list(size)], {})
    found = computer.positions(sizes[0], views).reshape(len(views), 16, 16, 2) * max(size)
    # The middle of column 0 is at 0.5.
    assert np.abs(found - (maps[0, ..., 1:3] + 0.5)).max() < 1
    assert found.min() >= 0
    assert (found.reshape(-1, 2).max(axis=0) <= size).all()


@pytest.mark.parametrize("turn", [0, 1, 3])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_turned_positions_are_where_the_turned_picture_has_it(backbone, tmp_path, size, turn):
    """What a turned view sees in a cell lies on the turned picture where the cell's position says."""
    picture = coordinates(*size)
    stage = SecondStage(ImageIndex.build(np.eye(2)), backbone, TORCH)
    found = stage._turned_positions(np.array(size, np.int32), turn) * max(size)
    views = [View(quarter_turns=turn), *(replace(view, quarter_turns=turn) for view in CLOSER)]
    computer = PlaceComputer(backbone, "stages.1", TORCH)
    maps, _, _ = computer.maps_of([entry_of(tmp_path / "c.png", picture)], views)
    columns, rows = np.rint(maps[0, ..., 1:3].reshape(-1, 2)).astype(int).T
    # Where each pixel of the upright picture is on the turned one, as Pillow turns it.
    turned = np.asarray(picture.rotate(90 * turn, expand=True))
    now = np.empty((size[1], size[0], 2))
    y, x = np.mgrid[: turned.shape[0], : turned.shape[1]]
    now[turned[..., 1], turned[..., 0]] = np.stack([x, y], axis=-1) + 0.5
    assert found.shape == (len(views) * 16 * 16, 2)
    assert np.abs(found - now[rows, columns]).max() < 1.5  # half a pixel of it is the rounding of colours


def test_the_deepest_layer_of_a_fine_map(backbone, fake_backbone):
    """Without a name the deepest stage of at least 12 rows is taken; where all are coarser, a layer has to be named."""
    assert deepest_fine_layer(backbone) == "stages.4"
    assert PlaceComputer(backbone, None).map_shape == (16, 16, 8)
    middle = open_backbone(FakeNetwork(), transform=replace(FAKE_TRANSFORM, size=(16, 16), resize_size=(16, 16)))
    assert deepest_fine_layer(middle) == "stages.0"
    with pytest.raises(LayerError, match="has a map of 12 rows or more; name a layer"):
        PlaceComputer(fake_backbone, None)
    assert PlaceComputer(fake_backbone, "stages.1").map_shape == (4, 4, 4)


@pytest.mark.parametrize(("side", "is_square"), [((32, 32), True), ((32, 48), False)])
def test_only_squares_can_be_turned(side, is_square):
    """Whether a network sees squares is known; other networks order candidates too, without turns of the query."""
    network = open_backbone(FakeNetwork(), transform=replace(FAKE_TRANSFORM, size=side, resize_size=side))
    assert PlaceComputer(network, "stages.1").is_square is is_square


def test_a_network_of_another_shape_orders_as_well(photos):
    """With an oblong network, whose views cannot be turned, each picture finds itself."""
    network = open_backbone(FakeNetwork(), transform=replace(FAKE_TRANSFORM, size=(32, 48), resize_size=(32, 48)))
    index = index_of(photos)
    stage = SecondStage(index, network, TORCH)
    for row in (0, 4):
        rows, _ = stage.order([row], np.arange(N_PICTURES), 100)
        assert rows[0] == row


def test_a_layer_without_a_map_names_layers(backbone):
    """The error says which layers have a map."""
    with pytest.raises(LayerError, match=r"'logits' gives a vector of 3 numbers, no spatial map; layers.*stages\.0"):
        PlaceComputer(backbone, "logits")


def test_views_with_sizes(backbone, tmp_path):
    """Maps of several views and pictures are those computed by hand; unreadable ones have no size and a reason."""
    first, second = coordinates(90, 60), patchwork(3, (40, 70))
    broken = tmp_path / "broken.png"
    broken.write_text("no picture")
    entries = [
        entry_of(tmp_path / "a.png", first),
        ImageEntry("broken.png", location=str(broken)),
        entry_of(tmp_path / "b.png", second),
    ]
    views = [View(), View(span=0.6, place=(0, 1)), View(quarter_turns=1)]
    geometry = {"size": LARGER.size, "resize_size": LARGER.resize_size, "interpolation": LARGER.interpolation}
    computer = FeatureComputer(backbone, [map_tap(backbone, "stages.1"), *backbone.select("penultimate").taps], TORCH)
    features, failures, sizes = computer.sized_view_features_of(entries, views)
    assert sizes.tolist() == [[90, 60], [0, 0], [40, 70]]
    assert sizes.dtype == np.int32
    assert list(failures) == [1]
    assert "not an image" in failures[1]
    assert features["penultimate@avg"].shape == (3, 3, 8)
    assert np.isnan(features["stages.1@flatten"][1]).all()
    for row, picture in ((0, first), (2, second)):
        pixels = view_pixels(picture, views, **geometry).astype(float)
        colours = pixels.reshape(3, 16, 2, 16, 2, 3).mean((2, 4))  # of each cell
        wanted = np.concatenate([colours.sum(3, keepdims=True), colours], axis=3)
        found = features["stages.1@flatten"][row].reshape(3, 4, 16, 16)  # channels first
        np.testing.assert_allclose(found, wanted.transpose(0, 3, 1, 2), rtol=1e-4)
        means = wanted.mean((1, 2))
        pooled = np.concatenate([means, 2 * means], axis=1)[:, ::-1] + 1
        np.testing.assert_allclose(features["penultimate@avg"][row], pooled, rtol=1e-4)
    plain, again = computer.view_features_of(entries, views)
    assert again == failures
    np.testing.assert_array_equal(plain["penultimate@avg"], features["penultimate@avg"])


def test_the_size_is_that_of_the_upright_picture(backbone, tmp_path):
    """A photo that the camera marked as turned has the width and height that a viewer sees."""
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    patchwork(0, (60, 40)).save(tmp_path / "turned.jpg", exif=exif)
    entry = ImageEntry("turned.jpg", location=str(tmp_path / "turned.jpg"))
    _, sizes, _ = PlaceComputer(backbone, "stages.1", TORCH).maps_of([entry], OWN)
    assert sizes.tolist() == [[40, 60]]


def test_codes_of_what_cannot_be_read_are_zero(backbone, photos):
    """Codes of several blocks stand at their picture's row; those of unreadable pictures are zeros with size 0."""
    computer = PlaceComputer(backbone, "stages.3", TORCH)
    entries = entries_of(index_of(photos)) * 7  # more than a block
    encoder = learned_encoder(computer, entries[:N_PICTURES])
    (photos / "2.png").unlink()
    codes, sizes = encoded(computer, encoder, entries, WHOLE)
    assert codes.shape == (42, 256, encoder.n_bytes)
    read = np.arange(42) % N_PICTURES != 2
    assert not codes[~read].any()
    assert not sizes[~read].any()
    for row in (0, 5):
        maps, size, _ = computer.maps_of([entries[row]], WHOLE)
        for copy in range(row, 42, N_PICTURES):
            np.testing.assert_array_equal(codes[copy], encoder.encode(maps)[0])
            np.testing.assert_array_equal(sizes[copy], size[0])


def test_an_encoder_needs_one_picture(backbone, photos, monkeypatch):
    """Pictures that cannot be read are left out while an encoder learns; where none can be read, that is said."""
    computer = PlaceComputer(backbone, "stages.3", TORCH)
    entries = entries_of(index_of(photos))
    missing = [ImageEntry(f"no{n}.png", location=f"/nowhere/{n}.png") for n in range(3)]
    alone = learned_encoder(computer, entries)
    monkeypatch.setattr("featx.workflows.picture_places.IMAGES_AT_ONCE", 2)
    mixed = learned_encoder(computer, [*missing, *entries])
    np.testing.assert_allclose(mixed.mean, alone.mean, rtol=1e-4)
    with pytest.raises(StoreError, match=r"none of 3 original images can be read; .*extract --keep-map"):
        learned_encoder(computer, missing)


@pytest.mark.parametrize("is_kept", [False, True], ids=["originals", "kept"])
def test_each_picture_finds_itself(backbone, photos, is_kept):
    """Whatever the order before, a picture comes first when it is asked for; scores fall; rows are the same rows."""
    index = index_of(photos)
    if is_kept:
        index = keeping(index, backbone)
    stage = SecondStage(index, backbone, TORCH)
    for row, entry in enumerate(entries_of(index)):
        before = np.roll(np.arange(N_PICTURES), -1 - row)  # itself last
        rows, scores = stage.order([entry], before, 100)
        assert rows[0] == row
        assert sorted(rows.tolist()) == list(range(N_PICTURES))
        assert (np.diff(scores) <= 0).all()
        assert scores[0] > 1.2 * scores[1]
        again, its_scores = stage.order([row], before, 100)  # a row of the index is its picture
        np.testing.assert_array_equal(again, rows)
        np.testing.assert_array_equal(its_scores, scores)


@pytest.mark.parametrize("turn", [1, 3])
def test_turned_and_cut_pictures_are_found(backbone, photos, tmp_path, turn):
    """A picture turned to a side and cut to four fifths finds the upright one."""
    index = keeping(index_of(photos), backbone)
    stage = SecondStage(index, backbone, TORCH)
    for row in range(N_PICTURES):
        picture = Image.open(photos / f"{row}.png")
        part = picture.crop((0, 0, round(picture.width * 0.8), round(picture.height * 0.8)))
        query = entry_of(tmp_path / "q.png", part.rotate(90 * turn, expand=True))
        rows, _ = stage.order([query], np.roll(np.arange(N_PICTURES), -1 - row), 100)
        assert rows[0] == row


def test_kept_places_say_what_the_originals_say(backbone, photos, tmp_path):
    """Where all pictures are candidates, kept places and originals opened anew give the same scores."""
    index = index_of(photos)
    query = entry_of(tmp_path / "q.png", patchwork(2, (80, 120)).rotate(90, expand=True))
    answers = []
    for each in (index, keeping(index, backbone)):
        # The layer that is taken by itself is the deepest; stages.4 is stages.3 and one more, which centring removes.
        rows, scores = SecondStage(each, backbone, TORCH).order([query], np.arange(N_PICTURES), 100)
        answers.append(scores[np.argsort(rows)])
    np.testing.assert_allclose(answers[0], answers[1], atol=0.02)


def test_several_pictures_count_by_their_mean(backbone, photos):
    """The score of a candidate for two pictures together is the mean of its scores for each."""
    index = keeping(index_of(photos), backbone)
    stage = SecondStage(index, backbone, TORCH)

    def scores_of(images):
        rows, scores = stage.order(images, np.arange(N_PICTURES), 100)
        return scores[np.argsort(rows)]

    entries = entries_of(index)
    np.testing.assert_allclose(scores_of([1, entries[4]]), (scores_of([1]) + scores_of([4])) / 2, rtol=1e-5)
    missing = ImageEntry("gone.png", location="/nowhere/gone.png")
    np.testing.assert_allclose(scores_of([1, missing]), scores_of([1]), rtol=1e-5)


def test_only_the_candidates_are_looked_at(backbone, photos):
    """Of a ranking the first rows are ordered anew; the others are neither returned nor opened."""
    for number in (0, 1, 5):
        (photos / f"{number}.png").unlink()
    stage = SecondStage(index_of(photos), backbone, TORCH)
    rows, scores = stage.order([4], np.array([2, 3, 4, 0, 1, 5]), 3)
    assert sorted(rows.tolist()) == [2, 3, 4]
    assert rows[0] == 4
    assert (scores > 0.1).any()


@pytest.mark.parametrize("is_kept", [False, True], ids=["originals", "kept"])
def test_candidates_that_cannot_be_read_come_last(backbone, photos, is_kept):
    """A candidate whose picture is gone is alike to nothing: it comes after all others, whichever is asked for."""
    (photos / "2.png").unlink()
    index = index_of(photos)
    if is_kept:
        index = keeping(index, backbone)
    stage = SecondStage(index, backbone, TORCH)
    for row in (0, 1, 3, 4, 5):
        rows, scores = stage.order([row], np.array([2, 0, 1, 3, 4, 5]), 100)
        assert rows[0] == row
        assert rows[-1] == 2
        assert scores[-1] < 0.5 * scores[0]


def test_a_query_that_cannot_be_read_keeps_the_order(backbone, photos):
    """Where no picture that is asked for can be opened, candidates stay as they are, with scores of 0."""
    index = keeping(index_of(photos), backbone)
    (photos / "3.png").unlink()
    before = np.array([4, 1, 5, 0])
    gone = ImageEntry("3.png", location=str(photos / "3.png"))
    rows, scores = SecondStage(index, backbone, TORCH).order([gone], before, 100)
    np.testing.assert_array_equal(rows, before)
    np.testing.assert_array_equal(scores, np.zeros(4))


@pytest.mark.parametrize("is_kept", [False, True], ids=["originals", "kept"])
def test_nothing_found_is_nothing_to_order(backbone, photos, is_kept):
    """A ranking without rows stays one."""
    index = keeping(index_of(photos), backbone) if is_kept else index_of(photos)
    rows, scores = SecondStage(index, backbone, TORCH).order([0], np.empty(0, np.int64), 100)
    assert len(rows) == len(scores) == 0


def test_without_any_original_there_is_nothing_to_match(backbone, photos, tmp_path):
    """An index without places whose pictures are all gone says what is needed."""
    query = entry_of(tmp_path / "q.png", patchwork(1))
    shutil.rmtree(photos)
    with pytest.raises(StoreError, match="none of 6 original images can be read; places of pictures need them, or"):
        SecondStage(index_of(photos), backbone, TORCH).order([query], np.arange(N_PICTURES), 100)


def test_new_images_without_places_are_opened(backbone, photos):
    """An image that came to an index without its places is seen by its original, with the others' encoder."""
    index = keeping(index_of(photos), backbone)
    patchwork(77, (70, 60)).save(photos / "new.png")
    (new,) = index.add(np.ones((1, N_PICTURES)), paths=["new.png"])
    stage = SecondStage(index, backbone, TORCH)
    rows, _ = stage.order([N_PICTURES], np.arange(N_PICTURES + 1), 100)
    assert new == rows[0] == N_PICTURES
    assert stage.order([2], np.arange(N_PICTURES + 1), 100)[0][0] == 2


def test_places_go_by_id(backbone, photos):
    """After images were removed, rows move, and each still has its own places."""
    index = keeping(index_of(photos), backbone)
    index.remove([0, 3])
    shutil.copytree(photos, photos.with_name("copy"))
    stage = SecondStage(index, backbone, TORCH)
    for row, path in enumerate(index.paths):
        query = ImageEntry(path, location=str(photos.with_name("copy") / path))
        assert stage.order([query], np.arange(len(index)), 100)[0][0] == row


def test_scores_are_those_of_local_matching(backbone, photos):
    """What a stage says is what matching says of the query's ten views in three turns, encoded by hand."""
    index = keeping(index_of(photos), backbone)
    kept, stage = KeptPlaces.of_index(index), SecondStage(index, backbone, TORCH)
    computer = PlaceComputer(backbone, "stages.3", TORCH)
    positions = np.stack([computer.positions(size, WHOLE) for size in kept.sizes])
    turns = []
    for turn in (0, 1, 3):
        views = [View(quarter_turns=turn), *(replace(view, quarter_turns=turn) for view in CLOSER)]
        maps, sizes, _ = computer.maps_of([entries_of(index)[1]], views)
        turns.append(LocalPlaces(kept.encoder.describe(maps)[0], stage._turned_positions(sizes[0], turn)))
    wanted = score_candidates(turns, kept.encoder.decode(kept.codes), positions).scores
    rows, scores = stage.order([1], np.arange(N_PICTURES), 100)
    np.testing.assert_allclose(scores[np.argsort(rows)], wanted, rtol=1e-5)


def test_an_index_must_say_how_it_was_made(photos):
    """Without information on the network there is no second stage, opened or asked for; the error says what to do."""
    index = index_of(photos)
    with pytest.raises(StoreError, match="does not say which features it holds; build it with featx index"):
        open_second_stage(index)
    with pytest.raises(StoreError, match="does not say which features it holds; build it with featx index"):
        next(query_images(index, [Query((0,))], rerank=True))


def test_pictures_of_one_colour_break_nothing(backbone, tmp_path):
    """Plain pictures among others can be candidates and queries."""
    folder = write_pictures(tmp_path / "mixed", n_each=1)
    Image.new("RGB", (50, 40), (90, 90, 90)).save(folder / "plain.png")
    listing = list_images(folder)
    index = ImageIndex.build(
        np.eye(4), paths=[entry.path for entry in listing.entries], metadata={"source": str(folder)}
    )
    stage = SecondStage(index, backbone, TORCH)
    for row in range(4):
        rows, scores = stage.order([row], np.arange(4), 100)
        assert sorted(rows.tolist()) == [0, 1, 2, 3]
        assert np.isfinite(scores).all()
