import numpy as np
import pytest
import torch
from torch import nn

from quant_search.sensitivity.hutchinson import block_traces


def test_a_diagonal_quadratic_takes_its_trace_from_any_probe():
    w = torch.randn(7, generator=torch.Generator().manual_seed(0)).requires_grad_()
    curvature = torch.arange(7.0)
    found = block_traces(lambda: [(curvature * w**2).sum() / 2], [w])
    assert (
        found.mean == pytest.approx([21.0], rel=1e-6)
        and found.probes == 5
        and found.error == pytest.approx(0, abs=1e-6)
    )


def test_a_full_quadratic_in_two_blocks():
    rng = np.random.default_rng(0)
    root = torch.from_numpy(rng.standard_normal((9, 9)))
    hessian = root @ root.T + 20 * torch.eye(9)
    a, b = (torch.zeros(n, dtype=torch.float64, requires_grad=True) for n in (4, 5))

    def losses():
        both = torch.cat((a, b))
        return [(both @ hessian @ both) / 4 for _ in range(2)]  # in two parts that add up

    found = block_traces(losses, [a, b], tolerance=0.02, probes=2000)
    exact = np.array([hessian[:4, :4].trace(), hessian[4:, 4:].trace()])
    assert found.probes < 2000 and np.all(found.error <= 0.02 * found.mean)
    assert np.all(np.abs(found.mean - exact) < 4 * found.error)


def test_the_blocks_of_a_network_against_its_whole_hessian():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    x, y = torch.randn(20, 3, dtype=torch.float64), torch.arange(20) % 3
    names = ["0.weight", "2.weight"]
    weights = [net.get_parameter(name) for name in names]

    def loss(first, second):
        given = dict(zip(names, (first, second), strict=True))
        return nn.functional.cross_entropy(torch.func.functional_call(net, given, (x,)), y)

    blocks = torch.autograd.functional.hessian(loss, tuple(weights))
    exact = [blocks[i][i].reshape(12, 12).trace().item() for i in range(2)]
    found = block_traces(lambda: [loss(*weights)], weights, tolerance=0.05, probes=3000)
    assert found.probes < 3000
    assert np.all(np.abs(found.mean - exact) < 4 * found.error)


def test_a_loss_without_curvature_has_no_trace():
    w, other = torch.ones(3, requires_grad=True), torch.ones(2, requires_grad=True)
    found = block_traces(lambda: [w.sum(), (other**2).sum() * 0 + w.sum()], [w, other], probes=6)
    assert not found.mean.any() and not found.error.any()


def test_probes_end_by_number_and_by_time_and_depend_on_the_seed_alone():
    root = torch.from_numpy(np.random.default_rng(0).standard_normal((6, 6)))
    w = torch.ones(6, dtype=torch.float64, requires_grad=True)
    steps = []

    def traces(**settings):
        return block_traces(lambda: [w @ (root + root.T) @ w], [w], tolerance=1e-9, **settings)

    assert traces(probes=9, progress=lambda *done: steps.append(done)).probes == 9 and steps[-1] == (9, 9)
    assert traces(probes=1000, seconds=0).probes == 2
    torch.manual_seed(1)
    first = traces(probes=9).mean
    torch.manual_seed(2)
    assert np.array_equal(first, traces(probes=9).mean) and not np.array_equal(first, traces(probes=9, seed=1).mean)


@pytest.mark.parametrize("settings", [{"weights": []}, {"tolerance": 0}, {"probes": 1}])
def test_what_cannot_be_estimated_is_refused(settings):
    with pytest.raises(ValueError, match="traces need weights, a tolerance above 0 and two probes"):
        block_traces(**{"losses": list, "weights": [torch.ones(1)]} | settings)
