import math

import pytest
from sparse_subject import CPU

from latency.device import parse_device
from latency.store import MeasurementStore
from latency.worker import Effort
from quant_search.sparsity.width_step import STEPS, largest_that_pays, waste_of, width_step, width_waste

EFFORT = Effort(rounds=1, most_rounds=1, samples=2, sample_s=1e-5)


def latencies(block, side=1.0):
    """Of layers whose channels are padded to multiples of `block`, from 96 to 192."""
    return {w: side + (math.ceil(w / block) * block) ** 2 for w in range(96, 193)}


def test_a_device_that_pads_likes_multiples_of_what_it_pads_to():
    for block in (4, 8, 16, 32):
        assert largest_that_pays(waste_of(latencies(block))) == block


def test_a_device_that_does_not_has_no_step():
    waste = waste_of(latencies(1))
    assert set(waste) == set(STEPS) and all(0.97 < ratio <= 1 for ratio in waste.values())
    assert largest_that_pays(waste) == 1 and largest_that_pays({}) == 1


def test_slower_kernels_off_multiples_are_seen_too():
    assert largest_that_pays(waste_of({w: t * (1 if w % 8 == 0 else 1.1) for w, t in latencies(1).items()})) == 8


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_it_is_measured_and_stored(tmp_path, precision):
    with MeasurementStore(tmp_path / "store") as store:
        waste = width_waste(CPU, precision, store, EFFORT)
        assert list(waste) == list(STEPS) and all(0.1 < ratio < 10 for ratio in waste.values())
        assert width_step(CPU, precision, store, EFFORT) in (1, *STEPS)


def test_precisions_that_are_no_time_there_are_refused():
    with pytest.raises(ValueError, match="does not turn int8 into time"):
        width_step(parse_device("cpu:torch"), "int8")
