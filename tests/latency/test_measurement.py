import dataclasses
import hashlib
import json

import pytest

from latency.measurement import Measurement, settings_of, subject_of
from latency.timing import Timing

TIMING = Timing((0.1, 0.30000000000000004, 1e-9), 7, (0.0, 0.2, 1e-9), (2, 1))
MEASUREMENT = Measurement("ab", "cpu", "cd", TIMING, settings_of({"rounds": 3, "batch": 1, "warm": True, "x": "é"}))


def test_json_gives_back_an_equal_measurement_with_every_sample():
    assert Measurement.from_json(MEASUREMENT.to_json()) == MEASUREMENT
    assert "\n" not in MEASUREMENT.to_json()


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


@pytest.mark.parametrize("change", [{"subject": 1}, {"timing": 3}, {"settings": [1]}, {"timing": {"samples_s": ["x"]}}])
def test_other_json_is_refused(change):
    with pytest.raises(ValueError, match=r"not a measurement|lacks the field"):
        Measurement.from_json(json.dumps(json.loads(MEASUREMENT.to_json()) | change))
    for text in ("", "{", "[]", "3", "null"):
        with pytest.raises(ValueError, match="not a measurement"):
            Measurement.from_json(text)
