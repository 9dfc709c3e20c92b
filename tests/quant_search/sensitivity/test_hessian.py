import numpy as np
import onnx
import pytest
import torch
from torch import nn

from latency.lowering import to_onnx
from latency.runtimes.onnx_to_torch import to_torch
from quant_search.realise import rounded_weights
from quant_search.sensitivity.hessian import hessian
from quant_search.sensitivity.hutchinson import Traces
from quant_search.sensitivity.subject import Subject, by_layer


class Tiny(nn.Module):
    """A convolution and a classifier of so few weights that their Hessian can be written down."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 2, 3), nn.Linear(2, 3)

    def forward(self, x):
        return self.head(torch.relu(self.conv(x)).mean((2, 3)))


@pytest.fixture(scope="module")
def subject():
    torch.manual_seed(0)
    network = Tiny()
    with torch.no_grad():
        network.head.weight *= 4
        network.head.bias *= 0
        network.conv.bias += 1
    model = to_onnx(network, (1, 6, 6))
    x = np.random.default_rng(0).standard_normal((24, 1, 6, 6)).astype(np.float32)
    labels = to_torch(model)(torch.from_numpy(x)).argmax(1).numpy()  # of which the network is surest: curved upwards
    return Subject(model, by_layer(model), ("fp32", "w4a8", "w2a8"), x, labels)


def exact_traces(subject):
    """Of the Hessian of the mean loss, weight by weight, from the whole matrix."""
    module = to_torch(subject.model).double()
    x, y = torch.from_numpy(subject.images).double(), torch.from_numpy(subject.labels)
    values = {
        t.name: torch.from_numpy(onnx.numpy_helper.to_array(t).copy()).double() for t in subject.model.graph.initializer
    }
    names = [name for name in module.buffer_of if values[name].dim() > 1]

    def loss(*weights):
        given = {module.buffer_of[name]: weight for name, weight in zip(names, weights, strict=True)}
        return nn.functional.cross_entropy(torch.func.functional_call(module, given, (x,)), y)

    weights = [values[name] for name in names]
    blocks = torch.autograd.functional.hessian(loss, tuple(weights))
    sizes = [w.numel() for w in weights]
    return names, values, [blocks[i][i].reshape(n, n).trace().item() for i, n in enumerate(sizes)]


def test_damage_is_the_mean_trace_times_the_squared_change(subject):
    found = hessian(subject, tolerance=0.07, probes=500, batch=24)
    names, values, traces = exact_traces(subject)
    for i, (name, trace) in enumerate(zip(names, traces, strict=True)):
        weight = values[name].float().numpy()
        for j, bits in ((1, 4), (2, 2)):
            (codes,) = rounded_weights(subject.model, list(subject.groups)[i : i + 1], bits).values()
            change = np.square(codes.weight(0) - weight).sum()
            assert abs(found.damage[i, j] - max(trace, 0) / weight.size * change) < 4 * found.error[i, j]
            assert 0 < found.error[i, j] <= 0.0701 * found.damage[i, j]
    assert not found.damage[:, 0].any() and not found.error[:, 0].any()


def test_a_trace_that_noise_hides_counts_as_its_noise(subject, monkeypatch):
    traces = Traces(np.array([-3.0, 0.5]), np.array([0.25, 2.0]), 5)
    monkeypatch.setattr("quant_search.sensitivity.hessian.block_traces", lambda *_: traces)
    found = hessian(subject)
    np.testing.assert_allclose(found.damage, found.error)
    assert np.all(found.damage[:, 1:] > 0)


def test_it_is_the_same_for_the_same_seed_and_whatever_the_batch(subject):
    first = hessian(subject, probes=6, tolerance=1e-9)
    again = hessian(subject, probes=6, tolerance=1e-9, batch=5)
    np.testing.assert_allclose(again.damage, first.damage, rtol=1e-3)
    assert np.array_equal(hessian(subject, probes=6, tolerance=1e-9).damage, first.damage)
    assert not np.array_equal(hessian(subject, probes=6, tolerance=1e-9, seed=1).damage, first.damage)
