"""Channels sorted by importance, so that narrower subnets keep the best ones.

Source: once-for-all (arXiv:1908.09791), section 3.3, elastic width: the L1 norm of the weights that read a channel.

Which channels belong together is told by the *value* that the layers were given: those that write and read the same
`Choice` or expression over choices share one permutation, as a residual stream must.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from search_spaces.elastic import BatchNorm2d, Conv2d, Elastic, Linear, Resize
from search_spaces.network import find_space, run
from search_spaces.roles import roles
from search_spaces.space import Architecture
from search_spaces.value import Choice, Expression, Option, Value, choices_of, possible_ints, resolve

ChannelOrder = Mapping[str, tuple[tuple[int, Tensor], ...]]
"""Parameter or buffer name to pairs (axis, permutation of it)."""

_Places = dict[Value, list[tuple[str, int]]]  # value to tensors' names and the axes that it is the size of

_READS = 1  # the axis of a weight that counts what it reads
_TOLERANCE = 1e-6  # of the largest output, in float64; in float32, rounding alone may change it by 1 %
_SIDE = 32  # of the images tried where none are given


def channel_importance(network: nn.Module) -> Mapping[Value, Tensor]:
    """The importance of each channel of each elastic width (c,), by the value that the layers were given.

    It is the sum of the absolute weights that read the channel, over all convolutions and linear layers which read
    channels of that value; depthwise convolutions, which only pass them on, do not count.  Widths that nothing reads
    are left out.
    """
    tensors = network.state_dict()
    result = {}
    for value, places in _places(network).items():
        reading = [tensors[name] for name, axis in places if axis == _READS]
        if reading:
            result[value] = torch.stack([_norm_by_input(weight) for weight in reading]).sum(0)
    return result


def channel_order(
    network: nn.Module,
    x: Tensor | None = None,
    arch: Architecture | None = None,
    opened: Mapping[str, Sequence[Option]] | None = None,
) -> ChannelOrder:
    """Permutations of channels that put the most important first and leave the function of `arch` unchanged.

    Channels stay on their side of every width that is open already, as in the authors' code, so that the subnets of
    these widths are unchanged too.

    Only elastic widths are sorted, and of these such as `arch` has at their largest.  Whether an order leaves the
    function unchanged is tried on a copy of the network with random weights, at `arch` and at every option of its
    operations: a width for which it does not, such as one whose channels are flattened or concatenated, or whose
    convolutions have groups, is left as it is.  So are all, if the network cannot be run on `x`.

    Args:
        x: a few images (b, c, h, w) to try it on; by default random ones of 32 pixels, or of the native size of the
            network's `Resize` if it does not run on these.
        arch: the largest architecture by default.
        opened: choice name to the options that subnets were trained with; by default, to those of `arch` alone.
    """
    arch = arch or find_space(network).largest()
    orders = _orders(network, arch, opened or {})
    if not orders:
        return {}
    trial = _Trial(network, x, arch)
    return _joined(_passing(orders, lambda chosen: trial.unchanged(_joined(chosen))))


@torch.no_grad()
def permute_(tensors: Mapping[str, Tensor], order: ChannelOrder) -> None:
    """Put the channels of `tensors` into `order`, in place: those of a state dict, or others of the same names.

    Averaged weights and an optimizer's state of the shapes of the weights go along with the weights so.  Tensors that
    share memory are permuted once.

    Raises:
        ValueError: a tensor of another size than the parameter of its name.
    """
    seen = set()
    for name, permutations in order.items():
        tensor = tensors.get(name)
        if tensor is None or (key := (tensor.data_ptr(), tensor.shape)) in seen:
            continue
        seen.add(key)
        for axis, permutation in permutations:
            if tensor.dim() <= axis or tensor.shape[axis] != len(permutation):
                shape = tuple(tensor.shape)
                raise ValueError(
                    f"{name} has {len(permutation)} channels on axis {axis}, got a tensor of shape {shape}"
                )
            tensor.copy_(tensor.index_select(axis, permutation.to(tensor.device)))


def sort_channels_(network: nn.Module, x: Tensor | None = None, arch: Architecture | None = None) -> ChannelOrder:
    """Sort the channels of `network` by importance and give the order, in which averages and optimizer state follow.

    Arguments as of `channel_order`; as before a training, no width is open yet.
    """
    order = channel_order(network, x, arch)
    permute_(network.state_dict(), order)
    return order


# -- which axes belong to which width ----------------------------------------------------------------


def _places(network: nn.Module) -> _Places:
    """The tensors' axes of each elastic width."""
    places: _Places = {}
    for path, layer in network.named_modules(remove_duplicate=False):
        for value, name, axis in _axes(layer):
            if isinstance(value, (Choice, Expression)) and choices_of(value):
                places.setdefault(value, []).append((f"{path}.{name}" if path else name, axis))
    return places


def _axes(layer: nn.Module) -> Iterator[tuple[Value, str, int]]:
    """(value, tensor, axis) of an elastic layer's channels; what groups read is not known, and shows when tried."""
    if isinstance(layer, Conv2d):
        yield from ((layer.out_channels, name, 0) for name in _own(layer, "weight", "bias"))
        if layer.groups == 1:
            yield layer.in_channels, "weight", _READS
    elif isinstance(layer, Linear):
        yield from ((layer.out_features, name, 0) for name in _own(layer, "weight", "bias"))
        yield layer.in_features, "weight", _READS
    elif isinstance(layer, BatchNorm2d):
        yield from ((layer.num_features, name, 0) for name in ("weight", "bias", "running_mean", "running_var"))


