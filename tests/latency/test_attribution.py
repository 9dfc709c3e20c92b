import dataclasses
from functools import partial

import pytest
import torch
from torch import nn

import nas
from latency.attribution import layer_seconds
from latency.blocks import BlockTracer
from latency.count import Layer
from latency.device import parse_device
from latency.lowering import to_onnx
from latency.parts import Node, Parts, PartsEffort, ProfilerCost, time_parts
from latency.runtimes.onnx_parts import open_parts
from search_spaces.network import extract, find_blocks, find_space
from tests.nas.small_space import Small

FREE = ProfilerCost(0.0, 0.0, 0.0)
NET = Small(1, 3)
SPACE, BLOCKS = find_space(NET), find_blocks(NET)
TRACED = BlockTracer(NET, (1, 8, 8)).trace(SPACE.largest())


def run(*names):
    return Parts(tuple(Node(name, "Conv", 2, (1e-6,)) for name in names), 3, 1.0)


def by_name(parts, cost=FREE):
    found = layer_seconds(parts, TRACED, BLOCKS, cost)
    return {block.name: round(1e6 * t.sum(), 3) for block, t in zip(TRACED, found, strict=True)}


def test_nodes_go_to_the_block_whose_path_is_in_their_name():
    found = by_name(
        run(
            "Transpose",
            "/stem.0/Conv_token_3",
            "/body/body.0/body.0.0/Conv_output_0_nchwc",
            "/body.1.0/Conv",
            "/classifier/Gemm",
        )
    )
    assert found == {"stem": 2, "body.0": 1, "body.1": 1, "pool": 0.1, "classifier": 1}


def test_nodes_without_a_path_go_with_the_one_before():
    found = by_name(run("/stem.0/Conv", "Mul_141", "/body.0.0/Conv", "ReorderOutput_token_9", "/classifier/Gemm"))
    assert found == {"stem": 2, "body.0": 2, "body.1": 0.1, "pool": 0.1, "classifier": 1}


def test_what_the_profiler_adds_is_taken_off():
    found = by_name(run("/stem.0/Conv", "/stem.0/Conv_2"), ProfilerCost(0.2e-6, 0.1e-6, 5e-6))
    assert found["stem"] == pytest.approx(2 * (1 - 0.2 - 0.2))


def test_nodes_that_multiply_weights_begin_layers():
    at = [b.name for b in TRACED].index("body.0")
    traced = list(TRACED)
    traced[at] = dataclasses.replace(TRACED[at], layers=(Layer("depthwise", "0.0"), Layer("pointwise", "0.1")))
    nodes = [("/body.0.0/Conv", "QLinearConv", 9), ("Mul_3", "Mul", 4), ("/body.0.1/Conv", "Conv", 2), ("x", "Add", 1)]

    def inside(*nodes):
        found = Parts(tuple(Node(name, kind, 2, (1e-6 * us,)) for name, kind, us in nodes), 3, 1.0)
        return [round(1e6 * t, 3) for t in layer_seconds(found, traced, BLOCKS, FREE)[at]]

    assert inside(*nodes) == [13, 3]
    assert inside(*nodes[:2]) == [13]  # fewer products than layers: who knows which
    assert inside(*nodes, nodes[2]) == [18]
    assert inside(nodes[2], nodes[0]) == [11]  # not in the order of the forward


class Projected(nn.Module):
    """A residual block whose shortcut is a convolution, which is run before the second one of the branch."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.shortcut = (
            nn.Conv2d(8, 8, 3, padding=1),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.Conv2d(8, 8, 1),
        )

    def forward(self, x):
        return torch.relu(self.second(torch.relu(self.first(x))) + self.shortcut(x))


def test_layers_that_run_in_another_order_are_not_mixed_up():
    wide = nas.Choice("wide", (4, 8))
    network = nn.Sequential(Projected(), nn.Sequential(nas.Conv2d(8, wide, 1), nas.Conv2d(wide, 4, 3)))
    arch = find_space(network).largest()
    blocks, traced = find_blocks(network), BlockTracer(network, (8, 8, 8)).trace(arch)
    assert [layer.path for layer in traced[0].layers] == ["0.first", "0.second", "0.shortcut"]
    model = to_onnx(extract(network, arch), (8, 8, 8)).SerializeToString()
    (parts,) = time_parts([partial(open_parts, model, parse_device("cpu"))], 1, PartsEffort(0, 3, 1))
    assert [len(times) for times in layer_seconds(parts, traced, blocks, FREE)] == [1, 2]


def test_what_comes_before_any_weights_is_a_layer_of_its_own():
    at = [b.name for b in TRACED].index("pool")
    assert [layer.kind for layer in TRACED[at].layers] == ["none"]
    pool = Node("/pool/GlobalAveragePool", "GlobalAveragePool", 1, (3e-6,))
    found = layer_seconds(Parts((*run("/stem.0/Conv").nodes, pool), 3, 1.0), TRACED, BLOCKS, FREE)
    assert found[at].tolist() == pytest.approx([3e-6])


def test_every_node_of_a_real_network_finds_its_layer():
    model = to_onnx(extract(NET, SPACE.largest()), (1, 8, 8)).SerializeToString()
    (parts,) = time_parts([partial(open_parts, model, parse_device("cpu"))], 1, PartsEffort(0, 3, 1))
    found = layer_seconds(parts, TRACED, BLOCKS, FREE)
    assert [len(times) for times in found] == [max(1, len(block.layers)) for block in TRACED]
    total = sum(times.sum() for times in found)
    assert all((times >= 1e-7).all() for times in found)
    assert total == pytest.approx(sum(n.seconds for n in parts.nodes), rel=1e-3)
