"""The TensorBoard log: read back is what was written, resumed runs have no doubled points, graphs cannot harm."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest
import torch

from featx.errors import StoreError, UsageError
from featx.finetuning.history import EpochRecord
from featx.workflows.tensorboard_log import SCALARS, TensorBoardLog, require_tensorboard

pytest.importorskip("tensorboard", reason="tensorboard is an extra: pip install featx[tensorboard]")


def record(epoch, shift=0.0):
    """An epoch whose numbers all differ; the shift tells runs apart."""
    return EpochRecord(epoch, 2 / epoch + shift, 0.5 + shift, 3 / epoch + shift, 0.25 + shift, 0.1 / epoch, 9.0)


def read_back(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder)).Reload()


def points(folder, tag="loss/train"):
    """What TensorBoard shows: step and value, in single precision as it keeps them."""
    return [(event.step, event.value) for event in read_back(folder).Scalars(tag)]


def small_network():
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 2)
    )


class Untraceable(torch.nn.Module):
    """A network that gives something that torch cannot write down."""

    def forward(self, x):
        raise RuntimeError(f"this network takes {x.ndim}\nand has reasons")


class Branching(torch.nn.Module):
    """A network that asks for a size, of which torch warns, and draws random numbers when it trains."""

    def forward(self, x):
        if x.sum() > 0:
            return x
        return torch.nn.functional.dropout(x, training=self.training) * int(x.shape[-1])


def test_every_number_of_an_epoch_is_read_back(tmp_path):
    """Five scalars an epoch, at the step of that epoch, and nothing else."""
    with TensorBoardLog(tmp_path / "log") as log:
        for epoch in (1, 2, 3):
            log.add_epoch(record(epoch))
    assert sorted(read_back(tmp_path / "log").Tags()["scalars"]) == sorted(SCALARS)
    for tag, name in SCALARS.items():
        expected = [(epoch, pytest.approx(getattr(record(epoch), name), rel=1e-6)) for epoch in (1, 2, 3)]
        assert points(tmp_path / "log", tag) == expected


def test_an_epoch_is_on_disk_at_once(tmp_path):
    """While the log is open, what was added can be read: a kill loses no epoch."""
    with TensorBoardLog(tmp_path) as log:
        log.add_epoch(record(1))
        assert [step for step, _ in points(tmp_path)] == [1]
        log.add_epoch(record(2))
        assert [step for step, _ in points(tmp_path)] == [1, 2]


def test_a_resumed_run_has_no_doubled_points(tmp_path):
    """Epochs 3 and 4, done again after a kill, show once and with the numbers of the second time."""
    with TensorBoardLog(tmp_path) as log:
        for epoch in (1, 2, 3, 4):
            log.add_epoch(record(epoch))
    with TensorBoardLog(tmp_path, first_epoch=3) as log:
        log.add_epoch(record(3, shift=0.125))
    assert [step for step, _ in points(tmp_path)] == [1, 2, 3]
    assert points(tmp_path)[2] == (3, pytest.approx(record(3, shift=0.125).train_loss))


def test_a_new_run_in_the_same_folder_replaces_the_old(tmp_path):
    """Beginning anew leaves nothing of the run before in the curves."""
    for shift in (0.0, 0.125):
        with TensorBoardLog(tmp_path) as log:
            log.add_epoch(record(1, shift))
    assert points(tmp_path) == [(1, pytest.approx(2.125))]


def test_files_of_runs_are_named_in_the_order_of_the_runs(tmp_path):
    """Also within one second, where TensorBoard would read what goes on before what it goes on from."""
    names = []
    for epoch in range(1, 4):
        with TensorBoardLog(tmp_path, first_epoch=epoch):
            names.append(max(tmp_path.iterdir(), key=lambda path: path.stat().st_mtime_ns).name)
    assert names == sorted(set(names))


def test_the_graph_is_read_back(tmp_path):
    """Every layer of a small network is a node, under the name of its module."""
    with TensorBoardLog(tmp_path) as log:
        assert log.add_graph(small_network(), torch.zeros(2, 3, 8, 8)) is True
    names = [node.name for node in read_back(tmp_path).Graph().node]
    for part in ("Conv2d[0]", "BatchNorm2d[1]", "ReLU[2]", "Flatten[3]", "Linear[4]"):
        assert any(name.startswith(f"Sequential/{part}/") for name in names)


def test_tracing_leaves_the_network_and_random_numbers_alone(tmp_path, capsys):
    """A frozen part stays in evaluation mode within a training network; its statistics and the generator keep still."""
    network = torch.nn.Sequential(small_network(), Branching(), torch.nn.Dropout())
    network.train()
    network[0][1].eval()
    modes = [part.training for part in network.modules()]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.get_rng_state()
    with TensorBoardLog(tmp_path) as log:
        assert log.add_graph(network, torch.ones(2, 3, 8, 8)) is True
    assert [part.training for part in network.modules()] == modes
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(parameter.grad is not None for parameter in network.parameters())
    assert capsys.readouterr().out == ""


def test_a_network_that_cannot_be_traced_is_a_warning(tmp_path, caplog, capsys):
    """The reason is logged in one line, nothing is printed, the mode is kept, and scalars go on."""
    network = Untraceable().train()
    with caplog.at_level(logging.WARNING), TensorBoardLog(tmp_path) as log:
        assert log.add_graph(network, torch.zeros(2, 3)) is False
        log.add_epoch(record(1))
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [
        ("WARNING", "no graph of the network for TensorBoard: it cannot be traced (this network takes 2)")
    ]
    assert capsys.readouterr() == ("", "")
    assert network.training
    assert [step for step, _ in points(tmp_path)] == [1]
    assert not read_back(tmp_path).Tags()["graph"]


def test_a_resumed_run_keeps_the_graph_that_is_there(tmp_path, monkeypatch):
    """Going on in a folder does not trace again; the graph of the first run still shows."""
    with TensorBoardLog(tmp_path) as log:
        log.add_graph(small_network(), torch.zeros(2, 3, 8, 8))
        log.add_epoch(record(1))
    expected = read_back(tmp_path).Graph()
    monkeypatch.setattr(torch.jit, "trace", None)
    with TensorBoardLog(tmp_path, first_epoch=2) as log:
        assert log.add_graph(small_network(), torch.zeros(2, 3, 8, 8)) is True
        log.add_epoch(record(2))
    assert read_back(tmp_path).Graph() == expected
    assert [step for step, _ in points(tmp_path)] == [1, 2]


def test_a_resumed_run_in_a_new_folder_gets_its_graph(tmp_path):
    """Where nothing was written before, a run that begins at epoch 5 writes the graph too."""
    with TensorBoardLog(tmp_path / "new", first_epoch=5) as log:
        log.add_graph(small_network(), torch.zeros(2, 3, 8, 8))
    assert read_back(tmp_path / "new").Tags()["graph"]


def test_without_tensorboard_the_extra_is_named(tmp_path, monkeypatch):
    """The error says what to install, before a folder is made."""
    for name in [name for name in sys.modules if name.startswith(("tensorboard", "torch.utils.tensorboard"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(torch.utils, "tensorboard", raising=False)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(UsageError, match=r'pip install "featx\[tensorboard\]"'):
        require_tensorboard()
    with pytest.raises(UsageError, match="needs tensorboard"), TensorBoardLog(tmp_path / "log"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    """A file in the place of the folder is an error that names it."""
    (tmp_path / "log").write_text("a file")
    with pytest.raises(StoreError, match="log cannot be written"), TensorBoardLog(tmp_path / "log"):
        pass


def test_a_log_that_is_not_open_is_an_error(tmp_path):
    """Outside of a with statement there is nothing to write to."""
    log = TensorBoardLog(tmp_path)
    for call in (lambda: log.add_epoch(record(1)), lambda: log.add_graph(small_network(), torch.zeros(1))):
        with pytest.raises(UsageError, match="not open"):
            call()


def test_importing_the_module_loads_no_tensorboard():
    """The extra is imported when a log is opened."""
    code = "import sys, featx.workflows.tensorboard_log; assert not {'tensorboard', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
