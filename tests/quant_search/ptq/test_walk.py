import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from latency.runtimes.onnx_runtime import tensors_of
from quant_search.layers import layers
from quant_search.onnx_qdq import activation_ranges, quantize
from quant_search.ptq import walk as module
from quant_search.ptq.walk import Walk
from tests.quant_search.small_digits import digits, every, run, trained

X = digits()[0][:50]


def with_outputs(model, names):
    opened = onnx.ModelProto()
    opened.CopyFrom(model)
    del opened.graph.output[:]
    opened.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return opened


@pytest.fixture(scope="module", params=["fp32", "int8"])
def model(request):
    fp32 = trained()
    return fp32 if request.param == "fp32" else quantize(fp32, every(fp32), activation_ranges(fp32, X))


@pytest.mark.parametrize("batch", [7, 50])
def test_a_walk_sees_what_the_whole_graph_makes(model, batch):
    walk = Walk(model, X, batch)
    for layer in layers(trained()):
        walk.advance(layer.name)
        output = walk.node(layer.name).output[0]
        y = np.concatenate(list(walk.each(output)))
        expected = run(with_outputs(model, [output]), X)
        np.testing.assert_allclose(y, expected, atol=2e-3 * np.ptp(expected))
        assert len(y) == len(X)


def test_it_holds_what_crosses_and_codes_rather_than_values(model):
    walk = Walk(model, X)
    shapes = tensors_of(model)
    walk.advance("/block.3/Conv")  # inside of the residual block: its input, and that of the layer
    assert len(walk._held) == 2
    for name, values in walk._held.items():
        assert values.shape[1:] == shapes[name][0][1:]
        assert values.dtype == (np.uint8 if "QuantizeLinear" in {n.op_type for n in model.graph.node} else np.float32)


def test_large_tensors_lie_on_disk(model, monkeypatch):
    monkeypatch.setattr(module, "_ON_DISK_BYTES", 1000)
    walk = Walk(model, X, 7)
    walk.advance("/last/Gemm")
    assert all(isinstance(values, np.memmap) for values in walk._held.values())
    expected = run(model, X)
    (end,) = (value.name for value in model.graph.output)
    np.testing.assert_allclose(np.concatenate(list(walk.each(end))), expected, atol=1e-3 * np.ptp(expected))


def test_what_was_not_passed_may_change():
    model = trained()
    walk, other = Walk(model, X), onnx.ModelProto()
    other.CopyFrom(model)
    walk.advance("/last/Gemm")
    bias = next(t for t in other.graph.initializer if t.name == "last.bias")
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + 1, bias.name))
    walk.use(other)
    np.testing.assert_allclose(np.concatenate(list(walk.each("logits"))), run(model, X) + 1, atol=1e-4)


def test_tensors_without_a_row_for_each_image_are_refused():
    nodes = [
        helper.make_node("Shape", ["input"], ["s"], "s"),
        helper.make_node("Reshape", ["input", "s"], ["logits"], "r"),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 1, 8, 8]) for name in ("input", "logits")]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with pytest.raises(ValueError, match=r"tensor 's' of 50 images has the shape \(4,\): one row for each"):
        Walk(model, X).advance("r")
