"""Two fronts side by side, from points that are known."""

import json

import pytest

from experiments import fused_front
from experiments.fused_front import CPU, FUSED, check_alike, compared, gains, plot, study
from nas.config import Settings


def point(val_accuracy, seconds, baseline_s=None):
    beside = (
        {"baseline": {"device": "cpu", "latency_s": baseline_s, "factor": baseline_s / seconds}} if baseline_s else {}
    )
    median = {"latency_s": {"median": seconds}}
    return {"val_accuracy": val_accuracy, "accuracy": val_accuracy, "policy": {"stem": "int8"}, **median, **beside}


SLOW = [point(0.5, 2e-3), point(0.9, 8e-3)]
FAST = [point(0.5, 1e-3, 3e-3), point(0.95, 2e-3, 3e-3)]


def settings(device, **other):
    given = {"supernet_fingerprint": "a", "data_fingerprint": "d", "space_fingerprint": "s", "device": device, **other}
    return Settings(**given)


def test_a_front_against_itself_is_a_draw_and_a_better_one_wins():
    assert compared({FUSED: SLOW, CPU: SLOW})["ratio"] == 1.0
    found = compared({FUSED: FAST, CPU: SLOW})
    assert found["ratio"] > 1 and 0 < found["hypervolume"][CPU] < found["hypervolume"][FUSED] < 1
    assert found["as_accurate"]["files"] == found["as_accurate"]["of"] == 2
    assert found["as_accurate"]["times_as_fast"] == pytest.approx((2 * 4) ** 0.5)


def test_files_that_are_less_accurate_are_no_match():
    assert gains(SLOW[:1], SLOW) == [1.0] and gains(SLOW[:1], SLOW[1:]) == []
    assert compared({FUSED: SLOW[:1], CPU: SLOW[1:]})["as_accurate"]["times_as_fast"] is None


@pytest.mark.usefixtures("two_cores")
def test_runs_that_differ_in_more_than_the_device_are_refused():
    check_alike(settings("cpu:fused", precisions=("int8",)), settings("cpu"))
    check_alike(settings("cpu:fused,threads=2"), settings("cpu:threads=2"))
    for ours, theirs, words in (
        (settings("cpu"), settings("cpu"), "expected a run on cpu:fused, got one on cpu: give --runs FUSED CPU"),
        (settings("cpu:fused", supernet_fingerprint=None), settings("cpu"), "trained a supernet each"),
        (settings("cpu:fused"), settings("cpu", evaluations=9), "differ in evaluations, 28 and 9"),
        (settings("cpu:fused"), settings("cpu", supernet_fingerprint="b"), "differ in supernet_fingerprint"),
        (settings("cpu:fused,threads=2"), settings("cpu"), "differ in threads"),
        (settings("cpu:fused,batch=2"), settings("cpu"), "differ in batch"),
    ):
        with pytest.raises(ValueError, match=words):
            check_alike(ours, theirs)


def test_a_table_a_plot_and_the_numbers_are_written(tmp_path, monkeypatch, capsys):
    fronts, places = {"a": FAST, "b": SLOW}, {"a": "cpu:fused", "b": "cpu"}
    monkeypatch.setattr(fused_front, "read_settings", lambda folder: settings(places[folder.name]))
    monkeypatch.setattr(fused_front, "read_record", lambda folder: {"front": fronts[folder.name]})
    study([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    found = json.loads((tmp_path / "out" / "fronts.json").read_text())
    assert found["fronts"] == {FUSED: FAST, CPU: SLOW} and (tmp_path / "out" / "fronts.html").stat().st_size > 1000
    said = capsys.readouterr().out
    assert "3 ms (3.00 x)" in said and f"ratio {found['ratio']:.3f}" in said and "as accurate as 2 of 2 on cpu" in said
    assert [trace.name for trace in plot({FUSED: FAST, CPU: SLOW}).data] == [FUSED, CPU]
