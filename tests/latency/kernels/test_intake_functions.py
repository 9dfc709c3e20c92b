"""Activation functions, pools and joins of QDQ graphs against ONNX Runtime."""

import numpy as np
import pytest
from qdq_graphs import Graph, agree, maps

from latency.kernels.contract import AveragePool, Concatenate, Convolution, Table, WindowAverage, WindowMaximum


def hard_swish(g, x, y):
    return g.node("HardSwish", x)


def written_out(g, x, y):
    """x · clip(x + 3, 0, 6) / 6, with every part rounded."""
    y = g.codes(g.node("Add", x, g.floats(3.0)), 0.03, 10)
    y = g.codes(g.node("Clip", y, g.floats(0.0), g.floats(6.0)), 6 / 255, 0)
    return g.node("Div", g.codes(g.node("Mul", x, y), 0.06, 20), g.floats(6.0))


def swish(g, x, y):
    return g.node("Mul", x, g.node("Sigmoid", x))


def swish_of_codes(g, x, y):
    return g.node("Mul", x, g.codes(g.node("Sigmoid", x), 1 / 255, 0))


def leaky(g, x, y):
    return g.node("LeakyRelu", x, alpha=0.2)


def with_itself(g, x, y):
    return g.node("Add", x, g.node("Relu", x))


@pytest.mark.parametrize("function", [hard_swish, written_out, swish, swish_of_codes, leaky, with_itself])
@pytest.mark.parametrize("kind", [np.uint8, np.int8])
def test_functions_of_one_tensor_are_a_table_behind_its_rounding(function, kind):
    g = Graph((4, 7, 6), kind=kind, seed=3)
    x = g.codes(g.conv(g.start(), 9, 4, 1, 1), 0.031, 122)
    program = agree(g, g.codes(function(g, x, None), 0.029, 25))
    assert program.steps[1].operation.rounding.table is not None
    assert Table not in [type(step.operation) for step in program.steps]


def test_a_table_is_a_step_where_its_codes_are_read_without_it_too():
    g = Graph((4, 7, 6))
    x = g.codes(g.conv(g.start(), 9, 4, 1, 1), 0.031, 122)
    y = g.codes(g.node("HardSwish", x), 0.029, 14)
    both = (g.codes(g.conv(tensor, 9, 9, 1, 1), scale) for tensor, scale in ((x, 0.051), (y, 0.047)))
    program = agree(g, g.codes(g.node("Add", *both), 0.073))
    assert [type(step.operation) for step in program.steps].count(Table) == 1


def test_a_table_that_cuts_moves_the_ends_of_a_rounding():
    g = Graph((4, 7, 6))
    x = g.codes(g.conv(g.start(), 9, 4, 1, 1), 0.031, 122)
    rounding = agree(g, g.codes(g.node("Relu", x), 0.031, 122)).steps[1].operation.rounding
    assert rounding.table is None and (rounding.low, rounding.high) == (122, 255)


@pytest.mark.parametrize("size, stride, pads, more", [
    ((2, 2), 2, [0, 0, 0, 0], {}),
    ((2, 2), 2, [0, 0, 0, 0], {"ceil_mode": 1}),
    ((3, 3), 1, [1, 1, 1, 1], {}),
    ((3, 2), 2, [1, 0, 1, 1], {"count_include_pad": 1}),
])  # fmt: skip
def test_averages_of_windows(size, stride, pads, more):
    g = Graph((5, 9, 7))
    for scale, zero in ((0.02, 117), (0.017, 101)):
        attributes = {"kernel_shape": list(size), "strides": [stride, stride], "pads": pads, **more}
        x = g.codes(g.node("AveragePool", g.start(), **attributes), scale, zero)
        found, expected, program = maps(g, x)
        assert np.array_equal(found, expected)  # halves between codes too, of which there are many
        assert type(program.steps[1].operation) is WindowAverage


def test_a_window_over_all_pixels_is_a_global_pool():
    g = Graph((64, 2, 2))
    x = g.start()
    for scale in (0.02, 0.017):
        y = g.codes(g.node("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2]), scale, 117)
        x = g.codes(g.node("Add", y, y), 0.031)
        found, expected, program = maps(g, x)
        assert np.array_equal(found, expected) and type(program.steps[1].operation) is AveragePool
        x = g.start()


@pytest.mark.parametrize("of_codes", [True, False])
def test_maxima_of_windows(of_codes):
    g = Graph((5, 9, 7), kind=np.int8)
    x = g.codes(g.conv(g.start(), 6, 5, 1, 1), 0.02)
    source, scale = (g.rounded[-1], g.nodes[-1].input[1:]) if of_codes else (x, None)
    y = g.node("MaxPool", source, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], ceil_mode=1)
    y = g.node("DequantizeLinear", y, *scale) if of_codes else y
    program = agree(g, g.codes(y, 0.02))
    assert type(program.steps[2].operation) is WindowMaximum and len(program.steps) == 5


def test_channels_of_several_tensors():
    g = Graph((5, 6, 7))
    x = g.start()
    y = g.codes(g.conv(x, 8, 5, 1, 1), 0.03, 90)
    joined = agree(g, g.codes(g.node("Concat", y, x, axis=1), 0.025, 100))
    found = [type(step.operation) for step in joined.steps]
    assert found[:4].count(Convolution) == 1 and found.count(Table) == 1 and Concatenate in found
