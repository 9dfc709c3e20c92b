"""Depthwise convolution, forward and backward: torch's own against ours."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from search_spaces.depthwise import depthwise

ROUNDS, BATCH = 21, 32
SMALL = ((256, 2, 7, 1), (160, 3, 7, 1), (96, 6, 7, 1), (96, 6, 7, 2), (192, 4, 5, 1), (256, 2, 3, 1))
LARGE = ((160, 8, 7, 1), (160, 8, 7, 2), (96, 16, 7, 1), (96, 16, 5, 1), (240, 16, 5, 2), (64, 32, 7, 2))
SHAPES = (*SMALL, *LARGE)  # channels, side, kernel, stride

Depthwise = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Args:
        ratio: torch's median time over ours.
        control: the ratio of two arms of torch's, which is 1 but for noise.
    """

    name: str
    ratio: float
    control: float

    def __str__(self) -> str:
        return f"{self.name:<36} {self.ratio:6.2f}x   A/A {self.control:.3f}"


def bench() -> tuple[Row, ...]:
    """Times each shape on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return tuple(_measure(*shape) for shape in SHAPES)
    finally:
        torch.set_num_threads(threads)


def _measure(channels: int, side: int, kernel: int, stride: int) -> Row:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(BATCH, channels, side, side, generator=generator).to(memory_format=torch.channels_last)
    weight = torch.randn(channels, 1, kernel, kernel, generator=generator)

    def ours(x: Tensor, weight: Tensor) -> Tensor:
        return depthwise(x, weight, None, stride)

    def torchs(x: Tensor, weight: Tensor) -> Tensor:
        return F.conv2d(x, weight, None, stride, kernel // 2, 1, channels)

    torch.testing.assert_close(ours(x, weight), torchs(x, weight), rtol=1e-4, atol=1e-4)
    arms: tuple[tuple[Depthwise, list[float]], ...] = ((torchs, []), (ours, []), (torchs, []))
    for i in range(ROUNDS):
        for function, times in arms if i % 2 == 0 else reversed(arms):
            times.append(_took_s(function, x, weight))
    first, second, third = (statistics.median(times) for _, times in arms)
    name = f"{channels} channels, {side} x {side}, kernel {kernel}, stride {stride}"
    return Row(name, first / second, third / first)


def _took_s(function: Depthwise, x: Tensor, weight: Tensor) -> float:
    leaves = [t.detach().requires_grad_() for t in (x, weight)]
    start = time.perf_counter()
    function(*leaves).sum().backward()
    return time.perf_counter() - start
