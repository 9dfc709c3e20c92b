"""Elastic layers: torch layers whose arguments may be choices.

Each has the arguments of its `torch.nn` namesake, any of which may be a `Choice` or an expression
over choices.  The weights are those of the largest setting; an architecture uses slices of them, as
views (once-for-all, arXiv:1908.09791, section 3; slimmable networks, arXiv:1812.08928).

The architecture reaches the layers through `bound`, which `search_spaces.network.run` sets for one
forward call, so that a network's own `forward(x)` stays ordinary torch code.  Where choices are relaxed
(`search_spaces.mixture`), layers are as large as the largest of their mixed options, and a layer that mixes channels
first weighs those that it reads: what stands in channels that no option of weight has is never read.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextvars import ContextVar
from typing import cast

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce

from search_spaces.depthwise import depthwise
from search_spaces.mixture import Mixture, gates_of, mixed_layer, mixture_of, norms_scale
from search_spaces.rounding import rounded
from search_spaces.space import Architecture
from search_spaces.value import (
    Choice,
    Condition,
    Expression,
    Option,
    Size,
    Value,
    choices_of,
    possible,
    possible_ints,
    possible_together,
    resolve,
    round_to,
)

_BOUND: ContextVar[Mapping[str, Option] | None] = ContextVar("architecture", default=None)
_COPIES: ContextVar[dict[int, nn.Module] | None] = ContextVar("copies", default=None)  # by the original's id

_EMPTIED = (dict, OrderedDict, set)
_WAYS_TO_COPY = ("__deepcopy__", "__reduce__", "__reduce_ex__", "__getstate__", "__setstate__", "__new__", "__slots__")

_TRANSFORM = "transform_"
_MADE: ContextVar[dict[tuple[object, ...], nn.Module] | None] = ContextVar("made", default=None)


@contextlib.contextmanager
def bound(arch: Architecture) -> Iterator[None]:
    """Elastic layers called inside the block act as `arch` says; nests, and is local to the thread."""
    token = _BOUND.set(arch.assignment)
    try:
        yield
    finally:
        _BOUND.reset(token)


def current(value: Value) -> Option:
    """`value` under the bound architecture.

    Raises:
        RuntimeError: no architecture is bound.
        ValueError: the bound architecture is one of another space.
    """
    if not isinstance(value, (Choice, Expression)):
        return value
    assignment = _BOUND.get()
    if assignment is None:
        raise RuntimeError("an elastic layer was called without an architecture: call the network as net(x, arch)")
    try:
        return resolve(value, assignment)
    except KeyError as missing:
        raise ValueError(
            f"the bound architecture has no choice {missing}, which an elastic layer reads: "
            "give one of the network's own space (find_space)"
        ) from None


def _int(value: Value) -> int:
    return cast(int, current(value))


def _mixed(value: Value) -> Mixture | None:
    return mixture_of(value, _BOUND.get())


def _most(value: Value) -> int:
    """`value` under the bound architecture, or the largest that relaxed choices mix."""
    mixture = _mixed(value)
    return _int(value) if mixture is None else mixture.most


class Elastic(nn.Module):
    """Base of the layers below: a layer that reads `values` and can make its plain counterpart."""

    values: tuple[Value, ...] = ()

    def plain(self) -> nn.Module:
        """The plain torch layer of the bound architecture, with its own copy of the sliced weights."""
        raise TypeError(f"{type(self).__name__} does not say what its plain counterpart is: define plain()")

    def choices(self) -> tuple[Choice, ...]:
        """The choices that this layer itself reads, in order."""
        return tuple(dict.fromkeys(c for value in self.values for c in choices_of(value)))

    def rigid(self) -> tuple[Choice, ...]:
        """The choices that this layer reads and cannot mix: all, unless its forward minds `relaxed`."""
        return self.choices()

    def branch_conditions(self) -> Mapping[str, Condition]:
        """For each child that only some options use: the condition under which it is used."""
        return {}


class Conv2d(Elastic):
    """Convolution over (b, c, h, w) with elastic channels, kernel size, groups and stride.

    A smaller kernel is the centre of the largest one (see also `add_kernel_transforms_`); fewer channels are the
    first ones.  Padding is always "same" (dilation · (k - 1) / 2), so kernel sizes are odd.  Where the groups' width
    is fixed, as in a depthwise convolution, more channels are more groups.  Where both the number of groups and their
    width vary, the weight is stored for the fewest groups, and more groups use its block diagonal.

    Raises:
        ValueError: an even kernel size, channels that their number of groups does not divide, or, with a
            varying width, groups that are no multiple of the fewest.
    """

    def __init__(
        self,
        in_channels: Value,
        out_channels: Value,
        kernel_size: Value = 1,
        stride: Value = 1,
        groups: Value = 1,
        bias: bool = True,
        dilation: int = 1,
    ) -> None:
        super().__init__()
        self.values = (in_channels, out_channels, kernel_size, stride, groups)
        self.in_channels, self.out_channels, self.kernel_size = in_channels, out_channels, kernel_size
        self.stride, self.groups, self.dilation = stride, groups, dilation
        kernels = possible_ints(kernel_size, "kernel_size")
        if any(k % 2 == 0 for k in kernels):
            raise ValueError(f"kernel_size must be odd, got {kernels}: an even kernel has no centre")
        self._shrinks = tuple(itertools.pairwise(sorted(kernels, reverse=True)))  # pairs of neighbouring sizes
        sizes = self._sizes()
        widths, groupings = {i // g for i, _, g in sizes}, {g for _, _, g in sizes}
        self._fewest = None if len(widths) == 1 or len(groupings) == 1 else min(groupings)
        if self._fewest is not None and any(g % self._fewest for g in groupings):
            raise ValueError(f"groups must be multiples of the fewest, got {tuple(sorted(groupings))}")
        fan_in = max(widths) if self._fewest is None else max(i for i, _, _ in sizes) // self._fewest
        shape = (max(o for _, o, _ in sizes), fan_in, max(kernels), max(kernels))
        self.weight = nn.Parameter(torch.empty(shape))
        self.bias = nn.Parameter(torch.zeros(shape[0])) if bias else None
        # He initialisation by fan-out, which is of one group: in a depthwise layer, k² outputs per input.
        nn.init.normal_(self.weight, std=(2 / (max(o // g for _, o, g in sizes) * max(kernels) ** 2)) ** 0.5)

    def _sizes(self) -> tuple[tuple[int, int, int], ...]:
        """Every combination of input channels, output channels and groups that an architecture can have."""
        names = ("in_channels", "out_channels", "groups")
        values = (self.in_channels, self.out_channels, self.groups)
        for value, name in zip(values, names, strict=True):
            possible_ints(value, name)
        sizes = cast("tuple[tuple[int, int, int], ...]", possible_together(*values))
        for inputs, outputs, groups in sizes:
            for channels in (inputs, outputs):
                if channels % groups:
                    raise ValueError(
                        f"{channels} channels do not divide into {groups} groups; for depthwise give the same "
                        "value as in_channels, out_channels and groups"
                    )
        return sizes

    def add_kernel_transforms_(self) -> None:
        """Learn how a smaller kernel is made of the next larger one (once-for-all, arXiv:1908.09791, section 3.3).

        For every two neighbouring sizes, k1 > k2, a matrix (k2², k2²), which all channels share: the kernel of size k2
        is its product with the centre of that of size k1.  They start as identities, which changes nothing; layers of
        one kernel size, and those that have them, stay as they are.
        """
        for source, target in self._shrinks:
            if not hasattr(self, _transform(source, target)):
                eye = torch.eye(target**2, dtype=self.weight.dtype, device=self.weight.device)
                self.register_parameter(_transform(source, target), nn.Parameter(eye))

    def reset_kernel_transforms_(self) -> None:
        """Make identities of the kernel transforms, where there are any."""
        with torch.no_grad():
            for source, target in self._shrinks:
                if (matrix := getattr(self, _transform(source, target), None)) is not None:
                    nn.init.eye_(matrix)

    def _at_kernel(self, weight: Tensor, kernel: int) -> Tensor:
        """`weight` (…, k, k) of the largest kernel size at size `kernel`: its centre, a view but for transforms."""
        for source, target in self._shrinks:
            matrix = getattr(self, _transform(source, target), None)
            if matrix is not None and kernel <= target:
                weight = F.linear(_centre(weight, target).flatten(-2), matrix).unflatten(-1, (target, target))
        return _centre(weight, kernel)

    def _weight(self) -> Tensor:
        """The weight of the bound architecture (out, in / groups, k, k), a view but for finer groups and transforms."""
        out, kernel, groups = _most(self.out_channels), _most(self.kernel_size), _most(self.groups)
        width = _most(self.in_channels) // groups
        if self._fewest in (None, groups):
            return self._at_kernel(self.weight[:out, :width], kernel)
        # Within each stored group, the finer groups are the blocks on its diagonal.
        finer = groups // self._fewest
        blocks = self._at_kernel(self.weight[:out, : width * finer], kernel)
        blocks = blocks.reshape(self._fewest, finer, out // groups, finer, width, kernel, kernel)
        return blocks.diagonal(dim1=1, dim2=3).movedim(-1, 1).reshape(out, width, kernel, kernel)

    def forward(self, x: Tensor) -> Tensor:
        """(b, in, h, w) → (b, out, h / stride, w / stride)."""
        bias = None if self.bias is None else self.bias[: _most(self.out_channels)]
        weight, stride, groups = self._weight(), _int(self.stride), _most(self.groups)
        if (kernels := _mixed(self.kernel_size)) is not None:
            weight = weight * kernels.taps(weight)
        x, weight = rounded(self, x, weight)
        if groups == weight.shape[0] == x.shape[1] and self.dilation == 1:
            return depthwise(x, weight, bias, stride)
        if groups == 1 and (inputs := _mixed(self.in_channels)) is not None:
            x = x * inputs.channels(x)[:, None, None]
        padding = self.dilation * (weight.shape[2] // 2)
        return F.conv2d(x, weight, bias, stride, padding, self.dilation, groups)

    def rigid(self) -> tuple[Choice, ...]:
        """The stride's, and the channels' where several groups do not keep their widths: fewer are not the first."""
        values: tuple[Value, ...] = (self.stride,)
        if possible(self.groups) != (1,) and len({(i // g, o // g) for i, o, g in self._sizes()}) > 1:
            values = (self.stride, self.in_channels, self.out_channels, self.groups)
        return tuple(choice for value in values for choice in choices_of(value))

    def plain(self) -> nn.Conv2d:
        """The plain convolution of the bound architecture."""
        kernel = _int(self.kernel_size)
        layer = nn.utils.skip_init(
            nn.Conv2d,
            _int(self.in_channels),
            _int(self.out_channels),
            kernel,
            _int(self.stride),
            padding=self.dilation * (kernel // 2),
            dilation=self.dilation,
            groups=_int(self.groups),
            bias=self.bias is not None,
            device=self.weight.device,
            dtype=self.weight.dtype,
        )
        with torch.no_grad():
            layer.weight.copy_(self._weight())
            if self.bias is not None and layer.bias is not None:
                layer.bias.copy_(self.bias[: layer.out_channels])
        return layer


def _transform(source: int, target: int) -> str:
    """The name of the matrix that leads from one kernel size to the next."""
    return f"{_TRANSFORM}{source}to{target}"


def _centre(weight: Tensor, kernel: int) -> Tensor:
    """The centre (…, kernel, kernel) of `weight` (…, k, k)."""
    margin = (weight.shape[-1] - kernel) // 2
    return weight[..., margin : margin + kernel, margin : margin + kernel]


def kernel_transforms_in(names: Iterable[str]) -> list[str]:
    """Those of the names of parameters that are kernel transforms."""
    return [name for name in names if name.rpartition(".")[2].startswith(_TRANSFORM)]


def add_kernel_transforms_(network: nn.Module) -> None:
    """Add kernel transforms to every elastic convolution of `network` whose kernel size varies."""
    for layer in network.modules():
        if isinstance(layer, Conv2d):
            layer.add_kernel_transforms_()


class Linear(Elastic):
    """Linear layer (…, in) → (…, out) on the first `in_features` and `out_features`."""

    def __init__(self, in_features: Value, out_features: Value, bias: bool = True) -> None:
        super().__init__()
        self.values = (in_features, out_features)
        self.in_features, self.out_features = in_features, out_features
        fan_in = max(possible_ints(in_features, "in_features"))
        self.weight = nn.Parameter(torch.empty(max(possible_ints(out_features, "out_features")), fan_in))
        self.bias = nn.Parameter(torch.zeros(self.weight.shape[0])) if bias else None
        nn.init.uniform_(self.weight, -(fan_in**-0.5), fan_in**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) → (…, out)."""
        out = _most(self.out_features)
        if (inputs := _mixed(self.in_features)) is not None:
            x = x * inputs.channels(x)
        x, weight = rounded(self, x, self.weight[:out, : _most(self.in_features)])
        return F.linear(x, weight, None if self.bias is None else self.bias[:out])

    def rigid(self) -> tuple[Choice, ...]:
        """None."""
        return ()

    def plain(self) -> nn.Linear:
        """The plain linear layer of the bound architecture."""
        inputs, outputs = _int(self.in_features), _int(self.out_features)
        layer = nn.utils.skip_init(
            nn.Linear, inputs, outputs, self.bias is not None, device=self.weight.device, dtype=self.weight.dtype
        )
        with torch.no_grad():
            layer.weight.copy_(self.weight[:outputs, :inputs])
            if self.bias is not None and layer.bias is not None:
                layer.bias.copy_(self.bias[:outputs])
        return layer


