"""Laws of counting: MACs equal the hand formulas, and a network's counts are the sum of its blocks'."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from latency.blocks import BlockTracer
from latency.count import count
from search_spaces.catalog import SPACES
from search_spaces.network import extract, find_space
from tests.laws.entries import SMALLEST

LAW = settings(max_examples=60, deadline=None, derandomize=True, database=None)
IMAGE = 32


@LAW
@given(
    groups=st.integers(1, 4),
    inputs=st.integers(1, 4),
    outputs=st.integers(1, 4),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
    side=st.integers(3, 9),
    bias=st.booleans(),
)
def test_a_convolution_has_out_elements_times_inputs_of_a_group_times_taps(
    groups, inputs, outputs, kernel, stride, padding, side, bias
):
    layer = nn.Conv2d(groups * inputs, groups * outputs, kernel, stride, padding, groups=groups, bias=bias)
    h, w = ((side + 2 * padding - k) // stride + 1 for k in kernel)
    found = count(layer, (groups * inputs, side, side))
    elements = groups * outputs * h * w
    assert found.macs == elements * inputs * kernel[0] * kernel[1]
    assert found.output_elements == found.activation_elements == elements
    assert found.weight_elements == groups * outputs * inputs * kernel[0] * kernel[1]
    assert found.parameters == found.weight_elements + bias * groups * outputs
    depthwise, pointwise = groups > 1 and inputs == outputs == 1, groups == 1 and kernel == (1, 1)
    kinds = (found.depthwise_macs, found.pointwise_macs, found.dense_macs)
    assert kinds == tuple(found.macs * kind for kind in (depthwise, pointwise, not depthwise and not pointwise))


@LAW
@given(inputs=st.integers(1, 9), outputs=st.integers(1, 9), tokens=st.integers(1, 5), bias=st.booleans())
def test_a_linear_layer_has_out_elements_times_inputs(inputs, outputs, tokens, bias):
    found = count(nn.Linear(inputs, outputs, bias=bias), (tokens, inputs))
    assert found.macs == found.linear_macs == tokens * outputs * inputs and found.layers == 1
    assert found.parameters == inputs * outputs + bias * outputs


@pytest.fixture(scope="module", params=SMALLEST, ids="-".join)
def traced(request):
    """Architectures with their counts as a whole, and their blocks."""
    name, preset = request.param
    network = SPACES[name].build(IMAGE, 3, 10, preset)
    space, tracer = find_space(network), BlockTracer(network, (3, IMAGE, IMAGE))
    rows = space.sample(4, np.random.default_rng(0))
    archs = [space.smallest(), space.largest(), *map(space.row, rows)]
    return [(arch, count(extract(network, arch), (3, IMAGE, IMAGE)), tracer.trace(arch)) for arch in archs]


def test_the_counts_of_blocks_add_up_to_the_networks(traced):
    for arch, whole, blocks in traced:
        first, *others = (block.counts for block in blocks)
        total = sum(others, first)
        ends = {"input_elements": 3 * IMAGE**2, "output_elements": 10}
        assert dataclasses.replace(total, **ends) == whole, str(arch)


def test_blocks_hand_their_shapes_on(traced):
    for _, _, blocks in traced:
        assert blocks[0].input_shape == (3, IMAGE, IMAGE) and blocks[-1].output_shape == (10,)
        for before, after in itertools.pairwise(blocks):
            assert before.output_shape == after.input_shape
            assert before.counts.output_elements == after.counts.input_elements


def test_larger_architectures_cost_more(traced):
    smallest, largest, *others = (whole for _, whole, _ in traced)
    for whole in others:
        assert smallest.macs <= whole.macs <= largest.macs
        assert smallest.parameters <= whole.parameters <= largest.parameters
