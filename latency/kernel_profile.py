"""Networks measured kernel by kernel: what a latency model for any graph is fitted on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from latency.graph import Kernel
from latency.parts import Parts, ProfilerCost

_LEAST_KERNEL_S = 2e-7


@dataclass(frozen=True)
class KernelProfile:
    """One network, its times undisturbed.

    Args:
        kernels: as ONNX Runtime executes them, in order (n).
        kernel_s: of each kernel in its place (n); empty where their names do not tell them apart.
        call_s: of a whole call.
    """

    kernels: tuple[Kernel, ...]
    kernel_s: tuple[float, ...]
    call_s: float


def profile_of(kernels: Sequence[Kernel], parts: Parts, cost: ProfilerCost, slower: float = 1.0) -> KernelProfile:
    """The times of a network's kernels, without what the profiler adds.

    Args:
        slower: by what factor the machine was slower than usual when they were timed.
    """
    times = {node.name: max(cost.without(node), _LEAST_KERNEL_S) for node in parts.nodes}
    names = [kernel.name for kernel in kernels]
    apart = len(set(names)) == len(names) and set(names) == set(times)
    kernel_s = tuple(times[name] / slower for name in names) if apart else ()
    return KernelProfile(tuple(kernels), kernel_s, parts.seconds(cost) / slower)
