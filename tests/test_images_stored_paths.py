"""Stored paths are valid UTF-8 and lead back to the file."""

import os
import random

import pytest

from featx.images import escape_path, unescape_path
from featx.images.stored_paths import stored_path


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        (b"plain/cat.jpg", "plain/cat.jpg"),
        ("größe/猫.png".encode(), "größe/猫.png"),
        (b"caf\xe9.jpg", "caf%E9.jpg"),
        (b"100%.jpg", "100%.jpg"),
        (b"100%ab.jpg", "100%ab.jpg"),
        (b"caf%E9.jpg", "caf%25E9.jpg"),
        (b"a%25.jpg", "a%2525.jpg"),
        (b"a%2.jpg", "a%2.jpg"),
    ],
)
def test_written_form(name, stored):
    """Bytes that are not UTF-8 are escaped; a percent sign only where it would look like an escape."""
    assert escape_path(os.fsdecode(name)) == stored


def test_any_bytes_come_back_and_no_two_names_meet():
    """Any names made of percent signs, digits and stray bytes survive the round trip and stay different."""
    source = random.Random(0)
    names = {bytes(source.choices(b"%25E9Fa\xe9\x80\xff", k=source.randint(1, 6))) for _ in range(5000)}
    stored = {escape_path(os.fsdecode(name)): name for name in names}
    assert len(stored) == len(names)
    for text, name in stored.items():
        assert os.fsencode(unescape_path(text)) == name
        text.encode("utf-8")


@pytest.mark.parametrize(
    ("location", "folder", "stored"),
    [
        ("/data/set/a/1.jpg", "/data/set", "a/1.jpg"),
        ("/data/set/a/../b/1.jpg", "/data/set", "b/1.jpg"),
        ("/data/settle/1.jpg", "/data/set", "/data/settle/1.jpg"),
        ("/data/set/../1.jpg", "/data/set", "/data/1.jpg"),
        ("/1.jpg", "/", "1.jpg"),
    ],
)
def test_relative_inside_absolute_outside(location, folder, stored):
    """What lies inside the folder is stored relative to it, anything else absolute."""
    assert stored_path(location, folder) == stored
