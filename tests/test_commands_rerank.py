"""``index --keep-places``, ``query --rerank`` and ``evaluate-index --rerank``: the same object, pictured otherwise."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from gallery import NETWORK, run
from PIL import Image, ImageDraw

from featx.retrieval import ImageIndex
from featx.workflows.kept_places import PLACES, KeptPlaces

ENGINE = ("--engine", "torch")
N_SIGNS = 9
ASKED = {0: 1, 3: 3}  # signs that are asked for, and by how many quarter turns they are turned


def sign(seed):
    """Return a picture of random shapes and letters on a background of its own."""
    random = np.random.default_rng(seed)
    width, height = ((300, 220), (220, 300), (256, 256))[seed % 3]
    picture = Image.new("RGB", (width, height), tuple(random.integers(120, 256, 3).tolist()))
    draw = ImageDraw.Draw(picture)
    for number in range(14):
        x, y = random.integers(0, width - 50), random.integers(0, height - 50)
        box = [int(x), int(y), int(x + random.integers(30, 110)), int(y + random.integers(30, 110))]
        colour = tuple(random.integers(0, 256, 3).tolist())
        (draw.ellipse, draw.rectangle, draw.line)[number % 3](
            box, fill=colour, **({"width": 8} if number % 3 == 2 else {})
        )
    for number in range(3):
        text = "".join(chr(letter) for letter in random.integers(65, 91, 5))
        draw.text((20, 20 + number * 70), text, fill=(0, 0, 0), font_size=48)
    return picture


def in_clutter(picture, turns, seed):
    """Return noise and lines with a picture in it, at two thirds of its size and turned."""
    random = np.random.default_rng(seed)
    noise = Image.fromarray(random.integers(0, 256, (12, 15, 3), np.uint8)).resize((380, 320), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(noise)
    for _ in range(25):
        ends = random.integers(0, 320, 4).tolist()
        draw.line(ends, fill=tuple(random.integers(0, 256, 3).tolist()), width=4)
    small = picture.resize((picture.width * 4 // 5, picture.height * 4 // 5)).rotate(90 * turns, expand=True)
    noise.paste(small, (70, 40))
    return noise


@pytest.fixture(scope="module")
def signs(tmp_path_factory):
    """A folder with originals, photos of some of them, a store with maps, and three indexes; read only.

    The indexes keep nothing, the places of whole pictures, and those of the store's maps: for the last the originals
    were gone.
    """
    folder = tmp_path_factory.mktemp("signs")
    (folder / "originals").mkdir()
    (folder / "photos").mkdir()
    for number in range(N_SIGNS):
        sign(number).save(folder / "originals" / f"{number}.png")
    for number, turns in ASKED.items():
        in_clutter(sign(number), turns, 100 + number).save(folder / "photos" / f"{number}.png")
    moving = shutil.copytree(folder / "originals", folder / "moving")
    for source, store, options in (("originals", "o.h5", ()), ("moving", "m.h5", ("--keep-map", "blocks.4"))):
        assert run("extract", folder / source, "--out", folder / store, *options, *ENGINE) == 0
    shutil.rmtree(moving)
    for store, index, options in (
        ("o.h5", "none.index", ()),
        ("o.h5", "whole.index", ("--keep-places", "blocks.4")),
        ("m.h5", "own.index", ()),  # a layer whose map the store keeps is taken by itself
    ):
        assert run("index", folder / store, "--out", folder / index, *options, *ENGINE) == 0
    return folder


def hits_of(capsys, *arguments, code=0):
    """Run a query with ``--json``; return path and score of the hits of each query."""
    capsys.readouterr()
    assert run("query", *arguments, "--json", *ENGINE) == code
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return [[(hit["path"], hit["score"]) for hit in line["hits"]] for line in lines]


@pytest.mark.parametrize(("kept", "asked"), [("none", [0]), ("whole", [0, 3]), ("own", [3])])
def test_a_sign_in_clutter_is_found(signs, capsys, kept, asked):
    """Small, turned to a side and in clutter, each sign is first among nine, with places kept and without."""
    photos = [signs / "photos" / f"{number}.png" for number in asked]
    found = hits_of(capsys, signs / f"{kept}.index", *photos, "--rerank", "-k", 100)
    for number, hits in zip(asked, found, strict=True):
        assert hits[0][0] == f"{number}.png"
        assert sorted(path for path, _ in hits) == sorted(f"{n}.png" for n in range(N_SIGNS))
        scores = [score for _, score in hits]
        assert scores == sorted(scores, reverse=True)
        assert scores[0] > 1.5 * scores[1]  # no narrow thing


def test_what_is_kept(signs):
    """Whole pictures where they could be opened, the network's own view where only the store had it; else nothing."""
    whole, own = (KeptPlaces.of_index(ImageIndex.load(signs / f"{kind}.index")) for kind in ("whole", "own"))
    assert (whole.layer, whole.views, own.layer, own.views) == ("blocks.4", "whole", "blocks.4", "own")
    sizes = [(300, 220), (220, 300), (256, 256)]
    for kept in (whole, own):
        assert kept.codes.shape[:2] == (N_SIGNS, 14 * 14)
        assert [tuple(size) for size in kept.sizes.tolist()] == [sizes[number % 3] for number in range(N_SIGNS)]
    assert KeptPlaces.of_index(ImageIndex.load(signs / "none.index")) is None


