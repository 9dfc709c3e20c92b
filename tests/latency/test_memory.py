import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from latency.device import at_batch, parse_device
from latency.graph import Kernel, Tensor, executed_kernels
from latency.lowering import to_onnx
from latency.memory import live_bytes, peak_bytes
from latency.runtimes.onnx_runtime import arena_bytes
from quant_search.onnx_qdq import activation_ranges, quantize

CPU = parse_device("cpu")


def kernel(op_type, inputs, output):
    """A kernel on tensors of so many float32 numbers, such as a8."""
    made = [Tensor(name, (1, int(name[1:])), "float32") for name in (*inputs.split(), output)]
    return Kernel(output, "", op_type, "", tuple(made[:-1]), (), (), (made[-1],), (), 0, 0, 0, 0)


def test_a_tensor_lives_until_its_last_reader():
    kernels = [kernel("Conv", "x8", "a16"), kernel("Conv", "a16", "b4"), kernel("Add", "b4 a16", "c32")]
    assert live_bytes(kernels) == (64, 64 + 16, 64 + 16 + 128)  # the input is the caller's
    assert peak_bytes(kernels) == 208 and peak_bytes([]) == 0


def test_an_output_lives_to_the_end():
    kernels = [kernel("Conv", "x8", "a4"), kernel("Conv", "x8", "b16"), kernel("MatMul", "b16", "c2")]
    assert live_bytes(kernels) == (16, 16 + 64, 16 + 64 + 8)


def test_a_view_has_no_memory_of_its_own():
    kernels = [kernel("Conv", "x8", "a16"), kernel("Flatten", "a16", "b16"), kernel("Conv", "b16", "c2")]
    assert live_bytes(kernels) == (64, 64, 72)


def test_an_activation_writes_over_what_nobody_else_reads():
    alone = [kernel("Conv", "x8", "a16"), kernel("Relu", "a16", "b16"), kernel("Conv", "b16", "c2")]
    assert live_bytes(alone) == (64, 64, 72)
    read_again = [*alone[:2], kernel("Add", "b16 a16", "c16")]
    assert live_bytes(read_again) == (64, 128, 192)
    other = [kernel("Conv", "x8", "a16"), kernel("Erf", "a16", "b16"), kernel("Conv", "b16", "c2")]
    assert live_bytes(other) == (64, 128, 72)
    of_the_caller = [kernel("Relu", "x8", "a8"), kernel("Conv", "a8", "b2")]
    assert live_bytes(of_the_caller) == (32, 40)


def test_a_free_buffer_is_held_for_the_next_tensor_of_its_shape():
    chain = ["x8 a16", "a16 b4", "b4 c2", "c2 d16", "d16 e1"]
    assert live_bytes([kernel("Conv", *pair.split()) for pair in chain]) == (64, 80, 64 + 16 + 8, 72, 68)


def test_shapes_that_only_the_call_tells_take_no_part_in_reuse():
    chain = ["y16 a16", "a16 b4", "b4 c2", "c2 d16", "d16 e1"]
    kernels = [kernel("Reshape", "x16", "y16"), *(kernel("Conv", *pair.split()) for pair in chain)]
    assert live_bytes(kernels) == (0, 64, 80, 24, 72, 68)


class Branches(nn.Module):
    """Convolutions of all kinds, a sum, a gate that scales channels, and two sides that are joined."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.Hardswish())
        self.wide = nn.Sequential(nn.Conv2d(16, 48, 1), nn.ReLU(), nn.Conv2d(48, 48, 3, 1, 1, groups=48), nn.SiLU())
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(48, 8, 1), nn.ReLU(), nn.Conv2d(8, 48, 1))
        self.narrow, self.down = nn.Conv2d(48, 16, 1), nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(32, 8, 3))
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(8 * 36, 10))

    def forward(self, x):
        x = self.stem(x)
        wide = self.wide(x)
        x = x + self.narrow(wide * torch.sigmoid(self.gate(wide)))
        return self.head(self.down(torch.cat([x, torch.relu(-x)], 1)))


def test_the_peak_is_what_the_arena_holds():
    torch.manual_seed(0)
    model = to_onnx(Branches(), (3, 32, 32))
    images = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)
    int8 = quantize(model, [node.name for node in model.graph.node], activation_ranges(model, images))
    for m in (model, int8):
        for batch in (1, 3):
            file = m.SerializeToString()
            assert (
                peak_bytes(executed_kernels(file, at_batch(CPU, batch)))
                == max(arena_bytes(file, at_batch(CPU, batch)))
                > 0
            )


# fmt: off
OPERATORS = (
    "Celu", "Clip", "Elu", "HardSigmoid", "LeakyRelu", "LogSoftmax", "Relu", "Selu", "Sigmoid", "Softmax", "Softplus",
    "Softsign", "Tanh", "ThresholdedRelu",  # in place
    "Abs", "Add", "Erf", "Exp", "GlobalAveragePool", "HardSwish", "Identity", "Mul", "Neg", "Sqrt",  # not
)
# fmt: on


@pytest.mark.parametrize("op", OPERATORS)
def test_operators_write_over_their_input_where_onnx_runtime_does(op):
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node(op, ["a", "b"] if op in ("Add", "Mul") else ["a"], ["c"]),
        helper.make_node("ReduceMax", ["c"], ["y"], keepdims=0),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("batch", 4, 8, 8))]
    weights = {"w": np.ones((8, 8), np.float32), "b": np.arange(256, dtype=np.float32).reshape(1, 4, 8, 8)}
    graph = helper.make_graph(
        nodes, "g", inputs, [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(v, n) for n, v in weights.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    assert live_bytes(executed_kernels(model, CPU)) == arena_bytes(model, CPU)
