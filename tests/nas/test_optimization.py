import math
import os
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import optuna
import pytest

import nas
from nas.errors import CannotBeDone
from nas.loop import TooManyFailures
from nas.searchers.random_search import RandomSearch

OPTIONS = ("none", "skip", "pool", "conv1", "conv3")
SPACE = nas.SearchSpace("cells", [nas.Choice(f"edge{i}", OPTIONS) for i in range(5)])
BOTH = (nas.maximize("accuracy"), nas.minimize("latency_s"))


def values(arch):
    weights = [OPTIONS.index(arch[f"edge{i}"]) for i in range(5)]
    return {
        "accuracy": 1 - math.prod(1 - 0.15 * w / (i + 1) for i, w in enumerate(weights)),
        "latency_s": 1e-3 * (1 + sum(w**1.5 for w in weights)),
    }


def evaluate(archs):
    return [values(arch) for arch in archs]


def dies_at_zero(archs):
    """The process ends at the first of some architectures."""
    if archs[0]["edge0"] == "conv3" and archs[0]["edge1"] == "conv3":
        os._exit(1)
    return evaluate(archs)


def counting():
    """`evaluate`, and a list of what it is asked about."""
    calls = []

    def counted(archs):
        calls.extend(archs)
        return evaluate(archs)

    return counted, calls


def optimize(function=evaluate, objectives=BOTH, budget=30, **more):
    return nas.optimize(SPACE, function, objectives, budget=budget, **more)


def test_evaluations_come_in_the_order_asked_with_values_by_name():
    seen = []

    def watched(archs):
        seen.extend(archs)
        return evaluate(archs)

    result = optimize(watched)
    assert len(result.evaluations) == 30 and not result.failures
    assert [dict(e.arch.assignment) for e in result.evaluations] == seen
    for e in result.evaluations:
        assert e.values == values(e.arch) and e.costs == (-e.values["accuracy"], e.values["latency_s"])
        assert e.provenance == "evaluated"
    costs = [e.costs for e in result.evaluations]
    expected = {c for c in costs if not any(o != c and o[0] <= c[0] and o[1] <= c[1] for o in costs)}
    assert {e.costs for e in result.front} == expected


def test_the_same_seed_gives_the_same_and_another_one_another():
    assert optimize(seed=1).evaluations == optimize(seed=1).evaluations != optimize(seed=2).evaluations


@pytest.mark.parametrize("searcher", ["random", "nsga2", "local", "evolution"])
def test_other_searchers_are_taken_by_name(searcher):
    assert len(optimize(searcher=searcher).evaluations) == 30


def test_one_objective_and_a_constraint():
    result = optimize(objectives=[nas.maximize("accuracy")], budget=60, constraints={"latency_s": 0.012})
    best = max(
        values(arch.assignment)["accuracy"]
        for arch in SPACE.enumerate()
        if values(arch.assignment)["latency_s"] <= 0.012
    )
    assert [e.values["accuracy"] for e in result.front] == pytest.approx([best], rel=0.02)
    assert all(e.values["latency_s"] <= 0.012 for e in result.front)


def test_a_limit_of_what_is_maximised_is_the_least():
    result = optimize(constraints={"accuracy": 0.6})
    assert result.front and min(e.values["accuracy"] for e in result.front) >= 0.6


def only(archs, only=("accuracy", "latency_s")):
    return [{name: values(arch)[name] for name in only} for arch in archs]


def slow_part_alone(archs):
    return [{"accuracy": values(arch)["accuracy"]} for arch in archs]


def column(archs):
    return [values(arch)["latency_s"] for arch in archs]


@pytest.mark.parametrize(
    ("function", "cheap"),
    [(evaluate, ("latency_s",)), (only, ["latency_s"]), (slow_part_alone, {"latency_s": column})],
)
def test_cheap_metrics_are_asked_in_each_way(function, cheap):
    result = optimize(function, budget=20, cheap=cheap)
    assert result.evaluations == optimize(budget=20, cheap={"latency_s": column}).evaluations
    assert result.evaluations != optimize(budget=20).evaluations
    assert all(e.values == values(e.arch) for e in result.evaluations)


