"""What networks are measured beside."""

import numpy as np
import pytest
from small_space import Small

from nas.objectives import Problem, maximize, minimize
from nas.spec import build_network
from nas.twins import twins_of, with_twins
from quant_search.policy import joint_space, uniform
from search_spaces.network import find_blocks, find_space
from search_spaces.space import SearchSpace
from search_spaces.value import Choice

PROBLEM = Problem((maximize("val_accuracy"), minimize("latency_s")))


def policies(*precisions):
    network, space = build_network(Small, (1, 8, 8), 10)
    return joint_space(space, find_blocks(network), precisions)


def mixed(space):
    """The first of random architectures whose blocks differ in precision."""
    for row in space.sample(100, np.random.default_rng(0)):
        arch = space.row(row)
        if len({v for k, v in arch.values.items() if k.endswith(".precision")}) > 1:
            return arch
    raise AssertionError


def test_what_mixes_precisions_has_a_twin_in_each_and_what_is_rounded_one_in_more_bits():
    space = policies("int8", "fp32", "w4a8")
    arch = mixed(space)
    every = {precision: uniform(arch, precision) for precision in ("fp32", "int8", "w4a8")}
    assert twins_of(arch, PROBLEM) == every
    assert twins_of(every["w4a8"], PROBLEM) == {p: every[p] for p in ("fp32", "int8")}
    assert twins_of(every["int8"], PROBLEM) == {"fp32": every["fp32"]}
    assert twins_of(every["fp32"], PROBLEM) == {}


def test_one_precision_has_no_twins():
    space = policies("int8")
    assert twins_of(space.largest(), PROBLEM) == {}


def test_twins_are_verified_once_behind_the_finalists():
    density = Choice("body.0.density", (0.5, 1.0))
    space = SearchSpace("thin", [Choice("a", (1, 2)), density])
    found = {space.row((0, 0)): "search", space.row((1, 1)): "random", space.row((1, 0)): "search"}
    assert with_twins(found, PROBLEM) == {**found, space.row((0, 1)): "search"}
    assert list(with_twins(found, PROBLEM))[:3] == list(found)


def test_twins_have_theirs():
    """Each of them may take a place on the front."""
    network, _ = build_network("mbconv", (1, 8, 8), 10, sparsity=("channels:0.5",))
    space = joint_space(find_space(network), find_blocks(network), ("fp32", "int8"))
    for row in space.sample(20, np.random.default_rng(0)):
        every = with_twins({space.row(row): "search"}, PROBLEM)
        assert all(twin in every for arch in every for twin in twins_of(arch, PROBLEM).values())
        assert set(every.values()) == {"search"} and len(every) <= 6


@pytest.mark.parametrize("costs", [("size_bytes",), ("latency_s", "size_bytes"), ("latency_s", "memory_bytes")])
def test_what_serves_more_than_time_has_no_twins(costs):
    space = SearchSpace("thin", [Choice("body.0.density", (0.5, 1.0))])
    assert twins_of(space.smallest(), Problem((maximize("val_accuracy"), *map(minimize, costs)))) == {}
