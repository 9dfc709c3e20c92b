import numpy as np
import pytest
import torch

from latency.random_networks import _BLOCKS, _Style, random_network, sample_networks

STYLE = _Style(torch.nn.ReLU, torch.nn.ReLU, torch.nn.Sigmoid, True, 8)


@pytest.mark.parametrize("kind", _BLOCKS)
@pytest.mark.parametrize("stride", [1, 2])
def test_a_block_has_the_width_and_stride_asked_for(kind, stride):
    for seed in range(3):
        block = _BLOCKS[kind](np.random.default_rng(seed), 12, 17, stride, STYLE).eval()
        with torch.inference_mode():
            assert block(torch.zeros(1, 12, 8, 8)).shape == (1, 17, 8 // stride, 8 // stride)


def test_a_seed_is_a_network():
    first, again, other = random_network(3), random_network(3), random_network(4)
    assert repr(first.module) == repr(again.module) != repr(other.module)
    for a, b in zip(first.module.parameters(), again.module.parameters(), strict=True):
        assert torch.equal(a, b)


def test_drawing_networks_leaves_the_callers_random_numbers_alone():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    seeds = [seed for seed, _ in sample_networks(2, start=5)]
    assert torch.rand(1) == expected
    assert seeds == sorted(set(seeds)) and seeds[0] >= 5
