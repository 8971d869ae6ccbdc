"""``featx query``: every way to name what is looked for, filters, pictures, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from gallery import make_gallery, run
from PIL import Image
from structured_indexes import unit

from featx.retrieval import ImageIndex
from featx.retrieval.expansion import expand_queries
from featx.retrieval.reciprocal import reciprocal_scores


@pytest.fixture(scope="module")
def gallery(tmp_path_factory):
    """Pictures, store, classifier and index; read only."""
    return make_gallery(tmp_path_factory.mktemp("gallery"))


@pytest.fixture(scope="module")
def index(gallery):
    """The index of the gallery."""
    return ImageIndex.load(gallery.index)


def ask(capsys, *arguments, code=0):
    """Run a query with ``--json``; return its lines."""
    capsys.readouterr()
    assert run("query", *arguments, "--json") == code
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def paths_of(line):
    """Return the paths of the hits of one line."""
    return [hit["path"] for hit in line["hits"]]


def ranked(index, query, without=(), allowed=None):
    """Return the paths of an index by falling cosine with a vector, computed with NumPy alone, and these cosines."""
    cosines = unit(index.vectors) @ unit(query[None])[0]
    order = [
        row
        for row in np.argsort(-cosines, kind="stable").tolist()
        if row not in without and (allowed is None or allowed[row])
    ]
    return [index.paths[row] for row in order], cosines[order]


def assert_hits(line, expected, k):
    """Check paths and scores of one line against the first k of those expected."""
    paths, cosines = expected
    assert paths_of(line) == paths[:k]
    np.testing.assert_allclose([hit["score"] for hit in line["hits"]], cosines[:k], atol=2e-6)
    assert [hit["rank"] for hit in line["hits"]] == list(range(1, min(k, len(paths)) + 1))
    assert [hit["label"] for hit in line["hits"]] == [path.split("/")[0] for path in paths[:k]]


@pytest.mark.parametrize("by", ["id", "path"])
def test_a_row_of_the_index_asks(by, gallery, index, capsys):
    """By id or by path, a row is not among its own neighbours, there are k of them, and no network is needed."""
    row = index.paths.index("green/003.png")
    name = str(index.ids[row]) if by == "id" else index.paths[row]
    (line,) = ask(capsys, gallery.index, "--row", name, "-k", 5, "--engine", "no such engine")
    assert set(line) == {"query", "hits"}
    assert line["query"] == "green/003.png"
    assert_hits(line, ranked(index, index.vectors[row], without=[row]), 5)


def test_ids_are_not_rows(gallery, tmp_path, capsys):
    """After images were removed, a number names the image of this id."""
    shrunk = ImageIndex.load(gallery.index)
    paths = shrunk.paths
    shrunk.remove([0, 1, 4])
    shrunk.save(tmp_path / "shrunk.index")
    (line,) = ask(capsys, tmp_path / "shrunk.index", "--row", "7", "-k", 100)
    assert line["query"] == paths[7]
    assert sorted(paths_of(line)) == sorted(set(paths) - {paths[0], paths[1], paths[4], paths[7]})
    assert run("query", tmp_path / "shrunk.index", "--row", "4") == 2
    assert "ids are not in the index: 4" in capsys.readouterr().err


def test_rows_and_images_ask_side_by_side(gallery, index, capsys):
    """Several images and rows are several queries, images first, each in its order."""
    pictures = [gallery.photos / "red" / "001.png", gallery.photos / "blue" / "000.jpg"]
    lines = ask(capsys, gallery.index, *pictures, "--row", "red/003.png", "--row", "0", "-k", 2)
    assert [line["query"] for line in lines] == [*map(str, pictures), "red/003.png", index.paths[0]]
    assert all(len(line["hits"]) == 2 for line in lines)
    assert paths_of(lines[0])[0] == "red/001.png"
    assert "red/003.png" not in paths_of(lines[2])


def test_together_is_the_mean(gallery, index, capsys):
    """Images and rows together are one query, of their mean; the rows are left out of its answers."""
    rows = [index.paths.index(path) for path in ("red/001.png", "blue/003.png")]
    (line,) = ask(capsys, gallery.index, "--row", rows[0], "--row", rows[1], "--together", "-k", 6)
    assert line["query"] == "red/001.png + blue/003.png"
    mean = index.vectors[rows].mean(axis=0)
    assert_hits(line, ranked(index, mean, without=rows), 6)
    mixed = ask(capsys, gallery.index, gallery.photos / "red" / "001.png", "--row", rows[1], "--together", "-k", 6)
    expected, _ = ranked(index, mean, without=rows[1:])
    assert [paths_of(line) for line in mixed] == [expected[:6]]


def test_less_what_answers_should_not_be_like(gallery, index, capsys):
    """By ``--minus`` and ``--minus-row``, half the mean of the others is taken off; named rows are no answer."""
    rows = [index.paths.index(path) for path in ("red/001.png", "blue/003.png", "green/005.png")]
    vectors = index.vectors[rows].astype(np.float64)
    (line,) = ask(capsys, gallery.index, "--row", rows[0], "--minus-row", "blue/003.png", "-k", 6)
    assert line["query"] == "red/001.png - blue/003.png"
    assert_hits(line, ranked(index, vectors[0] - vectors[1] / 2, without=rows[:2]), 6)
    both = ("--minus-row", rows[1], "--minus", gallery.photos / "green" / "005.png")
    (line,) = ask(capsys, gallery.index, "--row", rows[0], *both, "-k", 6)
    assert line["query"] == f"red/001.png - {gallery.photos / 'green' / '005.png'} - blue/003.png"
    expected, cosines = ranked(index, vectors[0] - vectors[1:].mean(axis=0) / 2, without=rows[:2])
    np.testing.assert_allclose([hit["score"] for hit in line["hits"]], cosines[:6], atol=1e-4)
    assert paths_of(line)[0] == expected[0]
    lines = ask(capsys, gallery.index, "--row", "0", "--row", "9", "--minus-row", "20", "-k", 100)
    assert [len(line["hits"]) for line in lines] == [22, 22]
    assert all(index.paths[20] not in paths_of(line) for line in lines)


@pytest.mark.parametrize(
    ("conditions", "holds"),
    [
        (["label=red"], lambda path: path.startswith("red")),
        (["label=red,blue"], lambda path: not path.startswith("green")),
        (["label!=red", "path=*/00[0-3].*"], lambda path: not path.startswith("red") and path.split("/")[1] < "004"),
    ],
)
def test_only_some_may_be_found(conditions, holds, gallery, index, capsys):
    """With conditions, all of which hold, answers are the nearest of those for which they do, as many as there are."""
    row = index.paths.index("red/001.png")
    options = [part for condition in conditions for part in ("--where", condition)]
    allowed = [holds(path) for path in index.paths]
    for k in (3, 100):
        (line,) = ask(capsys, gallery.index, "--row", row, "-k", k, *options)
        assert_hits(line, ranked(index, index.vectors[row], without=[row], allowed=allowed), k)


def test_expansion_and_alpha(gallery, index, capsys):
    """``--expand`` and ``--alpha`` are the query expansion of the library."""
    (line,) = ask(capsys, gallery.index, gallery.photos / "red" / "001.png", "--expand", 3, "--alpha", 1.5, "-k", 8)
    query = index.vectors[index.paths.index("red/001.png")]
    cosines = index.vectors @ query
    first = np.argsort(-cosines)[:3]
    moved = expand_queries(query[None], index.vectors[first][None], cosines[first][None], alpha=1.5)[0]
    assert set(paths_of(line)) == set(ranked(index, moved)[0][:8])
    np.testing.assert_allclose([hit["score"] for hit in line["hits"]], ranked(index, moved)[1][:8], atol=1e-4)


def test_reciprocal_neighbours(gallery, index, capsys):
    """``--reciprocal`` gives the new scores of the first ``--candidates``."""
    row = index.paths.index("red/001.png")
    (line,) = ask(capsys, gallery.index, "--row", row, "--reciprocal", "--candidates", 12, "-k", 5)
    query = index.vectors[row]
    nearest = np.argsort(-(index.vectors.astype(np.float64) @ query), kind="stable")
    first = nearest[nearest != row][:12]
    new = reciprocal_scores(query, index.vectors[first])
    kept = sorted(((-score, place) for place, score in enumerate(new)))[:5]
    np.testing.assert_allclose([hit["score"] for hit in line["hits"]], [-score for score, _ in kept], atol=1e-5)
    assert {hit["label"] for hit in line["hits"]} == {"red"}


def test_a_folder_asks_and_a_broken_picture_does_not_stop_it(gallery, tmp_path, capsys):
    """Exit 1 where some queries cannot be read, 2 where none can; together, one broken picture is all of the query."""
    broken = tmp_path / "broken.png"
    broken.write_text("no picture")
    picture = gallery.photos / "red" / "001.png"
    lines = ask(capsys, gallery.index, gallery.photos / "red", broken, "-k", 1, code=1)
    assert len(lines) == 8
    assert all(paths_of(line)[0].startswith("red/") for line in lines)
    assert ask(capsys, gallery.index, broken, "--row", "0", code=1)[0]["query"] == "blue/000.jpg"
    assert ask(capsys, gallery.index, broken, code=2) == []
    assert ask(capsys, gallery.index, broken, picture, "--together", code=2) == []
    assert run("query", gallery.index, picture, "--minus", broken) == 2
    out, err = capsys.readouterr()
    assert (out, "broken.png: not an image" in err) == ("", True)


def test_pages_and_pictures_are_written(gallery, tmp_path, capsys):
    """``--html`` and ``--save-grid`` write what they are called, with every path; refused when there, then replaced."""
    page, grid = tmp_path / "new" / "page.html", tmp_path / "grid.png"
    given = ("query", gallery.index, gallery.photos / "red" / "001.png", "--row", "blue/003.png", "-k", 4)
    outputs = ("--html", page, "--save-grid", grid)
    assert run(*given, *outputs) == 0
    out, err = capsys.readouterr()
    assert f"wrote {page}" in err
    assert f"wrote {grid}" in err
    text = page.read_text(encoding="utf-8")
    assert text.count("data:image/jpeg;base64,") == 10
    assert "http://" not in text.replace("http://www.w3.org", "")
    hits = [line.split()[2] for line in out.splitlines() if line.strip()[:1].isdigit()]
    assert len(hits) == 8
    assert all(path.rpartition("/")[2] in text for path in hits)
    with Image.open(grid) as picture:
        assert picture.format == "PNG"
        assert picture.width > 5 * 160
        assert picture.height > 2 * 160
    before = (page.read_bytes(), grid.read_bytes())
    for option, path in (("--html", page), ("--save-grid", grid)):
        capsys.readouterr()
        assert run(*given, option, path) == 3
        out, err = capsys.readouterr()
        assert (out, str(path) in err) == ("", True)
        assert f"choose another {option}" in err
    assert (page.read_bytes(), grid.read_bytes()) == before
    assert run("query", gallery.index, "--row", "green/003.png", *outputs, "--overwrite") == 0
    assert "green/003.png" in page.read_text(encoding="utf-8")
    assert grid.read_bytes() != before[1]


def test_a_page_says_which_query_failed(gallery, tmp_path, capsys):
    """Queries that could not be read are in the page with their reason, and the exit code stays 1."""
    (tmp_path / "broken.png").write_text("no picture")
    page = tmp_path / "page.html"
    assert run("query", gallery.index, tmp_path / "broken.png", "--row", "0", "--html", page, "--json") == 1
    assert json.loads(capsys.readouterr().out)["query"] == "blue/000.jpg"
    assert "not an image" in page.read_text(encoding="utf-8")


def test_a_page_is_made_where_the_originals_are_gone(gallery, tmp_path, capsys):
    """An index with thumbnails needs no originals for its page; one without says that there is no picture."""
    index = ImageIndex.load(gallery.index)
    index.metadata["source"] = str(tmp_path / "gone")
    index.save(tmp_path / "gone.index")
    assert run("query", tmp_path / "gone.index", "--row", "0", "-k", 3, "--html", tmp_path / "page.html") == 0
    assert (tmp_path / "page.html").read_text(encoding="utf-8").count("no picture") == 4
    assert run("index", gallery.store, "--out", tmp_path / "t.index", "--allow-random", "--thumbnails", 16) == 0
    index = ImageIndex.load(tmp_path / "t.index")
    index.metadata["source"] = str(tmp_path / "gone")
    index.save(tmp_path / "t.index", overwrite=True)
    capsys.readouterr()
    assert run("query", tmp_path / "t.index", "--row", "0", "-k", 3, "--html", tmp_path / "t.html") == 0
    text = (tmp_path / "t.html").read_text(encoding="utf-8")
    assert (text.count("data:image/jpeg;base64,"), text.count("no picture")) == (4, 0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "nothing to look for"),
        (("--minus", "{photos}"), "nothing to look for"),
        (("--row", "red/002.pn"), "did you mean red/00"),
        (("--row", "24"), "Ids, from 0 to 23"),
        (("--row", "99999999999999999999"), "Ids, from 0 to 23"),
        (("--row", ""), "no image of the index is called ''"),
        (("--row", "0", "--minus-row", "nobody"), "called 'nobody'"),
        (("--row", "0", "--where", "label"), "no condition"),
        (("--row", "0", "--where", "label=rde"), "did you mean 'red'"),
        (("--row", "0", "--where", "colour=red"), "there is no field 'colour'"),
        (("--row", "0", "--where", "label=red", "--where", "path=blue*"), "together"),
        (("--row", "0", "-k", "0"), "-k 0 is not at least 1"),
        (("--row", "0", "--expand", "-1"), "expand=-1"),
        (("--row", "0", "--alpha", "-1"), "alpha=-1"),
        (("--row", "0", "--candidates", "0"), "n_candidates=0"),
        (("--row", "0", "--html", "{folder}"), "is a folder"),
        (("--row", "0", "--save-grid", "{folder}/grid.gif"), "allowed endings are"),
        (("{photos}/red/001.png", "--batch-size", "0"), "--batch-size 0"),
    ],
)
def test_what_cannot_be_asked(arguments, said, gallery, capsys):
    """Wrong arguments are exit 2, say what is wrong, and print and write nothing."""
    places = {name: str(value) for name, value in vars(gallery).items()}
    before = sorted(gallery.folder.iterdir())
    assert run("query", gallery.index, *(argument.format(**places) for argument in arguments)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert sorted(gallery.folder.iterdir()) == before


def test_an_index_is_not_overwritten_by_its_own_page(gallery, capsys):
    """Even with ``--overwrite``, a page does not replace the index that it is made from."""
    before = gallery.index.read_bytes()
    assert run("query", gallery.index, "--row", "0", "--html", gallery.index, "--overwrite") == 3
    assert gallery.index.read_bytes() == before
    assert capsys.readouterr().out == ""
