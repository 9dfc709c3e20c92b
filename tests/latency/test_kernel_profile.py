import pytest
from torch import nn

from latency.device import parse_device
from latency.graph import executed_kernels
from latency.harness import worker
from latency.kernel_profile import KernelProfile, profile_of, undisturbed_s
from latency.lowering import to_onnx
from latency.node_times import NodeTimes, profile_interleaved
from latency.pace import Pace

CPU = parse_device("cpu")


@pytest.fixture(scope="module")
def model():
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)]
    return to_onnx(nn.Sequential(*layers), (3, 8, 8)).SerializeToString()


def test_every_kernel_of_a_network_gets_its_time(model):
    seen = []
    (times,) = worker(CPU).profile([model], CPU, visits=2, calls=3, on_model=lambda: seen.append(1))
    profile = profile_of(executed_kernels(model, CPU), times)
    assert profile.kernels == executed_kernels(model, CPU)
    assert len(profile.profiled_s) == len(profile.kernels) >= 3
    assert min(profile.profiled_s) > 0 and profile.call_s > 0
    assert len(seen) == 2
    assert KernelProfile.from_json(profile.to_json()) == profile


def test_visits_are_kept_apart(model):
    found = profile_interleaved([model, model], CPU, visits=2, calls=3, pace=Pace())
    assert [len(times.call_s) for times in found] == [2, 2]
    assert all(len(visit) == 3 for times in found for visit in times.call_s)
    assert all(len(durations) == 6 for times in found for durations in times.node_s.values())
    joined = found[0].joined(found[1])
    assert len(joined.call_s) == 4 and {len(d) for d in joined.node_s.values()} == {12}


def test_a_visit_needs_calls(model):
    with pytest.raises(ValueError, match="at least 1, got 1 and 0"):
        profile_interleaved([model], CPU, visits=1, calls=0, pace=Pace())


def test_kernels_that_names_do_not_tell_apart_get_no_times(model):
    kernels = executed_kernels(model, CPU)
    times = NodeTimes([[1e-4]], {kernel.name: [1e-5] for kernel in kernels[1:]})
    assert profile_of(kernels, times).profiled_s == ()
    assert profile_of(kernels, times).call_s == 1e-4


def test_undisturbed_times_are_those_near_the_fastest():
    assert undisturbed_s([1.0, 1.05, 3.0, 2.0]) == pytest.approx(1.025)
    assert undisturbed_s([0.5, *[1.0] * 20, *[1.09] * 20, *[2.0] * 20]) == pytest.approx((0.5 + 20 + 21.8) / 41)
    assert undisturbed_s([5e-6, 6e-6, 9e-6], 1e-6) == pytest.approx(5.5e-6)


def test_text_that_is_no_profile_is_refused():
    for text in ("", "{}", '{"kernels": [], "profiled_s": ["x"], "call_s": 1}'):
        with pytest.raises(ValueError, match="not a kernel profile"):
            KernelProfile.from_json(text)
