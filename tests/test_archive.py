"""Archives: what goes in comes out, atomically, and nothing else ever does."""

import json
import struct
import zipfile

import numpy as np
import pytest

from featx.archive import StreamedPart, read_archive, write_archive
from featx.archive.layout import COMMENT_PREFIX, digest_of
from featx.errors import FeatxError, StoreError, UnsafeFileError, UsageError, WouldOverwriteError

CONTENT = {"classes": ["cat", "dög"], "card": {"seed": 0, "accuracy": 0.5, "none": None}}
PARTS = {"head.skops": bytes(range(256)), "empty.bin": b"", "rows.json": b'["a","b"]'}


@pytest.fixture
def archive_path(tmp_path):
    path = tmp_path / "some.featx"
    write_archive(path, "featx-bundle", CONTENT, PARTS)
    return path


def everything(path):
    """Read the content and all parts."""
    archive = read_archive(path, "featx-bundle")
    return archive.content, {name: archive.read(name) for name in archive.parts}


def craft(path, entries, *, compression=zipfile.ZIP_STORED, comment=None):
    """Write a ZIP whose manifest and digests are right, whatever else is wrong with it."""
    with zipfile.ZipFile(path, "w", compression) as zip_file:
        for name, data in entries:
            zip_file.writestr(name, data)
        zip_file.comment = comment or COMMENT_PREFIX + digest_of(entries[0][1]).encode()


def manifest_of(parts, **changes):
    table = {name: {"bytes": len(data), "blake2b": digest_of(data)} for name, data in parts.items()}
    manifest = {"format": "featx-bundle", "format_version": 1, "parts": table, "content": {}}
    return json.dumps(manifest | changes).encode()


def test_round_trip(archive_path):
    """Content and parts come back as they went in, in the same order."""
    content, parts = everything(archive_path)
    assert content == CONTENT
    assert parts == PARTS
    assert list(parts) == list(PARTS)


def test_any_zip_tool_can_read_it(archive_path):
    """It is an ordinary ZIP of stored entries, the manifest first."""
    with zipfile.ZipFile(archive_path) as zip_file:
        assert zip_file.testzip() is None
        assert zip_file.namelist() == ["manifest.json", *PARTS]
        assert zip_file.read("head.skops") == PARTS["head.skops"]
        assert json.loads(zip_file.read("manifest.json"))["content"] == CONTENT


def test_parts_from_memoryview_and_file(tmp_path):
    """Views of arrays of any item size, and files, are parts too."""
    source = tmp_path / "weights"
    source.write_bytes(b"w" * 3_000_000)
    view = memoryview(struct.pack("<3d", 1.0, 2.0, 3.0)).cast("d")
    write_archive(tmp_path / "a", "featx-bundle", {}, {"weights": source, "numbers": view})
    assert everything(tmp_path / "a") == ({}, {"weights": b"w" * 3_000_000, "numbers": struct.pack("<3d", 1, 2, 3)})


def test_same_arguments_give_same_bytes(archive_path, tmp_path):
    """No date, no random name: writing twice gives one file twice."""
    write_archive(tmp_path / "again", "featx-bundle", CONTENT, PARTS)
    assert (tmp_path / "again").read_bytes() == archive_path.read_bytes()


@pytest.mark.parametrize("value", [0xFF, 0x01, 0x08])
def test_no_flipped_byte_goes_unnoticed(archive_path, tmp_path, value):
    """With any single byte changed, reading everything raises a featx error or gives the identical data."""
    original, damaged = archive_path.read_bytes(), tmp_path / "damaged.featx"
    refused = 0
    for position in range(0, len(original), 2 if value == 0xFF else 7):
        data = bytearray(original)
        data[position] ^= value
        damaged.write_bytes(data)
        try:
            assert everything(damaged) == (CONTENT, PARTS)
        except FeatxError:
            refused += 1
    assert refused > 50


def test_every_byte_of_manifest_and_parts_is_protected(archive_path, tmp_path):
    """A change inside the manifest or a part is always refused."""
    original, damaged = archive_path.read_bytes(), tmp_path / "damaged.featx"
    with zipfile.ZipFile(archive_path) as zip_file:
        payloads = [zip_file.read(name) for name in zip_file.namelist()]
    for payload in payloads:
        start = original.index(payload) if payload else 0
        for position in range(start, start + len(payload), 5):
            data = bytearray(original)
            data[position] ^= 0x10
            damaged.write_bytes(data)
            with pytest.raises(StoreError):
                everything(damaged)


