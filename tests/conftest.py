"""Fixtures that every room's tests share: a network computed by hand, small pictures, a cache of their own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

# Small networks and a busy machine: threads that wait for each other double the time of the whole suite.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# `fake_backbone` lies beside the tests, not in the package.
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory):
    """Keep converted networks away from the user's cache, and from earlier runs of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("FEATX_CACHE", str(folder))
        yield folder


@pytest.fixture
def fake_backbone():
    """Return a backbone whose features can be computed by hand, see `fake_backbone.FakeNetwork`."""
    from fake_backbone import FAKE_TRANSFORM, FakeNetwork

    from featx.backbones import open_backbone

    return open_backbone(FakeNetwork(), transform=FAKE_TRANSFORM)


@pytest.fixture
def image_folder(tmp_path):
    """Return a folder of three class folders with eight small pictures each."""
    from fake_backbone import write_pictures

    return write_pictures(tmp_path / "pictures")


@pytest.fixture(scope="session")
def shared_data():
    """Return the folder of real pictures, or skip."""
    folder = Path(os.environ.get("FEATX_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real pictures in {folder}; FEATX_SHARED_DATA names their folder")
    return folder


@pytest.fixture(scope="session")
def default_backbone():
    """Return the default network with its bundled weights; shared, so not to be changed."""
    from featx.backbones import open_backbone

    return open_backbone()