def test_with_only_the_rest_is_evaluated_for_the_budget_alone():
    whole = []

    def counted(archs, only=None):
        whole.extend(archs if only is None else [])
        return evaluate(archs)

    optimize(counted, cheap=("latency_s",))
    assert len(whole) == 30


def test_failures_are_recorded_and_the_search_goes_on():
    def fragile(archs):
        if any(arch["edge0"] == "none" for arch in archs):
            raise KeyError("not in the table")
        return [
            None if a["edge1"] == "none" else {**values(a), **({"accuracy": math.nan} if a["edge2"] == "none" else {})}
            for a in archs
        ]

    result = optimize(fragile, searcher="random")
    assert len(result.evaluations) + len(result.failures) == 30
    reasons = {arch["edge0"] == "none": reason for arch, reason in result.failures.items()}
    assert "not in the table" in reasons[True]
    for arch, reason in result.failures.items():
        assert (arch["edge0"] == "none") == ("KeyError" in reason)
        assert "none" in (arch["edge0"], arch["edge1"], arch["edge2"])
    assert len(optimize(fragile).evaluations) >= 15


def test_ten_failures_in_a_row_stop_it_and_fewer_that_are_all_are_an_error():
    with pytest.raises(TooManyFailures, match=r"the last 10 evaluations failed; of edge0=.*: metric 'accuracy'"):
        optimize(lambda archs: [{"latency_s": 1.0} for _ in archs])
    with pytest.raises(CannotBeDone, match=r"none of 3 evaluations succeeded; the last, of .*: ValueError: no"):
        optimize(lambda archs: (_ for _ in ()).throw(ValueError("no")), budget=3)


@pytest.mark.parametrize("pool", [ThreadPoolExecutor, ProcessPoolExecutor])
def test_an_executor_gives_the_same(pool):
    with pool(2) as executor:
        assert optimize(executor=executor).evaluations == optimize().evaluations


