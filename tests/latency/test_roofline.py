import dataclasses

import pytest

from latency.graph import Kernel, Tensor
from latency.roofline import Peaks, floor_s, kernel_floor_s, needed_macs

PEAKS = Peaks("here", 1e9, 4e9, 1e8, 2e8, ((1000, 1e9), (10_000, 1e8)), node_s=1e-6, call_s=1e-5)


def convolution(size, out, k, stride=1, groups=1, dtype="float32", channels=4, last=False):
    shape = (lambda c, s: (1, s, s, c)) if last else (lambda c, s: (1, c, s, s))
    x, y = Tensor("x", shape(channels, size), dtype), Tensor("y", shape(channels, out), dtype)
    w = Tensor("w", (channels, channels // groups, k, k), dtype.replace("uint", "int"))
    attributes = (("channels_last", int(last)), ("group", groups), ("strides", (stride, stride)))
    macs = y.elements * (channels // groups) * k * k
    return Kernel("n", "", "Conv", "", (x,), (w,), (), (y,), attributes, macs, x.bytes, y.bytes, w.bytes)


def moving(size):
    x = Tensor("x", (size // 8,), "float32")
    return Kernel("n", "", "Relu", "", (x,), (), (), (x,), (), 0, size // 2, size // 2, 0)


@pytest.mark.parametrize(
    ("kernel", "rate"),
    [
        (convolution(8, 8, 1), 1e9),
        (convolution(8, 8, 1, dtype="uint8"), 4e9),
        (convolution(8, 8, 1, groups=4), 1e8),
        (convolution(8, 8, 1, groups=4, dtype="uint8"), 2e8),
        (convolution(8, 8, 1, groups=2), 1e9),  # grouped, but not depthwise
        (convolution(8, 8, 1, dtype="float16"), 4e9),  # not known: the highest
    ],
)
def test_macs_go_at_the_peak_of_their_kind(kernel, rate):
    assert PEAKS.macs_per_s(kernel) == rate
    free = dataclasses.replace(kernel, bytes_read=0, bytes_written=0, weight_bytes=0)
    assert kernel_floor_s(free, PEAKS) == pytest.approx(1e-6 + kernel.macs / rate)


@pytest.mark.parametrize(("size", "rate"), [(800, 1e9), (1000, 1e9), (9992, 1e9), (10_000, 1e8), (80_000, 1e8)])
def test_bytes_go_at_the_bandwidth_of_the_largest_set_that_is_no_larger(size, rate):
    assert kernel_floor_s(moving(size), PEAKS) == pytest.approx(1e-6 + size / rate)


def test_a_call_is_the_sum_of_its_kernels_and_its_own_cost():
    kernels = [moving(800), convolution(8, 8, 1), dataclasses.replace(moving(800), bytes_read=0, bytes_written=0)]
    assert floor_s(kernels, PEAKS) == pytest.approx(1e-5 + sum(kernel_floor_s(k, PEAKS) for k in kernels))
    assert kernel_floor_s(kernels[2], PEAKS) == 1e-6 and floor_s([], PEAKS) == 1e-5


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(
    ("size", "out", "k", "stride", "taps"),
    [
        (1, 1, 3, 1, 1),  # one pixel, eight of nine taps meet padding
        (4, 4, 3, 1, 2 + 3 + 3 + 2),
        (6, 4, 3, 1, 12),  # no padding
        (4, 2, 3, 2, 5),  # padded on one side or on both: one tap is lost at least
        (5, 5, 7, 1, 4 + 5 + 5 + 5 + 4),
        (8, 4, 1, 2, 4),
    ],
)
def test_padding_needs_no_macs(size, out, k, stride, taps, last):
    kernel = convolution(size, out, k, stride, groups=4, last=last)
    assert needed_macs(kernel) == pytest.approx(4 * taps**2)
    assert needed_macs(moving(800)) == 0


@pytest.mark.parametrize(
    "wrong",
    [{"node_s": 0.0}, {"int8_macs_per_s": float("nan")}, {"bandwidths": ()}, {"bandwidths": ((10, 1.0), (20, 2.0))}],
)
def test_peaks_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValueError, match=r"peaks must be finite|bandwidths must go"):
        dataclasses.replace(PEAKS, **wrong)
