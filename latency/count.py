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
_ADDS = (torch.add, Tensor.add, Tensor.add_, Tensor.__add__, Tensor.__iadd__, Tensor.__radd__)


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


class _Additions(TorchFunctionMode):
    """Counts the elements of sums of two tensors, which no module stands for."""

    def __init__(self, tally: Counter[str]) -> None:
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
        if func in _ADDS and len(args) > 1 and all(isinstance(a, Tensor) for a in args[:2]):
            self._tally["activation_elements"] += result.numel()
        return result


def count(module: nn.Module, input_shape: tuple[int, ...]) -> Counts:
    """The counts of `module` for one image of `input_shape` (c, h, w); `module` itself is not changed.

    Convolutions, linear layers and activations are seen as modules, additions also as `x + y`; other products
    written as functions are not seen.
    """
    return count_(copy.deepcopy(module).cpu(), input_shape)[0]


def count_(module: nn.Module, input_shape: tuple[int, ...]) -> tuple[Counts, tuple[int, ...]]:
    """The counts of a module on the CPU and the shape of its output, without the batch; leaves it in eval mode.

    Runs one blank image: for small networks that is many times faster than tracing shapes alone.
    """
    tally: Counter[str] = Counter()
    layers = [m for m in module.modules() if isinstance(m, (_ConvNd, nn.Linear, *_ACTIVATIONS))]
    hooks = [layer.register_forward_hook(_recorder(tally)) for layer in layers]
    try:
        with torch.inference_mode(), _Additions(tally):
            output = module.eval()(torch.zeros(1, *input_shape))
    finally:
        for hook in hooks:
            hook.remove()
    weights = {layer.weight for layer in layers if isinstance(layer, _ConvNd | nn.Linear)}
    counts = Counts(
        macs=sum(tally[kind] for kind in ("pointwise_macs", "depthwise_macs", "dense_macs", "linear_macs")),
        parameters=sum(p.numel() for p in module.parameters()),
        pointwise_macs=tally["pointwise_macs"],
        depthwise_macs=tally["depthwise_macs"],
        dense_macs=tally["dense_macs"],
        linear_macs=tally["linear_macs"],
        activation_elements=tally["activation_elements"],
        hswish_elements=tally["hswish_elements"],
        layers=tally["layers"],
        weight_elements=sum(w.numel() for w in weights),
        input_elements=math.prod(input_shape),
        output_elements=output.numel(),
    )
    return counts, tuple(output.shape[1:])


def _recorder(tally: Counter[str]) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
    def record(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        tally["activation_elements"] += output.numel()
        if isinstance(layer, nn.Hardswish):
            tally["hswish_elements"] += output.numel()
        elif isinstance(layer, nn.Linear):
            tally["linear_macs"] += output.numel() * layer.in_features
            tally["layers"] += 1
        elif isinstance(layer, _ConvNd):
            # Each weight beside the first axis meets every output element; of a transposed convolution, every input.
            elements = inputs[0].numel() if layer.transposed else output.numel()
            tally[_kind(layer)] += elements * layer.weight[0].numel()
            tally["layers"] += 1

    return record


def _kind(layer: _ConvNd) -> str:
    if 1 < layer.groups == layer.in_channels == layer.out_channels:
        return "depthwise_macs"
    if layer.groups == 1 and set(layer.kernel_size) == {1}:
        return "pointwise_macs"
    return "dense_macs"
