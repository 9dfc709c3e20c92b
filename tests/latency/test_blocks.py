"""Networks as rows of blocks, against what hooks see in the extracted network as it runs."""

import numpy as np
import pytest
import torch
from torch import nn

from latency import blocks as source
from latency.blocks import BlockTracer, block_modules
from quant_search.policy import joint_space
from search_spaces.elastic import BatchNorm2d, Conv2d, Linear, OneOf, Resize, Sequence, SqueezeExcite
from search_spaces.mbconv import mbconv
from search_spaces.network import Network, extract, find_blocks, find_space
from search_spaces.value import Choice

SHAPE = (3, 8, 8)


class Residual(nn.Module):
    def __init__(self, width, kernel, residual=True):
        super().__init__()
        self.conv, self.norm, self.attend = Conv2d(width, width, kernel), BatchNorm2d(width), SqueezeExcite(width)
        self.residual = residual

    def forward(self, x):
        y = self.attend(self.norm(self.conv(x)))
        return x + y if self.residual else y


class Chain(Network):
    def __init__(self):
        super().__init__()
        width = Choice("width", (4, 8))
        self.resize = Resize(Choice("resolution", (6, 8)), native=8)
        self.stem = nn.Sequential(Conv2d(3, width, 3), BatchNorm2d(width), nn.Hardswish())
        act = Choice("act", ("none", "tanh"))
        self.act = OneOf(act, {"none": nn.Sequential(), "tanh": nn.Tanh()})
        kernels = [Choice(f"kernel{i}", (1, 3)) for i in range(2)]
        self.stage = Sequence(*(Residual(width, kernel) for kernel in kernels), depth=Choice("depth", (0, 1, 2)))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), Linear(width, 6))
        self.classifier = Linear(6, 5)


class Custom(Chain):
    """The same parts with a forward of its own, which runs them in another order, once more, and skips around them."""

    def forward(self, x):
        x = self.stem(self.resize(x))
        x = self.act(self.stage(x) + x)
        return self.classifier(self.head(self.act(x)))


class Backward(nn.Module):
    """Registered from the last to the first."""

    def __init__(self):
        super().__init__()
        self.fc = Linear(4, 5)
        self.convs = nn.ModuleList([Conv2d(4, 4, Choice("b", (1, 3))), Conv2d(3, 4, Choice("a", (1, 3)))])

    def forward(self, x):
        return self.fc(self.convs[0](self.convs[1](x)).mean((2, 3)))


def seen_by_hooks(network, arch):
    """Block name to (input shape, output shape, MACs), in the order of running, from a run on a real image."""
    plain = extract(network, arch).eval()
    inputs, outputs, macs, order = {}, {}, {}, []
    for block in find_blocks(network):
        members = []
        for path in block.members:
            try:
                members.append(plain.get_submodule(path))
            except AttributeError:
                break
        if len(members) < len(block.members):
            continue

        def enter(_, args, name=block.name):
            order.append(name)
            inputs.setdefault(name, tuple(args[0].shape[1:]))

        def leave(_, args, y, name=block.name):
            outputs.setdefault(name, tuple(y.shape[1:]))

        def counted(layer, _, y, name=block.name):
            macs[name] = macs.get(name, 0) + y.numel() * layer.weight[0].numel()

        members[0].register_forward_pre_hook(enter)
        members[-1].register_forward_hook(leave)
        for layer in nn.ModuleList(members).modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                layer.register_forward_hook(counted)
    with torch.no_grad():
        plain(torch.zeros(1, *SHAPE))
    return [(name, inputs[name], outputs[name], macs.get(name, 0)) for name in dict.fromkeys(order)]


def seen_by_tracer(traced):
    return [(b.name, b.input_shape, b.output_shape, b.counts.macs) for b in traced]


@pytest.mark.parametrize("make", [Chain, Custom, Backward])
def test_every_architecture_is_traced_as_it_runs(make):
    network = make().eval()
    tracer = BlockTracer(network, SHAPE)
    assert tracer.blocks == find_blocks(network)
    for arch in find_space(network).enumerate():
        traced = tracer.trace(arch)
        assert seen_by_tracer(traced) == seen_by_hooks(network, arch)
        assert [b.weighted for b in traced] == [bool(b.counts.weight_elements) for b in traced]


