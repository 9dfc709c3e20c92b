import collections
import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import timm
import torch
from onnx import TensorProto, helper, numpy_helper, parser

from latency.count import count
from latency.device import at_batch, parse_device
from latency.graph import Tensor, executed_kernels, kernels_of, totals
from latency.lowering import to_onnx
from quant_search.onnx_qdq import activation_ranges, quantize
from search_spaces.catalog import SPACES
from search_spaces.network import extract, find_space

CPU = parse_device("cpu")
SHAPE = (3, 16, 16)


@pytest.fixture(scope="module")
def mbconv():
    """A small network, and its ONNX model."""
    torch.manual_seed(0)
    net = SPACES["mbconv"].build(16, 3, 10, "tiny")
    net = extract(net, find_space(net).smallest())
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter)  # ONNX Runtime stores equal weights, such as biases of 0, once
    return net, to_onnx(net, SHAPE)


@pytest.fixture(scope="module")
def int8(mbconv):
    model = mbconv[1]
    images = np.random.default_rng(0).standard_normal((1, *SHAPE)).astype(np.float32)
    return quantize(model, [node.name for node in model.graph.node], activation_ranges(model, images))


MICROSOFT = ("FusedConv", "FusedMatMul", "FusedGemm", "BiasGelu", "Attention", "MultiHeadAttention")
IMAGE = {"x": ("batch", 4, 8, 8)}
TOKENS = {"x": ("batch", 5, 6)}


