"""How many threads train a network fastest on this machine.

Small layers gain nothing from a second thread, and on a busy machine each of their thousands of joins waits for a time
slice: then two threads train several times slower than one.  So it is tried.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from search_spaces.network import run
from search_spaces.space import SearchSpace

_TRIES = 3


def fastest_threads(
    network: nn.Module,
    space: SearchSpace,
    image_shape: tuple[int, ...],
    batch: int,
    clock: Callable[[], float] = time.perf_counter,
) -> int:
    """One thread, or as many as torch uses now: whichever runs the largest architecture forward and back faster.

    Networks that are not on the CPU keep the number of now.
    """
    now = torch.get_num_threads()
    if now == 1 or any(p.device.type != "cpu" for p in network.parameters()):
        return now
    scratch = copy.deepcopy(network).train()
    images = torch.zeros(batch, *image_shape)

    def took_s(threads: int) -> float:
        with using_threads(threads):
            start = clock()
            run(scratch, images, space.largest()).sum().backward()
            return clock() - start

    took_s(1)  # the first time costs more
    times = [(took_s(1), took_s(now)) for _ in range(_TRIES)]
    one, many = (statistics.median(column) for column in zip(*times, strict=True))
    return now if many < one else 1


@contextmanager
def using_threads(threads: int) -> Iterator[None]:
    """Lets torch use that many threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
