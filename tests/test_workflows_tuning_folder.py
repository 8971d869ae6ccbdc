"""A folder of a fine-tuning keeps what an interrupted run left, and refuses what belongs to something else."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest
import torch

from featx.errors import StoreError, UsageError, WouldOverwriteError
from featx.workflows.tuning_folder import TuningFolder

RUN = {"settings": {"epochs": 3, "lr_scale": (0.1,), "regime": "partial"}, "network": "n", "images": "abc"}
OURS = [
    "run.json", "state.pt", "tuned.safetensors", "tuned.h5", "classifier.featx", "curves.png", "history.csv",
    "result.json",
]  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """A folder in which a run has begun."""
    made = TuningFolder(tmp_path / "run")
    made.begin(RUN, overwrite=False)
    return made


def changed(**settings):
    """Return a description of a run with other settings."""
    return {**RUN, "settings": {**RUN["settings"], **settings}}


def test_files_have_their_names(tmp_path):
    """Everything lies in the folder, under the names that the documentation gives."""
    folder = TuningFolder(tmp_path)
    names = ("frozen", "weights", "tuned", "classifier", "curves", "history", "result", "tensorboard")
    assert [str(getattr(folder, name).relative_to(tmp_path)) for name in names] == [
        "frozen.h5", "tuned.safetensors", "tuned.h5", "classifier.featx", "curves.png", "history.csv", "result.json",
        "tensorboard",
    ]  # fmt: skip


def test_a_state_comes_back(folder):
    """Tensors, numbers and texts are what they were; the newest state counts."""
    assert folder.load_state() is None
    state = {"network": {"w": torch.arange(3.0)}, "epoch": 2, "sums": [0.5, 1.0], "stopped": "", "best_epoch": None}
    folder.save_state({"epoch": 1})
    folder.save_state(state)
    loaded = folder.load_state()
    assert torch.equal(loaded.pop("network")["w"], torch.arange(3.0))
    assert loaded == {name: value for name, value in state.items() if name != "network"}
    assert sorted(path.name for path in folder.path.iterdir()) == ["run.json", "state.pt"]


def test_a_full_disk_is_a_clear_error_and_the_last_state_stays(folder, monkeypatch):
    """A state that cannot be written names its file, and the one before it is still there."""
    folder.save_state({"epoch": 1})

    def full(_path, _data):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(StoreError, match=r"state\.pt cannot be written: No space left on device"):
            folder.save_state({"epoch": 2})
    assert folder.load_state() == {"epoch": 1}


@pytest.mark.parametrize("spoil", [lambda data: data[: len(data) // 2], lambda _: b"", lambda _: b"nonsense" * 50])
def test_a_damaged_state_says_so(folder, spoil):
    """A state that cannot be read is an error with what to do, and doing that helps."""
    folder.save_state({"epoch": 1, "w": torch.zeros(100)})
    path = folder.path / "state.pt"
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(StoreError, match=r"state\.pt is damaged .*give --overwrite to begin anew"):
        folder.load_state()
    folder.begin(RUN, overwrite=True)
    assert folder.load_state() is None


def test_a_state_holds_no_code(folder):
    """What a file would run when it is opened is refused."""
    torch.save({"w": print}, folder.path / "state.pt")
    with pytest.raises(StoreError, match="damaged"):
        folder.load_state()


def test_the_same_run_goes_on(folder):
    """Beginning again with the same description keeps the state, with and without --overwrite."""
    folder.save_state({"epoch": 1})
    for overwrite in (False, True):
        folder.check(overwrite=overwrite)
        folder.begin(json.loads(json.dumps(RUN)), overwrite=overwrite)
        assert folder.load_state() == {"epoch": 1}


def test_another_run_is_refused(folder):
    """The error names the settings that differ, with the values of the run that is there."""
    folder.save_state({"epoch": 1})
    with pytest.raises(
        WouldOverwriteError, match=r"holds a fine-tuning with other epochs \(3\), lr_scale \(\[0\.1\]\);"
    ):
        folder.begin(changed(epochs=4, lr_scale=(0.1, 0.01)), overwrite=False)
    with pytest.raises(WouldOverwriteError, match="with other images, network; choose another --out, or give --over"):
        folder.begin({**RUN, "images": "x", "network": "y"}, overwrite=False)
    assert folder.load_state() == {"epoch": 1}


def test_a_run_that_came_to_nothing_is_in_nobodys_way(folder):
    """Where there is neither a state nor a result, a corrected command needs no --overwrite."""
    (folder.path / "history.csv").write_text("x")
    folder.begin(changed(epochs=4), overwrite=False)
    assert [path.name for path in folder.path.iterdir()] == ["run.json"]
    folder.result.write_text("{}")
    with pytest.raises(WouldOverwriteError):
        folder.begin(RUN, overwrite=False)


def test_beginning_anew_removes_a_run_and_nothing_else(folder):
    """With --overwrite what belonged to the other run goes, frozen features and files of the user stay."""
    for name in (*OURS[1:], "frozen.h5", "notes.txt"):
        (folder.path / name).write_text("x")
    folder.tensorboard.mkdir()
    (folder.tensorboard / "events").write_text("x")
    folder.begin(changed(epochs=4), overwrite=True)
    assert sorted(path.name for path in folder.path.iterdir()) == ["frozen.h5", "notes.txt", "run.json"]
    assert json.loads((folder.path / "run.json").read_text())["settings"]["epochs"] == 4


def test_a_damaged_description_is_another_run(folder):
    """A description that cannot be read is never taken for the run that is wanted."""
    (folder.path / "run.json").write_text("{")
    folder.save_state({"epoch": 1})
    with pytest.raises(WouldOverwriteError, match="holds a fine-tuning with other"):
        folder.begin(RUN, overwrite=False)
    folder.begin(RUN, overwrite=True)
    folder.begin(RUN, overwrite=False)


def test_a_file_or_a_folder_of_other_things(tmp_path):
    """A file is never a folder; a folder with other things needs --overwrite; what a killed beginning left is ours."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="is a file; give the name of a folder, which is made"):
        TuningFolder(tmp_path / "file").check(overwrite=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("x")
    with pytest.raises(WouldOverwriteError, match=r"is a folder with other things in it \(thesis\.tex\)"):
        TuningFolder(tmp_path / "other").check(overwrite=False)
    TuningFolder(tmp_path / "other").check(overwrite=True)
    for name in ("new", "empty", "begun"):
        path = tmp_path / name
        if name != "new":
            path.mkdir()
        if name == "begun":
            (path / "frozen.h5").write_text("x")
            (path / "frozen.h5.parts").mkdir()
        TuningFolder(path).check(overwrite=False)
        TuningFolder(path).begin(RUN, overwrite=False)
        assert (path / "run.json").exists()
