"""The command line without a run: wrong usage, spaces, help."""

import json
import shutil

import pytest
from command import nas

from search_spaces.catalog import SPACES


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("search", "--space", "mbcon"), "did you mean 'mbconv'?"),
        (("search", "--device", "cuda"), "did you mean 'gpu'?"),
        (("search", "--device", "cpu:threads=9999"), "threads must be"),
        (("search", "--device", "cpu:torch", "--precision", "int8"), "give --precision fp32"),
        (("spaces", "mbconv", "--device", "cpu:torhc"), "did you mean 'torch'?"),
        (("spaces", "--device", "cpu:fused", "--estimate", "5"), "networks of which space are to be ranked?"),
        (("search", "--data", "digts"), "did you mean 'digits'?"),
        (("search", "--data", "missing.npz"), "missing.npz"),
        (("search", "--precision", "int4"), "unknown precision 'int4'"),
        (("search", "--sparsity", "chanels:0.5"), "did you mean 'channels:0.5'?"),
        (("search", "--space", "nas_bench_201", "--sparsity", "channels"), "no block has channels of its own"),
        (("train", "--sparsity", "2:4"), "give channels:0.5"),
        (("search", "--preset", "tny"), "did you mean 'tiny'?"),
        (("search", "--searcher", "random2"), "did you mean 'random'?"),
        (("search", "--max-latency", "2parsecs"), "2parsecs"),
        (("search", "--max-latency", ""), "expected a quantity such as 2ms"),
        (("search", "--data", ""), "data must be named"),
        (("search", "--data", "~nobody-of-this-name/x"), "'~nobody-of-this-name/x'"),
        (("search", "--epoch", "3"), "--epochs"),
        (("search", "--lr", "-1"), "lr"),
        (("search", "--strategy", "sandwhich"), "did you mean 'sandwich'?"),
        (("search", "--supernet", "nowhere"), "holds no run"),
        (("train", "--optimizer", "adam"), "did you mean 'adamw'?"),
        (("train", "--from", "nothing.pth"), "nothing.pth"),
        (("fidelity", "nowhere"), "holds no run"),
        (("fidelity", "nowhere", "--truth", __file__, "--epochs", "3"), "--epochs says nothing beside --truth"),
        (("serch",), "search"),
        (("search", "--space", "no_such_module:Net"), "cannot import 'no_such_module'"),
        (("profile", "--bundle", "b", "--import", "r"), "--bundle says nothing beside --import"),
        (("profile", "--bundle", "b", "--device", "cpu"), "--device says nothing beside --bundle"),
        (("profile", "--import", "r", "--space", "mbconv"), "--space says nothing beside --import"),
        (("profile", "--import", "r"), "no result r: measure.py of a bundle makes one"),
        (("verify", "nowhere", "--bundle", "b", "--out", "o"), "--out says nothing beside --bundle"),
        (("report", "nowhere"), "holds no run"),
        (("measure", "none.onnx"), "'none.onnx' does not exist"),
        (("data", "digits", "--split", "tset", "--out", "x.npz"), "train, val or test, got 'tset'"),
    ],
)
def test_wrong_usage_is_one_line_and_writes_nothing(arguments, message, cache, tmp_path):
    done = nas(*arguments, cwd=tmp_path, cache=cache)
    assert done.returncode == 2
    assert message in done.stderr and done.stderr.startswith("nas: ") and done.stderr.count("\n") == 1
    assert done.stdout == "" and not list(tmp_path.iterdir())


def test_spaces_lists_and_describes(cache, tmp_path):
    listing = nas("spaces", "--json", cwd=tmp_path, cache=cache)
    assert [s["name"] for s in json.loads(listing.stdout)["spaces"]] == list(SPACES)
    described = nas("spaces", "mbconv", "--preset", "tiny", "--json", "--out", tmp_path, cwd=tmp_path, cache=cache)
    assert described.returncode == 0, described.stderr
    part = json.loads(described.stdout)["presets"][0]
    assert [row["what"] for row in part["rows"]] == ["smallest", "middle", "largest"]
    macs = [row["macs"] for row in part["rows"]]
    assert macs == sorted(macs) and json.loads((tmp_path / "spaces.json").read_text())["presets"][0]["rows"]
    assert any(choice["name"] == "resolution" for choice in part["choice_list"])


def test_devices_lists_what_is_here_and_what_is_missing(cache, tmp_path):
    done = nas("devices", "--json", "--out", tmp_path, cwd=tmp_path, cache=cache)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found == json.loads((tmp_path / "devices.json").read_text())
    devices = {device["name"]: device for device in found["devices"]}
    assert list(devices) == ["cpu", "cpu:torch", "cpu:openvino", "cpu:fused", "gpu", "gpu:torch"]
    assert devices["cpu"]["default"] and devices["cpu"]["available"] and devices["cpu"]["versions"]["onnxruntime"]
    assert devices["cpu:torch"]["versions"]["torch"] and found["machine"]["cores"] >= 1
    for device in devices.values():
        assert device["available"] or "install" in device["missing"]
        assert " ".join(device["name"].split()) in " ".join(done.stderr.split())


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="there may be a GPU")
def test_a_gpu_that_is_not_there_is_an_error_with_what_to_do(cache, tmp_path):
    done = nas("search", "--device", "gpu", "--precision", "fp32", cwd=tmp_path, cache=cache)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and not list(tmp_path.iterdir())
    assert "device 'gpu': no NVIDIA GPU was found (asked nvidia-smi" in done.stderr and "install" in done.stderr


def test_every_command_has_one_line_of_help(cache, tmp_path):
    assert nas("--help", cwd=tmp_path, cache=cache).returncode == 0
    for command in ("search", "spaces", "devices", "data", "report", "verify", "export", "measure", "profile"):
        done = nas(command, "--help", cwd=tmp_path, cache=cache)
        assert done.returncode == 0
        for option in ("--json", "--quiet", "--seed", "--out"):
            assert option in done.stdout, (command, option)