# From here on a network without trained weights, which is quicker.


def small_pictures(folder, numbers):
    """Write pictures of random colours; some are changed photos of the one before."""
    folder.mkdir(exist_ok=True, parents=True)
    for number in numbers:
        colours = np.random.default_rng(number).integers(0, 256, (9, 9, 3), np.uint8)
        Image.fromarray(colours).resize((90, 70 + number), Image.Resampling.NEAREST).save(folder / f"{number}.png")
    return folder


def make_small(folder):
    """Write a folder of pictures, its store with a map, and an index with places of another layer than the map's."""
    photos, store = small_pictures(folder / "photos", range(5)), folder / "f.h5"
    assert run("extract", photos, "--out", store, "--keep-map", "blocks.4", *NETWORK, *ENGINE) == 0
    index = ("--out", folder / "f.index", "--allow-random", "--keep-places", "blocks.3")
    assert run("index", store, *index, *ENGINE) == 0
    return folder


@pytest.fixture
def small(tmp_path):
    """Pictures, store and index that a test may change."""
    return make_small(tmp_path / "small")


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory):
    """The same, read only."""
    return make_small(tmp_path_factory.mktemp("unchanged"))


def places_of(path):
    return KeptPlaces.of_index(ImageIndex.load(path))


def first_of(capsys, index, picture):
    """Return the path of the first hit of one query."""
    ((first, *_),) = hits_of(capsys, index, picture, "--rerank")
    return first[0]


def test_an_update_keeps_places_of_new_pictures(small, tmp_path, capsys):
    """After pictures came and went, each that is there is found by its places, and the old codes are as they were."""
    index, store, photos = small / "f.index", small / "f.h5", small / "photos"
    before = places_of(index)
    assert (before.layer, before.views) == ("blocks.3", "whole")
    (photos / "1.png").unlink()
    small_pictures(photos, [7, 8])
    assert run("extract", photos, "--out", store, *NETWORK, *ENGINE) == 0
    capsys.readouterr()
    assert run("index", store, "--out", index, "--update", *ENGINE) == 0
    assert "2 images added, 1 removed, 4 kept" in capsys.readouterr().out
    after, updated = places_of(index), ImageIndex.load(index)
    np.testing.assert_array_equal(after.codes[:5], before.codes)
    ids = dict(zip(updated.paths, updated.ids.tolist(), strict=True))
    assert sorted(ids[path] for path in ("7.png", "8.png")) == [5, 6]
    assert after.codes.shape == (7, *before.codes.shape[1:])
    for path in ("7.png", "8.png"):
        assert tuple(after.sizes[ids[path]]) == (90, 70 + int(path[0]))
        assert after.codes[ids[path]].any()
    copies = shutil.copytree(photos, tmp_path / "copies")
    shutil.rmtree(photos)  # from here on there is nothing but the places
    for path in ("0.png", "4.png", "7.png", "8.png"):
        assert first_of(capsys, index, copies / path) == path


def test_an_update_from_the_maps_of_a_store(small, capsys):
    """Places that came from the store's maps are extended from these; no picture is needed."""
    index, store, photos = small / "own.index", small / "f.h5", small / "photos"
    aside = photos.rename(small / "aside")
    assert run("index", store, "--out", index, "--allow-random", *ENGINE) == 0
    before = places_of(index)
    assert (before.layer, before.views, len(before.codes)) == ("blocks.4", "own", 5)
    aside.rename(photos)
    small_pictures(photos, [7])
    assert run("extract", photos, "--out", store, *NETWORK, *ENGINE) == 0
    photos.rename(aside)
    assert run("index", store, "--out", index, "--update", *ENGINE) == 0
    after = places_of(index)
    np.testing.assert_array_equal(after.codes[:5], before.codes)
    assert tuple(after.sizes[5]) == (90, 77)
    for number in (4, 7):
        assert first_of(capsys, index, aside / f"{number}.png") == f"{number}.png"


