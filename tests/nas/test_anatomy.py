"""What predictors see, on the real `mbconv` and its policies."""

import numpy as np
import pytest

from latency.blocks import BlockTracer
from latency.lowering import to_onnx
from nas.anatomy import Anatomy
from nas.spec import build_network
from quant_search.policy import joint_space, uniform
from search_spaces.network import extract, find_blocks

SHAPE = (1, 8, 8)


@pytest.fixture(scope="module")
def parts():
    network, architectures = build_network("mbconv", SHAPE, 10)
    joint = joint_space(architectures, find_blocks(network), ("fp32", "int8"))
    return network, architectures, Anatomy(joint, BlockTracer(network, SHAPE), ("fp32", "int8"))


def test_counts_are_those_of_the_extracted_network(parts):
    network, _, anatomy = parts
    rows = anatomy.space.sample(5, np.random.default_rng(0))
    for row, (_, parameters, fp32, int8, layers) in zip(rows, anatomy.counts(rows), strict=True):
        plain = extract(network, anatomy.space.row(row))
        assert parameters == sum(p.numel() for p in plain.parameters()) == fp32 / 4 + int8
        graph = to_onnx(plain, SHAPE).graph
        assert layers == sum(node.op_type in ("Conv", "Gemm") for node in graph.node)


def test_a_policy_moves_bytes_and_not_macs(parts):
    _, _, anatomy = parts
    arch = anatomy.space.row(anatomy.space.sample(1, np.random.default_rng(1))[0])
    in_fp32, in_int8 = anatomy.counts(np.array([uniform(arch, p).indices for p in ("fp32", "int8")], dtype=np.int16))
    assert in_fp32[0] == in_int8[0] and in_fp32[1] == in_int8[1]
    assert in_fp32[3] == 0 and in_int8[2] == 0
    assert {p for _, p in anatomy.placed(uniform(arch, "int8"))} >= {"int8"}


def test_activations_are_those_of_the_blocks_in_their_precision(parts):
    _, _, anatomy = parts
    arch = anatomy.space.row(anatomy.space.sample(1, np.random.default_rng(5))[0])
    counts = [block.counts for block in anatomy.tracer.trace(arch)]
    fp32, int8 = (np.array([uniform(arch, p).indices], dtype=np.int16) for p in ("fp32", "int8"))
    elements = sum(c.activation_elements for c in counts)
    assert anatomy.activations(fp32).tolist() == [[4 * elements, 0, 0, 4 * max(c.activation_elements for c in counts)]]
    (found,) = anatomy.activations(int8)
    assert found[0] / 4 + found[1] == elements and found[1] > 0
    assert found[2] <= 4 * sum(c.hswish_elements for c in counts)
    assert found[:3].sum() > found[3] > 0


def test_architectures_are_lifted_into_the_joint_space_in_fp32(parts):
    _, architectures, anatomy = parts
    rows = architectures.sample(20, np.random.default_rng(2))
    lifted = anatomy.in_most_bits(rows)
    expected = [uniform(anatomy.space.row([*row, *[0] * (len(anatomy.space) - len(row))]), "fp32") for row in rows]
    assert [tuple(row) for row in lifted.tolist()] == [arch.indices for arch in expected]


def test_a_space_without_policies_is_its_own_joint_space(parts):
    network, architectures, _ = parts
    anatomy = Anatomy(architectures, BlockTracer(network, SHAPE), ("fp32",))
    rows = architectures.sample(5, np.random.default_rng(3))
    assert np.array_equal(anatomy.in_most_bits(rows), rows)
    assert {p for placed in anatomy.placed_rows(rows) for _, p in placed} == {"fp32"}


def test_equal_architectures_have_equal_features_and_each_is_looked_at_once(parts, monkeypatch):
    _, _, anatomy = parts
    rows = anatomy.space.sample(6, np.random.default_rng(4))
    first = anatomy.features(rows)
    monkeypatch.setattr(anatomy, "placed", None)
    assert np.array_equal(anatomy.features(rows[::-1])[::-1], first)
