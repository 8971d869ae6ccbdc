"""A training written down for TensorBoard while it goes on: scalars by epoch, and the graph of the network.

tensorboard is an extra, imported when a log is asked for.
"""

from __future__ import annotations

import io
import logging
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from featx.errors import StoreError, UsageError

if TYPE_CHECKING:
    import torch
    from torch.utils.tensorboard import SummaryWriter

    from featx.finetuning.history import EpochRecord

_logger = logging.getLogger(__name__)
_FILES = "events.out.tfevents.*"  # seconds since 1970, machine, process and a number follow
# Tag in TensorBoard → field of `EpochRecord`.
SCALARS = {
    "loss/train": "train_loss",
    "loss/validation": "validation_loss",
    "accuracy/train": "train_accuracy",
    "accuracy/validation": "validation_accuracy",
    "learning_rate": "learning_rate",
}


def require_tensorboard() -> None:
    """Check, before any work is done for a log, that there is something to write it with.

    Raises
    ------
    UsageError
        tensorboard is missing; the message says how to install it.
    """
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f'a TensorBoard log needs tensorboard ({error}). Install it with: pip install "featx[tensorboard]"'
        ) from error


class TensorBoardLog:
    """A folder that TensorBoard shows, open for one run of a training.

    Use it as a context manager. A training that goes on after a kill goes on in the same folder: epochs written before
    that are done again show once.

    Parameters
    ----------
    folder : str or Path
        Made where it is missing.
    first_epoch : int
        The first that will be written. What the folder shows of it and later epochs, from a run that was killed or an
        earlier one, is shown no more.

    Raises
    ------
    UsageError
        Without tensorboard.
    StoreError
        The folder cannot be written to.
    """

    def __init__(self, folder: str | Path, *, first_epoch: int = 1) -> None:
        self.folder = Path(folder)
        self.first_epoch = first_epoch
        self._writer: SummaryWriter | None = None
        self._continues = False

    def __enter__(self) -> TensorBoardLog:
        require_tensorboard()
        from torch.utils.tensorboard import SummaryWriter

        with self._naming_the_folder():
            earlier = [path.name for path in self.folder.glob(_FILES)]
            self._continues = self.first_epoch > 1 and bool(earlier)
            _wait_for_a_later_name(earlier)
            self._writer = SummaryWriter(str(self.folder), purge_step=self.first_epoch)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        writer, self._writer = self._open_writer(), None
        with self._naming_the_folder():
            writer.close()

    def add_epoch(self, record: EpochRecord) -> None:
        """Write loss, accuracy and learning rate of an epoch, so that they are on disk when this returns."""
        writer = self._open_writer()
        with self._naming_the_folder():
            for tag, name in SCALARS.items():
                writer.add_scalar(tag, getattr(record, name), record.epoch)
            writer.flush()

    def add_graph(self, module: torch.nn.Module, example_input: torch.Tensor) -> bool:
        """Write the graph of a network, and return whether it is there.

        A run that goes on in the folder leaves the graph as it is. Training modes, gradients and random numbers are
        what they were afterwards.

        Parameters
        ----------
        module : torch.nn.Module
            Traced by torch in evaluation mode. What cannot be traced is a warning in the log of messages, with the
            reason, and no error.
        example_input : torch.Tensor
            On the module's device; two images are enough, for what is written does not depend on their number.
        """
        writer = self._open_writer()
        if self._continues:
            return True
        try:
            with _traced_quietly(module, example_input.device):
                writer.add_graph(module, example_input)
        except Exception as error:  # whatever the network's own code says about being traced
            reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
            _logger.warning("no graph of the network for TensorBoard: it cannot be traced (%s)", reason)
            return False
        with self._naming_the_folder():
            writer.flush()
        return True

    def _open_writer(self) -> SummaryWriter:
        if self._writer is None:
            raise UsageError(f"the TensorBoard log {self.folder} is not open. Use it in a with statement.")
        return self._writer

    @contextmanager
    def _naming_the_folder(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(
                f"the TensorBoard log {self.folder} cannot be written: {error.strerror or error}. Check the folder and "
                "the space left."
            ) from error


def _wait_for_a_later_name(earlier: list[str]) -> None:
    """Wait, for a second at the most, until the file of this run is named later than those that are there.

    TensorBoard reads a folder's files in the order of their names, which tell only seconds in the right order.
    """
    seconds = [int(name.split(".")[3]) for name in earlier if name.split(".")[3].isdigit()]
    wait = max(seconds, default=0) + 1 - time.time()
    if 0 < wait <= 1:  # more would be a clock that was set back
        time.sleep(wait + 0.01)


@contextmanager
def _traced_quietly(module: torch.nn.Module, device: torch.device) -> Iterator[None]:
    """Let torch trace a network inside the block without printing, warning or leaving it in another state."""
    import torch

    # torch puts the whole network back into the mode of its outermost module, but a frozen part keeps its own.
    modes = {part: part.training for part in module.modules()}
    random_devices = [device] if device.type == "cuda" else []
    with (
        warnings.catch_warnings(),
        redirect_stdout(io.StringIO()),
        torch.no_grad(),
        torch.random.fork_rng(random_devices),
    ):
        warnings.filterwarnings("ignore", message=r".*torch\.jit\.\w+` is deprecated")  # SummaryWriter calls it
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # shapes become constants, as a picture may have them
        try:
            yield
        finally:
            for part, is_training in modes.items():
                part.training = is_training
