"""Laws of post-training quantization, over every ready-made space: what must not change a network does not."""

import numpy as np
import pytest
import torch
from torch import nn

from latency.device import parse_device
from latency.lowering import to_onnx
from latency.runtimes.onnx_runtime import open_session
from quant_search.islands import meant_for_int8, share_in_int8
from quant_search.layers import layer_macs, layers, pairs
from quant_search.onnx_qdq import neutral_ranges, quantize
from quant_search.ptq.equalize import absorb_biases, equalize
from quant_search.ptq.fold import with_biases
from quant_search.ptq.intake import prepared
from quant_search.weight_codes import rounded
from quant_search.weight_only import stored
from search_spaces.catalog import SPACES
from search_spaces.network import extract, find_space
from tests.laws.entries import SMALLEST

CPU = parse_device("cpu")
SHAPE = (3, 32, 32)
X = np.random.default_rng(0).standard_normal((8, *SHAPE)).astype(np.float32)


def run(model):
    return open_session(model.SerializeToString(), CPU).run(X)


def every(model):
    return [node.name for node in model.graph.node]


@pytest.fixture(scope="module", params=SMALLEST, ids="-".join)
def model(request):
    name, preset = request.param
    torch.manual_seed(0)
    network = SPACES[name].build(SHAPE[1], SHAPE[0], 10, preset)
    space = find_space(network)
    (row,) = space.sample(1, np.random.default_rng(1))
    plain = extract(network, space.row(row))
    for norm in (m for m in plain.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.uniform_(norm.bias, -0.5, 0.5)
        norm.momentum = 1.0
    with torch.no_grad():
        plain.train()(torch.from_numpy(X))
    return to_onnx(plain, SHAPE)


@pytest.mark.parametrize("step", [prepared, equalize, with_biases, lambda m: absorb_biases(m, X)])
def test_outputs_in_fp32_stay(model, step):
    y = run(model)
    np.testing.assert_allclose(run(step(model)), y, atol=1e-3 * np.abs(y).max())


def test_layers_are_those_that_are_counted_and_pairs_are_of_them(model):
    found = {layer.name: layer for layer in layers(model)}
    assert len(found) == sum(node.op_type in ("Conv", "Gemm") for node in model.graph.node)
    assert all(count > 0 for count in layer_macs(model).values())
    for pair in pairs(model):
        assert found[pair.first.name].out_channels * pair.repeats == found[pair.second.name].in_channels


def test_four_bit_weights_compute_as_their_int8_twins_in_int8(model):
    nodes, ranges = every(model), neutral_ranges(model)
    codes = rounded(model, dict.fromkeys(nodes, 4), "max")
    packed, plain = (quantize(model, nodes, ranges, codes, pack) for pack in (True, False))
    np.testing.assert_array_equal(run(packed), run(plain))
    assert len(packed.SerializeToString()) < len(plain.SerializeToString())
    found = share_in_int8(packed, CPU)
    assert found.islands == () and len(meant_for_int8(packed)) == len(layers(model))
    assert found.int8_macs == sum(layer_macs(model).values())


def test_stored_weights_are_smaller(model):
    small = stored(model, rounded(model, dict.fromkeys(every(model), 4), "max"))
    assert len(small.SerializeToString()) < len(model.SerializeToString())
