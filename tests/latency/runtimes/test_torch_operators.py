"""Every operator against ONNX Runtime, whose kernels are the reference here."""

import numpy as np
import pytest
import torch
from onnx import TensorProto
from rows import file_of, floats, ints, numbers

from latency.device import parse_device
from latency.runtimes.onnx_runtime import open_session
from latency.runtimes.onnx_to_torch import to_torch
from latency.runtimes.torch_operators import OPERATORS

CPU = parse_device("cpu")
POSITIVE = [("Abs", [], {}), ("Add", [np.float32(0.5)], {})]
# Nodes in a row, each (operator, further inputs, attributes); the first takes an image (c, h, w) of the given shape.
ROWS = {
    "conv": [("Conv", [floats(4, 3, 3, 3), floats(4)], {"pads": [1, 1, 1, 1], "strides": [2, 1]})],
    "conv asymmetric": [("Conv", [floats(4, 3, 3, 3)], {"pads": [0, 1, 2, 1], "dilations": [1, 2]})],
    "conv same upper": [("Conv", [floats(4, 3, 3, 2)], {"auto_pad": "SAME_UPPER", "strides": [2, 2]})],
    "conv same lower": [("Conv", [floats(4, 3, 4, 2)], {"auto_pad": "SAME_LOWER"})],
    "conv valid": [("Conv", [floats(4, 3, 3, 3)], {"auto_pad": "VALID"})],
    "depthwise": [("Conv", [floats(6, 1, 5, 5)], {"group": 3, "pads": [2, 2, 2, 2]})],
    "conv transpose": [("ConvTranspose", [floats(3, 4, 3, 3), floats(4)],
                        {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]})],
    "max pool": [("MaxPool", [], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]})],
    "max pool asymmetric": [("MaxPool", [], {"kernel_shape": [2, 2], "pads": [0, 1, 1, 0]})],
    "max pool ceil": [("MaxPool", [], {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1})],
    "average pool": [("AveragePool", [], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]})],
    "average with pad": [("AveragePool", [], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1})],
    "average asymmetric": [("AveragePool", [], {"kernel_shape": [2, 2], "pads": [0, 1, 1, 0]})],
    "average asymmetric pad": [("AveragePool", [],
                                {"kernel_shape": [2, 2], "pads": [0, 1, 1, 0], "count_include_pad": 1})],
    "average ceil": [("AveragePool", [], {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1})],
    "global average": [("GlobalAveragePool", [], {})],
    "global max": [("GlobalMaxPool", [], {})],
    "gemm": [("Flatten", [], {}), ("Gemm", [floats(5, 189), floats(5)], {"transB": 1})],
    "gemm scaled": [("Flatten", [], {}), ("Gemm", [floats(189, 5), floats(1, 5)], {"alpha": 0.5, "beta": 2.0})],
    "matmul": [("MatMul", [floats(9, 5)], {})],
    "arithmetic": [("Add", [floats(3, 1, 1)], {}), ("Mul", [floats(9)], {}), ("Sub", [np.float32(2)], {}),
                   ("Div", [np.float32(3)], {}), ("Neg", [], {})],
    "powers": [*POSITIVE, ("Pow", [np.float32(1.5)], {}), ("Sqrt", [], {}), ("Reciprocal", [], {}), ("Log", [], {})],
    "exp erf": [("Erf", [], {}), ("Exp", [], {}), ("Sin", [], {}), ("Cos", [], {})],
    "rounding": [("Mul", [np.float32(3)], {}), ("Floor", [], {}), ("Div", [np.float32(4)], {}), ("Ceil", [], {})],
    "relu": [("Relu", [], {})],
    "leaky": [("LeakyRelu", [], {"alpha": 0.2}), ("Elu", [], {"alpha": 0.7}), ("Selu", [], {})],
    "prelu": [("PRelu", [floats(3, 1, 1)], {})],
    "gates": [("HardSwish", [], {}), ("Sigmoid", [], {}), ("Tanh", [], {}), ("Softplus", [], {})],
    "hard sigmoid": [("HardSigmoid", [], {}), ("HardSigmoid", [], {"alpha": 1 / 6, "beta": 0.5})],
    "gelu": [("Gelu", [], {}), ("Gelu", [], {"approximate": "tanh"}), ("Mish", [], {})],
    "clip": [("Clip", [np.float32(-0.5), np.float32(0.7)], {}), ("Clip", [None, np.float32(0.3)], {})],
    "extremes": [("Max", [floats(9), floats(3, 1, 1)], {}), ("Min", [floats(7, 1)], {}), ("Sum", [floats(9)], {}),
                 ("Mean", [floats(9), floats(9)], {})],
    "batch norm": [("BatchNormalization", [floats(3), floats(3), floats(3), np.abs(floats(3))], {"epsilon": 1e-3})],
    "layer norm": [("LayerNormalization", [floats(9), floats(9)], {"axis": -1})],
    "layer norm 2": [("LayerNormalization", [floats(7, 9)], {"axis": 2, "epsilon": 1e-3})],
    "instance norm": [("InstanceNormalization", [floats(3), floats(3)], {})],
    "group norm": [("Conv", [floats(4, 3, 1, 1)], {}),
                   ("GroupNormalization", [floats(4), floats(4)], {"num_groups": 2})],
    "softmax": [("Softmax", [], {}), ("Softmax", [], {"axis": 1}), ("LogSoftmax", [], {"axis": 2})],
    "reductions": [("ReduceMean", [ints(1)], {}), ("ReduceSum", [ints(-1)], {"keepdims": 0}),
                   ("ReduceL2", [], {})],
    "largest": [("ReduceMax", [ints(2, 3)], {}), ("ReduceMin", [ints(2)], {"keepdims": 0})],
    "reduce nothing": [("ReduceSum", [], {"noop_with_empty_axes": 1})],
    "reshape": [("Reshape", [ints(0, -1, 21)], {}), ("Transpose", [], {"perm": [0, 2, 1]}),
                ("Flatten", [], {"axis": 2})],
    "squeeze": [("Unsqueeze", [ints(1, -1)], {}), ("Squeeze", [ints(1)], {}), ("Squeeze", [ints(-1)], {})],
    "transpose": [("Transpose", [], {}), ("Identity", [], {}), ("Dropout", [], {})],
    "concat": [("Concat", [floats(1, 2, 7, 9)], {"axis": 1})],
    "slice": [("Slice", [ints(1, -5), ints(100, -1), ints(1, 3), ints(1, 2)], {})],
    "slice backwards": [("Slice", [ints(-1, 6), ints(-100, 1), ints(3, 2), ints(-2, -3)], {})],
    "gather": [("Gather", [ints(0, 2, -1)], {"axis": 1}), ("Gather", [np.int64(-2)], {"axis": 3})],
    "gather rows": [("Gather", [ints([0, 1], [2, 3])], {"axis": 2})],
    "expand": [("ReduceMax", [ints(1)], {}), ("Expand", [ints(1, 5, 1, 9)], {}), ("Tile", [ints(1, 1, 2, 1)], {})],
    "pad": [("Pad", [ints(0, 0, 1, 2, 0, 1, 0, 3), np.float32(0.5)], {})],
    "pad axes": [("Pad", [ints(1, 2), None, ints(-1)], {})],
    "pad reflect": [("Pad", [ints(0, 0, 1, 2, 0, 0, 0, 3)], {"mode": "reflect"})],
    "pad edge": [("Pad", [ints(0, 0, 1, 2, 0, 0, 0, 3)], {"mode": "edge"})],
    "resize linear": [("Resize", [None, None, ints(1, 3, 12, 5)], {"mode": "linear"})],
    "resize pytorch": [("Resize", [None, numbers(1, 1, 2, 1.5)],
                        {"mode": "linear", "coordinate_transformation_mode": "pytorch_half_pixel"})],
    "resize aligned": [("Resize", [None, None, ints(1, 3, 12, 5)],
                        {"mode": "linear", "coordinate_transformation_mode": "align_corners"})],
    "resize nearest": [("Resize", [None, numbers(1, 1, 2, 1.5)],
                        {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"})],
    "resize cubic": [("Resize", [None, None, ints(1, 3, 12, 5)], {"mode": "cubic"})],
    "depth to space": [("Conv", [floats(8, 3, 1, 1)], {}), ("DepthToSpace", [], {"blocksize": 2})],
    "depth to space crd": [("Conv", [floats(8, 3, 1, 1)], {}), ("DepthToSpace", [], {"blocksize": 2, "mode": "CRD"})],
    "casts": [("Cast", [], {"to": TensorProto.INT64}), ("Div", [np.int64(2)], {}), ("Cast", [], {"to": 1})],
    "where": [("Greater", [np.float32(0)], {}), ("Where", [floats(9), floats(3, 1, 1)], {})],
    "logic": [("Less", [np.float32(0)], {}), ("Not", [], {}), ("And", [floats(9) > 0], {}), ("Or", [floats(9) > 1], {}),
              ("Cast", [], {"to": 1})],
    "equal": [("Floor", [], {}), ("Equal", [np.float32(0)], {}), ("Where", [floats(9), floats(3, 1, 1)], {})],
}  # fmt: skip


@pytest.mark.parametrize("row", ROWS)
def test_an_operator_gives_what_onnx_runtime_gives(row):
    model = file_of(ROWS[row])
    x = np.random.default_rng(1).standard_normal((1, 3, 7, 9)).astype(np.float32)
    expected = open_session(model.SerializeToString(), CPU).run(x)
    with torch.inference_mode():
        got = to_torch(model)(torch.from_numpy(x)).numpy()
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() <= 1e-5 * max(1, np.abs(expected).max())


def test_every_operator_is_among_them():
    tested = {operator for row in ROWS.values() for operator, _, _ in row}
    elsewhere = {"Shape", "ConstantOfShape", "Split"}  # tests/latency/runtimes/test_onnx_to_torch.py
    assert OPERATORS.keys() == tested | elsewhere


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ([("Resize", [None, numbers(1, 1, 2, 2)], {})], r"Resize_0.*the way of resizing .*'round_prefer_floor'"),
        ([("Cast", [], {"to": TensorProto.INT8})], "Cast_0.*the type is 'INT8'"),
        ([("Resize", [None, numbers(1, 1, 2, 2)], {"mode": "linear", "antialias": 1})], "'antialias' is not known"),
        ([("Conv", [floats(4, 2, 3, 3)], {})], r"node 'Conv_0' \(Conv\) cannot be computed in torch"),
    ],
)
def test_what_torch_does_otherwise_is_refused(row, words):
    with pytest.raises(ValueError, match=words) as caught:
        to_torch(file_of(row))(torch.zeros(1, 3, 7, 9))
    assert "\n" not in str(caught.value)
