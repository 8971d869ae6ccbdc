"""Pages of results hold everything they show, run nothing that a name contains, and look right in a browser."""

from __future__ import annotations

import io
import tracemalloc
from html.parser import HTMLParser

import numpy as np
import pytest
from headless_browser import find_browser, look_at, take_picture
from PIL import Image

from featx.errors import StoreError, UsageError, WouldOverwriteError
from featx.images import ImageEntry
from featx.workflows.result_grids import MAX_QUERIES, write_results_grid
from featx.workflows.result_pages import POLICY, PagePicture, PageRow, visible_text, write_results_page
from featx.workflows.thumbnails import thumbnail_of

HOSTILE = (
    "<script>window.marks += 1</script>.jpg",
    '"><img src=http://127.0.0.1:9/x onerror="window.marks += 1">.jpg',
    "' onload='window.marks += 1' x='.jpg",
    "</title></style><svg onload=window.marks+=1>",
    "&lt;b&gt; & </div></section>.png",
    "caf\udce9 \u202egpj.exe\x00\n.jpg",
    "deep/" * 200 + "n" * 250 + ".jpg",
    "unbroken" * 60,
)


def jpeg(colour=(200, 40, 40), size=(64, 48)):
    """Return the bytes of a plain JPEG."""
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "JPEG")
    return buffer.getvalue()


def row(n_hits=10, *, name="a", label="cat"):
    """Return a query with neighbours of which every other one has its label."""
    hits = tuple(
        PagePicture(f"{name}/hit{number}.jpg", jpeg(), ("cat", "dog")[number % 2], 0.9 - number / 20, number + 1)
        for number in range(n_hits)
    )
    return PageRow((PagePicture(f"{name}/query.jpg", jpeg((40, 40, 200)), label),), hits)


def hostile_rows():
    """Return rows in which every text is made to break out of the page."""
    for text in HOSTILE:
        picture = PagePicture(text, jpeg(), text, 0.5, 1, text)
        yield PageRow(
            (picture,), (picture, PagePicture(text, None, text, float("nan"), 2)), heading=text, notes=(text,)
        )
        yield PageRow((picture, picture), failure=text)


def write(path, rows, **options):
    """Write a page and return its text."""
    write_results_page(path, rows, **{"title": "Like these", "facts": {"images": "180"}, **options})
    return path.read_text(encoding="utf-8")


class Tags(HTMLParser):
    """Collects tags with their attributes, and all text."""

    def __init__(self, source):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(source)

    def handle_starttag(self, tag, attributes):
        """Remember one tag."""
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, text):
        """Remember some text."""
        self.text += text

    def of(self, name):
        """Return the attributes of all tags of a name."""
        return [attributes for tag, attributes in self.tags if tag == name]


def test_a_page_says_what_was_found(tmp_path):
    """Title, facts, scores with four digits, labels, paths, and how many neighbours share the label."""
    page = Tags(write(tmp_path / "p.html", [row()]))
    for text in ("Like these", "images", "180", "Query 1", "0.9000", "0.4500", "a/", "hit3.jpg", "5 of 10 have its"):
        assert text in page.text
    assert page.text.count("✓ same label as the query") == 5
    assert sum("same" in (found.get("class") or "").split() for found in page.of("li")) == 5


def test_pictures_are_in_the_page_and_have_words(tmp_path):
    """Each thumbnail is a data address with the bytes given, each image has an alternative text."""
    images = Tags(write(tmp_path / "p.html", [row(3)])).of("img")
    assert len(images) == 4
    assert all(image["src"].startswith("data:image/jpeg;base64,") for image in images)
    assert [image["alt"] for image in images] == ["a/query.jpg", *(f"a/hit{number}.jpg" for number in range(3))]


