"""Prices are found from times, kept, and never make a floor above a measurement."""

import numpy as np
import pytest

from latency import fused_prices as module
from latency.fused_prices import cpu_samples, difference_s, prices_from, prices_of
from latency.fused_programs import Layers, pairs, repeated
from latency.fused_roofline import FusedPrices, floor_s, program_s
from latency.fused_work import TERMS

SECONDS = dict(zip(TERMS, np.random.default_rng(1).uniform(1e-9, 2e-8, len(TERMS)).tolist(), strict=True))
TRUTH = FusedPrices("avx512", SECONDS, 1e-10, 3e-6, 2**20)


def samples_of(found):
    """Samples that the true prices give, without noise."""
    return [np.full(4, program_s(program, TRUTH)) for pair in found for program in (pair.short, pair.long)]


def test_prices_are_found_again_from_the_times_they_give():
    found = list(pairs())
    prices = prices_from(found, samples_of(found), "avx512", 2**20)
    assert prices.seconds == pytest.approx(SECONDS, rel=1e-4)
    assert prices.call_s == pytest.approx(TRUTH.call_s, rel=1e-3)


@pytest.mark.parametrize("factor", [1.5, 0.5])  # of a long program's time; with the second the short one takes more
def test_a_disturbed_pair_changes_little(factor):
    found = list(pairs())
    samples = samples_of(found)
    samples[13] = factor * samples[13 if factor > 1 else 12]
    prices = prices_from(found, samples, "avx512", 2**20)
    assert prices.seconds["dot"] == pytest.approx(SECONDS["dot"], rel=0.003)


def test_terms_that_no_pair_tells_are_named():
    found = [repeated([Layers(np.random.default_rng(0)).convolution(16, 16)], 4, (16, 4, 4))]
    with pytest.raises(ValueError, match=r"no pair of programs tells the price of table, .*dequantized"):
        prices_from(found, samples_of(found), "avx512", 0)


def test_prices_are_measured_once(tmp_path, monkeypatch):
    asked = []

    def measured(instruction_set, on_round):
        asked.append(instruction_set)
        return TRUTH

    monkeypatch.setattr(module, "measured_prices", measured)
    assert prices_of("avx512", tmp_path / "new") == prices_of("avx512", tmp_path / "new") == TRUTH
    assert asked == ["avx512"]
    (file,) = (tmp_path / "new").iterdir()
    file.write_text("{}")
    with pytest.raises(ValueError, match=r"holds no prices .*delete it"):
        prices_of("avx512", tmp_path / "new")


def test_a_long_program_takes_longer_and_no_measurement_is_below_its_floor(monkeypatch):
    monkeypatch.setattr(module, "_ROUNDS", 3)
    monkeypatch.setattr(module, "_SAMPLE_S", 5e-5)
    prices = module.measured_prices(module.instruction_sets()[0])
    pair = repeated([Layers(np.random.default_rng(0)).block(32, 96, 32, 3, 1)], 8, (32, 14, 14))
    short, long = cpu_samples([pair.short, pair.long], prices.instruction_set)
    assert difference_s(short, long) > 0
    assert long.min() > floor_s(pair.long, prices) and short.min() > floor_s(pair.short, prices)
