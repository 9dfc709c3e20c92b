"""Latencies of a space in closed form are those of its files."""

import numpy as np
import pytest

from latency.device import parse_device
from latency.fused_roofline import FusedPrices, program_s
from latency.fused_work import TERMS
from latency.kernels.intake import program_of
from nas import estimating
from nas.estimating import Estimates, check_estimated, estimates
from nas.profile_data import Subject
from nas.profiling import NeutralModels

PRICES = FusedPrices("avx512", dict.fromkeys(TERMS, 1e-9), 1e-10, 3e-6)


@pytest.fixture(scope="module")
def tiny():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(estimating, "prices_of", lambda: PRICES)
        return estimates("mbconv", preset="tiny", image_size=16)


def test_blocks_add_up_to_the_file_of_a_network(tiny):
    row = tiny.space.scaled(0.3)
    models = NeutralModels(tiny._models._network, tiny._anatomy, (3, 16, 16), framed=True)
    subject = Subject(key="network", role="network", arch=dict(row.values), kind="int8", ways=())
    whole = program_s(program_of(models.build(subject)), PRICES)
    assert tiny.seconds(np.array([row.indices])) == pytest.approx([whole], rel=0.02)


def test_the_fastest_are_ranked_first(tiny):
    rows = np.array([tiny.space.scaled(0.3).indices, tiny.space.smallest().indices])
    assert tiny.ranked(rows).tolist() == rows[::-1].tolist()


def test_a_table_goes_from_the_fastest_to_the_slowest(tiny):
    table = tiny.table(2, seed=0)
    assert len(table) == 2 and table[0]["estimated_latency_s"] <= table[1]["estimated_latency_s"]
    row = tiny.space.architecture({**tiny.space.smallest().assignment, **table[0]["arch"]}).indices
    assert tiny.seconds(np.array([row])) == pytest.approx([table[0]["estimated_latency_s"]])


def test_images_of_a_batch_take_turns(tiny):
    rows = np.array([tiny.space.smallest().indices])
    four = Estimates(tiny._models._network, tiny._anatomy, (3, 16, 16), PRICES, batch=4)
    assert four.seconds(rows) - PRICES.call_s == pytest.approx(4 * (tiny.seconds(rows) - PRICES.call_s))


@pytest.mark.usefixtures("two_cores")
@pytest.mark.parametrize(
    ("device", "message"), [("cpu", "closed form on cpu:fused alone"), ("cpu:fused,threads=2", "one thread, got 2")]
)
def test_other_devices_are_refused(device, message):
    with pytest.raises(ValueError, match=message):
        check_estimated(parse_device(device))
