"""Lists of paths, from a text, a CSV, standard input or Python, and what is said about sources that are none."""

import io
import os
from pathlib import Path

import pytest

from featx.errors import ImageError, SourceError
from featx.images import NO_SPLIT, TEST, TRAIN, VAL, list_images, read_column


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_text_file_counts_from_the_current_folder(here, tmp_path):
    """Order is kept, empty lines are skipped, '#' and blanks belong to names, outside paths are absolute."""
    text = tmp_path / "list.txt"
    text.write_bytes(f"\ufeffb/2.jpg\r\n\n  \n#1.png\n{here}/a b.jpg\n{tmp_path}/out.jpg\n./c/../d.gif".encode())
    listing = list_images(text)
    assert [entry.path for entry in listing.entries] == ["b/2.jpg", "#1.png", "a b.jpg", f"{tmp_path}/out.jpg", "d.gif"]
    assert listing.source == str(text)
    assert not listing.has_labels
    assert listing.n_ignored == 0


@pytest.mark.usefixtures("here")
def test_listed_path_that_does_not_exist_fails_when_read():
    """A missing file is no error of the listing, but an ImageError with the system's reason when it is read."""
    listing = list_images("-", stdin=io.StringIO("missing.jpg\n"))
    with pytest.raises(ImageError, match=r"^No such file or directory$"):
        listing.entries[0].read()


def test_files_are_found_after_the_current_folder_changed(here, tmp_path, monkeypatch):
    """A listing keeps working when the process goes to another folder."""
    (here / "1.jpg").write_bytes(b"abc")
    entry = list_images(["1.jpg"]).entries[0]
    monkeypatch.chdir(tmp_path)
    assert entry.read().data == b"abc"


def test_standard_input_as_text_or_bytes(here):
    """'-' reads paths from a text or a binary stream; bytes that are not UTF-8 are kept."""
    (here / os.fsdecode(b"\xe9.jpg")).write_bytes(b"abc")
    listing = list_images("-", stdin=io.BytesIO(b"\xe9.jpg\nx.png\n"))
    assert listing.source == "-"
    assert [entry.path for entry in listing.entries] == ["%E9.jpg", "x.png"]
    assert listing.entries[0].read().data == b"abc"
    assert [entry.path for entry in list_images("-", stdin=io.StringIO("x.png")).entries] == ["x.png"]


def test_python_sequence(here):
    """A sequence of str and Path keeps its order and its repetitions."""
    listing = list_images(["b.jpg", Path("a.jpg"), "b.jpg"])
    assert [entry.path for entry in listing.entries] == ["b.jpg", "a.jpg", "b.jpg"]
    assert listing.source == str(here)


def test_single_image(here):
    """One image file is a listing of one, whatever the case of its extension."""
    (here / "Cat.JPEG").write_bytes(b"abc")
    listing = list_images("Cat.JPEG")
    assert [entry.path for entry in listing.entries] == ["Cat.JPEG"]
    assert listing.source == str(here / "Cat.JPEG")
    assert listing.entries[0].read().data == b"abc"


def write_csv(folder, text, encoding="utf-8"):
    file = folder / "set.csv"
    file.write_bytes(text.encode(encoding))
    return file


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_csv_with_every_column(tmp_path, encoding):
    """Paths count from the CSV, whatever the current folder; empty cells are none; other columns are ignored."""
    rows = f"""Path, label,split,group,width
z/1.jpg,zebra,train,g2,3
"a,b.jpg",ant,VALIDATION,,4

{tmp_path}/out.jpg,,test,g1,
../up.jpg,zebra,,g2,5
"""
    folder = tmp_path / "set"
    folder.mkdir()
    listing = list_images(write_csv(folder, rows, encoding))
    assert [entry.path for entry in listing.entries] == [
        "z/1.jpg",
        "a,b.jpg",
        f"{tmp_path}/out.jpg",
        f"{tmp_path}/up.jpg",
    ]
    assert listing.class_names == ("ant", "zebra")
    assert [entry.label for entry in listing.entries] == [1, 0, -1, 1]
    assert [entry.split for entry in listing.entries] == [TRAIN, VAL, TEST, NO_SPLIT]
    assert listing.group_names == ("g1", "g2")
    assert listing.groups.tolist() == [1, -1, 0, 1]


