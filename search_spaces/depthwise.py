"""Depthwise convolution that trains fast also where the kernel is larger than the map.

Late stages of small images are maps of 2 x 2 to 6 x 6, under kernels of 3 x 3 to 7 x 7.  There the kernel of the
weight's gradient, built for large maps, takes ten times as long as one matrix product per channel.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import FunctionCtx, once_differentiable


def depthwise(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
    """Convolution of each channel of `x` (b, c, h, w) with its kernel in `weight` (c, 1, k, k), "same" padding.

    `F.conv2d` with as many groups as channels; on small maps on the CPU, the weight's gradient equals its one up to the
    order of sums, and can itself not be differentiated.
    """
    channels, _, kernel, _ = weight.shape
    if x.device.type != "cpu" or x.shape[2] * x.shape[3] > kernel * kernel or not weight.requires_grad:
        return F.conv2d(x, weight, bias, stride, kernel // 2, 1, channels)
    if torch.is_autocast_enabled("cpu"):  # which does not look into a function with a backward of its own
        x, weight = (t.to(torch.get_autocast_dtype("cpu")) for t in (x, weight))
    y: Tensor = _Depthwise.apply(x, weight, stride)
    return y if bias is None else y + bias[:, None, None]


class _Depthwise(Function):
    """The convolution, whose weight's gradient is a sum of parts of a matrix product."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, stride: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride = stride  # type: ignore[attr-defined]
        return F.conv2d(x, weight, None, stride, weight.shape[-1] // 2, 1, len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, Tensor, None]:
        x, weight = ctx.saved_tensors  # type: ignore[attr-defined]
        stride, kernel = ctx.stride, weight.shape[-1]  # type: ignore[attr-defined]
        of_x = None
        if ctx.needs_input_grad[0]:  # type: ignore[attr-defined]
            settings = (None, (stride,) * 2, (kernel // 2,) * 2, (1, 1), False, (0, 0), len(weight))
            of_x = torch.ops.aten.convolution_backward(gradient, x, weight, *settings, (True, False, False))[0]
        return of_x, _weight_gradient(gradient, x, kernel, stride).to(weight.dtype), None


def _weight_gradient(gradient: Tensor, x: Tensor, kernel: int, stride: int) -> Tensor:
    """The weight's gradient (c, 1, k, k) from the output's (b, c, h', w') and the input (b, c, h, w).

    Each product of an input and an output pixel, summed over images, belongs to the tap between them.
    """
    channels = x.shape[1]
    inputs = x.permute(1, 2, 3, 0).reshape(channels, -1, len(x)).contiguous()
    outputs = gradient.permute(1, 0, 2, 3).reshape(channels, len(x), -1).contiguous()
    products = torch.bmm(inputs, outputs).view(channels, -1)
    sums = torch.zeros(channels, kernel * kernel + 1, dtype=torch.promote_types(x.dtype, torch.float32))
    sums.index_add_(1, _taps(x.shape[2], x.shape[3], kernel, stride).flatten(), products.to(sums.dtype))
    return sums[:, :-1].reshape(channels, 1, kernel, kernel)


@functools.lru_cache
def _taps(height: int, width: int, kernel: int, stride: int) -> Tensor:
    """The tap that leads from each input pixel to each output pixel (h · w, h' · w'); k² where none does."""
    with torch.inference_mode(False):  # kept, and used in training too, whoever asks first
        return _made_taps(height, width, kernel, stride)


def _made_taps(height: int, width: int, kernel: int, stride: int) -> Tensor:
    down, right = (_offsets(size, kernel, stride) for size in (height, width))
    rows, columns = down[:, None, :, None], right[None, :, None, :]
    inside = (rows >= 0) & (rows < kernel) & (columns >= 0) & (columns < kernel)
    taps = torch.where(inside, rows * kernel + columns, kernel * kernel)
    return taps.reshape(height * width, -1)


def _offsets(size: int, kernel: int, stride: int) -> Tensor:
    """Which tap of a kernel's side leads from each input position to each output position (in, out)."""
    outputs = torch.arange(0, size, stride, device="cpu")
    return torch.arange(size, device="cpu")[:, None] - outputs[None] + kernel // 2
