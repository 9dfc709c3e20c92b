import numpy as np
import pytest
import torch
from torch import nn

from latency.lowering import to_onnx
from quant_search.layers import layers, values_of
from quant_search.ptq.rows import as_matrix, as_weight, sampled

LAYERS = {
    "dense": nn.Conv2d(6, 8, 3, padding=1),
    "strided": nn.Conv2d(6, 8, (3, 2), stride=(2, 1), padding=(2, 1)),
    "dilated": nn.Conv2d(6, 8, 3, dilation=2),
    "depthwise": nn.Conv2d(6, 6, 5, padding=2, groups=6),
    "grouped": nn.Conv2d(6, 8, 3, groups=2),
    "pointwise": nn.Conv2d(6, 8, 1),
    "along a line": nn.Conv1d(6, 8, 3, stride=2, padding=1),
    "vectors": nn.Linear(6, 8),
    "tokens": nn.Linear(6, 8),
}


@pytest.mark.parametrize("name", LAYERS)
def test_rows_times_the_weight_are_the_outputs(name):
    torch.manual_seed(0)
    module = LAYERS[name]
    shape = {"along a line": (6, 9), "vectors": (6,), "tokens": (7, 6)}.get(name, (6, 9, 8))
    model = to_onnx(module, shape)
    (layer,) = layers(model)
    x = np.random.default_rng(0).standard_normal((4, *shape)).astype(np.float32)
    with torch.no_grad():
        y = module(torch.from_numpy(x)).numpy()
    rows = sampled(layer, [x[:3], x[3:]], [y[:3], y[3:]], 5, np.random.default_rng(0))
    weight = values_of(model)[layer.weight]
    matrix = as_matrix(layer, weight)
    products = np.einsum("ngk,gok->ngo", rows.x, matrix).reshape(len(rows.x), -1)
    np.testing.assert_allclose(products + module.bias.detach().numpy(), rows.y, atol=1e-5)
    assert len(rows.y) == 4 * (1 if name == "vectors" else 5)
    np.testing.assert_array_equal(as_weight(layer, matrix), weight)
    assert name == "vectors" or len(np.unique(rows.y[:5], axis=0)) == 5  # no position twice
