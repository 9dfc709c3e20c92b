import json
from dataclasses import replace
from functools import partial

import pytest

from latency.device import parse_device
from latency.pace import Pace
from latency.parts import (
    Node,
    Parts,
    PartsEffort,
    ProfilerCost,
    profiler_cost,
    time_parts,
    usual_reference_s,
)
from latency.runtimes.onnx_parts import open_parts
from tests.latency.small_model import model

CPU = parse_device("cpu")


def parts(*nodes):
    """Nodes of so many inputs and microseconds each."""
    return Parts(tuple(Node(f"n{i}", "Conv", inputs, (1e-6 * us,)) for i, (inputs, us) in enumerate(nodes)), 60, 2.5)


def test_the_latency_is_the_sum_of_the_nodes_without_what_the_profiler_adds():
    cost = ProfilerCost(node_s=2e-6, input_s=0.5e-6, call_s=10e-6)
    assert parts((3, 20), (2, 30)).seconds(cost) == pytest.approx(50e-6 - 4e-6 - 2.5e-6 + 10e-6)
    assert parts((9, 1)).seconds(ProfilerCost(2e-6, 0.5e-6, 0.0)) > 0


def test_a_node_takes_the_fastest_of_its_times():
    assert Node("a", "Conv", 3, (1e-6, 2e-6, 6e-6)).seconds == 1e-6


def test_the_cost_of_the_profiler_is_found_from_models_timed_both_ways():
    models = [parts(*[(inputs, 20)] * n) for n, inputs in ((4, 2), (10, 3), (20, 9), (7, 5))]
    truth = ProfilerCost(2.2e-6, 0.15e-6, 11e-6)
    found = profiler_cost(models, [m.seconds(truth) for m in models], call_s=11e-6)
    assert (found.node_s, found.input_s, found.call_s) == pytest.approx((2.2e-6, 0.15e-6, 11e-6), rel=1e-6)


def test_the_profiler_never_costs_less_than_nothing():
    models = [parts((2, 20)), parts((3, 20), (3, 20))]
    found = profiler_cost(models, [50e-6, 90e-6], call_s=0.0)
    assert found.node_s >= 0 and found.input_s >= 0


def test_two_models_at_least_tell_the_cost():
    with pytest.raises(ValueError, match="two models timed both ways, got 1 and 1"):
        profiler_cost([parts((2, 20))], [1e-5], 0.0)
    with pytest.raises(ValueError, match="got 2 and 1"):
        profiler_cost([parts((2, 20))] * 2, [1e-5], 0.0)


def test_parts_survive_json():
    found = Parts((Node("/a/Conv", "Conv", 3, (1.5e-6, 7.5e-6)), Node("b", "Relu", 1, (0.5e-6,))), 60, 2.5, 1e-3)
    again = Parts.of(json.loads(json.dumps(found.plain())))
    assert (again.calls, again.free, again.reference_s) == (60, 2.5, 1e-3)
    assert Parts.of(json.loads(json.dumps(replace(found, reference_s=None).plain()))).reference_s is None
    assert [(n.name, n.kind, n.inputs) for n in again.nodes] == [
        ("/a/Conv", "Conv", 3),
        ("b", "Relu", 1),
    ]
    for a, b in zip(again.nodes, found.nodes, strict=True):
        assert a.fastest_s == pytest.approx(b.fastest_s)


class Machine:
    """A clock, and sessions whose calls take their time on it; the core is free now and then."""

    def __init__(self, call_s, free=lambda now: True):
        self.now, self.free, self.turns = 0.0, free, []
        machine = self

        class Session:
            def __init__(self, model):
                self.model, self.calls = model, 0

            def batch_shape(self, batch):
                return (batch, 1)

            def call(self, image):
                def run():
                    self.calls += 1
                    machine.now += call_s[self.model]
                    if not machine.turns or machine.turns[-1] != self.model:
                        machine.turns.append(self.model)

                return run

            def end(self):
                return [("a", "Conv", 2, [call_s[self.model]] * self.calls)] if call_s[self.model] else []

        self.open = Session

    def wall(self):
        return self.now

    def pace(self):
        machine = self

        class Looks(Pace):
            def is_disturbed(self):
                machine.now += 5e-5
                self._best_s = 5e-5
                return not machine.free(machine.now)

        return Looks(machine)


