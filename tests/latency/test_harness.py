import dataclasses
import os

import pytest
from small_model import model

from latency.device import fingerprint, parse_device
from latency.harness import CAREFUL, QUICK, Effort, measure_models
from latency.measurement import subject_of
from latency.store import MeasurementStore
from latency.worker import Worker

CPU = parse_device("cpu")
EFFORT = Effort(rounds=2, most_rounds=2, samples=3, sample_s=1e-5)


@pytest.fixture
def store(tmp_path):
    with MeasurementStore(tmp_path / "store") as opened:
        yield opened


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
        assert m.timing.groups == (3, 3) and len(m.timing.samples_s) == 6
        assert m.device == "cpu" and m.fingerprint == fingerprint(CPU)
        assert dict(m.settings) == {
            "batch": 1,
            "method": 3,
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


def test_another_effort_or_device_is_another_measurement(store, asked):
    a = model(2)
    measure_models([a], CPU, EFFORT, store)
    measure_models([a], CPU, dataclasses.replace(EFFORT, samples=4), store)
    if parse_device("cpu").threads < (os.cpu_count() or 1):
        measure_models([a], parse_device("cpu:threads=2"), EFFORT, store)
        assert len(asked) == 3
    assert QUICK.rounds < CAREFUL.rounds


def test_a_model_that_does_not_load_is_refused_and_nothing_stored(store):
    a = model(2)
    with pytest.raises(ValueError, match="cannot open"):
        measure_models([a, b"junk"], CPU, EFFORT, store)
    settings = measure_models([a], CPU, EFFORT)[0].settings
    assert store.get(subject_of(a), fingerprint(CPU), settings) is None


def test_no_models_no_measurements(store):
    assert measure_models([], CPU, EFFORT, store) == []
