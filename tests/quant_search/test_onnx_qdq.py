"""The quantizer on small hand-made networks; laws over ready-made spaces stand in tests/laws/test_quant_laws.py."""

import logging
from collections import Counter

import numpy as np
import onnx
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from latency.device import parse_device
from latency.lowering import nodes_of, to_onnx
from latency.runtimes.onnx_runtime import int8_share, open_session, optimised_graph
from latency.runtimes.session import accuracy
from quant_search.onnx_qdq import activation_ranges, quantize

CPU = parse_device("cpu")


class Gate(nn.Module):
    """Squeeze-and-excitation around an h-swish."""

    def __init__(self):
        super().__init__()
        self.conv, self.act = nn.Conv2d(8, 8, 3, padding=1), nn.Hardswish()
        self.pool, self.squeeze, self.gate = nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 8, 1), nn.Hardsigmoid()

    def forward(self, x):
        y = self.act(self.conv(x))
        return x + y * self.gate(self.squeeze(self.pool(y)))


@pytest.fixture(scope="module")
def fp32():
    torch.manual_seed(0)
    stem = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU())
    return to_onnx(nn.Sequential(stem, Gate(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)), (3, 12, 12))


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).standard_normal((40, 3, 12, 12)).astype(np.float32)


@pytest.fixture(scope="module")
def ranges(fp32, images):
    return activation_ranges(fp32, images)


def every(model):
    return [node.name for node in model.graph.node]


def run(model, x):
    return open_session(model.SerializeToString(), CPU).run(x)


def tensors_between(model, op_type):
    return {node.input[0] for node in model.graph.node if node.op_type == op_type}


def test_ranges_are_the_extremes_over_all_images_whatever_the_batch(fp32, images, ranges):
    low, high = (np.asarray(end).item() for end in ranges.data["input"].range_value)
    assert low == images.min() and high == images.max()
    relu = ranges.data["/0/0.2/Relu_output_0"].range_value
    assert np.asarray(relu[0]).item() == 0
    for batch in (1, 7, 40, 100):
        again = activation_ranges(fp32, images, batch)
        assert again.data.keys() == ranges.data.keys()
        for name, tensor in ranges.data.items():
            np.testing.assert_allclose(again.data[name].range_value, tensor.range_value, rtol=1e-5, atol=1e-6)


def test_no_images_are_refused(fp32, images):
    with pytest.raises(ValueError, match="need calibration images, got none"):
        activation_ranges(fp32, images[:0])


def test_the_model_given_stays_as_it_was(fp32, images, ranges):
    before = fp32.SerializeToString()
    activation_ranges(fp32, images)
    for nodes in (every(fp32), nodes_of(fp32, ("0",)), []):
        result = quantize(fp32, nodes, ranges)
        del result.graph.node[:]
    assert fp32.SerializeToString() == before


def test_nothing_to_quantize_gives_an_equal_model(fp32, ranges):
    assert quantize(fp32, [], ranges) == fp32
    assert quantize(fp32, ["/1.act/HardSwish", "/3/Flatten", "no such node"], ranges) == fp32


def test_everything_runs_in_int8_and_close_to_fp32(fp32, images, ranges):
    int8 = quantize(fp32, every(fp32), ranges)
    onnx.checker.check_model(int8, full_check=True)
    assert int8_share(int8.SerializeToString(), CPU) == 1
    y, approximate = run(fp32, images), run(int8, images)
    assert np.abs(approximate - y).max() < 0.05 * np.ptp(y)
    assert not np.array_equal(approximate, y)


def test_h_swish_and_the_gate_stay_in_fp32_between_quantized_neighbours(fp32, ranges):
    int8 = quantize(fp32, every(fp32), ranges).SerializeToString()
    kinds = Counter(node.op_type for node in optimised_graph(int8, CPU).graph.node)
    assert kinds["QLinearConv"] == 3 and kinds["QLinearMul"] == kinds["QLinearAdd"] == 1 and kinds["QGemm"] == 1
    assert kinds["HardSigmoid"]
    assert {"Conv", "FusedConv", "Relu"}.isdisjoint(kinds)


@pytest.mark.parametrize(("member", "weights"), [("0", {"0.0"}), ("1", {"1.conv", "1.squeeze"}), ("4", {"4"})])
def test_only_the_chosen_nodes_are_quantized(fp32, images, ranges, member, weights):
    int8 = quantize(fp32, nodes_of(fp32, (member,)), ranges)
    by_name = {node.name: node for node in int8.graph.node}
    dequantized = {node.output[0] for node in int8.graph.node if node.op_type == "DequantizeLinear"}
    found = {node.name for node in by_name.values() if len(node.input) > 1 and node.input[1] in dequantized}
    assert {name.strip("/").rpartition("/")[0] for name in found} - {"1"} == weights  # "1" adds and multiplies
    assert int8_share(int8.SerializeToString(), CPU) == len(weights) / 4
    y = run(fp32, images)
    assert np.abs(run(int8, images) - y).max() < 0.05 * np.ptp(y)


def test_a_trained_network_predicts_as_well_in_int8():
    digits = load_digits()
    x, y = digits.images[:, None].astype(np.float32) / 16, digits.target
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.Hardswish(), nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.BatchNorm2d(32), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, 10),
    )  # fmt: skip
    optimizer = torch.optim.Adam(net.parameters(), 5e-3)
    for step in range(60):
        some = slice(step % 10 * 100, step % 10 * 100 + 100)
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(torch.from_numpy(x[some])), torch.from_numpy(y[some])).backward()
        optimizer.step()
    fp32 = to_onnx(net, (1, 8, 8))
    int8 = quantize(fp32, every(fp32), activation_ranges(fp32, x[:200]))
    before, after = (accuracy(open_session(m.SerializeToString(), CPU), x[1000:], y[1000:]) for m in (fp32, int8))
    assert before > 0.85 and after > before - 0.02


def test_the_same_choice_gives_the_same_bytes(fp32, ranges):
    first, second = (quantize(fp32, every(fp32), ranges).SerializeToString() for _ in range(2))
    assert first == second


def test_logging_is_as_it_was(fp32, images, ranges, caplog):
    logging.disable(logging.INFO)
    try:
        activation_ranges(fp32, images)
        quantize(fp32, every(fp32), ranges)
        assert logging.root.manager.disable == logging.INFO and not caplog.records
    finally:
        logging.disable(logging.NOTSET)
