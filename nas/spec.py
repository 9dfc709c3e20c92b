"""From what the user names to an elastic network: a catalog space, `module:Class`, a class or an instance."""

from __future__ import annotations

import copy
import hashlib
import importlib
import inspect
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from nas.config import Training, first_line
from nas.names import catalog_entry, checked_preset, suggestion
from quant_search.policy import densities
from search_spaces.densities import add_densities_
from search_spaces.network import check_network, find_space
from search_spaces.space import SearchSpace

if TYPE_CHECKING:
    from supernet.data import Dataset

SpaceLike = str | type[nn.Module] | nn.Module
_ARGUMENTS = ("in_channels", "image_size", "num_classes")


def space_name(space: SpaceLike) -> str:
    """A short name for files and tables."""
    if isinstance(space, str):
        return space.rpartition(":")[2]
    return (space if isinstance(space, type) else type(space)).__name__


def build_network(
    space: SpaceLike,
    image_shape: tuple[int, int, int],
    num_classes: int,
    preset: str | None = None,
    seed: int = 0,
    sparsity: Sequence[str] = (),
) -> tuple[nn.Module, SearchSpace]:
    """The elastic network that `space` names, for images (c, h, w), freshly initialised from `seed`, and its space.

    A class is called with those of `in_channels`, `image_size` and `num_classes` that its `__init__` takes.

    Args:
        sparsity: patterns; of those of channels, each block with inner channels has the density as a choice.

    Raises:
        ValueError: an unknown name, a module that cannot be imported, a class that cannot be built, no choices, no
            channels that a block could do without, or a forward that does not run at some option.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # not `torch.manual_seed`, which also seeds every accelerator
        network = _build(space, image_shape, num_classes, preset)
        if kept := densities(sparsity):
            add_densities_(network, kept)
        found = find_space(network, space_name(space))
        # That the catalog's own forwards run at every option is a law; of images, shapes alone matter to them.
        ready_made = isinstance(space, str) and ":" not in space
        checked = copy.deepcopy(network).to("meta") if ready_made else network
        check_network(checked, found, image_shape, num_classes, only_ends=ready_made)
    return network, found


def network_for(
    settings: Training, space: SpaceLike, dataset: Dataset, seed: int | None = None
) -> tuple[nn.Module, SearchSpace]:
    """As `build_network`, what `settings` ask for with `space` for the images of `dataset`."""
    return build_network(
        space,
        dataset.image_shape,
        dataset.num_classes,
        settings.preset,
        settings.seed if seed is None else seed,
        settings.sparsity,
    )


def space_fingerprint(space: SpaceLike, network: nn.Module, found: SearchSpace) -> str:
    """Digest of what a space is beyond its name: its choices, its weights' shapes and, of one's own, its code."""
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    digest = hashlib.blake2b(repr((found.choices, shapes)).encode(), digest_size=8)
    if not isinstance(space, str) or ":" in space:
        with suppress(OSError, TypeError):  # a class that was typed in has no source
            digest.update(inspect.getsource(type(network)).encode())
    return digest.hexdigest()


def check_importable(space: str) -> None:
    """Imports a space that is named `module:Class`, before any data are read for it.

    Raises:
        ValueError: as `build_network`.
    """
    if ":" in space:
        _import_class(space)


def _build(space: SpaceLike, shape: tuple[int, int, int], num_classes: int, preset: str | None) -> nn.Module:
    channels, height, width = shape
    if height != width:
        raise ValueError(f"images must be square, got {height} x {width} pixels")
    if isinstance(space, str) and ":" not in space:
        return catalog_entry(space).build(height, channels, num_classes, checked_preset(space, preset))
    if preset is not None:
        raise ValueError(f"presets belong to the ready-made spaces, got preset {preset!r} for {space_name(space)}")
    if isinstance(space, nn.Module):
        return copy.deepcopy(space)  # the caller's own is not trained
    network_class = _import_class(space) if isinstance(space, str) else space
    given = dict(zip(_ARGUMENTS, (channels, height, num_classes), strict=True))
    arguments = {name: given[name] for name in accepted_arguments(network_class)}
    try:
        return network_class(**arguments)
    except Exception as error:  # a user's class may fail in any way while it is built
        call = f"{network_class.__name__}({', '.join(f'{name}={value}' for name, value in arguments.items())})"
        raise ValueError(f"{call} failed: {type(error).__name__}: {first_line(error)}") from error


def accepted_arguments(network_class: type[nn.Module]) -> list[str]:
    """Which of `in_channels`, `image_size`, `num_classes` the class's `__init__` takes.

    Raises:
        ValueError: it needs an argument of another name.
    """
    parameters = inspect.signature(network_class).parameters
    for name, parameter in parameters.items():
        optional = parameter.default is not inspect.Parameter.empty or parameter.kind in (
            inspect.Parameter.VAR_POSITIONAL,
            inspect.Parameter.VAR_KEYWORD,
        )
        if name not in _ARGUMENTS and not optional:
            raise ValueError(
                f"{network_class.__name__}() needs an argument {name!r}; a network is built with "
                f"{', '.join(_ARGUMENTS)}, as far as its __init__ takes them: give {name!r} a default"
            )
    return [name for name in _ARGUMENTS if name in parameters]


def _import_class(path: str) -> type[nn.Module]:
    """The class at `module:Class`, the module found from the current folder as Python itself would.

    Raises:
        ValueError: no such module or class, or it is not an `nn.Module`.
    """
    module_name, _, class_name = path.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # a user's module may fail in any way while it is imported
        raise ValueError(
            f"cannot import {module_name!r} for space {path!r}: {type(error).__name__}: {first_line(error)}"
        ) from error
    found = getattr(module, class_name, None)
    if found is None:
        raise ValueError(f"module {module_name!r} has no {class_name!r}{suggestion(class_name, vars(module))}")
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise ValueError(f"{path!r} is not a class derived from torch.nn.Module")
    return found