def test_labels_are_marked_only_where_the_query_has_one(tmp_path):
    """Nothing is marked without a label, with several, or where that is not wanted; what is excluded does not count."""
    cat, dog, unknown = (PagePicture("q.jpg", None, label) for label in ("cat", "dog", None))
    against = PagePicture("q.jpg", None, "dog", against=True)
    hits = row().hits
    unmarked = [PageRow((unknown,), hits), PageRow((cat, dog), hits), PageRow((cat,), hits, marks_labels=False)]
    for number, tried in enumerate(unmarked):
        assert "✓ same" not in write(tmp_path / f"{number}.html", [tried])
    page = write(tmp_path / "against.html", [PageRow((cat, cat, against), hits)])
    assert page.count("✓ same") == 5
    assert "not like this" in page


def test_what_is_missing_is_said(tmp_path):
    """A picture without a thumbnail has a placeholder, a failed query its reason, a page without rows a sentence."""
    page = Tags(write(tmp_path / "p.html", [PageRow((PagePicture("x.jpg"),), failure="truncated image")]))
    assert "no picture" in page.text
    assert "truncated image" in page.text
    assert "nothing to show" in write(tmp_path / "none.html", [])


def test_hostile_texts_add_no_tag_and_no_address(tmp_path):
    """With names made to break out, the page has the same tags as with harmless ones, and no address but data."""
    page = Tags(write(tmp_path / "p.html", hostile_rows(), title=HOSTILE[0], facts={HOSTILE[1]: HOSTILE[3]}))
    allowed = {
        "html", "head", "meta", "link", "title", "style", "body", "header", "h1", "dl", "div", "dt", "dd", "main",
        "section", "h2", "ul", "ol", "li", "img", "span", "i", "p", "footer",
    }  # fmt: skip
    assert {tag for tag, _ in page.tags} <= allowed
    attributes = {name for _, found in page.tags for name in found}
    assert not [name for name in attributes if name.startswith("on")]
    addresses = [found[name] for _, found in page.tags for name in ("src", "href") if name in found]
    assert addresses
    assert all(address.startswith("data:") for address in addresses)
    assert [found["content"] for found in page.of("meta") if "http-equiv" in found] == [POLICY]
    assert all(text in page.text for text in HOSTILE[:1])


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é 日本 🐈", "plain é 日本 🐈"),
        ("a\u202eb", "a\\u202eb"),
        ("caf\udce9", "caf\\udce9"),
        ("a\x00\nb\u200b", "a\\u0000\\u000ab\\u200b"),
    ],
)
def test_what_cannot_be_seen_is_spelt_out(text, shown):
    """Controls, marks of direction and bytes that are not UTF-8 become visible; everything else stays."""
    assert visible_text(text) == shown


def test_a_page_is_not_overwritten(tmp_path):
    """What is there stays, unless overwriting is allowed."""
    path = tmp_path / "p.html"
    path.write_text("mine")
    with pytest.raises(WouldOverwriteError, match="already there"):
        write(path, [row()])
    assert path.read_text() == "mine"
    assert "Query 1" in write(path, [row()], overwrite=True)


def test_an_error_on_the_way_leaves_what_was_there(tmp_path):
    """Where rows break off, the old page stays and nothing is left beside it; a folder that is missing is named."""
    path = tmp_path / "p.html"
    path.write_text("mine")

    def broken():
        yield row()
        raise UsageError("no more")

    with pytest.raises(UsageError, match="no more"):
        write(path, broken(), overwrite=True)
    assert path.read_text() == "mine"
    assert [found.name for found in tmp_path.iterdir()] == ["p.html"]
    with pytest.raises(StoreError, match="cannot be written"):
        write(tmp_path / "missing" / "p.html", [row()])


def test_rows_are_written_one_by_one(tmp_path):
    """A page of 40 MB is written in a tenth of that, since no row is kept."""
    noise = np.random.default_rng(0).bytes(150_000)

    def rows():
        for number in range(100):
            pictures = [PagePicture(f"{number}.jpg", noise + bytes([place])) for place in range(2)]
            yield PageRow((pictures[0],), (pictures[1],))

    tracemalloc.start()
    write_results_page(tmp_path / "p.html", rows(), title="t", facts={})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (tmp_path / "p.html").stat().st_size > 40_000_000
    assert peak < 4_000_000


