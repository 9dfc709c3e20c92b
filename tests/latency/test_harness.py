import dataclasses

import pytest
from small_model import model

from latency.contention import Contention
from latency.device import at_batch, fingerprint, parse_device, usable_cores
from latency.harness import (
    AT_ONCE,
    CAREFUL,
    QUICK,
    Effort,
    compare_models,
    grouped,
    measure_beside,
    measure_models,
    measure_parts,
)
from latency.measurement import subject_of
from latency.parts import Node, Parts, PartsEffort
from latency.store import MeasurementStore
from latency.timing import Timing
from latency.worker import Worker

CPU = parse_device("cpu")
EFFORT = Effort(rounds=2, most_rounds=2, samples=3, sample_s=1e-5)


@pytest.fixture
def store(tmp_path):
    with MeasurementStore(tmp_path / "store") as opened:
        yield opened


@pytest.fixture(autouse=True)
def sure(request, monkeypatch):
    """Nothing is doubtful, whatever else the machine does, but where that is the subject."""
    if "doubtful" not in request.node.name:
        monkeypatch.setattr(Timing, "doubtful", property(lambda timing: False))


@pytest.fixture
def asked(monkeypatch):
    """The models of each request to the process that measures."""
    requests = []

    def spied(self, models, device, effort, on_round, original=Worker.measure):
        requests.append(list(models))
        return original(self, models, device, effort, on_round)

    monkeypatch.setattr(Worker, "measure", spied)
    return requests


def test_measurements_come_in_the_order_of_the_models():
    a, b = model(2), model(3)
    measured = measure_models([a, b, a], CPU, EFFORT)
    assert [m.subject for m in measured] == [subject_of(a), subject_of(b), subject_of(a)] and measured[0] is measured[2]
    for m in measured:
        assert m.timing.groups[:2] == (3, 3) and len(m.timing.samples_s) == sum(m.timing.groups)
        assert m.device == "cpu" and m.fingerprint == fingerprint(CPU)
        assert dict(m.settings) == {
            "batch": 1,
            "method": 4,
            "rounds": 2,
            "most_rounds": 2,
            "samples": 3,
            "sample_s": 1e-5,
        }


def test_what_the_store_has_is_not_measured_again(store, asked):
    a, b = model(2), model(3)
    first = measure_models([a], CPU, EFFORT, store)
    both = measure_models([b, a], CPU, EFFORT, store)
    assert asked == [[a], [b]] and both[1] == first[0]
    assert measure_models([a, b], CPU, EFFORT, store) == both[::-1] and len(asked) == 2


def test_what_is_to_be_measured_again_is_once(tmp_path, asked):
    a = model(2)
    for remeasure in (False, True):
        with MeasurementStore(tmp_path / "store", remeasure=remeasure) as store:
            first = measure_models([a], CPU, EFFORT, store)
            assert measure_models([a], CPU, EFFORT, store) == first
    assert asked == [[a]] * 2


def test_what_is_doubtful_is_measured_when_it_is_asked_for_again(store, asked):
    a = model(2)
    (found,) = measure_models([a], CPU, EFFORT, store)
    n = len(found.samples_s)
    sure = dataclasses.replace(found.timing, quiet=(True,) * n, samples_s=(1e-9,) * n)
    doubtful = dataclasses.replace(sure, quiet=(False,) * n)
    store.put(dataclasses.replace(found, timing=sure))
    measure_models([a], CPU, EFFORT, store)
    assert len(asked) == 1
    store.put(dataclasses.replace(found, timing=doubtful))
    assert measure_models([a], CPU, EFFORT, store)[0].timing == doubtful and len(asked) == 2  # the faster one stays
    store.put(dataclasses.replace(found, timing=dataclasses.replace(doubtful, samples_s=(9.0,) * n)))
    assert measure_models([a], CPU, EFFORT, store)[0].median_s < 1


def test_a_batch_is_another_measurement(store, asked):
    a = model(2)
    one, four = (measure_models([a], at_batch(CPU, batch), EFFORT, store)[0] for batch in (1, 4))
    assert len(asked) == 2 and (one.batch, four.batch) == (1, 4) and four.throughput == 4 / four.median_s
    assert one.contention is not None and one.contention.seconds > 0
    with pytest.raises(ValueError, match="batch must be a whole number from 1 to 65536"):
        at_batch(CPU, 0)


def test_a_comparison_times_the_first_twice(asked):
    a, b = model(1), model(512)
    found = compare_models(a, b, CPU, dataclasses.replace(EFFORT, samples=20))
    assert asked == [[a, a, b]] and found.ratio > 1 and found.contention is not None
    assert found.a.groups[:2] == found.control.groups[:2] == found.b.groups[:2] == (20, 20)


