"""Layers of QDQ graphs against ONNX Runtime: odd sizes, asymmetric pads, zero points off 0."""

import numpy as np
import pytest
from qdq_graphs import Graph, agree, run, run_as_written

from latency.kernels.contract import Add, Convolution, Dequantize, InvertedResidual, Logits, Multiply, Table
from latency.kernels.intake import program_of


def kinds(program):
    return [type(step.operation) for step in program.steps]


@pytest.mark.parametrize("kind", [np.uint8, np.int8])
@pytest.mark.parametrize("by_channel", [True, False])
def test_dense_convolutions(kind, by_channel):
    g = Graph((3, 9, 7), kind=kind)
    x = g.codes(g.conv(g.start(37), 10, 3, 3, 3, by_channel=by_channel, pads=[1, 0, 2, 1], strides=[2, 2]), 0.03, 121)
    x = g.codes(g.conv(x, 12, 10, 2, 3, bias=False, pads=[0, 1, 1, 0]), 0.04, 99)
    agree(g, x)


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER", "VALID"])
def test_padding_may_be_named(auto_pad):
    g = Graph((3, 10, 7))
    agree(g, g.codes(g.conv(g.start(), 8, 3, 3, 3, strides=[2, 2], auto_pad=auto_pad), 0.03, 121))


@pytest.mark.parametrize("activation", ["Relu", "Clip", "Clip6"])
@pytest.mark.parametrize("kind", [np.uint8, np.int8])
def test_depthwise_convolutions_with_an_activation_before_rounding(activation, kind):
    g = Graph((6, 8, 11), kind=kind)
    x = g.conv(g.start(90), 6, 1, 5, 5, group=6, pads=[2, 2, 2, 2])
    ends = {"Relu": [], "Clip": [g.floats(-0.7), g.floats(1.9)], "Clip6": ["", g.floats(6.0)]}[activation]
    x = g.codes(g.node(activation[:4], x, *ends), 0.02, 20)
    program = agree(g, x)
    rounding = program.steps[1].operation.rounding
    assert (rounding.low, rounding.high) == {"Relu": (20, 255), "Clip": (0, 115), "Clip6": (0, 255)}[activation]


def test_groups_and_shuffles_are_dense_convolutions():
    g = Graph((8, 5, 6))
    x = g.codes(g.conv(g.start(), 12, 4, 1, 1, group=2), 0.02, 110)
    order = g.constant(np.arange(12).reshape(2, 6).T.ravel())
    x = g.codes(g.node("Gather", x, order, axis=1), 0.02, 110)
    x = g.codes(g.conv(x, 12, 1, 3, 3, group=12, pads=[1, 1, 1, 1]), 0.03)
    x = g.codes(g.conv(x, 6, 6, 1, 1, group=2), 0.04)
    assert InvertedResidual in (found := kinds(agree(g, x))) and Convolution not in found


def test_channels_of_what_is_read_twice_are_picked():
    g = Graph((3, 5, 6))
    x = g.codes(g.conv(g.start(), 8, 3, 1, 1), 0.02, 110)
    y = g.node("Gather", x, g.constant(np.array([7, 1, 1, 0, 2, -3, 4, 6])), axis=1)
    assert kinds(agree(g, g.codes(g.node("Add", x, y), 0.037))).count(Convolution) == 2


def inverted_residual(g, x, hidden, add, activation=None):
    c, y = g.shape[0], x
    for shape, more in (((hidden, c, 1, 1), {}), ((hidden, 1, 3, 3), {"group": hidden, "pads": [1, 1, 1, 1]})):
        y = g.conv(y, *shape, **more)
        y = g.codes(y if activation else g.node("Relu", y), 0.03, 100 if activation else 0)
        y = g.codes(g.node(activation, y), 0.03, 14) if activation else y
    y = g.conv(y, c, hidden, 1, 1)
    return g.codes(g.node("Add", *add(y)), 0.05, 130)


@pytest.mark.parametrize("first", [True, False])
def test_residuals_of_rounded_projections(first):
    g = Graph((6, 7, 5))
    x = g.start()

    def add(y):
        rounded = g.codes(y, 0.035, 133)
        return (rounded, x) if first else (x, rounded)

    assert kinds(agree(g, inverted_residual(g, x, 18, add)))[1:3] == [InvertedResidual, Add]


def test_residuals_of_projections_that_are_not_rounded_are_added_to_sums():
    g = Graph((6, 7, 5))
    x = g.start()
    found = agree(g, inverted_residual(g, x, 18, lambda y: (y, x)))
    assert kinds(found)[1] is InvertedResidual and found.steps[1].operation.project.rounding.residual > 0


def test_residuals_of_other_tensors_than_the_input_leave_a_block_in_parts():
    g = Graph((6, 7, 5))
    other = g.codes(g.conv(x := g.start(), 6, 6, 1, 1), 0.03)
    assert InvertedResidual not in kinds(agree(g, inverted_residual(g, x, 18, lambda y: (y, other))))


