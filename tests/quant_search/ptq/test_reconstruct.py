import math

import numpy as np
import pytest
import torch
from torch import nn

from latency.lowering import to_onnx
from quant_search.layers import layers, values_of
from quant_search.onnx_qdq import activation_ranges, quantize
from quant_search.ptq.reconstruct import Setting, cut_after, reconstruct
from quant_search.weight_codes import rounded
from tests.quant_search.small_digits import digits, every, run, trained

X, HELD_OUT = digits()[0][:120], digits()[0][1000:]
QUICK = Setting(steps=100, rounding_rate=0.1)


@pytest.fixture(scope="module")
def fp32():
    return trained()


@pytest.fixture(scope="module")
def ranges(fp32):
    return activation_ranges(fp32, X)


@pytest.mark.parametrize(("method", "bits"), [("adaround", 4), ("adaround", 3), ("adaquant", 3)])
def test_learned_rounding_leaves_less_error_on_other_images(fp32, ranges, method, bits):
    before, nodes = fp32.SerializeToString(), every(fp32)
    uniform = dict.fromkeys(nodes, bits)
    found = reconstruct(fp32, nodes, ranges, X, uniform, method, QUICK, rows=1200)
    assert fp32.SerializeToString() == before
    y = run(fp32, HELD_OUT)
    nearest = quantize(fp32, nodes, ranges, rounded(fp32, uniform))
    learned = quantize(found.model, nodes, ranges, found.codes)
    off = [np.square(run(model, HELD_OUT) - y).mean() for model in (nearest, learned)]
    assert off[1] < 0.5 * off[0]
    assert set(found.codes) == set(found.errors) == {layer.name for layer in layers(fp32)}
    assert all(after <= first for first, after in found.errors.values())
    if method == "adaround":  # one of the two codes next to each weight
        for layer in layers(fp32):
            steps = values_of(fp32)[layer.weight] / layer.by_channel(found.codes[layer.name].scale)
            inside = np.clip(steps, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
            assert (np.abs(found.codes[layer.name].values - inside) < 1).all()


def test_bits_differ_from_layer_to_layer_and_the_same_seed_learns_the_same(fp32, ranges):
    nodes = [name for name in every(fp32) if name.startswith(("/down", "/last"))]
    seen = []
    setting = Setting(steps=20)
    first, second = (
        reconstruct(fp32, nodes, ranges, X[:30], {"/last/Gemm": 3}, setting=setting, progress=lambda *a: seen.append(a))
        for _ in range(2)
    )
    bits = {name: codes.format.bits for name, codes in first.codes.items()}
    assert bits == {"/down.0/Conv": 8, "/last/Gemm": 3}
    assert seen[:2] == [(1, 2, "/down.0/Conv"), (2, 2, "/last/Gemm")]
    assert first.model == second.model
    for name, codes in first.codes.items():
        np.testing.assert_array_equal(codes.values, second.codes[name].values)


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(8, 12), nn.Linear(12, 8)

    def forward(self, x):
        return self.second(torch.relu(self.first(x.flatten(1, 2)))).mean(1)


def test_products_of_tokens_are_learned_too():
    torch.manual_seed(0)
    model = to_onnx(Tokens(), (1, 8, 8))
    assert [layer.op_type for layer in layers(model)] == ["MatMul", "MatMul"]
    nodes, ranges, bits = every(model), activation_ranges(model, X), dict.fromkeys(every(model), 2)
    found = reconstruct(model, nodes, ranges, X, bits, setting=QUICK)
    y = run(model, HELD_OUT)
    codes = rounded(model, bits), found.codes
    off = [np.square(run(quantize(model, nodes, ranges, c), HELD_OUT) - y).mean() for c in codes]
    assert off[1] < off[0]


def test_an_activation_function_cuts_what_counts(fp32):
    by_name = {layer.name: layer for layer in layers(fp32)}
    assert cut_after(fp32, by_name["/stem.0/Conv"]) == (0, math.inf)
    assert cut_after(fp32, by_name["/block.6/Conv"]) == (-math.inf, math.inf)
    clipped = trained(nn.ReLU6)
    assert cut_after(clipped, layers(clipped)[0]) == (0, 6)


def test_what_cannot_be_learned_is_refused(fp32, ranges):
    with pytest.raises(ValueError, match="unknown method 'adam' to learn rounding: there are adaround, adaquant"):
        reconstruct(fp32, every(fp32), ranges, X, {}, "adam")
    with pytest.raises(ValueError, match="at least 1 step, got 0"):
        Setting(steps=0)
