import dataclasses
import hashlib
import json

import pytest

from latency.contention import Contention
from latency.measurement import Measurement, settings_of, subject_of
from latency.timing import Timing

TIMING = Timing((0.1, 0.30000000000000004, 1e-9), 7, (0.0, 0.2, 1e-9), (2, 1))
SETTINGS = settings_of({"rounds": 3, "batch": 4, "warm": True, "x": "é"})
CONTENTION = Contention(1.5, 0.7, None, 0.1, 0.0)
MEASUREMENT = Measurement("ab", "cpu", "cd", TIMING, SETTINGS, CONTENTION)


def test_json_gives_back_an_equal_measurement_with_every_sample():
    assert Measurement.from_json(MEASUREMENT.to_json()) == MEASUREMENT
    assert "\n" not in MEASUREMENT.to_json()


def test_one_that_nobody_watched_comes_back_too():
    unwatched = dataclasses.replace(MEASUREMENT, contention=None)
    assert Measurement.from_json(unwatched.to_json()) == unwatched and unwatched.warnings == ()


def test_what_is_reported_is_of_undisturbed_samples_and_tails_of_all():
    samples = (1.0, 1.0, 1.0, 1.05, 4.0, 1.1, 9.0, 1.0, 1.0, 1.0)
    m = Measurement("ab", "cpu", "cd", Timing(samples, 1, (0.5,) * 10, (5, 5), (True,) * 10), SETTINGS, CONTENTION)
    assert m.median_s == 1.0 and m.cpu_median_s == 0.5 and m.throughput == 4.0 and m.batch == 4
    assert m.samples_s == samples and m.undisturbed_share == 0.8 and m.quiet_rounds == 2
    assert m.p10_s == 1.0 and m.p90_s == pytest.approx(4.5) and m.p99_s == pytest.approx(8.55)
    assert m.ci95_s[0] <= 1.0 <= m.ci95_s[1]
    assert m.warnings == (CONTENTION.warning,) and "0.7 other cores" in m.warnings[0]
    lonely = dataclasses.replace(m, timing=dataclasses.replace(m.timing, quiet=(False,) * 10), contention=None)
    assert len(lonely.warnings) == 1 and "may be too high" in lonely.warnings[0]
    plain = m.plain()
    assert plain["ci95_s"] == list(m.ci95_s) and plain["contention"] == CONTENTION.plain()
    assert json.loads(json.dumps(plain)) == plain and not {"samples_s", "timing"} & plain.keys()


def test_settings_are_sorted_and_the_subject_is_the_digest():
    assert settings_of({"b": 1, "a": 2}) == (("a", 2), ("b", 1)) == settings_of({"a": 2, "b": 1})
    assert subject_of(b"model") == hashlib.sha256(b"model").hexdigest()


def without(name):
    record = json.loads(MEASUREMENT.to_json())
    del record[name]
    return json.dumps(record)


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Measurement)])
def test_a_missing_field_is_named(name):
    with pytest.raises(ValueError, match=f"lacks the field '{name}'"):
        Measurement.from_json(without(name))


@pytest.mark.parametrize(
    "change", [{"subject": 1}, {"timing": 3}, {"settings": [1]}, {"contention": {}}, {"timing": {"samples_s": ["x"]}}]
)
def test_other_json_is_refused(change):
    with pytest.raises(ValueError, match=r"not a measurement|lacks the field"):
        Measurement.from_json(json.dumps(json.loads(MEASUREMENT.to_json()) | change))
    for text in ("", "{", "[]", "3", "null"):
        with pytest.raises(ValueError, match="not a measurement"):
            Measurement.from_json(text)
