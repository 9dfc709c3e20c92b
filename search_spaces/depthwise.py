"""Depthwise convolution that is also fast where the kernel is larger than the map.

Late stages of small images are maps of 2 x 2 to 6 x 6, under kernels of 3 x 3 to 7 x 7.  Convolution kernels, and their
backward passes above all, are built for large maps: there one matrix product per channel is up to ten times faster.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor


def depthwise(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
    """Convolution of each channel of `x` (b, c, h, w) with its kernel in `weight` (c, 1, k, k), "same" padding.

    Equal to `F.conv2d` with as many groups as channels, up to the order of sums.
    """
    channels, _, kernel, _ = weight.shape
    if x.device.type != "cpu" or x.shape[2] * x.shape[3] > kernel * kernel:
        return F.conv2d(x, weight, bias, stride, kernel // 2, 1, channels)
    taps = _taps(x.shape[2], x.shape[3], kernel, stride)
    spread = F.pad(weight.reshape(channels, -1), (0, 1))[:, taps.flatten()].view(channels, *taps.shape)
    y = torch.bmm(x.reshape(len(x), channels, -1).transpose(0, 1), spread).transpose(0, 1)
    y = y.reshape(len(x), channels, (x.shape[2] - 1) // stride + 1, -1)
    return y if bias is None else y + bias[:, None, None]


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
