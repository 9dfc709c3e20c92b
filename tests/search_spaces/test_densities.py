import copy

import numpy as np
import pytest
import torch
from torch import nn

from search_spaces.catalog import SPACES
from search_spaces.densities import add_densities_, dense_twin, densities_of
from search_spaces.elastic import BatchNorm2d, Conv2d, Elastic, Linear, OneOf, Sequence, SqueezeExcite
from search_spaces.network import Network, extract, find_space
from search_spaces.value import Choice, resolve

WITH_INNER = ("mbconv", "resnet", "fbnet", "nas_bench_macro")
X = torch.randn(2, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class Narrow(nn.Module):
    """Two convolutions with channels between them; its width is a number."""

    def __init__(self, inputs, inner, outputs, groups=1):
        super().__init__()
        self.first = nn.Sequential(Conv2d(inputs, inner), BatchNorm2d(inner), nn.ReLU())
        self.second = Conv2d(inner, outputs, groups=groups)

    def forward(self, x):
        return self.second(self.first(x))


class Body(Network):
    def __init__(self, *blocks, width=16):
        super().__init__()
        self.stem = Conv2d(3, width)
        self.body = Sequence(*blocks)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = Linear(width, 5)


def inner_channels(net, **chosen):
    space = find_space(net)
    plain = extract(net, space.architecture({**space.largest().assignment, **chosen}))
    assert plain(X.float()).shape == (2, 5)
    return [m.out_channels for m in plain.modules() if isinstance(m, nn.Conv2d)][1:]


@pytest.mark.parametrize("name", WITH_INNER)
def test_every_density_is_the_plain_network_that_it_stands_for(name):
    torch.manual_seed(0)
    net = SPACES[name].build(32, 3, 10, "tiny").double().eval()
    for tensor in net.state_dict().values():
        if tensor.dim() <= 1:
            nn.init.uniform_(tensor, 0.5, 1.5)
    before, whole = copy.deepcopy(net), find_space(net)
    blocks = add_densities_(net, (0.5, 0.75))
    space = find_space(net)
    assert {c.name for c in space.choices} - {c.name for c in whole.choices} == {f"{b.name}.density" for b in blocks}
    assert {k: t.shape for k, t in net.state_dict().items()} == {k: t.shape for k, t in before.state_dict().items()}
    for row in space.sample(4, np.random.default_rng(0)):
        arch = space.row(row)
        plain, twin = extract(net, arch), extract(net, dense_twin(arch))
        torch.testing.assert_close(net(X, arch), plain(X))
        dense = whole.architecture({c.name: arch.assignment[c.name] for c in whole.choices})
        torch.testing.assert_close(twin(X), extract(before, dense)(X))
        count, most = (sum(p.numel() for p in module.parameters()) for module in (plain, twin))
        assert (count < most) == (set(densities_of(arch).values()) != {1.0})


def test_only_channels_between_a_blocks_own_layers_are_left_out():
    net = Body(Narrow(16, 48, 16), Conv2d(16, 16), Narrow(16, 16, 16))
    assert [block.name for block in add_densities_(net, (0.5,))] == ["body.0"]
    assert inner_channels(net) == [48, 16, 16, 16, 16]
    assert inner_channels(net, **{"body.0.density": 0.5}) == [24, 16, 16, 16, 16]


def test_blocks_of_several_kinds_have_one_density_and_each_its_own_widths():
    kinds = OneOf(Choice("kind", ("a", "b")), {"a": Narrow(16, 32, 16), "b": Narrow(16, 64, 16)})
    net = Body(kinds)
    add_densities_(net, (0.5,))
    assert find_space(net).size == 4
    found = {kind: inner_channels(net, kind=kind, **{"body.0.density": 0.5}) for kind in "ab"}
    assert found == {"a": [16, 16], "b": [32, 16]}


def test_squeezed_channels_follow_those_that_they_are_made_of():
    class Attentive(Narrow):
        def __init__(self):
            super().__init__(16, inner := 16 * Choice("expansion", (4,)), 16)
            self.first.append(SqueezeExcite(inner))

    net = Body(Attentive())
    add_densities_(net, (0.5,))
    assert inner_channels(net) == [64, 16, 64, 16]
    assert inner_channels(net, **{"body.0.density": 0.5}) == [32, 8, 32, 16]


def test_channels_stay_where_layers_need_them_all():
    class Own(Elastic):
        def __init__(self, width):
            super().__init__()
            self.values = (width,)

    shuffled, fixed, own = Narrow(16, 48, 16, groups=2), Narrow(16, 48, 16), Narrow(16, 48, 16)
    fixed.first[1] = nn.BatchNorm2d(48)
    own.first.append(Own(48))
    with pytest.raises(ValueError, match="no block has channels of its own"):
        add_densities_(Body(shuffled, fixed, own), (0.5,))


def test_a_layer_of_two_blocks_keeps_the_density_of_the_first():
    shared = Narrow(16, 48, 16)
    net = Body(shared, shared)
    assert [block.name for block in add_densities_(net, (0.5,))] == ["body.0"]


@pytest.mark.parametrize("density", [0, 1, -0.5, 1.5])
def test_a_density_is_a_share(density):
    with pytest.raises(ValueError, match=f"between 0 and 1, got {density}"):
        add_densities_(Body(Narrow(16, 48, 16)), (density,))


def test_kept_channels_are_multiples_and_at_most_the_share():
    net = Body(Narrow(16, 40, 16), Narrow(16, 6, 16), Narrow(16, 720, 16))
    assert [block.name for block in add_densities_(net, (0.1, 0.5, 0.7))] == ["body.0", "body.2"]
    options = {c.name: c.options for c in find_space(net).choices}
    assert options == {"body.0.density": (0.1, 0.5, 0.7, 1.0), "body.2.density": (0.1, 0.5, 0.7, 1.0)}
    widths = {d: inner_channels(net, **{"body.0.density": d, "body.2.density": d})[::2] for d in (0.1, 0.5, 0.7, 1.0)}
    assert widths == {0.1: [8, 6, 72], 0.5: [16, 6, 360], 0.7: [24, 6, 504], 1.0: [40, 6, 720]}


class Expanding(Network):
    """Two blocks whose expansions and densities may make equal widths."""

    def __init__(self):
        super().__init__()
        width = Choice("width", (8, 16))
        self.stem = Conv2d(3, width)
        blocks = [Narrow(width, width * Choice(f"expansion{i}", (2, 3, 4)), width) for i in range(2)]
        self.body = Sequence(*blocks, depth=Choice("depth", (1, 2)))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = Linear(width, 5)


def test_no_two_architectures_are_the_same_network():
    net = Expanding()
    add_densities_(net, (0.5, 0.75))
    space = find_space(net)
    shapes = [tuple(tuple(p.shape) for p in extract(net, arch).parameters()) for arch in space.enumerate()]
    assert len(set(shapes)) == len(shapes) == space.size
    widths = {shape[2][0] // shape[0][0] for shape in shapes if shape[0][0] == 8}
    assert widths == {1, 2, 3, 4}  # half of an expansion of 4 is one of 2, and stands as that
    halved = space.architecture({**space.largest().assignment, "expansion0": 4, "body.0.density": 0.5})
    assert halved["body.0.density"] == 1.0


def test_a_network_has_densities_once():
    net = Body(Narrow(16, 48, 16))
    add_densities_(net, (0.5,))
    with pytest.raises(ValueError, match="has densities already"):
        add_densities_(net, (0.75,))


def test_what_others_see_of_a_block_stays():
    inner = Choice("inner", (8, 16))
    net = Body(Narrow(inner * 4, inner, inner * 4), width=inner * 4)
    add_densities_(net, (0.5,))
    assert inner_channels(net) == [64, 16, 64][1:]
    assert inner_channels(net, **{"body.0.density": 0.5}) == [8, 64]


def test_what_linear_layers_write_stays():
    class Heads(nn.Module):
        def __init__(self):
            super().__init__()
            self.query, self.out = Linear(16, 32), Linear(32, 16)

    with pytest.raises(ValueError, match="no block has channels of its own"):
        add_densities_(Body(Heads()), (0.5,))


def test_densities_of_an_architecture_are_those_of_its_active_blocks():
    net = SPACES["mbconv"].build(32, 3, 10, "tiny")
    add_densities_(net, (0.5,))
    space = find_space(net)
    assert densities_of(space.smallest()) == {"stage1.0": 0.5, "stage2.0": 0.5, "stage3.0": 0.5}
    assert set(densities_of(dense_twin(space.smallest())).values()) == {1.0}
    width = next(m for m in net.modules() if isinstance(m, Conv2d) and m.groups != 1).out_channels
    assert resolve(width, space.largest().assignment) == 64
