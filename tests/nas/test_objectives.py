import math

import numpy as np
import pytest

from nas.objectives import Bound, Evaluation, Problem, cost_array, maximize, minimize
from search_spaces.space import SearchSpace
from search_spaces.value import Choice

SPACE = SearchSpace("s", [Choice("width", (8, 16))])
ARCH = SPACE.smallest()
PROBLEM = Problem(
    (maximize("accuracy"), minimize("latency_s")), (Bound("latency_s", 2.0), Bound("accuracy", 0.5, at_least=True))
)


def test_the_sense_of_an_objective_is_applied_to_its_cost():
    evaluation = PROBLEM.evaluation(ARCH, {"accuracy": 0.9, "latency_s": 1.5}, "verified")
    assert evaluation.costs == (-0.9, 1.5)
    assert evaluation.violation == 0
    assert evaluation.provenance == "verified"


def test_violations_are_relative_and_add_up():
    evaluation = PROBLEM.evaluation(ARCH, {"accuracy": 0.4, "latency_s": 3.0}, "predicted")
    assert evaluation.violation == pytest.approx(0.5 + 0.2)


@pytest.mark.parametrize(
    ("bound", "value", "excess"),
    [
        (Bound("x", 2.0), 2.0, 0),
        (Bound("x", 2.0), 1.0, 0),
        (Bound("x", 2.0), 3.0, 0.5),
        (Bound("x", 2.0, at_least=True), 2.0, 0),
        (Bound("x", 2.0, at_least=True), 1.0, 0.5),
        (Bound("x", -2.0), -1.0, 0.5),
    ],
)
def test_a_bound_holds_at_its_limit(bound, value, excess):
    assert bound.excess(value) == excess


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("metric", ["accuracy", "latency_s"])
def test_metrics_that_are_no_numbers_are_refused_by_name(metric, bad):
    with pytest.raises(ValueError, match=f"metric '{metric}' of width=8 is .*: expected a finite number"):
        PROBLEM.evaluation(ARCH, {"accuracy": 0.9, "latency_s": 1.5, metric: bad}, "verified")


def test_a_missing_metric_is_named():
    with pytest.raises(ValueError, match="metric 'latency_s' of width=8 is missing"):
        PROBLEM.evaluation(ARCH, {"accuracy": 0.9}, "verified")
    with pytest.raises(ValueError, match="metric 'size_bytes' of width=8 is missing"):
        Problem(PROBLEM.objectives, (Bound("size_bytes", 1.0),)).evaluation(
            ARCH, {"accuracy": 0.9, "latency_s": 1.0}, "verified"
        )


@pytest.mark.parametrize(("costs", "violation"), [((math.nan, 1.0), 0.0), ((1.0,), math.inf), ((1.0,), math.nan)])
def test_an_evaluation_guards_against_costs_that_are_no_numbers(costs, violation):
    with pytest.raises(ValueError, match="must be finite"):
        Evaluation(ARCH, {}, costs, violation, "verified")


def test_metrics_are_copied_as_plain_floats():
    given = {"accuracy": np.float32(0.5), "latency_s": 2, "extra": np.int64(7)}
    evaluation = PROBLEM.evaluation(ARCH, given, "verified")
    assert evaluation.values == {"accuracy": 0.5, "latency_s": 2.0, "extra": 7.0}
    assert {type(v) for v in evaluation.values.values()} == {float}
    given["accuracy"] = 0.1
    assert evaluation.values["accuracy"] == 0.5


def test_costs_of_many_equal_the_costs_of_each():
    rng = np.random.default_rng(0)
    metrics = {"accuracy": rng.uniform(0, 1, 20), "latency_s": rng.uniform(0, 4, 20), "other": np.full(20, 7.0)}
    costs, violations = PROBLEM.costs(metrics)
    each = [PROBLEM.evaluation(ARCH, {k: v[i] for k, v in metrics.items()}, "predicted") for i in range(20)]
    assert np.array_equal(costs, cost_array(each))
    assert violations == pytest.approx([e.violation for e in each])


def test_costs_of_many_refuse_what_is_no_number():
    with pytest.raises(ValueError, match="finite, got others for latency_s"):
        PROBLEM.costs({"accuracy": np.ones(2), "latency_s": np.array([1.0, np.nan])})
    with pytest.raises(ValueError, match="finite, got others for accuracy"):
        Problem((maximize("accuracy"),)).costs({"accuracy": np.array([1.0, np.inf])})
    with pytest.raises(ValueError, match="finite, got others for macs"):
        Problem((maximize("accuracy"),), (Bound("macs", 1.0),)).costs(
            {"accuracy": np.ones(1), "macs": np.array([np.nan])}
        )
