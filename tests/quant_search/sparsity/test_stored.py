"""Weights stored by their nonzero values: smaller files with the same outputs, kernels and bits."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from latency.device import parse_device
from latency.lowering import to_onnx
from latency.runtimes.onnx_runtime import optimised_graph
from latency.runtimes.opening import int8_share, open_session
from quant_search.ranges import activation_ranges
from quant_search.realise import in_precisions, nodes_in_int8
from quant_search.sensitivity.subject import by_layer
from quant_search.sparsity.masking import apply_masks, masks_of
from quant_search.sparsity.parse import parse_pattern
from quant_search.sparsity.stored import stored_sparsely
from tests.quant_search.small_digits import digits, run

CPU = parse_device("cpu")
X = digits()[0][:64]


def products(*shapes, zeros=0.8, precision="fp32", seed=0):
    """A model of products one after another, with a share of zeros in their weights."""
    rng, nodes, tensors = np.random.default_rng(seed), [], []
    for i, shape in enumerate(shapes):
        weight = rng.standard_normal(shape).astype(np.float32)
        tensors.append(numpy_helper.from_array(np.where(rng.random(shape) < zeros, 0, weight), f"w{i}"))
        nodes.append(
            helper.make_node("MatMul", ["input" if i == 0 else f"t{i}", f"w{i}"], [f"t{i + 1}"], f"product{i}")
        )
    ends = [("input", shapes[0][0]), (f"t{len(shapes)}", shapes[-1][1])]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["b", width]) for name, width in ends]
    graph = helper.make_graph(nodes, "products", values[:1], values[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return rounded(model, precision, rng.standard_normal((8, shapes[0][0])).astype(np.float32))


def rounded(model, precision, images):
    groups = by_layer(model)
    chosen = dict.fromkeys(groups, precision)
    if precision == "fp32":
        return model
    ranges = activation_ranges(model, images, nodes=nodes_in_int8(groups, chosen))
    return in_precisions(model, groups, chosen, ranges, pack=True)


def computed(model, width, seed=1):
    session = onnxruntime.InferenceSession(model.SerializeToString())
    x = np.random.default_rng(seed).standard_normal((5, width)).astype(np.float32)
    return session.run(None, {"input": x})[0]


@pytest.mark.parametrize("precision", ["fp32", "int8", "w4a8", "w8", "w4"])
@pytest.mark.parametrize("shapes", [[(64, 32)], [(33, 31), (31, 65), (65, 7)]], ids=["one", "tails"])
def test_outputs_are_the_same_to_the_bit_and_files_are_smaller(precision, shapes):
    dense = products(*[(4 * a, 4 * b) for a, b in shapes], precision=precision)
    sparse = stored_sparsely(dense)
    onnx.checker.check_model(sparse)
    assert np.array_equal(computed(dense, 4 * shapes[0][0]), computed(sparse, 4 * shapes[0][0]))
    assert sparse.ByteSize() < dense.ByteSize()


def test_a_file_is_as_large_as_its_values_and_a_bit_for_each_weight():
    dense = products((512, 512), zeros=0.75)
    kept = int((numpy_helper.to_array(dense.graph.initializer[0]) != 0).sum())
    size = stored_sparsely(dense).ByteSize()
    assert 4 * kept + 512 * 512 / 8 < size < 4 * kept + 512 * 512 / 8 + 1500


def test_what_is_not_smaller_so_stays_as_it_is():
    for dense in (products((64, 64), zeros=0.0), products((4, 4), zeros=0.9)):
        assert stored_sparsely(dense) == dense
    mixed = products((256, 256), (256, 256), zeros=0.0)
    values = numpy_helper.to_array(mixed.graph.initializer[1]).copy()
    values[:, ::2] = 0
    mixed.graph.initializer[1].CopyFrom(numpy_helper.from_array(values, "w1"))
    names = {tensor.name for tensor in stored_sparsely(mixed).graph.initializer}
    assert "w0" in names and "w1" not in names and "sparse.fp32.mask" in names


def test_negative_zeros_and_odd_bits_are_kept():
    dense = products((64, 64), zeros=0.9)
    values = numpy_helper.to_array(dense.graph.initializer[0]).copy()
    values[0, :4] = -0.0, np.inf, 1e-45, -1e-45
    dense.graph.initializer[0].CopyFrom(numpy_helper.from_array(values, "w0"))
    dense.graph.output.append(helper.make_tensor_value_info("seen", TensorProto.FLOAT, [64, 64]))
    dense.graph.node.append(helper.make_node("Identity", ["w0"], ["seen"], "look"))
    session = onnxruntime.InferenceSession(stored_sparsely(dense).SerializeToString())
    seen = session.run(["seen"], {"input": np.zeros((1, 64), np.float32)})[0]
    assert np.array_equal(seen.view(np.int32), values.view(np.int32))


@pytest.fixture(scope="module")
def network():
    """Convolutions with weights enough to be worth storing sparsely in four bits."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 48, 3, 2), nn.ReLU(), nn.Conv2d(48, 96, 3), nn.ReLU(), nn.Flatten(), nn.Linear(96, 10)]
    return to_onnx(nn.Sequential(*layers).eval(), (1, 8, 8))


@pytest.mark.parametrize("precision", ["fp32", "int8", "w4a8"])
@pytest.mark.parametrize("pattern", ["2:4", "16x4:0.5", "unstructured:0.8"])
def test_a_network_runs_in_the_kernels_it_ran_in(network, pattern, precision):
    dense = rounded(apply_masks(network, masks_of(network, parse_pattern(pattern))), precision, X)
    sparse = stored_sparsely(dense)
    assert sparse.ByteSize() < 0.9 * dense.ByteSize()
    assert np.array_equal(run(dense, X), run(sparse, X))
    share = int8_share(sparse.SerializeToString(), CPU)
    assert share == int8_share(dense.SerializeToString(), CPU) == (0.0 if precision == "fp32" else 1.0)
    assert executed(sparse) == executed(dense)


@pytest.mark.parametrize("precision", ["fp32", "int8", "w4a8"])
def test_another_run_time_rebuilds_the_same_weights(network, precision):
    """In OpenVINO, which rounds BitShift to the nearest; a layer may leave its int8 kernel there."""
    pytest.importorskip("openvino")
    dense = rounded(apply_masks(network, masks_of(network, parse_pattern("2:4"))), precision, X)
    files = [model.SerializeToString() for model in (dense, stored_sparsely(dense))]
    there = parse_device("cpu:openvino")
    assert np.array_equal(*(open_session(file, there).run(X) for file in files))


def executed(model):
    """The operators of the graph that ONNX Runtime makes of a model."""
    return [node.op_type for node in optimised_graph(model.SerializeToString(), CPU).graph.node]


def test_the_given_model_stays_as_it_was():
    dense = products((64, 64))
    before = dense.SerializeToString()
    assert stored_sparsely(dense).SerializeToString() != before == dense.SerializeToString()
    assert stored_sparsely(stored_sparsely(dense)) == stored_sparsely(dense)
