"""A law of every operator that is computed in int8: whatever its attributes, a file gives what the network gives."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from latency.device import parse_device
from latency.runtimes.onnx_runtime import open_session
from quant_search.marks import OPERATORS
from quant_search.onnx_qdq import activation_ranges, quantize
from quant_search.ptq.intake import prepared

CPU = parse_device("cpu")
RNG = np.random.default_rng(0)
X = RNG.standard_normal((32, 4, 6, 6)).astype(np.float32)


def drawn(*shape):
    return (0.3 * RNG.standard_normal(shape)).astype(np.float32)


def between(low=None, high=None):
    return [None if end is None else np.float32(end) for end in (low, high)]


# Of each operator its constant operands, behind the maps or rows that it reads, and its attributes.
CASES = {
    "Conv": [
        ([drawn(4, 1, 3, 3)], {"group": 4, "pads": [0, 1, 2, 0], "strides": [2, 1]}),
        ([drawn(6, 2, 2, 3), drawn(6)], {"group": 2, "dilations": [2, 1]}),
    ],
    "Gemm": [
        ([drawn(144, 5), drawn(5)], {"alpha": 0.1, "beta": 2.0}),
        ([drawn(5, 144), 10 * drawn(5)], {"transB": 1, "alpha": 3.0, "beta": -0.5}),
        ([drawn(144, 5), 10 * drawn(5)], {"alpha": -0.3}),
        ([drawn(144, 5), 10 * drawn(1, 5)], {"beta": 3.0}),
        ([drawn(144, 5), np.float32(4)], {}),
        ([drawn(144, 5), 10 * drawn(1, 1)], {"alpha": 0.2}),
    ],
    "MatMul": [([drawn(144, 5)], {}), ([drawn(144, 1)], {})],
    "Add": [([drawn(4, 1, 1)], {}), ([np.float32(3)], {})],
    "Mul": [([drawn(4, 1, 1)], {}), ([np.float32(-3)], {})],
    "Relu": [([], {})],
    "Clip": [
        (between(*ends), {})
        for ends in [(0, 6), (0.5, 4), (-9, -0.5), (-1, 2), (0.5, None), (None, -0.5), (None, None)]
    ],
    "GlobalAveragePool": [([], {})],
    "AveragePool": [
        ([], {"kernel_shape": [2, 3], "strides": [1, 2], "pads": [0, 1, 1, 0]}),
        ([], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}),
        ([], {"kernel_shape": [2, 2], "strides": [4, 4], "ceil_mode": 1}),
    ],
    "MaxPool": [
        ([], {"kernel_shape": [2, 2], "pads": [1, 1, 0, 0], "strides": [2, 2]}),
        ([], {"kernel_shape": [2, 2], "dilations": [2, 2], "strides": [2, 2], "ceil_mode": 1}),
    ],
}


def network(op_type, operands, attributes):
    """Convolution, the operator and, where that leaves maps, another product: so that codes go in and out."""
    values = {"w": drawn(4, 4, 3, 3), "b": drawn(4)}
    nodes = [helper.make_node("Conv", ["input", "w", "b"], ["maps"], "first", pads=[1, 1, 1, 1])]
    data = "maps"
    if op_type in ("Gemm", "MatMul"):
        nodes.append(helper.make_node("Flatten", ["maps"], ["rows"], "flat"))
        data = "rows"
    names = ["" if value is None else f"operand{i}" for i, value in enumerate(operands)]
    values |= {name: value for name, value in zip(names, operands, strict=True) if name}
    nodes.append(helper.make_node(op_type, [data, *names], ["logits"], "odd", **attributes))
    ends = [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 4, 6, 6])]
    ends.append(helper.make_tensor_value_info("logits", TensorProto.FLOAT, None))
    constants = [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


def run(model):
    return open_session(model.SerializeToString(), CPU).run(X)


def test_every_operator_has_cases():
    assert set(CASES) == set(OPERATORS)


@pytest.mark.parametrize(
    ("op_type", "case"), [(op_type, i) for op_type, cases in CASES.items() for i in range(len(cases))]
)
def test_int8_is_fp32_up_to_rounding(op_type, case):
    given = network(op_type, *CASES[op_type][case])
    y, model = run(given), prepared(given)
    np.testing.assert_allclose(run(model), y, atol=1e-4 * np.abs(y).max())
    names = [node.name for node in model.graph.node]
    for ours in (model, given):  # files of networks that were built here are not prepared
        int8 = quantize(ours, names, activation_ranges(ours, X))
        off = float(np.abs(run(int8) - y).max())
        assert off < 0.05 * float(np.abs(y).max())
