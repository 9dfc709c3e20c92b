"""The quantizer on small hand-made networks; laws over ready-made spaces stand in tests/laws/test_quant_laws.py."""

import logging
from collections import Counter
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization.calibrate import TensorsData
from sklearn.datasets import load_digits
from torch import nn

from latency.device import parse_device
from latency.lowering import nodes_of, to_onnx
from latency.runtimes.onnx_runtime import int8_share, open_session, optimised_graph
from latency.runtimes.session import accuracy
from quant_search import reference
from quant_search.onnx_qdq import activation_ranges, neutral_ranges, quantize
from search_spaces.catalog import SPACES
from search_spaces.network import extract, find_space

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


class Plain(nn.Module):
    """What the ready-made spaces do not have: pools, a layer that runs twice, ReLU6, and products with a bias apart."""

    def __init__(self):
        super().__init__()
        self.stem, self.twice = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.cut, self.most, self.mean = nn.ReLU6(), nn.MaxPool2d(2), nn.AvgPool2d(2)
        self.scale, self.first = nn.Parameter(torch.rand(8, 1, 1)), nn.Linear(8, 8)
        self.last, self.late = nn.Linear(8, 4), nn.Linear(8, 4, bias=False)

    def forward(self, x):
        x = self.most(self.cut(self.stem(x)))
        x = self.mean(torch.relu(self.twice(x) + self.twice(torch.relu(self.twice(x)))) * self.scale)
        tokens = self.first(x.flatten(2).transpose(1, 2)).mean(1)  # (b, t, c): a matrix product and an addition
        return self.last(tokens) + self.late(torch.relu(tokens))


def drawn(preset, side, seed):
    """A random network of the mbconv space."""
    torch.manual_seed(seed)
    network = SPACES["mbconv"].build(side, 3, 10, preset)
    space = find_space(network)
    (row,) = space.sample(1, np.random.default_rng(seed))
    return to_onnx(extract(network, space.row(row)), (3, side, side))


# A network, and the share of its nodes that is quantized.
MODELS = {
    "gate": (lambda: to_onnx(Gate(), (8, 8, 8)), 1),
    "plain": (lambda: to_onnx(Plain(), (3, 12, 12)), 1),
    "plain, mixed": (lambda: to_onnx(Plain(), (3, 12, 12)), 0.6),
    "tiny with h-swish and gates": (lambda: drawn("tiny", 16, 0), 1),
    "tiny, mixed": (lambda: drawn("tiny", 16, 1), 0.6),
    "mobile, mixed": (lambda: drawn("mobile", 32, 2), 0.4),
}


@dataclass(frozen=True)
class Sample:
    """A network, images for it, their ranges, nodes, and the network with these in int8 as we and others make it."""

    model: onnx.ModelProto
    images: np.ndarray
    ranges: TensorsData
    nodes: list[str]
    ours: onnx.ModelProto
    reference: onnx.ModelProto


@pytest.fixture(scope="module", params=MODELS)
def sample(request):
    build, share = MODELS[request.param]
    model = build()
    rng = np.random.default_rng(1)
    shape = [size.dim_value for size in model.graph.input[0].type.tensor_type.shape.dim[1:]]
    x = rng.standard_normal((8, *shape)).astype(np.float32)
    ranges, nodes = activation_ranges(model, x, batch=8), [name for name in every(model) if rng.random() < share]
    return Sample(model, x, ranges, nodes, *(q(model, nodes, ranges) for q in (quantize, reference.quantize)))


def parts(model):
    """Nodes and initializers by name: two graphs with equal parts differ in order alone."""
    nodes = {node.name: node.SerializeToString(deterministic=True) for node in model.graph.node}
    values = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    return nodes | {name: (v.dtype, v.shape, v.tobytes()) for name, v in values.items()}


def kinds(model):
    return Counter(node.op_type for node in optimised_graph(model.SerializeToString(), CPU).graph.node)


def test_ranges_equal_those_of_the_run_times_own_calibrator(sample):
    theirs = reference.activation_ranges(sample.model, sample.images)
    assert theirs.keys() == sample.ranges.keys()
    for name, tensor in sample.ranges.items():
        np.testing.assert_array_equal(tensor.range_value, theirs[name].range_value)


def test_ranges_for_some_nodes_are_all_that_these_need(sample):
    few = activation_ranges(sample.model, sample.images, batch=8, nodes=sample.nodes)
    assert set(few) <= set(sample.ranges)
    for name, tensor in few.items():
        np.testing.assert_array_equal(tensor.range_value, sample.ranges[name].range_value)
    assert quantize(sample.model, sample.nodes, few) == sample.ours
    assert not activation_ranges(sample.model, sample.images, nodes=[]).data


def test_the_graph_is_that_of_the_run_times_own_quantizer(sample):
    assert parts(sample.ours) == parts(sample.reference)


def test_it_runs_as_that_of_the_run_times_own_quantizer(sample):
    assert kinds(sample.ours) == kinds(sample.reference)
    assert any(kind.startswith("QLinear") for kind in kinds(sample.ours))
    np.testing.assert_array_equal(run(sample.ours, sample.images), run(sample.reference, sample.images))


@pytest.mark.parametrize("bits", [7, 8])
def test_weights_of_either_width_equal_the_reference(monkeypatch, fp32, ranges, bits):
    for module in ("quant_search.onnx_qdq", "quant_search.reference"):
        monkeypatch.setattr(f"{module}.weight_bits", lambda: bits)
    ours = quantize(fp32, every(fp32), ranges)
    assert parts(ours) == parts(reference.quantize(fp32, every(fp32), ranges))


