import numpy as np
import pytest

from latency.attribution import block_seconds
from latency.blocks import BlockTracer
from latency.device import parse_device
from latency.lowering import to_onnx
from latency.parts import Node, Parts, PartsEffort, ProfilerCost, time_parts
from search_spaces.network import extract, find_blocks, find_space
from tests.nas.small_space import Small

FREE = ProfilerCost(0.0, 0.0, 0.0)
NET = Small(1, 3)
SPACE, BLOCKS = find_space(NET), find_blocks(NET)
TRACED = BlockTracer(NET, (1, 8, 8)).trace(SPACE.largest())


def run(*names):
    return Parts(tuple(Node(name, "Conv", 2, (1e-6,)) for name in names), 3)


def by_name(parts, cost=FREE):
    found = block_seconds(parts, TRACED, BLOCKS, cost)
    return {block.name: round(1e6 * t, 3) for block, t in zip(TRACED, found, strict=True)}


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


def test_every_node_of_a_real_network_finds_its_block():
    model = to_onnx(extract(NET, SPACE.largest()), (1, 8, 8)).SerializeToString()
    (parts,) = time_parts([model], parse_device("cpu"), PartsEffort(1, 1, 1, 3))
    found = block_seconds(parts, TRACED, BLOCKS, FREE)
    assert (found > 1e-7).all() and np.isclose(found.sum(), sum(n.seconds for n in parts.nodes))
