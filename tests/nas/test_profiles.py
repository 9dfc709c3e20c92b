import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest

import nas
from latency.harness import AT_ONCE
from latency.parts import Node, Parts, PartsEffort
from latency.timing import Timing
from nas import profiles, profiling
from nas.cli import _run
from nas.device_profile import _profiler_cost, fit_profile
from nas.profile_data import ProfileData, Subject, read_profile
from nas.profiles import anatomy_of, default_file, load_profile, measure_profile
from nas.profiling import Plan, built_ahead, planned
from nas.tables import profile_view
from tests.nas.small_space import Small

SPACE = "tests.nas.small_space:Small"
EFFORT = PartsEffort(free=0, calls=3, seconds=1)
PLAN = Plan(fit=2, check=2, every=True, blocks=4, repeats=1)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def measured(cache):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HWNAS_CACHE", str(cache))
        patch.setattr(profiling, "LONG_S", 0.0)  # as if its networks were long
        patch.setattr(profiling, "PARTS", EFFORT)
        yield measure_profile(SPACE, image_size=48, in_channels=1, num_classes=3, plan=PLAN)


@pytest.fixture(scope="module")
def file(measured, tmp_path_factory):
    path = tmp_path_factory.mktemp("profile") / "p.json"
    measured.data.write(path)
    return path


def test_every_network_is_measured_in_every_precision_and_mixed(measured):
    networks = [s for s in measured.data.subjects if s.role == "network"]
    assert {s.kind for s in networks} == {"fp32", "int8", "mixed"}
    assert all(s.parts and s.size_bytes > 100 for s in networks)
    assert any(s.held_out for s in networks) and any("parts again" in s.results for s in networks)
    fitted = {tuple(s.arch.items()) for s in networks if not s.held_out}
    assert fitted.isdisjoint(tuple(s.arch.items()) for s in networks if s.held_out)


def test_latencies_are_predicted_with_an_interval(measured):
    arch = {"width": 8, "depth": 2, "kernel0": 3, "kernel1": 3}
    prediction = measured.predict(arch, "int8")
    assert prediction.mean.shape == (1,) and 0 < prediction.mean[0] < 1e-2 and prediction.half_width(0.9)[0] > 0
    assert measured.predict(measured.seen[0].arch).mean[0] > 0
    mixed = measured.predict(arch, {"stem": "int8"})
    assert mixed.mean[0] != prediction.mean[0]


def test_what_the_space_does_not_have_is_refused(measured):
    with pytest.raises(ValueError, match="precision 'int4' is not among those profiled: fp32, int8"):
        measured.predict({"width": 8}, "int4")
    with pytest.raises(ValueError, match="there is no block 'nothing': there are"):
        measured.predict({"width": 8}, {"nothing": "int8"})
    with pytest.raises(ValueError, match="width"):
        measured.predict({"width": 7})


def test_the_summary_has_every_score_beside_simpler_predictors(measured):
    summary = json.loads(json.dumps(measured.summary(), allow_nan=False))
    for found in summary["precisions"].values():
        assert set(found) == {"heldout", "macs_only", "plain_sum"}
        for score in found.values():
            assert list(score) == ["n", "mape", "within_5pct", "within_10pct", "spearman", "coverage_90", "noise_floor"]
        assert 0 <= found["heldout"]["coverage_90"] <= 1 and found["macs_only"]["coverage_90"] is None
    assert summary["wall_s"] > 0 and summary["timed"] == "by parts" and summary["space"]["name"] == SPACE
    assert profile_view(summary)


def test_a_file_is_the_same_profile(measured, file):
    again = load_profile(file)
    assert again.summary() == measured.summary()
    rows = measured.anatomy.space.sample(20, np.random.default_rng(0))
    placed = measured.anatomy.placed_rows(rows)
    np.testing.assert_allclose(again.table.predict(placed).mean, measured.table.predict(placed).mean, rtol=1e-9)
    assert read_profile(file) == measured.data


