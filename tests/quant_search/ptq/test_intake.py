import io

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from latency.device import parse_device
from latency.runtimes.onnx_runtime import open_session
from quant_search.layers import layers
from quant_search.onnx_qdq import activation_ranges, quantize
from quant_search.ptq.intake import prepared

CPU = parse_device("cpu")


def run(model, x):
    return open_session(model.SerializeToString(), CPU).run(x)


class Viewed(nn.Module):
    """Flattens by `view` with sizes read off its input, which exporters write as a small program."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.cut, self.last = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU6(), nn.Linear(128, 5)

    def forward(self, x):
        x = self.cut(self.norm(self.conv(x)))
        return self.last(x.view(x.size(0), -1))


def foreign(opset, batch=None, listed=False):
    """The network as others export it: nodes without names, weights as inputs or made by nodes, a fixed batch."""
    torch.manual_seed(0)
    file = io.BytesIO()
    axes = {"x": {0: "n"}, "y": {0: "n"}}
    settings = {"input_names": ["x"], "output_names": ["y"], "dynamic_axes": axes, "dynamo": False}
    torch.onnx.export(Viewed().eval(), (torch.zeros(2, 3, 6, 6),), file, opset_version=opset, **settings)
    model = onnx.load_model_from_string(file.getvalue())
    graph = model.graph
    for node in graph.node:
        node.name = ""
    for value in (graph.input[0], graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_param = "" if batch else "n"
        if batch:
            value.type.tensor_type.shape.dim[0].dim_value = batch
    for tensor in list(graph.initializer):
        if listed:
            graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        elif tensor.name.endswith("weight"):
            graph.initializer.remove(tensor)
            graph.node.insert(0, helper.make_node("Constant", [], [tensor.name], value=tensor))
    return model


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).standard_normal((20, 3, 6, 6)).astype(np.float32)


@pytest.mark.parametrize("opset", [11, 12, 13, 17])
@pytest.mark.parametrize("listed", [True, False])
def test_models_of_others_compute_the_same_and_can_be_quantized(opset, listed, images):
    model = foreign(opset, listed=listed)
    before = model.SerializeToString()
    ours = prepared(model)
    assert model.SerializeToString() == before
    onnx.checker.check_model(ours, full_check=True)
    torch.manual_seed(0)
    expected = Viewed().eval()(torch.from_numpy(images)).detach().numpy()
    np.testing.assert_allclose(run(ours, images), expected, atol=1e-5)
    assert [v.name for v in (*ours.graph.input, *ours.graph.output)] == ["input", "logits"]
    names = [node.name for node in ours.graph.node]
    assert all(names) and len(set(names)) == len(names)
    assert [layer.op_type for layer in layers(ours)] == ["Conv", "Gemm"]
    assert {node.op_type for node in ours.graph.node}.isdisjoint({"Shape", "Constant", "Gather", "Concat", "Identity"})
    int8 = quantize(ours, names, activation_ranges(ours, images))
    assert np.abs(run(int8, images) - expected).max() < 0.05 * np.ptp(expected)


def test_a_fixed_batch_is_opened(images):
    ours = prepared(foreign(17, batch=1))
    assert ours.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert run(ours, images).shape == (20, 5)


def test_a_fixed_batch_is_opened_where_a_node_makes_the_shape_to_reshape_to(images):
    model = foreign(17, batch=1)
    reshape = next(node for node in model.graph.node if node.op_type == "Reshape")
    target = numpy_helper.from_array(np.array([1, -1]), "target")
    model.graph.node.insert(0, helper.make_node("Constant", [], ["target"], value=target))
    reshape.input[1] = "target"
    assert run(prepared(model), images).shape == (20, 5)


@pytest.mark.parametrize("shape", [None, ["n", "k"], ["n", 5]])
def test_the_shape_of_the_output_is_found_by_running(shape):
    model = foreign(17)
    end = helper.make_tensor_value_info(model.graph.output[0].name, TensorProto.FLOAT, shape)
    model.graph.output[0].CopyFrom(end)
    sizes = prepared(model).graph.output[0].type.tensor_type.shape.dim
    assert [size.dim_param or size.dim_value for size in sizes] == ["batch", 5]


def single(op_type, shape=("n", 3, 7, 8), values=(), extra=(), **attributes):
    node = helper.make_node(op_type, ["input", *(name for name, _ in values), *extra], ["logits"], **attributes)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("input", *extra)]
    end = helper.make_tensor_value_info("logits", TensorProto.FLOAT, list("ncyx"[: len(shape)]))
    constants = [numpy_helper.from_array(v, name) for name, v in values]
    graph = helper.make_graph([node], "g", ends, [end], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER", "VALID"])
def test_pads_are_written_out(mode):
    w = np.random.default_rng(0).standard_normal((4, 3, 3, 2)).astype(np.float32)
    x = np.random.default_rng(1).standard_normal((2, 3, 7, 8)).astype(np.float32)
    model = single("Conv", values=[("w", w)], auto_pad=mode, strides=[2, 1])
    ours = prepared(model)
    assert not any(a.name == "auto_pad" for a in ours.graph.node[0].attribute)
    np.testing.assert_array_equal(run(ours, x), run(model, x))
    assert any(layers(ours)[0].pads) == (mode != "VALID")


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (single("Add", extra=("other",)), r"inputs \['input', 'other'\] .*, expected one float32 input and one output"),
        (single("Relu", shape=("n", 3, "h", 8)), r"shape \['n', 3, 'h', 8\]: export it with fixed sizes"),
        (single("QuantizeLinear", values=[("s", np.float32(1))]), "the model is quantized already, give it in fp32"),
    ],
)
def test_what_cannot_be_taken_is_refused(model, words):
    with pytest.raises(ValueError, match=words):
        prepared(model)


def test_an_opset_without_converter_is_refused():
    model = single("Softplus", shape=("n", 3))
    model.graph.node[0].op_type = "NoSuchOperator"
    model.opset_import[0].version = 9
    with pytest.raises(ValueError, match="has opset 9 and cannot be converted to 17"):
        prepared(model)
