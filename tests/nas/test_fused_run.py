"""Searches on `cpu:fused`, from profile to report: a small run, its files really compiled for, run and measured."""

import json

import numpy as np
import pytest
from command import nas as command
from compiled import share_kernels
from small_space import Small

import nas.inherit
import nas.pipeline
from latency.compare import is_faster
from latency.device import parse_device
from latency.runtimes.opening import open_session
from latency.worker import Effort
from nas.config import Settings
from nas.errors import CannotBeDone
from nas.pipeline import run
from nas.profiling import Plan
from nas.progress import SilentReporter
from nas.report import headline, page
from nas.results import verify_again
from nas.retarget import retarget
from nas.tables import front_table
from supernet.data import load_data

SPACE, FUSED = "small_space:Small", "cpu:fused"
GLANCE = Effort(rounds=1, most_rounds=1, samples=4)


def with_little_effort(patch):
    """Every file is timed, hardly, and little of anything is done."""
    for name in ("describe", "profiling", "retarget", "verify"):
        patch.setattr(f"nas.{name}.QUICK", GLANCE)
    patch.setattr("nas.verify.CAREFUL", GLANCE)
    patch.setattr("nas.results.CAREFUL", GLANCE)
    patch.setattr(nas.pipeline, "SEARCHING", Plan(fit=2, check=2, every=False, blocks=24, repeats=0))
    for name, value in {"FIRST": 6, "SCALED": 4, "ROUNDS": 1, "A_ROUND": 2}.items():
        patch.setattr(nas.inherit, name, value)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    share_kernels(folder)
    return folder


@pytest.fixture(scope="module")
def little(cache):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HWNAS_CACHE", str(cache))
        with_little_effort(patch)
        yield patch


def settings_on(device, precisions):
    dataset = load_data("digits")
    settings = Settings(
        space=SPACE,
        data_fingerprint=dataset.fingerprint,
        device=device,
        precisions=precisions,
        epochs=1,
        evaluations=4,
        baselines=False,
        seed=1,
    )
    return settings, dataset


def searched(folder, device, precisions):
    settings, dataset = settings_on(device, precisions)
    return run(settings, Small, dataset, folder, SilentReporter())


@pytest.fixture(scope="module")
def made(cache, little):
    return cache / "fused", searched(cache / "fused", FUSED, ("int8",))


def test_every_point_is_a_file_that_is_faster_than_on_onnx_runtime(made):
    folder, record = made
    assert record["device"]["name"] == FUSED and record["front"] == json.loads((folder / "front.json").read_text())
    assert {"compiler", "kernels"} <= set(record["device"]["environment"])
    for point in record["front"]:
        beside, seconds = point["baseline"], point["latency_s"]["median"]
        assert beside["device"] == "cpu" and beside["factor"] == beside["latency_s"] / seconds
        assert is_faster(seconds, beside["latency_s"]) and point["int8_share"] == 1.0
        images = np.zeros((2, 1, 8, 8), np.float32)
        assert open_session(folder / point["file"], parse_device(FUSED)).run(images).shape == (2, 10)


def test_the_profile_has_each_block_on_both(made):
    folder, record = made
    profile, found = json.loads((folder / "profile.json").read_text()), record["profile"]["dispatch"]
    blocks = [s for s in profile["subjects"] if s["role"] == "block"]
    assert blocks and all(set(s["results"]) == {"parts", "baseline"} for s in blocks)
    assert {s["role"] for s in profile["subjects"]} == {"frame", "block", "network"}
    networks = [s for s in profile["subjects"] if s["role"] == "network"]
    assert networks and all(set(s["results"]) == {"parts", "wall"} for s in networks)
    assert profile["prices"]["call_s"] >= 0
    assert found["baseline"] == "cpu" and len(found["rows"]) == found["blocks"]
    assert {"stem", "body.0"} <= {row["block"] for row in found["rows"]} <= {"stem", "body.0", "body.1", "classifier"}


def test_the_report_tells_by_how_much(made):
    _, record = made
    shown = page(record)
    assert "times as fast as the same files on cpu." in headline(record)
    assert "times as fast as on cpu" in shown and "Blocks on cpu:fused and on cpu" in shown
    assert front_table(record["front"]).columns[7].header == "against cpu"


def test_verifying_again_measures_both_again(made, little):
    folder, record = made
    rows = verify_again(folder, SilentReporter(), 0)
    assert len(rows) == len(record["front"]) and all(row["baseline"]["device"] == "cpu" for row in rows)
    little.setattr("nas.baseline.is_faster", lambda *_: False)
    try:
        assert {row["verdict"] for row in verify_again(folder, SilentReporter(), 0)} == {"not faster than on cpu now"}
    finally:
        little.setattr("nas.baseline.is_faster", is_faster)


def test_where_no_file_is_faster_there_is_no_front_and_the_factors_are_said(cache, little):
    little.setattr("nas.baseline.is_faster", lambda *_: False)
    try:
        with pytest.raises(
            CannotBeDone, match=r"none of \d+ files is 3 % faster on cpu:fused than on cpu \(.* times as"
        ):
            searched(cache / "slow", FUSED, ("int8",))
    finally:
        little.setattr("nas.baseline.is_faster", is_faster)
    assert not (cache / "slow" / "record.json").exists()


def test_a_run_on_onnx_runtime_is_carried_over_in_int8_alone(cache, little):
    searched(cache / "cpu", "cpu", ("fp32", "int8"))
    folder, record = retarget(cache / "cpu", FUSED, cache / "there", SilentReporter(), timings=10, space=Small)
    assert record["settings"]["precisions"] == ["int8"] or record["settings"]["precisions"] == ("int8",)
    assert all(point["baseline"]["device"] == "cpu" for point in record["front"]) and (folder / "report.html").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ("search", "--precision", "fp32,int8"),
            "runs int8 only (our fused kernels are for int8 throughout): give --prec",
        ),
        (("quantize", "x.onnx", "--precision", "fp32,int8"), "got 'fp32,int8': give --precision int8"),
        (("profile", "--onnx", "x.onnx"), "--onnx needs ONNX Runtime's profiler on a CPU, got the device 'cpu:fused'"),
    ],
)
def test_what_cannot_be_had_is_refused_in_one_line_before_any_work(arguments, words, cache, tmp_path):
    (tmp_path / "x.onnx").touch()
    done = command(*arguments, "--device", FUSED, cwd=tmp_path, cache=cache)
    assert done.returncode in (1, 2) and done.stderr.count("\n") == 1 and words in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["x.onnx"]