class BatchNorm2d(Elastic):
    """Batch norm over the first `num_features` channels of (b, c, h, w).

    In training it normalises by the batch and leaves the running statistics alone: subnets of one
    supernet see different statistics, so they are calibrated per extracted network (BigNAS, section 3.3).
    Where several processes train, the batch is that of all of them.  In layers that are mixed it may be without γ and
    β (`mixture.relaxed`).
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, num_features: Value, eps: float = 1e-5) -> None:
        super().__init__()
        self.values = (num_features,)
        self.num_features, self.eps = num_features, eps
        most = max(possible_ints(num_features, "num_features"))
        self.weight = nn.Parameter(torch.ones(most))
        self.bias = nn.Parameter(torch.zeros(most))
        self.register_buffer("running_mean", torch.zeros(most))
        self.register_buffer("running_var", torch.ones(most))

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) → the same shape."""
        c = _most(self.num_features)
        weight, bias = self.weight[:c], self.bias[:c]
        if not norms_scale():
            weight, bias = torch.ones_like(weight), torch.zeros_like(bias)
        if self.training:
            if dist.is_initialized() and dist.get_world_size() > 1:
                return _joint_norm(x, weight, bias, self.eps)
            return F.batch_norm(x, None, None, weight, bias, training=True, eps=self.eps)
        return F.batch_norm(x, self.running_mean[:c], self.running_var[:c], weight, bias, eps=self.eps)

    def rigid(self) -> tuple[Choice, ...]:
        """None: each channel is normalised by itself."""
        return ()

    def plain(self) -> nn.BatchNorm2d:
        """The plain batch norm of the bound architecture, statistics included."""
        c = _int(self.num_features)
        layer = nn.BatchNorm2d(c, eps=self.eps, device=self.weight.device, dtype=self.weight.dtype)
        with torch.no_grad():
            for name in ("weight", "bias", "running_mean", "running_var"):
                getattr(layer, name).copy_(getattr(self, name)[:c])
        return layer


