"""Fake quantization in torch: what `quant_search.formats` computes, bit for bit in float32, with gradients.

Source: straight-through gradients, cut outside of the range (arXiv:1308.3432; arXiv:1712.05877, section 3).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from quant_search.formats.block_scaled import BlockScaled, PowerOfTwo
from quant_search.formats.granularity import Granularity, Layout
from quant_search.formats.integer import Integer
from quant_search.formats.minifloat import Minifloat
from quant_search.formats.number import TINY, Format


class TorchScales(NamedTuple):
    """Scales float32 and zero points, as `formats.Scales`; zero points in a float type that holds them exactly."""

    scale: Tensor
    zero: Tensor


def fake_quantize(
    values: Tensor, number: Format, granularity: Granularity | None = None, scales: TorchScales | None = None
) -> Tensor:
    """`Format.round_trip` of `values` float32 of any shape, with the gradient of the identity inside of the range.

    Values that are cut (by more than rounding to the last code does) have gradient 0; scales have no gradient.  Values
    are taken to be finite: unlike the NumPy reference this does not look, which would stall a GPU.

    Args:
        scales: what `scales_of` or an observer found; of the values themselves unless given.

    Raises:
        ValueError: a granularity that does not fit the format or the tensor.
    """
    granularity = number.checked(granularity)
    scale, zero = scales_of(values.detach(), number, granularity) if scales is None else scales
    layout = granularity.layout(tuple(values.shape))
    shaped = (part.reshape(layout.broadcast) for part in (scale, zero))
    return join(_StraightThrough.apply(split(values.float(), layout), *shaped, _element(number)), layout, values.shape)


def scales_of(values: Tensor, number: Format, granularity: Granularity | None = None) -> TorchScales:
    """`Format.scales` of finite `values` float32, on their device.

    Raises:
        ValueError: a granularity that does not fit the format or the tensor.
    """
    granularity = number.checked(granularity)
    layout, shape = granularity.layout(tuple(values.shape)), granularity.scale_shape(tuple(values.shape))
    if not values.numel():  # torch has no extremes of nothing
        return covering(values.new_zeros(shape), values.new_zeros(shape), number)
    blocks = split(values.float(), layout)
    if layout.shared:
        low, high = blocks.amin(layout.shared), blocks.amax(layout.shared)
    else:
        low = high = blocks
    return covering(low.reshape(shape), high.reshape(shape), number)


def covering(low: Tensor, high: Tensor, number: Format) -> TorchScales:
    """`Format.covering` of ranges [low, high] float32, tensors of one shape.

    Raises:
        TypeError: a format of another kind.
    """
    low, high = low.clamp(max=0), high.clamp(min=0)
    if isinstance(number, Integer):
        return _integer_scales(low, high, number)
    extent = torch.maximum(high, -low)
    if isinstance(number, Minifloat):
        scale = usable(extent.double() / number.largest) if number.scaled else torch.ones_like(extent)
    elif isinstance(number, BlockScaled):
        scale = _block_scales(extent, number)
    else:
        raise TypeError(f"fake quantization knows integers, minifloats and blocks of them, got {type(number).__name__}")
    return TorchScales(scale, torch.zeros_like(scale))


def _integer_scales(low: Tensor, high: Tensor, number: Integer) -> TorchScales:
    exact = torch.float64 if number.bits == 32 else torch.float32
    if number.symmetric:
        scale = usable((torch.maximum(high, -low) if number.signed else high).double() / number.steps)
        return TorchScales(scale, torch.zeros_like(scale, dtype=exact))
    wide = (high.double() - low) / number.steps
    empty = wide < TINY
    zero = torch.where(empty, 0.0, torch.round(-low / torch.where(empty, 1.0, wide)) + number.lowest)
    return TorchScales(usable(wide), zero.to(exact))


def _block_scales(extent: Tensor, number: BlockScaled) -> Tensor:
    if isinstance(number.scale, PowerOfTwo):
        ends = number.scale.largest_exponent
        power = _power_below(extent) * 2.0**-number.largest_exponent
        return torch.where(extent == 0, 1.0, power.clamp(2.0**-ends, 2.0**ends))
    most = extent.max() if extent.numel() else extent.new_zeros(())
    tensor = usable(most.double() / (number.largest * number.scale.largest))
    wanted = (extent.double() / (number.largest * tensor.double())).float()
    narrow = _nearest(wanted, number.scale).clamp(min=number.scale.smallest)
    return torch.where(extent == 0, 1.0, narrow) * tensor


def usable(scale: Tensor) -> Tensor:
    """Scales float64 in float32, with 1 in place of those too small to divide by."""
    return torch.where(scale < TINY, 1.0, scale).float()


def _element(number: Format) -> Integer | Minifloat:
    element = number.element if isinstance(number, BlockScaled) else number
    if isinstance(element, (Integer, Minifloat)):
        return element
    raise TypeError(f"fake quantization knows integers, minifloats and blocks of them, got {type(number).__name__}")


def split(values: Tensor, layout: Layout) -> Tensor:
    """`values` reshaped as `layout` says: the twin of `granularity.split`."""
    if layout.padding:
        behind = values.dim() - 1 - layout.axis  # axes after it, which `pad` counts first
        values = functional.pad(values, [0, 0] * behind + [0, layout.padding])
    return values.reshape(layout.split)


def join(blocks: Tensor, layout: Layout, shape: torch.Size) -> Tensor:
    """The inverse of `split`."""
    if not layout.padding:
        return blocks.reshape(shape)
    lengthened = [n + layout.padding * (i == layout.axis) for i, n in enumerate(shape)]
    return blocks.reshape(lengthened).narrow(layout.axis, 0, shape[layout.axis])


def _round(blocks: Tensor, number: Integer | Minifloat, scale: Tensor, zero: Tensor) -> tuple[Tensor, Tensor]:
    """Blocks rounded, and which of them are inside of the range."""
    if isinstance(number, Minifloat):
        steps = blocks / scale
        half = 2.0 ** (number.largest_exponent - number.mantissa - 1)
        return _nearest(steps, number) * scale, steps.abs() <= number.largest + half
    steps = torch.round(blocks.to(zero.dtype) / scale) + zero
    code = steps.clamp(number.lowest, number.highest)
    return (code - zero).float() * scale, code == steps


def _nearest(values: Tensor, number: Minifloat) -> Tensor:
    size = values.abs().clamp(max=number.largest)
    step = _power_below(size).clamp(min=2.0**number.least_exponent) * 2.0**-number.mantissa
    return torch.copysign(torch.round(size / step) * step, values)


def _power_below(values: Tensor) -> Tensor:
    return (values.contiguous().view(torch.int32) & 0x7F800000).view(torch.float32)


class _StraightThrough(torch.autograd.Function):
    """Rounded blocks; their gradient goes to what they were rounded from, where that is inside of the range."""

    @staticmethod
    def forward(ctx: Any, blocks: Tensor, scale: Tensor, zero: Tensor, number: Integer | Minifloat) -> Tensor:
        rounded, inside = _round(blocks, number, scale, zero)
        ctx.save_for_backward(inside)
        return rounded

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (inside,) = ctx.saved_tensors
        return gradients[0] * inside, None, None, None
