import copy
import dataclasses

import pytest
import torch
from torch import nn

from latency.count import Counts, Layer, count, count_

ZERO = Counts(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)


def of(**numbers):
    return dataclasses.replace(ZERO, **numbers)


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (  # dense 3x3, stride 2: out 8 x 4 x 4
            nn.Conv2d(3, 8, 3, stride=2, padding=1),
            (3, 8, 8),
            of(
                macs=128 * 27, dense_macs=128 * 27, parameters=8 * 27 + 8, weight_elements=8 * 27, layers=1,
                activation_elements=128, input_elements=192, output_elements=128,
            ),
        ),
        (  # pointwise
            nn.Conv2d(4, 6, 1, bias=False),
            (4, 5, 5),
            of(
                macs=150 * 4, pointwise_macs=150 * 4, parameters=24, weight_elements=24, layers=1,
                activation_elements=150, input_elements=100, output_elements=150,
            ),
        ),
        (  # depthwise
            nn.Conv2d(6, 6, 5, padding=2, groups=6, bias=False),
            (6, 7, 7),
            of(
                macs=294 * 25, depthwise_macs=294 * 25, parameters=150, weight_elements=150, layers=1,
                activation_elements=294, input_elements=294, output_elements=294,
            ),
        ),
        (  # grouped 1x1 is neither pointwise nor depthwise
            nn.Conv2d(8, 4, 1, groups=2, bias=False),
            (8, 3, 3),
            of(
                macs=36 * 4, dense_macs=36 * 4, parameters=16, weight_elements=16, layers=1,
                activation_elements=36, input_elements=72, output_elements=36,
            ),
        ),
        (  # one channel in one group is not depthwise
            nn.Conv2d(1, 1, 3, bias=False),
            (1, 3, 3),
            of(
                macs=9, dense_macs=9, parameters=9, weight_elements=9, layers=1,
                activation_elements=1, input_elements=9, output_elements=1,
            ),
        ),
        (  # channel multiplier 2: not depthwise as defined here
            nn.Conv2d(2, 4, 3, groups=2, bias=False),
            (2, 3, 3),
            of(
                macs=36, dense_macs=36, parameters=36, weight_elements=36, layers=1,
                activation_elements=4, input_elements=18, output_elements=4,
            ),
        ),
        (  # every input element meets out / groups x k x k weights
            nn.ConvTranspose2d(2, 3, 2, stride=2, bias=False),
            (2, 4, 4),
            of(
                macs=32 * 12, dense_macs=32 * 12, parameters=24, weight_elements=24, layers=1,
                activation_elements=192, input_elements=32, output_elements=192,
            ),
        ),
        (
            nn.Linear(10, 4),
            (10,),
            of(
                macs=40, linear_macs=40, parameters=44, weight_elements=40, layers=1,
                activation_elements=4, input_elements=10, output_elements=4,
            ),
        ),
        (nn.BatchNorm2d(4), (4, 2, 2), of(parameters=8, input_elements=16, output_elements=16)),
        (nn.AdaptiveAvgPool2d(1), (4, 2, 2), of(input_elements=16, output_elements=4)),
        (nn.ReLU(), (4, 2, 2), of(activation_elements=16, input_elements=16, output_elements=16)),
        (
            nn.Hardswish(),
            (4, 2, 2),
            of(activation_elements=16, hswish_elements=16, input_elements=16, output_elements=16),
        ),
    ],
)  # fmt: skip
def test_hand_formulas(layer, shape, expected):
    assert count(layer, shape) == expected


class Residual(nn.Module):
    def __init__(self, add):
        super().__init__()
        self.conv, self.add = nn.Conv2d(2, 2, 1, bias=False), add

    def forward(self, x):
        return self.add(x, self.conv(x)) + 1  # a constant is no addition of tensors


@pytest.mark.parametrize("add", [lambda x, y: x + y, torch.add, lambda x, y: y.add_(x), lambda x, y: x.add(y)])
def test_an_addition_counts_its_elements(add):
    assert count(Residual(add), (2, 3, 3)).activation_elements == 18 + 18


def test_a_network_is_the_sum_of_its_layers():
    layers = [
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.Hardswish(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    ]
    shapes = [(3, 8, 8), (8, 6, 6), (8, 6, 6), (8, 6, 6), (8, 1, 1), (8,)]
    total = count(nn.Sequential(*layers), (3, 8, 8))
    parts = sum((count(*pair) for pair in zip(layers, shapes, strict=True)), ZERO)
    assert dataclasses.replace(parts, input_elements=192, output_elements=5) == total
    assert total.macs == total.pointwise_macs + total.depthwise_macs + total.dense_macs + total.linear_macs


def test_a_layer_run_twice_computes_twice_and_is_stored_once():
    layer = nn.Linear(4, 4)
    once, twice = count(layer, (4,)), count(nn.Sequential(layer, layer), (4,))
    assert twice.macs == 2 * once.macs and twice.layers == 2
    assert twice.parameters == once.parameters and twice.weight_elements == once.weight_elements


def test_tied_weights_are_stored_once():
    a, b = nn.Linear(4, 4), nn.Linear(4, 4)
    b.weight = a.weight
    tied = count(nn.Sequential(a, b), (4,))
    assert tied.weight_elements == 16 and tied.parameters == 24 and tied.macs == 32


def test_the_module_is_left_as_it_was():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout()).train()
    module[1].eval()
    before = copy.deepcopy(module.state_dict())
    count(module, (3, 8, 8))
    assert [m.training for m in module.modules()] == [True, True, False, True]
    assert all(p.device.type == "cpu" for p in module.parameters())
    assert all(torch.equal(before[k], v) for k, v in module.state_dict().items())
    assert not any(m._forward_hooks for m in module.modules())


def test_counts_add_number_by_number():
    total = Counts(*range(12)) + Counts(*range(100, 112))
    assert total == Counts(*range(100, 124, 2))


class Attended(nn.Module):
    """A depthwise convolution, an activation, channels weighed by their means, and a sum with the input."""

    def __init__(self):
        super().__init__()
        self.depthwise = nn.Conv2d(4, 4, 3, stride=1, padding=1, groups=4)
        self.norm, self.act = nn.BatchNorm2d(4), nn.Hardswish()
        self.pool, self.weigh = nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 4, 1)

    def forward(self, x):
        y = self.act(self.norm(self.depthwise(x)))
        return x + y * torch.relu(self.weigh(self.pool(y)))


def test_layers_know_what_comes_after_them():
    _, layers, _ = count_(Attended(), (4, 6, 6))
    assert layers == (
        Layer("depthwise", "depthwise", 9 * 144, 36, (4, 4), (36, 36), 9, activation_elements=144, other_elements=144),
        Layer("pointwise", "weigh", 16, 16, (4, 4), (1, 1), 1, other_elements=2 * 144),
    )


def test_what_comes_before_the_first_weights_is_a_layer_too():
    _, layers, _ = count_(nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(3, 5, 3, stride=2), nn.ReLU()), (3, 10, 10))
    assert layers == (Layer("none", other_elements=300), Layer("dense", "1", 5 * 4 * 27, 135, (3, 5), (25, 4), 9))
    assert count_(nn.Identity(), (3, 2, 2))[1] == count_(nn.Sequential(), (3, 2, 2))[1] == ()
    _, layers, _ = count_(nn.Linear(8, 2), (5, 8))
    assert layers == (Layer("linear", "", 5 * 16, 16, (8, 2), (5, 5)),)
