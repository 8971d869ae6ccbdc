"""The folder of a fine-tuning: what lies where in it, and what an interrupted run left there."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featx.errors import StoreError, UsageError, WouldOverwriteError
from featx.workflows.one_step_files import draft_of

_FORMAT = "featx-finetune"
_VERSION = 1


@dataclass(frozen=True)
class TuningFolder:
    """Where the files of a fine-tuning lie.

    Parameters
    ----------
    path : Path
        The folder.
    """

    path: Path

    @property
    def frozen(self) -> Path:
        """Features of the images by the network as it was."""
        return self.path / "frozen.h5"

    @property
    def weights(self) -> Path:
        """The tuned network, without a classifier."""
        return self.path / "tuned.safetensors"

    @property
    def tuned(self) -> Path:
        """Features of the images by the tuned network."""
        return self.path / "tuned.h5"

    @property
    def classifier(self) -> Path:
        """What ``featx predict`` takes."""
        return self.path / "classifier.featx"

    @property
    def curves(self) -> Path:
        """Loss and accuracy by epoch, drawn."""
        return self.path / "curves.png"

    @property
    def history(self) -> Path:
        """Loss and accuracy by epoch, as a table."""
        return self.path / "history.csv"

    @property
    def result(self) -> Path:
        """All that was found, as JSON."""
        return self.path / "result.json"

    @property
    def tensorboard(self) -> Path:
        """Folder of TensorBoard's event files."""
        return self.path / "tensorboard"

    @property
    def _run(self) -> Path:
        return self.path / "run.json"

    @property
    def _state(self) -> Path:
        return self.path / "state.pt"

    def begin(self, described: dict[str, Any], *, overwrite: bool) -> None:
        """Note what this run is; an interrupted one of the same kind is kept, another one refused or removed.

        One that came to nothing, such as a training with a name that is not there, is in nobody's way.

        Parameters
        ----------
        described : dict
            JSON-able: all that the result depends on.
        overwrite : bool
            Begin anew where the folder holds another run.

        Raises
        ------
        WouldOverwriteError
            The folder holds another run, or a state without a run.
        """
        wanted = {"format": _FORMAT, "version": _VERSION, **json.loads(json.dumps(described))}
        found = self._described()
        if found is not None and found != wanted:
            if not overwrite and self._holds_work:
                raise WouldOverwriteError(
                    f"{self.path} holds a fine-tuning with other {_listed(_differing(found, wanted))};"
                    " choose another --out, or give --overwrite to begin anew"
                )
            self._remove()
        if overwrite and self._is_damaged:
            self._remove()
        self.path.mkdir(parents=True, exist_ok=True)
        with draft_of(self._run, overwrite=True) as draft:
            draft.write_text(json.dumps(wanted, indent=1), encoding="utf-8")

    def check(self, *, overwrite: bool) -> None:
        """Raise an error, before any work, where the folder cannot become one of a fine-tuning.

        Raises
        ------
        UsageError
            It is a file.
        WouldOverwriteError
            It holds other things.
        """
        ours = {self._run.name, self._state.name, self.frozen.name}
        check_folder(self.path, ours, allowed=overwrite or self._run.exists())

    def load_state(self) -> dict[str, Any] | None:
        """Return what `save_state` wrote last; None where there is nothing.

        Raises
        ------
        StoreError
            The file is damaged.
        """
        import torch

        if not self._state.exists():
            return None
        try:
            return torch.load(io.BytesIO(self._state.read_bytes()), map_location="cpu", weights_only=True)
        except Exception as error:  # torch, pickle and zip each have their own
            raise StoreError(
                f"{self._state} is damaged ({type(error).__name__}), so this fine-tuning cannot go on; give --overwrite"
                " to begin anew"
            ) from error

    def save_state(self, state: dict[str, Any]) -> None:
        """Write what a killed run goes on from, in one step."""
        import torch

        written = io.BytesIO()  # torch has errors of its own for a full disk
        torch.save(state, written)
        with draft_of(self._state, overwrite=True) as draft:
            draft.write_bytes(written.getbuffer())

    @property
    def _is_damaged(self) -> bool:
        try:
            self.load_state()
        except StoreError:
            return True
        return False

    @property
    def _holds_work(self) -> bool:
        """Whether anything is there that took long to make."""
        return self._state.exists() or self.result.exists()

    def _described(self) -> dict[str, Any] | None:
        try:
            found = json.loads(self._run.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _remove(self) -> None:
        """Remove what belongs to a run; frozen features stay, for they say by themselves what they are."""
        for path in (self._state, self._run, self.weights, self.tuned, self.classifier, self.curves, self.history):
            path.unlink(missing_ok=True)
        self.result.unlink(missing_ok=True)
        shutil.rmtree(self.tensorboard, ignore_errors=True)


def check_folder(path: Path, ours: Collection[str], *, allowed: bool) -> None:
    """Raise an error where results would go among other things.

    Parameters
    ----------
    path : Path
        The folder; it need not exist.
    ours : collection of str
        Names of results, which may be in it.
    allowed : bool
        Other names may be, too.

    Raises
    ------
    UsageError
        It is a file.
    WouldOverwriteError
        It holds other things.
    """
    if path.exists() and not path.is_dir():
        raise UsageError(f"--out {path} is a file; give the name of a folder, which is made")
    if allowed or not path.is_dir():
        return
    # What a killed run leaves is hidden, or begins with the name of a result: `frozen.h5.parts`, `features.h5.tmp-…`.
    kept = (".", *(f"{name}." for name in ours))
    others = sorted(item.name for item in path.iterdir() if item.name not in ours and not item.name.startswith(kept))
    if others:
        raise WouldOverwriteError(
            f"--out {path} is a folder with other things in it ({others[0]}); give a new folder, or --overwrite"
        )


def _differing(found: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """Return the names of values that differ, those of settings by their own names."""
    names = []
    for name in sorted(found.keys() | wanted.keys()):
        one, other = found.get(name), wanted.get(name)
        if isinstance(one, dict) and isinstance(other, dict):
            names += [f"{inner} ({one.get(inner)})" for inner in _differing_keys(one, other)]
        elif one != other:
            names.append(name)
    return names or ["settings"]


def _differing_keys(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def _listed(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