def test_thumbnails_are_small_upright_and_without_metadata(tmp_path):
    """A thumbnail is an RGB JPEG of the longest side asked for, turned as the EXIF says; unreadable files have none."""
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    Image.new("RGB", (300, 200), (10, 200, 10)).save(tmp_path / "a.jpg", exif=exif)
    for given in (str(tmp_path / "a.jpg"), ImageEntry("a.jpg", location=str(tmp_path / "a.jpg"))):
        picture = Image.open(io.BytesIO(thumbnail_of(given, 90)))
        assert (picture.format, picture.mode, picture.size) == ("JPEG", "RGB", (60, 90))
        assert not picture.getexif()
    assert Image.open(io.BytesIO(thumbnail_of(str(tmp_path / "a.jpg"), 1000))).size == (200, 300)
    (tmp_path / "b.jpg").write_text("no image")
    assert thumbnail_of(str(tmp_path / "b.jpg")) is None
    assert thumbnail_of(str(tmp_path / "missing.jpg")) is None
    with pytest.raises(UsageError, match="at least 1"):
        thumbnail_of(str(tmp_path / "a.jpg"), 0)


def test_a_grid_shows_queries_and_neighbours(tmp_path):
    """A line a query: the query's colour on the left, the neighbours' beside it, and a frame where labels agree."""
    out = tmp_path / "g.png"
    assert write_results_grid(out, [row(2), row(3)], size=64) == 0
    picture = Image.open(out).convert("RGB")
    pixels = np.asarray(picture).astype(int)
    blue = np.abs(pixels - (40, 40, 200)).max(axis=2) < 12
    red = np.abs(pixels - (200, 40, 40)).max(axis=2) < 12
    green = (pixels == (0x43, 0xA7, 0x7B)).all(axis=2)
    # 64×48 pictures: two queries, five neighbours, of which 0 and 2 of a line (three altogether) are cats
    assert blue.sum() == pytest.approx(2 * 64 * 48, rel=0.05)
    assert red.sum() == pytest.approx(5 * 64 * 48, rel=0.1)
    assert green.sum() == pytest.approx(3 * 4 * 2 * 62, rel=0.1)
    assert np.flatnonzero(blue.any(axis=0)).max() < np.flatnonzero(red.any(axis=0)).min()


def test_a_grid_is_bounded_and_says_what_it_left_out(tmp_path, monkeypatch):
    """At most 50 queries are drawn, fewer where they would be too many pixels, and the others are counted."""
    rows = [PageRow((PagePicture("a.jpg"),), (PagePicture("b.jpg", None, "b" * 300, 0.5),))] * (MAX_QUERIES + 7)
    assert write_results_grid(tmp_path / "g.jpg", iter(rows), size=48) == 7
    monkeypatch.setattr("featx.workflows.result_grids._MAX_PIXELS", 2_000_000)
    wide = [PageRow((PagePicture("a.jpg"),), (PagePicture("b.jpg"),) * 120)] * 9
    left_out = write_results_grid(tmp_path / "w.png", wide, size=64)
    with Image.open(tmp_path / "w.png") as picture:
        width, height = picture.size
    assert width == 32 + 101 * 74 + 10  # the query and 100 neighbours
    assert 0 < left_out < 8
    assert width * (height - 32) <= 2_000_000 < width * height * 10 / (9 - left_out)


