"""Files that fused kernels do not cover are refused with the nodes and the reasons, before anything is run."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from qdq_graphs import Graph
from torch import nn

from latency.kernels.intake import program_of
from latency.lowering import to_onnx
from quant_search.onnx_qdq import neutral_ranges, quantize


def refused(model):
    with pytest.raises(ValueError) as error:
        program_of(model)
    message = str(error.value)
    assert "\n" not in message
    return message


def refused_tail(g, tensor):
    return refused(g.model(g.pooled(g.codes(tensor, 0.03))))


def test_blocks_in_fp32_are_named():
    network = nn.Sequential(
        *(nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.ReLU()) for _ in range(6)),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4),
    )  # fmt: skip
    model = to_onnx(network, (3, 8, 8))
    named = [node.name for node in model.graph.node]
    half = quantize(model, [n for n in named if not n.startswith(("/2", "/3"))], neutral_ranges(model))
    message = refused(half)
    assert message.startswith("fused kernels do not cover 2 of ")
    assert message.endswith(": '/2.0/Conv', '/3.0/Conv' (Conv): computes in fp32: its weight is not quantized")
    assert "7 of 15 nodes: '/0.0/Conv', '/1.0/Conv', '/2.0/Conv' and 3 more (Conv): computes in fp32" in refused(model)


def test_all_nodes_are_named_at_once_by_their_reasons_in_the_order_of_the_file():
    g = Graph((3, 6, 6))
    x = g.codes(g.conv(g.start(), 4, 3, 3, 3, dilations=[2, 2]), 0.03)  # which its handler refuses
    other = g.codes(g.node("Softmax", g.start()), 0.03)  # and this one is told by its operator alone
    message = refused(g.model(g.pooled(g.node("Concat", x, other, axis=1))))
    assert message.startswith("fused kernels do not cover 2 of ")
    assert "unequal strides or a dilation; " in message and message.index("(Conv)") < message.index("(Softmax)")
    assert "Concat" not in message  # which is behind both


def test_operators_without_a_counterpart():
    g = Graph((3, 6, 6))
    x = g.codes(g.node("InstanceNormalization", g.start(), g.floats(1, 1, 1), g.floats(0, 0, 0)), 0.03)
    x = g.codes(g.node("Softmax", x), 0.03)
    message = refused(g.model(g.pooled(x)))
    assert "(InstanceNormalization): an operator that has no counterpart; " in message and "(Softmax)" in message


def test_operators_of_other_domains():
    g = Graph((3, 6, 6))
    x = g.node("QuickGelu", g.start(), domain="com.microsoft")
    assert "(QuickGelu): an operator of com.microsoft" in refused_tail(g, x)


@pytest.mark.parametrize("attributes, reason", [
    ({"dilations": [2, 2]}, "unequal strides or a dilation"),
    ({"strides": [1, 2]}, "unequal strides or a dilation"),
])  # fmt: skip
def test_convolutions_of_other_kinds(attributes, reason):
    g = Graph((3, 9, 9))
    assert f"(Conv): {reason}" in refused_tail(g, g.conv(g.start(), 4, 3, 3, 3, **attributes))


def test_values_that_were_not_rounded():
    g = Graph((3, 6, 6))
    x = g.node("HardSwish", g.conv(g.start(), 4, 3, 1, 1))
    assert "(HardSwish): reads values that were not rounded to codes by a QuantizeLinear" in refused_tail(g, x)
    g = Graph((3, 6, 6))
    g.scales["x"] = np.float32(1)
    assert "(Conv): computes in fp32: its input is not quantized" in refused_tail(g, g.conv("x", 4, 3, 1, 1))


def test_weights_whose_steps_are_beyond_int8():
    g = Graph((3, 6, 6))
    values = np.arange(256, dtype=np.uint8)[: 4 * 3].reshape(4, 3, 1, 1) * 20
    weight = g.node("DequantizeLinear", *(g.constant(v) for v in (values, np.float32(0.01), np.uint8(3))))
    assert "(Conv): its weight has a zero point that leaves" in refused_tail(g, g.node("Conv", g.start(), weight))
    g = Graph((3, 6, 6))
    values = (values // 2).astype(np.uint8)
    weight = g.node("DequantizeLinear", *(g.constant(v) for v in (values, np.float32(0.01), np.uint8(100))))
    last = g.codes(g.node("Conv", g.start(), weight), 0.03)
    assert program_of(g.model(g.pooled(last))).steps[1].operation.weight.min() == -100


def test_sums_beyond_32_bits():
    g = Graph((70_000, 1, 1))
    of = (np.full((2, 70_000), 127, np.int8), np.float32(0.01), np.int8(0))
    y = g.node("Gemm", g.node("Flatten", g.start()), g.node("DequantizeLinear", *(g.constant(v) for v in of)), transB=1)
    assert "(Gemm): its sums may pass 2^31" in refused(g.model(y))


def test_codes_of_other_types_and_scales():
    g = Graph((3, 6, 6), kind=np.uint16)
    assert "(QuantizeLinear): rounds to uint16, expected uint8 or int8" in refused_tail(g, g.start())
    g = Graph((3, 6, 6))
    of = g.floats(0.02, 0.03, 0.04), g.constant(np.zeros(3, np.uint8))
    x = g.node("DequantizeLinear", g.node("QuantizeLinear", "x", *of, axis=1), *of, axis=1)
    assert "(QuantizeLinear): an activation with several scales" in refused_tail(g, x)


def test_two_maps_of_all_pixels_are_not_multiplied():
    g = Graph((3, 6, 6))
    x = g.start()
    y = g.codes(g.conv(x, 3, 3, 1, 1), 0.02)
    assert "(Mul): multiplies (3, 6, 6) by (3, 6, 6), expected a factor for each channel" in refused_tail(
        g, g.node("Mul", x, y)
    )


def test_outputs_that_are_neither_codes_nor_logits():
    g = Graph((3, 6, 6))
    assert "gives the output" in refused(g.model(g.start()))
    g = Graph((3, 1, 1))
    y = g.node("Gemm", g.node("Flatten", g.start()), g.weight(4, 3)[0], transB=1)
    assert len(program_of(g.model(y)).steps) == 2
    assert "gives the output" in refused(g.model(g.node("Relu", y)))
    g = Graph((3, 6, 6))
    assert "gives the output" in refused(g.model(g.node("Flatten", g.node("GlobalAveragePool", g.start()))))


def test_inputs_that_are_no_images():
    g = Graph((3, 6, 6))
    model = g.model(g.pooled(g.start()))
    model.graph.input.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, [1]))
    assert "one input of float32 images" in refused(model) and "'x', 'y'" in refused(model)
    g = Graph((3, 6, "w"))
    assert "of known size" in refused(g.model(g.pooled(g.start())))


def test_nothing_is_refused_for_what_nobody_reads():
    g = Graph((3, 6, 6))
    g.node("Add", g.floats(1.0), g.floats(2.0))
    model = g.model(g.pooled(g.start()))
    assert len(program_of(onnx.load_model_from_string(model.SerializeToString())).steps) == 3