def _own(layer: Elastic, *names: str) -> list[str]:
    return [name for name in names if getattr(layer, name) is not None]


def _norm_by_input(weight: Tensor) -> Tensor:
    """Sums of absolute weights (out, in, …) over all axes but the second (in,)."""
    return weight.detach().abs().transpose(0, _READS).flatten(1).sum(1)


def _orders(network: nn.Module, arch: Architecture, opened: Mapping[str, Sequence[Option]]) -> list[ChannelOrder]:
    """The order of each width that `arch` has at its largest, by itself."""
    places, orders = _places(network), []
    for value, importance in channel_importance(network).items():
        if resolve(value, arch.assignment) == max(possible_ints(value, "width")):
            order = _sorted_within(importance, _widths(value, arch, opened))
            orders.append(_joined({name: ((axis, order),)} for name, axis in places[value]))
    return orders


def _widths(value: Value, arch: Architecture, opened: Mapping[str, Sequence[Option]]) -> list[int]:
    """What a width can be with the options `opened`, ascending; choices that these do not name stand as in `arch`."""
    names = [choice.name for choice in choices_of(value)]
    taken = itertools.product(*(opened.get(name, (arch[name],)) for name in names))
    return sorted({cast("int", resolve(value, dict(zip(names, options, strict=True)))) for options in taken})


def _sorted_within(importance: Tensor, borders: Sequence[int]) -> Tensor:
    """The permutation (c,) that sorts channels by descending importance (c,) between borders, and moves none across."""
    order = torch.argsort(importance, descending=True, stable=True)
    group = torch.bucketize(order, torch.tensor(borders, device=order.device), right=True)
    return order[torch.argsort(group, stable=True)]


def _joined(orders: Iterable[ChannelOrder]) -> ChannelOrder:
    joined: dict[str, tuple[tuple[int, Tensor], ...]] = {}
    for order in orders:
        for name, permutations in order.items():
            joined[name] = (*joined.get(name, ()), *permutations)
    return joined


# -- trying an order ---------------------------------------------------------------------------------


class _Trial:
    """A copy of a network in float64 with random weights, and what it answers before its channels change places.

    At their defaults, norms and zeros would hide a wrong order.
    """

    def __init__(self, network: nn.Module, x: Tensor | None, arch: Architecture) -> None:
        self.twin, self.archs = _random_twin(network), _operations(network, arch)
        self.state = {name: tensor.clone() for name, tensor in self.twin.state_dict().items()}
        self.x: Tensor | None = None
        self.before: list[Tensor] | None = None
        for images in _images(network) if x is None else (x,):
            if self.before is None:
                self.x, self.before = images, self.outputs(images)

    def unchanged(self, order: ChannelOrder) -> bool:
        """Whether the answers stay the same in this order; not, where there are none."""
        if self.x is None or self.before is None:
            return False
        self.twin.load_state_dict(self.state)
        permute_(self.twin.state_dict(), order)
        after = self.outputs(self.x)
        return after is not None and all(
            bool((y - b).abs().max() <= _TOLERANCE * b.abs().max()) for y, b in zip(after, self.before, strict=True)
        )

    @torch.no_grad()
    def outputs(self, x: Tensor) -> list[Tensor] | None:
        """Of each architecture; None where the network does not run on `x`, or tells nothing by its outputs."""
        device = next(self.twin.parameters()).device
        try:  # a user's forward may raise anything
            outputs = [run(self.twin, x.double().to(device), arch) for arch in self.archs]
        except Exception:  # noqa: BLE001
            return None
        return outputs if all(isinstance(y, Tensor) and y.isfinite().all() and y.any() for y in outputs) else None


def _passing(orders: Sequence[ChannelOrder], passes: Callable[[Sequence[ChannelOrder]], bool]) -> list[ChannelOrder]:
    """Those of `orders` that pass, found by halving: few tries where few do not."""
    if not orders or passes(orders):
        return list(orders)
    if len(orders) == 1:
        return []
    half = len(orders) // 2
    return [*_passing(orders[:half], passes), *_passing(orders[half:], passes)]


def _images(network: nn.Module) -> Iterator[Tensor]:
    """Two random images, or rows of features, for the first layer of `network`: in each size that it may expect."""
    natives = [layer.native for layer in network.modules() if isinstance(layer, Resize)]
    for layer in network.modules():
        inputs = getattr(layer, "in_channels", getattr(layer, "in_features", None))
        if isinstance(layer, (Conv2d, nn.Conv2d, Linear, nn.Linear)) and isinstance(inputs, int):
            sizes = [()] if isinstance(layer, (Linear, nn.Linear)) else [(side, side) for side in (_SIDE, *natives)]
            yield from (torch.randn(2, inputs, *size, generator=_generator(0)) for size in sizes)
            return


def _random_twin(network: nn.Module) -> nn.Module:
    twin, generator = copy.deepcopy(network).double().eval(), _generator(1)
    for tensor in twin.state_dict().values():
        if tensor.is_floating_point() and tensor.dim() <= 1:
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
        elif tensor.is_floating_point():
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * math.sqrt(2 / tensor[0].numel()))
    return twin


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _operations(network: nn.Module, arch: Architecture) -> list[Architecture]:
    """`arch`, and `arch` with all operations at their first options, their second ones, and so on."""
    kinds = roles(network)
    choices = [choice for choice in arch.space.choices if kinds.get(choice.name) == "operation"]
    others = [
        arch.space.architecture({**arch.assignment, **{c.name: c.options[min(i, len(c.options) - 1)] for c in choices}})
        for i in range(max((len(c.options) for c in choices), default=0))
    ]
    return list(dict.fromkeys([arch, *others]))
