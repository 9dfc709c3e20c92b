"""What stays on the front after verification."""

import dataclasses
from types import SimpleNamespace

import pytest

from latency.contention import Contention
from nas.candidate import Candidate
from nas.objectives import Bound, Problem, maximize, minimize
from nas.verify import Point, _metrics, beside_twins, built, missed, still_best
from search_spaces.space import SearchSpace
from search_spaces.value import Choice

SPACE = SearchSpace("toy", [Choice("a", tuple(range(9)))])
PROBLEM = Problem((maximize("val_accuracy"), minimize("latency_s")))


def point(i, val_accuracy, latency_s, size=10):
    candidate = Candidate(SPACE.row((i,)), b"0" * size, {"stem": "fp32"}, 100, 50)
    ends = (latency_s * 0.9, latency_s * 1.1)
    executed = {"memory_bytes": 2e6, "traffic_bytes": 5e6, "energy_joules": 0.004}
    return Point(candidate, 0.5, val_accuracy, latency_s, ends, 0.8, 20, 0.0, executed, "search", batch=4)


def again(points, problem=PROBLEM):
    return [problem.evaluation(p.candidate.arch, _metrics(p), "verified") for p in points]


def test_dominated_points_go_and_only_expected_ones_count_as_dropped():
    points = [point(0, 0.9, 1.0), point(1, 0.8, 2.0), point(2, 0.95, 3.0), point(3, 0.7, 4.0)]
    kept, dropped = still_best(points, again(points), expected=2)
    assert kept == [points[0], points[2]]
    assert dropped == [("a=1", "dominated after re-measuring")]


def test_validation_decides_and_test_accuracy_does_not():
    points = [point(0, 0.9, 1.0), point(1, 0.91, 2.0)]
    assert still_best(points, again(points), 2)[0] == points


def test_points_over_a_bound_go():
    bounded = Problem(PROBLEM.objectives, (Bound("size_bytes", 20),))
    points = [point(0, 0.9, 1.0, size=30), point(1, 0.8, 2.0)]
    kept, dropped = still_best(points, again(points, bounded), 2)
    assert [p.candidate.arch["a"] for p in kept] == [1] and dropped == [("a=0", "over a bound")]


@pytest.mark.parametrize(
    ("metric", "value"),
    [("memory_bytes", 2e6), ("traffic_bytes", 5e6), ("parameters", 50), ("energy_joules", 0.004)],
)
def test_costs_besides_latency_can_be_bounded(metric, value):
    kept = {}
    for limit in (value, 0.99 * value):
        bounded = Problem(PROBLEM.objectives, (Bound(metric, limit),))
        kept[limit == value] = still_best([point(0, 0.9, 1.0)], again([point(0, 0.9, 1.0)], bounded), 1)[0]
    assert len(kept[True]) == 1 and not kept[False]


def test_a_cost_that_is_made_small_keeps_points_that_latency_alone_would_drop():
    both = Problem((*PROBLEM.objectives, minimize("size_bytes")))
    points = [point(0, 0.9, 1.0, size=30), point(1, 0.9, 2.0, size=20), point(2, 0.9, 2.0, size=40)]
    assert still_best(points, again(points), 3)[0] == points[:1]
    assert still_best(points, again(points, both), 3)[0] == points[:2]


def test_a_point_lists_its_fields():
    plain = point(3, 0.9, 1.0).plain("front/point-00.onnx")
    assert plain["arch"] == {"a": 3} and plain["latency_s"] == {
        "median": 1.0,
        "ci95": [0.9, 1.1],
        "undisturbed": 0.8,
        "quiet_rounds": 20,
        "contention": None,
    }
    assert (plain["memory_bytes"], plain["traffic_bytes"], plain["parameters"]) == (2_000_000, 5_000_000, 50)
    assert plain["size_bytes"] == 10 and plain["provenance"] == "verified"
    assert plain["energy_joules"] == 0.004 and plain["images_per_s"] == 4.0