def test_no_truncation_goes_unnoticed(archive_path, tmp_path):
    """A file cut anywhere is refused."""
    original, damaged = archive_path.read_bytes(), tmp_path / "damaged.featx"
    for length in range(0, len(original), 11):
        damaged.write_bytes(original[:length])
        with pytest.raises(StoreError):
            everything(damaged)


def test_foreign_files_are_refused(tmp_path):
    """Missing files, folders, texts and other ZIP files are errors that name the path."""
    (tmp_path / "text").write_text("hello")
    with zipfile.ZipFile(tmp_path / "zip", "w") as zip_file:
        zip_file.writestr("hello.txt", "hello")
    for name in ("missing", ".", "text", "zip"):
        with pytest.raises(StoreError, match=r"no such file|damaged or was not written by featx"):
            read_archive(tmp_path / name, "featx-bundle")


def test_other_kind_is_named(archive_path):
    """A classifier where an index is wanted is told apart in words."""
    with pytest.raises(StoreError, match=r"is a featx classifier \(.featx\), not a featx image index"):
        read_archive(archive_path, "featx-index")


def test_newer_version_asks_for_newer_featx(tmp_path):
    """A format from the future is not guessed at."""
    craft(tmp_path / "a", [("manifest.json", manifest_of({}, format_version=2))])
    with pytest.raises(StoreError, match="Install a newer featx"):
        read_archive(tmp_path / "a", "featx-bundle")


def test_crafted_helper_makes_readable_archives(tmp_path):
    """The hand-made archives of the tests below are refused for what is wrong with them, and for nothing else."""
    craft(tmp_path / "a", [("manifest.json", manifest_of({"p": b"12"})), ("p", b"12")])
    assert everything(tmp_path / "a") == ({}, {"p": b"12"})