def test_pictures_that_are_gone_have_no_places(small, capsys):
    """Where some originals are gone when the index is made, these have zeros, come last, and the others are found."""
    photos, index = small / "photos", small / "gone.index"
    copies = shutil.copytree(photos, small / "copies")
    (photos / "2.png").unlink()
    assert run("index", small / "f.h5", "--out", index, "--allow-random", "--keep-places", "blocks.3", *ENGINE) == 0
    kept = places_of(index)
    assert [bool(codes.any()) for codes in kept.codes] == [True, True, False, True, True]
    for number in (1, 4):
        (hits,) = hits_of(capsys, index, copies / f"{number}.png", "--rerank")
        assert (hits[0][0], hits[-1][0]) == (f"{number}.png", "2.png")


def test_a_row_whose_picture_is_gone_can_still_ask(small, capsys):
    """A row of the index without its original asks with the places that the index keeps of it."""
    (small / "photos" / "2.png").unlink()
    (plain,) = hits_of(capsys, small / "f.index", "--row", "2")
    (hits,) = hits_of(capsys, small / "f.index", "--row", "2", "--rerank")
    assert {path for path, _ in hits} == {path for path, _ in plain}
    assert len({score for _, score in hits}) == len(hits)


def test_nothing_is_kept_for_none(unchanged, tmp_path):
    """``--keep-places none`` keeps nothing although the store has a map; by default its layer is kept."""
    for option, layer in (("none", None), (None, "blocks.4")):
        out = tmp_path / f"{option}.index"
        given = () if option is None else ("--keep-places", option)
        assert run("index", unchanged / "f.h5", "--out", out, "--allow-random", *given, *ENGINE) == 0
        kept = places_of(out)
        assert (kept.layer if kept else None) == layer


@pytest.mark.parametrize(
    ("layer", "said"),
    [("penultimate", "no spatial map; layers that have one: blocks.0"), ("blocks.99", "no layer 'blocks.99'")],
)
def test_a_layer_without_a_map_is_refused(unchanged, tmp_path, capsys, layer, said):
    """A layer that gives a vector, or that is not there, is exit 2 with layers that have a map; nothing is written."""
    out = tmp_path / "no.index"
    assert run("index", unchanged / "f.h5", "--out", out, "--allow-random", "--keep-places", layer, *ENGINE) == 2
    message = capsys.readouterr().err
    assert said in message
    assert "blocks." in message
    assert not out.exists()


def test_places_need_pictures_or_maps(small, capsys):
    """Where the originals are gone and the store has no such map, the error says which it has."""
    shutil.rmtree(small / "photos")
    out = small / "no.index"
    assert run("index", small / "f.h5", "--out", out, "--allow-random", "--keep-places", "blocks.3", *ENGINE) == 2
    assert "The store holds maps of: blocks.4" in capsys.readouterr().err
    assert not out.exists()


def test_an_update_takes_no_other_places(unchanged, capsys):
    """``--update`` keeps the layer of the places; another is refused."""
    given = ("index", unchanged / "f.h5", "--out", unchanged / "f.index", "--update", "--keep-places", "blocks.4")
    assert run(*given) == 2
    assert "--update keeps how the index was built" in capsys.readouterr().err


def test_a_forged_index_is_refused(unchanged, tmp_path, capsys):
    """Places that do not fit each other in an index file are exit 2 with what to do, in all that reads them."""
    index = ImageIndex.load(unchanged / "f.index")
    index.arrays[f"{PLACES}/sizes"] = np.ones((3, 2), np.int32)
    forged = tmp_path / "forged.index"
    index.save(forged)
    picture = unchanged / "photos" / "0.png"
    assert run("query", forged, picture, *ENGINE) == 0  # a search without a second stage does not need them
    for command in (("query", forged, picture, "--rerank"), ("evaluate-index", forged, picture, "--rerank")):
        capsys.readouterr()
        assert run(*command, *ENGINE) == 2
        assert "build it again" in capsys.readouterr().err


def test_an_index_of_plain_vectors_cannot_be_reranked(tmp_path, capsys):
    """An index that does not say which network it was made with is exit 2 with what to do."""
    ImageIndex.build(np.eye(4)).save(tmp_path / "plain.index")
    assert run("query", tmp_path / "plain.index", "--row", "0", "--rerank") == 2
    assert "does not say which features it holds; build it with featx index" in capsys.readouterr().err


def test_more_answers_than_candidates(unchanged, capsys):
    """Where more answers are asked for than candidates are ordered anew, as many come as without the second stage."""
    picture = unchanged / "photos" / "0.png"
    (hits,) = hits_of(capsys, unchanged / "f.index", picture, "-k", 5, "--rerank", "--candidates", 2)
    assert len(hits) == 5


