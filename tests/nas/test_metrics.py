"""The costs that users can name."""

import pytest

from nas.config import Settings
from nas.metrics import COSTS, columns_of, costs_of, untold


@pytest.mark.parametrize("cost", COSTS.values(), ids=COSTS)
def test_every_cost_can_be_bounded(cost):
    assert Settings(**{f"max_{cost.metric}": 7.0}).problem.metrics == {"val_accuracy", "latency_s", cost.metric}


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [("latency", 0.0012, "1.2 ms"), ("energy", 0.0042, "4.2 mJ"), ("size", 1.5e6, "1.5 MB"), ("macs", 3e7, "30 M")],
)
def test_values_are_shown_in_their_unit(name, value, text):
    assert COSTS[name].show(value) == text


def test_points_give_the_median_of_what_was_timed():
    point = {"latency_s": {"median": 0.5}, "size_bytes": 7, "energy_joules": None}
    assert [COSTS[name].of_point(point) for name in ("latency", "size", "energy", "macs")] == [0.5, 7.0, None, None]


def test_a_record_says_what_was_made_small():
    assert list(costs_of({})) == ["latency"]
    record = {"settings": {"objectives": ["size", "traffic"]}, "device": {"batch": 8}}
    assert list(costs_of(record)) == ["size", "traffic"]
    assert [cost.metric for cost in columns_of(record)] == ["traffic_bytes", "images_per_s"]
    assert columns_of({"device": {"batch": 1}}) == []
    bounded = {"settings": {"max_memory_bytes": 1e6, "max_size_bytes": 1e6, "max_traffic_bytes": None}}
    assert [cost.metric for cost in columns_of(bounded)] == ["memory_bytes"]


def test_another_device_tells_neither_energy_nor_roofline():
    everything = [cost.metric for cost in COSTS.values()]
    assert untold(everything, graph=True) == ["energy", "roofline"]
    assert untold(everything, graph=False) == ["energy", "memory", "traffic", "roofline"]