def graph(nodes, inputs, weights):
    """A model of nodes n0, n1, … (operator, inputs, attributes) with outputs y0, y1, …, and shapes of the others."""
    made = [
        helper.make_node(op, names.split(), [f"y{i}"], f"n{i}", **rest) for i, (op, names, rest) in enumerate(nodes)
    ]
    for node in made:
        node.domain = "com.microsoft" if node.op_type in MICROSOFT else ""
    body = helper.make_graph(
        made,
        "graph",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(made[-1].output[0], TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.zeros(shape, np.float32), name) for name, shape in weights.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(body, opset_imports=opsets, ir_version=8)


@pytest.mark.parametrize(
    ("nodes", "inputs", "weights", "macs"),
    [
        ([("Conv", "x w b", {"strides": [2, 2]})], IMAGE, {"w": (6, 4, 3, 3), "b": (6,)}, 6 * 3 * 3 * 36),
        ([("Conv", "x w", {"group": 4, "pads": [1, 1, 1, 1]})], IMAGE, {"w": (4, 1, 3, 3)}, 4 * 64 * 9),
        ([("FusedConv", "x w", {"activation": "Relu"})], IMAGE, {"w": (6, 4, 1, 1)}, 6 * 64 * 4),
        ([("ConvTranspose", "x w", {"strides": [2, 2]})], IMAGE, {"w": (4, 3, 2, 2)}, 4 * 64 * 12),
        ([("MatMul", "x w", {})], TOKENS, {"w": (6, 7)}, 5 * 6 * 7),
        ([("FusedMatMul", "x x", {"transA": 1})], TOKENS, {}, 6 * 5 * 6),
        ([("FusedMatMul", "x x", {"transB": 1})], TOKENS, {}, 5 * 6 * 5),
        ([("Gemm", "x w b", {"transB": 1})], {"x": ("batch", 6)}, {"w": (7, 6), "b": (7,)}, 6 * 7),
        ([("FusedGemm", "x w b", {"activation": "Relu"})], {"x": ("batch", 6)}, {"w": (6, 7), "b": (7,)}, 6 * 7),
        ([("Gemm", "x w", {"transA": 1})], {"x": ("batch", 6)}, {"w": (1, 7)}, 6 * 7),
        ([("Einsum", "x w", {"equation": "btc,cd->btd"})], TOKENS, {"w": (6, 7)}, 5 * 6 * 7),
        ([("Attention", "x w b", {"num_heads": 2})], TOKENS, {"w": (6, 18), "b": (18,)}, 5 * 6 * 18 + 2 * 25 * 6),
        ([("MultiHeadAttention", "x x x", {"num_heads": 2})], TOKENS, {}, 2 * 25 * 6),
        ([("LSTM", "x w r", {"hidden_size": 3})], TOKENS, {"w": (1, 12, 6), "r": (1, 12, 3)}, 5 * (72 + 36)),
        ([("BiasGelu", "x b", {})], TOKENS, {"b": (6,)}, 0),
        ([("MaxPool", "x", {"kernel_shape": [2, 2]}), ("Softmax", "y0", {})], IMAGE, {}, 0),
    ],
)  # fmt: skip
def test_macs_by_hand(nodes, inputs, weights, macs):
    found = kernels_of(graph(nodes, inputs, weights))
    assert [k.op_type for k in found] == [op for op, *_ in nodes]
    assert totals(found).macs == macs and totals(found).parameters == sum(map(np.prod, weights.values()))


def test_a_kernel_says_what_it_reads_and_writes():
    model = graph(
        [("Conv", "x w b", {"group": 2, "strides": [2, 2], "dilations": [1, 1]}), ("Mul", "y0 y0", {})],
        {"x": ("batch", 4, 8, 8)},
        {"w": (6, 2, 3, 3), "b": (6,)},
    )
    conv, mul = kernels_of(model, batch=2)
    x, y = Tensor("x", (2, 4, 8, 8), "float32"), Tensor("y0", (2, 6, 3, 3), "float32")
    assert (conv.name, conv.op_type, conv.domain, conv.activation) == ("n0", "Conv", "", "")
    assert conv.inputs == (x,) and conv.outputs == (y,) and conv.constants == ()
    assert conv.weights == (Tensor("w", (6, 2, 3, 3), "float32"), Tensor("b", (6,), "float32"))
    assert (conv.kernel_size, conv.stride, conv.dilation, conv.group) == ((3, 3), (2, 2), (1, 1), 2)
    assert dict(conv.attributes)["strides"] == (2, 2)
    assert conv.bytes_read == x.bytes == 2 * 4 * 64 * 4 and conv.bytes_written == y.bytes == 2 * 6 * 9 * 4
    assert conv.weight_bytes == 4 * (6 * 2 * 9 + 6) and conv.macs == 2 * 6 * 9 * 18
    assert mul.inputs == (y,) and mul.bytes_read == y.bytes  # read once though it stands there twice
    assert (mul.kernel_size, mul.stride, mul.dilation, mul.group) == ((), (), (), 1)


def test_views_move_nothing_and_picks_read_what_they_take():
    nodes = [("Flatten", "x", {}), ("Gather", "y0 i", {"axis": 1})]
    model = graph(nodes, IMAGE, {})
    model.graph.initializer.append(numpy_helper.from_array(np.array([0, 1]), "i"))
    flatten, gather = kernels_of(model)
    assert (flatten.bytes_read, flatten.bytes_written) == (0, 0)
    assert (gather.bytes_read, gather.bytes_written, gather.weight_bytes) == (8, 8, 16)
    assert gather.weights == () and gather.constants == (Tensor("i", (2,), "int64"),)
    assert totals([flatten, gather]).parameters == 0 and totals([flatten, gather]).traffic_bytes == 16


def test_a_shared_weight_is_stored_once_and_read_twice():
    kernels = kernels_of(graph([("Mul", "x b", {}), ("Add", "y0 b", {})], TOKENS, {"b": (6,)}))
    assert totals(kernels).parameters == 6 and totals(kernels).weight_bytes == 24
    assert sum(k.weight_bytes for k in kernels) == 48


@pytest.mark.parametrize(("dtype", "size"), [("float32", 12), ("uint8", 3), ("bool", 3), ("int4", 2), ("bfloat16", 6)])
def test_bytes_of_dtypes(dtype, size):
    assert Tensor("t", (3,), dtype).bytes == size


def test_a_constant_is_no_kernel_and_functions_are_looked_into():
    model = parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17, "own" : 1]>
        graph (float[b, 4] x) => (float[b, 4] y) { y = own.twice(x) }
        <domain: "own", opset_import: ["" : 17]>
        twice (v) => (w) { two = Constant <value = float {2}> ()  w = Mul(v, two) }
    """)
    (mul,) = kernels_of(model)
    assert mul.op_type == "Mul" and [c.shape for c in mul.constants] == [()] and mul.weights == ()


def test_what_cannot_be_counted_is_refused():
    with pytest.raises(ValueError, match="Einsum of two operands without"):
        kernels_of(graph([("Einsum", "x x x", {"equation": "btc,btc,btc->b"})], TOKENS, {}))
    with pytest.raises(ValueError, match="'n0' is a DeformConv, whose multiplications cannot be counted"):
        model = graph([("DeformConv", "x w o", {})], IMAGE | {"o": ("batch", 18, 6, 6)}, {"w": (6, 4, 3, 3)})
        model.opset_import[0].version = 19
        kernels_of(model)
    with pytest.raises(ValueError, match="fixed sizes and take the batch 2, got"):
        kernels_of(graph([("Relu", "x", {})], {"x": (1, 4)}, {}), batch=2)
    with pytest.raises(ValueError, match="must have fixed sizes"):
        kernels_of(graph([("Relu", "x", {})], {"x": ("batch", "any")}, {}))


def test_macs_of_a_known_network_are_those_counted_in_torch():
    net = timm.create_model("mobilenetv3_small_050", num_classes=10)
    found, expected = totals(kernels_of(to_onnx(net, SHAPE))), count(net, SHAPE)
    assert found.macs == expected.macs
    norms = sum(p.numel() for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d) for p in m.parameters())
    biases = norms // 2  # a norm folded into its convolution leaves a bias
    assert found.parameters == expected.parameters - norms + biases


def test_mbconv_in_all_its_forms(mbconv, int8):
    net, model = mbconv
    counted, plain = count(net, SHAPE), totals(kernels_of(model))
    assert plain.macs == counted.macs == totals(kernels_of(int8)).macs
    assert totals(kernels_of(model, batch=3)).macs == 3 * plain.macs
    assert totals(kernels_of(int8)).parameters == plain.parameters
    run = totals(executed_kernels(model.SerializeToString(), CPU))
    run8 = totals(executed_kernels(int8.SerializeToString(), CPU))
    if "AVX512" in torch.backends.cpu.get_cpu_capability():
        assert counted.macs < run.macs < 2 * counted.macs  # 8 channels are filled up to vectors of 16
    else:
        assert run.macs == counted.macs  # all channels fill the vectors
    assert run8.macs == counted.macs and run8.parameters == plain.parameters
    assert run.traffic_bytes < plain.traffic_bytes and run8.traffic_bytes < totals(kernels_of(int8)).traffic_bytes
    assert 4 * plain.parameters <= plain.weight_bytes and run8.weight_bytes < plain.weight_bytes / 2


def test_executed_kernels_are_those_that_the_profile_tells_of(mbconv, int8, tmp_path):
    for model in (mbconv[1].SerializeToString(), int8.SerializeToString()):
        options = onnxruntime.SessionOptions()
        options.enable_profiling, options.profile_file_prefix = True, str(tmp_path / "profile")
        session = onnxruntime.InferenceSession(model, options)
        session.run(None, {"input": np.zeros((2, *SHAPE), np.float32)})
        events = [e["args"] for e in json.loads(Path(session.end_profiling()).read_text()) if "op_name" in e["args"]]
        told = collections.Counter((e["op_name"], json.dumps(e["output_type_shape"])) for e in events)
        kernels = executed_kernels(model, at_batch(CPU, 2))
        names = {"float32": "float"}
        shapes = [[{names.get(t.dtype, t.dtype): t.shape} for t in k.outputs] for k in kernels]
        assert told == collections.Counter((k.op_type, json.dumps(s)) for k, s in zip(kernels, shapes, strict=True))


def test_kernels_follow_one_another(mbconv):
    known = {"input"}
    for kernel in executed_kernels(mbconv[1].SerializeToString(), CPU):
        assert {t.name for t in kernel.inputs} <= known
        known |= {t.name for t in kernel.outputs}
    assert "logits" in known