def product(weight, bias, shared=False):
    """A Gemm, and a second one that reads the same bias."""
    value = {"weight": weight, "bias": bias, "other": weight[::-1].copy()}
    nodes = [
        helper.make_node("Gemm", ["input", "weight", "bias"], ["logits"], "/a/Gemm", transB=1),
        helper.make_node("Gemm", ["input", "other", "bias"], ["more"], "/b/Gemm"),
    ]
    ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4])] for name in ("input", "logits", "more")]
    outputs = ends[1] + ends[2] if shared else ends[1]
    values = [numpy_helper.from_array(v, name) for name, v in value.items() if shared or name != "other"]
    graph = helper.make_graph(nodes if shared else nodes[:1], "g", ends[0], outputs, values)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(("weight", "bias"), [(1, 1), (0, 1), (1, 0)])
def test_extreme_weights_and_biases_equal_the_reference(weight, bias):
    rng = np.random.default_rng(0)
    model = product(weight * rng.standard_normal((4, 4), dtype=np.float32), bias * np.arange(4, dtype=np.float32))
    ranges = activation_ranges(model, rng.standard_normal((8, 4), dtype=np.float32))
    ours = quantize(model, every(model), ranges)
    assert parts(ours) == parts(reference.quantize(model, every(model), ranges))


def test_sums_of_little_weight_and_much_bias_do_not_wrap_around():
    """The run-time's own quantizer leaves products hardly any room beside such a bias."""
    x = np.random.default_rng(0).uniform(1, 2, (64, 64)).astype(np.float32)
    value = {"weight": np.full((4, 64), -1e-4, np.float32), "bias": np.full(4, -100, np.float32)}
    node = helper.make_node("Gemm", ["input", "weight", "bias"], ["logits"], "/a/Gemm", transB=1)
    ends = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", size]) for n, size in (("input", 64), ("logits", 4))
    ]
    values = [numpy_helper.from_array(v, name) for name, v in value.items()]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:], values)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    most = {}
    for module, made in (("ours", quantize), ("theirs", reference.quantize)):
        file = made(model, every(model), activation_ranges(model, x))
        tensors = {t.name: numpy_helper.to_array(t).astype(np.float64) for t in file.graph.initializer}
        products = 255 * np.abs(tensors["weight_quantized"]).sum(1)
        most[module] = float((np.abs(tensors["bias_quantized"]) + products).max())
        assert np.abs(run(file, x) - (x @ value["weight"].T + value["bias"])).max() < 0.01 or module == "theirs"
    assert most["ours"] < 2**31 <= most["theirs"]


def test_a_bias_of_two_layers_is_scaled_for_each():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((8, 4), dtype=np.float32)
    model = product(rng.standard_normal((4, 4), dtype=np.float32), np.arange(4, dtype=np.float32), shared=True)
    ranges = activation_ranges(model, x)
    both = [q(model, every(model), ranges).SerializeToString() for q in (quantize, reference.quantize)]
    sessions = [onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"]) for file in both]
    for ours, theirs in zip(*(session.run(None, {"input": x}) for session in sessions), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_an_activation_without_a_range_is_refused(fp32, images):
    ranges = activation_ranges(fp32, images, nodes=nodes_of(fp32, ("0",)))
    with pytest.raises(ValueError, match=r"no range of the activation '/1/1\.conv/Conv_output_0'"):
        quantize(fp32, every(fp32), ranges)


def test_the_ranges_given_stay_as_they_were(fp32, images, ranges):
    before = {name: tensor.range_value for name, tensor in ranges.items()}
    quantize(fp32, every(fp32), ranges)
    assert {name: tensor.range_value for name, tensor in ranges.items()} == before


def test_neutral_ranges_give_the_graph_of_calibrated_ones(sample):
    neutral = neutral_ranges(sample.model)
    assert neutral.keys() == sample.ranges.keys()
    assert kinds(quantize(sample.model, sample.nodes, neutral)) == kinds(sample.ours)


def test_neutral_ranges_start_where_the_function_does_and_are_the_same_each_time(fp32):
    ranges = {name: tuple(np.ravel(tensor.range_value)) for name, tensor in neutral_ranges(fp32).items()}
    assert ranges == {name: tuple(np.ravel(t.range_value)) for name, t in neutral_ranges(fp32).items()}
    lows = {node.op_type: ranges[node.output[0]][0] for node in fp32.graph.node if node.output[0] in ranges}
    assert lows["Relu"] == lows["HardSigmoid"] == 0 and lows["HardSwish"] == -0.375
    assert lows["Conv"] < -1 and all(low < high for low, high in ranges.values())
    spans = {high - low for low, high in ranges.values()}
    moved = sum(node.op_type == "Flatten" for node in fp32.graph.node)  # has the range of what it moves
    assert len(spans) == len(ranges) - moved
    assert neutral_ranges(fp32, seed=1)["input"].range_value != neutral_ranges(fp32)["input"].range_value


def test_a_shuffle_hands_codes_on_as_they_are():
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 8, 1), nn.ReLU(), nn.ChannelShuffle(2), nn.Conv2d(8, 8, 1), nn.AdaptiveAvgPool2d(1))
    model = to_onnx(nn.Sequential(*layers, nn.Flatten()), (3, 8, 8))
    int8 = quantize(model, every(model), neutral_ranges(model))
    kinds = [node.op_type for node in optimised_graph(int8.SerializeToString(), CPU).graph.node]
    first, second = (i for i, kind in enumerate(kinds) if kind == "QLinearConv")
    assert set(kinds[first + 1 : second]) <= {"Gather", "Transpose"}  # into the layout of these kernels and back
