import numpy as np
from sparse_subject import digits_model

from quant_search.sparsity.magnitude import magnitude
from quant_search.sparsity.weighted import layers_of, weights_of


def test_scores_are_squares_as_output_by_input_channels():
    model = digits_model()
    layers, weights = layers_of(model), weights_of(model)
    scores = magnitude(model, layers[:2])
    assert list(scores) == [layer.weight for layer in layers[:2]]
    for layer in layers[:2]:
        assert np.allclose(scores[layer.weight], weights[layer.weight].astype(np.float64) ** 2)
