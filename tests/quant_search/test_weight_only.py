from collections import Counter

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from latency.lowering import to_onnx
from latency.runtimes.onnx_runtime import optimised_graph
from quant_search.layers import layers, values_of, with_values
from quant_search.weight_codes import rounded
from quant_search.weight_only import in_blocks, stored
from tests.quant_search.small_digits import CPU, digits, every, run, trained

X = digits()[0][:50]


def kinds(model):
    return Counter(node.op_type for node in optimised_graph(model.SerializeToString(), CPU).graph.node)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_stored_weights_compute_as_fp32_ones_in_fp32_kernels(bits):
    model = trained()
    codes = rounded(model, dict.fromkeys(every(model), bits))
    small = stored(model, codes)
    onnx.checker.check_model(small, full_check=True)
    rounded_ = {layer.weight: codes[layer.name].weight(layer.out_axis) for layer in layers(model)}
    np.testing.assert_allclose(run(small, X), run(with_values(model, rounded_), X), atol=1e-5)
    assert kinds(small) == kinds(model)
    share = sum(t.ByteSize() for t in small.graph.initializer) / sum(t.ByteSize() for t in model.graph.initializer)
    assert share < {2: 0.4, 4: 0.4, 8: 0.55}[bits]  # scales, biases and names are much of so small a network


class Products(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.late = nn.Linear(64, 96), nn.Linear(96, 72), nn.Linear(72, 5, bias=False)

    def forward(self, x):
        return self.late(torch.relu(self.second(torch.relu(self.first(x.flatten(1))))))


@pytest.mark.parametrize("size", [16, 32])
def test_products_by_blocks_read_four_bits(size):
    torch.manual_seed(0)
    model = to_onnx(Products(), (1, 8, 8))
    before, small = model.SerializeToString(), in_blocks(model, every(model), size)
    assert model.SerializeToString() == before
    onnx.checker.check_model(small)
    assert kinds(small)["MatMulNBits"] == 3
    y = run(model, X)
    off = {a: np.abs(run(in_blocks(model, every(model), size, a), X) - y).max() for a in ("fp32", "int8")}
    assert 0 < off["fp32"] < 0.15 * np.ptp(y) and 0 < off["int8"] < 0.15 * np.ptp(y) and off["fp32"] != off["int8"]
    weights = {name: value for name, value in values_of(model).items() if value.ndim == 2}
    in_bytes = sum(value.size for value in weights.values())
    assert len(small.SerializeToString()) < in_bytes * (0.5 + 4 / size) + 4000


def test_factors_of_a_product_are_in_its_weight():
    torch.manual_seed(0)
    model = to_onnx(Products(), (1, 8, 8))
    scaled = onnx.ModelProto()
    scaled.CopyFrom(model)
    gemm = next(node for node in scaled.graph.node if node.op_type == "Gemm")
    for attribute in gemm.attribute:
        if attribute.name in ("alpha", "beta"):
            attribute.f = {"alpha": 3.0, "beta": -2.0}[attribute.name]
    y = run(scaled, X)
    assert np.abs(run(in_blocks(scaled, every(scaled)), X) - y).max() < 0.15 * np.ptp(y)


def test_what_has_no_blocks_is_refused():
    model = trained()
    with pytest.raises(ValueError, match="is a Conv: only MatMul and Gemm multiply by blocks"):
        in_blocks(model, every(model))
    with pytest.raises(ValueError, match="a power of two from 16 on, got 24"):
        in_blocks(model, ["/last/Gemm"], 24)
    with pytest.raises(ValueError, match="are fp32 or int8, got 'int4'"):
        in_blocks(model, ["/last/Gemm"], activations="int4")
    with pytest.raises(ValueError, match="has a weight of shape"):
        stored(model, {"/last/Gemm": rounded(model, {"/stem.0/Conv": 4})["/stem.0/Conv"]})
