"""Laws of elastic networks, over every ready-made space: a subnet is the plain network that it stands for."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from search_spaces.catalog import SPACES
from search_spaces.elastic import Elastic, add_kernel_transforms_
from search_spaces.network import check_network, extract, find_space
from tests.laws.entries import EVERY, NETWORKS

IMAGE, CLASSES = 32, 10


@pytest.fixture(scope="module", params=NETWORKS, ids="-".join)
def net(request):
    """The network in double precision, its norms' weights and statistics random: at their defaults they hide slips."""
    name, preset = request.param
    torch.manual_seed(0)
    network = SPACES[name].build(IMAGE, 3, CLASSES, preset).double().eval()
    for key, tensor in network.state_dict().items():
        if tensor.dim() <= 1:
            nn.init.uniform_(tensor, 0.5, 1.5)
            assert tensor.min() > 0.4, key
    return network


@pytest.fixture(scope="module")
def archs(net):
    """Both ends of the space and random architectures."""
    space = find_space(net)
    rows = space.sample(6, np.random.default_rng(0))
    return [space.smallest(), space.largest(), *map(space.row, rows)]


@pytest.fixture(scope="module")
def x():
    return torch.randn(2, 3, IMAGE, IMAGE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def used_weights(net, arch):
    """Parameter name to bool mask: the weights that `arch` uses.

    Every weight of a twin is set to a number of its own; the numbers found in the extracted network are used.
    """
    twin, start, places = copy.deepcopy(net), 0, {}
    with torch.no_grad():
        for name, p in twin.named_parameters():
            places[name] = slice(start, start + p.numel())
            p.copy_(torch.arange(start, start + p.numel()).view_as(p))
            start += p.numel()
    used = torch.zeros(start, dtype=torch.bool)
    for p in extract(twin, arch).parameters():
        used[p.detach().long().flatten()] = True
    return {name: used[place].view_as(net.get_parameter(name)) for name, place in places.items()}


@pytest.mark.parametrize(("name", "preset"), EVERY)
def test_it_runs_at_every_option(name, preset):
    network = SPACES[name].build(16, 3, CLASSES, preset)
    check_network(network, find_space(network), (3, 16, 16), CLASSES)


@torch.no_grad()
def test_a_subnet_equals_the_extracted_network(net, archs, x):
    outputs = [net(x, arch) for arch in archs]
    for arch, y in zip(archs, outputs, strict=True):
        torch.testing.assert_close(extract(net, arch)(x), y, rtol=1e-9, atol=1e-9 * y.abs().max().item())
        assert torch.isfinite(y).all() and y.std() > 0
    assert len({tuple(y.flatten().tolist()) for y in outputs}) == len(set(archs))


@torch.no_grad()
def test_a_subnet_with_kernel_transforms_equals_the_extracted_network(net, archs, x):
    net = copy.deepcopy(net)
    before = net(x, archs[0])
    add_kernel_transforms_(net)
    matrices = [p for name, p in net.named_parameters() if "transform" in name]
    torch.testing.assert_close(net(x, archs[0]), before, rtol=1e-9, atol=1e-9 * before.abs().max().item())
    for matrix in matrices:
        matrix += torch.randn(matrix.shape, generator=torch.Generator().manual_seed(2)) / len(matrix)
    for arch in (archs[0], *archs[2:4]):
        y = net(x, arch)
        torch.testing.assert_close(extract(net, arch)(x), y, rtol=1e-9, atol=1e-9 * y.abs().max().item())
    assert bool(matrices) == (not torch.equal(net(x, archs[0]), before))


def test_the_largest_architecture_is_the_plain_network(net):
    for name, used in used_weights(net, find_space(net).largest()).items():
        assert used.all() or not used.any(), f"{name} is used in part"  # not at all: a branch that was not taken


def test_an_extracted_network_is_plain_and_its_own(net, archs):
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    places = {tensor.untyped_storage().data_ptr() for tensor in net.state_dict().values()}
    for arch in archs:
        plain = extract(net, arch)
        assert not any(isinstance(m, Elastic) for m in plain.modules())
        holders = {plain.get_submodule(name.rpartition(".")[0]) for name in plain.state_dict()}
        leaves = holders | {m for m in plain.modules() if next(m.children(), None) is None and not is_empty(m)}
        assert {type(m).__module__.split(".")[:2] == ["torch", "nn"] for m in leaves} == {True}
        assert places.isdisjoint(t.untyped_storage().data_ptr() for t in plain.state_dict().values())
        with torch.no_grad():
            for p in plain.parameters():
                p.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def is_empty(module):
    """Whether it is a composite that has none of the layers that it could have."""
    return type(module).__name__ == "PlainCell"


def test_training_one_architecture_leaves_the_others_weights_alone(net, archs, x):
    net = copy.deepcopy(net).train()
    buffers = {name: b.clone() for name, b in net.named_buffers()}
    for arch in archs[:1] + archs[2:4]:
        net.zero_grad()
        y = net(x, arch)
        y.square().sum().backward()
        sees_images = not torch.equal(y[0], y[1])  # or else nothing before where it ends is trained
        for name, used in used_weights(net, arch).items():
            grad = net.get_parameter(name).grad
            if used.any() and sees_images:
                assert grad[used].any(), f"{name} is used but not trained"
            assert grad is None or not grad[~used].any(), f"{name} is trained but not used"
    assert all(torch.equal(b, buffers[name]) for name, b in net.named_buffers())


def test_subnets_run_on_views_of_the_weights(net, archs, x, monkeypatch):
    places = {t.untyped_storage().data_ptr() for t in net.state_dict().values()}
    calls = []

    def spied(function):
        def call(data, *args, **kwargs):
            weights = [a for a in (*args, *kwargs.values()) if isinstance(a, torch.Tensor)]
            calls.append(places.issuperset(w.untyped_storage().data_ptr() for w in weights))
            return function(data, *args, **kwargs)

        return call

    for name in ("conv2d", "linear", "batch_norm"):
        monkeypatch.setattr(F, name, spied(getattr(F, name)))
    with torch.no_grad():
        for arch in archs[:4]:
            net(x, arch)
    assert calls and all(calls)
