"""Opening a frozen network by name."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import timm
import torch
from timm.data import resolve_model_data_config
from torch import nn

from featx.backbones import weights as weights_of
from featx.backbones.layers import LayerInfo, observe_layers
from featx.backbones.names import DEFAULT_MODEL
from featx.backbones.selection import Selection, select_taps
from featx.backbones.transform import TransformSpec
from featx.backbones.weights import WeightsInfo
from featx.errors import BackboneError

if TYPE_CHECKING:
    from collections.abc import Sequence

TORCHVISION = "torchvision:"


@dataclass(frozen=True)
class Backbone:
    """A frozen network with all that is needed to use it.

    Parameters
    ----------
    name : str
        A name that opens it again (timm's, without a default tag, ``hf-hub:ID``, ``local-dir:FOLDER``,
        ``torchvision:NAME``), or the class of a module of the user's own.
    module : nn.Module
        In evaluation mode, without gradients, on the CPU.
    transform : TransformSpec
        What it expects of its pictures.
    weights : WeightsInfo
        Where its weights came from.
    is_named : bool
        Whether `name` says which code it is; not so for a user's own module.
    """

    name: str
    module: nn.Module
    transform: TransformSpec
    weights: WeightsInfo
    is_named: bool = True

    @cached_property
    def layers(self) -> dict[str, LayerInfo]:
        """Layer name to `LayerInfo`, in execution order; observed once, in two forward passes."""
        return {layer.name: layer for layer in observe_layers(self.module, self.transform.size)}

    def select(self, layers: str | Sequence[str], pool: str = "avg") -> Selection:
        """Return the taps of the layers named; see `select_taps`."""
        return select_taps(self.module, self.layers, layers, pool)


def open_backbone(
    model: str | nn.Module = DEFAULT_MODEL,
    *,
    weights: str | None = None,
    transform: TransformSpec | None = None,
    download: bool = True,
    size: int | None = None,
) -> Backbone:
    """Return a frozen network.

    Parameters
    ----------
    model : str or nn.Module
        A timm name, ``hf-hub:ID``, ``local-dir:FOLDER``, ``torchvision:NAME``, or a module of your own, which is
        set to evaluation mode and frozen.
    weights : str, optional
        A file of weights, or ``random:SEED``. Without it they are looked for in bundled packages, then the
        local cache, then the hub.
    transform : TransformSpec, optional
        For a module of your own.
    download : bool
        Whether weights that are not on this machine may be requested from the hub.
    size : int, optional
        Height and width in pixels of the pictures that it is to take, in place of its own.

    Raises
    ------
    BackboneError
        The name is unknown, the weights do not fit, or the network cannot take pictures of that size.
    WeightsNotFoundError
        There are no weights in any of these places; the message lists what was tried.
    """
    if isinstance(model, nn.Module):
        return _resized(_open_module(model, transform), size)
    if weights is not None and weights.startswith("random:"):
        _seed(weights)
    if model.startswith(TORCHVISION):
        return _resized(_open_torchvision(model.removeprefix(TORCHVISION), weights, download), size)
    return _resized(_open_timm(model, weights, download, size), size)


def _resized(backbone: Backbone, size: int | None) -> Backbone:
    """Return the network for pictures of another size, after it has run on one."""
    if size is None or backbone.transform.size == (size, size):
        return backbone
    if size < 1:
        raise BackboneError(f"size {size} is not at least 1 pixel; leave it out for the network's own")
    resized = replace(backbone, transform=backbone.transform.at_size(size))
    try:
        resized.layers  # noqa: B018 - observed once, and kept
    except Exception as error:  # every architecture has its own way to refuse
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        own = " x ".join(map(str, backbone.transform.size))
        raise BackboneError(
            f"{backbone.name} cannot take pictures of {size} x {size} ({reason}); its own size is {own}: leave the size"
            " out, or try a multiple of 32"
        ) from error
    return resized


def _open_module(module: nn.Module, transform: TransformSpec | None) -> Backbone:
    if transform is None:
        raise BackboneError("a module of your own needs its TransformSpec; give transform=TransformSpec(...)")
    digest = weights_of.weights_digest(module)
    return Backbone(type(module).__name__, _freeze(module), transform, WeightsInfo("module", digest), is_named=False)


def _freeze(module: nn.Module) -> nn.Module:
    return module.eval().requires_grad_(False)


def _seed(weights: str) -> int:
    seed = weights.removeprefix("random:")
    if not seed.isdigit():
        raise BackboneError(f"weights {weights!r}: SEED of random:SEED is a whole number, such as random:0")
    return int(seed)


def _create(make: Any, weights: str | None) -> nn.Module:
    """Return a new network; with ``random:SEED`` its weights are those of the seed, and no global seed changes."""
    if weights is None or not weights.startswith("random:"):
        return make()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_seed(weights))
        return make()


def _open_timm(name: str, weights: str | None, download: bool, size: int | None = None) -> Backbone:
    folder = _hub_folder(name, weights is None, download) if name.startswith(("hf-hub:", "hf_hub:")) else None
    opened = f"local-dir:{folder}" if folder else name
    try:
        module = _create(lambda: timm.create_model(opened), weights)
    except (RuntimeError, ValueError, FileNotFoundError) as error:
        raise _unknown_model(name, error) from error
    config: dict[str, Any] = module.pretrained_cfg  # type: ignore[assignment]
    if size is not None and config.get("fixed_input_size") and tuple(config["input_size"][1:]) != (size, size):
        module = _create(lambda: timm.create_model(opened, img_size=size), weights)  # its position embeddings differ
    transform = TransformSpec.from_timm(resolve_model_data_config(module))
    full = _full_name(name, config, folder or _local_folder(name))
    if weights is not None and weights.startswith("random:"):
        info = WeightsInfo(weights, weights_of.weights_digest(module))
        return Backbone(full, _freeze(module), transform, info)
    label, path = _find_timm(config, weights, folder or _local_folder(name), download)
    info = _fill_timm(module, label, path, config)
    return Backbone(full, _freeze(module), transform, info)


def _full_name(name: str, config: dict[str, Any], folder: Path | None) -> str:
    """Return a name that opens the same network again: without a tag that is the default one anyway."""
    if name.startswith(("hf-hub:", "hf_hub:")):
        return f"hf-hub:{name.partition(':')[2]}"
    if folder is not None:
        return f"local-dir:{folder.resolve()}"
    architecture, tag = config["architecture"], config.get("tag")
    default = timm.get_pretrained_cfg(architecture)
    return architecture if not tag or (default and default.tag == tag) else f"{architecture}.{tag}"


def _find_timm(config: dict[str, Any], weights: str | None, folder: Path | None, download: bool) -> tuple[str, Path]:
    architecture = config["architecture"]
    if weights is not None:
        return _given_file(weights)
    if folder is not None:
        names = ("model.safetensors", "pytorch_model.bin", "pytorch_model.pth")
        found = lambda: next((folder / name for name in names if (folder / name).is_file()), None)  # noqa: E731
        return weights_of.first_found([(f"folder:{folder}", found)], architecture)
    repository, url = config.get("hf_hub_id"), config.get("url")
    places: list[tuple[str, Any]] = []
    if architecture in weights_of.BUNDLED:
        package = weights_of.BUNDLED[architecture][0].replace("_", "-")
        places.append((f"bundled:{package}", lambda: weights_of.bundled_weights(architecture)))
    else:
        places.append(("bundled packages", lambda: None))
    if repository:
        places.append((f"cache:{repository}", lambda: weights_of.cached_hub_file(repository)))
    if url:
        places.append((f"cache:{url.rpartition('/')[2]}", lambda: weights_of.cached_url_file(url)))
    if repository:
        places.append((f"hub:{repository}", lambda: weights_of.download_hub_file(repository)))
    elif url:
        places.append((f"download:{url}", lambda: _download(url)))
    return weights_of.first_found(places, architecture, download=download)


def _given_file(weights: str) -> tuple[str, Path]:
    """Return label and path of a file that the user named; absolute, so that it is found from elsewhere later."""
    path = Path(weights).absolute()
    return f"file:{path}", path


def _download(url: str) -> Path:
    from timm.models._hub import download_cached_file

    return Path(download_cached_file(url, progress=False))


def _fill_timm(module: nn.Module, label: str, path: Path, config: dict[str, Any]) -> WeightsInfo:
    """Load a file of weights into a timm network, through the architecture's own translation of checkpoints."""
    import sys

    state = weights_of.read_state_dict(path)
    if label.startswith("bundled:"):
        state = weights_of.rename_in_order(state, module)
    elif _shapes(state) != _shapes(module.state_dict()):
        translate = getattr(sys.modules[type(module).__module__], "checkpoint_filter_fn", None)
        state = dict(translate(state, module)) if translate else state
    classifier = config.get("classifier") or ()
    names = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    without = weights_of.load_strictly(module, state, names, f"weights of {label}")
    absent = names if without else ()
    return WeightsInfo(label, weights_of.weights_digest(module, absent), absent)


