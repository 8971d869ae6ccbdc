"""From a store to its images again: only where they are what its features were computed of."""

from __future__ import annotations

import shutil

import pytest
from extraction_runs import extract
from fake_backbone import write_pictures

from featx.backbones import open_backbone
from featx.errors import SourceError, UsageError
from featx.workflows.tuning_sources import open_tuning_source


@pytest.fixture
def store(tmp_path):
    """A store of 12 pictures in ``photos`` beside it."""
    backbone = open_backbone("test_resnet", weights="random:0", size=32)
    extract(backbone, str(write_pictures(tmp_path / "photos", n_each=4)), tmp_path / "f.h5")
    return tmp_path / "f.h5"


def test_the_images_of_a_store_are_found_again(store):
    """Network, size and images come from the store, and no feature is computed."""
    opened = open_tuning_source(str(store), store.with_name("frozen.h5"))
    assert (opened.store, opened.has_kept, opened.failures) == (store, True, ())
    assert opened.backbone.transform.side == 32
    assert len(opened.listing) == 12
    assert not store.with_name("frozen.h5").exists()


@pytest.mark.parametrize("change", ["replaced", "unreadable"])
def test_pictures_that_changed_are_noticed(store, change):
    """A picture that is another one by now, or cannot be read, is named before anything is trained on it."""
    photos = store.with_name("photos")
    first, other = (sorted((photos / name).iterdir())[0] for name in ("red", "blue"))
    if change == "replaced":
        shutil.copy(other, first)
    else:
        first.unlink()
        first.symlink_to("nowhere")
    with pytest.raises(SourceError, match=rf"1 of the 12 images of .*f\.h5 have changed .*red/{first.name}"):
        open_tuning_source(str(store), store.with_name("frozen.h5"))


def test_new_pictures_are_in_nobodys_way(store):
    """An image that has come since is not part of the store, and not looked at."""
    (store.with_name("photos") / "red" / "new.jpg").write_bytes(b"no picture")
    assert len(open_tuning_source(str(store), store.with_name("frozen.h5")).listing) == 13


def test_a_network_beside_a_store_is_refused(store):
    """The store names its network."""
    with pytest.raises(UsageError, match="names its network itself"):
        open_tuning_source(str(store), store.with_name("frozen.h5"), model="test_resnet")
