"""Weights that others trained, read as tensors in the order of their network's layers: files, and networks of timm."""

from __future__ import annotations

import difflib
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
import safetensors
import safetensors.torch
import timm
import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from supernet.catalog import WEIGHT_FILES

_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")  # averages first, as timm takes them


@dataclass(frozen=True, eq=False)
class Weights:
    """A pretrained network's tensors.

    Args:
        source: what they are called in messages.
        tensors: by name, in the order of the network's layers, unless `ordered` is false.
        eps: of its batch norms, where that is known.
    """

    source: str
    tensors: Mapping[str, Tensor]
    ordered: bool = True
    eps: float | None = None


def read_weights(source: str | Path) -> Weights:
    """The tensors of a pretrained network, on the CPU.

    Args:
        source: a file of a state dict (.safetensors, .pt, .pth, .bin or .th; pickled ones are read without running
            their code), the name of a network of timm whose weights are in the local cache, or `NAME:FILE`, a file of
            the weights of timm's network NAME: a .safetensors file does not keep the order of layers, timm knows it.

    Raises:
        ValueError: an unknown name, a file of another form, or no weights in the cache; nothing is downloaded.
        OSError: the file cannot be read.
    """
    if Path(source).suffix in WEIGHT_FILES and (":" not in str(source) or Path(source).exists()):
        file = Path(source)
        return Weights(str(file), _read(file), ordered=file.suffix != ".safetensors")
    name, _, given = str(source).removeprefix("timm/").partition(":")
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"{name!r} is neither a network of timm nor a file of weights ({', '.join(WEIGHT_FILES)}){hint}"
        )
    return _of_timm(name, Path(given) if given else _cached(name))


def _of_timm(name: str, file: Path) -> Weights:
    """The tensors of `file` in the order of timm's network `name`."""
    network, tensors = timm.create_model(name, pretrained=False), _read(file)
    missing = next((key for key in network.state_dict() if key not in tensors and not key.endswith("tracked")), None)
    if missing is not None:
        raise ValueError(f"{file} has no tensor {missing!r}, which timm's {name!r} has: give the file of that network")
    eps = {module.eps for module in network.modules() if isinstance(module, _BatchNorm)}
    ordered = {key: tensors[key] for key in network.state_dict() if key in tensors}
    return Weights(f"{name} ({file})", ordered, eps=eps.pop() if len(eps) == 1 else None)


def _cached(name: str) -> Path:
    """The file of the weights of timm's network `name` in the caches of the hub and of torch."""
    settings = timm.get_pretrained_cfg(name)
    if settings is not None and settings.hf_hub_id:
        for file in ("model.safetensors", "pytorch_model.bin"):
            found = huggingface_hub.try_to_load_from_cache(settings.hf_hub_id, file)
            if isinstance(found, str):
                return Path(found)
    if settings is not None and settings.url:
        file = Path(torch.hub.get_dir()) / "checkpoints" / settings.url.rpartition("/")[2]
        if file.exists():
            return file
    raise ValueError(
        f"the weights of timm's {name!r} are not on this machine: fetch them once with "
        f"timm.create_model({name!r}, pretrained=True), or give {name}:FILE"
    )


def _read(file: Path) -> dict[str, Tensor]:
    """The tensors of one file by name.

    Raises:
        ValueError: the file holds no state dict.
    """
    if not file.is_file():
        raise FileNotFoundError(f"there is no file of weights {file}")
    try:
        if file.suffix == ".safetensors":
            return safetensors.torch.load_file(file)
        content = torch.load(file, map_location="cpu", weights_only=True)
    except (safetensors.SafetensorError, pickle.UnpicklingError, EOFError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{file} holds no weights that can be read: {reason}") from error
    tensors = _unwrapped(content)
    if not tensors:
        raise ValueError(f"{file} holds no state dict: save it with torch.save(network.state_dict(), FILE)")
    return tensors


def _unwrapped(content: Any) -> dict[str, Tensor]:
    """The tensors of a state dict that may lie in a training's checkpoint or come from a wrapped network."""
    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            return _unwrapped(content[key])
    if not isinstance(content, Mapping):
        return {}
    return {str(k).removeprefix("module."): v for k, v in content.items() if isinstance(v, Tensor)}