def _joint_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Batch norm by the statistics of all processes' batches, of equal sizes; gradients flow through these too.

    Statistics are in float32 at least: in bfloat16, their rounding would show.
    """
    size, precise = dist.get_world_size(), x.to(torch.promote_types(x.dtype, torch.float32))
    mean = all_reduce(precise.mean((0, 2, 3))) / size
    centred = precise - mean[:, None, None]
    variance = all_reduce(centred.square().mean((0, 2, 3))) / size
    scale = weight * (variance + eps).rsqrt()
    return (centred * scale[:, None, None] + bias[:, None, None]).to(x.dtype)


class Sequence(Elastic):
    """A sequence of elastic depth: the first `depth` of its layers, in order.

    Args:
        depth: a number, a choice, or an expression over one choice; all layers by default.

    Raises:
        ValueError: a depth below 0 or beyond the number of layers, layers that no depth reaches, or a depth
            over several choices.
    """

    def __init__(self, *layers: nn.Module, depth: Value | None = None) -> None:
        super().__init__()
        self.depth = len(layers) if depth is None else depth
        self.values = (self.depth,)
        if len(self.choices()) > 1:
            names = ", ".join(choice.name for choice in self.choices())
            raise ValueError(f"depth must depend on one choice at most, got one over {names}")
        depths = possible(self.depth)
        for d in depths:
            if not isinstance(d, int) or isinstance(d, bool) or not 0 <= d <= len(layers):
                raise ValueError(f"depth must lie between 0 and the {len(layers)} layers, got {d!r}")
        if len(layers) not in depths:
            raise ValueError(f"no depth of {depths} reaches all {len(layers)} layers: leave out those it never does")
        for i, layer in enumerate(layers):
            self.add_module(str(i), layer)

    def _layers(self) -> list[nn.Module]:
        return [layer for _, layer in children_of(self)][: _int(self.depth)]

    def forward(self, x: Tensor) -> Tensor:
        """Through the first `depth` layers; where the depth is relaxed, the sum of what they give at each."""
        depths = _mixed(self.depth)
        if depths is None:
            for layer in self._layers():
                x = layer(x)
            return x
        outputs = [x]
        heard = self._heard()
        for i, (_, layer) in enumerate(itertools.islice(children_of(self), depths.most)):
            with torch.no_grad() if i >= heard else contextlib.nullcontext():
                outputs.append(layer(outputs[-1]))
        taken = [outputs[cast(int, d)] * w.to(x.dtype) for d, w in zip(depths.results, depths.weights, strict=True)]
        return sum(taken[1:], taken[0])

    def _heard(self) -> int:
        """The deepest of relaxed depths that is not silent: layers beyond it need no history."""
        (choice,) = self.choices()
        gates = gates_of(choice.name)
        options = [] if gates is None else [choice.options[i] for i in gates.computed if i not in gates.silent]
        return max((cast(int, resolve(self.depth, {choice.name: option})) for option in options), default=0)

    def rigid(self) -> tuple[Choice, ...]:
        """None."""
        return ()

    def plain(self) -> nn.Sequential:
        """The plain sequence of the bound architecture's layers."""
        return nn.Sequential(*(plain_copy(layer) for layer in self._layers()))

    def branch_conditions(self) -> Mapping[str, Condition]:
        """Layer i is used where the depth exceeds i."""
        if not self.choices():
            return {}
        (choice,) = self.choices()
        depths = {option: cast(int, resolve(self.depth, {choice.name: option})) for option in choice.options}
        deeper = {str(i): tuple(o for o, d in depths.items() if d > i) for i in range(len(self._modules))}
        return {name: choice.among(*options) for name, options in deeper.items() if len(options) < len(depths)}


