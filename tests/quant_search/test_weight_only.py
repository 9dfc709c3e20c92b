from collections import Counter

import numpy as np
import onnx
import pytest

from latency.runtimes.onnx_runtime import optimised_graph
from quant_search.layers import layers, with_values
from quant_search.weight_codes import rounded
from quant_search.weight_only import stored
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


def test_codes_of_another_shape_are_refused():
    model = trained()
    with pytest.raises(ValueError, match="has a weight of shape"):
        stored(model, {"/last/Gemm": rounded(model, {"/stem.0/Conv": 4})["/stem.0/Conv"]})