def _shapes(state: weights_of.StateDict) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in state.items()}


def _local_folder(name: str) -> Path | None:
    return Path(name.removeprefix("local-dir:")) if name.startswith("local-dir:") else None


def _hub_folder(name: str, with_weights: bool, download: bool) -> Path:
    """Return the local folder of a hub repository, downloading its configuration (and weights) where absent."""
    repository = name.partition(":")[2]
    for names in (("config.json",), ("model.safetensors", "pytorch_model.bin"))[: 1 + with_weights]:
        places: list[tuple[str, Any]] = [
            (f"cache:{repository}", partial(weights_of.cached_hub_file, repository, names)),
            (f"hub:{repository}", partial(weights_of.download_hub_file, repository, names)),
        ]
        _, path = weights_of.first_found(places, name, download=download)
    return path.parent


def _unknown_model(name: str, error: Exception) -> BackboneError:
    base = name.partition(".")[0]
    if timm.is_model(base) or ":" in name:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        return BackboneError(f"model {name!r} cannot be opened: {reason}")
    close = difflib.get_close_matches(base, timm.list_models(), n=4, cutoff=0.6)
    hint = f"close: {', '.join(close)}" if close else "see: featx models PATTERN"
    return BackboneError(f"timm has no model {name!r}; {hint}; torchvision's are written torchvision:NAME")