class OneOf(Elastic):
    """One of several layers, picked by a choice.

    Raises:
        ValueError: the layers are not given for exactly the options of the choice.
    """

    def __init__(self, choice: Choice, layers: Mapping[Option, nn.Module]) -> None:
        super().__init__()
        if list(layers) != list(choice.options):
            raise ValueError(f"choice {choice.name!r} has options {choice.options}, got layers for {tuple(layers)}")
        self.values = (choice,)
        self.choice = choice
        for i, layer in enumerate(layers.values()):
            self.add_module(str(i), layer)

    def _picked(self) -> nn.Module:
        return self.get_submodule(str(self.choice.index(current(self.choice))))

    def forward(self, x: Tensor) -> Tensor:
        """Through the picked layer; where the choice is relaxed, the sum of those that are on."""
        gates = gates_of(self.choice.name)
        if gates is None:
            picked: Tensor = self._picked()(x)
            return picked
        taken = []
        for i in gates.computed:
            with mixed_layer(i in gates.silent):
                y: Tensor = self.get_submodule(str(i))(x)
            taken.append(y * gates.weights[i].to(y.dtype))
        return sum(taken[1:], taken[0])

    def rigid(self) -> tuple[Choice, ...]:
        """None."""
        return ()

    def plain(self) -> nn.Module:
        """The plain counterpart of the picked layer."""
        return plain_copy(self._picked())

    def branch_conditions(self) -> Mapping[str, Condition]:
        """Layer i is used where the choice takes option i."""
        return {str(i): self.choice.among(option) for i, option in enumerate(self.choice.options)}


