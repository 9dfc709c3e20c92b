import json

import pytest

from latency.device import Device, parse_device
from latency.parts import (
    Node,
    Parts,
    PartsEffort,
    ProfilerCost,
    _agree,
    _joined,
    profiler_cost,
    read_profile,
    time_parts,
)
from tests.latency.small_model import model

CPU = parse_device("cpu")


def parts(*nodes):
    """Nodes of so many inputs and microseconds each."""
    return Parts(tuple(Node(f"n{i}", "Conv", inputs, (1e-6 * us,)) for i, (inputs, us) in enumerate(nodes)), calls=60)


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
    found = Parts((Node("/a/Conv", "Conv", 3, (1.5e-6, 7.5e-6)), Node("b", "Relu", 1, (0.5e-6,))), 60)
    again = Parts.of(json.loads(json.dumps(found.plain())))
    assert again.calls == 60 and [(n.name, n.kind, n.inputs) for n in again.nodes] == [
        ("/a/Conv", "Conv", 3),
        ("b", "Relu", 1),
    ]
    for a, b in zip(again.nodes, found.nodes, strict=True):
        assert a.fastest_s == pytest.approx(b.fastest_s)


def event(name, us, kind="Conv", shapes=1):
    args = {"op_name": kind, "input_type_shape": [{"float": [1]}] * shapes}
    head = f'{{"cat" : "Node","pid" :1,"tid" :1,"dur" :{us},"ts" :7,"ph" : "X","name" :"{name}_kernel_time",'
    return f'{head}"args" : {json.dumps(args)}}},'


RUN = '{"cat" : "Session","dur" :5,"ts" :1,"ph" : "X","name" :"model_run","args" : {}},'


def test_a_profile_is_read_in_the_order_in_which_nodes_ran(tmp_path):
    lines = ["[", '{"cat" : "Session","dur" :5,"ts" :1,"ph" : "X","name" :"session_initialization","args" : {}},']
    for us in (12, 10):
        lines += [event("/x/Conv", us, shapes=3), event("Relu_1", us + 1, "Relu"), event("Relu_1", us + 2, "Relu"), RUN]
    (tmp_path / "p.json").write_text("\n".join([*lines, "]"]))
    found = read_profile(tmp_path / "p.json")
    assert found == {
        "/x/Conv": ("Conv", 3, [12, 10]),
        "Relu_1": ("Relu", 1, [13, 11]),
        "Relu_1 #2": ("Relu", 1, [14, 12]),
    }
    assert list(found) == ["/x/Conv", "Relu_1", "Relu_1 #2"] and not list(tmp_path.iterdir())


def test_the_fastest_calls_of_all_sessions_count():
    slow = {"a": ("Conv", 2, [50, 60, 55, 70])}
    fast = {"a": ("Conv", 2, [9, 30, 8, 31])}
    (node,) = _joined([slow, fast], PartsEffort(2, 4, 1, 4)).nodes
    assert node.fastest_s == pytest.approx((8.5e-6, 9.5e-6, 30.5e-6))


def test_sessions_agree_when_two_of_them_left_every_node_alone():
    quiet = {"a": ("Conv", 2, [100, 101, 180]), "b": ("Conv", 2, [50, 51, 99])}
    also = {"a": ("Conv", 2, [101, 102, 103]), "b": ("Conv", 2, [90, 51, 52])}
    busy = {"a": ("Conv", 2, [190, 200, 210]), "b": ("Conv", 2, [51, 52, 99])}
    assert not _agree([quiet]) and not _agree([busy]) and not _agree([quiet, busy])
    assert _agree([quiet, also]) and _agree([busy, quiet, also])


def test_a_model_is_timed_until_its_sessions_agree(monkeypatch):
    answers = iter([100, 200, 101, 55, 56])
    seen = []

    def run(models, *_):
        seen.append(len(models))
        return [{"a": ("Conv", 2, [next(answers)] * 3)} for _ in models]

    monkeypatch.setattr("latency.parts._run", run)
    (found,) = time_parts([b""], CPU, PartsEffort(2, 6, 1, 3))
    assert seen == [1, 1, 1] and found.calls == 9 and found.nodes[0].seconds == pytest.approx(100.5e-6)
    (found,) = time_parts([b""], CPU, PartsEffort(1, 1, 1, 3))
    assert found.calls == 3


def test_a_real_model_is_timed_by_its_nodes():
    (found,) = time_parts([model(8)], CPU, PartsEffort(2, 2, 2, 2))
    kinds = [node.kind for node in found.nodes]
    assert (
        found.calls == 8 and any("Conv" in kind for kind in kinds) and len({n.name for n in found.nodes}) == len(kinds)
    )
    assert all(len(n.fastest_s) == 3 and n.inputs >= 1 and n.seconds > 0 for n in found.nodes)


def test_other_run_times_do_not_tell_parts():
    with pytest.raises(ValueError, match="'cpu:torch' does not run in ONNX Runtime"):
        time_parts([model(8)], Device("cpu:torch", "cpu", 1, "torch"), PartsEffort(1, 1, 1, 1))
