"""Blocks of networks in closed form are the steps that their layers become."""

import pytest
from torch import nn

from latency.blocks import TracedBlock
from latency.count import count_
from latency.fused_layers import traced_s
from latency.fused_roofline import FusedPrices, block_s, linear_s, steps_s
from latency.fused_work import TERMS
from latency.kernels.intake import program_of
from latency.kernels.lowered import lowered
from latency.lowering import to_onnx
from quant_search.onnx_qdq import quantize
from quant_search.ranges import neutral_ranges

PRICES = FusedPrices("avx512", {term: 1e-9 * (i + 1) for i, term in enumerate(TERMS)}, 0.25e-9, 2e-6, 2**20)


def traced(*modules: nn.Module, shape: tuple[int, ...]) -> TracedBlock:
    counts, layers, output = count_(nn.Sequential(*modules), shape)
    return TracedBlock("block", "", shape, output, counts, True, layers)


def residual(inputs: int, expanded: int, outputs: int, k: int, stride: int) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(inputs, expanded, 1),
        nn.ReLU(),
        nn.Conv2d(expanded, expanded, k, stride, k // 2, groups=expanded),
        nn.ReLU6(),
        nn.Conv2d(expanded, outputs, 1),
    )


def step_s(shape: tuple[int, ...], *modules: nn.Module) -> float:
    """What the steps of a file take but its first, which makes codes of an image, and the last."""
    model = to_onnx(nn.Sequential(*modules), shape)
    file = quantize(model, [node.name for node in model.graph.node], neutral_ranges(model)).SerializeToString()
    return sum(steps_s(*lowered(program_of(file)), PRICES)[1:-1])


@pytest.mark.parametrize(("height", "width", "k", "stride"), [(9, 9, 5, 2), (6, 18, 3, 1), (14, 7, 7, 2)])
def test_an_inverted_residual_is_one_step(height, width, k, stride):
    block = traced(*residual(8, 48, 24, k, stride), shape=(8, height, width))
    assert traced_s(block, PRICES) == pytest.approx(block_s(height, width, 8, 48, 24, k, stride, PRICES))
    spared = traced(*residual(8, 48, 24, k, stride)[2:], shape=(48, height, width))  # without an expansion
    assert traced_s(spared, PRICES) == pytest.approx(block_s(height, width, 48, 48, 24, k, stride, PRICES))


def test_other_layers_are_steps_of_their_own():
    stem = (nn.Conv2d(3, 20, 3, 2, 1), nn.ReLU(), nn.Conv2d(20, 40, 1), nn.ReLU())
    pixel = (nn.Conv2d(40, 1, 1, stride=4), nn.Flatten())
    found = traced_s(traced(*stem, shape=(3, 8, 8)), PRICES)
    assert found == pytest.approx(step_s((3, 8, 8), *stem, *pixel) - step_s((40, 4, 4), *pixel))
    assert traced_s(traced(nn.Linear(40, 20), shape=(40,)), PRICES) == pytest.approx(linear_s(40, 20, PRICES))


def test_h_swish_and_sums_cost_by_their_elements():
    plain, looked_up = (traced(nn.Conv2d(8, 16, 1), act, shape=(8, 4, 4)) for act in (nn.ReLU6(), nn.Hardswish()))
    assert traced_s(looked_up, PRICES) - traced_s(plain, PRICES) == pytest.approx(16 * PRICES.seconds["table"])
    pooled = traced(nn.Conv2d(8, 16, 1), nn.AvgPool2d(2), shape=(8, 4, 4))
    assert traced_s(pooled, PRICES) - traced_s(plain, PRICES) == pytest.approx(16 * PRICES.seconds["pooled"])


def test_what_does_nothing_takes_some_time_all_the_same():
    assert 0 < traced_s(traced(nn.Identity(), shape=(8, 4, 4)), PRICES) < 1e-6
