import numpy as np
import pytest
import torch
from sparse_subject import digits_model
from torch import nn

from latency.lowering import to_onnx
from quant_search.onnx_qdq import quantize
from quant_search.ranges import neutral_ranges
from quant_search.sparsity.weighted import constants_of, layers_of, weights_of, with_weights, zeros_of


class Product(nn.Module):
    """A matrix product, which stores its weight the other way round, and one of two activations."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 5))
        self.linear = nn.Linear(5, 4)

    def forward(self, x):
        y = self.linear(x @ self.weight)
        return (y[:, :, None] @ y[:, None]).flatten(1)


def test_layers_say_how_weights_are_stored():
    convolutions = layers_of(digits_model())
    assert [layer.node for layer in convolutions] == ["/0/Conv", "/2/Conv", "/4/Conv", "/6/Conv", "/10/Gemm"]
    assert [layer.shape[:2] for layer in convolutions] == [(16, 1), (32, 16), (32, 1), (32, 32), (10, 128)]
    assert [layer.depthwise for layer in convolutions] == [False, False, True, False, False]
    model = to_onnx(Product(), (6,))
    product, linear = layers_of(model)
    assert product.transposed and product.shape == (5, 6) and not linear.transposed and linear.shape == (4, 5)
    assert product.read(weights_of(model)[product.weight]).shape == (5, 6)


def test_named_layers_alone():
    assert [layer.node for layer in layers_of(digits_model(), ["/6/Conv"])] == ["/6/Conv"]
    with pytest.raises(ValueError, match="is called '/1/Relu'"):
        layers_of(digits_model(), ["/1/Relu"])


def test_weights_are_written_into_a_copy():
    model = digits_model()
    before = weights_of(model)
    name = next(iter(before))
    changed = with_weights(model, {name: np.zeros((2, 3), np.float32)})
    assert weights_of(changed, [name])[name].shape == (2, 3) and (weights_of(model)[name] == before[name]).all()
    assert [t.name for t in changed.graph.initializer] == [t.name for t in model.graph.initializer]
    assert zeros_of(model) < 0.01 and zeros_of(with_weights(model, {n: w * 0 for n, w in before.items()})) == 1
    for call in (lambda: with_weights(model, {"x": np.zeros(1)}), lambda: weights_of(model, ["x"])):
        with pytest.raises(ValueError, match="no constant 'x'"):
            call()


def test_quantized_models_are_refused():
    model = digits_model()
    int8 = quantize(model, [n.name for n in model.graph.node], neutral_ranges(model))
    with pytest.raises(ValueError, match="is quantized: prune the fp32 model, then quantize"):
        layers_of(int8)


def test_constant_nodes_are_constants_too():
    model = to_onnx(nn.ReLU6(), (3,))
    assert "Constant" in {node.op_type for node in model.graph.node}
    assert len(constants_of(model)) == 2
