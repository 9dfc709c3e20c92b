"""Metrics that running a file tells besides latency."""

import onnx
import pytest
from onnx import TensorProto, helper
from torch import nn

from latency import energy
from latency.device import at_batch, parse_device
from latency.energy import counters_of
from latency.fused_roofline import FusedPrices
from latency.fused_work import TERMS
from latency.graph import executed_kernels
from latency.harness import QUICK_PIECES, measure_energies
from latency.lowering import to_onnx
from latency.roofline import Peaks, floor_s
from latency.store import MeasurementStore
from nas import executed as module
from nas.executed import EXECUTED, Executed
from nas.progress import SilentReporter
from quant_search.onnx_qdq import quantize
from quant_search.ranges import neutral_ranges

CPU = parse_device("cpu")


def model():
    """A model that multiplies (b, 64) by a matrix."""
    values = helper.make_tensor("w", TensorProto.FLOAT, (64, 32), [0.5] * 2048)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["input", "w"], ["logits"])],
        "net",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ("batch", 64))],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ("batch", 32))],
        [values],
    )
    opset = [helper.make_opsetid("", 17)]
    content: bytes = helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
    onnx.checker.check_model(onnx.load_model_from_string(content))
    return content


def test_only_what_is_wanted_is_found():
    assert Executed((), CPU).of(model()) == {}
    assert Executed(("latency_s", "traffic_bytes"), CPU).of(model()) == {"traffic_bytes": 4 * (64 + 32)}
    found = Executed(("memory_bytes", "traffic_bytes"), at_batch(CPU, 8)).of(model())
    assert found == {"memory_bytes": 8 * 4 * 32, "traffic_bytes": 8 * 4 * (64 + 32)}


def test_the_roofline_floor_is_that_of_the_peaks(monkeypatch):
    peaks = Peaks("here", 1e9, 2e9, 1e9, 1e9, ((1024, 1e9),), 1e-6, 5e-6)
    monkeypatch.setattr(module, "peaks_of", lambda device, on_round=None: peaks)
    finder = Executed(("roofline_s",), CPU)
    finder.prepare(SilentReporter())
    assert finder.of(model()) == {"roofline_s": floor_s(executed_kernels(model(), CPU), peaks)}


@pytest.mark.usefixtures("two_cores")
def test_the_roofline_floor_of_fused_kernels_is_that_of_their_dot_products(monkeypatch):
    # Of 3 x 3 taps at 5 x 5 pixels, 13 in each direction meet the image.
    prices = FusedPrices("avx512", dict.fromkeys(TERMS, 1e-9), 64e-9, 3e-6)
    monkeypatch.setattr(module, "prices_of", lambda on_round=None: prices)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)
    )
    float32 = to_onnx(net, (3, 5, 5))
    file = quantize(float32, [node.name for node in float32.graph.node], neutral_ranges(float32)).SerializeToString()
    one_s = (13 * 13 * 3 * 8 + 8 * 10) * 1e-9
    for device, times in (("cpu:fused", 1), ("cpu:fused,batch=4", 4), ("cpu:fused,batch=3,threads=2", 1.5)):
        finder = Executed(("roofline_s",), parse_device(device))
        finder.prepare(SilentReporter())
        assert finder.of(file) == {"roofline_s": pytest.approx(times * one_s)}
    both = Executed(("traffic_bytes", "roofline_s"), parse_device("cpu:fused")).of(file)
    assert both["roofline_s"] == pytest.approx(one_s) and both["traffic_bytes"] > 0


def test_energy_that_cannot_be_read_is_refused_at_once(monkeypatch, tmp_path):
    monkeypatch.setattr(energy, "POWERCAP", tmp_path)
    with pytest.raises(ValueError, match="energy of a call on cpu cannot be measured"):
        Executed(EXECUTED, CPU)


def test_energy_is_measured_where_it_can_be_read(tmp_path):
    try:
        counters_of("cpu")
    except ValueError as error:
        pytest.skip(str(error))
    with MeasurementStore(tmp_path / "store") as store:
        (found,) = measure_energies([model()], CPU, QUICK_PIECES, store)
        assert 0 < found.joules_per_call < 1 and len(found.pieces) == QUICK_PIECES and found.contention.seconds > 0
        finder = Executed(("energy_joules",), CPU, store)
        assert finder.of(model()) == {"energy_joules": found.joules_per_call} and len(finder.contentions) == 1
        assert measure_energies([model()], CPU, QUICK_PIECES, store) == [found]
