"""Small QDQ graphs written by hand, with zero points off 0, and what ONNX Runtime makes of them."""

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from latency.device import parse_device
from latency.kernels.contract import AveragePool
from latency.kernels.intake import program_of
from latency.runtimes.onnx_runtime import open_session
from quant_search.weight_codes import weight_bits

CPU = parse_device("cpu")
MOST = 2 ** (weight_bits() - 1) - 1  # where ONNX Runtime adds up in 16 bits, larger weights saturate


class Graph:
    """A graph under construction, on images (b, *shape); names of tensors are handed on."""

    def __init__(self, shape, seed=0, kind=np.uint8, opset=17):
        self.rng = np.random.default_rng(seed)
        self.shape, self.kind, self.opset = shape, kind, opset
        self.nodes, self.constants, self.scales, self.rounded = [], [], {}, []

    def constant(self, values):
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def node(self, kind, *inputs, outputs=1, **attributes):
        made = [f"{kind}_{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), made, f"/{kind}_{len(self.nodes)}", **attributes))
        return made[0]

    def floats(self, *values):
        return self.constant(np.array(values[0] if len(values) == 1 else values, np.float32))

    def codes(self, tensor, scale, zero=117):
        """Rounded to codes and back; `zero` is that of uint8."""
        shifted = np.array(zero - (128 if self.kind == np.int8 else 0), self.kind)
        of = self.constant(np.float32(scale)), self.constant(shifted)
        self.rounded.append(self.node("QuantizeLinear", tensor, *of))
        read = self.node("DequantizeLinear", self.rounded[-1], *of)
        self.scales[read] = np.float32(scale)
        return read

    def start(self, zero=117):
        """The input, rounded."""
        return self.codes("x", 0.02, zero)

    def weight(self, *shape, by_channel=True, axis=0):
        """A weight and its scales."""
        values = self.rng.integers(-MOST, MOST + 1, shape).astype(np.int8)
        n = shape[axis] if by_channel else 1
        scale = self.rng.uniform(0.002, 0.006, n).astype(np.float32)
        zero = np.zeros(n, np.int8)
        given = (scale, zero) if by_channel else (scale[0], zero[0])
        inputs = self.constant(values), *(self.constant(x) for x in given)
        return self.node("DequantizeLinear", *inputs, **({"axis": axis} if by_channel else {})), scale

    def bias(self, x, scale, outputs):
        """A bias in int32, as layers with codes from `x` and weights of `scale` add up."""
        steps = np.broadcast_to(self.scales[x] * scale, (outputs,)).astype(np.float32)
        values = self.rng.integers(-3000, 3000, outputs).astype(np.int32)
        inputs = self.constant(values), self.constant(steps), self.constant(np.zeros(outputs, np.int32))
        return self.node("DequantizeLinear", *inputs, axis=0)

    def conv(self, x, *shape, by_channel=True, bias=True, **attributes):
        """A convolution of codes with a weight of a shape; its output is not rounded."""
        weight, scale = self.weight(*shape, by_channel=by_channel)
        inputs = [x, weight, *([self.bias(x, scale, shape[0])] if bias else [])]
        return self.node("Conv", *inputs, **{"kernel_shape": list(shape[2:])} | attributes)

    def model(self, output, kind=TensorProto.FLOAT):
        """The model with one output."""
        inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *self.shape])]
        outputs = [helper.make_tensor_value_info(output, kind, None)]
        graph = helper.make_graph(self.nodes, "small", inputs, outputs, self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=10)

    def pooled(self, x):
        """Codes (b, c) of the means of `x`, an output that programs may have."""
        return self.node("Flatten", self.codes(self.node("GlobalAveragePool", x), 0.01))

    def images(self, n=3):
        return np.random.default_rng(7).uniform(-2.6, 3.0, (n, *self.shape)).astype(np.float32)


def run(model, x):
    return open_session(model.SerializeToString(), CPU).run(x)


def run_as_written(model, x):
    """Without optimisation: layers that are not rounded compute in float32 then."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def maps(graph, last):
    """Codes (b, h, w, c) of the tensor `last`, rounded: by the reference and by ONNX Runtime; and the program."""
    rounded = graph.rounded[-1]
    whole = graph.model(graph.pooled(last))
    program = program_of(whole)
    made = {0: graph.images()}
    for step in program.steps:
        made[step.output] = step.operation.run(*(made[i] for i in step.inputs))
        assert made[step.output].shape[1:] == program.shapes[step.output]
    pool = next(step for step in reversed(program.steps) if isinstance(step.operation, AveragePool))
    kind = TensorProto.INT8 if graph.kind == np.int8 else TensorProto.UINT8
    expected = run(graph.model(rounded, kind), made[0]).astype(np.int32) + (128 if graph.kind == np.int8 else 0)
    return made[pool.inputs[0]].astype(np.int32), expected.transpose(0, 2, 3, 1), program


def agree(graph, last):
    """Whether at most one code in a thousand is off, by one; and whether there are many codes. The program."""
    found, expected, program = maps(graph, last)
    off = np.abs(found - expected)
    assert found.shape == expected.shape and off.max() <= 1 and (off > 0).mean() <= 1e-3
    assert len(np.unique(found)) > 20
    return program
