"""The roofline: the least time that kernels can take on a device, from the best rates that it was seen to reach.

    floor = call + sum over kernels of [node + max(MACs / peak MACs per second, bytes / bandwidth)]

A measurement below the floor says that one of the two is wrong.  Source: Williams, Waterman and Patterson, "Roofline:
an insightful visual performance model" (CACM 2009).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from latency.graph import Kernel

_FLOATS = ("float32", "float64")


@dataclass(frozen=True)
class Peaks:
    """The best that a device was seen to do, one kernel after the other.

    Args:
        fingerprint: of the device, as `device.fingerprint` gives it.
        float_macs_per_s: of matrix products and dense convolutions in float32.
        int8_macs_per_s: the same in int8.
        depthwise_float_macs_per_s: of convolutions with one input channel per output channel.
        depthwise_int8_macs_per_s: the same in int8.
        bandwidths: pairs of a working set in bytes and the bytes per second, read and written, that kernels of that
            size reach; from small to large, from fast to slow.
        node_s: what a kernel costs that computes next to nothing.
        call_s: what a call costs besides its kernels.

    Raises:
        ValueError: a rate or time that is not finite and positive, or bandwidths out of order.
    """

    fingerprint: str
    float_macs_per_s: float
    int8_macs_per_s: float
    depthwise_float_macs_per_s: float
    depthwise_int8_macs_per_s: float
    bandwidths: tuple[tuple[int, float], ...]
    node_s: float
    call_s: float

    def __post_init__(self) -> None:
        rates = (self.float_macs_per_s, self.int8_macs_per_s, *(rate for _, rate in self.bandwidths))
        depthwise = (self.depthwise_float_macs_per_s, self.depthwise_int8_macs_per_s)
        for value in (*rates, *depthwise, self.node_s, self.call_s):
            if not 0 < value < math.inf:
                raise ValueError(f"peaks must be finite and positive, got {value}")
        sizes, speeds = [size for size, _ in self.bandwidths], [speed for _, speed in self.bandwidths]
        if not sizes or sizes != sorted(set(sizes)) or speeds != sorted(speeds, reverse=True):
            raise ValueError(f"bandwidths must go from small and fast to large and slow, got {self.bandwidths}")

    def bandwidth(self, working_set: int) -> float:
        """Bytes per second of a kernel that touches so many bytes: that of the largest set which is no larger."""
        fitting = [rate for size, rate in self.bandwidths if size <= working_set]
        return fitting[-1] if fitting else self.bandwidths[0][1]

    def macs_per_s(self, kernel: Kernel) -> float:
        """The peak of a kernel's kind; of what is neither float nor int8, the highest."""
        depthwise = kernel.group > 1 and any(w.shape[1:2] == (1,) for w in kernel.weights)
        if all(t.dtype in _FLOATS for t in kernel.inputs + kernel.weights):
            return self.depthwise_float_macs_per_s if depthwise else self.float_macs_per_s
        return self.depthwise_int8_macs_per_s if depthwise else self.int8_macs_per_s


def floor_s(kernels: Iterable[Kernel], peaks: Peaks) -> float:
    """The least seconds that one call with these kernels can take."""
    return peaks.call_s + sum(kernel_floor_s(kernel, peaks) for kernel in kernels)


def kernel_floor_s(kernel: Kernel, peaks: Peaks) -> float:
    """The least seconds that a kernel can take inside a call."""
    moved = kernel.bytes_read + kernel.bytes_written + (kernel.weight_bytes if kernel.bytes_written else 0)
    return peaks.node_s + max(needed_macs(kernel) / peaks.macs_per_s(kernel), moved / peaks.bandwidth(moved))


def needed_macs(kernel: Kernel) -> float:
    """The MACs of a kernel without those of a convolution that meet padding, which nobody has to compute."""
    if "Conv" not in kernel.op_type or "Transpose" in kernel.op_type or not kernel.weights:
        return kernel.macs
    last = dict(kernel.attributes).get("channels_last") == 1
    seen, made = ((t.shape[1:-1] if last else t.shape[2:]) for t in (kernel.inputs[0], kernel.outputs[0]))
    axes = zip(seen, made, kernel.kernel_size, kernel.stride, kernel.dilation, strict=True)
    return kernel.macs * math.prod(_inside(*axis) for axis in axes)


def _inside(size: int, out: int, kernel: int, stride: int, dilation: int) -> float:
    """The share of an axis' taps that meet the input; what is missing at its ends was padded, evenly."""
    before = max(0, (out - 1) * stride + dilation * (kernel - 1) + 1 - size) // 2
    taps = (i * stride + tap * dilation - before for i in range(out) for tap in range(kernel))
    return sum(0 <= place < size for place in taps) / (out * kernel)
