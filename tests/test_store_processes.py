"""A store in many processes: pickled, forked, spawned, killed and out of space."""

from __future__ import annotations

import multiprocessing
import operator
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import featx.errors
from featx.errors import StoreError
from featx.store import FeatureStore

ARCHIVE = Path(__file__).parent / "archives" / "format-1.h5"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(featx.errors.__file__).parents[1])}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A copy of the archive in a folder of its own."""
    return Path(shutil.copy(ARCHIVE, tmp_path / "s.h5"))


def test_a_store_pickles_as_its_path(path: Path) -> None:
    """An open store and its features survive pickling without the open file, and read on."""
    with FeatureStore(path) as store:
        features = store["blocks.0"]
        pickled = pickle.dumps((store, features))
    assert len(pickled) < 2000
    again, features_again = pickle.loads(pickled)
    assert again.keys == ["blocks.0@avg", "penultimate@avg"]
    np.testing.assert_array_equal(features_again[[5, 3], 0], [5, 3])
    again.close()


def test_features_reach_a_spawned_process(path: Path) -> None:
    """Features handed to a spawned process are read there."""
    with FeatureStore(path) as store, multiprocessing.get_context("spawn").Pool(1) as pool:
        row = pool.apply(operator.getitem, (store["blocks.0"], 4))
        pool.close()
        pool.join()
    np.testing.assert_array_equal(row, np.arange(12, 15, dtype=np.float32) / 3, strict=True)


FORKING = """
import os, sys
import numpy as np
from featx.store import FeatureStore
store = FeatureStore(sys.argv[1])
before = store["blocks.0"][3]
child = os.fork()
if child == 0:
    same = np.array_equal(store["blocks.0"][3], before) and store._opened[0] == os.getpid()
    store.close()
    os._exit(0 if same else 5)
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 0, status
assert np.array_equal(store["blocks.0"][3], before)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_an_open_store_survives_a_fork(path: Path) -> None:
    """After a fork the child opens the file for itself, and neither process disturbs the other."""
    subprocess.run([sys.executable, "-c", FORKING, str(path)], check=True, env=ENVIRONMENT, timeout=60)


def test_nothing_is_opened_before_use(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store opens at first use, also after the working folder changed, and again after `close`."""
    monkeypatch.chdir(path.parent)
    store = FeatureStore(path.name)
    monkeypatch.chdir(path.parent.parent)
    assert store._opened is None
    assert store.rows == 6
    store.close()
    assert store._opened is None
    assert store.label_names == ["Bär", "猫"]
    store.close()
    with pytest.raises(StoreError, match="There is no store"):
        _ = FeatureStore("missing.h5").rows


LIMITED = """
import resource, sys
from pathlib import Path
import numpy as np
from featx.errors import StoreError
from featx.store import FeatureInfo, RowBlock, write_segment
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
features = {"a@avg": np.ones((500, 100), np.float32)}
block = RowBlock(["x"] * 500, np.zeros((500, 16)), np.zeros((500, 8)), np.zeros((500, 2)), features)
try:
    write_segment(Path(sys.argv[1]), block, [FeatureInfo("a@avg", "a", "avg", 0.5, (100,), 100, "float32")], {})
except StoreError as error:
    sys.exit(0 if "File too large" in str(error) else 4)
sys.exit(5)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="file sizes cannot be limited on Windows")
def test_a_file_that_may_not_grow_does_not_crash(tmp_path: Path) -> None:
    """A real limit of the system ends in a StoreError and a live process, where HDF5 alone would crash."""
    result = subprocess.run([sys.executable, "-c", LIMITED, str(tmp_path / "p")], env=ENVIRONMENT, timeout=60)
    assert result.returncode == 0
    assert not list((tmp_path / "p").iterdir())


KILLED = """
import os, signal, sys
from pathlib import Path
from featx.store import FeatureStore, ImageTable, as_row_source, merge

def merge_one_row(path):
    store = FeatureStore(path)
    table = ImageTable(["new.jpg"], store.digests[3:4], store.labels[:1], ["x"], store.splits[:1], None)
    merge(path, table, list(store.infos.values()), [as_row_source(store)],
          fingerprint=store.fingerprint, source="", aliases={}, failures=[])

if sys.argv[2] == "kill":
    os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
merge_one_row(Path(sys.argv[1]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL on Windows")
def test_a_killed_merge_leaves_the_old_store(path: Path) -> None:
    """Killed before the rename, the old store is whole; the leftover goes with the next merge, which succeeds."""
    before = path.read_bytes()
    command = [sys.executable, "-c", KILLED, str(path)]
    result = subprocess.run([*command, "kill"], env=ENVIRONMENT, timeout=60)
    assert result.returncode == -9
    assert path.read_bytes() == before
    assert len(list(path.parent.glob("s.h5.tmp-*"))) == 1
    subprocess.run([*command, "live"], env=ENVIRONMENT, timeout=60, check=True)
    assert [file.name for file in path.parent.iterdir()] == ["s.h5"]
    with FeatureStore(path) as store:
        np.testing.assert_array_equal(store["blocks.0"][:, 0], [3])
