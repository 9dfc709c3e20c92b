"""Estimates and floors of fused programs."""

from dataclasses import replace

import numpy as np
import pytest

from latency.fused_programs import Layers, repeated
from latency.fused_roofline import FusedPrices, block_s, floor_s, linear_s, macs, program_s, steps_s
from latency.fused_work import TERMS
from latency.kernels.contract import Program, Quantize, Step
from latency.kernels.lowered import Kind, lowered

PRICES = FusedPrices("avx512", {term: 1e-9 * (i + 1) for i, term in enumerate(TERMS)}, 0.25e-9, 2e-6, 2**20)


def layers() -> Layers:
    return Layers(np.random.default_rng(0))


@pytest.mark.parametrize("shape", [(9, 9, 8, 48, 24, 5, 2), (6, 7, 20, 20, 33, 3, 1), (4, 5, 16, 51, 16, 7, 1)])
def test_a_block_by_its_numbers_is_the_step_of_a_program(shape):
    height, width, inputs, expanded, outputs, kernel, stride = shape
    block = layers().block(inputs, expanded, outputs, kernel, stride)
    records, shapes = lowered(repeated([block], 1, (inputs, height, width)).short)
    step = next(i for i, record in enumerate(records) if record.kind == Kind.BLOCK)
    assert block_s(*shape, PRICES) == pytest.approx(steps_s(records, shapes, PRICES)[step])


def test_a_program_is_its_call_and_its_steps():
    pair = repeated([layers().block(16, 48, 16, 3, 1)], 4, (16, 8, 8))
    assert program_s(pair.short, PRICES) == pytest.approx(2e-6 + sum(steps_s(*lowered(pair.short), PRICES)))
    block = block_s(8, 8, 16, 48, 16, 3, 1, PRICES)
    assert program_s(pair.long, PRICES) - program_s(pair.short, PRICES) == pytest.approx(4 * block)


def test_a_linear_layer_is_the_step_of_a_program():
    steps = [Step("quantize", Quantize(np.float32(1), 0), (0,), 1), Step("logits", layers().logits(40, 20), (1,), 2)]
    found = steps_s(*lowered(Program((40, 1, 1), steps)), PRICES)
    assert linear_s(40, 20, PRICES) == pytest.approx(found[1])
    assert macs(Program((40, 1, 1), steps)) == 40 * 20


def test_macs_with_padding_are_not_needed():
    # Of 3 x 3 taps at 4 x 4 pixels, ten in each direction meet the image.
    block = layers().block(8, 32, 16, 3, 1)
    assert macs(repeated([block], 1, (8, 4, 4)).short) == 16 * 8 * 32 + 10 * 10 * 32 + 16 * 32 * 16
    dense = layers().convolution(3, 8, 3, stride=2)
    assert macs(repeated([dense], 1, (3, 4, 4)).short) == 5 * 5 * 3 * 8


def test_macs_with_zero_blocks_are_not_needed():
    layer = layers().convolution(64, 32)
    weight = layer.weight.copy()
    weight[:, :48] = 0
    assert macs(repeated([replace(layer, weight=weight)], 1, (64, 4, 7)).short) == 28 * 32 * 16


def test_a_floor_is_macs_at_the_peak():
    program = repeated([layers().convolution(64, 32)], 1, (64, 4, 7)).short
    assert floor_s(program, PRICES) == pytest.approx(28 * 64 * 32 / 64 * 0.25e-9)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"instruction_set": "sse"}, "instruction set 'sse' is none of avx512"),
        ({"seconds": {}}, "these are missing or too many"),
        ({"seconds": {**PRICES.seconds, "dot": -1.0}}, "price of 'dot' must be finite and not negative"),
        ({"least_dot_s": 0.0}, "dot product must take finite time"),
        ({"call_s": float("nan")}, "call must take finite time"),
    ],
)
def test_prices_that_cannot_be_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        replace(PRICES, **wrong)
