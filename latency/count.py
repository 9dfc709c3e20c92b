"""What a plain torch network computes and stores, counted from the shapes of one forward pass.

MACs: a convolution has `out elements · (inputs / groups) · kernel size`, a linear layer `out elements ·
inputs`; batch norm, biases, activations and pooling have none.
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.overrides import TorchFunctionMode

_ACTIVATIONS = (
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.PReLU,
    nn.ELU,
    nn.GELU,
    nn.SiLU,
    nn.Mish,
    nn.Sigmoid,
    nn.Tanh,
    nn.Softplus,
    nn.Hardtanh,
    nn.Hardsigmoid,
    nn.Hardswish,
)
_WEIGHTED = (_ConvNd, nn.Linear)
_ADDS = (torch.add, Tensor.add, Tensor.add_, Tensor.__add__, Tensor.__iadd__, Tensor.__radd__)
_PRODUCTS = (torch.mul, Tensor.mul, Tensor.mul_, Tensor.__mul__, Tensor.__imul__, Tensor.__rmul__)
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_FUSED = (nn.ReLU, nn.Identity, nn.Dropout, nn.Flatten, nn.modules.batchnorm._NormBase)


@dataclass(frozen=True)
class Counts:
    """What a network computes for one image, and what it stores.

    `macs` is the sum of the four kinds: 1x1 convolutions without groups (pointwise), convolutions of one
    input channel per output channel (depthwise), other convolutions (dense), and linear layers.

    Args:
        parameters: all of them, those of batch norm too; shared ones once.
        activation_elements: outputs of all convolutions, linear layers, activations and additions.
        hswish_elements: outputs of h-swish.
        layers: runs of a convolution or linear layer.
        weight_elements: weights of convolutions and linear layers, without biases; shared ones once.
    """

    macs: int
    parameters: int
    pointwise_macs: int
    depthwise_macs: int
    dense_macs: int
    linear_macs: int
    activation_elements: int
    hswish_elements: int
    layers: int
    weight_elements: int
    input_elements: int
    output_elements: int

    def __add__(self, other: Counts) -> Counts:
        """The sum, number by number."""
        return Counts(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True)
class Layer:
    """A convolution or linear layer and what is computed after it, up to the next one; or what comes before the first.

    Args:
        kind: pointwise, depthwise, dense or linear, as of `Counts`; none where no weights are multiplied.
        path: of its module in the network that was counted; empty for what comes before the first one.
        channels: of its input and its output.
        sizes: elements of each channel of its input and its output.
        taps: elements of the window of a convolution.
        activation_elements: outputs of activations but ReLU, which is a part of the layer before it.
        other_elements: of what is neither a convolution, a linear layer, a norm nor an activation, its input or its
            output, whichever is larger; outputs of sums and products of two tensors.
    """

    kind: str
    path: str = ""
    macs: int = 0
    weight_elements: int = 0
    channels: tuple[int, int] = (1, 1)
    sizes: tuple[int, int] = (1, 1)
    taps: int = 1
    activation_elements: int = 0
    other_elements: int = 0


class _Tally:
    """What was counted so far: numbers of a whole network, and its layers."""

    def __init__(self) -> None:
        self.numbers: Counter[str] = Counter()
        self.layers: list[dict[str, Any]] = [{"kind": "none"}]

    def add(self, name: str, elements: int) -> None:
        """Counts what is computed after the last layer."""
        self.layers[-1][name] = self.layers[-1].get(name, 0) + elements

    def found(self) -> tuple[Layer, ...]:
        """The layers; the first one only where something is computed before any weights are multiplied."""
        return tuple(Layer(**layer) for i, layer in enumerate(self.layers) if i or len(layer) > 1)


class _Additions(TorchFunctionMode):
    """Counts the elements of sums and products of two tensors, which no module stands for."""

    def __init__(self, tally: _Tally) -> None:
        super().__init__()
        self._tally = tally

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: tuple[type, ...],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if (func in _ADDS or func in _PRODUCTS) and len(args) > 1 and all(isinstance(a, Tensor) for a in args[:2]):
            self._tally.add("other_elements", result.numel())
            if func in _ADDS:
                self._tally.numbers["activation_elements"] += result.numel()
        return result


def count(module: nn.Module, input_shape: tuple[int, ...]) -> Counts:
    """The counts of `module` for one image of `input_shape` (c, h, w); `module` itself is not changed.

    Convolutions, linear layers and activations are seen as modules, additions also as `x + y`; other products
    written as functions are not seen.
    """
    return count_(copy.deepcopy(module).cpu(), input_shape)[0]


def count_(module: nn.Module, input_shape: tuple[int, ...]) -> tuple[Counts, tuple[Layer, ...], tuple[int, ...]]:
    """The counts of a module on the CPU, its layers as they are run, and the shape of its output, without the batch.

    Runs one blank image: for small networks that is many times faster than tracing shapes alone.  Leaves the module in
    eval mode.
    """
    tally = _Tally()
    named = {m: path for path, m in module.named_modules() if isinstance(m, _WEIGHTED) or _is_leaf(m)}
    hooks = [leaf.register_forward_hook(_recorder(tally, path)) for leaf, path in named.items()]
    try:
        with torch.inference_mode(), _Additions(tally):
            output = module.eval()(torch.zeros(1, *input_shape))
    finally:
        for hook in hooks:
            hook.remove()
    numbers, weights = tally.numbers, {leaf.weight for leaf in named if isinstance(leaf, _WEIGHTED)}
    counts = Counts(
        macs=sum(numbers[f"{kind}_macs"] for kind in ("pointwise", "depthwise", "dense", "linear")),
        parameters=sum(p.numel() for p in module.parameters()),
        pointwise_macs=numbers["pointwise_macs"],
        depthwise_macs=numbers["depthwise_macs"],
        dense_macs=numbers["dense_macs"],
        linear_macs=numbers["linear_macs"],
        activation_elements=numbers["activation_elements"],
        hswish_elements=numbers["hswish_elements"],
        layers=numbers["layers"],
        weight_elements=sum(w.numel() for w in weights),
        input_elements=math.prod(input_shape),
        output_elements=output.numel(),
    )
    return counts, tally.found(), tuple(output.shape[1:])


def _is_leaf(module: nn.Module) -> bool:
    return next(module.children(), None) is None and not isinstance(module, _CONTAINERS)


def _recorder(tally: _Tally, path: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
    def record(leaf: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        numbers = tally.numbers
        if isinstance(leaf, _WEIGHTED):
            layer = _layer(leaf, inputs[0], output)
            tally.layers.append({"path": path, **layer})
            numbers[f"{layer['kind']}_macs"] += layer["macs"]
            numbers["layers"] += 1
            numbers["activation_elements"] += output.numel()
        elif isinstance(leaf, _ACTIVATIONS):
            numbers["activation_elements"] += output.numel()
            numbers["hswish_elements"] += output.numel() * isinstance(leaf, nn.Hardswish)
            if not isinstance(leaf, nn.ReLU):
                tally.add("activation_elements", output.numel())
        elif not isinstance(leaf, _FUSED) and isinstance(output, Tensor):
            sizes = [t.numel() for t in (output, *inputs) if isinstance(t, Tensor)]
            tally.add("other_elements", max(sizes))

    return record


def _layer(leaf: _ConvNd | nn.Linear, x: Tensor, y: Tensor) -> dict[str, Any]:
    """The fields of a `Layer`."""
    weight = leaf.weight
    if isinstance(leaf, nn.Linear):
        channels, kind, taps = (leaf.in_features, leaf.out_features), "linear", 1
        sizes = x.numel() // leaf.in_features, y.numel() // leaf.out_features
    else:
        channels, kind, taps = (leaf.in_channels, leaf.out_channels), _kind(leaf), math.prod(leaf.kernel_size)
        sizes = x.numel() // leaf.in_channels, y.numel() // leaf.out_channels
    # Each weight beside the first axis meets every output element; of a transposed convolution, every input.
    elements = x.numel() if isinstance(leaf, _ConvNd) and leaf.transposed else y.numel()
    return {
        "kind": kind,
        "macs": elements * weight[0].numel(),
        "weight_elements": weight.numel(),
        "channels": channels,
        "sizes": sizes,
        "taps": taps,
    }


def _kind(layer: _ConvNd) -> str:
    if 1 < layer.groups == layer.in_channels == layer.out_channels:
        return "depthwise"
    if layer.groups == 1 and set(layer.kernel_size) == {1}:
        return "pointwise"
    return "dense"
