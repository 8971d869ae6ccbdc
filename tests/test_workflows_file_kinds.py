"""Files are known by what is in them, and a wrong one is answered by what it is."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import pytest
from gallery import make_gallery

from featx.errors import StoreError, UsageError, WeightsNotFoundError
from featx.extraction import FeatureSpec
from featx.workflows.file_kinds import CLASSIFIER, INDEX, STORE, check_file, kind_of, require_kind
from featx.workflows.moved_weights import moved_weights_explained


@pytest.fixture(scope="module")
def gallery(tmp_path_factory):
    """Pictures, store, classifier and index; read only."""
    return make_gallery(tmp_path_factory.mktemp("gallery"))


def test_kinds(gallery, tmp_path):
    """Content counts, and the name only where there is no content to tell."""
    for file, kind in ((gallery.store, STORE), (gallery.classifier, CLASSIFIER), (gallery.index, INDEX)):
        assert kind_of(str(file)) == kind
        shutil.copy(file, tmp_path / "renamed.png")
        assert kind_of(str(tmp_path / "renamed.png")) == kind
    assert kind_of(str(gallery.photos)) == "folder"
    assert kind_of(str(gallery.photos / "red" / "001.png")) == "picture"
    (tmp_path / "broken.featx").write_text("nothing")
    (tmp_path / "notes.txt").write_text("nothing")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as other:
        other.writestr("a", "b")
    assert kind_of(str(tmp_path / "broken.featx")) == CLASSIFIER
    assert kind_of(str(tmp_path / "missing.index")) == INDEX
    assert kind_of(str(tmp_path / "notes.txt")) is None
    assert kind_of(str(tmp_path / "other.zip")) is None


def test_what_is_required(gallery, tmp_path):
    """Another kind is an error that says what was given and how to get what is wanted; the rest passes."""
    with pytest.raises(UsageError, match=r"is a store of features .* not a classifier .* featx fit-svm F\.h5"):
        require_kind(str(gallery.store), CLASSIFIER)
    with pytest.raises(UsageError, match=r"is a picture, not an image index .* featx index .*, or that$"):
        require_kind(str(gallery.photos / "red" / "001.png"), INDEX, ", or that")
    passed = [str(gallery.store), str(tmp_path / "missing.featx"), str(Path(__file__))]
    assert [require_kind(path, STORE) for path in passed] == [None] * 3


def test_files_are_checked(gallery, tmp_path):
    """Whole files have no problems, damaged ones have, and what is no file of featx is an error."""
    for file in (gallery.store, gallery.classifier, gallery.index):
        assert check_file(str(file)) == []
        damaged = tmp_path / file.name
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 4
        damaged.write_bytes(content)
        assert check_file(str(damaged))
    with pytest.raises(UsageError, match="no file of featx"):
        check_file(__file__)
    with pytest.raises(StoreError, match="no such file"):
        check_file(str(tmp_path / "missing.featx"))


def test_only_weights_from_a_file_can_have_moved():
    """The advice to name the new place is given where a file was used, and the user named no other."""
    for source, weights, said in (
        ("file:there.pth", None, "say where they are now with --weights FILE, or so"),
        ("file:there.pth", "mine.pth", "^original$"),
        ("hub:timm/x", None, "^original$"),
    ):
        spec = FeatureSpec("a@avg", 1, {"weights_source": source})
        with pytest.raises(WeightsNotFoundError, match=said), moved_weights_explained(spec, weights, ", or so"):
            raise WeightsNotFoundError("original")
