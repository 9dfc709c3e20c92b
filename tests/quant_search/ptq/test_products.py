"""Gemms with factors and biases of odd shapes."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from latency.device import parse_device
from latency.runtimes.onnx_runtime import open_session
from quant_search.layers import layers, values_of
from quant_search.ptq.products import plain_products

RNG = np.random.default_rng(0)
X = RNG.standard_normal((3, 4)).astype(np.float32)


def drawn(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def model(bias, both=False, computed=False, **attributes):
    """One Gemm, or two that share their weight and bias; the last one's bias may be computed."""
    values = {"weight": drawn(4, 5), "bias": bias}
    nodes = [helper.make_node("Gemm", ["input", "weight", "bias"], ["logits"], "/a/Gemm", **attributes)]
    if both or computed:
        nodes[0].output[0] = "first"
        own = "first" if computed else "bias"
        nodes.append(helper.make_node("Gemm", ["input", "weight", own], ["second"], "/b/Gemm", alpha=0.5, beta=0.1))
        nodes.append(helper.make_node("Add", ["first", "second"], ["logits"], "/Add"))
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("input", (3, 4)), ("logits", (3, 5)))]
    constants = [numpy_helper.from_array(np.asarray(v), name) for name, v in values.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def run(given):
    return open_session(given.SerializeToString(), parse_device("cpu")).run(X)


def factors(given):
    return {(a.name, a.f) for node in given.graph.node for a in node.attribute}


@pytest.mark.parametrize("bias", [drawn(5), drawn(1, 5), drawn(1), drawn(1, 1), np.float32(2)], ids=np.shape)
def test_a_bias_is_a_number_for_each_output(bias):
    given = model(bias, alpha=-0.3, beta=2.0)
    plain = plain_products(given)
    np.testing.assert_allclose(run(plain), run(given), atol=1e-5)
    (layer,) = layers(plain)
    assert values_of(plain)[layer.bias].shape == (5,) and factors(plain) == {("alpha", 1.0), ("beta", 1.0)}
    assert factors(given) != factors(plain)


def test_a_bias_that_differs_from_row_to_row_keeps_its_shape():
    for shape in ((3, 5), (3, 1)):
        given = model(drawn(*shape), beta=2.0)
        plain = plain_products(given)
        np.testing.assert_allclose(run(plain), run(given), atol=1e-5)
        assert values_of(plain)["bias"].shape == shape


def test_what_others_read_stays_as_it_is():
    given = model(drawn(5), both=True)
    plain = plain_products(given)
    np.testing.assert_allclose(run(plain), run(given), atol=1e-5)
    first, second = layers(plain)
    assert (first.weight, first.bias) == ("weight", "bias")
    assert (second.weight, second.bias) == ("/b/Gemm.weight", "/b/Gemm.bias")


def test_the_factor_of_a_computed_operand_stays():
    given = model(drawn(5), computed=True)
    plain = plain_products(given)
    np.testing.assert_allclose(run(plain), run(given), atol=1e-5)
    assert ("beta", np.float32(0.1)) in factors(plain)


def test_a_plain_product_stays_byte_for_byte():
    given = model(drawn(5), transB=0)
    assert plain_products(given) == given


def test_a_weight_that_is_read_transposed_as_well_becomes_two():
    given = model(drawn(5))
    nodes = [
        helper.make_node("Gemm", ["logits", "weight"], ["back"], "/back/Gemm", transB=1),
        helper.make_node("MatMul", ["back", "weight"], ["forth"], "/forth/MatMul"),
    ]
    given.graph.node.extend(nodes)
    given.graph.output[0].name = "forth"
    plain = plain_products(given)
    np.testing.assert_array_equal(run(plain), run(given))
    assert [layer.weight for layer in layers(plain)] == ["weight", "/back/Gemm.weight", "weight"]
