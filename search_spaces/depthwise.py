"""Depthwise convolution whose weight's gradient is fast on CPUs.

oneDNN's own takes up to ten times as long as the forward pass.  Two ways around it, found by measurement:

* Late stages of small images are maps of 2 x 2 to 6 x 6, under kernels of 3 x 3 to 7 x 7.  There one matrix product per
  channel takes a tenth of the time.
* On larger maps, an image's gradient under a kernel of 5 x 5 or 7 x 7 is itself a forward convolution: of the image, by
  the output's gradient as its kernel.  That takes a third to three quarters of the time.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import FunctionCtx, once_differentiable

_LEAST_KERNEL = 5  # oneDNN is fast at 3 x 3
_LEAST_MACS = 2**23
_CHUNK = 2**16  # input elements to be convolved at once by each thread


def depthwise(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
    """Convolution of each channel of `x` (b, c, h, w) with its kernel in `weight` (c, 1, k, k), "same" padding.

    `F.conv2d` with as many groups as channels; where a gradient of our own is faster, it equals torch's up to the order
    of sums, and can itself not be differentiated.
    """
    channels, _, kernel, _ = weight.shape
    ours = _small(x, kernel) or _long(x, kernel, stride)
    if x.device.type != "cpu" or not weight.requires_grad or not ours:
        return F.conv2d(x, weight, bias, stride, kernel // 2, 1, channels)
    if torch.is_autocast_enabled("cpu"):  # which does not look into a function with a backward of its own
        x, weight = (t.to(torch.get_autocast_dtype("cpu")) for t in (x, weight))
    y: Tensor = _Depthwise.apply(x, weight, stride)
    return y if bias is None else y + bias[:, None, None]


def _small(x: Tensor, kernel: int) -> bool:
    """Whether the kernel covers the map, so that products of pixels that no tap joins are few."""
    return x.shape[2] * x.shape[3] <= kernel * kernel


def _long(x: Tensor, kernel: int, stride: int) -> bool:
    """Whether the gradient takes so long that calls for a few images at a time do not count."""
    return kernel >= _LEAST_KERNEL and x.numel() * kernel * kernel // stride**2 >= _LEAST_MACS


class _Depthwise(Function):
    """The convolution, with a gradient of the weight that is not oneDNN's."""

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
        of_weight = _from_products if _small(x, kernel) else _from_images
        return of_x, of_weight(gradient, x, kernel, stride).to(weight.dtype), None


def _from_images(gradient: Tensor, x: Tensor, kernel: int, stride: int) -> Tensor:
    """The weight's gradient (c, 1, k, k) as the sum of convolutions of images by their output's gradient.

    A tap meets input pixels `stride` apart, hence the dilation.  A few images are convolved at once, their channels
    side by side: so many that they fill the threads, and few enough to stay in their caches.
    """
    images, channels = x.shape[:2]
    most = max(1, _CHUNK * torch.get_num_threads() // x[0].numel())
    at_once = max(n for n in range(1, min(most, images) + 1) if images % n == 0)
    exact = torch.promote_types(x.dtype, torch.float32)
    sums = torch.zeros((), dtype=exact)
    for inputs, kernels in zip(x.split(at_once), gradient.split(at_once), strict=True):
        weights = _side_by_side(kernels).transpose(0, 1)
        y = F.conv2d(_side_by_side(inputs), weights, None, 1, kernel // 2, stride, at_once * channels)
        sums = sums + y.to(exact)
    return sums[0, :, :kernel, :kernel].reshape(-1, channels, 1, kernel, kernel).sum(0)


def _side_by_side(x: Tensor) -> Tensor:
    """One image (1, b · c, h, w) of all channels of `x` (b, c, h, w), the channels of a pixel next to each other."""
    _, _, height, width = x.shape  # the form of each step decides strides of single axes, which oneDNN goes by
    return x.permute(2, 3, 0, 1).reshape(1, height, width, -1).permute(0, 3, 1, 2)


def _from_products(gradient: Tensor, x: Tensor, kernel: int, stride: int) -> Tensor:
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
