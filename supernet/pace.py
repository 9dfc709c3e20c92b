"""How a network trains fastest on this machine: on how many threads, and whether in bfloat16.

Small layers gain nothing from a second thread, and on a busy machine each of their thousands of joins waits for a time
slice: then two threads train several times slower than one.  Without instructions for bfloat16, a processor trains
several times slower in it than in float32.  So both are tried.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from search_spaces.network import run
from search_spaces.space import SearchSpace

_TRIES = 3
_CLEARLY = 0.9  # of the time in float32, above which bfloat16 is not worth its rounding
_HOPELESS = 2.0  # times that with a few images, above which all of them need not be tried: it may be 20 times
_FEW = 4

Clock = Callable[[], float]


@dataclass(frozen=True)
class Pace:
    """How a training computes; its weights depend on both.

    Args:
        threads: of torch.
        autocast: whether forward passes compute in bfloat16 where torch deems it safe.
    """

    threads: int
    autocast: bool


def measured_pace(
    network: nn.Module,
    space: SearchSpace,
    image_shape: tuple[int, ...],
    batch: int,
    autocast: bool | None = None,
    device: torch.device | None = None,
    clock: Clock = time.perf_counter,
) -> Pace:
    """The pace at which the largest architecture goes forward and back fastest; `network` is not changed.

    One thread or as many as torch uses now, which is kept where the network is not on the CPU; bfloat16 where it takes
    a tenth less time than float32.

    Args:
        autocast: given where nothing is to be tried.
        device: on which bfloat16 is tried, by default where the network is.
    """
    here = next(network.parameters()).device
    images = torch.zeros(batch, *image_shape)
    threads = _Passes(network, space, images.to(here), clock).threads()
    if autocast is None:
        autocast = _Passes(network, space, images.to(device or here), clock).gains_from_autocast(threads)
    return Pace(threads, autocast)


class _Passes:
    """Passes of the largest architecture, forward and back, that are timed."""

    def __init__(self, network: nn.Module, space: SearchSpace, images: Tensor, clock: Clock) -> None:
        self.images, self.device, self.largest, self.clock = images, images.device, space.largest(), clock
        self.network = copy.deepcopy(network).train().to(self.device).to(memory_format=torch.channels_last)

    def threads(self) -> int:
        """One thread or as many as now, whichever is faster."""
        now = torch.get_num_threads()
        if now == 1 or self.device.type != "cpu":
            return now
        self._took_s(1, False)  # the first time costs more
        return now if self._ratio((now, False), (1, False)) < 1 else 1

    def gains_from_autocast(self, threads: int) -> bool:
        """Whether bfloat16 is clearly faster."""
        bfloat16, float32 = (threads, True), (threads, False)
        for images in (_FEW, len(self.images)):
            self._took_s(*float32, images)
            self._took_s(*bfloat16, images)
            if (ratio := self._ratio(bfloat16, float32, images)) > _HOPELESS:
                return False
        return ratio <= _CLEARLY

    def _ratio(self, first: tuple[int, bool], second: tuple[int, bool], images: int | None = None) -> float:
        """The median time of the first way over that of the second, tried in turn."""
        times = [(self._took_s(*first, images), self._took_s(*second, images)) for _ in range(_TRIES)]
        one, other = (statistics.median(column) for column in zip(*times, strict=True))
        return one / other

    def _took_s(self, threads: int, autocast: bool, images: int | None = None) -> float:
        with using_threads(threads):
            self._wait()
            start = self.clock()
            with torch.autocast(self.device.type, torch.bfloat16, enabled=autocast):
                logits = run(self.network, self.images[:images], self.largest)
            logits.float().sum().backward()
            self._wait()
            return self.clock() - start

    def _wait(self) -> None:
        """Let a GPU end what it was told to do."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


@contextmanager
def using_threads(threads: int) -> Iterator[None]:
    """Lets torch use that many threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