def test_a_point_tells_who_else_was_there():
    busy = dataclasses.replace(point(3, 0.9, 1.0), contention=Contention(1.0, 0.5, 0.0, 0.2, 0.0))
    assert busy.plain("x.onnx")["latency_s"]["contention"]["other_cores"] == 0.5


def test_misses_are_medians():
    pair = lambda p, v: {"predicted": p, "verified": v}  # noqa: E731
    rows = [{"latency_s": pair(1.0, 1.0 + e), "val_accuracy": pair(0.9, 0.9 - e)} for e in (0.01, 0.02, 0.5)]
    assert missed(rows) == pytest.approx({"latency_miss": 0.02, "accuracy_miss": 0.02})


def precise(i, policy, val_accuracy, latency_s, twins):
    made = point(i, val_accuracy, latency_s)
    candidate = dataclasses.replace(made.candidate, policy=dict(enumerate(policy)))
    return dataclasses.replace(made, candidate=candidate, twins=twins)


def test_a_point_with_fewer_channels_must_be_faster_than_with_all():
    dense, even, faster = point(0, 0.9, 1.03), point(1, 0.9, 1.0), point(2, 0.9, 1.0)
    points = [dense, *(dataclasses.replace(p, twins={"dense": s}) for p, s in ((even, 1.03), (faster, 1.031)))]
    assert [p.unpaid for p in points] == [None, "dense", None]
    kept, dropped = still_best(points[:2], again(points[:2]), 2)
    assert kept == [dense] and dropped == [("a=1", "not 3 % faster than with all its channels")]
    assert still_best(points, again(points), 1)[0] == points[2:]
    assert points[2].plain("f")["twins"] == {"dense": {"latency_s": 1.031}} and "twins" not in dense.plain("f")


def test_a_point_with_fewer_bits_must_be_faster_than_with_more_and_need_not_be_with_fewer():
    points = [
        precise(0, ["fp32", "int8"], 0.9, 1.0, {"fp32": 1.03, "int8": 2.0}),
        precise(1, ["int8", "int8"], 0.9, 1.0, {"fp32": 1.02}),
        precise(2, ["fp32", "int8"], 0.9, 1.0, {"fp32": 1.04, "int8": 0.5}),
        precise(3, ["int8", "w4a8"], 0.9, 1.0, {"fp32": 1.1, "int8": 1.02, "w4a8": 0.9}),
    ]
    assert [p.unpaid for p in points] == ["fp32", "fp32", None, "int8"]
    assert still_best(points, again(points), 4)[1][1] == ("a=1", "not 3 % faster than in fp32 throughout")


def test_a_twin_that_cannot_be_built_is_left_out_and_a_finalist_is_not():
    class Half:
        def build(self, arch):
            if arch["a"] % 2:
                raise ValueError("no kernel")
            return arch

    archs, said = [SPACE.row((i,)) for i in range(4)], []
    stage = SimpleNamespace(advance=lambda: None, say=said.append)
    assert built(archs, {archs[0]}, Half(), stage) == [archs[0], archs[2]]
    assert said == ["1 twin could not be built: no kernel", "2 twins could not be built: no kernel"]
    with pytest.raises(ValueError, match="no kernel"):
        built(archs, archs, Half(), stage)


def test_only_twins_that_keep_to_the_bounds_are_to_be_beaten():
    space = SearchSpace("thin", [Choice("a", (1, 2)), Choice("body.0.density", (0.5, 1.0))])
    sizes = {(0, 0): 20, (0, 1): 30}
    points = [point(0, 0.9, 1.0, size) for size in sizes.values()]
    candidates = [dataclasses.replace(p.candidate, arch=space.row(row)) for p, row in zip(points, sizes, strict=True)]
    points = [dataclasses.replace(p, candidate=c) for p, c in zip(points, candidates, strict=True)]
    bounded = Problem(PROBLEM.objectives, (Bound("size_bytes", 20),))
    assert beside_twins(points, again(points), PROBLEM)[0].twins == {"dense": 1.0}
    assert beside_twins(points, again(points, bounded), bounded)[0].twins == {}