def test_tables_go_into_the_roundings_of_blocks():
    g = Graph((6, 7, 5))
    x = g.start()
    program = agree(g, inverted_residual(g, x, 18, lambda y: (g.codes(y, 0.035, 133), x), "HardSwish"))
    assert kinds(program)[1:3] == [InvertedResidual, Add] and Table not in kinds(program)
    assert program.steps[1].operation.expand.rounding.table is not None


def test_squeeze_and_excitation():
    g = Graph((8, 5, 9))
    x = g.codes(g.node("HardSwish", g.codes(g.conv(g.start(), 8, 1, 3, 3, group=8, pads=[1, 1, 1, 1]), 0.02)), 0.02, 15)
    y = g.codes(g.node("GlobalAveragePool", x), 0.005, 60)
    y = g.codes(g.node("Relu", g.conv(y, 4, 8, 1, 1)), 0.004, 0)
    y = g.codes(g.conv(y, 8, 4, 1, 1), 0.01, 120)
    y = g.codes(g.node("HardSigmoid", y, alpha=1 / 6), 1 / 255, 0)
    assert Multiply in (found := kinds(agree(g, g.codes(g.node("Mul", x, y), 0.015, 18)))) and Table not in found


def test_norms_that_are_not_folded():
    g = Graph((5, 6, 6))
    values = (g.rng.uniform(low, 1.5, 5).astype(np.float32) for low in (-1.0, -1.0, -1.0, 0.2))
    x = g.node("Relu", g.node("BatchNormalization", g.start(), *(g.constant(v) for v in values)))
    agree(g, g.codes(x, 0.02, 0))


@pytest.mark.parametrize("constant", [(1, 6, 1, 1), (6, 1, 1)])
def test_a_constant_for_each_channel(constant):
    g = Graph((6, 5, 5))
    x = g.codes(g.node("Add", g.start(), g.floats(g.rng.uniform(-1, 1, constant))), 0.02)
    agree(g, g.codes(g.node("Mul", x, g.floats(g.rng.uniform(-1, 1, constant))), 0.015))


def logits(g, output):
    """Logits of the reference and of ONNX Runtime, and the program."""
    model, x = g.model(output), g.images(20)
    program = program_of(model)
    rounded = isinstance(program.steps[-1].operation, Dequantize)
    found, expected = program.run(x), (run if rounded else run_as_written)(model, x)
    assert found.shape == expected.shape and len(np.unique(expected)) > 20
    return found, expected, program


@pytest.mark.parametrize("shape", [(6, 1, 1), (3, 4, 2)])
@pytest.mark.parametrize("turned", [True, False])
def test_linear_layers_to_codes_and_to_floats(shape, turned):
    inputs = int(np.prod(shape))
    for rounded in (True, False):
        g = Graph(shape)
        x = g.node("Flatten", g.start())
        g.scales[x] = np.float32(0.02)
        weight, scale = g.weight(*((10, inputs) if turned else (inputs, 10)), axis=0 if turned else 1)
        y = g.node("Gemm", x, weight, g.bias(x, scale, 10), transB=int(turned), alpha=1.0 if rounded else 0.5)
        found, expected, program = logits(g, g.codes(y, 0.01) if rounded else y)
        assert kinds(program)[-1] is (Dequantize if rounded else Logits)
        assert np.abs(found - expected).max() <= (0.0101 if rounded else 1e-5)
        assert (found != expected).mean() <= (1e-3 if rounded else 1)


def test_a_product_and_a_sum_to_logits_behind_a_computed_shape():
    g = Graph((5, 4, 4), opset=18)
    x = g.codes(g.node("ReduceMean", g.start(), g.constant(np.array([-1, -2])), keepdims=1), 0.0137)
    count = g.node("Gather", g.node("Shape", x), g.constant(np.array(0)), axis=0)
    shape = g.node("Concat", g.node("Unsqueeze", count, g.constant([0])), g.constant(np.array([-1])), axis=0)
    weight, _ = g.weight(5, 10, axis=1)
    y = g.node("MatMul", g.node("Reshape", x, shape), weight)
    found, expected, _ = logits(g, g.node("Add", y, g.floats(g.rng.uniform(-1, 1, 10))))
    assert np.allclose(found, expected, atol=1e-5)


def test_a_last_convolution_is_a_linear_layer():
    g = Graph((5, 3, 3))
    x = g.codes(g.node("GlobalAveragePool", g.start()), 0.01)
    y = g.node("Squeeze", g.conv(x, 10, 5, 1, 1), g.constant(np.array([2, 3])))
    found, expected, program = logits(g, y)
    assert kinds(program)[-1] is Logits and np.allclose(found, expected, atol=1e-5)