def test_what_was_measured_is_not_measured_again(measured, cache, monkeypatch):
    monkeypatch.setenv("HWNAS_CACHE", str(cache))
    monkeypatch.setattr(profiling, "LONG_S", 0.0)
    monkeypatch.setattr(profiling, "PARTS", EFFORT)
    monkeypatch.setattr("latency.timing.Timing.doubtful", False)  # what is doubtful is timed again
    monkeypatch.setattr("latency.harness.worker", lambda _: pytest.fail("measured again"))
    again = measure_profile(
        SPACE, image_size=48, in_channels=1, num_classes=3, plan=dataclasses.replace(PLAN, repeats=0)
    )
    was = {s.key: s.results["parts"] for s in measured.data.subjects if "parts" in s.results}
    assert {s.key: s.results["parts"] for s in again.data.subjects if "parts" in s.results} == was


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"device": "cpu:torch"}, "runs fp32 only"),
        ({"image_size": 1}, "4 pixels a side and 1 channel at least, got 1 and 3"),
        ({"preset": "tiny"}, "presets belong to the ready-made spaces"),
    ],
)
def test_what_cannot_be_met_is_found_before_anything_is_opened(monkeypatch, arguments, message):
    monkeypatch.setattr(profiles, "MeasurementStore", lambda **_: pytest.fail("opened"))
    with pytest.raises(ValueError, match=message):
        measure_profile(SPACE, plan=PLAN, **arguments)


def test_a_file_that_cannot_be_written_is_refused_before_the_work(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for out, message in ((tmp_path, "is a folder"), (tmp_path / "file" / "p.json", "cannot be written")):
        assert _run(["profile", "--out", str(out)]) == 2
        assert message in capsys.readouterr().err


def test_a_changed_space_is_refused(measured):
    other = measured.data.model_copy(update={"space": measured.data.space.model_copy(update={"fingerprint": "0" * 16})})
    with pytest.raises(ValueError, match="has changed since it was profiled"):
        anatomy_of(other)
    assert anatomy_of(measured.data, Small).space == measured.anatomy.space


@pytest.mark.parametrize("content", ["", "{}", "not json", '{"format": 1}'])
def test_other_files_are_refused_in_one_line(tmp_path, content):
    path = tmp_path / "p.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"p\.json is no device profile of this version") as error:
        read_profile(path)
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=r"no profile .*none"):
        read_profile(tmp_path / "none.json")


def test_a_profile_without_networks_is_refused(measured):
    empty = measured.data.model_copy(update={"subjects": measured.data.subjects[:1]})
    with pytest.raises(ValueError, match="needs measured networks"):
        fit_profile(empty, measured.anatomy)


def test_without_parts_blocks_are_measured_alone(measured):
    subjects = planned(measured.anatomy, dataclasses.replace(PLAN, every=False), seed=0, by_parts=False)
    assert all(way.startswith("wall") for s in subjects for way in s.ways)
    assert sum(s.role == "block" for s in subjects) == 4 and {s.kind for s in subjects if s.role == "block"} == {
        "fp32",
        "int8",
    }


def test_a_profile_of_walls_is_a_block_table(measured):
    """As another run-time would give it: the same times, without their parts."""
    wall = {"samples_s": [3e-5] * 4, "calls_per_sample": 1, "cpu_samples_s": [3e-5] * 4, "groups": [4]}
    subjects = planned(measured.anatomy, PLAN, seed=0, by_parts=False)
    for i, subject in enumerate(subjects):
        times = {**wall, "samples_s": [(1 if subject.role == "call" else 2 + i % 5) * 1e-5] * 4}
        subject.results = dict.fromkeys(subject.ways, times)
    fitted = fit_profile(measured.data.model_copy(update={"subjects": subjects}), measured.anatomy)
    assert fitted.summary()["timed"] == "whole" and not fitted.table.sited


def test_subjects_are_built_ahead_in_order_and_not_too_far():
    built = []
    pairs = built_ahead(range(10), lambda i: built.append(i) or -i, ahead=2)
    assert next(pairs) == (0, 0) and len(built) <= 4
    assert list(pairs) == [(i, -i) for i in range(1, 10)]
    assert list(built_ahead("ab", str.upper, ahead=0)) == [("a", "A"), ("b", "B")]


