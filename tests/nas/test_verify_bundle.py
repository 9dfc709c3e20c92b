"""What a front becomes on another device."""

import pytest

from nas.objectives import Bound, Problem, maximize, minimize
from nas.verify_bundle import _verdicts

OBJECTIVES = (maximize("val_accuracy"), minimize("latency_s"))


def row(val_accuracy, latency_s):
    return {"val_accuracy": val_accuracy, "size_bytes": 10, "macs": 5, "latency_s": {"median": latency_s}}


@pytest.mark.parametrize(
    ("bounds", "verdicts"),
    [
        ((), ["on the front", "dominated", "on the front", "on the front"]),
        ((Bound("latency_s", 3.0),), ["on the front", "dominated", "on the front", "over a bound"]),
        ((Bound("latency_s", 0.5),), ["over a bound"] * 4),
        ((Bound("val_accuracy", 0.92, at_least=True),), [*["over a bound"] * 3, "on the front"]),
    ],
)
def test_points_that_are_dominated_or_over_a_bound_leave_the_front(bounds, verdicts):
    rows = [row(0.8, 1.0), row(0.8, 2.0), row(0.9, 2.5), row(0.95, 4.0)]
    assert _verdicts(rows, Problem(OBJECTIVES, bounds)) == verdicts


def test_what_is_better_only_where_it_is_over_a_bound_dominates_nothing():
    rows = [row(0.9, 1.0), row(0.8, 2.0)]
    rows[0]["size_bytes"] = 100
    assert _verdicts(rows, Problem(OBJECTIVES, (Bound("size_bytes", 50),))) == ["over a bound", "on the front"]


@pytest.mark.parametrize("metric", ["parameters", "memory_bytes"])
def test_costs_that_are_not_of_the_device_stay_what_they_were(metric):
    rows = [{**row(0.9, 1.0), metric: 100}, {**row(0.8, 2.0), metric: 10}]
    assert _verdicts(rows, Problem(OBJECTIVES, (Bound(metric, 50),))) == ["over a bound", "on the front"]
    assert _verdicts(rows, Problem((*OBJECTIVES, minimize(metric)))) == ["on the front"] * 2