def test_the_order_is_that_of_running():
    (arch, *_) = find_space(Backward()).enumerate()
    assert [b.name for b in BlockTracer(Backward(), SHAPE).trace(arch)] == ["convs.1", "convs.0", "fc"]


@pytest.mark.parametrize("make", [Custom, lambda: mbconv(8, 3, 5, "tiny")])
def test_what_is_kept_changes_nothing(make):
    torch.manual_seed(0)
    network = make()
    space = find_space(network)
    tracer = BlockTracer(network, SHAPE)
    archs = [space.row(row) for row in space.sample(7, np.random.default_rng(0))]
    known = [tracer.trace(arch) for arch in archs]
    assert known == [BlockTracer(network, SHAPE).trace(arch) for arch in archs]
    assert known == [tracer.trace(arch) for arch in archs]


@pytest.mark.parametrize("make", [Chain, Custom])
def test_a_policy_adds_no_work(make, monkeypatch):
    network = make()
    tracer = BlockTracer(network, SHAPE)
    space = find_space(network)
    joint = joint_space(space, tracer.blocks, ("fp32", "int8"))
    expected = tracer.trace(space.largest())

    def fail(*_):
        raise AssertionError("traced again")

    for name in ("extract", "plain_copy"):
        monkeypatch.setattr(source, name, fail)
    for precision in ("fp32", "int8"):
        policy = {c.name: precision for c in joint.choices if c.name.endswith(".precision")}
        assert tracer.trace(joint.architecture({**space.largest().assignment, **policy})) == expected


def test_tracing_leaves_the_network_alone():
    for make in (Chain, Custom):
        network = make().train()
        before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        BlockTracer(network, SHAPE).trace(find_space(network).largest())
        assert all(m.training and not m._forward_hooks for m in network.modules())
        assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def structures(*modules):
    network = nn.Sequential(*modules, nn.Sequential(Conv2d(4, 4, Choice("k", (1, 3)))))
    return [b.structure for b in BlockTracer(network, (4, 8, 8)).trace(find_space(network).smallest())]


class Scaled(nn.Module):
    def __init__(self, shape, power):
        super().__init__()
        self.conv, self.power = nn.Conv2d(4, 4, 1), power
        self.scale = nn.Parameter(torch.ones(shape))

    def forward(self, x):
        return self.conv(x) * self.scale**self.power


def test_structures_are_equal_exactly_where_blocks_compute_the_same():
    assert len(set(structures(Residual(4, 3), Residual(4, 3))[:2])) == 1
    different = [
        Residual(4, 3), Residual(4, 3, residual=False), Residual(4, 1), Scaled((1,), 1), Scaled((1,), 2),
        Scaled((4, 1, 1), 1), Scaled((1,), (1, 2)[1] + 0.5),
    ]  # fmt: skip
    assert len(set(structures(*different)[: len(different)])) == len(different)
    (a, b) = structures(nn.Sequential(nn.Conv2d(4, 4, 1, stride=2)), nn.Sequential(nn.Conv2d(4, 4, 1, stride=2)))[:2]
    assert a != b  # the same layer at two input shapes


@pytest.mark.parametrize("make", [Chain, Custom])
def test_block_modules_are_the_blocks_of_the_architecture(make):
    network = make().eval()
    tracer = BlockTracer(network, SHAPE)
    for arch in (find_space(network).smallest(), find_space(network).largest()):
        modules, traced = block_modules(network, arch, tracer.blocks), tracer.trace(arch)
        assert set(modules) == {b.name for b in traced}
        for b in traced:
            assert tuple(modules[b.name](torch.zeros(1, *b.input_shape)).shape[1:]) == b.output_shape


def test_the_chain_of_block_modules_is_the_network():
    torch.manual_seed(0)
    network = Chain().eval()
    arch = find_space(network).largest()
    x = torch.randn(2, *SHAPE)
    y = nn.Sequential(*block_modules(network, arch, find_blocks(network)).values())(x)
    assert torch.equal(y, network(x, arch))
