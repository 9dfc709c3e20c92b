"""The law of relaxed choices, over every ready-made space: mixed with hard weights, a network is a subnet."""

import numpy as np
import pytest
import torch
from torch import nn

from search_spaces.catalog import SPACES
from search_spaces.mixture import Gates, relaxed
from search_spaces.network import find_space, relaxable, run
from tests.laws.entries import SMALLEST

IMAGE, CLASSES = 16, 10


@pytest.fixture(scope="module", params=SMALLEST, ids="-".join)
def net(request):
    """A network in double precision, its norms' weights and statistics random."""
    name, preset = request.param
    torch.manual_seed(0)
    network = SPACES[name].build(IMAGE, 3, CLASSES, preset).double()
    for tensor in network.state_dict().values():
        if tensor.dim() <= 1:
            nn.init.uniform_(tensor, 0.5, 1.5)
    return network


def hard(arch, choices, gated):
    """Weights of 1 for what `arch` takes; with `gated`, only that is on."""
    weights = {c.name: torch.eye(len(c.options), dtype=torch.float64)[c.index(arch[c.name])] for c in choices}
    return {name: Gates(w, (int(w.argmax()),)) for name, w in weights.items()} if gated else weights


@torch.no_grad()
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_hard_weights_are_the_subnet(net, training):
    net.train(training)
    space = find_space(net)
    choices = relaxable(net, space)
    assert len(choices) >= len(space) - 1  # the resolution is not mixed
    archs = [space.smallest(), space.largest(), *map(space.row, space.sample(3, np.random.default_rng(0)))]
    x = torch.randn(4, 3, IMAGE, IMAGE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for i, arch in enumerate(archs):
        expected = run(net, x, arch)
        free = {c.name: c.options[-1] for c in choices}  # what the weights say counts, not what is bound
        other = space.architecture({c.name: arch[c.name] for c in space.choices} | free)
        with relaxed(hard(arch, choices, gated=bool(i % 2))):
            mixed = run(net, x, other)
        torch.testing.assert_close(mixed, expected, rtol=1e-8, atol=1e-8 * expected.abs().max().item())