def test_what_a_storage_holds_is_not_evaluated_again():
    storage, (counted, calls) = optuna.storages.InMemoryStorage(), counting()
    before = optimize(counted, budget=20, storage=storage).evaluations
    after = optimize(counted, budget=20, storage=storage, batch=5).evaluations
    assert before == after and len(calls) == 20
    assert [t.values for t in optuna.load_study(study_name="optimize", storage=storage).trials] == [
        [e.values["accuracy"], e.values["latency_s"]] for e in before
    ]


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        ({"objectives": nas.maximize("accuracy")}, TypeError, "objectives is a list"),
        ({"objectives": ["accuracy"]}, TypeError, r"list of nas.maximize\(name\).*got \['accuracy'\]"),
        ({"objectives": []}, ValueError, "objectives, got none"),
        ({"objectives": [nas.maximize("a"), nas.minimize("a")]}, ValueError, "different objectives, got a, a"),
        ({"budget": 0}, ValueError, "budget must be at least 1, got 0"),
        ({"budget": 2.5}, TypeError, "budget is a whole number, got 2.5"),
        ({"batch": 0}, ValueError, "batch must be at least 1"),
        ({"constraints": {"latency_s": "10ms"}}, TypeError, r"constraints\['latency_s'\] is a number, got '10ms'"),
        ({"constraints": {"latency_s": math.nan}}, ValueError, "must be finite"),
        ({"cheap": "latency_s"}, TypeError, r"write \('latency_s',\)"),
        ({"cheap": ("size",)}, ValueError, "cheap names 'size', which is no objective"),
        ({"cheap": None}, TypeError, "cheap is a tuple of names or a dict of functions, got None"),
        ({"cheap": {"latency_s": {}}}, TypeError, r"cheap\['latency_s'\] is a function"),
        ({"cheap": {"latency_s": lambda archs: 0.5}}, TypeError, "one number for each of 3, got 0.5"),
        ({"constraints": [("latency_s", 0.1)]}, TypeError, "constraints is a dict"),
        ({"objectives": (o for o in BOTH)}, TypeError, "objectives is a list"),
        ({"executor": 5}, TypeError, "executor is a concurrent.futures.Executor, got 5"),
        ({"storage": "foo.log"}, TypeError, "storage is an Optuna storage.*got 'foo.log'"),
        ({"on_evaluation": None}, TypeError, "on_evaluation is a function"),
        ({"searcher": 42}, TypeError, "searcher is a name or an object"),
        ({"searcher": RandomSearch}, TypeError, "searcher is a name or an object"),
        ({"searcher": "lina"}, ValueError, "did you mean 'linas'"),
        ({"searcher": "ga"}, ValueError, "cannot weigh 2 objectives"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_before_anything_is_evaluated(more, error, message):
    def never(archs):
        pytest.fail("evaluated")

    with pytest.raises(error, match=message):
        optimize(**{"function": never, **more})


def test_a_wrong_number_of_results_is_an_error_at_once():
    with pytest.raises(TypeError, match="one dict for each of 5 architectures, got 1 results"):
        optimize(lambda archs: evaluate(archs)[:1])
    with pytest.raises(TypeError, match="got a dict"):
        optimize(lambda archs: values(archs[0]))


def test_results_that_are_no_dicts_are_an_error_at_once():
    with pytest.raises(TypeError, match=r"a dict \(or None\) for each architecture, got 0.5"):
        optimize(lambda archs: [0.5 for _ in archs])


def test_a_metric_that_is_called_cheap_and_not_given_is_an_error():
    with pytest.raises(ValueError, match="cheap names 'latency_s', which evaluate does not give; it gives accuracy"):
        optimize(lambda archs: [{"accuracy": 1.0} for _ in archs], cheap=("latency_s",))


def test_a_refused_call_leaves_no_study():
    storage = optuna.storages.InMemoryStorage()
    for searcher in ("ga", "lina"):
        with pytest.raises(ValueError, match=r"searcher|ga"):
            optimize(searcher=searcher, storage=storage)
    assert optuna.get_all_study_names(storage) == []


def test_where_large_architectures_fail_the_search_goes_on_among_the_others():
    space = nas.SearchSpace("sizes", [nas.Choice(f"c{i}", (1, 2, 3, 4)) for i in range(6)])
    for limit in (14, 18):
        calls = []

        def bounded(archs, limit=limit, calls=calls):
            calls.extend(archs)
            sums = [sum(arch.values()) for arch in archs]
            return [{"a": float(s)} if s <= limit else None for s in sums]

        result = nas.optimize(space, bounded, [nas.maximize("a")], budget=60)
        assert result.stopped is None and len(calls) == 60
        assert result.front[0].values["a"] == limit


def test_random_architectures_keep_to_what_is_known_of_the_bounds():
    limit = sorted(values(a.assignment)["latency_s"] for a in SPACE.enumerate())[8]
    result = optimize(budget=20, cheap=("latency_s",), constraints={"latency_s": limit})
    kept = [e.violation == 0 for e in result.evaluations]
    assert kept[:5] == [True] * 5 and sum(kept) >= 9


def test_what_was_found_before_a_worker_died_is_kept():
    with ProcessPoolExecutor(1) as pool:
        result = optimize(dies_at_zero, budget=40, executor=pool)
    assert "worker died" in result.stopped and 0 < len(result.evaluations) < 40


def test_optunas_own_verbosity_is_left_alone():
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.INFO)
    try:
        optimize(budget=4)
        assert optuna.logging.get_verbosity() == optuna.logging.INFO
    finally:
        optuna.logging.set_verbosity(before)


def test_a_slow_function_cannot_be_asked_about_every_candidate(monkeypatch):
    monkeypatch.setattr("nas.cheap._LONG_S", 0.0)
    with pytest.raises(ValueError, match=r"about 3,125 candidates.*argument `only`"):
        optimize(cheap=("latency_s",))


