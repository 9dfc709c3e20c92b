import numpy as np
import pytest
import torch
from torch import nn

from experiments.allocation.bitfusion import (
    BITS,
    Rounding,
    best_limits,
    bits_of,
    damages,
    divergence,
    macs,
    option,
    rank_correlation,
    read_layers,
    rounded_activation,
    rounded_weight,
    sections,
    shapes,
)
from experiments.tables import DATA


class Small(nn.Module):
    """The parts of timm's EfficientNets, in small."""

    def __init__(self):
        super().__init__()
        self.conv_stem, self.bn1 = nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8)
        block = nn.Sequential(
            nn.Conv2d(8, 8, 3, 1, 1, groups=8, bias=False), nn.ReLU6(), nn.Conv2d(8, 16, 1, bias=False)
        )
        self.blocks = nn.Sequential(nn.Sequential(block))
        self.conv_head, self.bn2 = nn.Conv2d(16, 32, 1, bias=False), nn.BatchNorm2d(32)
        self.global_pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = nn.Linear(32, 5)

    def forward(self, x):
        for part in sections(self):
            x = part(x)
        return x


@pytest.fixture
def small():
    torch.manual_seed(0)
    return Small().eval(), torch.randn(12, 3, 16, 16)


def test_options_are_named_as_in_the_table():
    assert option(4, 8) == "W4A8"
    assert bits_of("W4A8") == (4, 8)


def test_shapes_and_macs_are_those_of_the_layers(small):
    network, _ = small
    found = shapes(network, 16)
    assert found == {
        "conv_stem": (3, 8, 16, 3, 2, 1, 1),
        "blocks.0.0.0": (8, 8, 8, 3, 1, 1, 8),
        "blocks.0.0.2": (8, 16, 8, 1, 1, 0, 1),
        "conv_head": (16, 32, 8, 1, 1, 0, 1),
    }
    assert [macs(shape) for shape in found.values()] == [
        8 * 8 * 9 * 3 * 8,
        8 * 8 * 9 * 8,
        8 * 8 * 8 * 16,
        8 * 8 * 16 * 32,
    ]


def test_rounding_has_as_many_values_as_bits_say_and_errs_less_with_more():
    weight, values = torch.randn(6, 40, generator=torch.Generator().manual_seed(0)), torch.linspace(-1, 6, 4_000)
    errors = []
    for bits in BITS:
        rounded = rounded_weight(weight, bits)
        assert max(len(row.unique()) for row in rounded) <= 2**bits - 1
        limits = best_limits(values, bits)
        steps = rounded_activation(values, limits, bits).unique()
        assert len(steps) <= 2**bits
        assert 0.0 in steps
        errors.append(
            ((rounded - weight).square().mean(), (rounded_activation(values, limits, bits) - values).square().mean())
        )
    assert errors[0] > errors[1] > errors[2]
    assert errors[0][1] > errors[1][1] > errors[2][1]
    full = weight.abs().amax(1, keepdim=True) / 7  # the range of all weights, as without a search for the best
    assert errors[0][0] <= ((weight / full).round() * full - weight).square().mean()


def test_a_layer_rounds_alone_and_the_network_returns_to_what_it_was(small):
    network, x = small
    before = {name: t.clone() for name, t in network.state_dict().items()}
    rounding = Rounding(network, ["blocks.0.0.0", "blocks.0.0.2"], x)
    with torch.no_grad():
        plain = network(x)
        rounding.set({"blocks.0.0.2": "W4A8"})
        assert torch.equal(network.blocks[0][0][0].weight, before["blocks.0.0.0.weight"])
        assert torch.equal(network.blocks[0][0][2].weight, rounded_weight(before["blocks.0.0.2.weight"], 4))
        coarse = network(x)
        rounding.set({"blocks.0.0.2": "W8A4"})
        assert not torch.equal(network(x), coarse)
        rounding.set({})
        assert torch.equal(network(x), plain)


def test_damage_is_the_divergence_of_the_whole_network(small):
    network, x = small
    rounding = Rounding(network, ["blocks.0.0.0", "blocks.0.0.2"], x)
    found = damages(rounding, {"blocks.0.0.0": ["W8A8", "W4A4"], "blocks.0.0.2": ["W4A8"]}, x)
    with torch.no_grad():
        rounding.set({})
        plain = network(x)
        for name, row in found.items():
            for chosen, damage in row.items():
                rounding.set({name: chosen})
                assert damage == pytest.approx(float(divergence(plain, network(x)).mean()), rel=1e-4, abs=1e-7)
    assert found["blocks.0.0.0"]["W8A8"] < found["blocks.0.0.0"]["W4A4"] / 10


def test_divergence_is_that_of_the_definition():
    p, q = torch.tensor([[0.7, 0.2, 0.1]]), torch.tensor([[0.5, 0.3, 0.2]])
    expected = sum(a * np.log(a / b) for a, b in zip(p[0].tolist(), q[0].tolist(), strict=True))
    assert float(divergence(p.log(), q.log() + 3)) == pytest.approx(expected)
    assert float(divergence(p.log(), p.log())) == pytest.approx(0, abs=1e-7)


def test_rank_correlation_counts_pairs():
    assert rank_correlation([(1, 10), (2, 20), (3, 30)]) == 1
    assert rank_correlation([(1, 30), (2, 20), (3, 10)]) == -1
    assert rank_correlation([(1, 10), (2, 30), (3, 20)]) == pytest.approx(1 / 3)


@pytest.mark.skipif(not DATA.is_dir(), reason=f"the benchmark tables are not in {DATA}")
def test_the_table_has_layers_in_seconds_and_joules():
    layers = read_layers(DATA)
    assert len(layers) == 779
    assert layers[96, 456, 14, 1, 1, 0, 1]["W4A4"] == pytest.approx((0.062192e-3, 0.10688197e-3))
    assert all(set(row) <= {option(w, a) for w in BITS for a in BITS} for row in layers.values())
    lacking = {shape for shape, row in layers.items() if len(row) < 9}
    assert {shape[3] for shape in lacking} == {7}
