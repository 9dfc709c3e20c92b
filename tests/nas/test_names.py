"""Names are looked up before anything heavy is loaded."""

import subprocess
import sys
from pathlib import Path

import pytest

from latency import energy
from nas.config import Settings
from nas.names import check_names, parse_objectives, suggestion, usual_precisions

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"space": "mbcon"}, "unknown space 'mbcon' .did you mean 'mbconv'"),
        ({"preset": "tny"}, "has no preset 'tny' .did you mean 'tiny'"),
        ({"device": "cpux"}, "unknown device 'cpux'"),
        ({"device": "cpu:torch"}, "'cpu:torch' runs fp32 only .torch has no int8 .*: give --precision fp32"),
        ({"device": "cpu:fused"}, "'cpu:fused' runs int8 only .our fused kernels .*: give --precision int8"),
        ({"objectives": ("latency", "siez")}, "unknown objective 'siez' .did you mean 'size'"),
        ({"objectives": ("accuracy",)}, "accuracy is an objective of every search"),
        ({"objectives": ("size", "size")}, "must be different costs, one at least, got size, size"),
        (
            {"objectives": ("latency", "size", "macs", "memory", "traffic")},
            "4 costs at most, got 5: bound some",
        ),
        ({"objectives": ()}, "must be different costs, one at least, got none"),
        ({"searcher": "lina"}, "unknown searcher 'lina' .did you mean 'linas'"),
        ({"precisions": ("fp32", "int3")}, "unknown precision 'int3'"),
        ({"strategy": "darts", "searcher": "nsga2"}, "strategy 'darts' is the search itself: leave searcher 'nsga2'"),
        (
            {"strategy": "darts", "supernet": "run"},
            "the weights in run are those of the networks that strategy 'darts'",
        ),
        ({"strategy": "darts", "objectives": ("size",)}, "weighs accuracy against latency, got objectives size"),
        ({"strategy": "darts", "max_size_bytes": 1e6}, "keeps to a bound on latency, got one on size_bytes"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(settings, message):
    with pytest.raises(ValueError, match=message):
        check_names(Settings(**settings))


def test_precisions_are_the_devices_where_none_are_given():
    assert usual_precisions("cpu:threads=1") == ("fp32", "int8") and usual_precisions("cpu:fused") == ("int8",)
    with pytest.raises(ValueError, match="unknown device 'cpux'"):
        usual_precisions("cpux")


@pytest.mark.parametrize("settings", [{"objectives": ("latency", "energy")}, {"max_energy_joules": 0.1}])
def test_energy_is_refused_with_the_reason_where_it_cannot_be_read(settings, monkeypatch, tmp_path):
    monkeypatch.setattr(energy, "POWERCAP", tmp_path)
    with pytest.raises(ValueError, match=r"energy of a call on cpu cannot be measured: no energy .*modprobe"):
        check_names(Settings(**settings))
    with pytest.raises(ValueError, match="energy cannot be an objective or a bound with a profile"):
        check_names(Settings(**settings, profile="far.json"))


@pytest.mark.parametrize("metric", ["memory_bytes", "traffic_bytes", "roofline_s"])
def test_a_profile_tells_latency_and_what_the_file_tells(metric):
    check_names(Settings(objectives=("latency", "size"), max_macs=1e6, profile="far.json"))
    with pytest.raises(ValueError, match="cannot be an objective or a bound with a profile"):
        check_names(Settings(**{f"max_{metric}": 1.0}, profile="far.json"))


def test_roofline_floors_are_known_of_two_run_times():
    check_names(Settings(objectives=("roofline",), device="cpu:batch=4"))
    check_names(Settings(objectives=("roofline",), device="cpu:fused", precisions=("int8",)))
    with pytest.raises(ValueError, match="ONNX Runtime on a CPU and of fused kernels, got device 'cpu:torch'"):
        check_names(Settings(objectives=("roofline",), device="cpu:torch", precisions=("fp32",)))


def test_objectives_are_read_by_commas():
    assert parse_objectives("latency, size") == ("latency", "size")


def test_devices_that_run_fp32_only_take_it():
    check_names(Settings(device="cpu:torch", precisions=("fp32",)))


def test_a_space_of_ones_own_is_left_to_be_found():
    check_names(Settings(space="my_module:Net"))


def test_names_are_checked_without_torch():
    code = (
        "import sys, nas.names, nas.folder, nas.devices; nas.devices.describe_devices(); "
        "assert not {'torch', 'sklearn', 'onnxruntime', 'openvino', 'scipy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_suggestions_are_near_or_absent():
    assert suggestion("lina", {"linas": 1, "random": 2}) == " (did you mean 'linas'?)"
    assert suggestion("xyz", ["linas"]) == ""