def test_a_table_that_is_slow_to_begin_with_is_asked_about_many_at_once(monkeypatch):
    def slow(archs):
        time.sleep(0.02)
        return evaluate(archs)

    monkeypatch.setattr("nas.cheap._LONG_S", 5.0)
    assert len(optimize(slow, cheap=("latency_s",), budget=8).evaluations) == 8


def test_a_small_space_of_many_conditional_choices_is_walked():
    first = nas.Choice("op", tuple(range(12)))
    inner = [nas.Choice(f"c{i}", tuple(range(6)), when=first.among(i)) for i in range(12)]
    space = nas.SearchSpace("wide", [first, *inner])
    result = nas.optimize(
        space,
        lambda archs: [{"a": sum(v for v in a.values())} for a in archs],
        [nas.maximize("a")],
        budget=100,
    )
    assert len(result.evaluations) == space.size == 72
    assert [e.values["a"] for e in result.front] == [16]


@pytest.mark.parametrize("budget", [1, 2, 3])
def test_tiny_budgets_and_three_objectives(budget):
    three = [*BOTH, nas.minimize("third")]
    result = optimize(lambda archs: [{**values(a), "third": 1.0, "name": "x"} for a in archs], three, budget)
    assert len(result.evaluations) == budget and set(result.evaluations[0].values) == {"accuracy", "latency_s", "third"}


def test_a_larger_budget_goes_on_where_the_smaller_one_ended():
    storage, (counted, calls) = optuna.storages.InMemoryStorage(), counting()
    before = optimize(counted, budget=20, storage=storage).evaluations
    after = optimize(counted, budget=40, storage=storage).evaluations
    assert after[:20] == before and len(calls) == 40


def test_what_was_found_before_ten_failures_in_a_row_is_kept():
    def dies(archs):
        if len(calls) >= 20:
            raise OSError("no device")
        calls.extend(archs)
        return evaluate(archs)

    calls = []
    result = optimize(dies, budget=60)
    assert len(result.evaluations) == 20 and len(result.failures) == 10
    assert "OSError" not in result.stopped and "no device" in result.stopped


def test_a_cheap_function_that_never_works_is_an_error():
    def broken(archs):
        raise KeyError("latency_ms")

    with pytest.raises(ValueError, match=r"none of 3\d+ architectures has the cheap metrics latency_s.*latency_ms"):
        optimize(cheap={"latency_s": broken})
    with pytest.raises(TypeError, match=r"cheap\['latency_s'\] must give one number for each of 3, got 9"):
        optimize(cheap={"latency_s": lambda archs: [1.0] * 9})


def test_what_is_not_cheap_for_some_is_not_evaluated():
    def some(archs):
        return [math.nan if a["edge0"] == "skip" else values(a)["latency_s"] for a in archs]

    result = optimize(cheap={"latency_s": some}, budget=40)
    assert all(e.arch["edge0"] != "skip" for e in result.evaluations[10:])


def test_a_late_architecture_without_a_cheap_metric_is_one_failure():
    def some(archs):
        return [math.nan if a["edge0"] == "skip" else values(a)["latency_s"] for a in archs]

    result = optimize(slow_part_alone, budget=160, searcher="random", cheap={"latency_s": some})
    assert len(result.evaluations) + len(result.failures) == 160 and len(result.failures) > 10


def test_numbers_of_other_libraries_are_numbers():
    def of_arrays(archs):
        return [
            {"accuracy": np.array(values(a)["accuracy"]), "latency_s": np.float32(1.0), "note": "1.5"} for a in archs
        ]

    result = optimize(of_arrays, budget=5)
    assert [type(v) for e in result.evaluations for v in e.values.values()] == [float] * 10


def test_a_function_that_cannot_be_sent_or_called_is_refused():
    with ProcessPoolExecutor(1) as executor, pytest.raises(TypeError, match="cannot be sent to another process"):
        optimize(lambda archs: evaluate(archs), executor=executor)
    with pytest.raises(TypeError, match="evaluate is a function"):
        optimize(None)
    with ThreadPoolExecutor(1) as executor, pytest.raises(TypeError, match="one dict for each of 1 architectures"):
        optimize(lambda archs: [], executor=executor)
