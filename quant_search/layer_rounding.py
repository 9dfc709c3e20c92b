"""Inputs and weights of torch layers rounded as the exporter will round them, with straight-through gradients.

Weights: symmetric integers with a scale for each output channel, which covers every value in eight bits and has the
least squared error in fewer, as `realise.rounded_weights` has them.  An exported file rounds weights into which batch
norm is folded.  That is a factor for each output channel, by which its scale is multiplied and no code changed: so the
weight may be rounded before the norm as well.  (Codes of fewer than eight bits reach one further below zero than
above, so that a channel with a factor below zero may round another way.)

Activations: eight bits over the range of the batch.  The exporter takes ranges anew for each file, from smallest to
largest value over its images; a step learned for all subnets together (LSQ) would cut what the file does not.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from quant_search.fake import TorchScales, fake_quantize, scales_of
from quant_search.formats.granularity import Granularity
from quant_search.formats.integer import Integer
from quant_search.precision import Precision, parse_precision
from quant_search.ranges import UINT8
from quant_search.weight_codes import SHRUNK, weight_format
from search_spaces.network import Block
from supernet.distributed import extremes_of

_CHANNELS = Granularity(0)
_AT_ONCE = 2**20  # rounded weights that are held at a time, while scales are sought


def rounded_weight(weight: Tensor, bits: int) -> Tensor:
    """`weight` (out, ...) in so many bits, with the gradient of the identity but where a code is cut.

    Raises:
        ValueError: other than 2 to 8 bits.
    """
    number = weight_format(bits)
    return fake_quantize(weight, number, _CHANNELS, _scales(weight.detach().float(), number)).to(weight.dtype)


def _scales(weight: Tensor, number: Integer) -> TorchScales:
    covering = scales_of(weight, number, _CHANNELS)
    if number.bits == 8 or not weight.numel():
        return covering
    return TorchScales(_least_error(weight.flatten(1), covering.scale, number), covering.zero)


def _least_error(rows: Tensor, covering: Tensor, number: Integer) -> Tensor:
    """The twin of `weight_codes.scales_of_least_error` for rows (out, n), many shares of the range at a time."""
    shares = torch.from_numpy(SHRUNK).to(rows.device)
    unit, errors = rows / covering[:, None], []
    for part in shares.float().split(max(1, _AT_ONCE // rows.numel())):
        share = part[:, None, None]
        error = (unit * share.reciprocal()).round_().clamp_(number.lowest, number.highest).mul_(share).sub_(unit)
        errors.append(torch.linalg.vector_norm(error, dim=2))
    best = torch.cat(errors).min(0).indices
    return (covering.double() * shares[best]).float()


def rounded_activation(x: Tensor) -> Tensor:
    """`x` in eight bits over its range, that of all processes' batches together, with the gradient of the identity."""
    held = x.detach()
    if not held.numel():
        return x
    low, high = extremes_of(held)
    scale, zero = scales_of(torch.stack([low, high]).float(), UINT8)
    rounded: Tensor = _Activation.apply(x, scale, zero)
    return rounded


class _Activation(torch.autograd.Function):
    """What `fake_quantize` gives for a range that cuts nothing; leaves nothing behind for the way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
        steps = torch.div(x.float(), scale).round_().add_(zero).clamp_(UINT8.lowest, UINT8.highest)
        return steps.sub_(zero).mul_(scale).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return gradients[0], None, None


def rounded_pair(x: Tensor, weight: Tensor, precision: Precision) -> tuple[Tensor, Tensor]:
    """The input and the weight (out, ...) of a layer in a precision."""
    if precision.activation_bits is not None:
        x = rounded_activation(x)
    return x, weight if precision.weight_bits is None else rounded_weight(weight, precision.weight_bits)


def round_layers_(
    plain: nn.Module, blocks: Sequence[Block], policy: Mapping[str, str], activations: bool = True
) -> Callable[[], None]:
    """Lets convolutions and linear layers of an extracted network compute in the precision of their block.

    What `plain` gives then is what the file of the policy gives, up to the rounding of sums and biases.

    Args:
        policy: block name to precision; blocks that it does not name stay in fp32.
        activations: whether the inputs of layers are rounded as well.

    Returns:
        What gives the layers back their inputs and weights.

    Raises:
        ValueError: an unknown precision.
    """
    undo: list[Callable[[], None]] = []
    for layer, precision in _layers(plain, blocks, policy).items():
        if precision.activation_bits is not None and activations:
            undo.append(layer.register_forward_pre_hook(_round_input).remove)
        if precision.weight_bits is not None:
            undo.append(_RoundedInPlace(layer, precision.weight_bits).undo)

    def give_back() -> None:
        for back in reversed(undo):  # of layers that share a weight, the first one knows how it was
            back()

    return give_back


class _RoundedInPlace:
    """The weight of a layer, rounded until `undo`."""

    def __init__(self, layer: nn.Module, bits: int) -> None:
        self.weight: Tensor = layer.get_parameter("weight")
        self.before = self.weight.detach().clone()
        with torch.no_grad():
            self.weight.copy_(rounded_weight(self.before, bits))

    def undo(self) -> None:
        """Put back what was there."""
        with torch.no_grad():
            self.weight.copy_(self.before)


def is_rounded(layer: nn.Module) -> bool:
    """Whether a plain layer has an int8 kernel and a weight, which its block's precision is of."""
    return isinstance(layer, (_ConvNd, nn.Linear)) and not isinstance(layer, _ConvTransposeNd)


@contextlib.contextmanager
def rounding_inputs(layers: Iterable[nn.Module]) -> Iterator[None]:
    """What plain layers read is rounded inside the block."""
    handles = [layer.register_forward_pre_hook(_round_input) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _layers(plain: nn.Module, blocks: Sequence[Block], policy: Mapping[str, str]) -> dict[nn.Module, Precision]:
    """The layers with weights of each block that `plain` has, each once."""
    found: dict[nn.Module, Precision] = {}
    modules = dict(plain.named_modules())
    for block in blocks:
        precision = parse_precision(policy.get(block.name, "fp32"))
        for member in block.members:
            for layer in modules[member].modules() if member in modules else ():
                if is_rounded(layer):
                    found.setdefault(layer, precision)
    return found


def _round_input(_layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (rounded_activation(inputs[0]), *inputs[1:])
