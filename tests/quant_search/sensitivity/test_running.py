from dataclasses import replace

import numpy as np
import pytest

from latency.device import parse_device
from latency.runtimes.onnx_runtime import open_session
from quant_search.ranges import activation_ranges
from quant_search.realise import in_precisions
from quant_search.sensitivity.running import by_running
from quant_search.sensitivity.subject import Subject, by_layer
from tests.quant_search.small_digits import digits, trained

X = digits()[0][:100]
GROUPS = by_layer(trained())
SUBJECT = Subject(trained(), GROUPS, ("fp32", "int8", "w3a8"), X)


def difference(outputs, fp32):
    return float(np.abs(outputs - fp32).mean())


def run(file):
    return open_session(file.SerializeToString(), parse_device("cpu")).run(X)


def outputs_of(chosen):
    return run(in_precisions(trained(), GROUPS, chosen, activation_ranges(trained(), X)))


def test_damage_is_taken_on_the_file_of_one_group():
    found = by_running("difference", SUBJECT, difference)
    fp32 = outputs_of({})
    assert found.measure == "difference" and found.seconds > 0 and found.error is None
    for group in list(GROUPS)[:2]:
        assert found.of(group, "fp32") == 0
        assert found.of(group, "w3a8") == pytest.approx(difference(outputs_of({group: "w3a8"}), fp32), rel=1e-6)


def test_all_but_one_is_what_a_group_wins_by_staying_in_fp32():
    found = by_running("difference", SUBJECT, difference, "all-but-one")
    fp32, every = outputs_of({}), dict.fromkeys(GROUPS, "w3a8")
    group = "/block.3/Conv"
    rest = {name: "w3a8" for name in GROUPS if name != group}
    expected = difference(outputs_of(every), fp32) - difference(outputs_of(rest), fp32)
    assert found.of(group, "w3a8") == pytest.approx(expected, rel=1e-5)
    assert not found.damage[:, 0].any()


def test_ranges_and_outputs_in_fp32_are_taken_once(monkeypatch):
    calls = {"activation_ranges": 0, "open_session": 0}
    module = "quant_search.sensitivity.running"

    def counted(name, function):
        def call(*arguments, **settings):
            calls[name] += 1
            return function(*arguments, **settings)

        monkeypatch.setattr(f"{module}.{name}", call)

    counted("activation_ranges", activation_ranges)
    counted("open_session", open_session)
    steps = []
    by_running("difference", SUBJECT, difference, progress=lambda done, total: steps.append((done, total)))
    assert calls == {"activation_ranges": 1, "open_session": 1 + 2 * len(GROUPS)}
    assert steps == [(i + 1, 3 * len(GROUPS)) for i in range(3 * len(GROUPS))]


def test_damage_is_that_of_the_files_that_the_subject_builds():
    group, built = next(iter(GROUPS)), []
    narrow = activation_ranges(trained(), X[:3])

    def build(chosen):
        built.append(dict(chosen))
        return in_precisions(trained(), GROUPS, chosen, narrow)

    own = replace(SUBJECT, groups={group: GROUPS[group]}, options=("fp32", "int8"), build=build)
    found = by_running("difference", own, difference)
    file = in_precisions(trained(), GROUPS, {group: "int8"}, narrow)
    assert built == [{group: "int8"}]
    assert found.of(group, "int8") == pytest.approx(difference(run(file), outputs_of({})), rel=1e-6)
    assert found.of(group, "int8") != pytest.approx(difference(outputs_of({group: "int8"}), outputs_of({})), rel=1e-2)


def test_another_direction_is_refused():
    with pytest.raises(ValueError, match="direction is 'one' or 'all-but-one', got 'both'"):
        by_running("difference", SUBJECT, difference, "both")