class Resize(Elastic):
    """Bilinear resize of (b, c, h, w) to an elastic square resolution in pixels.

    Args:
        native: the resolution of the input, at which nothing is done.
    """

    def __init__(self, resolution: Value, native: int) -> None:
        super().__init__()
        possible_ints(resolution, "resolution")
        self.values = (resolution,)
        self.resolution, self.native = resolution, native

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, native, native) → (b, c, resolution, resolution)."""
        size = _int(self.resolution)
        return x if size == self.native else F.interpolate(x, size=(size, size), mode="bilinear")

    def plain(self) -> nn.Module:
        """A plain resize, or nothing at the native resolution."""
        size = _int(self.resolution)
        return nn.Identity() if size == self.native else nn.Upsample(size=(size, size), mode="bilinear")


class SqueezeExcite(nn.Module):
    """Squeeze-and-excitation with a hard sigmoid (MobileNetV3, arXiv:1905.02244, section 5.3)."""

    def __init__(self, channels: Size, reduction: int = 4) -> None:
        super().__init__()
        squeezed = _reduced(channels, reduction)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.reduce = Conv2d(channels, squeezed)
        self.act = nn.ReLU()
        self.expand = Conv2d(squeezed, channels)
        self.gate = nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) → the same shape, each channel scaled by its gate."""
        gate: Tensor = self.gate(self.expand(self.act(self.reduce(self.pool(x)))))
        return x * gate