def test_compressed_entries_are_refused(tmp_path):
    """Compression, by which a small file could become a large one, is refused."""
    bomb = b"0" * 10_000_000
    entries = [("manifest.json", manifest_of({"bomb": bomb})), ("bomb", bomb)]
    craft(tmp_path / "a", entries, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(UnsafeFileError, match="compressed"):
        read_archive(tmp_path / "a", "featx-bundle")


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/b", "a\\b", ".hidden", "ä"])
def test_odd_names_are_refused(tmp_path, name):
    """Names that could be paths are neither read nor written."""
    craft(tmp_path / "a", [("manifest.json", manifest_of({name: b""})), (name, b"")])
    with pytest.raises(UnsafeFileError, match="entry named"):
        read_archive(tmp_path / "a", "featx-bundle")
    with pytest.raises(UsageError, match="cannot name a part"):
        write_archive(tmp_path / "b", "featx-bundle", {}, {name: b""})


def test_sizes_beyond_the_file_are_refused(archive_path):
    """A directory that claims more bytes than the file has is refused before anything is read."""
    data = bytearray(archive_path.read_bytes())
    entry = data.rindex(b"head.skops") - 46  # the central directory's record of the part
    assert data[entry : entry + 4] == b"PK\x01\x02"
    data[entry + 20 : entry + 28] = struct.pack("<LL", 2**31, 2**31)
    archive_path.write_bytes(data)
    with pytest.raises(UnsafeFileError, match="more bytes than the file has"):
        read_archive(archive_path, "featx-bundle")


def test_double_names_are_refused(tmp_path):
    """Two entries of one name, of which tools pick different ones, are refused."""
    with pytest.warns(UserWarning, match="Duplicate name"):
        craft(tmp_path / "a", [("manifest.json", manifest_of({"p": b"1"})), ("p", b"1"), ("p", b"2")])
    with pytest.raises(UnsafeFileError, match="same name"):
        read_archive(tmp_path / "a", "featx-bundle")


def test_unlisted_and_missing_parts_are_refused(tmp_path):
    """Manifest and directory must list the same parts."""
    craft(tmp_path / "more", [("manifest.json", manifest_of({})), ("p", b"1")])
    craft(tmp_path / "less", [("manifest.json", manifest_of({"p": b"1"}))])
    for name in ("more", "less"):
        with pytest.raises(StoreError, match="other parts or sizes"):
            read_archive(tmp_path / name, "featx-bundle")


def test_deep_manifest_is_refused(tmp_path):
    """A manifest that would exhaust the stack is refused."""
    craft(tmp_path / "a", [("manifest.json", b"[" * 200_000)])
    with pytest.raises(FeatxError):
        read_archive(tmp_path / "a", "featx-bundle")


def test_nothing_is_overwritten_unasked(archive_path):
    """An existing file is refused and stays; with overwrite it is replaced."""
    before = archive_path.read_bytes()
    with pytest.raises(WouldOverwriteError, match="already there"):
        write_archive(archive_path, "featx-bundle", {}, {})
    assert archive_path.read_bytes() == before
    write_archive(archive_path, "featx-bundle", {"new": 1}, {}, overwrite=True)
    assert everything(archive_path) == ({"new": 1}, {})


def test_failed_writing_leaves_what_was_there(archive_path, monkeypatch):
    """When the disk fails, the old file stays whole and no temporary file is left."""
    before = archive_path.read_bytes()

    def fail(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("featx.archive.writing.os.fsync", fail)
    with pytest.raises(StoreError, match="No space left"):
        write_archive(archive_path, "featx-bundle", {}, {}, overwrite=True)
    assert archive_path.read_bytes() == before
    assert list(archive_path.parent.iterdir()) == [archive_path]


def test_part_that_changes_while_it_is_read_is_noticed(archive_path):
    """Parts are verified when they are read, not only when the archive is opened."""
    archive = read_archive(archive_path, "featx-bundle")
    data = archive_path.read_bytes()
    archive_path.write_bytes(data.replace(PARTS["rows.json"], b'["a","c"]'))
    with pytest.raises(StoreError, match=r"rows\.json"):
        archive.read("rows.json")


def test_usage_errors(tmp_path, archive_path):
    """Unknown kinds, unknown parts, and content beyond JSON are named."""
    with pytest.raises(UsageError, match="unknown kind"):
        write_archive(tmp_path / "a", "zip", {}, {})
    with pytest.raises(UsageError, match="JSON"):
        write_archive(tmp_path / "a", "featx-bundle", {"x": float("nan")}, {})
    with pytest.raises(UsageError, match=r"has no part 'x'; it has head\.skops"):
        read_archive(archive_path, "featx-bundle").read("x")
    with pytest.raises(StoreError, match="cannot be written"):
        write_archive(tmp_path / "no" / "folder", "featx-bundle", {}, {})


@pytest.mark.parametrize("n_bytes", [1, 63, 64, 2**20 + 5])
def test_parts_are_mapped_at_aligned_places(tmp_path, n_bytes):
    """A mapped part has the bytes that were written, and begins at a multiple of 64 bytes of the file."""
    content = bytes(np.random.default_rng(n_bytes).integers(256, size=n_bytes, dtype=np.uint8))
    write_archive(tmp_path / "a", "featx-index", {}, {"odd": b"x" * 7, "numbers": content, "last": b"y"})
    mapped = read_archive(tmp_path / "a", "featx-index").map("numbers")
    assert bytes(mapped) == content
    assert mapped.offset % 64 == 0


def test_a_streamed_part_is_written_in_blocks(tmp_path):
    """What comes in blocks is the same file as what was in memory."""
    blocks = [b"abc", b"", b"defgh"]
    part = StreamedPart(8, lambda: iter(blocks))
    write_archive(tmp_path / "streamed", "featx-index", {"n": 1}, {"numbers": part})
    write_archive(tmp_path / "whole", "featx-index", {"n": 1}, {"numbers": b"abcdefgh"})
    assert (tmp_path / "streamed").read_bytes() == (tmp_path / "whole").read_bytes()


def test_a_part_beyond_two_gigabytes_is_mapped_where_it_lies(tmp_path, monkeypatch):
    """With ZIP64 sizes, which large parts have, a part begins at a multiple of 64 bytes as well."""
    monkeypatch.setattr("featx.archive.writing._is_large", lambda _entry: True)
    write_archive(tmp_path / "a", "featx-index", {}, {"numbers": b"0123456789"})
    mapped = read_archive(tmp_path / "a", "featx-index").map("numbers")
    assert (bytes(mapped), mapped.offset % 64) == (b"0123456789", 0)


def test_a_damaged_part_is_not_mapped(tmp_path):
    """A changed byte is found before the part is handed out."""
    write_archive(tmp_path / "a", "featx-index", {}, {"numbers": b"0123456789"})
    content = (tmp_path / "a").read_bytes()
    (tmp_path / "a").write_bytes(content.replace(b"0123456789", b"0123456780"))
    archive = read_archive(tmp_path / "a", "featx-index")
    for read in (archive.map, archive.check):
        with pytest.raises(StoreError, match="numbers"):
            read("numbers")