def timed(machine, models, effort, references=()):
    opened, beside = ([lambda _, name=name: machine.open(name) for name in each] for each in (models, references))
    return time_parts(opened, 1, effort, beside, machine.pace(), machine)


def test_a_model_is_timed_until_it_was_left_alone_for_some_turns():
    machine = Machine({"a": 0.01, "b": 0.02})
    a, b = timed(machine, ["a", "b"], PartsEffort(free=3, calls=6, seconds=9))
    assert a.calls == b.calls == 18 and a.free == b.free == 3
    assert machine.turns == ["a", "b"] * 4  # once to warm up


def test_a_short_model_has_more_calls_in_a_turn():
    machine = Machine({"a": 0.001})
    (found,) = timed(machine, ["a"], PartsEffort(free=2, calls=6, seconds=9))
    assert 50 <= found.calls <= 60 and found.free == 2


def test_who_was_left_alone_least_is_next():
    machine = Machine({"a": 0.01, "b": 0.01})
    machine.free = lambda now: now > 2.5 or (machine.turns and machine.turns[-1] == "a")  # beside b somebody else works
    a, b = timed(machine, ["a", "b"], PartsEffort(free=4, calls=6, seconds=9))
    assert a.calls <= 30 and b.calls > 60 and 4 <= min(a.free, b.free) <= max(a.free, b.free) < 5


def test_when_the_time_is_over_each_has_had_a_turn():
    machine = Machine({"a": 0.5, "b": 0.5}, free=lambda now: False)
    a, b = timed(machine, ["a", "b"], PartsEffort(free=2, calls=6, seconds=0))
    assert a.calls == b.calls == 6 and a.free == b.free == 0


def test_references_tell_the_minute():
    machine = Machine({"a": 0.01, "r": 0.02, "s": 0.03})
    (found,) = timed(machine, ["a"], PartsEffort(free=1, calls=6, seconds=9), ["r", "s"])
    assert found.reference_s == pytest.approx(0.05, abs=2e-6) and found.profiled_s == pytest.approx(0.01, abs=1e-6)
    (found,) = timed(machine, ["a"], PartsEffort(free=1, calls=6, seconds=9))
    assert found.reference_s is None


def test_a_real_model_is_timed_by_its_nodes():
    (found,) = time_parts(
        [partial(open_parts, model(8), CPU)], 1, PartsEffort(0, 4, 1), [partial(open_parts, model(1), CPU)]
    )
    kinds = [node.kind for node in found.nodes]
    assert found.calls >= 4 and any("Conv" in kind for kind in kinds)
    assert len({n.name for n in found.nodes}) == len(kinds) and found.reference_s > 0
    assert all(len(n.fastest_s) == 3 and n.inputs >= 1 and n.seconds > 0 for n in found.nodes)


def test_a_model_that_is_never_left_alone_has_so_many_turns():
    machine = Machine({"a": 0.01}, free=lambda now: False)
    (found,) = timed(machine, ["a"], PartsEffort(free=2, calls=6, seconds=1e9))
    assert found.calls == 25 * 6 and found.hardly_known


def test_a_profile_without_nodes_is_an_error():
    machine = Machine({"a": 0.0})
    with pytest.raises(ValueError, match="profiler wrote is not understood"):
        timed(machine, ["a"], PartsEffort(free=1, calls=6, seconds=9))


def test_minutes_are_told_apart_by_their_references():
    minutes = [replace(parts((2, 20)), reference_s=t) for t in (1.0, 1.2, 0.9)]
    assert usual_reference_s(minutes) == 1.0 and minutes[1].slower(1.0) == 1.2
    assert usual_reference_s([parts((2, 20))]) is None and parts((2, 20)).slower(1.0) == minutes[0].slower(None) == 1.0
