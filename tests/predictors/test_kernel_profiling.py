import time

import numpy as np
import pytest
import torch
from torch import nn

from latency.device import parse_device
from latency.graph import executed_kernels
from latency.lowering import to_onnx
from latency.parts import PartsEffort
from latency.random_networks import RandomNetwork
from latency.store import MeasurementStore
from predictors import kernel_profiling
from predictors.kernel_profiling import KernelProfiler, Network

CPU = parse_device("cpu")


def small(i):
    torch.manual_seed(i)
    wide = 4 + 2 * (i % 12)
    layers = [nn.Conv2d(3, wide, 3, padding=1), nn.ReLU(), nn.Conv2d(wide, wide, 1), nn.Sigmoid()]
    return RandomNetwork(nn.Sequential(*layers, nn.Flatten(), nn.Linear(wide * 144, 4)).eval(), (3, 12, 12))


@pytest.fixture
def profiler(tmp_path, monkeypatch):
    """Of a device for which networks of no size are fitted; their times, and all else, are real."""
    monkeypatch.setattr(kernel_profiling, "sample_networks", lambda n, start: ((i, small(i)) for i in range(n)))
    monkeypatch.setattr(kernel_profiling, "random_network", lambda seed: RandomNetwork(nn.Flatten(), (3, 32, 32)))
    monkeypatch.setattr(kernel_profiling, "PARTS", PartsEffort(free=0, calls=3, seconds=0.1))
    monkeypatch.setattr("latency.timing.Timing.doubtful", False)
    with MeasurementStore(tmp_path / "m.sqlite") as store:
        yield KernelProfiler(CPU, store)


def test_a_model_is_fitted_on_networks_and_measures_others_alike(profiler, monkeypatch):
    shares = []
    model = profiler.fit(networks=12, seconds=1e3, on_progress=shares.append)
    assert shares == sorted(shares) and shares[-1] == 1.0 and len(model.left_out) == 12
    content = to_onnx(small(3).module, (3, 12, 12)).SerializeToString()
    network = Network(content, executed_kernels(content, CPU))
    (measured,) = profiler.profile([network])
    assert model.predict([network.kernels]).mean[0] > 0 and 0 < measured.call_s < 1e-2
    # The same networks once more: all of them are known.
    monkeypatch.setattr("latency.harness.worker", lambda device: pytest.fail("measured again"))
    assert np.array_equal(profiler.fit(networks=12, seconds=1e3).left_out, model.left_out)


def test_when_the_time_is_over_each_network_is_measured_all_the_same(profiler):
    content = [to_onnx(small(i).module, (3, 12, 12)).SerializeToString() for i in range(3)]
    networks = [Network(c, executed_kernels(c, CPU)) for c in content]
    assert all(p.call_s > 0 for p in profiler.profile(networks, end_s=time.monotonic()))
