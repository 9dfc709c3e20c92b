"""Networks as folders that run without this toolkit: what is written, and what is refused."""

import json
import shutil

import numpy as np
import pytest
from command import nas as run_nas

import nas
from latency.kernels.intake import program_of
from latency.kernels.native import Native
from nas.config import Settings
from nas.native_export import export_point
from supernet.data import load_data
from tests.nas.small_space import Small

ARCH = {"width": 8, "depth": 2, "kernel0": 3, "kernel1": 1}
SIZES = {"image_size": 8, "in_channels": 1, "num_classes": 10}
FILES = {
    "CMakeLists.txt",
    "README.md",
    "example.cpp",
    "hwnas.cpp",
    "hwnas.h",
    "sample-input.bin",
    "sample-output.bin",
    "weights.bin",
}


@pytest.fixture(scope="module")
def data():
    return load_data("digits")


@pytest.fixture(scope="module")
def network():
    return Small(1, 10).eval()


@pytest.fixture(scope="module")
def int8(network, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("int8")
    return nas.export(network, ARCH, "int8", folder / "net.onnx", images=data.x_train[:64], **SIZES)


def outputs_of(folder, x):
    """What Python's native code makes of images, by the weights of a folder."""
    with Native((folder / "weights.bin").read_bytes()) as opened:
        return opened.run(x)


def assert_whole(folder, more=()):
    assert {file.name for file in folder.iterdir()} == FILES | set(more)
    image = np.fromfile(folder / "sample-input.bin", np.float32).reshape(1, 1, 8, 8)
    expected = np.fromfile(folder / "sample-output.bin", np.float32)
    np.testing.assert_array_equal(outputs_of(folder, image)[0], expected)
    assert len(set(expected)) > 3
    return image


def test_a_file_is_written_with_its_random_sample(int8, data, tmp_path):
    written = nas.export_file(int8, tmp_path / "a")
    image = assert_whole(tmp_path / "a")
    assert set(written["files"]) == FILES and written["input_shape"] == [1, 8, 8] and written["outputs"] == 10
    np.testing.assert_array_equal(outputs_of(tmp_path / "a", data.x_test), program_of(int8).run(data.x_test))
    readme = (tmp_path / "a" / "README.md").read_text()
    assert "64 float32 numbers an image" in readme and "sizes (1, 8, 8)" in readme and "{" not in readme
    assert max(map(len, readme.splitlines())) < 400
    nas.export_file(int8, tmp_path / "b", seed=1)
    assert not np.array_equal(assert_whole(tmp_path / "b"), image)
    nas.export_file(int8, tmp_path / "c", image=data.x_test[3:4])
    np.testing.assert_array_equal(assert_whole(tmp_path / "c"), data.x_test[3:4])


def test_a_network_of_a_space_is_written(network, int8, data, tmp_path):
    images = data.x_train[:64]
    to = nas.export(network, ARCH, "int8", tmp_path / "net", images=images, format="native", **SIZES)
    np.testing.assert_array_equal(assert_whole(to), images[:1])
    np.testing.assert_array_equal(outputs_of(to, data.x_test), program_of(int8).run(data.x_test))
    nas.export(Small, ARCH, "int8", tmp_path / "fresh", format="native", **SIZES)
    assert {file.name for file in (tmp_path / "fresh").iterdir()} == FILES


def test_what_is_not_in_int8_throughout_is_refused_by_name(network, data, tmp_path):
    for policy, message in (
        (None, r"4 of 4 blocks in fp32 \(.*stem.* and 1 more\).*: give 'int8'"),
        ({"stem": "int8"}, "this policy has 3 of 4 blocks in fp32"),
    ):
        with pytest.raises(ValueError, match=message):
            nas.export(network, ARCH, policy, tmp_path / "a", images=data.x_train[:64], format="native", **SIZES)
    file = nas.export(network, ARCH, None, tmp_path / "fp32.onnx", **SIZES)
    with pytest.raises(
        ValueError, match=r"fp32\.onnx cannot be native: fused kernels do not cover .* computes in fp32"
    ):
        nas.export_file(file, tmp_path / "a")
    (tmp_path / "no.onnx").write_bytes(b"no model")
    with pytest.raises(ValueError, match=r"no\.onnx cannot be native: .* it is no ONNX file"):
        nas.export_file(tmp_path / "no.onnx", tmp_path / "a")
    with pytest.raises(ValueError, match="unknown format 'c'"):
        nas.export(network, ARCH, "int8", tmp_path / "a", format="c", **SIZES)
    assert not (tmp_path / "a").exists()


def test_nothing_is_left_of_a_folder_that_cannot_be_written(int8, tmp_path, monkeypatch):
    def full(file):
        raise OSError(28, "No space left on device", str(file))

    monkeypatch.setattr("supernet.atomic._flush", full)
    with pytest.raises(OSError, match="No space"):
        nas.export_file(int8, tmp_path / "a")
    assert not list(tmp_path.iterdir())


def test_folders_that_hold_something_or_somebody_stay_as_they_are(int8, tmp_path, monkeypatch):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("")
    (tmp_path / "file").write_text("")
    for name in ("full", "file"):
        with pytest.raises(ValueError, match=f"{name} is not an empty folder: name another one with --to"):
            nas.export_file(int8, tmp_path / name)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    for here in (".", tmp_path / "empty"):
        with pytest.raises(ValueError, match="is the current folder: name another one with --to"):
            nas.export_file(int8, here)
    monkeypatch.chdir(tmp_path)
    nas.export_file(int8, tmp_path / "empty")
    assert_whole(tmp_path / "empty")


@pytest.fixture(scope="module")
def run(int8, network, data, tmp_path_factory):
    """The folder of a run with two points: in int8, and with blocks in fp32."""
    folder = tmp_path_factory.mktemp("run")
    settings = Settings(space="small_space:Small", data_fingerprint=data.fingerprint)
    (folder / "config.json").write_text(json.dumps(settings.model_dump()))
    mixed = {"stem": "fp32", "body.0": "int8", "body.1": "int8", "classifier": "int8"}
    points = [
        {"file": name, "policy": policy, "accuracy": 0.914, "latency_s": {"median": 12.3e-6}}
        for name, policy in (("a.onnx", mixed), ("b.onnx", dict.fromkeys(mixed, "int8")))
    ]
    (folder / "b.onnx").write_bytes(int8.read_bytes())
    device = {"name": "cpu:fused", "batch": 1, "environment": {"cpu": "Some CPU"}}
    record = {"front": points, "device": device, "data": {"name": "digits"}, "settings": settings.model_dump()}
    (folder / "record.json").write_text(json.dumps(record))
    return folder


def test_a_point_is_written_with_what_the_run_knows(run, data, tmp_path):
    to = tmp_path / "deploy"
    done = run_nas(
        "export", run, "--point", 1, "--format", "native", "--to", to, "--json", cwd=tmp_path, cache=tmp_path
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(assert_whole(to, ["card.json"]), data.x_test[:1])
    readme, card = (to / "README.md").read_text(), json.loads((to / "card.json").read_text())
    for said in (
        "Point 1 of",
        "91.4 % on",
        "12.3 µs a call, measured on",
        "cpu:fused (Some CPU)",
        f"with mean {data.mean[0]:.6g}",
    ):
        assert said in readme
    assert card["accuracy"] == 0.914 and card["preprocessing"]["std"] == list(data.std)
    assert json.loads(done.stdout)["card"] == card


def test_predicted_latencies_are_said_to_be(run, data, tmp_path):
    record = json.loads((run / "record.json").read_text()) | {"predicted": {"profile": "p.json"}}
    other = shutil.copytree(run, tmp_path / "run")
    (other / "record.json").write_text(json.dumps(record))
    export_point(other, 1, tmp_path / "deploy", dataset=data)
    assert "12.3 µs a call, predicted, not measured," in (tmp_path / "deploy" / "README.md").read_text()


def test_a_result_writes_its_points(run, data, tmp_path):
    result = nas.Result(run, json.loads((run / "record.json").read_text()), Small, data)
    written = result.export(1, tmp_path / "deploy", format="native")
    assert written["card"]["accuracy"] == 0.914
    np.testing.assert_array_equal(assert_whole(tmp_path / "deploy", ["card.json"]), data.x_test[:1])
    with pytest.raises(ValueError, match="unknown format 'c'"):
        result.export(1, tmp_path / "other", format="c")


def test_a_point_with_blocks_in_fp32_is_refused_by_name(run, tmp_path):
    done = run_nas("export", run, "--point", 0, "--format", "native", "--to", "a", cwd=tmp_path, cache=tmp_path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "point 0 has 1 of 4 blocks in fp32 (stem), and native kernels compute in int8 throughout" in done.stderr
    assert done.stderr.endswith(": export point 1\n")
    assert not list(tmp_path.iterdir())


def test_a_file_is_written_by_the_command(int8, tmp_path):
    done = run_nas("export", int8, "--format", "native", "--out", "a", cwd=tmp_path, cache=tmp_path)
    assert done.returncode == 0 and "README.md says how to build it" in done.stdout + done.stderr
    assert_whole(tmp_path / "a")


@pytest.mark.parametrize("arguments, message", [
    (("a.onnx", "--format", "native"), "there is no file a.onnx: give FILE.onnx or a run folder"),
    (("a.onnx",), "a.onnx is an ONNX file already: give --format native"),
    (("a.onnx", "--point", "1", "--format", "native"), "--point says nothing beside a.onnx"),
    (("run",), "give --point, its number in the table of the front"),
    (("run", "--point", "1", "--format", "c"), "unknown format 'c': there are onnx and native"),
    (("run", "--point", "1", "--format", "native"), "run holds no run"),
])  # fmt: skip
def test_wrong_usage_of_formats(arguments, message, tmp_path):
    done = run_nas("export", *arguments, "--to", "to", cwd=tmp_path, cache=tmp_path)
    assert done.returncode in (1, 2) and message in done.stderr and done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())