def _open_torchvision(name: str, weights: str | None, download: bool) -> Backbone:
    import torchvision

    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        close = difflib.get_close_matches(name, known, n=4, cutoff=0.6)
        raise BackboneError(f"torchvision has no model {name!r}; close: {', '.join(close) or 'none'}")
    default = torchvision.models.get_model_weights(name).DEFAULT
    transform = _torchvision_transform(default.transforms())
    options = _torchvision_options(name, transform.size[0])
    module = _create(lambda: torchvision.models.get_model(name, weights=None, **options), weights)
    full = f"{TORCHVISION}{name}"
    if weights is not None and weights.startswith("random:"):
        return Backbone(full, _freeze(module), transform, WeightsInfo(weights, weights_of.weights_digest(module)))
    if weights is not None:
        label, path = _given_file(weights)
    else:
        places = [
            (f"cache:{default.url.rpartition('/')[2]}", lambda: weights_of.cached_url_file(default.url)),
            (f"download:{default.url}", lambda: _download(default.url)),
        ]
        label, path = weights_of.first_found(places, full, download=download)
    classifier = _last_weighted(module)
    without = weights_of.load_strictly(module, weights_of.read_state_dict(path), (classifier,), f"weights of {label}")
    absent = (classifier,) if without else ()
    info = WeightsInfo(label, weights_of.weights_digest(module, absent), absent)
    return Backbone(full, _freeze(module), transform, info)


def _torchvision_options(name: str, size: int) -> dict[str, Any]:
    """Return the arguments that torchvision sets when it builds a network for its pretrained weights."""
    if name in ("googlenet", "inception_v3"):
        return {"init_weights": False, "transform_input": True}
    return {"image_size": size} if name.startswith("vit_") else {}


def _last_weighted(module: nn.Module) -> str:
    """Return the name of the last linear or convolution layer in the order of definition."""
    return [name for name, child in module.named_modules() if isinstance(child, (nn.Linear, nn.Conv2d))][-1]


def _torchvision_transform(preset: Any) -> TransformSpec:
    height, width = (preset.crop_size * 2)[:2]
    resize_height, resize_width = (preset.resize_size * 2)[:2]
    return TransformSpec(
        size=(height, width),
        resize_size=(resize_height, resize_width),
        interpolation=preset.interpolation.value,
        mean=tuple(preset.mean),
        std=tuple(preset.std),
    )
