"""A supernet that starts from a pretrained network: its weights are put where the space contains it.

So once-for-all (arXiv:1908.09791, section 3.3) starts from a trained largest network, sorts its channels by importance
and shrinks it progressively.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import safetensors
import torch
from torch import Tensor, nn

from search_spaces.elastic import BatchNorm2d, Conv2d, Elastic
from search_spaces.network import extract, find_space
from search_spaces.space import Architecture
from search_spaces.value import Option
from supernet.checkpoint import load_averaged_
from supernet.importance import ChannelOrder, sort_channels_
from supernet.matching import Layer, domains_of, layers_of, match, own_tensors
from supernet.published import Weights, read_weights

_EPS = 1e-5  # torch's own


@dataclass(frozen=True, eq=False)
class Pretrained:
    """What a supernet took over.

    Args:
        arch: the architecture that computes what the pretrained network does.
        undetermined: choices of which no shape tells the option, such as resolution and activation: `arch` has their
            last one, give `options` where another is right.
        left: the path of the last layer if it has other outputs, and so kept its initialisation.
        order: in which the channels were sorted afterwards; empty where they were not.
        whole: whether it was a supernet, all of which was taken.
    """

    arch: Architecture
    undetermined: tuple[str, ...] = ()
    left: str | None = None
    order: ChannelOrder = field(default_factory=dict)
    whole: bool = False


@torch.no_grad()
def load_pretrained_(
    network: nn.Module,
    source: str | Path | Mapping[str, Tensor],
    *,
    options: Mapping[str, Option] | None = None,
    sort: bool = True,
    eps: float | None = None,
) -> Pretrained:
    """Put the weights of a pretrained network into the supernet `network`, in place, where its space contains it.

    The architecture is found by the shapes of the pretrained layers in order; names do not count, but no choice is told
    that shapes do not tell.  Extracted, it then is the pretrained network: every weight lies in the slice that it uses.
    Where an elastic kernel is larger than the pretrained one, its rim is zero, so that the larger kernel computes the
    same; kernel transforms become identities.  What else the space has more (channels, blocks, operations) keeps its
    initialisation, and so does a last layer of other outputs, as for other classes.
    A checkpoint of a supernet is taken over whole, and is not sorted: its smaller subnets are trained.

    Args:
        source: a file or a name as of `read_weights`, a supernet's checkpoint, or a state dict.
        options: the options of choices that are known, by name.
        sort: whether channels are sorted by importance afterwards, in all widths that the architecture has at their
            largest, so that smaller ones keep the best; the architecture computes the same then.
        eps: the epsilon of the pretrained batch norms; by default that of timm's network, or torch's 1e-5.  What it
            differs from the space's is added to the variances.

    Raises:
        ValueError: no architecture of the space has the shapes of the weights, named by the first layer that does not
            fit, an unknown option, or as `read_weights`.
        OSError: the file cannot be read.
    """
    if not isinstance(source, Mapping) and _is_checkpoint(Path(source)):
        return _whole_(network, Path(source))
    weights = Weights("the state dict", source) if isinstance(source, Mapping) else read_weights(source)
    domains = domains_of(find_space(network), options or {})
    layers = layers_of(_in_order(network, weights.tensors))
    try:
        found = match(network, layers, domains)
    except ValueError as error:
        raise ValueError(_refusal(weights, str(error))) from error
    epsilon = eps or weights.eps or _EPS
    for path, layer in found.layers.items():
        _put_(network.get_submodule(path), found.arch, layer, epsilon)
    order = sort_channels_(network, arch=found.arch) if sort else {}
    return Pretrained(found.arch, found.undetermined, found.left, order)


def _refusal(weights: Weights, reason: str) -> str:
    hint = "" if weights.ordered else "; a .safetensors file does not keep the order of layers: give timm's NAME:FILE"
    return f"{weights.source} is no network of this space: {reason}{hint}"


def _is_checkpoint(file: Path) -> bool:
    """Whether a file is the checkpoint of a supernet's training."""
    if file.suffix != ".safetensors" or not file.is_file():
        return False
    try:
        with safetensors.safe_open(file, framework="pt") as opened:
            return "meta" in (opened.metadata() or {})
    except safetensors.SafetensorError:
        return False  # what is wrong with it is said where it is read


