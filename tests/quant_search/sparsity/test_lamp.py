import numpy as np
import pytest
from sparse_subject import digits_model

from quant_search.sparsity.lamp import lamp, relative
from quant_search.sparsity.magnitude import magnitude
from quant_search.sparsity.weighted import layers_of


def test_scores_are_squares_over_the_sum_of_those_that_are_not_smaller():
    squares = np.square(np.random.default_rng(0).standard_normal((3, 4)))
    expected = [s / squares[squares >= s].sum() for s in squares.ravel()]
    assert relative(squares).ravel() == pytest.approx(expected)


def test_the_largest_of_every_layer_scores_1_and_order_stays():
    model = digits_model()
    layers = layers_of(model)
    squares, scores = magnitude(model, layers), lamp(model, layers)
    for name in squares:
        assert scores[name].max() == 1
        assert (np.argsort(scores[name].ravel()) == np.argsort(squares[name].ravel())).mean() > 0.99


def test_zeros_score_zero():
    assert (relative(np.zeros((2, 2))) == 0).all()
    assert relative(np.array([0.0, 2.0, 2.0])).tolist() == [0.0, 1.0, 0.5]