def test_a_failure_to_build_reaches_the_caller():
    with pytest.raises(ZeroDivisionError):
        list(built_ahead([1, 0], lambda i: 1 // i, ahead=2))


def test_the_default_file_is_named_after_space_and_device(measured):
    assert default_file(measured.data).as_posix() == "profiles/Small-48-cpu.json"
    assert isinstance(measured.data, ProfileData) and nas.load_profile is load_profile


# -- the time that a profile may take ----------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch, cache):
    """What is asked of the device: networks of one microsecond, the first time left alone as little as `free` says."""
    found = SimpleNamespace(requests=[], free=[], clock=0.0, group_s=1.0)

    def answer(models, device, effort, store, on_contention, references):
        found.requests.append((models, effort.seconds))
        found.clock += found.group_s
        free = found.free.pop(0) if found.free else 2.5
        node = Node("/stem.0/Conv", "Conv", 2, (1e-6 * len(found.requests),))
        return [Parts((node,), 6, free, 1e-3 if free > 1 else 1.2e-3) for _ in models]

    monkeypatch.setenv("HWNAS_CACHE", str(cache))
    monkeypatch.setattr(profiling, "LONG_S", 0.0)
    monkeypatch.setattr(profiling, "PARTS", PartsEffort(free=2.5, calls=6, seconds=3))
    monkeypatch.setattr(profiling, "measure_parts", answer)
    monkeypatch.setattr(profiling.time, "monotonic", lambda: found.clock)
    return found


def profiled(seconds):
    plan = dataclasses.replace(PLAN, repeats=0, seconds=seconds)
    return measure_profile(SPACE, image_size=48, in_channels=1, num_classes=3, plan=plan).data


def test_what_was_hardly_left_alone_is_timed_again_in_what_time_is_left(asked):
    asked.free = [2.5, 0.2]
    data = profiled(100.0)
    (first, _), (hardly, seconds), *_ = asked.requests
    again, last_s = asked.requests[-1]
    assert sorted(again) == sorted(hardly) and len(first) == AT_ONCE - 1 and seconds == last_s == 3
    timed = [s.results["parts"] for s in data.subjects if "parts" in s.results]
    assert all(found["free"] == 2.5 for found in timed)
    assert {found["nodes"][0][3][0] for found in timed} == {1, len(asked.requests)}


def test_when_the_time_is_over_nothing_is_timed_again(asked):
    asked.free, asked.group_s = [0.2] * 9, 50.0
    data = profiled(100.0)
    assert len(asked.requests) == 2 and asked.requests[0][1] == 3 and asked.requests[1][1] == 3
    profile = fit_profile(data, anatomy_of(data))
    assert profile.summary()["warnings"][0].startswith("14 of 14 networks were hardly left alone")


@pytest.mark.parametrize(("visits", "seconds", "gone", "kept_s"), [(1, 99, 1, 2e-6), (2, 99, 2, 1e-6), (2, 0, 0, 2e-6)])
def test_calls_that_were_hardly_left_alone_are_timed_again_and_the_better_time_stays(
    monkeypatch, cache, visits, seconds, gone, kept_s
):
    first = []  # the model with which each go through all of them begins

    def answer(models, device, effort, store):
        if not first or models[0] == first[0]:
            first.append(models[0])
        took_s, quiet = [(2e-6, False), (3e-6, False), (1e-6, True)][len(first) - 1]
        measured = SimpleNamespace(timing=Timing((took_s,), 1, (took_s,), (1,), (quiet,)), contention=None)
        return [measured] * len(models)

    monkeypatch.setenv("HWNAS_CACHE", str(cache))
    monkeypatch.setattr(profiling.Profiler, "_by_parts", lambda self: False)
    monkeypatch.setattr(profiling, "measure_models", answer)
    monkeypatch.setattr(profiling, "_VISITS", visits)
    data = profiled(seconds)
    assert {s.wall_s() for s in data.subjects} == {kept_s} and len(first) == 1 + gone
    warnings = fit_profile(data, anatomy_of(data)).summary()["warnings"]
    assert [" were hardly left alone" in warning for warning in warnings] == [True] * (kept_s > 1e-6)


def test_of_a_model_only_the_way_in_which_it_was_hardly_left_alone_is_timed_again():
    wall = dataclasses.asdict(Timing((1e-6,), 1, (1e-6,), (1,), (False,)))
    parts = Parts((Node("a", "block", 0, (1e-6,)),), 6, 0.2, None).plain()
    subject = Subject(key="a", role="network", ways=("parts", "wall"), results={"parts": parts, "wall": wall})
    ways = subject.ways_of(again=False)
    assert profiling._hardly_known((subject, ways), whole=True) == (subject, ("wall",))
    assert profiling._hardly_known((subject, ways), whole=False) == (subject, ("parts",))
    subject.results = {"parts": {**parts, "free": 2.5}}
    assert not any(profiling._hardly_known((subject, ways), whole) for whole in (False, True))


def test_a_slow_minute_is_taken_off(asked):
    asked.free = [2.5, 0.2]
    asked.group_s = 200.0
    data = profiled(100.0)
    slow = [s for s in data.subjects if s.role == "network" and s.results["parts"]["free"] == 0.2]
    cost, seen = _profiler_cost(data.subjects), fit_profile(data, anatomy_of(data)).seen
    raw = {s.key: s.parts.seconds(cost) for s in slow}
    networks = [s.key for s in data.subjects if s.role == "network"]
    found = {key: s.seconds for key, s in zip(networks, seen, strict=True)}
    assert raw and all(found[key] == pytest.approx(t / 1.2) for key, t in raw.items())