def _reduced(channels: Size, reduction: int) -> Size:
    if isinstance(channels, int):
        return round_to(channels // reduction, 8)
    return (channels // reduction).rounded(8)


ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "h-swish": nn.Hardswish, "relu6": nn.ReLU6}


def activation(which: Choice | str) -> nn.Module:
    """The activation named by `which`, or an elastic one where it is a choice over names.

    Raises:
        ValueError: an activation that is not in `ACTIVATIONS`.
    """
    names = which.options if isinstance(which, Choice) else (which,)
    for name in names:
        if name not in ACTIVATIONS:
            raise ValueError(f"unknown activation {name!r}: there are {', '.join(ACTIVATIONS)}")
    layers: dict[Option, nn.Module] = {name: ACTIVATIONS[str(name)]() for name in names}
    return OneOf(which, layers) if isinstance(which, Choice) else layers[which]


def children_of(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The named children of `module`, one that is registered twice both times (`named_children` gives it once)."""
    return ((name, child) for name, child in module._modules.items() if child is not None)


def plain_copy(module: nn.Module) -> nn.Module:
    """A copy of `module` in which every elastic layer is its plain counterpart under the bound architecture.

    All else is copied deeply: class, attributes, parameters and buffers.  What was shared stays shared.
    """
    copies = _COPIES.get()
    if copies is None:
        token = _COPIES.set({})
        try:
            return plain_copy(module)
        finally:
            _COPIES.reset(token)
    for layer in _outermost_elastic(module):
        if id(layer) not in copies:
            plain = _plain(layer)
            plain.training = layer.training
            copies[id(layer)] = plain
    return _copied(module, copies)


def _copied(module: nn.Module, copies: dict[int, nn.Module]) -> nn.Module:
    """As `copy.deepcopy` with what is copied already, and quicker: most attributes of a module are empty."""
    if id(module) in copies:
        return copies[id(module)]
    memo, kind = cast("dict[int, object]", copies), type(module)
    if any(getattr(kind, name, None) is not getattr(nn.Module, name, None) for name in _WAYS_TO_COPY):
        return copy.deepcopy(module, memo)
    made = copies[id(module)] = kind.__new__(kind)
    for name, value in vars(module).items():
        if name == "_modules":
            children = {key: None if child is None else _copied(child, copies) for key, child in value.items()}
            vars(made)[name] = type(value)(children)
        elif type(value) in _EMPTIED and not value:
            vars(made)[name] = type(value)()
        else:
            vars(made)[name] = copy.deepcopy(value, memo)
    return made


@contextlib.contextmanager
def sharing_layers(made: dict[tuple[object, ...], nn.Module]) -> Iterator[None]:
    """Plain copies made inside the block share equal layers, kept in `made`: for copies that are only looked at."""
    token = _MADE.set(made)
    try:
        yield
    finally:
        _MADE.reset(token)


def _plain(layer: Elastic) -> nn.Module:
    made = _MADE.get()
    if made is None or next(layer.children(), None) is not None:  # what it holds may depend on more choices
        return layer.plain()
    key = (layer, *(current(choice) for choice in layer.choices()))
    if key not in made:
        made[key] = layer.plain()
    return made[key]


def _outermost_elastic(module: nn.Module) -> Iterator[Elastic]:
    if isinstance(module, Elastic):
        yield module
    else:
        for child in module.children():
            yield from _outermost_elastic(child)