@pytest.mark.usefixtures("here")
def test_csv_reads_the_files_beside_it(tmp_path):
    """An image named by a CSV is read from the CSV's folder."""
    (tmp_path / "1.jpg").write_bytes(b"abc")
    assert list_images(write_csv(tmp_path, "path\n1.jpg\n")).entries[0].read().data == b"abc"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\n1.jpg,a\n", "no column 'path'; found: file, label"),
        ("path\tlabel\n1.jpg\ta\n", "no column 'path'"),
        ("", "no column 'path'; found: none"),
        ("path\n", "no rows"),
        ("path,split\n1.jpg,train\n2.jpg,dev\n", "line 3: split 'dev' is unknown; use one of train, val, valid"),
        ("path\n1.jpg\n2.jpg\n./1.jpg\n", "'1.jpg' twice, on lines 2 and 4"),
        ("path,label\n1.jpg,a\n,b\n", "line 3: no path"),
        ("path,label\n1,2.jpg,a\n", "line 2: 3 fields, but the header names 2"),
        ("path,path\n1.jpg,1.jpg\n", "2 columns called 'path'"),
        ('path\n"1.jpg\n', "not valid CSV"),
    ],
)
def test_bad_csv_names_the_place(tmp_path, text, message):
    """What is wrong with a CSV is said with the line and what is allowed."""
    with pytest.raises(SourceError, match=message):
        list_images(write_csv(tmp_path, text))


def test_bad_lists_are_refused(here):
    """A list that is empty, binary or names a path twice, and an empty sequence, are refused."""
    with pytest.raises(SourceError, match="standard input names no images"):
        list_images("-", stdin=io.StringIO("\n \n"))
    with pytest.raises(SourceError, match=r"'a\.jpg' twice, on lines 1 and 3"):
        list_images("-", stdin=io.StringIO("a.jpg\n\n./a.jpg\n"))
    (here / "model.bin").write_bytes(b"\x00\x01")
    with pytest.raises(SourceError, match="null bytes"):
        list_images("model.bin")
    with pytest.raises(SourceError, match="empty sequence"):
        list_images([])
    with pytest.raises(SourceError, match="3 is not a path, but int"):
        list_images([3])
    with pytest.raises(SourceError, match="not a source of images"):
        list_images(3)


def test_missing_source_offers_what_is_there(here):
    """A source that does not exist is answered with like names beside it, or with what is missing."""
    (here / "Flowers").mkdir()
    with pytest.raises(SourceError, match="flower does not exist; did you mean Flowers in"):
        list_images("flower")
    with pytest.raises(SourceError, match="nor anything with a like name"):
        list_images("zzz")
    with pytest.raises(SourceError, match="neither does its folder"):
        list_images("no/such/place")
    with pytest.raises(SourceError, match="empty text"):
        list_images("")


@pytest.mark.usefixtures("here")
def test_any_column_can_be_read(tmp_path):
    """Texts of a column are found by the path that a store has, stripped, in any case of the name; empty is empty."""
    rows = f"""Path,label,Patient No
"a,b.jpg",ant, 7
{tmp_path}/set/c.jpg,bee,
../up.jpg,ant,caf\u00e9
"""
    folder = tmp_path / "set"
    folder.mkdir()
    file = write_csv(folder, rows)
    found = read_column(file, "patient no ")
    assert found == {"a,b.jpg": "7", "c.jpg": "", f"{tmp_path}/up.jpg": "caf\u00e9"}
    assert list(found) == [entry.path for entry in list_images(file).entries]
    assert list(read_column(file, "label").values()) == ["ant", "bee", "ant"]
    assert list(read_column(file, "path").values()) == ["a,b.jpg", f"{tmp_path}/set/c.jpg", "../up.jpg"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\n1.jpg,a\n", "no column 'patient'; found: path, label"),
        ("file,patient\n1.jpg,a\n", "no column 'path'"),
        ("path,patient,patient\n1.jpg,a,b\n", "2 columns called 'patient'"),
        ("path,patient\n1.jpg,a\n./1.jpg,b\n", "'1.jpg' twice, on lines 2 and 3"),
        ("path,patient\n,b\n", "line 2: no path"),
    ],
)
def test_bad_column_names_the_place(tmp_path, text, message):
    """What keeps a column from being read is said with what was found."""
    with pytest.raises(SourceError, match=message):
        read_column(write_csv(tmp_path, text), "patient")


def test_column_of_a_csv_that_is_gone(tmp_path):
    """A CSV that cannot be read is named."""
    with pytest.raises(SourceError, match="cannot be read"):
        read_column(tmp_path / "gone.csv", "patient")