def _whole_(network: nn.Module, file: Path) -> Pretrained:
    """Take over the averaged weights of a supernet of the same space."""
    load_averaged_(network, file)
    return Pretrained(find_space(network).largest(), whole=True)


def _in_order(network: nn.Module, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """`tensors` in the order of the network's own layers, where they have their names: a subnet extracted from it."""
    known = list(extract(network, find_space(network).largest()).state_dict())
    if not set(tensors) <= set(known):
        return tensors
    return {name: tensors[name] for name in known if name in tensors}


# -- writing one layer -------------------------------------------------------------------------------


def _put_(module: nn.Module, arch: Architecture, layer: Layer, eps: float) -> None:
    """Write the tensors of `layer` where `arch` finds them in `module`: what `extract` does, backwards.

    Raises:
        ValueError: the module's plain counterpart does not take its weights as a slice.
    """
    own, values = own_tensors(module), _values(module, arch, layer, eps)
    flat = torch.cat([tensor.flatten() for tensor in own.values()])
    places = _places(module, arch)
    if all(place.min() >= 0 and place.max() < len(flat) for place in places):
        if isinstance(module, Conv2d):
            _clear_rims_(flat, module.weight, places[0])
        for place, value in zip(places, values, strict=True):
            flat[place.flatten()] = value.flatten().to(flat)
        for tensor, part in zip(own.values(), flat.split([t.numel() for t in own.values()]), strict=True):
            tensor.copy_(part.view(tensor.shape))
    if isinstance(module, Conv2d):
        module.reset_kernel_transforms_()
    after = own_tensors(extract(module, arch) if isinstance(module, Elastic) else module).values()
    if not all(torch.equal(a, v.to(a)) for a, v in zip(after, values, strict=True)):
        kind = type(module).__name__
        raise ValueError(f"{layer.name!r} cannot be put into the supernet: {kind} takes its weights not as slices")


def _values(module: nn.Module, arch: Architecture, layer: Layer, eps: float) -> Sequence[Tensor]:
    """The tensors of `layer`, variances such that they mean the same with the epsilon of `module`."""
    if not isinstance(module, (BatchNorm2d, nn.BatchNorm2d)) or module.eps == eps:
        return layer.tensors
    plain = extract(module, arch) if isinstance(module, Elastic) else module
    names = own_tensors(plain)
    return [v + (eps - module.eps) if n == "running_var" else v for n, v in zip(names, layer.tensors, strict=True)]


def _places(module: nn.Module, arch: Architecture) -> list[Tensor]:
    """Where each tensor of the plain counterpart lies in the tensors of `module`, one behind the other.

    Every element of a copy is given its own number; the numbers in the plain counterpart tell.
    """
    twin, start = copy.deepcopy(module).double(), 0
    for tensor in own_tensors(twin).values():
        tensor.copy_(torch.arange(start, start + tensor.numel(), device=tensor.device).view(tensor.shape))
        start += tensor.numel()
    if isinstance(twin, Conv2d):
        twin.reset_kernel_transforms_()
    plain = extract(twin, arch) if isinstance(twin, Elastic) else twin
    return [tensor.long() for tensor in own_tensors(plain).values()]


def _clear_rims_(flat: Tensor, weight: Tensor, place: Tensor) -> None:
    """Zero all of the kernels in `flat` of which `place` is the centre; `weight` (out, in, k, k) is the first in it."""
    taps = weight.shape[-1] ** 2
    flat[: weight.numel()].view(-1, taps)[torch.unique(place // taps)] = 0
