"""A device held against its baseline."""

import dataclasses

from latency.device import parse_device
from latency.worker import Effort
from nas.baseline import Baseline, measure_both, no_file_pays
from tests.latency.small_model import model
from tests.nas.test_verify import again, point, still_best


def test_a_file_must_be_three_percent_faster():
    baseline = Baseline("cpu", 1.03)
    assert baseline.factor(0.5) == 2.06
    assert not baseline.beaten_by(1.0) and not baseline.beaten_by(2.0) and baseline.beaten_by(0.99)
    assert baseline.plain(1.03) == {"device": "cpu", "latency_s": 1.03, "factor": 1.0}


def test_points_that_are_not_leave_the_front_and_make_room():
    slow = dataclasses.replace(point(0, 0.9, 1.0), baseline=Baseline("cpu", 0.97))
    worse = dataclasses.replace(point(1, 0.8, 2.0), baseline=Baseline("cpu", 4.0))
    kept, dropped = still_best([slow, worse], again([slow, worse]), 2)
    assert kept == [worse] and dropped == [("a=0", "not 3 % faster than on cpu: 0.97 times as fast")]
    assert worse.plain("f")["baseline"]["factor"] == 2.0 and "baseline" not in point(0, 0.9, 1.0).plain("f")


def test_no_front_is_an_error_with_the_factors():
    said = no_file_pays([0.5, 1.02], parse_device("cpu:fused,batch=2"))
    assert said == (
        "none of 2 files is 3 % faster on cpu:fused,batch=2 than on cpu:batch=2 (0.50 to 1.02 times as fast): "
        "give --device cpu:batch=2"
    )


def test_a_device_without_a_baseline_is_measured_alone():
    effort = Effort(rounds=1, most_rounds=1, samples=2)
    measured, baselines = measure_both([model(2)], parse_device("cpu"), effort, None)
    assert baselines == [None] and measured[0].median_s > 0
