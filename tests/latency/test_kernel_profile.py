from functools import partial

import pytest
from torch import nn

from latency.device import parse_device
from latency.graph import executed_kernels
from latency.kernel_profile import profile_of
from latency.lowering import to_onnx
from latency.parts import Node, Parts, PartsEffort, ProfilerCost, time_parts
from latency.runtimes.onnx_parts import open_parts

CPU = parse_device("cpu")
COST = ProfilerCost(node_s=2e-6, input_s=1e-6, call_s=5e-6)


@pytest.fixture(scope="module")
def model():
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)]
    return to_onnx(nn.Sequential(*layers), (3, 8, 8)).SerializeToString()


def parts(names):
    return Parts(tuple(Node(name, "Conv", 3, (2e-5,)) for name in names), 6, 1.0)


def test_every_kernel_of_a_network_gets_its_time(model):
    (timed,) = time_parts([partial(open_parts, model, CPU)], 1, PartsEffort(0, 3, 1))
    kernels = executed_kernels(model, CPU)
    profile = profile_of(kernels, timed, ProfilerCost(0.0, 0.0, 0.0))
    assert profile.kernels == kernels and len(profile.kernel_s) == len(kernels) >= 3
    assert min(profile.kernel_s) > 0 and sum(profile.kernel_s) == pytest.approx(profile.call_s)


def test_times_are_without_the_profiler_and_of_a_usual_minute(model):
    kernels = executed_kernels(model, CPU)
    profile = profile_of(kernels, parts(k.name for k in kernels), COST, slower=1.5)
    assert profile.kernel_s == pytest.approx([1.5e-5 / 1.5] * len(kernels))
    assert profile.call_s == pytest.approx((len(kernels) * 1.5e-5 + 5e-6) / 1.5)


def test_kernels_that_names_do_not_tell_apart_get_no_times(model):
    kernels = executed_kernels(model, CPU)
    found = profile_of(kernels, parts(k.name for k in kernels[1:]), COST)
    assert found.kernel_s == () and found.call_s > 0