def test_candidates_are_those_of_the_first_stage(unchanged, capsys):
    """``--candidates N`` orders the first N of the search anew, and only these; ``-k`` cuts what was ordered."""
    index, picture = unchanged / "f.index", unchanged / "photos" / "3.png"
    (before,) = hits_of(capsys, index, picture, "-k", 3)
    (after,) = hits_of(capsys, index, picture, "-k", 3, "--rerank", "--candidates", 3)
    assert {path for path, _ in after} == {path for path, _ in before}
    (cut,) = hits_of(capsys, index, picture, "-k", 2, "--rerank")
    (whole,) = hits_of(capsys, index, picture, "-k", 10, "--rerank")
    assert len(whole) == 5
    assert cut == whole[:2]


def test_rows_and_several_pictures_ask(unchanged, capsys):
    """A row of the index asks with its picture and is not found itself; two pictures together find both."""
    index = unchanged / "f.index"
    (hits,) = hits_of(capsys, index, "--row", "3", "--rerank")
    assert sorted(path for path, _ in hits) == ["0.png", "1.png", "2.png", "4.png"]
    pictures = [unchanged / "photos" / f"{number}.png" for number in (0, 4)]
    (hits,) = hits_of(capsys, index, *pictures, "--together", "--rerank")
    assert {path for path, _ in hits[:2]} == {"0.png", "4.png"}


def test_where_holds_for_the_second_stage(unchanged, capsys):
    """Rows that are excluded are no candidates."""
    (hits,) = hits_of(
        capsys, unchanged / "f.index", unchanged / "photos" / "3.png", "--where", "path!=3.png", "--rerank"
    )
    assert sorted(path for path, _ in hits) == ["0.png", "1.png", "2.png", "4.png"]


@pytest.mark.parametrize("option", ["none", "blocks.3"])
def test_a_search_that_finds_nothing(unchanged, tmp_path, capsys, option):
    """Among nothing but the row that asks there is nothing to find, with a second stage as without."""
    index = tmp_path / "n.index"
    assert run("index", unchanged / "f.h5", "--out", index, "--allow-random", "--keep-places", option, *ENGINE) == 0
    arguments = (index, "--row", "3", "--where", "path=3.png")
    assert hits_of(capsys, *arguments) == [[]]
    assert hits_of(capsys, *arguments, "--rerank") == [[]]


def test_an_unreadable_query_does_not_stop_the_others(unchanged, tmp_path, capsys):
    """With ``--rerank`` too, a query that is no picture goes to stderr, and the others are answered."""
    (tmp_path / "broken.png").write_text("no picture")
    asked = (tmp_path / "broken.png", unchanged / "photos" / "0.png")
    found = hits_of(capsys, unchanged / "f.index", *asked, "--rerank", code=1)
    assert [hits[0][0] for hits in found] == ["0.png"]


@pytest.fixture
def evaluation(unchanged, tmp_path):
    """Arguments of an evaluation: two pictures turned to a side ask for the upright ones."""
    (tmp_path / "turned").mkdir()
    for number in (1, 4):
        with Image.open(unchanged / "photos" / f"{number}.png") as picture:
            picture.rotate(90, expand=True).save(tmp_path / "turned" / f"{number}.png")
    (tmp_path / "truth.csv").write_text("query,path\n1.png,1.png\n4.png,4.png\n")
    return (
        "evaluate-index",
        unchanged / "f.index",
        tmp_path / "turned",
        "--truth",
        tmp_path / "truth.csv",
        "-k",
        3,
        *ENGINE,
    )


def test_evaluation_measures_the_stage(evaluation, capsys):
    """``evaluate-index --rerank`` is one more stage, last, in which each turned picture finds the upright one."""
    capsys.readouterr()
    assert run(*evaluation, "--expand", 1, "--rerank", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert [stage["name"] for stage in said["stages"]] == ["exact search", "+ expand 1", "+ rerank"]
    metrics = said["stages"][-1]["metrics"]
    assert metrics["top_1"] == metrics["mean_average_precision"] == 1
    assert said["stages"][-1]["queries_per_second"] < said["stages"][0]["queries_per_second"]


def test_evaluation_by_rows_of_the_index(unchanged, tmp_path, capsys):
    """Rows of the index are queries of the stage as well, by their pictures; the text shows it as a line."""
    (tmp_path / "truth.csv").write_text("query,path\n1.png,4.png\n")
    given = ("--queries", "path=1.png", "--truth", tmp_path / "truth.csv", "--rerank")
    assert run("evaluate-index", unchanged / "f.index", *given, *ENGINE) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.strip().startswith("+ rerank") for line in lines)


def test_evaluation_keeps_what_follows_the_candidates(evaluation, capsys):
    """With one candidate a ranking stays what it was: all numbers are those of the search before."""
    capsys.readouterr()
    assert run(*evaluation, "--rerank", "--candidates", 1, "--json") == 0
    first, last = json.loads(capsys.readouterr().out)["stages"]
    assert last["name"] == "+ rerank"
    assert last["metrics"] == first["metrics"]
    assert last["ann_recall"] == 1
