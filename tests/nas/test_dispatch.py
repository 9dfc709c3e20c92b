"""Blocks of a profile by which of two devices is faster, from times that are known."""

import numpy as np
import pytest
from small_space import Small

from latency.attribution import LEAST_S
from latency.blocks import BlockTracer
from latency.parts import Node, Parts
from nas.anatomy import Anatomy
from nas.blocks_alone import BlocksAlone
from nas.dispatch import dispatch
from nas.profile_data import ProfileData, ProfiledSpace
from nas.profiling import SEARCHING, Plan, planned
from search_spaces.network import find_space

FRAME_S, THERE_S = 1e-6, 2e-6


def timed(seconds):
    return {"samples_s": [seconds], "calls_per_sample": 1, "cpu_samples_s": [seconds], "groups": [1]}


def by_parts(seconds):
    return Parts((Node("a", "block", 0, (seconds / 4,)), Node("b", "add", 0, (3 * seconds / 4,))), 9, 2.5).plain()


def profile(device="cpu:fused", runtime="fused", framed=True):
    """A profile in which blocks of 4 channels take 2 µs here, others 8, all of them 6 on the baseline."""
    network = Small(1, 10)
    anatomy = Anatomy(find_space(network), BlockTracer(network, (1, 8, 8)), ("int8",))
    subjects = [s for s in planned(anatomy, SEARCHING, 0, framed, framed) if s.role != "network"]
    for subject in subjects:
        here = 2e-6 if subject.arch.get("width") == 4 else 8e-6
        alone = (here, 6e-6) if subject.role == "block" else (0.0, 0.0)
        here, there = alone[0] + FRAME_S, alone[1] + THERE_S
        subject.results = {"parts": by_parts(here), "baseline": timed(there)} if framed else {"wall": timed(here)}
        assert set(subject.results) == set(subject.ways)
    space = ProfiledSpace(
        name="small", preset=None, input_shape=(1, 8, 8), num_classes=10, precisions=("int8",), fingerprint=""
    )
    data = ProfileData(
        device=device,
        threads=1,
        runtime=runtime,
        fingerprint="",
        environment={},
        space=space,
        seed=0,
        subjects=subjects,
    )
    return data, anatomy


def test_each_shape_has_a_row_and_the_faster_device():
    found = dispatch(*profile())
    assert found["baseline"] == "cpu" and found["blocks"] == len(found["rows"])
    factors = [row["factor"] for row in found["rows"]]
    assert factors == sorted(factors) and {round(f, 6) for f in factors} == {0.75, 3.0}
    for row in found["rows"]:
        assert row["faster"] == ("cpu:fused" if row["factor"] > 1 else "cpu") and row["macs"] > 0
        assert (row["latency_s"], row["baseline_s"]) == pytest.approx((2e-6 if row["factor"] > 1 else 8e-6, 6e-6))
    assert found["faster"] == sum(f > 1 for f in factors)
    assert found["factor"] == pytest.approx({"least": 0.75, "median": np.median(factors), "most": 3.0})
    assert {row["shape"] for row in found["rows"] if row["block"] == "stem"} == {
        "1x8x8: dense 3x3/2 4", "1x8x8: dense 3x3/2 8"
    }  # fmt: skip


def test_a_device_without_a_baseline_has_no_table():
    assert dispatch(*profile("cpu", "onnxruntime", framed=False)) is None


def test_steps_are_corrected_as_those_of_networks_are():
    data, anatomy = profile()
    found = dispatch(data, anatomy, 1.25, 1e-6)
    assert {round(1e9 * row["latency_s"]) for row in found["rows"]} == {3500, 11000}
    assert min(row["latency_s"] for row in dispatch(data, anatomy, 1.0, -1.0)["rows"]) == LEAST_S


def test_what_is_around_a_block_is_taken_off():
    for framed in (True, False):
        data, anatomy = profile(framed=framed)
        alone = BlocksAlone(data, anatomy)
        assert {round(1e9 * alone.seconds(s)) for s in alone.subjects} == {2000, 8000}
        if framed:
            assert {round(1e9 * alone.seconds(s, "baseline")) for s in alone.subjects} == {6000}


def test_a_block_costs_something_and_one_whose_frame_is_missing_is_not_known():
    data, anatomy = profile()
    subject = next(s for s in data.subjects if s.role == "block")
    subject.results = {"parts": by_parts(FRAME_S / 2), "baseline": timed(THERE_S)}
    assert BlocksAlone(data, anatomy).seconds(subject) == LEAST_S
    frames = [s for s in data.subjects if s.role == "frame"]
    first = BlocksAlone(data, anatomy).block_of(frames[0]).input_shape
    data.subjects.remove(frames[0])
    left = BlocksAlone(data, anatomy)
    assert left.subjects and all(left.block_of(s).input_shape != first for s in left.subjects)


def test_networks_are_fitted_by_parts_and_checked_whole_where_blocks_have_frames():
    network = Small(1, 10)
    anatomy = Anatomy(find_space(network), BlockTracer(network, (1, 8, 8)), ("int8",))
    plan = Plan(fit=2, check=3, every=True, blocks=6, repeats=1)
    subjects = planned(anatomy, plan, 0, True, framed=True)
    of = {role: [s for s in subjects if s.role == role] for role in ("call", "block", "frame", "network")}
    assert not of["call"] and len(of["block"]) == 2 and len(of["frame"]) in (1, 2)
    fitted, held_out = ([s for s in of["network"] if s.held_out == held] for held in (False, True))
    assert 4 <= len(fitted) <= 6 and 1 <= len(held_out) <= 3
    assert all(s.ways[:2] == ("parts", "wall") for s in of["network"])
    assert [s.ways[2:] for s in held_out] == [("wall again",)] + [()] * (len(held_out) - 1)
    walls = planned(anatomy, plan, 0, False, framed=True)  # of several threads
    assert {s.ways for s in walls if s.role in ("block", "frame")} == {("wall", "baseline")}
    assert not any(way.startswith("parts") for s in walls for way in s.ways)


@pytest.mark.parametrize("way", ["parts", "baseline"])
def test_a_block_that_makes_a_call_hardly_longer_has_no_row(way):
    data, anatomy = profile()
    for subject in (s for s in data.subjects if s.role == "block" and s.arch.get("width") == 4):
        subject.results[way] = by_parts(1.04 * FRAME_S) if way == "parts" else timed(1.04 * THERE_S)
    assert {round(row["factor"], 6) for row in dispatch(data, anatomy)["rows"]} == {0.75}
    for subject in (s for s in data.subjects if s.role == "block"):
        subject.results["baseline"] = timed(1.04 * THERE_S)
    assert dispatch(data, anatomy) is None
