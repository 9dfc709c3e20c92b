"""Laws of export, over every ready-made space: the file computes what torch does, and says which block is which."""

import copy
from collections import Counter

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from latency.device import parse_device
from latency.lowering import nodes_of, to_onnx
from latency.runtimes.onnx_runtime import open_session
from search_spaces.catalog import SPACES
from search_spaces.network import extract, find_blocks, find_space
from tests.laws.entries import NETWORKS

CPU = parse_device("cpu")
SHAPE = (3, 32, 32)


def randomise_norms_(network, seed=0):
    """At their defaults, norms hide slips."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.dim() == 1:
                tensor.uniform_(0.5, 1.5, generator=generator)


@pytest.fixture(scope="module", params=NETWORKS, ids="-".join)
def net(request):
    name, preset = request.param
    torch.manual_seed(0)
    network = SPACES[name].build(SHAPE[1], SHAPE[0], 10, preset).eval()
    randomise_norms_(network)
    return network


@pytest.fixture(scope="module")
def exported(net):
    """Both ends of the space and random architectures, each with its plain network and its file."""
    space = find_space(net)
    archs = [space.smallest(), space.largest(), *map(space.row, space.sample(2, np.random.default_rng(0)))]
    plain = [extract(net, arch) for arch in archs]
    return [(arch, module, to_onnx(module, SHAPE)) for arch, module in zip(archs, plain, strict=True)]


def test_outputs_are_torchs(exported):
    x = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(1))
    for arch, module, model in exported:
        with torch.no_grad():
            expected = module(x).numpy()
        found = open_session(model.SerializeToString(), CPU).run(x.numpy())
        assert np.abs(found - expected).max() <= 1e-4 * max(1, np.abs(expected).max()), str(arch)
        assert expected.std() > 0


def test_the_same_network_gives_the_same_bytes(net, exported):
    files = [model.SerializeToString() for _, _, model in exported]
    for (arch, _, _), file in zip(exported[::3], files[::3], strict=True):
        assert to_onnx(extract(net, arch), SHAPE).SerializeToString() == file
    assert len(set(files)) == len({arch for arch, _, _ in exported})


@torch.no_grad()
def test_files_are_valid_and_use_every_initializer_once(exported):
    (_, smallest, _), *_ = exported
    alike = copy.deepcopy(smallest)  # with many equal weights
    for tensor in alike.state_dict().values():
        tensor.fill_(1)
    for model in (to_onnx(alike, SHAPE), *(model for _, _, model in exported)):
        onnx.checker.check_model(model, full_check=True)
        used = Counter(name for node in model.graph.node for name in node.input)
        names = [tensor.name for tensor in model.graph.initializer]
        assert len(set(names)) == len(names) and {used[name] for name in names} == {1}
        made_by = {name: node.op_type for node in model.graph.node for name in node.output}
        assert "Identity" not in made_by.values()
        norms = [node for node in model.graph.node if node.op_type == "BatchNormalization"]
        assert all(made_by[node.input[0]] != "Conv" for node in norms)  # those are folded into the convolution


def test_every_node_lies_in_one_block_and_every_layer_in_its_own(net, exported):
    for arch, module, model in exported:
        names = [node.name for node in model.graph.node]
        assert len(set(names)) == len(names)
        weighted = {node.name for node in model.graph.node if node.op_type in ("Conv", "Gemm", "MatMul")}
        claimed = Counter()
        for block in find_blocks(net):
            nodes = nodes_of(model, block.members)
            claimed.update(nodes)
            assert bool(nodes) == (block.exists(arch.values) and runs_something(module, block)), block.name
            assert len(weighted.intersection(nodes)) == layers_in(module, block), block.name
        assert claimed == Counter(names)


def members_of(module, block):
    there = {name for name, _ in module.named_modules()}
    return [module.get_submodule(path) for path in block.members if path in there]


def layers_in(module, block):
    members = nn.ModuleList(members_of(module, block))
    return sum(isinstance(m, (nn.Conv2d, nn.Linear)) for m in members.modules())


def runs_something(module, block):
    return any(not isinstance(member, nn.Identity) for member in members_of(module, block))
