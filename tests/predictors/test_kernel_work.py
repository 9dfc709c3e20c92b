import math

import pytest
from torch import nn

from latency.device import parse_device
from latency.graph import Kernel, Tensor, executed_kernels, kernels_of
from latency.lowering import to_onnx
from latency.random_networks import _Attention
from predictors.kernel_work import work_of


def tensor(*shape):
    return Tensor("t", shape, "float32")


IMAGE = tensor(1, 32, 12, 12)


def conv(w, group=1, domain="com.microsoft.nchwc", inputs=(IMAGE,), activation=""):
    y = tensor(1, w[0], 12, 12)
    macs = y.elements * math.prod(w[1:])
    attributes = (("group", group), ("strides", (1, 1)))
    return Kernel("k", domain, "Conv", activation, inputs, (tensor(*w),), (), (y,), attributes, macs, 4, 4, 4)


@pytest.mark.parametrize(
    ("kernel", "kind"),
    [
        (conv((64, 32, 1, 1)), "conv blocked pointwise"),
        (conv((64, 32, 3, 3)), "conv blocked dense"),
        (conv((32, 1, 3, 3), 32), "conv blocked depthwise"),
        (conv((32, 8, 3, 3), 4), "conv blocked grouped"),
        (conv((16, 3, 3, 3), inputs=(tensor(1, 3, 12, 12),)), "conv blocked stem"),
        (conv((30, 32, 1, 1), domain=""), "conv plain pointwise"),
    ],
)
def test_convolutions_are_told_apart_by_how_they_are_computed(kernel, kind):
    assert work_of(kernel).kind == kind
    assert work_of(kernel).amounts[1] == kernel.macs / 1e5


def test_what_is_fused_into_a_convolution_counts():
    plain, x = work_of(conv((32, 32, 1, 1))), tensor(1, 32, 12, 12)
    added = work_of(conv((32, 32, 1, 1), inputs=(x, Tensor("u", x.shape, "float32"))))
    gated = work_of(conv((32, 32, 1, 1), activation="HardSigmoid"))
    cheap = work_of(conv((32, 32, 1, 1), activation="Relu"))
    assert plain.amounts[7:] == (0, 0) == cheap.amounts[7:]
    assert added.amounts[7] == gated.amounts[8] == x.elements / 1e4


def test_every_kernel_of_a_family_has_as_many_features():
    layer = _Attention(8, 2, 2.0, True)
    convolutional = nn.Sequential(nn.Conv2d(3, 12, 3, 2), nn.SiLU(), nn.Conv2d(12, 12, 3, groups=12), nn.MaxPool2d(2))
    kernels = [
        *kernels_of(to_onnx(layer, (5, 8))),
        *executed_kernels(to_onnx(convolutional, (3, 17, 17)).SerializeToString(), parse_device("cpu")),
    ]
    lengths = {}
    for work in map(work_of, kernels):
        lengths.setdefault(work.family, set()).add((len(work.amounts), len(work.logs)))
        assert all(map(math.isfinite, (*work.amounts, *work.logs)))
        assert min(work.amounts) >= 0
    assert set(lengths) >= {"conv", "product", "elementwise"}
    assert all(len(found) == 1 for found in lengths.values()), lengths