def test_grids_that_cannot_be_made_are_refused(tmp_path):
    """Another ending, a size out of range, no query, a file that is there."""
    out = tmp_path / "g.png"
    with pytest.raises(UsageError, match=r"\.png, \.jpg"):
        write_results_grid(tmp_path / "g.gif", [row(1)])
    with pytest.raises(UsageError, match="48 to 512"):
        write_results_grid(out, [row(1)], size=5000)
    with pytest.raises(UsageError, match="no query"):
        write_results_grid(out, [])
    out.write_text("mine")
    with pytest.raises(WouldOverwriteError):
        write_results_grid(out, [row(1)])
    assert out.read_text() == "mine"
    assert write_results_grid(out, [PageRow((PagePicture("x", b"no jpeg"),), failure="bad")], overwrite=True) == 0
    with Image.open(out) as picture:
        assert picture.format == "PNG"


@pytest.mark.parametrize(("width", "columns"), [(1400, 5), (500, 3)])
def test_a_browser_shows_every_picture(tmp_path, width, columns):
    """All images have pixels and a place, neighbours stand side by side, nothing sticks out or is asked for."""
    find_browser()
    write(tmp_path / "p.html", [row(name="a"), row(name="b")])
    seen = look_at(tmp_path / "p.html", width=width)
    assert seen.natural == [64] * 22
    assert min(seen.shown) > 90
    assert (seen.asked, seen.refused, seen.outside, seen.scripts) == ([], [], [], 0)
    assert seen.scrolled <= seen.width
    assert seen.columns == columns


@pytest.mark.parametrize("width", [400, 1400])
def test_hostile_names_stay_text_in_a_browser(tmp_path, width):
    """Nothing of a name runs, is fetched or widens the page; it is read as it is written."""
    find_browser()
    write(tmp_path / "p.html", hostile_rows(), title=HOSTILE[0], facts={HOSTILE[1]: HOSTILE[7]})
    seen = look_at(tmp_path / "p.html", width=width)
    assert seen.width == width
    assert (seen.marks, seen.scripts, seen.asked, seen.refused) == (0, 0, [], [])
    assert seen.scrolled <= seen.width
    assert seen.outside == []
    assert HOSTILE[0] in seen.text
    assert "\\u202egpj.exe" in seen.text


def test_the_browser_would_notice(tmp_path):
    """The check itself: a page with a script, a foreign picture and something too wide is seen as such."""
    find_browser()
    path = tmp_path / "p.html"
    source = write(path, [row(1)])
    bad = (
        '<img src="http://127.0.0.1:9/x.png" alt=""><script>window.marks += 1</script><div style="width:3000px">.</div>'
    )
    path.write_text(source.replace("<main>", f"<main>{bad}"), encoding="utf-8")
    seen = look_at(path, width=800)
    assert (seen.marks, seen.scripts) == (1, 1)
    assert seen.refused == ["http://127.0.0.1:9/x.png"]
    assert seen.scrolled > seen.width
    assert seen.natural[0] == 0


def test_light_and_dark_are_followed(tmp_path):
    """The page itself, as it is: bright on a light screen, dark on a dark one, with the pictures' colours in it."""
    find_browser()
    write(tmp_path / "p.html", [row()])
    for dark in (False, True):
        take_picture(tmp_path / "p.html", tmp_path / "p.png", width=900, height=600, dark=dark)
        pixels = np.asarray(Image.open(tmp_path / "p.png").convert("RGB")).astype(int)
        assert (pixels[2, 2].max() < 40) == dark
        assert (pixels[2, 2].min() > 220) == (not dark)
        assert (np.abs(pixels - (200, 40, 40)).max(axis=2) < 12).sum() > 10_000


@pytest.mark.parametrize("name", ["page", "page.jpg", "page.html.png"])
def test_a_page_has_the_ending_of_one(tmp_path, name):
    """A name that might be a picture's is refused before anything is written, also where it may be overwritten."""
    (tmp_path / name).write_text("mine")
    with pytest.raises(UsageError, match="allowed endings"):
        write_results_page(tmp_path / name, [], title="t", facts={}, overwrite=True)
    assert (tmp_path / name).read_text() == "mine"