def test_another_effort_or_device_is_another_measurement(store, asked):
    a = model(2)
    measure_models([a], CPU, EFFORT, store)
    measure_models([a], CPU, dataclasses.replace(EFFORT, samples=4), store)
    if usable_cores() > 1:
        measure_models([a], parse_device("cpu:threads=2"), EFFORT, store)
        assert len(asked) == 3
    assert QUICK.rounds < CAREFUL.rounds


def test_a_model_that_does_not_load_is_refused_and_nothing_stored(store):
    a = model(2)
    with pytest.raises(ValueError, match="cannot open"):
        measure_models([a, b"junk"], CPU, EFFORT, store)
    settings = measure_models([a], CPU, EFFORT)[0].settings
    assert store.get(subject_of(a), fingerprint(CPU), settings) is None


BATCH = parse_device("cpu:batch=2")


def test_models_are_timed_on_two_devices_side_by_side_and_kept_so(store, monkeypatch):
    requests = []

    def spied(self, models, device, effort, on_round, beside, original=Worker.measure):
        requests.append((list(models), device.name, beside.name))
        return original(self, models, device, effort, on_round, beside)

    monkeypatch.setattr(Worker, "measure", spied)
    a, b = model(2), model(3)
    found = measure_beside([a, b], CPU, BATCH, EFFORT, store)
    assert requests == [([a, b], "cpu", "cpu:batch=2")]
    assert [[m.subject for m in pair] for pair in found] == [[subject_of(a)] * 2, [subject_of(b)] * 2]
    assert [(m.device, m.fingerprint, dict(m.settings)["beside"]) for m in found[0]] == [
        ("cpu", fingerprint(CPU), "cpu:batch=2"),
        ("cpu:batch=2", fingerprint(BATCH), "cpu"),
    ]
    assert measure_beside([b, a], CPU, BATCH, EFFORT, store) == found[::-1] and len(requests) == 1
    assert measure_beside([], CPU, BATCH, EFFORT, store) == []


def test_a_doubtful_half_of_a_pair_has_both_timed_again(store, monkeypatch):
    ((here, there),) = measure_beside([model(2)], CPU, BATCH, EFFORT, store)
    n = len(there.samples_s)
    worse = dataclasses.replace(there.timing, quiet=(False,) * n, samples_s=(9.0,) * n)
    store.put(dataclasses.replace(there, timing=worse))
    ((again, beside),) = measure_beside([model(2)], CPU, BATCH, EFFORT, store)
    assert again.timing != here.timing and beside.median_s < 1


def test_no_models_no_measurements(store):
    assert measure_models([], CPU, EFFORT, store) == []


# -- by parts ----------------------------------------------------------------------------------------


@pytest.fixture
def timed(monkeypatch):
    """The models and references of each request, which are left alone for as many turns as the test says next."""
    requests, free = [], []

    def answer(self, models, device, effort, references=()):
        requests.append((list(models), list(references)))
        turns = free.pop(0)
        nodes = (Node("a", "Conv", 2, (1e-6 * len(requests) + 0.5e-6,)),)
        return [Parts(nodes, 6, turns, 1e-3) for _ in models], Contention.together([])

    monkeypatch.setattr(Worker, "parts", answer)
    return requests, free


def test_what_was_left_alone_for_long_enough_is_not_timed_again(store, timed):
    requests, free = timed
    free += [2.5, 2.5]
    effort = PartsEffort(free=2, calls=6, seconds=1)
    (first,) = measure_parts([model(2)], CPU, effort, store, references=[model(9)])
    found = measure_parts([model(2), model(3)], CPU, effort, store, references=[model(9)])
    assert found[0].plain() == first.plain() and requests == [([model(2)], [model(9)]), ([model(3)], [model(9)])]


def test_other_references_are_another_measurement(store, timed):
    requests, free = timed
    free += [2.5, 2.5]
    for references in ([], [model(9)]):
        measure_parts([model(2)], CPU, PartsEffort(free=2, calls=6, seconds=1), store, references=references)
    assert len(requests) == 2


def test_of_what_was_hardly_left_alone_the_better_is_kept(store, timed):
    requests, free = timed
    free += [0.5, 0.2, 1.5]
    seen = [measure_parts([model(2)], CPU, PartsEffort(free=2, calls=6, seconds=1), store)[0].free for _ in range(4)]
    assert seen == [0.5, 0.5, 1.5, 1.5] and len(requests) == 3


def test_groups_are_of_some_models_and_of_few_large_ones():
    many = [(i, b"x") for i in range(2 * AT_ONCE + 1)]
    assert [len(group) for group in grouped(many)] == [AT_ONCE, AT_ONCE, 1] and not list(grouped([]))
    large = [(i, bytes(100 * 2**20)) for i in range(3)]
    assert [[i for i, _ in group] for group in grouped(large)] == [[0, 1], [2]]
